"""What generating heads give for a text: readings, which are sets of spans, and how sure they are of each."""

import math
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy

# A span with a label: first token, token after the last, number of the label
NumberedSpan = Tuple[int, int, int]

# Spans of a text where they may overlap, at most: so many times its tokens
MOST_PER_TOKEN = 2


class Reading(NamedTuple):
    """One of the best readings of a text.

    spans (List[NumberedSpan]): In order of their first token, the longest first, then by label.
    log_probability (float): Of exactly these spans, among all that are legal. Nats, at most 0.
    """

    spans: List[NumberedSpan]
    log_probability: float


class Generated(NamedTuple):
    """What was generated for one Doc.

    readings (List[Reading]): Best first; at least one.
    confidences (List[float]): Of each span of the best reading: the summed probability of those readings of its window
        that were found and have it. 0 to 1, never more than its probability.
    """

    readings: List[Reading]
    confidences: List[float]


class TokenWindow(NamedTuple):
    """A stretch of a Doc that is read by itself.

    start (int): First token.
    stop (int): The one after the last.
    first_own, last_own (int): Spans that begin at first_own or behind it, and before last_own, are taken from this
        window; others are in a neighbour that sees more of their surroundings.
    """

    start: int
    stop: int
    first_own: int
    last_own: int

    def owns(self, token: int) -> bool:
        """RETURNS (bool): Whether spans that begin with a token of the Doc are taken from this window."""
        return self.first_own <= token < self.last_own


def cut(n_tokens: int, size: int, overlap: int) -> List[TokenWindow]:
    """Cut a Doc into windows.

    n_tokens (int): Tokens of the Doc.
    size (int): Tokens of a window, at most.
    overlap (int): Tokens that neighbours share, less than size.
    RETURNS (List[TokenWindow]): None for an empty Doc.
    """
    starts = [0] if n_tokens else []
    while starts and starts[-1] + size < n_tokens:
        starts.append(starts[-1] + size - overlap)
    return join_borders([(start, min(start + size, n_tokens)) for start in starts])


def join_borders(borders: Sequence[Tuple[int, int]]) -> List[TokenWindow]:
    """RETURNS (List[TokenWindow]): Windows with these borders, each of which owns half of an overlap."""
    middles = [(stop + start) // 2 for (_, stop), (start, _) in zip(borders, borders[1:])]
    return [
        TokenWindow(start, stop, first, last)
        for (start, stop), first, last in zip(borders, [0, *middles], [*middles, borders[-1][1] if borders else 0])
    ]


def combine(windows: Sequence[Tuple[TokenWindow, Sequence[Reading]]], n: int, nested: bool) -> Generated:
    """Make readings of a Doc from those of its windows, which are independent of each other.

    windows (Sequence[Tuple[TokenWindow, Sequence[Reading]]]): Readings of each window, by the window's own tokens.
    n (int): How many readings are wanted.
    nested (bool): Whether spans may overlap. If not, a span of a later window that overlaps one before it is left out.
    """
    # Log-probability, last token of a span so far, and what was chosen in each window: itself behind that before it
    best: List[Tuple[float, int, Any]] = [(0.0, 0, None)]
    confidence: Dict[NumberedSpan, float] = {}
    for window, readings in windows:
        owned: Dict[Tuple[NumberedSpan, ...], float] = {}
        for reading in readings:
            moved = ((start + window.start, end + window.start, label) for start, end, label in reading.spans)
            spans = tuple(span for span in moved if window.owns(span[0]))
            owned[spans] = float(numpy.logaddexp(owned.get(spans, -math.inf), reading.log_probability))
            for span in spans:
                confidence[span] = confidence.get(span, 0.0) + math.exp(reading.log_probability)
        joined = []
        for total, last, chosen in best:
            for spans, value in owned.items():
                kept = tuple(span for span in spans if nested or span[0] >= last)
                joined.append((total + value, max([last, *(end for _, end, _ in kept)]), (chosen, kept)))
        best = sorted(joined, key=lambda one: -one[0])[:n]
    found = [Reading(_unchain(chosen), total) for total, _, chosen in best]
    return Generated(found, [min(1.0, confidence[span]) for span in found[0].spans])


def _unchain(chosen: Any) -> List[NumberedSpan]:
    parts = []
    while chosen is not None:
        chosen, spans = chosen
        parts.append(spans)
    return [span for spans in reversed(parts) for span in spans]


def in_order(spans: Sequence[NumberedSpan]) -> List[NumberedSpan]:
    """RETURNS (List[NumberedSpan]): Spans in the order in which they are generated, each once."""
    return sorted(set(spans), key=lambda span: (span[0], -span[1], span[2]))
