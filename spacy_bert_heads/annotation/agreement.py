"""How well annotators agree: Cohen's kappa for categories, F1 for spans, over the texts that both annotated."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from wasabi import table

from ..corpus.annotations import Annotation
from ..errors import printable

# Of an exclusive question, whose answer is a label; other questions are labels, and their answers yes or no.
CHOICE = ""
# Pairs of annotators that the text report shows, those with most texts in common first.
MAX_PAIRS = 20


@dataclass
class Pair:
    """What two annotators said about the same texts.

    texts (int): How many they have in common.
    answers (Dict[str, Counter[Tuple[str, str]]]): Of each question how often the two gave each pair of answers.
    both, first, second (int): Spans that both marked, and that each of them marked, in texts of which both marked all
        spans.
    n_marked (int): Number of these texts.
    """

    texts: int = 0
    answers: Dict[str, "Counter[Tuple[str, str]]"] = field(default_factory=lambda: defaultdict(Counter))
    both: int = 0
    first: int = 0
    second: int = 0
    n_marked: int = 0

    def add(self, one: Annotation, other: Annotation) -> None:
        """Compare what the two say about a text.

        one (Annotation): Of the first annotator.
        other (Annotation): Of the second one.
        """
        self.texts += 1
        if one.exclusive and other.exclusive:
            self.answers[CHOICE][_chosen(one.cats), _chosen(other.cats)] += 1
        else:
            for label in sorted(one.cats.keys() & other.cats.keys()):
                self.answers[label][str(one.cats[label]), str(other.cats[label])] += 1
        if one.complete and other.complete:
            self.n_marked += 1
            self.both += len({*one.ents} & {*other.ents})
            self.first += len({*one.ents})
            self.second += len({*other.ents})

    @property
    def kappa(self) -> Optional[float]:
        """RETURNS (Optional[float]): Cohen's kappa; for several questions the mean, weighed by their answers. None if
        there is none: no answers, or only ever the same one.
        """
        found = [(cohen_kappa(counts), counts.total()) for counts in self.answers.values()]
        known = [(kappa, n) for kappa, n in found if kappa is not None]
        return sum(kappa * n for kappa, n in known) / sum(n for _, n in known) if known else None

    @property
    def span_f(self) -> Optional[float]:
        """RETURNS (Optional[float]): F1 of the spans of one against those of the other, whichever is first."""
        return 2 * self.both / (self.first + self.second) if self.first + self.second else None


class Agreement:
    """Collects what several annotators said about the same texts.

    pairs (Dict[Tuple[str, str], Pair]): Of each two annotators, by their names in order.
    """

    def __init__(self) -> None:
        self.pairs: Dict[Tuple[str, str], Pair] = defaultdict(Pair)

    def add(self, answers: Sequence[Annotation]) -> None:
        """Compare the answers about one text. Of each annotator, all answers together count, the later ones first.

        answers (Sequence[Annotation]): Oldest first. Those of nobody known are left out.
        """
        by_annotator: Dict[str, List[Annotation]] = defaultdict(list)
        for answer in answers:
            if answer.annotator is not None:
                by_annotator[answer.annotator].append(answer)
        if len(by_annotator) < 2:
            return
        said = {name: _join(own) for name, own in sorted(by_annotator.items())}
        for one, other in combinations(said, 2):
            self.pairs[one, other].add(said[one], said[other])

    def to_list(self) -> List[Dict[str, Any]]:
        """RETURNS (List[Dict[str, Any]]): The pairs, ready for JSON, those with most texts in common first."""
        ordered = sorted(self.pairs.items(), key=lambda item: (-item[1].texts, item[0]))
        return [
            {"annotators": list(names), "texts": pair.texts, "kappa": pair.kappa, "span_f": pair.span_f}
            for names, pair in ordered
        ]

    def to_text(self) -> str:
        """RETURNS (str): The pairs as a table for a terminal, or nothing."""
        pairs = self.to_list()
        if not pairs:
            return ""
        rows = [
            (*map(printable, pair["annotators"]), pair["texts"], _show(pair["kappa"]), _show(pair["span_f"]))
            for pair in pairs[:MAX_PAIRS]
        ]
        header = ("annotator", "and", "texts", "kappa", "span F1")
        shown = str(table(rows, header=header, divider=True, aligns=("l", "l", "r", "r", "r"), max_col=30))
        lines = ["Agreement (Cohen's kappa of categories, F1 of spans):", shown.strip("\n")]
        lines += [f"and {len(pairs) - MAX_PAIRS} more pairs"] if len(pairs) > MAX_PAIRS else []
        return "\n".join(lines)


def cohen_kappa(counts: Mapping[Tuple[str, str], int]) -> Optional[float]:
    """Agreement beyond chance.

    counts (Mapping[Tuple[str, str], int]): How often the two gave each pair of answers.
    RETURNS (Optional[float]): At most 1. None without answers, or where both only ever gave one and the same.

    SOURCE: Cohen (1960).
    """
    total = sum(counts.values())
    ones: "Counter[str]" = Counter()
    others: "Counter[str]" = Counter()
    for (one, other), count in counts.items():
        ones[one] += count
        others[other] += count
    by_chance = sum(count * others[answer] for answer, count in ones.items())
    if by_chance == total * total:
        return None
    observed = sum(count for (one, other), count in counts.items() if one == other)
    return (observed * total - by_chance) / (total * total - by_chance)


def _join(answers: Sequence[Annotation]) -> Annotation:
    """All that one annotator says: the newest complete marking, and the newest answer to each question."""
    marked = [answer for answer in answers if answer.complete] or answers
    asked = [answer for answer in answers if answer.cats] or answers
    cats = {label: value for answer in asked for label, value in answer.cats.items()}
    last = marked[-1]
    if asked[-1].exclusive:
        cats = asked[-1].cats
    return Annotation(
        last.text, last.where, ents=last.ents, complete=last.complete, cats=cats, exclusive=asked[-1].exclusive
    )


def _chosen(cats: Mapping[str, float]) -> str:
    return max(cats, key=lambda label: cats[label])


def _show(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.2f}"
