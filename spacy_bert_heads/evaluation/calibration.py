"""Does a confidence of 0.8 mean right in 8 of 10 cases? Reliability and expected calibration error. And selective
prediction: how often is it right where it is sure?"""

from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy
from spacy.training import Example

from .bootstrap import Interval, intervals, resample_sums

N_BINS = 10
# "From which confidence on is it right so often?"
SHARES_RIGHT = (0.9, 0.95, 0.99)
# No probability counts as less than this, so that one mistake of a sure head does not decide alone
UNLIKELY = 1e-6
# Points of a curve that are kept
N_POINTS = 100


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
    borders = _borders(n_bins)
    numbers = _bin_numbers(values, n_bins)
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


def calibration_error_interval(
    confidences: Sequence[float], correct: Sequence[bool], texts: Sequence[int], n_bins: int = N_BINS
) -> Optional[Interval]:
    """How far the expected calibration error could move with other texts: a bootstrap over texts. The error of a draw
    is on average above that of the texts themselves, most of all where there are few of them.

    confidences (Sequence[float]): Confidence of each prediction, 0 to 1.
    correct (Sequence[bool]): Whether each is right.
    texts (Sequence[int]): Number of the text in which each is.
    n_bins (int): Number of bins.
    RETURNS (Optional[Interval]): Low and high border; None without predictions.
    """
    if not len(confidences):
        return None
    values = numpy.asarray(confidences, dtype="float64")
    _, rows = numpy.unique(numpy.asarray(texts), return_inverse=True)
    sums = numpy.zeros((rows.max() + 1, n_bins + 1))
    numpy.add.at(sums, (rows, _bin_numbers(values, n_bins)), values - numpy.asarray(correct, dtype="float64"))
    sums[:, n_bins] = numpy.bincount(rows)
    draws = resample_sums(sums)
    return intervals((numpy.abs(draws[:, :n_bins]).sum(1) / draws[:, n_bins])[:, None])[0]


def classwise_calibration(
    probabilities: numpy.ndarray, truths: numpy.ndarray, known: Optional[numpy.ndarray] = None, n_bins: int = N_BINS
) -> Tuple[Optional[float], Optional[Interval]]:
    """Calibration of every label's probability, not only of the predicted one's: the expected calibration error of
    each label, and the mean of those.

    probabilities (numpy.ndarray): Float, (n_texts, n_labels).
    truths (numpy.ndarray): Whether each label is true. Bool, (n_texts, n_labels).
    known (Optional[numpy.ndarray]): Where that is known; None: everywhere. Bool, (n_texts, n_labels).
    n_bins (int): Number of bins.
    RETURNS (Tuple[Optional[float], Optional[Interval]]): The error, 0 to 1, and its interval; None without texts.

    SOURCE: Kull et al. (2019), Beyond temperature scaling, classwise-ECE.
    """
    n_texts, n_labels = probabilities.shape
    if not probabilities.size:
        return None, None
    there = numpy.ones(probabilities.shape, dtype=bool) if known is None else known
    sums = numpy.zeros((n_texts, n_labels, n_bins + 1), dtype="float32")
    rows, columns = numpy.nonzero(there)
    values = probabilities[rows, columns]
    sums[rows, columns, _bin_numbers(values, n_bins)] = values - truths[rows, columns]
    sums[rows, columns, n_bins] = 1.0
    draws = numpy.concatenate([sums.sum(0, dtype="float64")[None], resample_sums(sums)])
    n_known = draws[..., n_bins]
    errors = numpy.abs(draws[..., :n_bins]).sum(2) / numpy.maximum(n_known, 1.0)
    used = n_known > 0
    means = numpy.where(used, errors, 0.0).sum(1) / numpy.maximum(used.sum(1), 1)
    return float(means[0]), intervals(means[1:, None])[0]


def selective_report(confidences: Sequence[float], correct: Sequence[bool]) -> Dict[str, Any]:
    """What happens if only the surest predictions count: risk against coverage.

    Coverage is the share of predictions that count, risk the share of those that is wrong. Predictions of the same
    confidence come in together.

    confidences (Sequence[float]): Confidence of each prediction.
    correct (Sequence[bool]): Whether each is right.
    RETURNS (Dict[str, Any]): For JSON. "aurc", the area under the curve, 0 to 1, 0 is best; None without predictions.
        "curve", coverage and risk from the surest on. "right", for each of SHARES_RIGHT ("accuracy") the lowest
        "confidence" from which on so many are right, and the "coverage" that it leaves; None and 0 if there is none.

    SOURCE: Geifman and El-Yaniv (2017), Selective Classification for Deep Neural Networks; for the area Geifman et al.
        (2019), Bias-Reduced Uncertainty Estimation.
    """
    n = len(confidences)
    if not n:
        nothing = [{"accuracy": share, "confidence": None, "coverage": 0.0} for share in SHARES_RIGHT]
        return {"aurc": None, "curve": [], "right": nothing}
    values, counts, n_right = tied_counts(confidences, correct)
    taken, right = numpy.cumsum(counts), numpy.cumsum(n_right)
    # Within a tie the order is unknown: its errors are spread evenly
    numbers = numpy.arange(1, n + 1)
    risk = 1.0 - numpy.interp(numbers, [0, *taken], [0, *right]) / numbers
    accuracy = right / taken
    rows = []
    for share in SHARES_RIGHT:
        fits = numpy.flatnonzero(accuracy >= share)
        last = fits[-1] if len(fits) else None
        rows.append(
            {
                "accuracy": share,
                "confidence": None if last is None else float(values[last]),
                "coverage": 0.0 if last is None else float(taken[last] / n),
            }
        )
    shown = numpy.unique(numpy.linspace(0, n - 1, min(n, N_POINTS)).round().astype(int))
    curve = [[round(float(numbers[i] / n), 4), round(float(risk[i]), 4)] for i in shown]
    return {"aurc": float(risk.mean()), "curve": curve, "right": rows}


def tied_counts(
    confidences: Sequence[float], correct: Sequence[bool]
) -> Tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """RETURNS (Tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]): The different confidences, highest first; how many
    predictions have each; and how many of those are right. Float, int and int, (n_different,)."""
    values, inverse, counts = numpy.unique(
        -numpy.asarray(confidences, dtype="float64"), return_inverse=True, return_counts=True
    )
    right = numpy.bincount(inverse, weights=numpy.asarray(correct, dtype="float64"), minlength=len(values))
    return -values, counts, right.round().astype(int)


def calibration_report(
    confidences: Sequence[float],
    correct: Sequence[bool],
    n_bins: int = N_BINS,
    *,
    texts: Optional[Sequence[int]] = None,
) -> Dict[str, Any]:
    """What there is to say about the confidence of some predictions.

    confidences (Sequence[float]): Confidence of each prediction, 0 to 1.
    correct (Sequence[bool]): Whether each is right.
    n_bins (int): Number of bins.
    texts (Optional[Sequence[int]]): Number of the text in which each is; None: each has its own.
    RETURNS (Dict[str, Any]): Number, mean confidence, accuracy, expected calibration error and its interval, the bins
        that are not empty, and what selective_report says; for JSON, so None where there are no predictions.
    """
    bins = reliability(confidences, correct, n_bins)
    n = len(confidences)
    numbers = range(n) if texts is None else texts
    return {
        "predictions": n,
        "mean_confidence": float(numpy.mean(confidences)) if n else None,
        "accuracy": float(numpy.mean(correct)) if n else None,
        "expected_calibration_error": expected_calibration_error(bins) if n else None,
        "expected_calibration_error_interval": calibration_error_interval(confidences, correct, numbers, n_bins),
        "bins": [b._asdict() for b in bins if b.predictions],
        "selective": selective_report(confidences, correct),
    }


def describe_categories(
    probabilities: numpy.ndarray, truths: numpy.ndarray, known: numpy.ndarray, is_exclusive: bool
) -> Dict[str, Any]:
    """Calibration of categories: where labels exclude each other of the best one, otherwise of all.

    probabilities (numpy.ndarray): Float, (n_texts, n_labels).
    truths (numpy.ndarray): Whether each label is true. Bool, (n_texts, n_labels).
    known (numpy.ndarray): Where that is known. Bool, (n_texts, n_labels).
    is_exclusive (bool): Whether exactly one is true; none is, where the head lacks the true label.
    RETURNS (Dict[str, Any]): What calibration_report gives; "nll", the mean negative log-likelihood in nats, None
        without predictions; "classwise_calibration_error" and its interval. For JSON.
    """
    error, interval = classwise_calibration(probabilities, truths, known)
    if is_exclusive:
        n = len(probabilities)
        best = probabilities.argmax(1) if n else numpy.zeros(0, dtype=int)
        confidences, correct = probabilities[numpy.arange(n), best], truths[numpy.arange(n), best]
        texts = numpy.arange(n)
        nll = log_loss(probabilities[truths], numpy.ones(int(truths.sum()), dtype=bool))
    else:
        texts, _ = numpy.nonzero(known)
        confidences, correct = probabilities[known], truths[known]
        nll = log_loss(confidences, correct)
    report = calibration_report(confidences.tolist(), correct.tolist(), texts=texts.tolist())
    return {
        **report,
        "nll": nll,
        "classwise_calibration_error": error,
        "classwise_calibration_error_interval": interval,
    }


def log_loss(probabilities: numpy.ndarray, outcomes: numpy.ndarray) -> Optional[float]:
    """RETURNS (Optional[float]): Mean of -log of the probability of what came true, in nats; None without any."""
    if not len(probabilities):
        return None
    of_truth = numpy.where(outcomes, probabilities, 1.0 - probabilities)
    return float(-numpy.log(of_truth.clip(UNLIKELY, 1.0)).mean())


def _borders(n_bins: int) -> numpy.ndarray:
    return numpy.linspace(0.0, 1.0, n_bins + 1)


def _bin_numbers(values: numpy.ndarray, n_bins: int) -> numpy.ndarray:
    return numpy.searchsorted(_borders(n_bins)[1:-1], values, side="left")
