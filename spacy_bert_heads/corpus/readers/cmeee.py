"""JSON of CMeEE's kind -> annotations: offsets in characters, inclusive at both ends, spans that may overlap."""

from pathlib import Path
from typing import Any, Iterator, List, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation, CharSpan
from ..findings import Findings
from .lines import head_values, most, read_json_objects
from .offsets import is_index, read_span, show
from .options import ReadOptions


class CmeeeConverter:
    """Reads {"text": "...", "entities": [{"start_idx": 0, "end_idx": 3, "type": "dis", "entity": "..."}]}, an array or
    one record per line."""

    name = "cmeee"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether most of its first values are such records, and one has an entity.
        """
        values = head_values(head)
        return most(values, is_cmeee_record) and any(isinstance(v, dict) and v.get("entities") for v in values)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A JSON or JSONL file, plain or gzipped.
        findings (Findings): Takes bad records, and those without entities, as test files have them.
        options (ReadOptions): Not needed.
        YIELDS (Annotation): One for each record that has a list of entities.
        RAISES (BertHeadsError): For a bad record, unless those are skipped.
        """
        for where, record in read_json_objects(path, findings, arrays=True):
            try:
                text, entities = record.get("text"), record.get("entities")
                if not isinstance(text, str) or not text:
                    raise where.error("H107", show(text) if "text" in record else "no such key")
                if entities is None:
                    findings.note("no_annotation", where)
                    continue
                if not isinstance(entities, list) or not all(isinstance(entity, dict) for entity in entities):
                    raise where.error("H136", show(entities), expected="'entities' as a list of objects")
                ents: List[CharSpan] = []
                for entity in entities:
                    start, end = entity.get("start_idx"), entity.get("end_idx")
                    behind = end + 1 if is_index(end) else end
                    label = entity.get("type")
                    ents.append(read_span(start, behind, label, text, entity.get("entity"), where, findings))
            except BertHeadsError as error:
                findings.bad(error)
                continue
            yield Annotation(text, where, ents=ents, complete=True)


def is_cmeee_record(record: Any) -> bool:
    """RETURNS (bool): Whether a JSON value is a text with entities that have such offsets."""
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        return False
    entities = record.get("entities")
    return isinstance(entities, list) and all(isinstance(one, dict) and "start_idx" in one for one in entities)
