"""A pipeline's folder in, a wheel that pip installs out: spaCy's own package, with a model card as its README."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Optional

from spacy.cli.package import package as write_package

from ..errors import BertHeadsError
from ..evaluation.report import read_report
from ..files import check_writable, remove_folder, write_files
from ..pipeline_io import load_pipeline
from .model_card import check_evaluation, make_model_card


def find_version(distribution: str) -> Optional[str]:
    """RETURNS (Optional[str]): The installed version of a distribution; None if there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def package(
    model: Path,
    output: Path,
    *,
    name: Optional[str] = None,
    version: Optional[str] = None,
    report: Optional[Path] = None,
) -> Path:
    """Build the wheel of a pipeline.

    model (Path): Folder of the trained pipeline.
    output (Path): Folder for the package's own folder, which is replaced if it is there.
    name (Optional[str]): Name of the package, without the language. None: the one in the pipeline's meta.
    version (Optional[str]): Its version. None: the one in the pipeline's meta.
    report (Optional[Path]): Report of `evaluate` on the pipeline, whose scores go into the model card.
    RETURNS (Path): The wheel.
    RAISES (BertHeadsError): H101, H103 or H681 for a report that cannot be read, H680 for one of another pipeline;
        H227 for a pipeline that cannot be loaded; H123 for an output that cannot be written; H410 without `build`;
        H682 if spaCy or pip refuse to build it.
    """
    if find_version("build") is None:
        raise BertHeadsError("H410", found="build", extra="package")
    evaluation = None if report is None else read_report(report)
    nlp = load_pipeline(str(model))
    if nlp.path is None or not model.is_dir():
        raise BertHeadsError("H227", found=str(model), reason="it is no folder")
    if evaluation is not None:
        check_evaluation(evaluation, nlp)
    check_writable(output)
    output.mkdir(parents=True, exist_ok=True)
    try:
        write_package(
            model,
            output,
            name=name,
            version=version,
            create_sdist=False,
            require_parent=True,
            force=True,
            silent=False,
        )
    except SystemExit as error:
        raise BertHeadsError("H682", found="spaCy refused it") from error
    # As spaCy names them
    module, version = name or nlp.meta["name"], version or nlp.meta["version"]
    module = module if module.startswith(f"{nlp.lang}_") else f"{nlp.lang}_{module}"
    folder = output / f"{module}-{version}"
    card = make_model_card(nlp, evaluation, name=module, version=version).encode("utf8")
    write_files({folder / "README.md": card, folder / module / folder.name / "README.md": card})
    # What an earlier build left there would go into this wheel too
    if (folder / "build").is_dir():
        remove_folder(folder / "build")
    done = subprocess.run([sys.executable, "-m", "build", ".", "--wheel"], cwd=folder)
    if done.returncode:
        raise BertHeadsError("H682", found=f"`python -m build` ended with status {done.returncode}")
    return folder / "dist" / f"{folder.name}-py3-none-any.whl"
