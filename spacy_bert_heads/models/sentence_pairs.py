"""Two sentences in one text, read as the encoder was trained to read pairs: [CLS] first [SEP] second [SEP], and token
types that say which is which where the encoder has them.
"""

from dataclasses import dataclass
from typing import Any, List, Tuple

from ..types import Ints, Window


@dataclass(frozen=True)
class PairTokens:
    """What a tokenizer puts around and between two sentences, and the token type of everything.

    prefix (List[int]): Ids before the first sentence.
    middle (List[int]): Ids between the two, such as [SEP], or RoBERTa's two.
    suffix (List[int]): Ids after the second.
    prefix_types, middle_types, suffix_types (List[int]): Their token types.
    first_type, second_type (int): Token type of the sentences' wordpieces. All types are 0 if the tokenizer has none.
    """

    prefix: List[int]
    middle: List[int]
    suffix: List[int]
    prefix_types: List[int]
    middle_types: List[int]
    suffix_types: List[int]
    first_type: int
    second_type: int

    @classmethod
    def of(cls, tokenizer: Any) -> "PairTokens":
        """Read them off a Hugging Face tokenizer by letting it wrap a pair."""
        if tokenizer.is_fast:
            encoded = tokenizer("a", "a")
            ids, parts = encoded["input_ids"], encoded.sequence_ids(0)
            types = encoded.get("token_type_ids") or [0] * len(ids)
        else:
            marks = [-1], [-2]
            ids = tokenizer.build_inputs_with_special_tokens(*marks)
            parts = [{-1: 0, -2: 1}.get(piece) for piece in ids]
            types = tokenizer.create_token_type_ids_from_sequences(*marks)
            if "token_type_ids" not in tokenizer.model_input_names:
                types = [0] * len(ids)
        first, end_first = _stretch(parts, 0)
        second, end_second = _stretch(parts, 1)
        return cls(
            prefix=ids[:first],
            middle=ids[end_first:second],
            suffix=ids[end_second:],
            prefix_types=types[:first],
            middle_types=types[end_first:second],
            suffix_types=types[end_second:],
            first_type=types[first],
            second_type=types[second],
        )

    def __len__(self) -> int:
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def find_sentences(text: str, separator: str) -> List[Tuple[int, int]]:
    """Where the sentences of a text are.

    text (str): Two sentences with the separator between them, or one without.
    separator (str): Such as a tab. Only the first one in the text separates sentences.
    RETURNS (List[Tuple[int, int]]): First character and one past the last, of one sentence or of two.
    """
    first, found, _ = text.partition(separator)
    if not found:
        return [(0, len(text))]
    return [(0, len(first)), (len(first) + len(found), len(text))]


def pair_input(ids: Ints, border: int, window: Window, tokens: PairTokens) -> Tuple[List[int], List[int]]:
    """Ids and token types of one window of a pair.

    ids (Ints): Wordpieces of the two sentences, each tokenized by itself, one behind the other. Int64, (n_pieces,).
    border (int): Wordpieces of the first sentence.
    window (Window): The window, counted in those wordpieces.
    tokens (PairTokens): The tokenizer's.
    RETURNS (Tuple[List[int], List[int]]): Special tokens counted. A window that shows one sentence only, of a pair
        that is longer than a window, has no middle; its wordpieces keep their type.
    """
    start, stop = window
    first, second = ids[start : min(stop, border)].tolist(), ids[max(start, border) : stop].tolist()
    split = shows_both(border, window, len(ids))
    middle, middle_types = (tokens.middle, tokens.middle_types) if split else ([], [])
    pieces = [*tokens.prefix, *first, *middle, *second, *tokens.suffix]
    types = [
        *tokens.prefix_types,
        *[tokens.first_type] * len(first),
        *middle_types,
        *[tokens.second_type] * len(second),
        *tokens.suffix_types,
    ]
    return pieces, types


def shows_both(border: int, window: Window, n_pieces: int) -> bool:
    """Whether a window shows the place where the sentences meet, so that wordpieces from `border` on are moved on by
    the length of the middle. An empty sentence is shown by the window at its end of the text.
    """
    start, stop = window
    return (start < border or border == 0 == start) and (border < stop or border == n_pieces == stop)


def has_token_types(config: Any) -> bool:
    """RETURNS (bool): Whether a Hugging Face model of this config tells token types apart."""
    return (getattr(config, "type_vocab_size", 0) or 0) > 1


def _stretch(parts: List[Any], part: int) -> Window:
    """First position of a part and one past its last."""
    return parts.index(part), len(parts) - parts[::-1].index(part)
