"""Which symbol may follow: the first token of a span, its last one, its label, and so on until the end symbol.

The alphabet has the n tokens of a text, the L labels and an end symbol, in this order. Spans come in the order of
their first token, those that begin together with the longest first, and then by label. So every set of spans is
spelled by exactly one sequence, nothing comes twice, and the probability of a sequence is that of a set of spans.
"""

from typing import List, NamedTuple, Sequence

import numpy
import torch
from torch import Tensor

from ..readings import MOST_PER_TOKEN, NumberedSpan

# What a symbol is chosen as: the first token of a span or the end, the last token of a span, its label
START, END, LABEL = 0, 1, 2


class Rules(NamedTuple):
    """What is legal in some texts, whatever was chosen before.

    border (Tensor): True for tokens where a span may begin and end. Bool, (n_texts, n_tokens).
    limit (Tensor): Of each token, the first one behind it that no span reaches that begins with it. Int64, (n_texts,
        n_tokens).
    most (Tensor): Number of spans after which only the end is legal. Int64, (n_texts,).
    n_labels (int): Number of labels.
    nested (bool): Whether spans may overlap.
    """

    border: Tensor
    limit: Tensor
    most: Tensor
    n_labels: int
    nested: bool

    @classmethod
    def of(
        cls, free: Sequence[numpy.ndarray], closed: Sequence[numpy.ndarray], n_labels: int, nested: bool
    ) -> "Rules":
        """Rules of texts.

        free (Sequence[numpy.ndarray]): True for tokens where a span may begin and end. Bool, (n_tokens,) each.
        closed (Sequence[numpy.ndarray]): True for tokens that no span may have. Bool, (n_tokens,) each.
        """
        longest = max(len(tokens) for tokens in free)
        border = numpy.zeros((len(free), longest), dtype=bool)
        limit = numpy.zeros((len(free), longest), dtype="int64")
        for row, (tokens, shut) in enumerate(zip(free, closed)):
            n = len(tokens)
            border[row, :n] = tokens & ~shut
            stops = numpy.where(shut, numpy.arange(n), n)
            limit[row, :n] = numpy.minimum.accumulate(stops[::-1])[::-1]
        most = MOST_PER_TOKEN * border.sum(1) if nested else border.sum(1)
        return cls(torch.from_numpy(border), torch.from_numpy(limit), torch.from_numpy(most), n_labels, nested)

    def to(self, device: torch.device) -> "Rules":
        """RETURNS (Rules): On a device."""
        return self._replace(border=self.border.to(device), limit=self.limit.to(device), most=self.most.to(device))

    def take(self, rows: Tensor) -> "Rules":
        """RETURNS (Rules): Of some of the texts."""
        return self._replace(border=self.border[rows], limit=self.limit[rows], most=self.most[rows])

    @property
    def n_symbols(self) -> int:
        """RETURNS (int): Symbols of the alphabet."""
        return self.border.shape[1] + self.n_labels + 1


class Steps(NamedTuple):
    """Where sequences are. All are int64, (n_texts, n_steps): several steps of one sequence, or one of several.

    kind (Tensor): START, END or LABEL: what comes next.
    start, end (Tensor): First and last token of the span that is being spelled, as far as they are known.
    last_start, last_end, last_label (Tensor): The span before it; -1 if there is none.
    n_spans (Tensor): Spans before it.
    """

    kind: Tensor
    start: Tensor
    end: Tensor
    last_start: Tensor
    last_end: Tensor
    last_label: Tensor
    n_spans: Tensor

    @classmethod
    def begin(cls, n_texts: int, n_sequences: int, device: torch.device) -> "Steps":
        """RETURNS (Steps): Before the first symbol."""
        zeros = torch.zeros(n_texts, n_sequences, dtype=torch.int64, device=device)
        return cls(zeros, zeros, zeros, zeros - 1, zeros - 1, zeros - 1, zeros)

    @property
    def position(self) -> Tensor:
        """RETURNS (Tensor): The token from which distances are counted: the last one that was chosen, 0 at first."""
        before = self.last_end.clamp(min=0)
        return torch.where(self.kind == START, before, torch.where(self.kind == END, self.start, self.end))

    def advance(self, symbols: Tensor, n_tokens: int) -> "Steps":
        """Choose symbols.

        symbols (Tensor): Legal ones. Int64, of the shape of all else here. After the end symbol all stays as it is.
        n_tokens (int): Tokens of the longest text, padding counted.
        """
        starts, ends, labels = (
            (self.kind == kind) & (symbols < n_tokens if kind != LABEL else symbols >= n_tokens)
            for kind in (START, END, LABEL)
        )
        return Steps(
            kind=torch.where(starts, END, torch.where(ends, LABEL, torch.where(labels, START, self.kind))),
            start=torch.where(starts, symbols, self.start),
            end=torch.where(ends, symbols, self.end),
            last_start=torch.where(labels, self.start, self.last_start),
            last_end=torch.where(labels, self.end, self.last_end),
            last_label=torch.where(labels, symbols - n_tokens, self.last_label),
            n_spans=self.n_spans + labels,
        )


def legal(steps: Steps, rules: Rules) -> Tensor:
    """RETURNS (Tensor): True for the symbols that may follow: one at least. Bool, (n_texts, n_steps, n_symbols)."""
    kind, start, end, last_start, last_end, last_label = (value[..., None] for value in steps[:6])
    tokens = torch.arange(rules.border.shape[1], device=kind.device)
    more_labels = last_label < rules.n_labels - 1
    border = rules.border[:, None]
    lowest = last_start if rules.nested else last_end + 1
    # Where a span began, another one may begin if a shorter one or a later label is left
    is_start = border & (tokens >= lowest) & ((tokens > last_start) | (last_end > tokens) | more_labels)
    is_start = is_start & (steps.n_spans < rules.most[:, None])[..., None]
    limit = rules.limit.gather(1, steps.start)[..., None]
    is_end = border & (tokens >= start) & (tokens < limit)
    again = (start == last_start) & (last_end >= 0)
    is_end = is_end & (~again | (tokens < last_end) | ((tokens == last_end) & more_labels))
    labels = torch.arange(rules.n_labels, device=kind.device)
    is_label = ~(again & (end == last_end)) | (labels > last_label)
    as_token = torch.where(kind == START, is_start, (kind == END) & is_end)
    return torch.cat((as_token, is_label & (kind == LABEL), kind == START), dim=2)


def spell(spans: Sequence[NumberedSpan], n_tokens: int, n_labels: int) -> List[int]:
    """RETURNS (List[int]): The symbols of spans in their order, the end symbol at the end."""
    symbols = [symbol for start, end, label in spans for symbol in (start, end - 1, n_tokens + label)]
    return [*symbols, n_tokens + n_labels]


def read(symbols: Sequence[int], n_tokens: int, n_labels: int) -> List[NumberedSpan]:
    """RETURNS (List[NumberedSpan]): The spans that symbols spell, up to the end symbol."""
    known = list(symbols[: list(symbols).index(n_tokens + n_labels)])
    return [(i, j + 1, label - n_tokens) for i, j, label in zip(known[::3], known[1::3], known[2::3])]


def teach(targets: Sequence[Sequence[NumberedSpan]], n_tokens: int, n_labels: int) -> "Lesson":
    """All steps of spelling spans at once.

    targets (Sequence[Sequence[NumberedSpan]]): Spans of each text, in order.
    n_tokens (int): Tokens of the longest text.
    n_labels (int): Number of labels.
    """
    n_steps = 3 * max(len(spans) for spans in targets) + 1
    end = n_tokens + n_labels
    symbols = numpy.full((len(targets), n_steps), end, dtype="int64")
    table = numpy.zeros((7, len(targets), n_steps), dtype="int64")
    table[3:6] = -1
    known = numpy.zeros((len(targets), n_steps), dtype=bool)
    for row, spans in enumerate(targets):
        used = 3 * len(spans) + 1
        symbols[row, :used] = spell(spans, n_tokens, n_labels)
        known[row, :used] = True
        if not spans:
            continue
        each = numpy.array(spans, dtype="int64") - (0, 1, 0)
        number = numpy.arange(3 * len(spans))
        table[0, row, : used - 1] = number % 3
        table[1, row, : used - 1], table[2, row, : used - 1] = each[number // 3, 0], each[number // 3, 1]
        before = numpy.concatenate(([[-1, -1, -1]], each))
        places = numpy.minimum(numpy.arange(n_steps) // 3, len(spans))
        table[3:6, row] = before[places].T
        table[6, row] = places
    steps = Steps(*(torch.from_numpy(values) for values in table))
    return Lesson(torch.from_numpy(symbols), steps, torch.from_numpy(known))


class Lesson(NamedTuple):
    """Sequences that are known, one a row, and where they are before each symbol.

    symbols (Tensor): Int64, (n_texts, n_steps). End symbols behind the end.
    steps (Steps): Of the same shape.
    known (Tensor): True up to the end symbol. Bool, of the same shape.
    """

    symbols: Tensor
    steps: Steps
    known: Tensor

    def to(self, device: torch.device) -> "Lesson":
        """RETURNS (Lesson): On a device."""
        steps = Steps(*(value.to(device) for value in self.steps))
        return Lesson(self.symbols.to(device), steps, self.known.to(device))
