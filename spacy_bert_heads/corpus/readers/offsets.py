"""Spans as records give them -> spans in code points, whatever units the tool counted in."""

import unicodedata
from array import array
from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import Any, Callable, Dict, Optional, Tuple

from ..annotations import CharSpan
from ..findings import Findings, Where

# How tools count otherwise than in code points: the size of a character, given the one before and the one behind it.
UNITS: Dict[str, Callable[[str, str, str], int]] = {
    "UTF-16 units": lambda before, char, after: 1 + (char > "\uffff"),
    "bytes": lambda before, char, after: len(char.encode("utf8", "surrogatepass")),
    "\\r\\n as one character": lambda before, char, after: int(char + after != "\r\n"),
    "\\r\\n as one UTF-16 unit": lambda before, char, after: 1 + (char > "\uffff") - (char + after == "\r\n"),
    "\\n as two characters": lambda before, char, after: 1 + (char == "\n" and before != "\r"),
}
# The text of a span that was moved by editing is looked for so many characters before and behind its place.
NEARBY = 100


def read_span(
    start: Any,
    end: Any,
    label: Any,
    text: str,
    stored: Any,
    where: Where,
    findings: Findings,
    *,
    is_confirmed: bool = False,
) -> CharSpan:
    """Check one span, and recount it if it was counted in other units than characters.

    start (Any): First character.
    end (Any): Character after the last one.
    label (Any): Its label.
    text (str): The text.
    stored (Any): What the record says that the span covers. None if it does not say.
    where (Where): Place of the record.
    findings (Findings): Takes spans that were recounted or moved, or whose stored text is out of date.
    is_confirmed (bool): Whether the record says elsewhere that the offsets are right. Then the stored text is wrong.
    RETURNS (CharSpan): The span.
    RAISES (BertHeadsError): H108 if the offsets are no whole numbers; H112 if the label is no string or empty; H150 if
        the stored text is not at the offsets, however they are counted.
    """
    if not is_index(start) or not is_index(end):
        raise where.error("H108", f"start {show(start)}, end {show(end)}")
    if not isinstance(label, str) or not label:
        raise where.error("H112", show(label))
    if not isinstance(stored, str) or text[max(0, start) : max(0, end)] == stored or not 0 <= start < end:
        return CharSpan(start, end, label)
    if is_confirmed:
        findings.note("stale_text", where, f"{label} {start}-{end}: {show(stored)}")
        return CharSpan(start, end, label)
    if _squeeze(text[start:end]) == _squeeze(stored):
        # Tools store line ends and other white space in their own ways.
        return CharSpan(start, end, label)
    for unit in UNITS:
        found = recount(text, start, end, unit)
        if found is not None and _squeeze(text[found[0] : found[1]]) == _squeeze(stored):
            kind = "utf16_offsets" if unit == "UTF-16 units" else "recounted_offsets"
            findings.note(kind, where, f"{label} {start}-{end} in {unit} is {found[0]}-{found[1]}")
            return CharSpan(*found, label)
    moved = _find_nearby(text, start, end, stored)
    if moved is None:
        raise where.error("H150", show(text[start:end]), label=label, place=f"{start}-{end}", stored=show(stored))
    findings.note("moved_spans", where, f"{label} {start}-{end}: {show(stored)} is at {moved[0]}-{moved[1]}")
    return CharSpan(*moved, label)


def recount(text: str, start: int, end: int, unit: str) -> Optional[Tuple[int, int]]:
    """Recount offsets in code points, in which an emoji is one character and a line end with "\\r\\n" two.

    text (str): The text.
    start (int): First unit.
    end (int): Unit after the last one.
    unit (str): Key of UNITS.
    RETURNS (Optional[Tuple[int, int]]): The span in code points; None if it does not begin and end with characters.
    """
    starts = _count(text, unit)
    # Where a character has no size of its own, the span begins behind it and ends before it.
    first, last = bisect_right(starts, start) - 1, bisect_left(starts, end)
    is_span = 0 <= first < last < len(starts) and starts[first] == start and starts[last] == end
    return (first, last) if is_span else None


@lru_cache(maxsize=2 * len(UNITS))
def _count(text: str, unit: str) -> "array[int]":
    """The units before each character, and before the end."""
    sizes = map(UNITS[unit], "\0" + text[:-1], text, text[1:] + "\0")
    return array("q", accumulate(sizes, initial=0))


def _squeeze(text: str) -> str:
    return unicodedata.normalize("NFC", "".join(text.replace("\\n", " ").split()))


def _find_nearby(text: str, start: int, end: int, stored: str) -> Optional[Tuple[int, int]]:
    """The only place near the offsets where the stored text is, if words begin and end there."""
    stored = stored.strip()
    first = max(0, start - NEARBY)
    window = text[first : end + NEARBY]
    at = window.find(stored)
    if not stored or at < 0 or window.find(stored, at + 1) >= 0:
        return None
    begin = first + at
    found = begin, begin + len(stored)
    is_inside = any(_is_within_word(text, border) for border in found)
    return None if is_inside else found


def _is_within_word(text: str, border: int) -> bool:
    around = text[border - 1 : border + 1] if border else ""
    return len(around) == 2 and around.isalnum() and any(map(_has_case, around))


def _has_case(char: str) -> bool:
    return char.lower() != char.upper() or char.isdigit()


def is_index(value: Any) -> bool:
    """RETURNS (bool): Whether the value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def show(value: Any, limit: int = 80) -> str:
    """RETURNS (str): The value for a message, cut off if it is long."""
    shown = repr(value)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
