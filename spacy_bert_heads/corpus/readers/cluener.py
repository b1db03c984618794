"""CLUENER JSON lines -> annotations. Offsets there are inclusive at both ends."""

from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation, CharSpan
from ..findings import Findings, Where
from .lines import head_values, most, read_json_objects
from .offsets import is_index, read_span, show
from .options import ReadOptions


class CluenerConverter:
    """Reads lines such as {"text": "...", "label": {"name": {"彭小军": [[0, 2]]}}}, and {"id": 0, "text": "..."} of
    its test split, which has no labels."""

    name = "cluener"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether most of its first lines are such records.
        """
        return most(head_values(head), _is_record)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A JSONL or JSON file, plain or gzipped.
        findings (Findings): Takes bad records, and those without labels.
        options (ReadOptions): Not needed.
        YIELDS (Annotation): One for each record with labels.
        RAISES (BertHeadsError): For a bad record, unless those are skipped.
        """
        for where, record in read_json_objects(path, findings, arrays=True):
            try:
                text = record.get("text")
                if not isinstance(text, str) or not text:
                    raise where.error("H107", show(text) if "text" in record else "no such key")
                if record.get("label") is None:
                    findings.note("no_annotation", where)
                    continue
                ents = _read_spans(record["label"], text, where, findings)
            except BertHeadsError as error:
                findings.bad(error)
                continue
            yield Annotation(text, where, ents=ents, complete=True)


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        return False
    return isinstance(record.get("label"), dict) or record.keys() == {"id", "text"}


def _read_spans(labels: Any, text: str, where: Where, findings: Findings) -> List[CharSpan]:
    ents = []
    for label, entries in _items(labels, where):
        for stored, places in _items(entries, where):
            for place in places if isinstance(places, list) else [places]:
                if not isinstance(place, list) or len(place) != 2 or not all(map(is_index, place)):
                    raise where.error("H108", show(place))
                ents.append(read_span(place[0], place[1] + 1, label, text, stored, where, findings))
    return ents


def _items(value: Any, where: Where) -> List[Tuple[str, Any]]:
    if not isinstance(value, dict):
        expected = "'label' such as {'name': {'TEXT': [[0, 3]]}}"
        raise where.error("H136", show(value), expected=expected)
    items: Dict[str, Any] = value
    return list(items.items())
