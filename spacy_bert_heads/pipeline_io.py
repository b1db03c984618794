"""Trained pipelines, loaded and written; every command that takes or makes one does it here."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Set, Tuple

import spacy
from spacy.language import Language
from spacy.util import get_model_meta, get_package_path, is_package, load_config
from thinc.api import Model

from .errors import BertHeadsError
from .files import clean_up, replace_folder

# Name of the layer with which heads listen to an encoder: models.listeners.EncoderListener
LISTENER = "bert-listener"


def load_pipeline(model: str) -> Language:
    """Load a trained pipeline.

    model (str): Its folder, or the name of its package. If a killed process was about to replace the folder, it is
        put back.
    RETURNS (Language): The pipeline.
    RAISES (BertHeadsError): H227 if it cannot be loaded; H249 if a head has no encoder.
    """
    with suppress(OSError):
        if not Path(model).exists():
            clean_up(Path(model).parent)
    try:
        nlp = spacy.load(model)
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, BertHeadsError):
            raise
        reason = str(error).strip().split("\n")[0]
        raise BertHeadsError("H227", found=model, reason=reason) from error
    check_encoders(nlp)
    return nlp


def check_encoders(nlp: Language) -> None:
    """See that every head that shares an encoder has one in front of it. A sourced head may have come without.

    nlp (Language): A pipeline; disabled components count.
    RAISES (BertHeadsError): H249 for a head with no encoder.
    """
    encoders: Set[str] = set()
    for name, component in nlp.components:
        model: Any = getattr(component, "model", None)
        for node in model.walk() if isinstance(model, Model) else ():
            upstream = getattr(node, "upstream_name", None) if node.name == LISTENER else None
            if upstream is not None and not (encoders if upstream == "*" else encoders & {upstream}):
                raise BertHeadsError("H249", found=upstream, component=name)
        if hasattr(component, "listener_map"):
            encoders.add(name)


@dataclass(frozen=True)
class Sourced:
    """A component of a trained pipeline, as its files describe it.

    factory (str): What makes it.
    labels (Tuple[str, ...]): What it has learned.
    listens_to (Optional[str]): The encoder that it shares with others, by name or "*". None: it has its own, or none.
    spans_key (Optional[str]): Key of `doc.spans` that it writes, of components that do.
    """

    factory: str
    labels: Tuple[str, ...]
    listens_to: Optional[str]
    spans_key: Optional[str] = None


def read_sourced(model: str, component: str) -> Sourced:
    """Look at a component of a trained pipeline without loading that.

    model (str): Folder of the pipeline, or the name of its package.
    component (str): The component's name.
    RETURNS (Sourced): What its files say.
    RAISES (BertHeadsError): H227 if there is no such pipeline, or it has no such component.
    """
    folder = Path(model)
    try:
        if is_package(model):
            folder = get_package_path(model)
            meta = get_model_meta(folder)
            folder = folder / f"{meta['lang']}_{meta['name']}-{meta['version']}"
        meta = get_model_meta(folder)
        settings = load_config(folder / "config.cfg", interpolate=True)["components"][component]
        listener = settings.get("model", {}).get("tok2vec", {})
        return Sourced(
            factory=settings["factory"],
            labels=tuple(meta.get("labels", {}).get(component, ())),
            listens_to=listener.get("upstream"),
            spans_key=settings.get("spans_key"),
        )
    except (OSError, ValueError, KeyError) as error:
        reason = f"no component {error}" if isinstance(error, KeyError) else str(error).strip().split("\n")[0]
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
