"""Label Studio exports, JSON and JSON_MIN -> annotations: labels, choices, taxonomy, ratings and numbers."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from ...errors import BertHeadsError, TooManyLabelsError
from ..annotations import Annotation, CharSpan
from ..findings import Findings, Where
from .labelling_config import LabellingConfig
from .labels import MAX_LABELS
from .lines import head_values, most, read_json_values
from .offsets import read_span, show
from .options import ReadOptions

SPAN_TYPES = ("labels", "hypertextlabels", "paragraphlabels")
CLASS_TYPES = ("choices", "taxonomy")
NUMBER_TYPES = ("number", "rating")
# What JSON_MIN puts behind the results of a task.
MIN_KEYS = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")


class Result(NamedTuple):
    """One answer of an annotation.

    type (str): Such as "labels" or "choices".
    name (str): What its question is called (`from_name`).
    to_name (str): What the text that it is about is called.
    value (Dict[str, Any]): The answer.
    """

    type: str
    name: str
    to_name: str
    value: Dict[str, Any]


class Submitted(NamedTuple):
    """One annotation of a task: what somebody submitted."""

    results: List[Result]
    timestamp: Optional[float]
    annotator: Optional[str] = None


class Questions:
    """The questions of a project. Tasks that we pull carry the labelling interface. Other exports do not say what was
    asked, so the questions are collected from all answers of the file.

    has_spans (bool): Whether spans are marked.
    classes (Dict[str, Set[str]]): Of each question about the text the labels known, those that were ever chosen.
    several (Set[str]): Questions that can have, or had, several labels as an answer.
    open (Set[str]): Questions known to be asked of every text, to which no answer means that no label holds.
    """

    def __init__(self) -> None:
        self.has_spans = False
        self.classes: Dict[str, Set[str]] = {}
        self.several: Set[str] = set()
        self.open: Set[str] = set()
        self._interfaces: Set[str] = set()

    def add_interface(self, xml: str, where: Where) -> None:
        """Learn from a labelling interface.

        xml (str): As projects have it.
        where (Where): Place of the task that carries it.
        RAISES (BertHeadsError): H133 if it has too many labels, H540 if it cannot be read.
        """
        if xml in self._interfaces:
            return
        self._interfaces.add(xml)
        for question in LabellingConfig.from_xml(xml).questions:
            if question.type == "labels":
                self.has_spans = True
            else:
                self._add_classes(question.name, question.labels, where)
                if not question.exclusive:
                    self.several.add(question.name)
                    self.open.add(question.name)

    def _add_classes(self, name: str, labels: Iterable[str], where: Where) -> None:
        known = self.classes.setdefault(name, set())
        known.update(labels)
        if len(known) > MAX_LABELS:
            raise TooManyLabelsError("H133", path=where.path, n_labels=MAX_LABELS)

    def add(self, submitted: Submitted, where: Where) -> None:
        """Learn from an annotation."""
        for result in submitted.results:
            if result.type in SPAN_TYPES:
                self.has_spans = True
            elif result.type in CLASS_TYPES and "start" not in result.value:
                labels = _read_classes(result, where)
                self._add_classes(result.name, labels, where)
                if len(labels) > 1:
                    self.several.add(result.name)


class LabelStudioConverter:
    """Reads the exports JSON and JSON_MIN, an array or one task per line (docs/reference/formats.md)."""

    name = "label-studio"
    suffixes: Tuple[str, ...] = (".json", ".json.gz")

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether most of its first values are Label Studio's tasks.
        """
        return most(head_values(head), _is_task)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A JSON file, plain or gzipped. It is read twice.
        findings (Findings): Takes bad tasks, and decisions about good ones.
        options (ReadOptions): Key of the text, and whether classes exclude each other.
        YIELDS (Annotation): One for each annotation that was submitted.
        RAISES (BertHeadsError): For a bad task, unless those are skipped.
        """
        kind = options.kind
        questions = Questions()
        passed = Findings(skip_bad=True)
        for where, task in read_json_values(path, passed, progress=False):
            try:
                if isinstance(task, dict) and isinstance(task.get("label_config"), str):
                    questions.add_interface(task["label_config"], where)
                for submitted in _read_task(task, where, passed, options):
                    questions.add(submitted, where)
            except TooManyLabelsError:
                raise
            except BertHeadsError:
                continue  # it is counted when the tasks are read again
        is_single = kind == "single" or (kind != "multi" and not questions.several)
        is_exclusive = is_single and len(questions.classes) == 1
        for where, task in read_json_values(path, findings):
            try:
                annotations = [
                    _annotate(task, submitted, questions, is_exclusive, options, where, findings)
                    for submitted in _read_task(task, where, findings, options)
                ]
            except BertHeadsError as error:
                findings.bad(error)
                continue
            if not annotations or all(annotation.is_empty for annotation in annotations):
                findings.note("no_annotation", where)
            yield from (annotation for annotation in annotations if not annotation.is_empty)


def _is_task(task: Any) -> bool:
    if not isinstance(task, dict):
        return False
    is_full = isinstance(task.get("data"), dict) and any(
        isinstance(task.get(key), list) for key in ("annotations", "completions", "predictions")
    )
    return is_full or ("annotation_id" in task and "lead_time" in task)


def _read_task(task: Any, where: Where, findings: Findings, options: ReadOptions) -> List[Submitted]:
    if not isinstance(task, dict):
        raise where.error("H106", type(task).__name__)
    if "annotations" not in task and "data" not in task:
        return [_read_min(task, options)]
    for key in ("drafts", "predictions"):
        if task.get(key):
            findings.note(key, where, count=len(task[key]) if isinstance(task[key], list) else 1)
    annotations = task.get("annotations") or task.get("completions") or []
    if not isinstance(annotations, list) or not all(isinstance(annotation, dict) for annotation in annotations):
        raise where.error("H136", show(annotations), expected="'annotations' as a list of objects")
    submitted = []
    for annotation in annotations:
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            findings.note("cancelled", where)
            continue
        results = annotation.get("result", [])
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise where.error("H136", show(results), expected="'result' as a list of objects")
        relations = [result for result in results if result.get("type") == "relation"]
        if relations:
            findings.note("relations", where, count=len(relations))
        answers = [_read_result(result, where) for result in results if result.get("type") != "relation"]
        submitted.append(Submitted(answers, _read_time(annotation), _read_annotator(annotation)))
    return submitted


def _read_result(result: Dict[str, Any], where: Where) -> Result:
    value = result.get("value")
    if not isinstance(value, dict):
        raise where.error("H136", show(result), expected="each result with a 'value' that is an object")
    kind, name, to_name = (str(result.get(key, "")) for key in ("type", "from_name", "to_name"))
    return Result(kind, name, to_name, value)


def _read_min(task: Dict[str, Any], options: ReadOptions) -> Submitted:
    """JSON_MIN has the answers between the data of the task and what is known about the annotation."""
    keys = list(task)
    text_key = _text_key(task, [], options)
    first = max((keys.index(key) for key in ("id", text_key) if key in task), default=-1) + 1
    last = next((index for index, key in enumerate(keys) if key in MIN_KEYS), len(keys))
    results = []
    for key in keys[first:last]:
        value = task[key]
        if isinstance(value, dict) and "choices" in value:
            results.append(Result("choices", key, "", value))
        elif isinstance(value, str):
            results.append(Result("choices", key, "", {"choices": [value]}))
        elif isinstance(value, (int, float)):
            results.append(Result("number", key, "", {"number": value}))
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    results.append(Result("labels", key, "", item))
                else:
                    results.append(Result("taxonomy", key, "", {"taxonomy": [item]}))
    return Submitted(results, _read_time(task))


def _annotate(
    task: Dict[str, Any],
    submitted: Submitted,
    questions: Questions,
    is_exclusive: bool,
    options: ReadOptions,
    where: Where,
    findings: Findings,
) -> Annotation:
    data = task.get("data", task)
    key = _text_key(data, [result.to_name for result in submitted.results], options)
    text = data.get(key) if isinstance(data, dict) else None
    if not isinstance(text, str) or not text:
        raise where.error("H107", f"{show(text)} under {key!r}")
    ents: List[CharSpan] = []
    cats: Dict[str, float] = {}
    for result in submitted.results:
        if result.type in SPAN_TYPES:
            ents += _read_spans(result, text, where, findings)
        elif result.type in CLASS_TYPES and "start" not in result.value:
            chosen = _read_classes(result, where)
            noes = {name: 0.0 for name in sorted(questions.classes.get(result.name, ())) if name not in cats}
            cats = {**noes, **cats, **dict.fromkeys(chosen, 1.0)}
        elif result.type in NUMBER_TYPES and "start" not in result.value:
            cats[result.name] = _read_number(result, where)
        else:
            findings.note("unused_results", where, result.type)
    for name in sorted(questions.open - {result.name for result in submitted.results}):
        cats = {**dict.fromkeys(sorted(questions.classes[name]), 0.0), **cats}
    return Annotation(
        text,
        where,
        ents=ents,
        complete=questions.has_spans,
        cats=cats,
        exclusive=is_exclusive and bool(cats),
        timestamp=submitted.timestamp,
        annotator=submitted.annotator,
    )


def _read_annotator(annotation: Dict[str, Any]) -> Optional[str]:
    """The number of the user; of some exports the user, whose number is kept and no address."""
    found = annotation.get("completed_by")
    found = found.get("id") if isinstance(found, dict) else found
    return str(found) if isinstance(found, int) and not isinstance(found, bool) else None


def _text_key(data: Any, to_names: Sequence[str], options: ReadOptions) -> str:
    if options.text_column is not None or not isinstance(data, dict):
        return options.text_column or "text"
    strings = [key for key, value in data.items() if isinstance(value, str)]
    named = [name for name in (*to_names, "text") if name in strings]
    return named[0] if named else strings[0] if len(strings) == 1 else "text"


def _read_spans(result: Result, text: str, where: Where, findings: Findings) -> List[CharSpan]:
    value = result.value
    labels = value.get(result.type, value.get("labels"))
    if not isinstance(labels, list) or not labels:
        raise where.error("H112", show(labels))
    borders = value.get("globalOffsets", value)
    if not isinstance(borders, dict):
        raise where.error("H108", show(borders))
    start, end = borders.get("start"), borders.get("end")
    # Of hypertext the text may be stored without its line ends.
    stored = value.get("text")
    return [read_span(start, end, label, text, stored, where, findings) for label in labels]


def _read_classes(result: Result, where: Where) -> List[str]:
    chosen = result.value.get(result.type)
    if result.type == "taxonomy" and isinstance(chosen, list):
        chosen = ["/".join(map(str, path)) if isinstance(path, list) else path for path in chosen]
    if not isinstance(chosen, list) or not all(isinstance(label, str) and label for label in chosen):
        raise where.error("H136", show(result.value), expected=f"'{result.type}' as a list of labels")
    return chosen


def _read_number(result: Result, where: Where) -> float:
    value = result.value.get(result.type)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise where.error("H135", show(value), label=result.name)
    return float(value)


def _read_time(annotation: Dict[str, Any]) -> Optional[float]:
    time = annotation.get("updated_at") or annotation.get("created_at")
    try:
        return datetime.fromisoformat(str(time).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
