"""Sets that hold what is true with a guaranteed probability, by split conformal prediction.

A text's score is how unlikely the head took the least likely of what is true of it: 1 - p of the gold category, of the
least likely gold category where there can be several, of the least likely gold entity. The set holds everything that
is at least as likely as a threshold, which is chosen on texts that nothing else was fitted to. For another text of the
same kind, drawn like these, the set then holds all that is true of it with at least the probability asked for; without
ties with at most 1 / (n + 1) more, n being the number of texts.

SOURCE: Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World; Papadopoulos et al. (2002) for the
split; Sadinle, Lei and Wasserman (2019), Least Ambiguous Set-Valued Classifiers with Bounded Error Levels, for the
score.
"""

import math
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Union

import numpy

from ..pipeline.fitted import Coverage
from .outcomes import EntityOutcomes, Outcomes, SpanOutcomes, TextOutcomes

# A set of entities less likely than this would be of no use, and would take long to find
LOWEST_THRESHOLD = 0.001


@dataclass
class CoverageFit:
    """What became of a head.

    name (str): The component.
    kind (str): "exclusive", "multilabel" or "entities".
    n (int): Texts that it was fitted to: with a true label, all of whose labels are known, or with entities.
    coverage (Optional[Coverage]): What its sets hold from now on; None: it has no sets.
    reason (str): Why it has none. "" if it has.
    size (Optional[float]): Mean number of labels or entities in the set of such a text.
    """

    name: str
    kind: str
    n: int
    coverage: Optional[Coverage] = None
    reason: str = ""
    size: Optional[float] = None

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): For JSON."""
        coverage = None if self.coverage is None else self.coverage._asdict()
        return {**vars(self), "coverage": coverage}


def conformal_threshold(lowest: Sequence[float], share: float) -> Optional[float]:
    """The probability from which things are in the set.

    lowest (Sequence[float]): For each text the probability of the least likely thing that is true of it.
    share (float): Of the texts whose set is to hold all that is true, between 0 and 1.
    RETURNS (Optional[float]): The ceil((n + 1) * share)-th highest of them; None where there are too few texts to say
        so much.
    """
    n = len(lowest)
    rank = math.ceil((n + 1) * share - 1e-9)
    if rank > n:
        return None
    return float(numpy.sort(numpy.asarray(lowest, dtype="float64"))[n - rank])


def least_likely(
    outcomes: Union[TextOutcomes, EntityOutcomes], chosen: Optional[numpy.ndarray] = None
) -> Dict[int, float]:
    """The probability of the least likely thing that is true of a text, as the head is now.

    outcomes (Outcomes): Of the head.
    chosen (Optional[numpy.ndarray]): True for the texts to look at; None: all. Bool, (n_texts_of_corpus,).
    RETURNS (Dict[int, float]): By the number of the text. Texts of which nothing is true, or not everything is
        known, are left out.
    """
    if isinstance(outcomes, EntityOutcomes):
        return {
            number: min(found)
            for number, found in outcomes.gold_probabilities(chosen).items()
            if found and not outcomes.gold[number].unknown
        }
    part = outcomes if chosen is None else outcomes.select(chosen)
    probabilities = numpy.where(part.truths, part.probabilities(), numpy.inf).min(1)
    used = part.truths.any(1) & part.known.all(1)
    return {int(number): float(p) for number, p in zip(part.texts[used], probabilities[used])}


def fit_coverage(outcomes: Outcomes, share: float, chosen: numpy.ndarray) -> CoverageFit:
    """Choose a head's threshold for its sets, and have it write them from now on.

    outcomes (Outcomes): Of the head, whose temperature must have been fitted to other texts.
    share (float): Of the texts whose set is to hold all that is true.
    chosen (numpy.ndarray): True for the texts to fit to. Bool, (n_texts_of_corpus,).
    RETURNS (CoverageFit): What was fitted.
    """
    if isinstance(outcomes, SpanOutcomes):
        return CoverageFit(outcomes.name, outcomes.kind, 0, reason="There are none of spans that may overlap.")
    lowest = least_likely(outcomes, chosen)
    fit = CoverageFit(outcomes.name, outcomes.kind, len(lowest))
    threshold = conformal_threshold(list(lowest.values()), share)
    if threshold is None:
        n_needed = math.ceil(share / (1 - share) - 1e-9)
        fit.reason = f"{len(lowest)} texts are too few to say so much: it takes {n_needed}."
    elif threshold < LOWEST_THRESHOLD and isinstance(outcomes, EntityOutcomes):
        n_missed = sum(value < LOWEST_THRESHOLD for value in lowest.values())
        fit.reason = (
            f"{n_missed} of {len(lowest)} texts have an entity that it takes for almost impossible "
            f"(below {LOWEST_THRESHOLD}): it cannot cover so many."
        )
    else:
        fit.coverage = Coverage(share, threshold)
        outcomes.head.set_coverage(fit.coverage)
        fit.size = _mean_size(outcomes, threshold, lowest)
    return fit


def _mean_size(outcomes: Union[TextOutcomes, EntityOutcomes], threshold: float, texts: Dict[int, float]) -> float:
    if isinstance(outcomes, EntityOutcomes):
        sets = outcomes.sets(threshold)
        return float(numpy.mean([len(sets[number]) for number in texts]))
    rows = numpy.isin(outcomes.texts, list(texts))
    return float((outcomes.probabilities()[rows] >= threshold).sum(1).mean())
