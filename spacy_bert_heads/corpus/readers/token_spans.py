"""JSON records of words and spans over them, as data sets of nested entities have them -> annotations."""

from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation, CharSpan
from ..findings import Findings, Where
from .conll import WITHOUT_SPACES
from .lines import head_values, most, read_json_objects
from .offsets import is_index, show
from .options import ReadOptions
from .tag_spans import join_words


class TokenSpansConverter:
    """Reads {"tokens": ["in", "New", "York"], "entities": [{"start": 1, "end": 3, "type": "CITY"}]}, one record per
    line or an array. Offsets count tokens from 0; the end is exclusive."""

    name = "token-spans"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether most of its first values are such records.
        """
        return most(head_values(head), _is_record)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A JSON or JSONL file, plain or gzipped.
        findings (Findings): Takes bad records.
        options (ReadOptions): The language, by which words are joined.
        YIELDS (Annotation): One for each record.
        RAISES (BertHeadsError): H108, H112, H136 or H190 for a bad record, unless those are skipped.
        """
        for where, record in read_json_objects(path, findings, arrays=True):
            try:
                yield _read_record(record, where, options)
            except BertHeadsError as error:
                findings.bad(error)


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or "text" in record:
        return False
    tokens, entities = record.get("tokens"), record.get("entities")
    if not isinstance(tokens, list) or not isinstance(entities, list) or not all(isinstance(t, str) for t in tokens):
        return False
    return all(isinstance(entity, dict) and {"start", "end"} <= entity.keys() for entity in entities)


def _read_record(record: Dict[str, Any], where: Where, options: ReadOptions) -> Annotation:
    words, entities = record.get("tokens"), record.get("entities")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise where.error("H136", show(words), expected="'tokens' as a list of strings that are not empty")
    if not isinstance(entities, list) or not all(isinstance(entity, dict) for entity in entities):
        raise where.error("H136", show(entities), expected="'entities' as a list of objects")
    text, tokens = join_words(words, with_spaces=options.lang not in WITHOUT_SPACES)
    ents: List[CharSpan] = []
    for entity in entities:
        start, end, label = entity.get("start"), entity.get("end"), entity.get("type", entity.get("label"))
        if not is_index(start) or not is_index(end):
            raise where.error("H108", f"start {show(start)}, end {show(end)}")
        if not isinstance(label, str) or not label:
            raise where.error("H112", show(label))
        if not 0 <= start < end <= len(words):
            raise where.error("H190", f"{label!r} at {start}-{end}", n_tokens=len(words))
        ents.append(CharSpan(tokens[start][0], tokens[end - 1][1], label))
    return Annotation(text, where, tokens=tokens, ents=ents, complete=True)
