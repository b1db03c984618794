"""What people annotate in Label Studio: tasks with suggestions go there, their answers come back."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, Iterator, NamedTuple, Optional, Sequence

import srsly
from tqdm import tqdm

from ...corpus.findings import Findings
from ...corpus.readers.labelling_config import LabellingConfig
from ...corpus.readers.lines import read_json_values
from ...errors import BertHeadsError
from ...files import Staging, check_writable, write_errors
from ...pipeline_io import load_pipeline
from .client import IMPORT_SIZE, TESTED_VERSION, LabelStudio, Project, StoredTask
from .tasks import KINDS, Suggested, pipeline_config, pipeline_version, read_tasks


class PushReport(NamedTuple):
    """What a push did.

    project (Project): Where.
    created (bool): Whether the project is new.
    n_tasks (int): Tasks created.
    n_predictions (int): Tasks that were there and got the predictions of this model.
    n_unchanged (int): Tasks that were there with the predictions of this model.
    model_version (str): By which the server knows the model.
    """

    project: Project
    created: bool
    n_tasks: int
    n_predictions: int
    n_unchanged: int
    model_version: str


class PullReport(NamedTuple):
    """What a pull brought.

    project (Project): From where.
    n_tasks (int): Tasks that somebody annotated or skipped.
    n_annotations (int): Annotations of these.
    n_skipped (int): How many of the annotations say that the task was skipped.
    """

    project: Project
    n_tasks: int
    n_annotations: int
    n_skipped: int


def push(
    server: LabelStudio, path: Path, *, project: str, model: str, model_version: Optional[str] = None
) -> PushReport:
    """Create tasks with suggestions, and let the server ask for those first of which the model is least sure.

    What is there already is not created again, so a push that was cut short can be repeated.

    server (LabelStudio): Where to.
    path (Path): Prodigy tasks, as `suggest` writes them.
    project (str): Number or title of the project. If there is none of this title, it is created.
    model (str): The pipeline that made the suggestions. Its labels are those of a new project.
    model_version (Optional[str]): By which the server is to know it. None: its name and version, and what is in it.
    RETURNS (PushReport): What was done.
    RAISES (BertHeadsError): H227 if the pipeline cannot be loaded; H550 if it or the project lacks a label; H554
        for a bad version; and those of `read_tasks`, `pipeline_config` and LabelStudio.
    """
    if model_version is not None and ("," in model_version or not model_version.strip()):
        raise BertHeadsError("H554", found=model_version)
    tasks = read_tasks(path)
    nlp = load_pipeline(model)
    config = pipeline_config(nlp)
    _check_labels(tasks, config, "pipeline")
    version = model_version or pipeline_version(nlp)
    found = server.find_project(project)
    target = found
    if target is None:
        target = server.create_project(project, config.to_xml(words=nlp.vocab.writing_system["has_letters"]))
    _check_labels(tasks, target.config, "project")
    stored = _by_text(server, target)
    new = [task for task in tasks if task.text not in stored]
    known = [task for task in tasks if task.text in stored and version not in stored[task.text].model_versions]
    for batch in _batches(new, "tasks"):
        server.import_tasks(target, [_task(task, target, version) for task in batch])
    for batch in _batches(known, "predictions"):
        predictions = [{"task": stored[task.text].id, **task.prediction(target.config, version)} for task in batch]
        server.import_predictions(target, predictions)
    server.activate(target, version)
    return PushReport(target, found is None, len(new), len(known), len(tasks) - len(new) - len(known), version)


def pull(server: LabelStudio, output: Path, *, project: str) -> PullReport:
    """Fetch annotations.

    server (LabelStudio): Where from.
    output (Path): JSON file for `merge` or `convert`. It is replaced once everything is there.
    project (str): Number or title of the project.
    RETURNS (PullReport): What came.
    RAISES (BertHeadsError): H123 if the file cannot be written; H548 if there is no such project; H553 if nobody has
        annotated anything yet; and those of LabelStudio.
    """
    check_writable(output.parent)
    target = server.find_project(project)
    if target is None:
        raise BertHeadsError("H548", found=f"none with the title {project!r}")
    counts: "Counter[str]" = Counter()
    with TemporaryDirectory() as folder, Staging() as staging:
        export = Path(folder) / "export.json"
        with write_errors(export), export.open("wb") as stream:
            server.export(target, stream)
        with staging.open(output) as lines:
            for task in _read_export(export, server.url):
                # The answers alone do not say what was asked.
                described = task if counts["tasks"] else {"label_config": target.xml, **task}
                lines.write((",\n" if counts["tasks"] else "[\n") + srsly.json_dumps(described))
                counts["tasks"] += 1
                counts["annotations"] += len(task["annotations"])
                counts["skipped"] += sum(bool(answer.get("was_cancelled")) for answer in task["annotations"])
            lines.write("\n]\n")
        if not counts["tasks"]:
            raise BertHeadsError("H553", found=target.title)
        staging.commit()
    return PullReport(target, counts["tasks"], counts["annotations"], counts["skipped"])


def _check_labels(tasks: Sequence[Suggested], config: LabellingConfig, asker: str) -> None:
    for task in tasks:
        for type, label in task.unknown(config):
            asked = [question for question in config.asked() if question.type == type]
            expected = ", ".join(asked[0].labels) if asked else "none"
            raise task.where.error("H550", repr(label), kind=KINDS[type], asker=asker, expected=expected)


def _by_text(server: LabelStudio, project: Project) -> Dict[str, StoredTask]:
    """The tasks of a project. By their texts, since of 100,000 texts two may well have the same hash."""
    stored: Dict[str, StoredTask] = {}
    for task in server.tasks(project):
        text = task.data.get(project.config.text_key)
        if isinstance(text, str):
            stored.setdefault(text, task)
    return stored


def _task(task: Suggested, project: Project, version: str) -> Dict[str, Any]:
    prediction = task.prediction(project.config, version)
    return {"data": task.data(project.config), "meta": task.meta, "predictions": [prediction]}


def _batches(tasks: Sequence[Suggested], what: str) -> Iterator[Sequence[Suggested]]:
    with tqdm(desc=what, unit=" texts", total=len(tasks), leave=False, delay=1.0, disable=None) as bar:
        for start in range(0, len(tasks), IMPORT_SIZE):
            batch = tasks[start : start + IMPORT_SIZE]
            yield batch
            bar.update(len(batch))


def _read_export(path: Path, url: str) -> Iterator[Dict[str, Any]]:
    for task in _read_values(path, url):
        if not isinstance(task, dict) or not isinstance(task.get("annotations"), list):
            raise BertHeadsError("H547", found=f"an export without tasks from {url}", tested=TESTED_VERSION)
        yield task


def _read_values(path: Path, url: str) -> Iterator[Any]:
    try:
        for _, value in read_json_values(path, Findings(skip_bad=False), progress=False):
            yield value
    except BertHeadsError as error:
        raise BertHeadsError("H547", found=f"a broken export from {url}", tested=TESTED_VERSION) from error
