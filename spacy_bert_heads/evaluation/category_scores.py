"""Categories and numbers: one scorer for exclusive classes, one for classes that do not exclude each other, one for
regression."""

from collections import Counter
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy
from spacy.training import Example

from .bootstrap import N_SAMPLES, intervals, mean_interval, resample_sums
from .calibration import describe_categories
from .label_scores import CORRECT, GOLD, PREDICTED, Mistake, count_cells, nest, score_labels
from .scorers import correlation, ranks

WRONG_CATEGORY = "wrong category"
MISSED_CATEGORY = "missed category"
EXTRA_CATEGORY = "extra category"
FAR_OFF = "number far off"


class ExclusiveScorer:
    """Counts the texts whose best category is the gold one.

    name (str): The component.
    labels (Sequence[str]): Its labels.
    other_labels (Sequence[str]): Labels that only the gold annotation has.
    thresholds (Optional[Dict[str, float]]): Probabilities below which it abstains; None: it never does.
    """

    kind = "exclusive"

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        other_labels: Sequence[str] = (),
        thresholds: Optional[Dict[str, float]] = None,
    ) -> None:
        self.name = name
        self.labels = list(labels)
        self.thresholds = thresholds or {}
        self.probabilities: List[List[float]] = []
        self.all_labels = [*labels, *other_labels]
        self.pairs: List[Tuple[str, str]] = []
        self.n_unknown = 0

    def add(self, example: Example) -> Tuple[Optional[bool], List[Mistake]]:
        """Count one text.

        example (Example): Its prediction and gold annotation.
        RETURNS (Tuple[Optional[bool], List[Mistake]]): Whether it is right, None without a gold category that is true;
            and the mistake.
        """
        values = {label: value for label, value in example.reference.cats.items() if label in self.all_labels}
        gold = max(values, key=lambda label: values[label], default="")
        if not values.get(gold, 0.0) > 0:
            self.n_unknown += 1
            return None, []
        cats = example.predicted.cats
        predicted = max(self.labels, key=lambda label: cats.get(label, 0.0), default="")
        self.pairs.append((gold, predicted))
        self.probabilities.append([cats.get(label, 0.0) for label in self.labels])
        if gold == predicted:
            return True, []
        return False, [Mistake(WRONG_CATEGORY, gold, predicted, "", cats.get(predicted))]

    @property
    def n_abstentions(self) -> int:
        """RETURNS (int): Texts of which the head chooses no category."""
        return int(self._abstains(numpy.array(self.probabilities).reshape(-1, len(self.labels))).sum())

    def _abstains(self, probabilities: numpy.ndarray) -> numpy.ndarray:
        limits = numpy.array([self.thresholds.get(predicted, 0.0) for _, predicted in self.pairs])
        return probabilities.max(1, initial=0.0) < limits

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): All scores, for JSON."""
        numbers = {label: i for i, label in enumerate(self.all_labels)}
        cells: List[Tuple[int, int, int]] = []
        right = numpy.array([gold == predicted for gold, predicted in self.pairs], dtype="float64")
        probabilities = numpy.array(self.probabilities, dtype="float64").reshape(-1, len(self.labels))
        answered = ~self._abstains(probabilities)
        truths = numpy.array([[gold == label for label in self.labels] for gold, _ in self.pairs], dtype=bool)
        truths = truths.reshape(probabilities.shape)
        for text, (gold, predicted) in enumerate(self.pairs):
            cells += [(text, numbers[gold], GOLD), (text, numbers[predicted], PREDICTED)]
            cells += [(text, numbers[gold], CORRECT)] if gold == predicted else []
        return {
            "component": self.name,
            "kind": self.kind,
            "labels": self.labels,
            "texts": len(self.pairs),
            "texts_without_gold": self.n_unknown,
            "accuracy": float(right.mean()) if len(right) else None,
            "accuracy_interval": mean_interval(right),
            **score_labels(self.all_labels, count_cells(len(self.pairs), len(numbers), cells)),
            "confusion": nest(Counter(self.pairs)),
            "abstentions": int((~answered).sum()),
            "accuracy_of_answers": float(right[answered].mean()) if answered.any() else None,
            "calibration": describe_categories(probabilities, truths, numpy.ones_like(truths), True),
        }


class MultilabelScorer:
    """Counts, label by label, the texts in which it is rightly given or left out.

    name (str): The component.
    labels (Sequence[str]): Its labels.
    threshold (Union[float, Dict[str, float]]): A label is given from this probability on.
    other_labels (Sequence[str]): Labels that only the gold annotation has: always missed.
    """

    kind = "multilabel"

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        threshold: Union[float, Dict[str, float]],
        other_labels: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.labels = list(labels)
        self.all_labels = [*labels, *other_labels]
        self.threshold = None if isinstance(threshold, dict) else threshold
        given = threshold if isinstance(threshold, dict) else dict.fromkeys(self.labels, threshold)
        # Labels that it does not have are never given
        self.thresholds = {label: given.get(label, numpy.inf) for label in self.all_labels}
        self.rows: List[Tuple[List[float], List[float]]] = []
        self.n_unknown = 0

    def add(self, example: Example) -> Tuple[Optional[bool], List[Mistake]]:
        """Count one text. Labels without a gold value neither help nor hurt.

        example (Example): Its prediction and gold annotation.
        RETURNS (Tuple[Optional[bool], List[Mistake]]): Whether all known labels are right, None if none is known; and
            the mistakes.
        """
        cats = example.reference.cats
        gold = [cats.get(label, numpy.nan) for label in self.all_labels]
        predicted = [example.predicted.cats.get(label, 0.0) for label in self.all_labels]
        if all(value != value for value in gold):
            self.n_unknown += 1
            return None, []
        self.rows.append((gold, predicted))
        mistakes = []
        for label, value, score in zip(self.all_labels, gold, predicted):
            if value > 0 and score < self.thresholds[label]:
                mistakes.append(Mistake(MISSED_CATEGORY, label, None, "", 1.0 - score))
            elif value <= 0 and score >= self.thresholds[label]:
                mistakes.append(Mistake(EXTRA_CATEGORY, None, label, "", score))
        return not mistakes, mistakes

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): All scores, for JSON."""
        table = numpy.array(self.rows, dtype="float64").reshape(-1, 2, len(self.all_labels))
        gold, scores = table[:, 0], table[:, 1]
        known, true, given = ~numpy.isnan(gold), gold > 0, scores >= list(self.thresholds.values())
        given &= known
        counts = numpy.stack([true & given, given, true], axis=2)
        right = ((true == given) | ~known).all(1).astype("float64")
        found = score_labels(self.all_labels, counts)
        for i, label in enumerate(self.all_labels):
            here = known[:, i]
            found["per_label"][label]["roc_auc"] = roc_auc(true[here, i], scores[here, i])
            found["per_label"][label]["average_precision"] = average_precision(true[here, i], scores[here, i])
        for name in ("roc_auc", "average_precision"):
            values = [row[name] for row in found["per_label"].values() if row[name] is not None]
            found["macro"][name] = sum(values) / len(values) if values else None
        return {
            "component": self.name,
            "kind": self.kind,
            "labels": self.labels,
            "threshold": self.threshold,
            "thresholds": {label: self.thresholds[label] for label in self.labels},
            "texts": len(self.rows),
            "texts_without_gold": self.n_unknown,
            "accuracy": float(right.mean()) if len(right) else None,
            "accuracy_interval": mean_interval(right),
            **found,
            "calibration": describe_categories(
                scores[:, : len(self.labels)], true[:, : len(self.labels)], known[:, : len(self.labels)], False
            ),
        }


class NumberScorer:
    """Compares predicted numbers with gold ones.

    name (str): The component.
    labels (Sequence[str]): Its targets.
    """

    kind = "numbers"

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self.name = name
        self.labels = list(labels)
        self.values: Dict[str, List[Tuple[float, float]]] = {label: [] for label in labels}
        self.n_unknown = 0
        self._texts: Dict[str, List[int]] = {label: [] for label in labels}
        self._n_texts = 0

    def add(self, example: Example) -> Tuple[Optional[bool], List[Mistake]]:
        """Take in one text.

        example (Example): Its prediction and gold annotation.
        RETURNS (Tuple[Optional[bool], List[Mistake]]): None and no mistake: a number is never quite right. See worst.
        """
        known = [label for label in self.labels if label in example.reference.cats]
        for label in known:
            pair = example.reference.cats[label], example.predicted.cats.get(label, numpy.nan)
            self.values[label].append(pair)
            self._texts[label].append(self._n_texts)
        self._n_texts += 1
        self.n_unknown += not known
        return None, []

    def worst(self, limit: int) -> List[Tuple[int, Mistake, float]]:
        """The numbers that are furthest off.

        limit (int): How many of each target.
        RETURNS (List[Tuple[int, Mistake, float]]): Which text, counted from 0; what is wrong; and the error as a
            share of the range of gold numbers.
        """
        found = []
        for label, pairs in self.values.items():
            gold, predicted = _columns(pairs)
            errors = numpy.abs(predicted - gold)
            scale = float(numpy.ptp(gold)) if len(gold) else 0.0
            for i in numpy.argsort(-errors, kind="stable")[:limit].tolist():
                words = f"{gold[i]:.3g} → {predicted[i]:.3g}"
                if errors[i] > 0:
                    mistake = Mistake(FAR_OFF, label, label, words)
                    found.append((self._texts[label][i], mistake, float(errors[i]) / (scale or 1.0)))
        return found

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): All scores, for JSON."""
        return {
            "component": self.name,
            "kind": self.kind,
            "labels": self.labels,
            "texts_without_gold": self.n_unknown,
            "per_label": {label: score_numbers(*_columns(pairs)) for label, pairs in self.values.items()},
        }


def score_numbers(gold: numpy.ndarray, predicted: numpy.ndarray) -> Dict[str, Any]:
    """Pearson's and Spearman's correlation and the root mean squared error, with 95 % intervals of the first and last.

    gold (numpy.ndarray): Gold numbers. Float, (n_texts,).
    predicted (numpy.ndarray): Predicted ones.
    RETURNS (Dict[str, Any]): For JSON; None where a score is not defined (see score_regression).
    """
    n = len(gold)
    drawn = number_draws(gold, predicted)
    (pearson, pearson_draws), (rmse, rmse_draws) = drawn["Pearson"], drawn["RMSE"]
    return {
        "pearson": pearson,
        "pearson_interval": intervals(pearson_draws[:, None])[0] if pearson is not None else None,
        "spearman": correlation(ranks(predicted), ranks(gold)),
        "rmse": rmse,
        "rmse_interval": intervals(rmse_draws[:, None])[0] if n else None,
        "support": n,
    }


def number_draws(
    gold: numpy.ndarray, predicted: numpy.ndarray, n_samples: int = N_SAMPLES
) -> Dict[str, Tuple[Optional[float], numpy.ndarray]]:
    """Pearson's correlation and the root mean squared error, and the same of texts drawn with replacement.

    gold (numpy.ndarray): Gold numbers. Float, (n_texts,).
    predicted (numpy.ndarray): Predicted ones.
    n_samples (int): How often to draw.
    RETURNS (Dict[str, Tuple[Optional[float], numpy.ndarray]]): "Pearson" and "RMSE": the score, None where it is not
        defined, and those of the draws, NaN there. Float, (n_samples,).
    """
    n = len(gold)
    errors = (predicted - gold) ** 2
    x, y = (values - values.mean() if n else values for values in (predicted, gold))
    draws = resample_sums(numpy.stack([x, y, x * x, y * y, x * y, errors], axis=1), n_samples)
    sx, sy, sxx, syy, sxy, squares = draws.T
    with numpy.errstate(divide="ignore", invalid="ignore"):
        drawn = (n * sxy - sx * sy) / numpy.sqrt((n * sxx - sx * sx) * (n * syy - sy * sy))
    drawn[~numpy.isfinite(drawn)] = numpy.nan
    roots = numpy.sqrt(squares / n) if n else numpy.full(n_samples, numpy.nan)
    return {
        "Pearson": (correlation(predicted, gold), drawn),
        "RMSE": (float(numpy.sqrt(errors.mean())) if n else None, roots),
    }


def roc_auc(true: numpy.ndarray, scores: numpy.ndarray) -> Optional[float]:
    """The probability that a text with the label scores higher than one without; a tie counts half.

    true (numpy.ndarray): Whether the label holds. Bool, (n_texts,).
    scores (numpy.ndarray): Its scores. Float, (n_texts,).
    RETURNS (Optional[float]): 0 to 1; None unless there are texts of both kinds.
    """
    n_true = int(true.sum())
    n_false = len(true) - n_true
    if not n_true or not n_false:
        return None
    return float((ranks(scores)[true].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))


def average_precision(true: numpy.ndarray, scores: numpy.ndarray) -> Optional[float]:
    """Precision at each threshold, weighted by the recall that is gained there: the area under the curve in steps.

    true (numpy.ndarray): Whether the label holds. Bool, (n_texts,).
    scores (numpy.ndarray): Its scores. Float, (n_texts,).
    RETURNS (Optional[float]): 0 to 1; None if no text has the label.
    """
    if not true.any():
        return None
    order = numpy.argsort(-scores, kind="stable")
    # One threshold for all texts of the same score
    last = numpy.append(numpy.diff(scores[order]) != 0, True).nonzero()[0]
    correct = true[order].cumsum()[last]
    precision, recall = correct / (last + 1), correct / true.sum()
    return float((numpy.diff(recall, prepend=0.0) * precision).sum())


def _columns(pairs: Sequence[Tuple[float, float]]) -> Tuple[numpy.ndarray, numpy.ndarray]:
    gold, predicted = numpy.array(pairs, dtype="float64").reshape(-1, 2).T
    return gold, predicted
