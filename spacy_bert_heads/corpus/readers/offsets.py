"""Spans as records give them -> spans in code points, whatever units the tool counted in."""

from typing import Any, Optional, Tuple

from ..annotations import CharSpan
from ..findings import Findings, Where


def read_span(start: Any, end: Any, label: Any, text: str, stored: Any, where: Where, findings: Findings) -> CharSpan:
    """Check one span, and recount it if it was counted in UTF-16 units.

    start (Any): First character.
    end (Any): Character after the last one.
    label (Any): Its label.
    text (str): The text.
    stored (Any): What the record says that the span covers. None if it does not say.
    where (Where): Place of the record.
    findings (Findings): Takes spans that were recounted, or that cover other text than stored.
    RETURNS (CharSpan): The span.
    RAISES (BertHeadsError): H108 if the offsets are no whole numbers; H112 if the label is no string or empty.
    """
    if not is_index(start) or not is_index(end):
        raise where.error("H108", f"start {show(start)}, end {show(end)}")
    if not isinstance(label, str) or not label:
        raise where.error("H112", show(label))
    if isinstance(stored, str) and text[start:end] != stored:
        recounted = from_utf16(text, start, end, stored)
        if recounted is None:
            findings.note("stale_text", where, f"{label} {start}-{end}: {show(stored)}")
        else:
            findings.note("utf16_offsets", where, f"{label} {start}-{end} is {recounted[0]}-{recounted[1]}")
            start, end = recounted
    return CharSpan(start, end, label)


def from_utf16(text: str, start: int, end: int, stored: str) -> Optional[Tuple[int, int]]:
    """Recount offsets in code points, in which an emoji is one character and not two.

    text (str): The text.
    start (int): First UTF-16 unit.
    end (int): UTF-16 unit after the last one.
    stored (str): What the span covers.
    RETURNS (Optional[Tuple[int, int]]): The span in code points; None if the text there is another one.
    """
    if not 0 <= start < end:
        return None
    units = text.encode("utf-16-le")
    try:
        before, inside = (part.decode("utf-16-le") for part in (units[: 2 * start], units[2 * start : 2 * end]))
    except UnicodeDecodeError:
        return None
    return (len(before), len(before) + len(stored)) if inside == stored else None


def is_index(value: Any) -> bool:
    """RETURNS (bool): Whether the value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def show(value: Any, limit: int = 80) -> str:
    """RETURNS (str): The value for a message, cut off if it is long."""
    shown = repr(value)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
