"""Which labels are probably wrong, given probabilities by models that did not see them: confident learning."""

from typing import NamedTuple

import numpy


class Suspicions(NamedTuple):
    """What confident learning says about the label of each of n things.

    is_suspect (numpy.ndarray): Whether it is counted as an error. Bool, (n,).
    scores (numpy.ndarray): How suspicious it is: the probability of the likeliest other class, less that of the given
        one. Float, (n,), -1 to 1.
    suggested (numpy.ndarray): The class that it belongs to in the confident joint, or else the likeliest other one.
        Int, (n,).
    joint (numpy.ndarray): The confident joint: how many things with a given class (row) belong to a class (column).
        Int, (n_classes, n_classes).
    thresholds (numpy.ndarray): From which probability on a thing is counted for a class; NaN for a class that nothing
        has. Float, (n_classes,).
    """

    is_suspect: numpy.ndarray
    scores: numpy.ndarray
    suggested: numpy.ndarray
    joint: numpy.ndarray
    thresholds: numpy.ndarray


def find_suspicions(given: numpy.ndarray, probabilities: numpy.ndarray) -> Suspicions:
    """Count how often things of one class are confidently another one, and rank by normalised margin.

    A thing is counted for a class if the class has at least the probability that it has on average where it is given;
    if there are several, for the likeliest of them. So a class that the model is never sure of needs less than one
    that it is always sure of.

    given (numpy.ndarray): The class of each thing. Int, (n,).
    probabilities (numpy.ndarray): Of each class, by a model that did not learn from the thing. Float, (n, n_classes).
    RETURNS (Suspicions): What is suspicious.

    SOURCE: Northcutt, Jiang and Chuang (2021), Confident Learning: Estimating Uncertainty in Dataset Labels,
    equations 1 and 2; ranking by normalised margin as in section 3.2.
    """
    n, n_classes = probabilities.shape
    own = probabilities[numpy.arange(n), given]
    sums, counts = numpy.bincount(given, own, n_classes), numpy.bincount(given, minlength=n_classes)
    thresholds = numpy.where(counts > 0, sums / numpy.maximum(counts, 1), numpy.nan)
    is_candidate = probabilities >= numpy.where(numpy.isnan(thresholds), numpy.inf, thresholds) - 1e-9
    best = numpy.where(is_candidate, probabilities, -1.0).argmax(1)
    is_counted = is_candidate.any(1)
    joint = numpy.zeros((n_classes, n_classes), dtype="int64")
    numpy.add.at(joint, (given[is_counted], best[is_counted]), 1)
    others = probabilities.copy()
    others[numpy.arange(n), given] = -1.0
    likeliest = others.argmax(1)
    is_suspect = is_counted & (best != given)
    scores = others.max(1, initial=-1.0) - own
    return Suspicions(is_suspect, scores, numpy.where(is_suspect, best, likeliest), joint, thresholds)
