"""Does a confidence of 0.8 mean right in 8 of 10 cases? Reliability and expected calibration error."""

from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Tuple

import numpy
from spacy.training import Example

N_BINS = 10


class Bin(NamedTuple):
    """Predictions of about the same confidence.

    low (float): Its lower border, which belongs to the bin below, unless it is 0.
    high (float): Its upper border, which belongs to it.
    predictions (int): How many there are.
    confidence (float): Their mean confidence; NaN if there are none.
    accuracy (float): Share of them that is right; NaN if there are none.
    """

    low: float
    high: float
    predictions: int
    confidence: float
    accuracy: float


def reliability(confidences: Sequence[float], correct: Sequence[bool], n_bins: int = N_BINS) -> List[Bin]:
    """Sort predictions into bins of equal width by their confidence.

    confidences (Sequence[float]): Confidence of each prediction, 0 to 1.
    correct (Sequence[bool]): Whether each is right.
    n_bins (int): Number of bins.
    RETURNS (List[Bin]): The bins from 0 to 1, empty ones included.
    """
    values, right = numpy.asarray(confidences, dtype="float64"), numpy.asarray(correct, dtype=bool)
    borders = numpy.linspace(0.0, 1.0, n_bins + 1)
    numbers = numpy.searchsorted(borders[1:-1], values, side="left")
    bins = []
    for i in range(n_bins):
        inside = numbers == i
        count = int(inside.sum())
        means = (float(values[inside].mean()), float(right[inside].mean())) if count else (numpy.nan, numpy.nan)
        bins.append(Bin(float(borders[i]), float(borders[i + 1]), count, *means))
    return bins


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """How far confidence is from accuracy on average:

        ECE = sum over bins of (predictions in the bin / all predictions) * |accuracy - mean confidence|

    bins (Sequence[Bin]): What reliability gave.
    RETURNS (float): 0 to 1, 0 is best; NaN without predictions.

    SOURCE: Guo et al. (2017), On Calibration of Modern Neural Networks, equation 3.
    """
    total = sum(b.predictions for b in bins)
    if not total:
        return float("nan")
    return sum(b.predictions / total * abs(b.accuracy - b.confidence) for b in bins if b.predictions)


def entity_outcomes(examples: Iterable[Example]) -> Tuple[List[float], List[bool]]:
    """Confidence of each predicted entity, and whether the gold annotation has it: borders and label.

    examples (Iterable[Example]): Gold Docs, and predicted ones with `span._.confidence`. Entities without a
        confidence are left out, and so are those that touch a token without gold annotation.
    RETURNS (Tuple[List[float], List[bool]]): Confidences and outcomes, in the order of the entities.
    """
    confidences: List[float] = []
    correct: List[bool] = []
    for eg in examples:
        gold = {(ent.start_char, ent.end_char, ent.label_) for ent in eg.reference.ents}
        unknown = [(t.idx, t.idx + len(t)) for t in eg.reference if t.ent_iob == 0]
        for ent in eg.predicted.ents:
            untold = any(start < ent.end_char and end > ent.start_char for start, end in unknown)
            if ent._.confidence is not None and not untold:
                confidences.append(ent._.confidence)
                correct.append((ent.start_char, ent.end_char, ent.label_) in gold)
    return confidences, correct


def calibration_report(confidences: Sequence[float], correct: Sequence[bool], n_bins: int = N_BINS) -> Dict[str, Any]:
    """What there is to say about the confidence of some predictions.

    confidences (Sequence[float]): Confidence of each prediction, 0 to 1.
    correct (Sequence[bool]): Whether each is right.
    n_bins (int): Number of bins.
    RETURNS (Dict[str, Any]): Number, mean confidence, accuracy, expected calibration error, and the bins that are not
        empty; for JSON, so None where there are no predictions.
    """
    bins = reliability(confidences, correct, n_bins)
    n = len(confidences)
    return {
        "predictions": n,
        "mean_confidence": float(numpy.mean(confidences)) if n else None,
        "accuracy": float(numpy.mean(correct)) if n else None,
        "expected_calibration_error": expected_calibration_error(bins) if n else None,
        "bins": [b._asdict() for b in bins if b.predictions],
    }
