"""doccano JSONL and JSON -> annotations: spans, classes, or both, as its old and new exports have them."""

from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from ...errors import BertHeadsError, TooManyLabelsError
from ..annotations import Annotation
from ..findings import Findings, Where
from .labels import MAX_LABELS, LabelNames
from .lines import head_values, most, read_json_objects
from .offsets import is_index, read_span, show
from .options import ReadOptions
from .token_lines import is_token_record

TEXT_KEYS = ("text", "data")
# Keys of spans and classes, and of nothing else.
LIST_KEYS = ("label", "labels", "annotations", "entities", "cats")


class Answer(NamedTuple):
    """What one user, or nobody in particular, says about a text.

    spans (List[Tuple[Any, Any, Any]]): Start, end and label.
    classes (List[Any]): Labels of the text.
    """

    spans: List[Tuple[Any, Any, Any]]
    classes: List[Any]


class DoccanoConverter:
    """Reads what doccano exports, one record per line or an array (docs/reference/formats.md)."""

    name = "doccano"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether most of its first lines are doccano's records.
        """
        return most(head_values(head), _is_record)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A JSONL or JSON file, plain or gzipped. It is read twice.
        findings (Findings): Takes bad records, and decisions about good ones.
        options (ReadOptions): The label file, for labels that are numbers.
        YIELDS (Annotation): One for each record and user.
        RAISES (BertHeadsError): For a bad record, unless those are skipped.
        """
        names = LabelNames(options.labels)
        has_spans, classes = _look_through(path, names)
        for where, record in read_json_objects(path, findings, arrays=True):
            try:
                yield from _read_record(record, where, has_spans, classes, names, findings)
            except BertHeadsError as error:
                findings.bad(error)


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not any(isinstance(record.get(key), str) for key in TEXT_KEYS):
        return False
    if isinstance(record.get("entities"), list) and not isinstance(record.get("cats"), list):
        return any(isinstance(item, dict) and "start_offset" in item for item in record["entities"])
    if "spans" in record or "answer" in record or is_token_record(record):
        return False
    return any(isinstance(record.get(key), list) for key in LIST_KEYS)


def _look_through(path: Path, names: LabelNames) -> Tuple[bool, Set[str]]:
    """Whether the file has spans, and all classes in it."""
    has_spans = False
    passed = Findings(skip_bad=True)
    classes: Set[str] = set()
    for where, record in read_json_objects(path, passed, progress=False, arrays=True):
        try:
            for answer in _read_answers(record, where):
                has_spans = has_spans or bool(answer.spans)
                classes.update(_read_class(value, names, where, passed) for value in answer.classes)
        except BertHeadsError as error:
            passed.bad(error)
        if len(classes) > MAX_LABELS:
            raise TooManyLabelsError("H133", path=path, n_labels=MAX_LABELS)
    return has_spans, classes | set(names.names) if classes else set()


def _read_record(
    record: Dict[str, Any], where: Where, has_spans: bool, classes: Set[str], names: LabelNames, findings: Findings
) -> Iterator[Annotation]:
    text = next((record[key] for key in TEXT_KEYS if isinstance(record.get(key), str)), None)
    if not text:
        raise where.error("H107", show(record.get("text")) if "text" in record else "no such key")
    relations = record.get("relations")
    if isinstance(relations, list) and relations:
        findings.note("relations", where, count=len(relations))
    answers = _read_answers(record, where)
    if not answers or (not has_spans and not any(answer.classes for answer in answers)):
        findings.note("no_annotation", where)
        return
    for spans, chosen in answers:
        ents = [
            read_span(start, end, _name(label, names, where, findings), text, None, where, findings)
            for start, end, label in spans
        ]
        if has_spans and not spans:
            findings.note("empty_annotation", where)
        labels = {_read_class(value, names, where, findings) for value in chosen}
        # No class at all may as well mean that nobody looked.
        cats = {name: float(name in labels) for name in sorted(classes)} if labels else {}
        yield Annotation(text, where, ents=ents, complete=has_spans, cats=cats)


def _read_answers(record: Dict[str, Any], where: Where) -> List[Answer]:
    """Answers of each user; one answer if the record names no users; none if it has no list of annotations."""
    answers: Dict[Optional[int], Answer] = {}
    for key in LIST_KEYS:
        items = record.get(key)
        if items is None:
            continue
        if not isinstance(items, list):
            raise where.error("H136", f"{key} {show(items)}", expected="lists of spans or classes")
        if not items:
            answers.setdefault(None, Answer([], []))
        for item in items:
            user = item.get("user") if isinstance(item, dict) else None
            answer = answers.setdefault(user if is_index(user) else None, Answer([], []))
            if isinstance(item, dict) and "start_offset" in item:
                answer.spans.append((item["start_offset"], item.get("end_offset"), item.get("label")))
            elif isinstance(item, dict):
                answer.classes.append(item.get("label"))
            elif isinstance(item, list) and len(item) == 3:
                answer.spans.append((item[0], item[1], item[2]))
            else:
                answer.classes.append(item)
    return list(answers.values())


def _name(label: Any, names: LabelNames, where: Where, findings: Findings) -> Any:
    if is_index(label):
        return names.get(str(label), where, findings)
    return names.get(label, where, findings) if names.names and isinstance(label, str) else label


def _read_class(label: Any, names: LabelNames, where: Where, findings: Findings) -> str:
    name = _name(label, names, where, findings)
    if not isinstance(name, str) or not name:
        raise where.error("H112", show(label))
    return name
