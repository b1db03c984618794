"""Docs to wordpiece windows and back: a Doc of any length in windows the encoder can read, no wordpiece dropped."""

from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, List, Optional, Tuple, cast

import numpy
from spacy.attrs import IDX, LENGTH
from spacy.tokens import Doc
from thinc.types import Ragged

from ..errors import BertHeadsError
from ..layers.length_groups import ends_of
from ..layers.special_tokens import SpecialTokens
from ..types import Ints, Window
from .sentence_pairs import PairTokens, find_sentences, pair_input, shows_both


@dataclass(frozen=True)
class Pieces:
    """The wordpieces of one Doc, without special tokens.

    ids (Ints): Vocabulary ids. Int64, (n_pieces,).
    pair_tokens (Ints): Token index of every (token, wordpiece) pair that shares a character, ascending. (n_pairs,).
    pair_pieces (Ints): Wordpiece index of the same pairs. (n_pairs,).
    n_tokens (int): Length of the Doc. Tokens of white space may have no wordpiece.
    border (Optional[int]): Wordpieces of the first sentence of a pair. None: no pair.
    """

    ids: Ints
    pair_tokens: Ints
    pair_pieces: Ints
    n_tokens: int
    border: Optional[int] = None


@dataclass(frozen=True)
class WindowedDoc:
    """One Doc cut into windows.

    windows (List[Window]): First and one past the last wordpiece of each window; at least one window.
    pieces (Pieces): The wordpieces.
    align (Ragged): For each token the positions of its wordpieces in the Doc's windows laid end to end, each as
        wide as `width`. This is the layout spacy-transformers' own listeners read.
    width (int): Wordpieces of the longest window, special tokens counted.
    special (SpecialTokens): What goes around each window.
    pair (Optional[PairTokens]): What goes around and between two sentences instead. None: no pair.
    """

    windows: List[Window]
    pieces: Pieces
    align: Ragged
    width: int
    special: SpecialTokens
    pair: Optional[PairTokens] = None

    def inputs(self, window: Window) -> Tuple[List[int], List[int]]:
        """RETURNS (Tuple[List[int], List[int]]): Ids and token types of one window, special tokens counted."""
        if self.pair is not None and self.pieces.border is not None:
            return pair_input(self.pieces.ids, self.pieces.border, window, self.pair)
        start, stop = window
        ids = [*self.special.prefix, *self.pieces.ids[start:stop].tolist(), *self.special.suffix]
        return ids, [0] * len(ids)


def tokenize(tokenizer: Any, docs: List[Doc], separator: Optional[str] = None) -> List[Pieces]:
    """Wordpieces of whole texts, aligned with spaCy's tokens by character offsets.

    A tokenizer without offsets (not a "fast" one) is called token by token, which aligns exactly.

    separator (Optional[str]): What separates the sentences of a pair, which are tokenized one by one; in neither.
    """
    texts = [doc.text for doc in docs]
    sentences = [[(0, len(text))] if separator is None else find_sentences(text, separator) for text in texts]
    if not tokenizer.is_fast:
        return [_tokenize_words(tokenizer, doc, spans) for doc, spans in zip(docs, sentences)]
    if not docs:
        return []
    encoded = tokenizer(
        [text[start:stop] for text, spans in zip(texts, sentences) for start, stop in spans],
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    # All texts are aligned at once, laid end to end
    n_pieces = [len(ids) for ids in encoded["input_ids"]]
    ids = numpy.fromiter(chain.from_iterable(encoded["input_ids"]), "int64", sum(n_pieces))
    offsets = numpy.fromiter(chain.from_iterable(chain.from_iterable(encoded["offset_mapping"])), "int64")
    text_starts = ends_of([len(text) for text in texts])
    part_starts = [at + start for at, spans in zip(text_starts, sentences) for start, _ in spans]
    tokens = numpy.concatenate([doc.to_array([IDX, LENGTH]).reshape(-1, 2) for doc in docs]).astype("int64")
    first_tokens = ends_of([len(doc) for doc in docs])
    starts = tokens[:, 0] + numpy.repeat(text_starts[:-1], numpy.diff(first_tokens))
    pair_tokens, pair_pieces = align_offsets(
        starts, starts + tokens[:, 1], offsets.reshape(-1, 2) + numpy.repeat(part_starts, n_pieces)[:, None]
    )
    first_pairs = numpy.searchsorted(pair_tokens, first_tokens).tolist()
    pieces, first_piece, lengths = [], 0, iter(n_pieces)
    for i, (doc, spans) in enumerate(zip(docs, sentences)):
        in_sentences = list(islice(lengths, len(spans)))
        stop = first_piece + sum(in_sentences)
        own = slice(first_pairs[i], first_pairs[i + 1])
        pieces.append(
            Pieces(
                # Copied, so that a Doc does not keep its whole batch
                ids[first_piece:stop].copy(),
                pair_tokens[own] - first_tokens[i],
                pair_pieces[own] - first_piece,
                len(doc),
                in_sentences[0] if len(in_sentences) == 2 else None,
            )
        )
        first_piece = stop
    return pieces


def align_offsets(starts: Ints, ends: Ints, offsets: Ints) -> Tuple[Ints, Ints]:
    """Pairs of token and wordpiece that share at least one character.

    starts, ends (Ints): First character and one past the last of each token, ascending. Int64, (n_tokens,).
    offsets (Ints): First character and one past the last of each wordpiece. Int64, (n_pieces, 2).
    RETURNS (Tuple[Ints, Ints]): Token index and wordpiece index of each pair, ordered by token, (n_pairs,).
    """
    first = numpy.searchsorted(ends, offsets[:, 0], side="right")
    last = numpy.searchsorted(starts, offsets[:, 1], side="left") - 1
    counts = numpy.where(offsets[:, 1] > offsets[:, 0], numpy.maximum(last - first + 1, 0), 0)
    pair_pieces = numpy.repeat(numpy.arange(len(offsets)), counts)
    within = numpy.arange(len(pair_pieces)) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
    pair_tokens = numpy.repeat(first, counts) + within
    order = numpy.argsort(pair_tokens, kind="stable")
    return pair_tokens[order], pair_pieces[order]


def cut_windows(n_pieces: int, capacity: int, overlap: int) -> List[Window]:
    """Overlapping windows that cover every wordpiece; the last one ends with the text and is full.

    n_pieces (int): Wordpieces of the Doc.
    capacity (int): Wordpieces a window can hold, special tokens not counted.
    overlap (int): Wordpieces that neighbouring windows share, at least (the last pair may share more).
    RETURNS (List[Window]): At least one, also for a Doc of no wordpieces.
    RAISES (BertHeadsError): H201 if windows overlap by as much as they hold.
    """
    if overlap >= capacity or overlap < 0:
        raise BertHeadsError("H201", found=overlap, capacity=capacity)
    if n_pieces <= capacity:
        return [(0, n_pieces)]
    starts = [*range(0, n_pieces - capacity, capacity - overlap), n_pieces - capacity]
    return [(start, start + capacity) for start in starts]


def choose_windows(pieces: Pieces, windows: List[Window]) -> Ints:
    """For each (token, wordpiece) pair the window its vector is taken from.

    All wordpieces of a token come from one window, the one that shows most wordpieces on the token's shorter
    side; beyond either end of the text there is nothing to miss. The wordpieces of a token that no window holds
    whole are placed one by one, by the same rule.

    RETURNS (Ints): Index into `windows`. (n_pairs,).
    """
    if len(windows) == 1 or not len(pieces.pair_pieces):
        return numpy.zeros(len(pieces.pair_pieces), dtype="int64")
    starts = numpy.array([start for start, _ in windows])
    stops = numpy.array([stop for _, stop in windows])
    # A token from wordpiece f to l has min(f - start, stop - 1 - l) in a window, so it leaves one window for the
    # next where f + l passes the sum of the borders of their overlap
    borders = starts[1:] + stops[:-1] - 1
    _, first_pair, per_token = numpy.unique(pieces.pair_tokens, return_index=True, return_counts=True)
    first = pieces.pair_pieces[first_pair]
    last = pieces.pair_pieces[first_pair + per_token - 1]
    token_window = numpy.searchsorted(borders, first + last, side="left")
    whole = (starts[token_window] <= first) & (last < stops[token_window])
    piece_window = numpy.searchsorted(borders, 2 * pieces.pair_pieces, side="left")
    return numpy.where(numpy.repeat(whole, per_token), numpy.repeat(token_window, per_token), piece_window)


def make_windowed_doc(
    pieces: Pieces, special: SpecialTokens, max_length: int, overlap: int, pair: Optional[PairTokens] = None
) -> WindowedDoc:
    """Cut one Doc and say where each token's wordpieces lie.

    max_length (int): Wordpieces the encoder can read at once, special tokens counted.
    pair (Optional[PairTokens]): What goes around and between the sentences of a pair; not used for other texts.
    """
    pair = None if pieces.border is None else pair
    around = special if pair is None else pair
    n_pieces = len(pieces.ids)
    windows = cut_windows(n_pieces, max_length - len(around), overlap)
    middles = numpy.zeros(len(windows), dtype="int64")
    n_special = len(around)
    if pair is not None:
        split = [shows_both(cast(int, pieces.border), window, n_pieces) for window in windows]
        middles[split] = len(pair.middle)
        n_special -= len(pair.middle)
    width = max(stop - start + middle for (start, stop), middle in zip(windows, middles.tolist())) + n_special
    chosen = choose_windows(pieces, windows)
    starts = numpy.array([start for start, _ in windows])
    positions = chosen * width + len(around.prefix) + pieces.pair_pieces - starts[chosen]
    if pair is not None:
        positions = positions + numpy.where(pieces.pair_pieces >= pieces.border, middles[chosen], 0)
    lengths = numpy.bincount(pieces.pair_tokens, minlength=pieces.n_tokens)
    align = Ragged(_int32(positions), _int32(lengths))
    return WindowedDoc(windows, pieces, align, width, special, pair)


def _tokenize_words(tokenizer: Any, doc: Doc, sentences: List[Window]) -> Pieces:
    text = doc.text
    strings: List[str] = []
    pair_tokens: List[int] = []
    border = None
    for start, stop in sentences:
        # The second sentence begins behind the separator, so never at 0
        border = len(strings) if start else None
        for token in doc:
            part = text[max(start, token.idx) : min(stop, token.idx + len(token))]
            pieces = tokenizer.tokenize(part) if part else []
            strings += pieces
            pair_tokens += [token.i] * len(pieces)
    ids = numpy.array(tokenizer.convert_tokens_to_ids(strings), dtype="int64")
    return Pieces(ids, numpy.array(pair_tokens, dtype="int64"), numpy.arange(len(strings)), len(doc), border)


def _int32(array: Ints) -> Any:
    """The type thinc expects of alignments."""
    return array.astype("int32")
