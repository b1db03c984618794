"""From which probability on a prediction counts: thresholds chosen on annotated texts, and their curves."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy
from spacy.language import Language
from spacy.training import Example

from ..errors import BertHeadsError, printable
from ..pictures import new_figure, write_picture
from ..pipeline.fitted import THRESHOLDS
from .calibrate import find_outcomes
from .calibration import tied_counts
from .outcomes import EntityOutcomes, Outcomes, SpanOutcomes, TextOutcomes
from .tables import percent

# Of fewer, no threshold can be told
MIN_SUPPORT = 10
# Curves in a picture, of the labels with most gold annotation
MAX_CURVES = 12
ANY_LABEL = "all labels"


class Metric(NamedTuple):
    """What thresholds are chosen by.

    name (str): "fbeta": the highest F-score. "precision": the lowest threshold of at least this precision. "recall":
        the highest one of at least this recall.
    value (float): Beta, or the share.
    """

    name: str
    value: float


class Curve(NamedTuple):
    """What precision and recall would be at every threshold at which they change, from the highest on. The first row
    is of a threshold that nothing reaches.

    thresholds (numpy.ndarray): Each lies in the middle between two probabilities. Float, (n_thresholds,).
    precision, recall, kept (numpy.ndarray): Float, (n_thresholds,); precision is 1 where nothing is predicted.
    """

    thresholds: numpy.ndarray
    precision: numpy.ndarray
    recall: numpy.ndarray
    kept: numpy.ndarray

    def f_beta(self, beta: float) -> numpy.ndarray:
        """RETURNS (numpy.ndarray): F-score; beta is how many times recall counts as much as precision."""
        weight = beta * beta
        total = weight * self.precision + self.recall
        with numpy.errstate(invalid="ignore"):
            return numpy.where(total > 0, (1 + weight) * self.precision * self.recall / total, 0.0)


@dataclass
class ThresholdFit:
    """What became of a label, or of a head that abstains.

    name (str): The component.
    label (str): The label; ANY_LABEL for exclusive ones, which share a threshold.
    support (int): Gold labels, texts or entities.
    threshold (float): The threshold from now on.
    reason (str): Why it is not what was asked for. "" if it is.
    before (Dict[str, float]): "precision", "recall" and "f1" without it, at what held before.
    after (Dict[str, float]): The same with it.
    curve (Optional[Curve]): What it was read from.
    """

    name: str
    label: str
    support: int
    threshold: float
    reason: str = ""
    before: Dict[str, float] = field(default_factory=dict)
    after: Dict[str, float] = field(default_factory=dict)
    curve: Optional[Curve] = None

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): For JSON, without the curve."""
        return {key: value for key, value in vars(self).items() if key != "curve"}


@dataclass
class Thresholds:
    """What `set-thresholds` did.

    texts (int): Annotated texts.
    metric (str): As given.
    fits (List[ThresholdFit]): One for each label.
    notes (List[str]): What was left alone.
    """

    texts: int
    metric: str
    fits: List[ThresholdFit] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): For JSON."""
        fits = [fit.to_dict() for fit in self.fits]
        return {"texts": self.texts, "metric": self.metric, "notes": self.notes, "thresholds": fits}


def parse_metric(text: str) -> Metric:
    """RETURNS (Metric): What --metric says. RAISES (BertHeadsError): H604 if it says nothing that is known."""
    match = re.fullmatch(r"(f1|fbeta|precision|recall)(?:=([0-9.]+))?", text.strip().lower())
    name, number = (match[1], match[2]) if match else ("", None)
    if name == "f1" and number is None:
        return Metric("fbeta", 1.0)
    try:
        value = float(number or "nan")
    except ValueError:
        value = float("nan")
    if (name == "fbeta" and 0 < value) or (name in ("precision", "recall") and 0 < value <= 1):
        return Metric(name, value)
    raise BertHeadsError("H604", found=text)


def make_curve(scores: Sequence[float], correct: Sequence[bool], support: int) -> Curve:
    """Precision and recall of what is at least as probable as a threshold.

    scores (Sequence[float]): Probability of each prediction.
    correct (Sequence[bool]): Whether each is right.
    support (int): What there is to be found.
    RETURNS (Curve): The curve.
    """
    values, counts, right = tied_counts(scores, correct) if len(scores) else (numpy.zeros(0),) * 3
    kept, n_right = numpy.cumsum([0, *counts]), numpy.cumsum([0, *right])
    borders = numpy.array([1.0 + 1e-6, *values, 0.0])
    middle = (borders[:-1] + borders[1:]) / 2
    # Between two numbers next to each other there is none
    thresholds = numpy.where(middle > borders[1:], middle, borders[:-1])
    if len(values):
        thresholds[-1] = 0.0
    precision = numpy.where(kept > 0, n_right / numpy.maximum(kept, 1), 1.0)
    return Curve(thresholds, precision, n_right / max(support, 1), kept.astype("float64"))


def choose(curve: Curve, metric: Metric) -> int:
    """Where on a curve the metric is satisfied best. Of equals, the lowest threshold, which keeps most.

    curve (Curve): The curve.
    metric (Metric): What is wanted.
    RETURNS (int): Which row. Where the wanted precision or recall is not to be had, that with the highest.
    """
    if metric.name == "fbeta":
        return _last_best(curve.f_beta(metric.value))
    used = numpy.flatnonzero(curve.kept > 0)
    if not len(used):
        return 0
    if metric.name == "precision":
        fits = used[curve.precision[used] >= metric.value]
        return int(fits[-1]) if len(fits) else int(used[_last_best(curve.precision[used])])
    fits = used[curve.recall[used] >= metric.value]
    return int(fits[0]) if len(fits) else int(used[-1])


def set_thresholds(nlp: Language, examples: Sequence[Example], metric: str) -> Thresholds:
    """Choose the thresholds of a pipeline's heads, and apply them. Older ones go.

    Labels that do not exclude each other: one each. Exclusive ones: one for all, below which the head abstains;
    precision is then the share of its answers that is right, recall the share of all texts that it answers rightly.
    Entities: a minimum confidence for each label. Spans that may overlap: a threshold for each label.

    nlp (Language): The pipeline.
    examples (Sequence[Example]): Annotated texts that it was not trained on, and Docs without annotation.
    metric (str): "f1", "fbeta=BETA", "precision=SHARE" or "recall=SHARE".
    RETURNS (Thresholds): What was done.
    RAISES (BertHeadsError): H602 if no head has gold annotation, H603 if there is no head, H604 for another metric.
    """
    wanted = parse_metric(metric)
    done = Thresholds(len(examples), metric)
    for outcomes in find_outcomes(nlp, examples, "set thresholds for", done.notes):
        outcomes.head.forget_fitted(THRESHOLDS)
        fits = _fit(outcomes, wanted)
        chosen = {fit.label: fit.threshold for fit in fits if fit.curve is not None}
        if isinstance(outcomes, TextOutcomes) and outcomes.is_exclusive:
            chosen = dict.fromkeys(outcomes.labels, chosen[ANY_LABEL]) if chosen else {}
        if chosen:
            outcomes.head.set_thresholds(chosen)
        left = [fit for fit in fits if fit.curve is None]
        if left:
            names = ", ".join(f"{fit.label} ({fit.support})" for fit in left)
            done.notes.append(
                f"'{outcomes.name}': fewer than {MIN_SUPPORT} gold annotations, too few to choose a threshold, or no "
                f"prediction of: {names}."
            )
        done.notes += [f"'{fit.name}', {fit.label}: {fit.reason}" for fit in fits if fit.curve and fit.reason]
        done.fits += fits
    return done


def _fit(outcomes: Outcomes, metric: Metric) -> List[ThresholdFit]:
    if isinstance(outcomes, EntityOutcomes):
        return _fit_entities(outcomes, metric)
    if isinstance(outcomes, SpanOutcomes):
        return _fit_spans(outcomes, metric)
    return _fit_exclusive(outcomes, metric) if outcomes.is_exclusive else _fit_multilabel(outcomes, metric)


def _fit_exclusive(outcomes: TextOutcomes, metric: Metric) -> List[ThresholdFit]:
    probabilities, n = outcomes.probabilities(), len(outcomes.texts)
    best = probabilities.argmax(1) if n else numpy.zeros(0, dtype=int)
    rows = numpy.arange(n)
    return [
        _fit_label(
            outcomes.name,
            ANY_LABEL,
            probabilities[rows, best],
            outcomes.truths[rows, best],
            n,
            float(outcomes.head.cfg["threshold"]),
            metric,
        )
    ]


def _fit_multilabel(outcomes: TextOutcomes, metric: Metric) -> List[ThresholdFit]:
    probabilities, threshold = outcomes.probabilities(), float(outcomes.head.cfg["threshold"])
    fits = []
    for i, label in enumerate(outcomes.labels):
        here = outcomes.known[:, i]
        truths = outcomes.truths[here, i]
        support = int(truths.sum())
        fits.append(_fit_label(outcomes.name, label, probabilities[here, i], truths, support, threshold, metric))
    return fits


def _fit_entities(outcomes: EntityOutcomes, metric: Metric) -> List[ThresholdFit]:
    rated = outcomes.rate()
    labels, least = numpy.array(rated.labels, dtype=object), outcomes.head.min_confidence
    gold = [ent.label for text in outcomes.gold.values() for ent in text.ents]
    fits = []
    for label in outcomes.head.labels:
        # What the config drops stays dropped
        here = (labels == label) & (rated.confidences >= least)
        confidences, correct = rated.confidences[here], rated.correct[here]
        fits.append(_fit_label(outcomes.name, label, confidences, correct, gold.count(label), least, metric))
    return fits


def _fit_spans(outcomes: SpanOutcomes, metric: Metric) -> List[ThresholdFit]:
    rated, limits = outcomes.rate(), dict(zip(outcomes.head.labels, outcomes.head.thresholds))
    labels, gold = (
        numpy.array(rated.labels, dtype=object),
        [label for found in outcomes.gold.values() for label in found],
    )
    fits = []
    for label, limit in limits.items():
        here = labels == label
        confidences, correct = rated.confidences[here], rated.correct[here]
        fit = _fit_label(outcomes.name, label, confidences, correct, gold.count(label), limit, metric)
        if fit.curve is not None:
            # Nothing is known about what is less probable than any candidate
            fit.threshold = float(numpy.clip(fit.threshold, confidences.min(), 1.0))
        fits.append(fit)
    return fits


def _fit_label(
    name: str,
    label: str,
    scores: numpy.ndarray,
    correct: numpy.ndarray,
    support: int,
    before: float,
    metric: Metric,
) -> ThresholdFit:
    fit = ThresholdFit(name, label, support, before)
    fit.before = fit.after = _scores_at(scores, correct, support, before)
    if support < MIN_SUPPORT or not len(scores):
        return fit
    curve = make_curve(scores.tolist(), correct.tolist(), support)
    row = choose(curve, metric)
    fit.curve, fit.threshold = curve, float(curve.thresholds[row])
    fit.after = _scores_at(scores, correct, support, fit.threshold)
    if metric.name != "fbeta" and fit.after[metric.name] < metric.value:
        fit.reason = f"no threshold gives a {metric.name} of {metric.value:g}; this is the highest."
    return fit


def _scores_at(scores: numpy.ndarray, correct: numpy.ndarray, support: int, threshold: float) -> Dict[str, float]:
    kept = scores >= threshold
    n_kept, n_right = int(kept.sum()), int(correct[kept].sum())
    return {
        "precision": n_right / n_kept if n_kept else 0.0,
        "recall": n_right / support if support else 0.0,
        "f1": 2 * n_right / (n_kept + support) if n_kept + support else 0.0,
    }


def _last_best(values: numpy.ndarray) -> int:
    return int(len(values) - 1 - values[::-1].argmax())


def to_text(done: Thresholds) -> str:
    """RETURNS (str): What `set-thresholds` did, as a table for a terminal."""
    from wasabi import table

    lines = [printable(f"Note: {note}") for note in done.notes]
    header = ("head", "label", "threshold", "precision", "recall", "F1", "F1 before", "support")
    rows = []
    for fit in done.fits:
        shown = (percent(fit.after[key]) for key in ("precision", "recall", "f1"))
        threshold = f"{fit.threshold:.3f}" if fit.curve else f"({fit.threshold:.3f})"
        names = printable(fit.name), printable(fit.label)
        rows.append((*names, threshold, *shown, percent(fit.before["f1"]), f"{fit.support:,}"))
    if rows:
        aligns: Any = ("l", "l", *("r" for _ in header[2:]))
        lines += ["", str(table(rows, header=header, divider=True, aligns=aligns, max_col=60)).strip("\n")]
    return "\n".join(lines)


def draw_curves(done: Thresholds, path: Path) -> None:
    """Draw precision, recall and F1 at every threshold, and where it was set.

    done (Thresholds): What was done.
    path (Path): Where to write the picture, as PNG.
    RAISES (BertHeadsError): H123 if it cannot be written, H410 if matplotlib is not installed.
    """
    fits = [(fit, fit.curve) for fit in done.fits if fit.curve is not None]
    fits = sorted(fits, key=lambda pair: -pair[0].support)[:MAX_CURVES]
    columns = min(3, max(len(fits), 1))
    rows = -(-max(len(fits), 1) // columns)
    figure = new_figure(4.2 * columns, 3.2 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(fits) :]:
        axis.set_axis_off()
    for axis, (fit, curve) in zip(axes, fits):
        used = curve.kept > 0
        for title, values in (("precision", curve.precision), ("recall", curve.recall), ("F1", curve.f_beta(1.0))):
            axis.plot(curve.thresholds[used], values[used], label=title, drawstyle="steps-pre")
        axis.axvline(fit.threshold, color="grey", linestyle=":", label=f"threshold {fit.threshold:.3f}")
        # A dollar sign would begin a formula
        axis.set_title(f"{fit.name}: {fit.label}"[:60].replace("$", r"\$"), fontsize=9)
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="lower left")
    write_picture(figure, path, dpi=110)
