"""The model card: what a packaged pipeline predicts, from which data, how well, and where that ends.

SOURCE: Mitchell et al. (2019), "Model Cards for Model Reporting".
"""

import re
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from spacy.language import Language

from ..backends.optimize import find_encoders
from ..corpus.doc_bins import read_doc_bins
from ..errors import BertHeadsError, printable
from ..evaluation.evaluate import Evaluation
from ..evaluation.tables import MISTAKES, headlines_table, make_tables, markdown
from ..factory_names import (
    EXCLUSIVE_FACTORIES,
    MULTILABEL_FACTORIES,
    SCORE_FACTORY,
    finds_entities,
    finds_spans,
)
from ..layers.encoder_module import PACKAGE_PREFIX
from ..layers.encoder_shim import EncoderShim
from ..pipeline.fitted import THRESHOLDS
from ..project.configs import render

CATS_FACTORIES = (*EXCLUSIVE_FACTORIES, *MULTILABEL_FACTORIES, SCORE_FACTORY)
ENTITIES, SPANS = "entities, `doc.ents`", "entities that may overlap, `doc.spans`"
KINDS = {
    **dict.fromkeys(EXCLUSIVE_FACTORIES, "one category for each text, `doc.cats`"),
    **dict.fromkeys(MULTILABEL_FACTORIES, "any number of categories for each text, `doc.cats`"),
    SCORE_FACTORY: "numbers for each text, `doc.cats`",
}
VERSIONS = ("spacy-bert-heads", "spacy", "torch", "transformers")
# Labels with fewer gold cases have scores that say little
FEW = 30
MAX_LABELS = 60
MAX_FILE = 1 << 20


def make_model_card(nlp: Language, evaluation: Optional[Evaluation], *, name: str, version: str) -> str:
    """Write the card of a pipeline.

    nlp (Language): The pipeline.
    evaluation (Optional[Evaluation]): Its scores on a test set, as read from a report; None if there is no report.
    name (str): Name of its package, with the language.
    version (str): Version of the package.
    RETURNS (str): The card, in Markdown.
    """
    usage = []
    pipes = [(nlp.get_pipe_meta(name).factory, nlp.get_pipe(name)) for name in nlp.pipe_names]
    if any(finds_entities(factory, pipe) for factory, pipe in pipes):
        usage.append("[(ent.text, ent.label_, ent._.confidence) for ent in doc.ents]")
    if any(finds_spans(factory, pipe) for factory, pipe in pipes):
        usage.append("{key: [(span.text, span.label_) for span in group] for key, group in doc.spans.items()}")
    if any(factory in CATS_FACTORIES for factory, _ in pipes):
        usage.append("doc.cats")
    return render(
        "model_card.md.jinja",
        name=name,
        version=version,
        description=nlp.meta.get("description") or f"A spaCy pipeline for texts in the language `{nlp.lang}`.",
        usage=usage or ["doc"],
        labels=_describe_labels(nlp),
        encoder=_describe_encoders(nlp),
        data=_describe_data(nlp, evaluation),
        scores=_describe_scores(nlp, evaluation),
        settings=_describe_settings(nlp),
        limits=_describe_limits(nlp, evaluation),
        made_with=_describe_versions(),
    )


def find_licence(encoder: str) -> str:
    """The licence of an encoder, as far as it can be told without a network.

    encoder (str): `package:IMPORT_NAME/FOLDER`, a folder, or an id on the Hugging Face hub.
    RETURNS (str): A sentence or two, in Markdown.
    """
    if encoder.startswith(PACKAGE_PREFIX):
        module = encoder[len(PACKAGE_PREFIX) :].partition("/")[0]
        for distribution in metadata.packages_distributions().get(module, [])[:1]:
            about: Any = metadata.metadata(distribution)
            licence = about["License-Expression"] or about["License"] or "no licence"
            shown = markdown(licence.strip().split("\n")[0][:100])
            return f"The Python package {distribution} {about['Version']} names {shown}; see there for the weights."
        return "Unknown: its package is not installed here."
    folder = Path(encoder)
    for name, pattern in (("README.md", r"^license:\s*(.+)$"), ("SOURCE.md", r"^Licence:\s*(.+)$")):
        try:
            with open(folder / name, encoding="utf8", errors="replace") as file:
                found = re.search(pattern, file.read(MAX_FILE), re.MULTILINE)
        except (OSError, ValueError):
            continue
        if found:
            return f"{markdown(found[1].strip()[:200])} (says {name} beside the weights)"
    if folder.is_absolute() or folder.exists() or encoder.count("/") > 1 or encoder.startswith("."):
        return "Unknown: nothing beside the weights says it."
    return f"See <https://huggingface.co/{markdown(encoder)}>."


def _describe_labels(nlp: Language) -> str:
    header = ("component", "what it gives", "labels")
    rows = []
    for name in nlp.pipe_names:
        pipe, factory = nlp.get_pipe(name), nlp.get_pipe_meta(name).factory
        labels = list(getattr(pipe, "labels", ()))
        if labels:
            shown = ", ".join(f"`{_code(label)}`" for label in labels[:MAX_LABELS])
            more = f" and {len(labels) - MAX_LABELS:,} more" if len(labels) > MAX_LABELS else ""
            spans = ENTITIES if finds_entities(factory, pipe) else SPANS if finds_spans(factory, pipe) else ""
            rows.append((f"`{name}`", KINDS.get(factory, spans), shown + more))
    lines = [f"| {' | '.join(row)} |" for row in (header, ("---",) * 3, *rows)]
    return "\n".join(lines) if rows else "Its components have no labels."


def _code(label: str) -> str:
    """A label within backticks, in a table."""
    return printable(label).replace("`", "'").replace("|", "\\|")


def _describe_encoders(nlp: Language) -> List[str]:
    settings = nlp.config.interpolate()["components"]
    found = [(name, shim) for name, shim in find_encoders(nlp) if name in nlp.pipe_names and shim.is_ready]
    return [line for name, shim in found for line in _describe_encoder(settings[name], shim)]


def _describe_encoder(component: Dict[str, Any], shim: EncoderShim) -> List[str]:
    model = component.get("model", {})
    source = str(_find_setting(model, "name") or "")
    kind = shim.config.model_type
    if source:
        shown = source if source.startswith(PACKAGE_PREFIX) or not Path(source).is_absolute() else Path(source).name
        lines = [f"Trained on from `{_code(shown)}`, a model of type {kind}."]
        lines.append(f"Licence of the encoder: {find_licence(source)}")
    else:
        lines = [f"A model of type {kind} with random weights, trained on the texts below alone."]
    if shim.runtime is not None:
        lines.append(f"Exported for prediction: {shim.runtime.backend}, {shim.runtime.precision}.")
    else:
        size = sum(parameter.numel() for parameter in shim.module.parameters())
        lines.append(f"{size / 1e6:.1f} million parameters.")
    window = min(shim.max_positions, _find_setting(model, "window") or shim.max_positions)
    lines.append(f"It reads {window:,} wordpieces at once. Longer texts are read in windows, to the end.")
    return lines


def _find_setting(model: Dict[str, Any], key: str) -> Any:
    """A setting of the encoder: in the component's own model, or in that within a head's listener."""
    if "BertEncoder" in str(model.get("@architectures", "")):
        return model.get(key)
    values = (_find_setting(value, key) for value in model.values() if isinstance(value, dict))
    return next((value for value in values if value), None)


def _describe_data(nlp: Language, evaluation: Optional[Evaluation]) -> List[str]:
    lines = []
    paths = nlp.config.interpolate().get("paths", {})
    for title, key in (("Training", "train"), ("Development", "dev")):
        path = paths.get(key)
        n_texts = None if path is None else _count_docs(Path(str(path)))
        if n_texts is not None:
            lines.append(f"{title} texts: {n_texts:,}.")
    if evaluation is not None:
        lines.append(f"Test texts: {evaluation.docs:,}, in `{_code(Path(evaluation.corpus).name)}`.")
    return lines or ["Nothing is recorded about it."]


def _count_docs(path: Path) -> Optional[int]:
    """None if the corpus is not at hand, or of another format."""
    try:
        return sum(map(len, read_doc_bins(path))) if path.suffix == ".spacy" else None
    except BertHeadsError:  # a card does without the number; what is wrong with the file, training says
        return None


def _describe_scores(nlp: Language, evaluation: Optional[Evaluation]) -> str:
    if evaluation is None:
        scores = {
            key: value
            for key, value in nlp.meta.get("performance", {}).items()
            if isinstance(value, (int, float)) and not key.endswith("_loss") and key != "speed"
        }
        text = "There is no report on a test set"
        if not scores:
            return f"{text}."
        rows = "\n".join(f"| `{_code(key)}` | {value:.3f} |" for key, value in scores.items())
        return f"{text}. On the development texts, which chose the checkpoint:\n\n| score | value |\n|---|--:|\n{rows}"
    parts = ["On the test texts, times 100, with 95 % intervals:", headlines_table(evaluation).to_markdown(3)]
    for table in make_tables(evaluation):
        if table.is_detail or table.title.startswith(MISTAKES):
            continue
        shown = table
        if len(table.rows) > MAX_LABELS + table.n_sums:
            sums = table.rows[len(table.rows) - table.n_sums :]
            shown = table._replace(rows=[*table.rows[:MAX_LABELS], *sums], bars=())
            parts.append(f"The first {MAX_LABELS} of {len(table.rows) - table.n_sums:,}:")
        parts.append(shown.to_markdown(3))
    parts += [f"- {markdown(note)}" for note in evaluation.notes]
    return "\n\n".join(parts)


def _describe_settings(nlp: Language) -> List[str]:
    """What was fitted after training, and thresholds in general."""
    lines = []
    for name in nlp.pipe_names:
        component: Any = nlp.get_pipe(name)
        cfg = getattr(component, "cfg", {})
        temperature, coverage = getattr(component, "temperature", None), getattr(component, "coverage", None)
        if isinstance(temperature, dict):
            shown = ", ".join(f"`{_code(label)}` {value:.2f}" for label, value in temperature.items())
            lines.append(f"`{name}` is calibrated, with a temperature for each label: {shown}.")
        elif temperature is not None:
            lines.append(f"`{name}` is calibrated, with a temperature of {temperature:.2f}.")
        if coverage is not None:
            where = "`doc._.ents_set`" if hasattr(component, "min_confidence") else "`doc._.cats_set`"
            share = f"{coverage.share:.0%} of texts like those of dev"
            lines.append(f"`{name}`: {where} holds all that is true of {share}.")
        thresholds = {label: value for label, value in (cfg.get(THRESHOLDS) or {}).items() if value > 0}
        if cfg.get("threshold"):
            lines.append(f"`{name}`: a category counts from a probability of {cfg['threshold']:g} on.")
        elif thresholds:
            shown = ", ".join(f"`{_code(label)}` {value:.2f}" for label, value in thresholds.items())
            lines.append(f"`{name}`: what is less probable than this does not count: {shown}.")
        minimum = getattr(component, "min_confidence", 0.0)
        if minimum:
            lines.append(f"`{name}`: entities of a confidence under {minimum:g} are dropped.")
    return lines


def _describe_limits(nlp: Language, evaluation: Optional[Evaluation]) -> List[str]:
    lines = [
        f"It was trained on texts in the language `{nlp.lang}` and knows no labels but those above.",
        "The scores hold for texts like the test texts. On other texts, measure again: `spacy bert-heads evaluate`.",
    ]
    if evaluation is None:
        return lines
    rare = _rare_labels(evaluation)
    if rare:
        shown = ", ".join(f"`{_code(label)}` ({support})" for label, support in rare[:MAX_LABELS])
        lines.append(f"Fewer than {FEW} cases in the test texts, so their scores are uncertain: {shown}.")
    return lines


def _of_heads(evaluation: Evaluation) -> List[Dict[str, Any]]:
    entities = [evaluation.entities] if evaluation.entities else []
    return [*entities, *evaluation.spans, *evaluation.categories]


def _rare_labels(evaluation: Evaluation) -> List[Tuple[str, int]]:
    found: List[Tuple[str, int]] = []
    for scores in _of_heads(evaluation):
        found += [(label, row["support"]) for label, row in scores["per_label"].items() if row["support"] < FEW]
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


def _describe_versions() -> str:
    versions = [f"{name} {metadata.version(name)}" for name in VERSIONS]
    return f"{', '.join(versions)}; packaged on {date.today().isoformat()}."


def check_evaluation(evaluation: Evaluation, nlp: Language) -> None:
    """See that a report is one of this pipeline: its heads and their labels.

    RAISES (BertHeadsError): H680 if the report scores a component that the pipeline lacks, or other labels.
    """
    for scores in _of_heads(evaluation):
        names = str(scores["component"]).split(", ")
        pipes: List[Any] = [nlp.get_pipe(name) for name in names if name in nlp.pipe_names]
        known = {label for pipe in pipes for label in getattr(pipe, "labels", ())}
        others = sorted(set(scores.get("labels", ())) - known)
        if not known or others:
            what = f"'{scores['component']}'" if not known else f"the labels {', '.join(others[:5])}"
            raise BertHeadsError("H680", found=what)
