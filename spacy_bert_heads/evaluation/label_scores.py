"""Precision, recall and F1 of labels, with what a bootstrap over texts says about them."""

from collections import Counter
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy

from .bootstrap import intervals, resample_sums

# Columns of counts
CORRECT, PREDICTED, GOLD = range(3)


class Mistake(NamedTuple):
    """One thing that a head got wrong in a text.

    kind (str): One of the kinds of its scorer, such as "missed".
    gold (Optional[str]): The gold label; None if there is none.
    predicted (Optional[str]): The predicted label; None if there is none.
    words (str): The entity, or "".
    confidence (Optional[float]): How sure the head was of its mistake, 0 to 1; None if it does not say.
    """

    kind: str
    gold: Optional[str]
    predicted: Optional[str]
    words: str = ""
    confidence: Optional[float] = None


def score_labels(labels: Sequence[str], counts: numpy.ndarray) -> Dict[str, Any]:
    """Scores of each label, and their averages.

    A score that would divide by 0 is 0, as in scikit-learn. The macro average is over the labels that are in the gold
    annotation or were predicted, as in scikit-learn and seqeval.

    labels (Sequence[str]): The labels.
    counts (numpy.ndarray): What is correct, predicted and gold in each text. Float, (n_texts, n_labels, 3).
    RETURNS (Dict[str, Any]): "per_label", "micro" and "macro", each with "precision", "recall", "f1", "f1_interval"
        (None without texts), "support" and "predicted". For JSON.
    """
    sums = counts.sum(0, dtype="float64")
    draws = resample_sums(counts)
    limits = intervals(_f1(draws))
    per_label = {label: {**_scores(sums[i]), "f1_interval": limits[i]} for i, label in enumerate(labels)}
    micro = {**_scores(sums.sum(0)), "f1_interval": intervals(_f1(draws.sum(1))[:, None])[0]}
    there = (sums[:, GOLD] + sums[:, PREDICTED]) > 0
    rows = [per_label[label] for label, used in zip(labels, there) if used]
    macro: Dict[str, Any] = {
        name: sum(row[name] for row in rows) / len(rows) if rows else 0.0 for name in ("precision", "recall", "f1")
    }
    macro.update(support=micro["support"], predicted=micro["predicted"], labels=len(rows))
    macro["f1_interval"] = intervals(_mean_of_known(_f1(draws[:, there]))[:, None])[0]
    return {"per_label": per_label, "micro": micro, "macro": macro}


def nest(pairs: "Counter[Tuple[str, str]]") -> Dict[str, Dict[str, int]]:
    """RETURNS (Dict[str, Dict[str, int]]): Counts of gold and predicted label, by gold label. For JSON."""
    nested: Dict[str, Dict[str, int]] = {}
    for (gold, predicted), n in sorted(pairs.items()):
        nested.setdefault(gold, {})[predicted] = n
    return nested


def _scores(sums: numpy.ndarray) -> Dict[str, Any]:
    correct, predicted, gold = sums.tolist()
    return {
        "precision": correct / predicted if predicted else 0.0,
        "recall": correct / gold if gold else 0.0,
        "f1": 2 * correct / (predicted + gold) if predicted + gold else 0.0,
        "support": int(gold),
        "predicted": int(predicted),
        "correct": int(correct) if correct == int(correct) else correct,
    }


def _f1(sums: numpy.ndarray) -> numpy.ndarray:
    """F1 of sums (..., 3); NaN where there is nothing to score."""
    total = sums[..., PREDICTED] + sums[..., GOLD]
    return numpy.where(total > 0, 2 * sums[..., CORRECT] / numpy.where(total > 0, total, 1), numpy.nan)


def _mean_of_known(values: numpy.ndarray) -> numpy.ndarray:
    """Means of rows, over what is not NaN."""
    known = ~numpy.isnan(values)
    n_known = known.sum(1)
    sums = numpy.where(known, values, 0.0).sum(1)
    return numpy.where(n_known > 0, sums / numpy.maximum(n_known, 1), numpy.nan)
