"""Prodigy JSONL -> annotations: manual and binary spans, classification, choice, review, blocks."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterator, List, Optional, Set, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation, CharSpan
from ..findings import Findings, Where
from .lines import read_head, read_json_objects
from .offsets import is_index, read_span, show
from .options import ReadOptions
from .token_lines import is_token_record

ANSWERS = ("accept", "reject", "ignore")
# How Prodigy names a session without a name: by the time of its start, which says nothing about who answered.
UNNAMED_SESSION = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")
# Interfaces that ask about the whole text; spans in their records were only shown.
TEXT_VIEWS = ("classification", "choice")
# The interfaces that ask yes or no about the spans they show, in files older than `_is_binary`.
BINARY_SPANS_VIEWS = ("ner", "spans")
# Besides a text, a record has at least one of these.
MARKS = ("spans", "options", "accept", "answer", "tokens", "_input_hash", "_task_hash")
# What else Prodigy can show, and then hashes with the text.
OTHER_INPUTS = ("image", "html", "input")
# What records of other tools have beside those.
OTHER_MARKS = ("ents", "entities", "annotations", "cats")
OTHER_KEYS = ("label", "labels", "data", "paragraphs")
# Where a task says that a large language model filled it in, and of what that is unsure: stretches as [start, end] in
# characters, and names of categories.
TEACHER, UNSURE, UNSURE_CATEGORIES = "teacher", "unsure", "unsure_categories"
# How much such an answer counts in training beside one of people, as long as nobody has reviewed it.
SILVER_WEIGHT = 0.3


class ProdigyConverter:
    """Reads what Prodigy's `db-out` writes, one record per line (docs/reference/formats.md)."""

    name = "prodigy"
    suffixes: Tuple[str, ...] = (".jsonl", ".jsonl.gz")

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether most complete lines in it are Prodigy records, but for texts that say nothing else.
        """
        values = [value for value in map(_load, head.split(b"\n")) if isinstance(value, dict)]
        n_records = sum(map(_is_record, values))
        # What has a text and nothing else may be a task that nobody has answered.
        n_bare = sum(not any(key in value for key in (*MARKS, *OTHER_MARKS, *OTHER_KEYS)) for value in values)
        return 2 * n_records > len(values) - n_bare

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        A manual record whose `config` names the labels that were shown, and not all that the file has, says nothing
        about the tokens outside its entities.

        path (Path): A JSONL file, plain or gzipped. It is read twice where records name the labels that were shown.
        findings (Findings): Takes bad records, and decisions about good ones.
        options (ReadOptions): Whether to leave out tasks without an answer, and which labels there are elsewhere.
        YIELDS (Annotation): One for each record that says something about its text.
        RAISES (BertHeadsError): For a bad record, unless those are skipped; for a file that cannot be read.
        """
        labels = find_labels(path) | options.other_labels if b'"labels"' in read_head(path) else frozenset()
        for where, record in read_json_objects(path, findings):
            if options.only_answered and record.get("answer") is None:
                findings.note("unanswered", where)
                continue
            try:
                annotation = read_record(record, where, findings)
            except BertHeadsError as error:
                findings.bad(error)
                continue
            annotation = limit_to_shown(annotation, record, labels, findings, overlaps=options.overlaps)
            if not annotation.is_empty:
                yield annotation


def limit_to_shown(
    annotation: Annotation,
    record: Dict[str, Any],
    labels: FrozenSet[str],
    findings: Findings,
    *,
    overlaps: bool = False,
) -> Annotation:
    """Take into account that a manual record whose `config` names only some labels says nothing about the others.

    annotation (Annotation): What the record says.
    record (Dict[str, Any]): The record.
    labels (FrozenSet[str]): All entity labels there are.
    findings (Findings): Takes the decision.
    overlaps (bool): Whether spans may overlap, so that it is complete for the labels that were shown.
    RETURNS (Annotation): It, or one that says nothing about the tokens outside its entities, or of spans that may
        overlap nothing about the other labels.
    """
    shown = _shown_labels(record)
    if not (annotation.complete and shown and labels - shown):
        return annotation
    findings.note("some_labels", annotation.where, f"without {', '.join(sorted(labels - shown))}")
    if not overlaps:
        return replace(annotation, complete=False, unknown=[])
    text = annotation.text
    borders = len(text) - len(text.lstrip()), len(text.rstrip())
    gaps = [CharSpan(*borders, label) for label in sorted(labels - shown) if borders[0] < borders[1]]
    return replace(annotation, unknown=[*annotation.unknown, *gaps])


def find_labels(path: Path) -> FrozenSet[str]:
    """RETURNS (FrozenSet[str]): The labels that any record of a file shows or uses for spans."""
    labels: Set[str] = set()
    for _, record in read_json_objects(path, Findings(skip_bad=True), progress=False):
        labels |= _shown_labels(record)
        spans = record.get("spans")
        for span in spans if isinstance(spans, list) else []:
            if isinstance(span, dict) and isinstance(span.get("label"), str) and span.get("answer") != "ignore":
                labels.add(span["label"])
    return frozenset(labels)


def _shown_labels(record: Dict[str, Any]) -> FrozenSet[str]:
    config = record.get("config")
    labels = config.get("labels") if isinstance(config, dict) else None
    return frozenset(label for label in labels if isinstance(label, str)) if isinstance(labels, list) else frozenset()


def read_record(record: Dict[str, Any], where: Where, findings: Findings) -> Annotation:
    """Understand one record.

    record (Dict[str, Any]): The object on its line. A key that is null counts as absent.
    where (Where): Its place.
    findings (Findings): Takes decisions such as answers left out.
    RETURNS (Annotation): What the record says about its text, possibly nothing.
    RAISES (BertHeadsError): H107 for no text; H108 and H112 for broken spans or labels; H114 for an unknown
        answer; H115 for a choice that was not offered; H116 for broken tokens; H122 for broken options.
    """
    record = {key: value for key, value in record.items() if value is not None}
    text = record.get("text")
    if not isinstance(text, str) or not text:
        raise where.error("H107", show(text) if "text" in record else "no such key")
    answer = _read_answer(record, where, "accept")
    if answer == "ignore":
        findings.note("ignored", where)
        return Annotation(text, where)
    spans, is_binary = _select_spans(record, where, findings)
    asks_choice = "options" in record or "accept" in record
    asks_label = "label" in record and not asks_choice and not (spans and is_binary)
    if spans is None and not asks_choice and not asks_label:
        if "spans" not in record:
            findings.note("no_task", where)
        return Annotation(text, where)
    if "label" in record and not asks_label:
        findings.note("unused_label", where)
    if answer == "reject" and ((spans is not None and not is_binary) or asks_choice):
        findings.note("rejected", where)
        spans, asks_choice = None, False
    tokens = _read_tokens(record, text, where)
    verdicts = _read_spans(spans or [], answer, text, tokens, where, findings)
    if verdicts["ignore"]:
        findings.note("span_ignored", where, count=len(verdicts["ignore"]))
    complete = spans is not None and not is_binary
    cats: Dict[str, float] = {}
    if asks_choice:
        cats = _read_choice(record, where, findings)
    elif asks_label:
        cats = {_read_label(record["label"], where): 1.0 if answer == "accept" else 0.0}
    unknown = verdicts["ignore"] if complete else []
    exclusive = asks_choice and bool(cats) and _is_exclusive(record)
    is_silver = isinstance(record.get(TEACHER), dict) and "answer" not in record
    if is_silver:
        unsure = _read_unsure(record[TEACHER], text, where)
        verdicts["accept"] = [ent for ent in verdicts["accept"] if not _overlaps(ent, unsure)]
        unknown = unknown + unsure if complete else []
        names = record[TEACHER].get(UNSURE_CATEGORIES) or []
        if not isinstance(names, list):
            raise where.error("H122", f"{UNSURE_CATEGORIES} {show(names)}")
        # Where exactly one holds, not to know it of some is not to know it of any
        cats = {} if exclusive and names else {name: value for name, value in cats.items() if name not in names}
    return Annotation(
        text=text,
        where=where,
        tokens=tokens,
        ents=verdicts["accept"],
        complete=complete,
        unknown=unknown,
        rejected=verdicts["reject"] if is_binary else [],
        cats=cats,
        exclusive=exclusive and bool(cats),
        timestamp=_read_timestamp(record),
        input_hash=_read_input_hash(record),
        annotator=_read_annotator(record),
        silver=SILVER_WEIGHT if is_silver else None,
    )


def _load(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_record(record: Dict[str, Any]) -> bool:
    if not isinstance(record.get("text"), str) or is_token_record(record):
        return False
    if any(mark in record for mark in OTHER_MARKS) or isinstance(record.get("spans"), dict):
        return False
    return any(mark in record for mark in MARKS) or isinstance(record.get("label"), str)


def _read_unsure(teacher: Dict[str, Any], text: str, where: Where) -> List[CharSpan]:
    """Stretches of which a large language model is unsure, those that overlap as one."""
    given = teacher.get(UNSURE) or []
    joined: List[CharSpan] = []
    pairs = given if isinstance(given, list) else [given]
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(map(is_index, pair)) and pair[0] < pair[1]):
            raise where.error("H108", show(pair))
    for start, end in sorted(pairs):
        if not 0 <= start < end <= len(text):
            raise where.error("H110", f"{start}-{end}", label=UNSURE, length=len(text))
        if joined and start < joined[-1].end:
            before = joined.pop()
            start, end = before.start, max(end, before.end)
        joined.append(CharSpan(start, end, ""))
    return joined


def _overlaps(span: CharSpan, others: List[CharSpan]) -> bool:
    return any(span.start < other.end and other.start < span.end for other in others)


def _read_answer(holder: Dict[str, Any], where: Where, default: str) -> str:
    answer = holder.get("answer")
    if answer is None:
        return default
    if answer not in ANSWERS:
        raise where.error("H114", show(answer))
    return str(answer)


def _read_label(label: Any, where: Where) -> str:
    if not isinstance(label, str) or not label:
        raise where.error("H112", show(label))
    return label


def _read_timestamp(record: Dict[str, Any]) -> Optional[float]:
    time = record.get("_timestamp")
    if isinstance(time, (int, float)) and not isinstance(time, bool) and math.isfinite(time):
        return float(time)
    return None


def _read_annotator(record: Dict[str, Any]) -> Optional[str]:
    found = record.get("_annotator_id", record.get("_session_id"))
    return found if isinstance(found, str) and not UNNAMED_SESSION.fullmatch(found) else None


def _read_input_hash(record: Dict[str, Any]) -> Optional[int]:
    """The hash of the text. Of records that show something else too, it is over both."""
    found = record.get("_input_hash")
    return found if is_index(found) and not any(key in record for key in OTHER_INPUTS) else None


def _select_spans(
    record: Dict[str, Any], where: Where, findings: Findings
) -> Tuple[Optional[List[Dict[str, Any]]], bool]:
    """The spans that answer a question, None if no question was about spans; and if it was yes/no."""
    if "spans" not in record:
        return None, False
    spans = record["spans"]
    if not isinstance(spans, list) or not all(isinstance(span, dict) for span in spans):
        raise where.error("H108", show(spans))
    spans = [{key: value for key, value in span.items() if value is not None} for span in spans]
    view = record.get("_view_id")
    if view == "review":
        view = record.get("view_id")
    only_patterns = bool(spans) and all("pattern" in span for span in spans)
    if view in TEXT_VIEWS or (view is None and "label" in record and only_patterns):
        if spans:
            findings.note("highlights", where, count=len(spans))
        return None, False
    labelled = [span for span in spans if "label" in span or "pattern" not in span]
    if len(labelled) < len(spans):
        findings.note("pattern_hits", where, count=len(spans) - len(labelled))
        if not labelled:
            return None, False
    is_binary = record.get("_is_binary")
    if not isinstance(is_binary, bool):
        is_binary = view in BINARY_SPANS_VIEWS or any("answer" in span for span in labelled)
    return labelled, is_binary


def _read_spans(
    spans: List[Dict[str, Any]],
    answer: str,
    text: str,
    tokens: Optional[List[Tuple[int, int]]],
    where: Where,
    findings: Findings,
) -> Dict[str, List[CharSpan]]:
    """The spans by answer: their own one, or that of their record."""
    verdicts: Dict[str, List[CharSpan]] = {name: [] for name in ANSWERS}
    for span in spans:
        verdict = _read_answer(span, where, answer)
        start, end = span.get("start"), span.get("end")
        is_confirmed = _is_on_tokens(span, tokens)
        stored = span.get("text")
        found = read_span(start, end, span.get("label"), text, stored, where, findings, is_confirmed=is_confirmed)
        verdicts[verdict].append(found)
    return verdicts


def _is_on_tokens(span: Dict[str, Any], tokens: Optional[List[Tuple[int, int]]]) -> bool:
    """Whether the tokens that a span names begin and end where it does."""
    first: Any = span.get("token_start")
    last: Any = span.get("token_end")
    if tokens is None or not is_index(first) or not is_index(last) or not 0 <= first <= last < len(tokens):
        return False
    return (tokens[first][0], tokens[last][1]) == (span.get("start"), span.get("end"))


def _read_choice(record: Dict[str, Any], where: Where, findings: Findings) -> Dict[str, float]:
    options, accepted = record.get("options", []), record.get("accept")
    if not isinstance(options, list) or not all(isinstance(option, dict) for option in options):
        raise where.error("H122", f"options {show(options)}")
    if accepted is None:
        findings.note("unanswered_choice", where)
        return {}
    if not isinstance(accepted, list):
        raise where.error("H122", f"accept {show(accepted)}")
    labels: Dict[Any, str] = {}
    for option in options:
        option_id = _read_option_id(option.get("id"), where)
        labels[option_id] = _read_option_label(option, option_id)
    if len(set(labels.values())) < len(options):
        raise where.error("H122", f"options {show(options)}")
    if any(not isinstance(option_id, str) for option_id in labels):
        findings.note("numbered_options", where)
    cats = dict.fromkeys(labels.values(), 0.0)
    for option_id in accepted:
        if options and _read_option_id(option_id, where) not in labels:
            raise where.error("H115", show(option_id), options=show(list(labels)))
        # An export without its options tells what was chosen, not what else was offered.
        cats[labels[option_id] if options else _read_label(option_id, where)] = 1.0
    if _is_exclusive(record):
        if not accepted:
            findings.note("nothing_chosen", where)
            return {}
        if len(set(accepted)) > 1:
            raise where.error("H122", f"accept {show(accepted)} with choice_style 'single'")
    return cats


def _read_option_id(option_id: Any, where: Where) -> Any:
    if isinstance(option_id, (str, int, float)) and not isinstance(option_id, bool) and option_id != "":
        return option_id
    raise where.error("H122", f"option id {show(option_id)}")


def _read_option_label(option: Dict[str, Any], option_id: Any) -> str:
    if isinstance(option_id, str):
        return option_id
    # Numbers only say which position in this record's options; another record may offer others.
    label = option.get("text")
    return label if isinstance(label, str) and label else str(option_id)


def _is_exclusive(record: Dict[str, Any]) -> bool:
    config = record.get("config")
    return isinstance(config, dict) and config.get("choice_style") == "single"


def _read_tokens(record: Dict[str, Any], text: str, where: Where) -> Optional[List[Tuple[int, int]]]:
    tokens = record.get("tokens")
    if tokens is None or tokens == []:
        return None
    if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
        raise where.error("H116", show(tokens))
    borders: List[Tuple[int, int]] = []
    for token in tokens:
        start, end = token.get("start"), token.get("end")
        if not is_index(start) or not is_index(end) or text[start:end] != token.get("text"):
            raise where.error("H116", show(token))
        borders.append((start, end))
    next_starts = [start for start, _ in borders[1:]]
    for token, (_, end), next_start in zip(tokens, borders, next_starts):
        if isinstance(token.get("ws"), bool) and token["ws"] != (next_start > end):
            raise where.error("H116", show(token))
    return borders
