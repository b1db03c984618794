"""A new project that runs as it stands: project file, config, annotations or a few samples, a README."""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence, Tuple

from ..corpus.docs import load_tokenizer
from ..corpus.inputs import list_inputs
from ..corpus.readers.options import AUTO, ReadOptions
from ..errors import BertHeadsError, NotWrittenError
from ..files import Staging
from .configs import (
    TOKEN_HEADS,
    config_name,
    default_encoder,
    parse_heads,
    read_template,
    render,
    render_config,
)
from .project_file import Track, render_project
from .survey import Survey, survey

# Languages of the sample annotations: sample_LANG.jsonl, and numbers_LANG.jsonl for regression
SAMPLES = ("en", "zh")
SAMPLE_TEXTS = {
    "en": (
        "Where is my order BK-2093? I bought it on Monday.",
        "The headphones from last week hiss, I want my money back.",
    ),
    "zh": ("我周一买的订单BK-2093到哪了？", "上周买的水壶漏水，我要退款。"),
}
# The folder whose files are all read, and the file in it that stands there until there is another one
ASSETS = "assets"
SAMPLE = f"{ASSETS}/sample.jsonl"
# Without data that says otherwise
DEFAULT_HEADS, DEFAULT_LANG = "textcat,ner", "en"
# Of a few samples, every split gets some
SAMPLE_SPLIT, SPLIT = "0.6,0.2,0.2", "0.8,0.1,0.1"
MAX_NAME = 40
NO_OPTIONS: Mapping[str, str] = {}
# Where the project expects texts that nobody has annotated; convert does not read it
RAW = "raw.jsonl"


@dataclass(frozen=True)
class NewProject:
    """A project that was written.

    files (Tuple[Path, ...]): What was written.
    notes (Tuple[str, ...]): What was found in the data, or that there is only a sample.
    """

    files: Tuple[Path, ...]
    notes: Tuple[str, ...]


def write_project(
    directory: Path,
    *,
    lang: Optional[str] = None,
    heads: Optional[str] = None,
    encoder: Optional[str] = None,
    data: Sequence[Path] = (),
    reading: Mapping[str, str] = NO_OPTIONS,
    force: bool = False,
) -> NewProject:
    """Write a project that runs as it stands: project file, config, annotations, a README.

    The project reads every annotation file in its folder `assets`. Without data, a few samples are there, which it
    leaves out as soon as there is another file.

    directory (Path): Where to. It is made if it is missing. The package gets its name.
    lang (Optional[str]): Language code. None: that of the data, or English.
    heads (Optional[str]): As `parse_heads` reads them. None: what the data teaches, or a text classifier and entities.
    encoder (Optional[str]): Name for BertEncoder.v1, "scratch", or "multilingual". None: `default_encoder`.
    data (Sequence[Path]): Annotation files, and folders of them, which are copied.
    reading (Mapping[str, str]): Options of `convert` by their names in ReadOptions, and "format".
    force (bool): Whether to write into a folder that holds something, over files of the same names.
    RETURNS (NewProject): What was written, and what is to be known about it.
    RAISES (BertHeadsError): H119 if spaCy has no such language; H123 if a file cannot be written; H129, H117 or H173
        if there is nothing to learn from in the data; H218 or H219 for heads; H220 if the folder is not empty.
    """
    if directory.is_file():
        raise NotWrittenError("H123", path=directory, found="there is a file of this name")
    if not force and directory.is_dir() and any(directory.iterdir()):
        raise BertHeadsError("H220", path=directory)
    chosen = None if heads is None else parse_heads(heads)
    sources = list_inputs(data)
    found = None
    if sources:
        options = ReadOptions(**{name: value for name, value in reading.items() if name != "format"})  # type: ignore[arg-type]
        found = survey(sources, options, reading.get("format", AUTO))
    chosen = chosen or (parse_heads(DEFAULT_HEADS) if found is None else list(found.heads))
    lang = lang or (DEFAULT_LANG if found is None else found.lang)
    load_tokenizer(lang)
    encoder = encoder or default_encoder(lang)
    config = f"configs/{config_name(chosen, lang)}"
    track = Track(
        workflow="all",
        title=f"{' and '.join(chosen)} ({lang})",
        lang=lang,
        config=config,
        inputs=(ASSETS,),
        test=None,
        encoder=encoder,
        epochs=0,
        texts=found.texts if found is not None and found.texts else SAMPLE_TEXTS.get(lang, SAMPLE_TEXTS["en"]),
        sample=SAMPLE,
        reading=" ".join(
            f"--{name.replace('_', '-')} {shlex.quote(value)}"
            for name, value in {**reading, **_spans_options(chosen)}.items()
        ),
        has_loop=bool(set(chosen) - {"regression", "spans", "seq2seq"}),
    )
    contents = {
        "project.yml": render_project(
            [track],
            title=f"{' + '.join(chosen)} on one BERT",
            description=f"From the annotation files in {ASSETS}/ to a pipeline package that pip installs.",
            split=SAMPLE_SPLIT if found is None else SPLIT,
            name=package_name(directory),
        ),
        config: render_config(lang, chosen, encoder, path=config),
        "README.md": render(
            "README.md.jinja",
            track=track,
            heads=chosen,
            has_sample=found is None,
            sample_is_english=lang not in SAMPLES,
        ),
        ".gitignore": "project.lock\ncorpus/\nencoders/\ntraining/\nmetrics/\npackages/\nloop/\n",
    }
    if found is None:
        kind = "numbers" if "regression" in chosen else "sample"
        contents[SAMPLE] = read_template(f"{kind}_{lang if lang in SAMPLES else 'en'}.jsonl")
    files = {directory / name: content.encode("utf8") for name, content in contents.items()}
    copies = _name_copies(sources, directory / ASSETS)
    with Staging() as staging:
        for path, content in files.items():
            staging.write(path, content)
        for path, source in copies.items():
            _copy(source, staging.reserve(path), path)
        staging.commit()
    return NewProject((*files, *copies), _list_notes(found, chosen, contents.get(SAMPLE)))


def _spans_options(heads: Sequence[str]) -> Dict[str, str]:
    """Options of `convert` for spans that may overlap; with an entity head beside it, that has the outer ones."""
    if "spans" not in heads:
        return {}
    return {"spans_key": "sc", **({"flatten": "outer"} if {"ner", "seq2seq"} & set(heads) else {})}


def package_name(directory: Path) -> str:
    """RETURNS (str): A name for a Python package, made of that of a folder: small letters, digits and underscores."""
    name = re.sub(r"[^a-z0-9]+", "_", directory.resolve().name.lower()).strip("_")
    return name[:MAX_NAME].strip("_") or "pipeline"


def _list_notes(found: Optional[Survey], heads: Sequence[str], sample: Optional[str]) -> Tuple[str, ...]:
    if found is None:
        n_records = (sample or "").count("\n")
        return (
            f"{SAMPLE} is a sample of {n_records} records, far too few to learn from. Put your own annotation files "
            f"into {ASSETS}/, in any format that convert reads: all of them are read, and the sample is left out.",
        )
    # What teaches one of them teaches the other
    taught = {*found.heads, *(TOKEN_HEADS if set(TOKEN_HEADS) & set(found.heads) else [])}
    used = {*heads, *(["ner"] if {"spans", "seq2seq"} & set(heads) else [])}
    unused = [name for name in found.heads if name not in used]
    missing = [name for name in heads if name not in taught]
    notes = list(found.lines)
    if unused:
        notes.append(f"Nothing learns what {' and '.join(unused)} could; --heads names the heads")
    if missing:
        notes.append(f"The data has nothing for {' and '.join(missing)} to learn from")
    return tuple(notes)


def _name_copies(sources: Sequence[Path], folder: Path) -> Dict[Path, Path]:
    """Where each file is copied to: by its own name, with a number if that is taken."""
    copies: Dict[Path, Path] = {}
    for source in sources:
        name, number = source.resolve().name.lstrip("."), 1
        path = folder / name
        while path in copies or path.name in (RAW, Path(SAMPLE).name):
            number += 1
            path = folder / f"{number}_{name}"
        copies[path] = source
    return copies


def _copy(source: Path, temporary: Path, path: Path) -> None:
    try:
        if source.is_dir():
            shutil.copytree(source, temporary)
        else:
            shutil.copyfile(source, temporary)
    except OSError as error:
        raise NotWrittenError("H123", path=path, found=error.strerror or error) from error
