"""Recipes for Prodigy, which finds them by the entry points `prodigy_recipes`. Nothing else here imports Prodigy.

What they do is in annotation/streams.py and annotation/updates.py; here are only the names that Prodigy has for it.

    prodigy bert_heads.ner.teach DATASET MODEL texts.jsonl --output updated/
"""

from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Optional

from prodigy.components.stream import get_stream
from prodigy.core import Arg, recipe

from .annotation.streams import stream_tasks
from .annotation.tasks import BINARY_VIEWS, Task, TaskMaker, blocks, split_names
from .annotation.updates import Learner
from .pipeline_io import check_output, load_pipeline, write_pipeline

ARGUMENTS = {
    "dataset": Arg(help="Dataset to save the answers to"),
    "model": Arg(help="Trained pipeline: a folder, or the name of a package"),
    "source": Arg(help="Texts to annotate"),
    "label": Arg("--label", "-l", help="Labels to ask about, separated by commas. Default: all labels of the model"),
    "component": Arg("--component", "-c", help="Heads to use if the model has several, separated by commas"),
    "exclude": Arg("--exclude", "-e", help="Datasets whose texts are not asked about again, separated by commas"),
    "output": Arg("--output", "-o", help="Folder for the model at the end, updated from the answers"),
}
CORRECT = {
    **ARGUMENTS,
    "strategy": Arg("--strategy", "-s", help="What to ask first, as in `bert-heads suggest`. Default: by the heads"),
    "update": Arg("--update", "-UP", help="Let the model learn from the answers while they come in"),
}


@recipe("bert_heads.ner.correct", **CORRECT)
def ner_correct(
    dataset: str,
    model: str,
    source: str,
    label: Optional[str] = None,
    component: Optional[str] = None,
    exclude: Optional[str] = None,
    output: Optional[Path] = None,
    strategy: Optional[str] = None,
    update: bool = False,
) -> Dict[str, Any]:
    """Correct the entities of a text, the most useful texts first."""
    return _session("ner_manual", dataset, model, source, label, component, exclude, output, strategy, update)


@recipe("bert_heads.ner.teach", **ARGUMENTS)
def ner_teach(
    dataset: str,
    model: str,
    source: str,
    label: Optional[str] = None,
    component: Optional[str] = None,
    exclude: Optional[str] = None,
    output: Optional[Path] = None,
) -> Dict[str, Any]:
    """Accept or reject one entity at a time, the least certain first, while the model learns."""
    return _session("ner", dataset, model, source, label, component, exclude, output, None, True)


@recipe("bert_heads.spans.correct", **CORRECT)
def spans_correct(
    dataset: str,
    model: str,
    source: str,
    label: Optional[str] = None,
    component: Optional[str] = None,
    exclude: Optional[str] = None,
    output: Optional[Path] = None,
    strategy: Optional[str] = None,
    update: bool = False,
) -> Dict[str, Any]:
    """Correct the spans of a text, which may overlap, the most useful texts first."""
    return _session("spans_manual", dataset, model, source, label, component, exclude, output, strategy, update)


@recipe("bert_heads.spans.teach", **ARGUMENTS)
def spans_teach(
    dataset: str,
    model: str,
    source: str,
    label: Optional[str] = None,
    component: Optional[str] = None,
    exclude: Optional[str] = None,
    output: Optional[Path] = None,
) -> Dict[str, Any]:
    """Accept or reject one span at a time, the least certain first, while the model learns."""
    return _session("spans", dataset, model, source, label, component, exclude, output, None, True)


@recipe("bert_heads.textcat.correct", **CORRECT)
def textcat_correct(
    dataset: str,
    model: str,
    source: str,
    label: Optional[str] = None,
    component: Optional[str] = None,
    exclude: Optional[str] = None,
    output: Optional[Path] = None,
    strategy: Optional[str] = None,
    update: bool = False,
) -> Dict[str, Any]:
    """Correct the labels of a text, the most useful texts first."""
    return _session("choice", dataset, model, source, label, component, exclude, output, strategy, update)


@recipe("bert_heads.textcat.teach", **ARGUMENTS)
def textcat_teach(
    dataset: str,
    model: str,
    source: str,
    label: Optional[str] = None,
    component: Optional[str] = None,
    exclude: Optional[str] = None,
    output: Optional[Path] = None,
) -> Dict[str, Any]:
    """Accept or reject one label of a text at a time, the least certain first, while the model learns."""
    return _session("classification", dataset, model, source, label, component, exclude, output, None, True)


@recipe("bert_heads.joint.correct", **CORRECT)
def joint_correct(
    dataset: str,
    model: str,
    source: str,
    label: Optional[str] = None,
    component: Optional[str] = None,
    exclude: Optional[str] = None,
    output: Optional[Path] = None,
    strategy: Optional[str] = None,
    update: bool = False,
) -> Dict[str, Any]:
    """Correct the entities and the labels of a text at once, the most useful texts first."""
    return _session("blocks", dataset, model, source, label, component, exclude, output, strategy, update)


def _session(
    view: str,
    dataset: str,
    model: str,
    source: str,
    label: Optional[str],
    component: Optional[str],
    exclude: Optional[str],
    output: Optional[Path],
    strategy: Optional[str],
    update: bool,
) -> Dict[str, Any]:
    """What Prodigy asks of a recipe: the tasks, and what to do with the answers."""
    nlp = load_pipeline(model)
    if output is not None:
        check_output(nlp.path, Path(output))
    maker = TaskMaker(nlp, view, labels=split_names(label) or None, components=split_names(component))
    learner = Learner(nlp, components=split_names(component)) if update or output else None

    def ask(records: Iterable[Task]) -> Iterator[Task]:
        return stream_tasks(nlp, maker, records, strategy=strategy)

    stream = get_stream(source, rehash=True, dedup=True, input_key="text")
    stream.apply(ask)
    session: Dict[str, Any] = {
        "dataset": dataset,
        "view_id": view,
        "stream": stream,
        "update": learner.update if learner else None,
        "exclude": split_names(exclude) or None,
        "config": {
            "lang": nlp.lang,
            # One text holds several questions that ask yes or no
            "exclude_by": "task" if view in BINARY_VIEWS else "input",
            "auto_count_stream": learner is None,
            **_interface(maker),
        },
    }
    if output is not None:
        session["on_exit"] = lambda controller: write_pipeline(nlp, Path(output))
    return session


def _interface(maker: TaskMaker) -> Dict[str, Any]:
    interface: Dict[str, Any] = {}
    if maker.heads.finder:
        interface["labels"] = maker.span_labels
    if maker.view in ("choice", "blocks") and maker.heads.textcat:
        interface["choice_style"] = maker.heads.textcat.choice_style
    if maker.view == "blocks":
        interface["blocks"] = blocks(maker.heads)
    return interface
