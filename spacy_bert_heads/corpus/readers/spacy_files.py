"""spaCy's own files -> annotations: `.spacy` (DocBin), and JSON of texts with entities and categories."""

import math
import re
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from ...errors import BertHeadsError
from ...extensions import get_silver
from ..annotations import INCORRECT_SPANS_KEY, UNKNOWN_SPANS_KEY, Annotation, CharSpan
from ..docs import EXCLUSIVE, SECOND_START, TIMESTAMP
from ..findings import Findings, Where
from .cmeee import is_cmeee_record
from .lines import head_values, most, read_head, read_json_member, read_json_records
from .offsets import is_index, read_span, show
from .options import ReadOptions
from .pipes import find_file
from .spacy_v2 import is_training_record, read_paragraphs

ENTITY_KEYS = ("entities", "ents")
# An object with pairs under "annotations", of which the first ones may be null.
NER_ANNOTATOR = re.compile(
    rb'\s*\{(?:\s*"classes"\s*:\s*\[[^\[\]{}]*\]\s*,)?\s*"annotations"\s*:\s*\[\s*(?:null\s*,\s*)*\[\s*"'
)
LAYERS = ("TAG", "POS", "MORPH", "LEMMA", "DEP")


class DocBinConverter:
    """Reads `.spacy` files. All Docs of a file are in memory at once: spaCy stores them so."""

    name = "spacy"
    suffixes: Tuple[str, ...] = (".spacy",)

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether it is a packed DocBin.
        """
        try:
            unpacked = zlib.decompressobj().decompress(head[:4096], 4096)
        except zlib.error:
            return False
        return b"version" in unpacked[:20] and b"attrs" in unpacked[:40]

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A `.spacy` file.
        findings (Findings): Takes what is in the Docs beside entities, rejected spans and categories.
        options (ReadOptions): Whether categories are scores.
        YIELDS (Annotation): One for each Doc that says something about its text; its "line" is its number.
        RAISES (BertHeadsError): H144 if the file is broken.
        """
        read_head(path)
        vocab, values = Vocab(), _CatValues()
        try:
            docs = enumerate(DocBin(store_user_data=True).from_disk(find_file(path)).get_docs(vocab), 1)
            while True:
                try:
                    number, doc = next(docs)
                except StopIteration:
                    values.tell(findings, options)
                    return
                findings.n_records[path] += 1
                for annotation in _read_doc(doc, Where(path, number), findings, options.spans_key):
                    values.add(annotation)
                    yield annotation
        except BertHeadsError:
            raise
        except Exception as error:  # whatever zlib, msgpack and spaCy say about broken bytes
            raise BertHeadsError("H144", path=path, found=f"{type(error).__name__}: {error}") from error


class SpacyJsonConverter:
    """Reads {"text": ..., "entities": [[0, 5, "ORG"]], "cats": {...}} lines, [text, {"entities": ...}] pairs, what
    `Doc.to_json` writes, and the training records of spaCy 2; one value per line or an array. Also what NER Annotator
    writes, an object with such pairs under "annotations"."""

    name = "spacy-json"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether most of its first values are such records.
        """
        return bool(NER_ANNOTATOR.match(head)) or most(head_values(head), _is_record)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A JSON or JSONL file, plain or gzipped.
        findings (Findings): Takes bad records, and what is not used of good ones.
        options (ReadOptions): Whether categories are scores.
        YIELDS (Annotation): One for each record that says something about its text.
        RAISES (BertHeadsError): For a bad record, unless those are skipped.
        """
        values = _CatValues()
        is_member = NER_ANNOTATOR.match(read_head(path)) is not None
        records = read_json_member(path, "annotations", findings) if is_member else read_json_records(path, findings)
        for where, value in records:
            try:
                for annotation in _read_value(value, where, findings, options.spans_key):
                    values.add(annotation)
                    if annotation.is_empty:
                        findings.note("no_annotation", where)
                    else:
                        yield annotation
            except BertHeadsError as error:
                findings.bad(error)
        values.tell(findings, options)


class _CatValues:
    """Notices categories that hold the number of a class, where a classifier needs 0 or 1 of each class."""

    def __init__(self) -> None:
        self.numbers: Dict[str, List[Tuple[Where, float]]] = {}
        self.counts: "Counter[str]" = Counter()
        self.scores: Set[str] = set()

    def add(self, annotation: Annotation) -> None:
        for label, value in annotation.cats.items():
            if value in (0.0, 1.0):
                continue
            if value < 0.0 or not value.is_integer():
                self.scores.add(label)
            self.counts[label] += 1
            self.numbers.setdefault(label, [(annotation.where, value)])

    def tell(self, findings: Findings, options: ReadOptions) -> None:
        """What is said to be a score, or cannot be anything else, is right."""
        for label, [(where, value)] in self.numbers.items():
            if label not in self.scores and options.kind != "score":
                findings.note("numbered_cats", where, f"{label!r} is {value:g}", self.counts[label])


def _read_value(value: Any, where: Where, findings: Findings, spans_key: Optional[str]) -> Iterator[Annotation]:
    if value is None:
        findings.note("no_annotation", where)
    elif is_training_record(value):
        yield from read_paragraphs(value, where, findings)
    else:
        yield _read_record(_as_record(value, where), where, findings, spans_key)


def _is_record(value: Any) -> bool:
    if is_training_record(value):
        return True
    if isinstance(value, list):
        return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict)
    if not isinstance(value, dict) or not isinstance(value.get("text"), str) or isinstance(value.get("cats"), list):
        return False
    entities = value.get("entities")
    if isinstance(entities, list) and any(isinstance(item, dict) and "start_offset" in item for item in entities):
        return False
    if "answer" in value or isinstance(value.get("spans"), list) or (entities and is_cmeee_record(value)):
        return False
    return any(isinstance(value.get(key), list) for key in ENTITY_KEYS) or any(
        isinstance(value.get(key), dict) for key in ("cats", "spans")
    )


def _as_record(value: Any, where: Where) -> Dict[str, Any]:
    if isinstance(value, list) and _is_record(value):
        return {**value[1], "text": value[0]}
    if not isinstance(value, dict):
        raise where.error("H106", type(value).__name__)
    return value


def _read_record(record: Dict[str, Any], where: Where, findings: Findings, spans_key: Optional[str]) -> Annotation:
    text = record.get("text")
    if not isinstance(text, str) or not text:
        raise where.error("H107", show(text) if "text" in record else "no such key")
    key = next((key for key in ENTITY_KEYS if record.get(key) is not None), None)
    ents = [] if key is None else _read_spans(record[key], text, where, findings)
    spans = record.get("spans") or {}
    if not isinstance(spans, dict):
        raise where.error("H136", show(spans), expected="'spans' as an object of lists")
    if any(name not in (INCORRECT_SPANS_KEY, spans_key) and group for name, group in spans.items()):
        findings.note("other_groups", where)
    if spans_key in spans:
        key, ents = spans_key, _read_spans(spans[spans_key], text, where, findings)
    rejected = _read_spans(spans.get(INCORRECT_SPANS_KEY, []), text, where, findings)
    return Annotation(
        text,
        where,
        tokens=_read_tokens(record.get("tokens"), where),
        ents=ents,
        complete=key is not None,
        rejected=rejected,
        cats=_read_cats(record.get("cats") or {}, where),
    )


def _read_spans(spans: Any, text: str, where: Where, findings: Findings) -> List[CharSpan]:
    if not isinstance(spans, list):
        raise where.error("H108", show(spans))
    found = []
    for span in spans:
        if isinstance(span, list) and len(span) in (3, 4):
            span = dict(zip(("start", "end", "label"), span))
        elif not isinstance(span, dict):
            raise where.error("H108", show(span))
        borders = span.get("start"), span.get("end")
        found.append(read_span(*borders, span.get("label"), text, span.get("text"), where, findings))
    return found


def _read_tokens(tokens: Any, where: Where) -> Optional[List[Tuple[int, int]]]:
    if not tokens:
        return None
    if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
        raise where.error("H116", show(tokens))
    borders = [(token.get("start"), token.get("end")) for token in tokens]
    wrong = next((token for token, pair in zip(tokens, borders) if not all(map(is_index, pair))), None)
    if wrong is not None:
        raise where.error("H116", show(wrong))
    return borders


def _read_cats(cats: Any, where: Where) -> Dict[str, float]:
    if not isinstance(cats, dict):
        raise where.error("H136", show(cats), expected="'cats' as an object of numbers")
    for label, value in cats.items():
        if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
            raise where.error("H135", show(value), label=label)
    return {label: float(value) for label, value in cats.items()}


def _read_doc(doc: Doc, where: Where, findings: Findings, spans_key: Optional[str]) -> Iterator[Annotation]:
    used = (INCORRECT_SPANS_KEY, *([spans_key, UNKNOWN_SPANS_KEY] if spans_key in doc.spans else []))
    groups = [name for name, group in doc.spans.items() if len(group) and name not in used]
    layers = [name for name in LAYERS if doc.has_annotation(name)]
    if layers:
        findings.note("other_layers", where, ", ".join(layers))
    if groups:
        findings.note("other_groups", where, ", ".join(f"spans[{name!r}]" for name in groups))
    # What a token says: 0 nothing, 2 that it is outside.
    marks = [token.ent_iob for token in doc]
    complete = 2 in marks or (bool(marks) and 0 not in marks)
    if spans_key in doc.spans and any(marks):
        findings.note("ents_beside_group", where)
    second_start, timestamp = doc.user_data.get(SECOND_START), doc.user_data.get(TIMESTAMP)
    annotation = Annotation(
        doc.text,
        where,
        tokens=[(token.idx, token.idx + len(token)) for token in doc],
        ents=[CharSpan(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents],
        complete=complete,
        unknown=_unknown_stretches(doc, marks) if complete else [],
        rejected=[
            CharSpan(span.start_char, span.end_char, span.label_) for span in doc.spans.get(INCORRECT_SPANS_KEY, ())
        ],
        cats=dict(doc.cats),
        exclusive=bool(doc.cats) and doc.user_data.get(EXCLUSIVE) is True,
        timestamp=timestamp if isinstance(timestamp, float) else None,
        second_start=second_start if isinstance(second_start, int) else None,
        silver=get_silver(doc),
    )
    if spans_key in doc.spans:
        annotation = _with_group(annotation, doc, spans_key or "")
    if annotation.is_empty:
        findings.note("no_annotation", where)
    else:
        yield annotation


def _with_group(annotation: Annotation, doc: Doc, spans_key: str) -> Annotation:
    """The annotation with the spans of a group in place of the entities."""
    spans, gaps = (
        [CharSpan(span.start_char, span.end_char, span.label_) for span in doc.spans.get(key, ())]
        for key in (spans_key, UNKNOWN_SPANS_KEY)
    )
    # As build_doc marks an annotation that is not complete
    complete = not any(not gap.label_ and len(gap) == len(doc) for gap in doc.spans.get(UNKNOWN_SPANS_KEY, ()))
    return replace(annotation, ents=spans, complete=complete, unknown=gaps if complete else [])


def _unknown_stretches(doc: Doc, marks: List[int]) -> List[CharSpan]:
    stretches: List[CharSpan] = []
    open_at: Optional[int] = None
    for index, mark in enumerate([*marks, 2]):
        if mark == 0 and open_at is None:
            open_at = index
        elif mark != 0 and open_at is not None:
            stretches.append(CharSpan(doc[open_at].idx, doc[index - 1].idx + len(doc[index - 1]), ""))
            open_at = None
    return stretches
