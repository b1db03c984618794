"""A text written again with brackets around its spans, in the symbols of a language model; what may be written next.

    The [ Lord of the [ Rings | THING ] | WORK ] by [ Tolkien | PERSON ]

The text's own pieces are copied one by one, so the places of brackets are exact whatever is repeated in it. `[` is one
symbol, and so is `| LABEL ]` for each label: symbols of their own, which no text contains.

SOURCE: Paolini et al. (2021), arXiv 2101.05779.
"""

from collections import Counter
from functools import lru_cache
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy
from spacy.tokens import Doc

from .readings import MOST_PER_TOKEN, NumberedSpan

# Brackets within each other
MOST_DEPTH = 8


class Pieces(NamedTuple):
    """The pieces of a Doc. None is part of two tokens.

    ids (List[int]): The pieces.
    begins, ends (List[int]): For each token the first piece, and the one after the last; -1 where it has none.
    bounds (List[int]): For each token, and for the end, how many pieces are before it.
    """

    ids: List[int]
    begins: List[int]
    ends: List[int]
    bounds: List[int]


def split_doc(tokenizer: Any, doc: Doc, longest: int) -> Pieces:
    """Cut a Doc into pieces.

    tokenizer (Any): A fast one of Hugging Face's.
    doc (Doc): The Doc.
    longest (int): Pieces of a token, at most; further ones are left out.
    RETURNS (Pieces): As the tokenizer cuts the text, and where a piece would be part of several tokens, as it cuts the
        parts.
    """
    text = doc.text
    owner = numpy.full(len(text) + 1, -1, dtype="int64")
    for token in doc:
        if not token.is_space:
            owner[token.idx : token.idx + len(token)] = token.i
    ids: List[int] = []
    owners: List[int] = []
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    for piece, (start, end) in zip(read["input_ids"], read["offset_mapping"]):
        touched = [int(number) for number in dict.fromkeys(owner[start:end].tolist()) if number >= 0]
        if len(touched) < 2:
            ids.append(piece)
            owners.append(touched[0] if touched else -1)
            continue
        for number in touched:
            token = doc[number]
            part = text[max(start, token.idx) : min(end, token.idx + len(token))]
            parts = _split_part(tokenizer, part)
            ids += parts
            owners += [number] * len(parts)
    begins, ends = [-1] * len(doc), [-1] * len(doc)
    kept: List[int] = []
    for piece, number in zip(ids, owners):
        if number >= 0:
            if begins[number] < 0:
                begins[number] = len(kept)
            elif len(kept) - begins[number] >= longest:
                continue
            ends[number] = len(kept) + 1
        kept.append(piece)
    # What is written like the end of a text, or like padding, must not be taken for it
    special, unknown = set(tokenizer.all_special_ids), tokenizer.unk_token_id
    kept = [unknown if piece in special and unknown is not None else piece for piece in kept]
    bounds = [len(kept)] * (len(doc) + 1)
    for number in reversed(range(len(doc))):
        bounds[number] = begins[number] if begins[number] >= 0 else bounds[number + 1]
    if len(doc):
        bounds[0] = 0
    return Pieces(kept, begins, ends, bounds)


@lru_cache(maxsize=10_000)
def _split_part(tokenizer: Any, part: str) -> List[int]:
    return tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]


def cut_pieces(bounds: Sequence[int], size: int, overlap: int) -> List[Tuple[int, int]]:
    """Cut a Doc into windows of whole tokens.

    bounds (Sequence[int]): See Pieces.
    size (int): Pieces of a window, at most.
    overlap (int): Pieces that neighbours share, at most.
    RETURNS (List[Tuple[int, int]]): First token, and the one after the last, of each.
    """
    n_tokens = len(bounds) - 1
    found: List[Tuple[int, int]] = []
    start = 0
    while n_tokens and (not found or found[-1][1] < n_tokens):
        stop = start + 1
        while stop < n_tokens and bounds[stop + 1] - bounds[start] <= size:
            stop += 1
        found.append((start, stop))
        # Each window brings a new token at least
        following = stop
        while following - 1 > start and bounds[stop] - bounds[following - 1] <= overlap:
            following -= 1
        if stop < n_tokens:
            while following < stop and bounds[stop + 1] - bounds[following] > size:
                following += 1
        start = following
    return found


class Alphabet(NamedTuple):
    """The symbols beside pieces.

    opening (int): The opening bracket.
    n_labels (int): Number of labels; their closing brackets follow the opening one.
    end (int): Ends a text.
    nested (bool): Whether there may be brackets within brackets.
    """

    opening: int
    n_labels: int
    end: int
    nested: bool

    def closing(self, label: int) -> int:
        """RETURNS (int): The closing bracket with a label."""
        return self.opening + 1 + label


class Place(NamedTuple):
    """How far a text has been written.

    copied (int): Pieces.
    opened (Tuple[int, ...]): Pieces before each bracket that is open, the outermost first.
    last (Tuple[int, int, int]): Of the bracket that was closed last: pieces before it, up to its end, its label.
    ended (bool): Whether the end is written.
    n_spans (int): Brackets that were ever opened.
    """

    copied: int = 0
    opened: Tuple[int, ...] = ()
    last: Tuple[int, int, int] = (-1, -1, -1)
    ended: bool = False
    n_spans: int = 0


class Markup:
    """What may be written of one window, and how spans are written and read.

    pieces (Sequence[int]): The pieces of the window.
    begins (Dict[int, int]): Token that begins with a piece, where a span may begin: by number of the piece.
    ends (Dict[int, int]): Token that ends before a piece, where a span may end: by number of that piece.
    later (Sequence[int]): For each piece, and for the end, the places behind it where a span that has it may end.
    walls (Set[int]): Places that no span may cross, by the number of the piece behind them.
    alphabet (Alphabet): The other symbols.
    """

    def __init__(
        self,
        pieces: Sequence[int],
        begins: Dict[int, int],
        ends: Dict[int, int],
        later: Sequence[int],
        walls: Set[int],
        alphabet: Alphabet,
    ) -> None:
        self.pieces = pieces
        self.begins = begins
        self.ends = ends
        self.later = later
        self.walls = walls
        self.alphabet = alphabet
        self.most = len(begins) * (MOST_PER_TOKEN if alphabet.nested else 1)

    @classmethod
    def of(
        cls,
        pieces: Pieces,
        window: Tuple[int, int],
        free: numpy.ndarray,
        closed: numpy.ndarray,
        alphabet: Alphabet,
    ) -> "Markup":
        """Of a window of a Doc.

        pieces (Pieces): The Doc's.
        window (Tuple[int, int]): First token, and the one after the last.
        free (numpy.ndarray): True for tokens where a span may begin and end. Bool, (n_tokens,), of the Doc.
        closed (numpy.ndarray): True for tokens that no span may have. Bool, (n_tokens,), of the Doc.
        """
        first = pieces.bounds[window[0]]
        ids = pieces.ids[first : pieces.bounds[window[1]]]
        begins: Dict[int, int] = {}
        ends: Dict[int, int] = {}
        walls: Set[int] = set()
        shut = numpy.zeros(len(ids) + 1, dtype=bool)
        for token in range(*window):
            start, end = pieces.begins[token] - first, pieces.ends[token] - first
            if pieces.begins[token] < 0:
                if closed[token]:
                    walls.add(pieces.bounds[token] - first)
            elif closed[token]:
                shut[start:end] = True
            elif free[token]:
                begins[start] = token - window[0]
                ends[end] = token - window[0]
        later = [0] * (len(ids) + 1)
        for number in reversed(range(len(ids))):
            further = 0 if number + 1 in walls else later[number + 1]
            later[number] = 0 if shut[number] else further + (number + 1 in ends)
        return cls(ids, begins, ends, later, walls, alphabet)

    def allowed(self, place: Place) -> List[int]:
        """RETURNS (List[int]): Symbols that may follow: one at least. After the end, the end again."""
        alphabet, (copied, opened, last, ended, n_spans) = self.alphabet, place
        if ended:
            return [alphabet.end]
        found: List[int] = []
        n_labels, later, counts = alphabet.n_labels, self.later[copied], Counter(opened)
        if opened and opened[0] < copied and copied in self.walls:
            later = 0
        if copied < len(self.pieces):
            if not opened or _places_needed(counts, n_labels) <= later:
                found.append(self.pieces[copied])
                is_deep = len(opened) >= (MOST_DEPTH if alphabet.nested else 1) or n_spans >= self.most
                with_another = counts + Counter([copied])
                if copied in self.begins and not is_deep and _places_needed(with_another, n_labels) <= later:
                    found.append(alphabet.opening)
        elif not opened:
            found.append(alphabet.end)
        if opened and copied in self.ends and copied > opened[-1]:
            # Of spans with the same borders the labels come in their order, and room for the others must be left
            lowest = last[2] + 1 if last[:2] == (opened[-1], copied) else 0
            same = counts.pop(opened[-1]) - 1
            others = _places_needed(counts, n_labels) - 1
            found += [
                alphabet.closing(label)
                for label in range(lowest, n_labels)
                if -(-max(0, same - (n_labels - 1 - label)) // n_labels) + others <= later
            ]
        return found

    def follow(self, place: Place, symbol: int) -> Place:
        """RETURNS (Place): Where an allowed symbol leads."""
        alphabet = self.alphabet
        if symbol == alphabet.opening:
            return place._replace(opened=(*place.opened, place.copied), n_spans=place.n_spans + 1)
        label = symbol - alphabet.opening - 1
        if 0 <= label < alphabet.n_labels:
            return place._replace(opened=place.opened[:-1], last=(place.opened[-1], place.copied, label))
        if not place.opened and place.copied == len(self.pieces):
            return place._replace(ended=True)
        return place._replace(copied=place.copied + 1)

    def write(self, spans: Sequence[NumberedSpan]) -> Optional[List[int]]:
        """Write spans.

        spans (Sequence[NumberedSpan]): By the window's tokens.
        RETURNS (Optional[List[int]]): Symbols, the end included. None if they cannot be written: they cross each
            other, or are where no bracket can be.
        """
        first = {token: number for number, token in self.begins.items()}
        after = {token: number for number, token in self.ends.items()}
        if any(start not in first or end - 1 not in after for start, end, _ in spans):
            return None
        opens: Dict[int, int] = {}
        closes: Dict[int, List[Tuple[int, int]]] = {}
        for start, end, label in set(spans):
            opens[first[start]] = opens.get(first[start], 0) + 1
            closes.setdefault(after[end - 1], []).append((-first[start], label))
        written: List[int] = []
        for number in range(len(self.pieces) + 1):
            written += [self.alphabet.closing(label) for _, label in sorted(closes.get(number, ()))]
            written += [self.alphabet.opening] * opens.get(number, 0)
            written += self.pieces[number : number + 1]
        written.append(self.alphabet.end)
        again = self.read(written)
        return written if again is not None and set(again) == set(spans) else None

    def read(self, symbols: Sequence[int]) -> Optional[List[NumberedSpan]]:
        """RETURNS (Optional[List[NumberedSpan]]): The spans of symbols, by the window's tokens. None: not legal."""
        place, spans = Place(), []
        for symbol in symbols:
            if place.ended:
                break
            if symbol not in self.allowed(place):
                return None
            after = self.follow(place, symbol)
            if len(after.opened) < len(place.opened):
                start, end, label = after.last
                spans.append((self.begins[start], self.ends[end] + 1, label))
            place = after
        return spans if place.ended else None

    def steps(self, symbols: Sequence[int]) -> List[List[int]]:
        """RETURNS (List[List[int]]): What was allowed before each of some legal symbols."""
        place, found = Place(), []
        for symbol in symbols:
            found.append(self.allowed(place))
            place = self.follow(place, symbol)
        return found


def _places_needed(counts: "Counter[int]", n_labels: int) -> int:
    """How many places brackets need to close, given how many open at each place. Of those that open at one place, no
    more can close at another one than there are labels; where the last of them closes, those around them may too.
    """
    return 1 + sum((count - 1) // n_labels for count in counts.values())
