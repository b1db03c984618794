"""The file in which a server collects annotations as they arrive."""

from pathlib import Path
from threading import Lock
from typing import Any, Callable, Dict, List

import srsly

from ...corpus.findings import Findings
from ...corpus.readers.labelling_config import LabellingConfig
from ...corpus.readers.lines import read_json_objects
from ...corpus.readers.offsets import show
from ...errors import BertHeadsError
from ...files import check_writable, lock_file, write_files

Task = Dict[str, Any]


class AnswersFile:
    """Label Studio's tasks with their annotations, one task a line, as `merge` reads them.

    Every change replaces the file in one step, so whoever reads it finds whole lines, and a killed process leaves the
    answers it had. Between changes nothing is remembered: somebody may move the file away, and a new one begins.

    path (Path): The file; it need not exist yet.
    RAISES (BertHeadsError): H123 if it cannot be written; H101 to H107 if there is one that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        check_writable(path.parent)
        self.path = path
        self._lock = Lock()
        self._read()

    def take(self, event: Dict[str, Any]) -> None:
        """Take over what a webhook of Label Studio tells.

        event (Dict[str, Any]): Its `action`, with annotations that were created, changed or deleted; of others
            nothing is taken.
        RAISES (BertHeadsError): H123 if the file cannot be written; H551 if the event lacks
            what belongs into it.
        """
        action = event.get("action")
        try:
            if action == "ANNOTATIONS_DELETED":
                for annotation in event["annotations"]:
                    self.remove(_number(annotation["id"]))
            elif action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
                self.put(event["task"], event["annotation"], event["project"]["label_config"])
            elif action == "ANNOTATIONS_CREATED":
                tasks = {task["id"]: task for task in event["task"]}
                for annotation in event["annotation"]:
                    self.put(tasks[annotation["task"]], annotation, event["project"]["label_config"])
        except (KeyError, TypeError, AttributeError) as error:
            expected = "a webhook with its payload: tick 'Send payload' in its settings"
            raise BertHeadsError("H551", expected=expected, found=f"none ({show(error)})") from error

    def put(self, task: Task, annotation: Dict[str, Any], label_config: str) -> None:
        """Write an annotation, in place of what it was before it was changed.

        task (Dict[str, Any]): What was annotated, with `id` and `data`.
        annotation (Dict[str, Any]): With `id` and `result`.
        label_config (str): The interface it was annotated in: the answer alone does not say what was asked.
        RAISES (BertHeadsError): H123 if the file cannot be written; H540 if the interface cannot be read; H551 if a
            part is of another type, which `merge` could not read.
        """
        number, task_number, data = _number(annotation["id"]), _number(task["id"]), task["data"]
        results = annotation.get("result", [])
        if not isinstance(data, dict):
            raise BertHeadsError("H551", expected="the 'data' of a task as an object", found=show(data))
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            expected = "the 'result' of an annotation as a list of objects"
            raise BertHeadsError("H551", expected=expected, found=show(results))
        if not isinstance(label_config, str):
            raise BertHeadsError("H551", expected="'label_config' as a string", found=show(label_config))
        LabellingConfig.from_xml(label_config)

        def change(tasks: List[Task]) -> List[Task]:
            tasks = _without(tasks, number)
            same = next((known for known in tasks if known.get("id") == task_number), None)
            if same is None:
                same = {"id": task_number, "annotations": []}
                tasks.append(same)
            same.update(data=data, label_config=label_config)
            same["annotations"].append(annotation)
            return tasks

        self._change(change)

    def remove(self, annotation_id: int) -> None:
        """Take out an annotation that somebody deleted.

        annotation_id (int): Its number. There may be none of this number.
        RAISES (BertHeadsError): H123 if the file cannot be written.
        """
        self._change(lambda tasks: _without(tasks, annotation_id))

    def _change(self, change: Callable[[List[Task]], List[Task]]) -> None:
        # Another server may write the same file
        with self._lock, lock_file(self.path.with_name(f".{self.path.name}.lock"), wait=True):
            tasks = change(self._read())
            content = "".join(srsly.json_dumps(task) + "\n" for task in tasks)
            write_files({self.path: content.encode("utf8")})

    def _read(self) -> List[Task]:
        if not self.path.exists():
            return []
        return [task for _, task in read_json_objects(self.path, Findings(skip_bad=False), progress=False)]


def _number(value: Any) -> int:
    """RETURNS (int): The number of a task or annotation. RAISES (BertHeadsError): H551 if it is none."""
    if type(value) is not int:
        raise BertHeadsError("H551", expected="a whole number as 'id'", found=show(value))
    return value


def _without(tasks: List[Task], annotation_id: int) -> List[Task]:
    """Tasks that have annotations left without this one."""
    kept = []
    for task in tasks:
        annotations = [known for known in task.get("annotations", []) if known.get("id") != annotation_id]
        if annotations:
            kept.append({**task, "annotations": annotations})
    return kept
