"""Scores of spans, nested ones included: a shared query-key pair with rotary positions, and three numbers per label.

The score of a span that begins with token i, ends with token j and has the label l is

    score(i, j, l) = query(i) . key(j) / sqrt(width) + start(i, l) + end(j, l) + inside(i, l) + ... + inside(j, l)

where query and key are rotated by their positions, so that their product also depends on the distance j - i. Only
spans of up to max_width tokens are scored. The sum over the tokens inside is a difference of running sums, so it is
part of start and end. The layer's output keeps the parts apart, for there are far fewer numbers in them than spans
with labels: of each token the max_width products with itself and the tokens behind it, then its start for each label,
then its end for each label.

SOURCE: Su et al. (2022), arXiv 2208.03054, the efficient form, which has no score of the tokens inside; that is as in
Sarawagi and Cohen (2004), Semi-Markov Conditional Random Fields. Su et al. (2021), arXiv 2104.09864, for the
positions.
"""

from functools import partial
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple, cast

import numpy
import torch
from thinc.api import Model
from thinc.types import Floats2d
from thinc.util import xp2torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from ..errors import BertHeadsError
from ..types import Ints
from .crf.paths import Uncertainty
from .head_layers import check_lstm_width, check_sizes, forward_rows, head_layer, split
from .head_modules import linear
from .lstm import bilstm, run_bilstm
from .precision import check_precision
from .torch_shim import TorchShim

# Queries that meet their keys in one matrix product, at least: smaller products are slower
MIN_BLOCK = 32
# Spans with labels that the loss looks at together, and so has in memory
CHUNK_CELLS = 1 << 21
# A span with a label: first token, token after the last, number of the label
NumberedSpan = Tuple[int, int, int]
# Log-odds of a span before anything is learned: most spans are none
PRIOR = -8.0


class SpanParts(NamedTuple):
    """The layer's output, for all Docs one after the other.

    content (Tensor): Products of query and key, by first token and number of tokens - 1; 0 where a span would go
        beyond its Doc. Float, (n_tokens, max_width).
    start (Tensor): Float, (n_tokens, n_labels).
    end (Tensor): Float, (n_tokens, n_labels).
    """

    content: Tensor
    start: Tensor
    end: Tensor

    @classmethod
    def from_flat(cls, flat: Tensor, max_width: int) -> "SpanParts":
        """flat (Tensor): The layer's output. Float, (n_tokens, max_width + 2 * n_labels)."""
        n_labels = (flat.shape[1] - max_width) // 2
        return cls(*flat.split([max_width, n_labels, n_labels], dim=1))


class SpanTargets(NamedTuple):
    """What is known about the spans of one Doc.

    spans (Sequence[NumberedSpan]): Those that are there.
    rejected (Sequence[NumberedSpan]): Those that are known not to be there, whatever `unknown` says.
    unknown (numpy.ndarray): True at tokens of which it is not known whether a span touches them, other than those in
        `spans`. Bool, (n_tokens, 1) for all labels alike, or (n_tokens, n_labels).
    blank (numpy.ndarray): True for white space, where no span begins or ends. Bool, (n_tokens,).
    """

    spans: Sequence[NumberedSpan]
    rejected: Sequence[NumberedSpan]
    unknown: numpy.ndarray
    blank: numpy.ndarray


class GlobalPointer(torch.nn.Module):
    """Dropout, a bidirectional LSTM if asked for, dropout, and the parts of span scores.

    nI (int): Width of the input.
    nO (int): Number of labels.
    max_width (int): Tokens of the longest span that is scored.
    key_width (int): Width of query and key: an even number.
    lstm_width (Optional[int]): Width of the LSTM's output, both directions together. None: no LSTM.
    lstm_depth (int): Number of LSTM layers.
    """

    def __init__(
        self, nI: int, nO: int, max_width: int, key_width: int, lstm_width: Optional[int], lstm_depth: int
    ) -> None:
        super().__init__()
        self.max_width = max_width
        self.dropout = torch.nn.Dropout(0.0)
        self.lstm: Optional[torch.nn.LSTM] = None
        if lstm_width is not None:
            self.lstm = bilstm(nI, lstm_width, lstm_depth)
        self.pair = linear(nI if lstm_width is None else lstm_width, 2 * key_width)
        self.labels = linear(nI if lstm_width is None else lstm_width, 3 * nO)
        torch.nn.init.constant_(self.labels.bias[:nO], PRIOR)
        self.block = max(MIN_BLOCK, max_width)
        angles = rotary_angles(2 * self.block, key_width)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, X: Tensor, lengths: Tensor, lstm_type: Optional[torch.dtype] = None) -> Tensor:
        """Score spans.

        X (Tensor): Token vectors of all Docs, one after the other. Float, (n_tokens, nI), at least one token.
        lengths (Tensor): Tokens of each Doc, on the CPU; 0 is allowed. Int64, (n_docs,).
        lstm_type (Optional[torch.dtype]): What the LSTM computes in. None: float32, as everything else here.
        RETURNS (Tensor): See SpanParts. Float, (n_tokens, max_width + 2 * nO).
        """
        X = self.dropout(X)
        if self.lstm is not None:
            with torch.autocast(X.device.type, dtype=lstm_type, enabled=lstm_type is not None):
                X = self.dropout(run_bilstm(self.lstm, X, lengths).float())
        query, key = self.pair(X).chunk(2, dim=1)
        rest = tokens_to_the_end(lengths).to(X.device)
        fits = torch.arange(self.max_width, device=X.device) < rest[:, None]
        content = self._products(query, key).masked_fill(~fits, 0.0)
        start, end, inside = self.labels(X).chunk(3, dim=1)
        through = running_sums(inside, lengths)
        return torch.cat((content, start - through + inside, end + through), dim=1)

    def _products(self, query: Tensor, key: Tensor) -> Tensor:
        """Of each token with itself and the tokens behind it, whatever Doc they are in. (n_tokens, max_width)."""
        (n_tokens, width), block = query.shape, self.block
        n_blocks = -(-n_tokens // block)
        filler = (0, 0, 0, n_blocks * block - n_tokens)
        queries = pad(query, filler).view(n_blocks, block, width)
        keys = pad(key, filler).view(n_blocks, block, width)
        # A block of queries meets the keys of its own block and of the next one. Positions are counted from the
        # beginning of the block: only distances matter, and small angles are exact in a text of any length.
        keys = torch.cat((keys, pad(keys[1:], (0, 0, 0, 0, 0, 1))), dim=1)
        queries = self._rotate(queries) * width**-0.5
        products = torch.bmm(queries, self._rotate(keys).transpose(1, 2)).contiguous()
        # The band beside the diagonal: one row down is one column further
        size = (n_blocks, block, self.max_width)
        band = products.as_strided(size, (2 * block * block, 2 * block + 1, 1))
        return band.reshape(n_blocks * block, self.max_width)[:n_tokens]

    def _rotate(self, X: Tensor) -> Tensor:
        """X (Tensor): Float, (n_blocks, positions, width)."""
        n_positions = X.shape[1]
        even, odd = X[..., 0::2], X[..., 1::2]
        cos, sin = self.get_buffer("cos")[:n_positions], self.get_buffer("sin")[:n_positions]
        return torch.cat((even * cos - odd * sin, odd * cos + even * sin), dim=2)


def rotary_angles(n_positions: int, width: int) -> Tensor:
    """RETURNS (Tensor): By how much each pair of a vector's numbers is turned at each position. Double, radians,
    (n_positions, width / 2)."""
    speeds = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.arange(n_positions, dtype=torch.float64)[:, None] * speeds


def running_sums(X: Tensor, lengths: Tensor) -> Tensor:
    """Sums of each token's numbers and those of all tokens before it in its Doc.

    X (Tensor): Float, (n_tokens, width).
    lengths (Tensor): Tokens of each Doc, on the CPU. Int64, (n_docs,).
    RETURNS (Tensor): Of the type of X. Float, (n_tokens, width).
    """
    # In double precision, for differences of sums over long texts matter
    sums = pad(X.double().cumsum(0), (0, 0, 1, 0))
    starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths).to(X.device)
    return (sums[1:] - sums[starts]).to(X.dtype)


def tokens_to_the_end(lengths: Tensor) -> Tensor:
    """RETURNS (Tensor): Of each token, how many its Doc has from there on, itself included. Int64, (n_tokens,)."""
    ends = torch.repeat_interleave(lengths.cumsum(0), lengths)
    return ends - torch.arange(len(ends))


def global_pointer(
    nO: Optional[int],
    *,
    max_width: Optional[int],
    key_width: int,
    lstm_width: Optional[int],
    lstm_depth: int,
    lr_scale: float,
    precision: str,
) -> Model[List[Floats2d], List[Floats2d]]:
    """Token vectors, (n_tokens, nI) per Doc, to the parts of span scores, (n_tokens, max_width + 2 * nO) per Doc.

    precision (str): What the LSTM computes in when it predicts; see resolve_precision.
    RAISES (BertHeadsError): H214 if the LSTM's width cannot be split between two directions, H209 for an unknown
        precision, H261 for a max_width below 1, H273 for an odd key_width.
    """
    check_precision(precision, training=False)
    if lstm_width is not None:
        check_lstm_width(lstm_width)
    check_sizes(key_width=key_width, **({} if max_width is None else {"max_width": max_width}))
    if key_width % 2:
        raise BertHeadsError("H273", name="key_width", found=key_width, expected="an even number")
    settings = {"max_width": max_width, "key_width": key_width, "lstm_width": lstm_width, "lstm_depth": lstm_depth}
    forward = partial(forward_rows, precision=precision, count_columns=_count_columns)
    return head_layer("global_pointer", forward, TorchShim(GlobalPointer, lr_scale), nO, settings)


def _count_columns(model: Model) -> int:
    return cast(Any, model.shims[0]).module.max_width + 2 * model.get_dim("nO")


def span_loss(
    parts: List[Floats2d],
    targets: Sequence[Optional[SpanTargets]],
    max_width: int,
    *,
    weight: float = 1.0,
    shares: Optional[numpy.ndarray] = None,
) -> Tuple[float, List[Floats2d]]:
    """Binary cross-entropy of every span of up to max_width tokens and every label, summed for each Doc; the mean of
    that over the Docs of which anything is known.

    parts (List[Floats2d]): The layer's output of each Doc. Float, (n_tokens, max_width + 2 * n_labels).
    targets (Sequence[Optional[SpanTargets]]): What is known about each. Spans longer than max_width have no score and
        are passed over.
    max_width (int): See GlobalPointer.
    weight (float): Multiplies the gradient, but not the loss.
    shares (Optional[numpy.ndarray]): How much of its loss each Doc adds, of the same mean. None: all of it. Float,
        (n_docs,).
    RETURNS (Tuple[float, List[Floats2d]]): The loss in nats and its gradient.
    """
    lengths = [len(array) for array in parts]
    cells = _Cells.from_targets(targets, lengths, max_width)
    if not cells.n_docs:
        return 0.0, [array * 0 for array in parts]
    flat_t = _concatenate(parts)
    gradient = torch.zeros_like(flat_t)
    total = 0.0
    for first, last in _chunks(len(flat_t), max_width, (flat_t.shape[1] - max_width) // 2):
        # Spans of the chunk may end with tokens behind it
        rows = flat_t[first : last + max_width - 1].detach().requires_grad_(True)
        scores = all_scores(SpanParts.from_flat(rows, max_width), last - first)
        truths, known = (tensor.to(scores.device) for tensor in cells.take(first, last, scores.shape[2]))
        losses = softplus(scores) - scores * truths
        if shares is not None:
            of_tokens = numpy.repeat(shares, lengths)[first:last, None, None]
            losses = losses * torch.from_numpy(of_tokens).to(losses)
        loss = (losses * known).sum() / cells.n_docs
        (loss * weight).backward()
        total += float(loss.detach())
        gradient[first : last + max_width - 1] += cast(Tensor, rows.grad)
    return total, split(gradient, lengths)


def _concatenate(arrays: List[Floats2d]) -> Tensor:
    """The rows of all arrays in one tensor, on their own device."""
    return xp2torch(arrays[0]) if len(arrays) == 1 else torch.cat([xp2torch(array) for array in arrays])


def all_scores(parts: SpanParts, n_tokens: int) -> Tensor:
    """Log-odds of all spans that begin with the first tokens.

    parts (SpanParts): Of at least these tokens.
    n_tokens (int): How many tokens.
    RETURNS (Tensor): By first token, number of tokens - 1 and label; what goes beyond a Doc is not masked. Float,
        (n_tokens, max_width, n_labels).
    """
    max_width = parts.content.shape[1]
    ends = pad(parts.end, (0, 0, 0, max(0, n_tokens + max_width - len(parts.end))))
    windows = ends.unfold(0, max_width, 1)[:n_tokens].transpose(1, 2)
    return parts.content[:n_tokens, :, None] + parts.start[:n_tokens, None, :] + windows


def _chunks(n_tokens: int, max_width: int, n_labels: int) -> Iterator[Tuple[int, int]]:
    size = max(1, CHUNK_CELLS // (max_width * n_labels))
    for first in range(0, n_tokens, size):
        yield first, min(first + size, n_tokens)


class _Cells(NamedTuple):
    """What is known about the spans of all Docs, one after the other.

    true (Ints): First token, number of tokens - 1, label; in order of the first. Int64, (n, 3).
    false (Ints): The same of those that are rejected.
    counted (numpy.ndarray): Whether a span can be there, (n_tokens, max_width).
    gaps (Ints): Unknown tokens before each token, for all labels alike or for each. (n_tokens + 1, 1 or n_labels).
    n_docs (int): Docs of which anything is known.
    """

    true: Ints
    false: Ints
    counted: numpy.ndarray
    gaps: Ints
    n_docs: int

    @classmethod
    def from_targets(
        cls, targets: Sequence[Optional[SpanTargets]], lengths: Sequence[int], max_width: int
    ) -> "_Cells":
        n_columns = max((one.unknown.shape[1] for one in targets if one is not None), default=1)
        found: List[List[Tuple[int, int, int]]] = [[], []]
        unknown, blank, n_docs, offset = [], [], 0, 0
        for one, length in zip(targets, lengths):
            if one is None or not length:
                unknown.append(numpy.ones((length, n_columns), dtype=bool))
                blank.append(numpy.zeros(length, dtype=bool))
            else:
                unknown.append(numpy.broadcast_to(one.unknown, (length, n_columns)))
                blank.append(one.blank)
                n_docs += bool(one.spans or one.rejected or not one.unknown.all())
                for cells, spans in zip(found, (one.spans, one.rejected)):
                    cells += [(offset + i, j - i - 1, label) for i, j, label in spans if j - i <= max_width]
            offset += length
        gaps = numpy.zeros((offset + 1, n_columns), dtype="int64")
        if unknown:
            numpy.cumsum(numpy.concatenate(unknown), axis=0, out=gaps[1:])
        counted = can_be_spans(lengths, numpy.concatenate(blank) if blank else numpy.zeros(0, bool), max_width)
        true, false = (numpy.array(sorted(cells), dtype="int64").reshape(-1, 3) for cells in found)
        return cls(true, false, counted, gaps, n_docs)

    def take(self, first: int, last: int, n_labels: int) -> Tuple[Tensor, Tensor]:
        """RETURNS (Tuple[Tensor, Tensor]): Of the spans that begin at these tokens: 1 for those that are there, and 1
        for those that are known, both as float, (last - first, max_width, n_labels) or less where all labels have the
        same.
        """
        n_tokens, max_width = last - first, self.counted.shape[1]
        truths = torch.zeros(n_tokens, max_width, n_labels)
        known = torch.from_numpy(self.counted[first:last, :, None])
        has_gaps = self.gaps[-1].any()
        true, false = (_between(cells, first, last) for cells in (self.true, self.false))
        if has_gaps:
            begins = numpy.arange(first, last)
            ends = numpy.minimum(begins[:, None] + numpy.arange(1, max_width + 1), len(self.gaps) - 1)
            known = known & torch.from_numpy(self.gaps[ends] == self.gaps[begins][:, None])
        if len(false) or has_gaps:
            known = known.expand(-1, -1, n_labels).clone()
            known[tuple(torch.from_numpy(false.T))] = True
            known[tuple(torch.from_numpy(true.T))] = True
        truths[tuple(torch.from_numpy(true.T))] = 1.0
        return truths, known.float()


def _between(cells: Ints, first: int, last: int) -> Ints:
    low, high = numpy.searchsorted(cells[:, 0], (first, last))
    return cells[low:high] - numpy.array([first, 0, 0])


def can_be_spans(lengths: Sequence[int], blank: numpy.ndarray, max_width: int) -> numpy.ndarray:
    """Which spans there are: those that stay within their Doc and neither begin nor end with white space.

    lengths (Sequence[int]): Tokens of each Doc.
    blank (numpy.ndarray): True for white space, all Docs one after the other. Bool, (n_tokens,).
    max_width (int): Tokens of the longest.
    RETURNS (numpy.ndarray): By first token and number of tokens - 1. Bool, (n_tokens, max_width).
    """
    rest = tokens_to_the_end(torch.tensor(list(lengths), dtype=torch.int64)).numpy()
    inside = numpy.arange(max_width) < rest[:, None]
    if not blank.any():
        return inside
    last = numpy.minimum(numpy.arange(len(blank))[:, None] + numpy.arange(max_width), len(blank) - 1)
    return inside & ~blank[:, None] & ~blank[last]


class FoundSpans(NamedTuple):
    """Spans of one Doc, in order of their first token, the longest first.

    spans (Ints): First token, token after the last, number of the label. Int64, (n, 3).
    scores (numpy.ndarray): Log-odds. Float, (n,).
    uncertainty (Optional[Uncertainty]): How sure the head is of the Doc, where it was asked to say so.
    """

    spans: Ints
    scores: numpy.ndarray
    uncertainty: Optional[Uncertainty] = None


class Tempering(NamedTuple):
    """Divides log-odds by a temperature, but keeps those in the middle, and so every decision there.

    temperature (float): Above 0.
    middle (numpy.ndarray): Log-odds that stay, by label. Float, (n_labels,).

    SOURCE: Guo et al. (2017), On Calibration of Modern Neural Networks.
    """

    temperature: float
    middle: numpy.ndarray

    def __call__(self, scores: numpy.ndarray, labels: numpy.ndarray) -> numpy.ndarray:
        """RETURNS (numpy.ndarray): Tempered log-odds of spans with these labels. Float, (n,)."""
        middle = self.middle[labels]
        return (middle + (scores - middle) / self.temperature).astype(scores.dtype)

    def undo(self, scores: numpy.ndarray) -> numpy.ndarray:
        """RETURNS (numpy.ndarray): What became these log-odds, of each label. Float, (n_labels,)."""
        return (self.middle + (scores - self.middle) * self.temperature).astype(scores.dtype)


def find_spans(
    parts: List[Floats2d], blank: Sequence[numpy.ndarray], max_width: int, thresholds: numpy.ndarray
) -> List[FoundSpans]:
    """The spans whose scores reach their label's threshold.

    Labels are looked at only where the best of them could reach its own: nearly nowhere, so that many labels cost
    little.

    parts (List[Floats2d]): The layer's output of each Doc. Float, (n_tokens, max_width + 2 * n_labels).
    blank (Sequence[numpy.ndarray]): True for white space. Bool, (n_tokens,) per Doc.
    max_width (int): See GlobalPointer.
    thresholds (numpy.ndarray): Log-odds from which on a span is found, by label. Float, (n_labels,).
    RETURNS (List[FoundSpans]): Those of each Doc.
    """
    lengths = [len(array) for array in parts]
    if not any(lengths):
        return [FoundSpans(numpy.zeros((0, 3), "int64"), numpy.zeros(0, "float32")) for _ in parts]
    content, start, end = SpanParts.from_flat(_concatenate(parts), max_width)
    limits = torch.from_numpy(thresholds).to(start)
    allowed = torch.from_numpy(can_be_spans(lengths, numpy.concatenate(blank), max_width)).to(start.device)
    best_end = pad(end.amax(1), (0, max_width - 1)).unfold(0, max_width, 1)
    # A little room, for the sum is rounded in another order below
    bound = content + (start - limits).amax(1)[:, None] + best_end
    first, more = torch.nonzero(allowed & (bound >= -1e-3), as_tuple=True)
    scores = content[first, more][:, None] + start[first] + end[first + more]
    row, label = torch.nonzero(scores >= limits, as_tuple=True)
    found = torch.stack((first[row], first[row] + more[row] + 1, label)).cpu().numpy()
    values = scores[row, label].cpu().numpy()
    order = numpy.lexsort((found[2], -found[1], found[0]))
    spans, values = found.T[order], values[order]
    starts = numpy.cumsum([0, *lengths])
    cuts = numpy.searchsorted(spans[:, 0], starts)
    return [
        FoundSpans(spans[low:high] - numpy.array([offset, offset, 0]), values[low:high])
        for low, high, offset in zip(cuts, cuts[1:], starts)
    ]


def span_uncertainty(
    parts: List[Floats2d], blank: Sequence[numpy.ndarray], max_width: int, tempering: Optional[Tempering] = None
) -> List[Uncertainty]:
    """How sure the head is of each Doc, where every span with a label is a question by itself. What it says of a token
    is about all spans that begin with the token: the sum of their entropies, and the probability of the likelier
    answer where that is least likely.

    parts (List[Floats2d]): The layer's output of each Doc. Float, (n_tokens, max_width + 2 * n_labels).
    blank (Sequence[numpy.ndarray]): True for white space. Bool, (n_tokens,) per Doc.
    max_width (int): See GlobalPointer.
    tempering (Optional[Tempering]): Applied to the scores. None: they stay.
    RETURNS (List[Uncertainty]): Of each Doc; its path is the spans that are more probable than not, and no others.
    """
    lengths = [len(array) for array in parts]
    entropies = numpy.zeros(sum(lengths))
    log_best = numpy.zeros((2, sum(lengths)))
    if any(lengths):
        flat = _concatenate(parts)
        counted = torch.from_numpy(can_be_spans(lengths, numpy.concatenate(blank), max_width)).to(flat.device)
        for first, last in _chunks(len(flat), max_width, (flat.shape[1] - max_width) // 2):
            scores = all_scores(SpanParts.from_flat(flat[first : last + max_width - 1], max_width), last - first)
            if tempering is not None:
                middle = torch.from_numpy(tempering.middle).to(scores)
                scores = middle + (scores - middle) / tempering.temperature
            scores = scores.masked_fill(~counted[first:last, :, None], torch.inf).abs()
            # Of the likelier answer; 0 for what can be no span
            best = -softplus(-scores)
            entropy = -best + torch.where(scores.isinf(), 0.0, scores) * torch.sigmoid(-scores)
            entropies[first:last] = entropy.sum((1, 2)).cpu().numpy()
            log_best[:, first:last] = torch.stack((best.amin((1, 2)), best.sum((1, 2)))).cpu().numpy()
    cuts = numpy.cumsum([0, *lengths])
    return [
        Uncertainty(entropies[a:b], numpy.exp(log_best[0, a:b]), float(log_best[1, a:b].sum()))
        for a, b in zip(cuts, cuts[1:])
    ]


def best_without_overlap(spans: Sequence[Tuple[int, int, Any]], weights: Sequence[float]) -> List[int]:
    """Of all choices of spans that do not overlap, one of the greatest weight: weighted interval scheduling.

    spans (Sequence[Tuple[int, int, Any]]): First token, token after the last, anything.
    weights (Sequence[float]): What each is worth, 0 or more.
    RETURNS (List[int]): Numbers of the chosen spans, in order of the text.

    SOURCE: Kleinberg and Tardos (2005), chapter 6.1.
    """
    order = sorted(range(len(spans)), key=lambda number: (spans[number][1], spans[number][0]))
    ends = [spans[number][1] for number in order]
    # best[k]: the greatest weight among the k spans that end first; before[k]: how many of these are over by then
    best = [0.0]
    before = numpy.searchsorted(ends, [spans[number][0] for number in order], side="right").tolist()
    for k, number in enumerate(order):
        best.append(max(best[k], best[before[k]] + weights[number]))
    chosen: List[int] = []
    k = len(order)
    while k:
        if best[before[k - 1]] + weights[order[k - 1]] >= best[k - 1]:
            chosen.append(order[k - 1])
            k = before[k - 1]
        else:
            k -= 1
    return chosen[::-1]
