"""What `evaluate` wrote, read back: every text with its gold annotation and prediction."""

from collections import Counter
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import srsly

from ..errors import BertHeadsError
from .category_scores import ExclusiveScorer, MultilabelScorer, NumberScorer
from .report import NAMES

ENTITIES = "entities"
# Entities that may overlap
SPANS = "spans"
SPAN_KINDS = (ENTITIES, SPANS)
KINDS = (ExclusiveScorer.kind, MultilabelScorer.kind, NumberScorer.kind)
REPORT = NAMES[1]

# First character, the one behind the last, label
CharSpan = Tuple[int, int, str]
# A hash of the text, and which of the texts with this hash
TextKey = Tuple[str, int]


class HeadInfo(NamedTuple):
    """A head that was evaluated.

    name (str): Its component.
    kind (str): ENTITIES, SPANS or one of KINDS.
    labels (Tuple[str, ...]): What it knows.
    """

    name: str
    kind: str
    labels: Tuple[str, ...]


class Verdict(NamedTuple):
    """What a head was to say about a text, and what it said.

    gold (Any): Of ENTITIES and SPANS a frozenset of CharSpan; of exclusive classes the label; of others a frozenset
        of labels; of numbers a dict of floats.
    predicted (Any): Likewise. None for an exclusive head that chose nothing.
    """

    gold: Any
    predicted: Any


@dataclass
class Record:
    """A text of a report.

    number (int): Which one of the corpus, counted from 1.
    text (str): The text, or its beginning.
    verdicts (Dict[str, Verdict]): By component. Heads without gold annotation are missing.
    """

    number: int
    text: str
    verdicts: Dict[str, Verdict] = field(default_factory=dict)


@dataclass
class SavedReport:
    """A report.

    source (str): Where it is from.
    model (str): Language, name and version of the pipeline.
    corpus (str): The annotated texts.
    run (Dict[str, str]): "date", "commit" and "config" as far as they are known; see records.describe_run.
    heads (List[HeadInfo]): What was evaluated.
    records (Dict[TextKey, Record]): The texts.
    scores (Dict[str, Any]): All the rest of the report.
    """

    source: str
    model: str
    corpus: str
    run: Dict[str, str]
    heads: List[HeadInfo]
    records: Dict[TextKey, Record]
    scores: Dict[str, Any]


def find_report(path: Path) -> Optional[Path]:
    """RETURNS (Optional[Path]): The JSON file of a report that is there as a file or as a folder; None if the path is
    neither."""
    if path.is_dir():
        return path / REPORT if (path / REPORT).is_file() else None
    return path if path.suffix.lower() == ".json" and path.is_file() else None


def read_report(path: Path) -> SavedReport:
    """Read a report.

    path (Path): A JSON file that `evaluate` wrote.
    RETURNS (SavedReport): What is in it.
    RAISES (BertHeadsError): H623 if it is something else, H624 if it is of an older version and has no texts.
    """
    try:
        content = srsly.read_json(path)
    except (ValueError, OSError, RecursionError) as error:
        raise BertHeadsError("H623", path=path, found=str(error).split("\n")[0]) from error
    return parse_report(content, str(path))


def parse_report(content: Any, source: str) -> SavedReport:
    """Read what Evaluation.to_dict gives.

    content (Any): The report, from wherever it is.
    source (str): Where it is from.
    RETURNS (SavedReport): What is in it.
    RAISES (BertHeadsError): As read_report.
    """
    if not isinstance(content, dict) or "docs" not in content or "model" not in content:
        raise BertHeadsError("H623", path=source, found="no report of evaluate")
    if not isinstance(content.get("records"), list):
        raise BertHeadsError("H624", path=source)
    try:
        heads = _read_heads(content)
        seen: "Counter[str]" = Counter()
        records: Dict[TextKey, Record] = {}
        for number, raw in enumerate(content["records"], 1):
            key = _string(raw["id"])
            records[key, seen[key]] = _read_record(raw, number, heads)
            seen[key] += 1
        given = content.get("run")
        run = (
            {name: value for name, value in given.items() if isinstance(value, str)} if isinstance(given, dict) else {}
        )
        model, corpus = _string(content["model"]), _string(content.get("corpus", ""))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BertHeadsError("H623", path=source, found=f"{type(error).__name__} {error}") from error
    scores = {name: value for name, value in content.items() if name != "records"}
    return SavedReport(source, model, corpus, run, heads, records, scores)


def _read_heads(content: Dict[str, Any]) -> List[HeadInfo]:
    found = []
    if content.get("entities") is not None:
        found.append(_read_head(content["entities"], ENTITIES))
    found += [_read_head(scores, SPANS) for scores in content.get("spans") or []]
    for scores in content.get("categories") or []:
        if scores["kind"] not in KINDS:
            raise ValueError(f"a head of the kind {scores['kind']!r}")
        found.append(_read_head(scores, scores["kind"]))
    return found


def _read_head(scores: Dict[str, Any], kind: str) -> HeadInfo:
    return HeadInfo(_string(scores["component"]), kind, tuple(map(_string, scores["labels"])))


def _read_record(raw: Dict[str, Any], number: int, heads: List[HeadInfo]) -> Record:
    record = Record(number, _string(raw["text"]))
    sides: Any
    for head in heads:
        if head.kind in SPAN_KINDS:
            sides = raw.get("ents") if head.kind == ENTITIES else raw.get("spans", {}).get(head.name)
            if sides is not None:
                record.verdicts[head.name] = Verdict(*(frozenset(map(_span, side)) for side in _pair(sides)))
            continue
        values = raw.get("numbers" if head.kind == NumberScorer.kind else "cats", {}).get(head.name)
        if values is None:
            continue
        if head.kind == NumberScorer.kind:
            pairs = {_string(label): _pair(pair) for label, pair in values.items()}
            sides = [{label: _number(pair[i]) for label, pair in pairs.items()} for i in (0, 1)]
        elif head.kind == ExclusiveScorer.kind:
            gold, predicted = _pair(values)
            sides = [_string(gold), None if predicted is None else _string(predicted)]
        else:
            sides = [frozenset(map(_string, side)) for side in _pair(values)]
        record.verdicts[head.name] = Verdict(*sides)
    return record


def _pair(value: Any) -> List[Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"expected two values, found {value!r}")
    return value


def _span(value: Any) -> CharSpan:
    start, end, label = value[:3]
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end:
        raise ValueError(f"expected the place of an entity, found {value!r}")
    return start, end, _string(label)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, found {value!r}")
    return value


def _number(value: Any) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError(f"expected a number, found {value!r}")
    return float(value)
