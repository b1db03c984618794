"""Precision, recall and F1 of labels, with what a bootstrap over texts says about them."""

from collections import Counter
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy

from .bootstrap import Cells, Interval, intervals, resample_cells

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


def score_labels(labels: Sequence[str], counts: Union[numpy.ndarray, Cells]) -> Dict[str, Any]:
    """Scores of each label, and their averages.

    A score that would divide by 0 is 0, as in scikit-learn. The macro average is over the labels that are in the gold
    annotation or were predicted, as in scikit-learn and seqeval.

    labels (Sequence[str]): The labels.
    counts (Union[numpy.ndarray, Cells]): What is correct, predicted and gold in each text. Float, (n_texts, n_labels,
        3), or cells with the sums 3 * label + column.
    RETURNS (Dict[str, Any]): "per_label", "micro" and "macro", each with "precision", "recall" and "f1", intervals of
        these such as "f1_interval" (None where no draw has the score), "support" and "predicted". For JSON.
    """
    cells = counts if isinstance(counts, Cells) else Cells.from_table(counts.reshape(len(counts), 3 * len(labels)))
    sums = cells.total().reshape(-1, 3)
    draws = resample_cells(cells).reshape(-1, len(labels), 3)
    limits = _limits(draws)
    per_label = {label: {**_scores(sums[i]), **limits[i]} for i, label in enumerate(labels)}
    micro = {**_scores(sums.sum(0)), **_limits(draws.sum(1, dtype="float64")[:, None])[0]}
    there = (sums[:, GOLD] + sums[:, PREDICTED]) > 0
    rows = [per_label[label] for label, used in zip(labels, there) if used]
    macro: Dict[str, Any] = {
        name: sum(row[name] for row in rows) / len(rows) if rows else 0.0 for name in ("precision", "recall", "f1")
    }
    macro.update(support=micro["support"], predicted=micro["predicted"], labels=len(rows))
    for name, score in RATIOS.items():
        macro[f"{name}_interval"] = intervals(mean_of_known(score(draws[:, there]))[:, None])[0]
    return {"per_label": per_label, "micro": micro, "macro": macro}


def count_cells(n_texts: int, n_labels: int, cells: Sequence[Tuple[int, int, int]]) -> Cells:
    """Counts for score_labels.

    n_texts (int): How many texts there are.
    n_labels (int): How many labels.
    cells (Sequence[Tuple[int, int, int]]): Text, number of the label, and one of CORRECT, PREDICTED and GOLD. Each
        adds 1.
    RETURNS (Cells): The counts.
    """
    texts, labels, columns = numpy.array(cells, dtype="int64").reshape(-1, 3).T
    return Cells(n_texts, 3 * n_labels, texts, 3 * labels + columns, numpy.ones(len(texts), dtype="float32"))


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


def precision(sums: numpy.ndarray) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): Precision of sums (..., 3); NaN where nothing is predicted."""
    return _ratio(sums[..., CORRECT], sums[..., PREDICTED])


def recall(sums: numpy.ndarray) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): Recall of sums (..., 3); NaN where nothing is gold."""
    return _ratio(sums[..., CORRECT], sums[..., GOLD])


def f1(sums: numpy.ndarray) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): F1 of sums (..., 3); NaN where there is nothing to score."""
    return _ratio(2 * sums[..., CORRECT], sums[..., PREDICTED] + sums[..., GOLD])


def mean_of_known(values: numpy.ndarray) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): Means of rows, over what is not NaN."""
    known = ~numpy.isnan(values)
    n_known = known.sum(1)
    sums = numpy.where(known, values, 0.0).sum(1)
    return numpy.where(n_known > 0, sums / numpy.maximum(n_known, 1), numpy.nan)


RATIOS = {"precision": precision, "recall": recall, "f1": f1}


def _ratio(part: numpy.ndarray, whole: numpy.ndarray) -> numpy.ndarray:
    return numpy.where(whole > 0, part / numpy.where(whole > 0, whole, 1), numpy.nan)


def _limits(draws: numpy.ndarray) -> List[Dict[str, Optional[Interval]]]:
    """Intervals of all three scores of each label."""
    found: List[Dict[str, Optional[Interval]]] = [{} for _ in range(draws.shape[1])]
    for name, score in RATIOS.items():
        for row, limits in zip(found, intervals(score(draws))):
            row[f"{name}_interval"] = limits
    return found
