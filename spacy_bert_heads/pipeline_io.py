"""Trained pipelines, loaded and written; every command that takes or makes one does it here."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language

from .errors import BertHeadsError
from .files import clean_up, replace_folder


def load_pipeline(model: str) -> Language:
    """Load a trained pipeline.

    model (str): Its folder, or the name of its package. If a killed process was about to replace the folder, it is
        put back.
    RETURNS (Language): The pipeline.
    RAISES (BertHeadsError): H227 if it cannot be loaded.
    """
    with suppress(OSError):
        if not Path(model).exists():
            clean_up(Path(model).parent)
    try:
        return spacy.load(model)
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, BertHeadsError):
            raise
        reason = str(error).strip().split("\n")[0]
        raise BertHeadsError("H227", found=model, reason=reason) from error


def model_name(nlp: Language) -> str:
    """RETURNS (str): Language, name and version of a pipeline, by which its predictions are known."""
    return f"{nlp.meta['lang']}_{nlp.meta['name']}-{nlp.meta['version']}"


def write_pipeline(nlp: Language, output: Path) -> None:
    """Write a pipeline under a temporary name beside its own, then put it into place.

    RAISES (BertHeadsError): H123 if it cannot be written.
    """
    replace_folder(output.absolute(), nlp.to_disk)


def check_output(source: Any, output: Path) -> None:
    """See that nothing but a pipeline is replaced, and not the one that is read.

    source (Any): Path of the one that is read, if it has one.
    output (Path): Where a pipeline is to be written.
    RAISES (BertHeadsError): H246 or H247 if that is something else.
    """
    if source is not None and Path(source).resolve() in (output.resolve(), *output.resolve().parents):
        raise BertHeadsError("H247", path=output)
    is_empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not is_empty and not all((output / name).is_file() for name in ("meta.json", "config.cfg")):
        raise BertHeadsError("H246", path=output)
