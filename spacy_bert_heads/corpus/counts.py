"""What a collection of Docs holds, counted one Doc at a time."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from spacy.tokens import Doc

from ..errors import BertHeadsError
from .annotations import INCORRECT_SPANS_KEY

# What BERT takes at once, [CLS] and [SEP] included.
DEFAULT_LIMIT = 512


class Wordpieces:
    """Counts the wordpieces of texts.

    encoder (str): Folder, `package:IMPORT_NAME/SUBFOLDER`, or an id on the Hugging Face hub. Only its tokenizer is
        read.
    RAISES (BertHeadsError): H202 for a missing folder, H203 for one without a tokenizer, H204 for a name the hub
        does not give, H401 for a package that is not installed.
    """

    def __init__(self, encoder: str) -> None:
        from transformers import AutoTokenizer

        from ..layers.encoder_module import resolve_source

        source = resolve_source(encoder)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
        except Exception as error:  # each file of a tokenizer can fail to load in a way of its own
            code = "H203" if isinstance(source, Path) else "H204"
            raise BertHeadsError(code, found=encoder, reason=str(error).strip().split("\n")[0]) from error
        # A tokenizer that knows no limit has a very large number here. Longer texts are counted, not cut.
        self.limit = min(int(self._tokenizer.model_max_length), DEFAULT_LIMIT)
        self._tokenizer.model_max_length = int(1e30)

    def count(self, text: str) -> int:
        """RETURNS (int): Wordpieces of a text with those that the encoder adds at its ends."""
        return len(self._tokenizer(text, verbose=False)["input_ids"])


@dataclass
class Values:
    """The values of one category.

    n (int): How many Docs have one.
    total (float): Their sum.
    low (float): The lowest.
    high (float): The highest.
    is_score (bool): Whether one of them is neither 0 nor 1.
    """

    n: int = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")
    is_score: bool = False

    def add(self, value: float) -> None:
        """Count one value.

        value (float): Of one Doc.
        """
        self.n += 1
        self.total += value
        self.low = min(self.low, value)
        self.high = max(self.high, value)
        self.is_score = self.is_score or value not in (0.0, 1.0)

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): Number, mean, lowest and highest, ready for JSON."""
        return {"n": self.n, "mean": self.total / self.n, "lowest": self.low, "highest": self.high}


@dataclass
class SplitCounts:
    """What the Docs of one split hold.

    docs (int): How many there are.
    ents_complete (int): Docs in which every token is known to be in or outside an entity.
    ents_partial (int): Docs in which only some tokens are known, or only rejected spans.
    with_cats (int): Docs with at least one category.
    with_spans (int): Docs with annotated spans that may overlap.
    spans (Counter[str]): Entities by label; where spans that may overlap were asked for, those.
    rejected (Counter[str]): Rejected spans by label.
    cats (Counter[str]): Docs in which the label holds.
    cats_not (Counter[str]): Docs in which the label is known not to hold.
    values (Dict[str, Values]): Values of each category, for those that are scores.
    tokens (Counter[int]): Docs by their number of tokens.
    wordpieces (Counter[int]): Docs by their number of wordpieces, if an encoder was named.
    """

    docs: int = 0
    ents_complete: int = 0
    ents_partial: int = 0
    with_cats: int = 0
    with_spans: int = 0
    spans: "Counter[str]" = field(default_factory=Counter)
    rejected: "Counter[str]" = field(default_factory=Counter)
    cats: "Counter[str]" = field(default_factory=Counter)
    cats_not: "Counter[str]" = field(default_factory=Counter)
    values: Dict[str, Values] = field(default_factory=dict)
    tokens: "Counter[int]" = field(default_factory=Counter)
    wordpieces: "Counter[int]" = field(default_factory=Counter)

    def add(self, doc: Doc, wordpieces: Optional[Wordpieces] = None, spans_key: Optional[str] = None) -> None:
        """Count one Doc.

        doc (Doc): As `build_doc` makes it.
        wordpieces (Optional[Wordpieces]): Counts its wordpieces too.
        spans_key (Optional[str]): Key of spans that may overlap, which are counted in place of entities.
        """
        self.docs += 1
        rejected = doc.spans.get(INCORRECT_SPANS_KEY, ())
        if doc.has_annotation("ENT_IOB", require_complete=True):
            self.ents_complete += 1
        elif doc.has_annotation("ENT_IOB") or rejected:
            self.ents_partial += 1
        self.with_cats += bool(doc.cats)
        self.with_spans += spans_key in doc.spans
        for ent in doc.ents if spans_key is None else doc.spans.get(spans_key, ()):
            self.spans[ent.label_] += 1
        for span in rejected:
            self.rejected[span.label_] += 1
        for label, value in doc.cats.items():
            if value > 0.0:
                self.cats[label] += 1
            elif value == 0.0:
                self.cats_not[label] += 1
            if label not in self.values:
                self.values[label] = Values()
            self.values[label].add(value)
        self.tokens[len(doc)] += 1
        if wordpieces is not None:
            self.wordpieces[wordpieces.count(doc.text)] += 1

    @property
    def scores(self) -> Dict[str, Values]:
        """RETURNS (Dict[str, Values]): Categories with a value that is neither 0 nor 1."""
        return {label: values for label, values in self.values.items() if values.is_score}

    def to_dict(self, limit: int = DEFAULT_LIMIT) -> Dict[str, Any]:
        """Make the counts ready for JSON.

        limit (int): Wordpieces that the encoder takes at once.
        RETURNS (Dict[str, Any]): All of them; lengths as sum, middle and longest. Categories that are scores are under
            "scores" alone.
        """
        scores = self.scores
        contents: Dict[str, Any] = {
            "docs": self.docs,
            "ents_complete": self.ents_complete,
            "ents_partial": self.ents_partial,
            "with_cats": self.with_cats,
            **({"with_spans": self.with_spans} if self.with_spans else {}),
            "spans": dict(sorted(self.spans.items())),
            "rejected": dict(sorted(self.rejected.items())),
            "cats": {label: count for label, count in sorted(self.cats.items()) if label not in scores},
            "cats_not": {label: count for label, count in sorted(self.cats_not.items()) if label not in scores},
            "scores": {label: values.to_dict() for label, values in sorted(scores.items())},
            "tokens": summarise(self.tokens),
        }
        if self.wordpieces:
            over = count_over(self.wordpieces, limit)
            share = over / self.docs
            contents["wordpieces"] = {**summarise(self.wordpieces), "limit": limit, "over": over, "share_over": share}
        return contents


def summarise(lengths: "Counter[int]") -> Dict[str, int]:
    """RETURNS (Dict[str, int]): Sum, middle and longest of lengths."""
    middle, longest = middle_and_longest(lengths)
    return {"sum": sum(length * n for length, n in lengths.items()), "middle": middle, "longest": longest}


def middle_and_longest(lengths: "Counter[int]") -> Tuple[int, int]:
    """RETURNS (Tuple[int, int]): The (upper) median and the largest of lengths; 0 where there are none."""
    rest = sum(lengths.values()) // 2
    for length in sorted(lengths):
        rest -= lengths[length]
        if rest < 0:
            return length, max(lengths)
    return 0, 0


def count_over(lengths: "Counter[int]", limit: int) -> int:
    """RETURNS (int): How many lengths are above a limit."""
    return sum(n for length, n in lengths.items() if length > limit)
