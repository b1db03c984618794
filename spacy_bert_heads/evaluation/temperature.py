"""One temperature for each head, fitted to annotated texts: probabilities that say how often the head is right.

SOURCE: Guo et al. (2017), On Calibration of Modern Neural Networks, temperature scaling.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, List, Optional

import numpy
import torch

from ..pipeline.fitted import AROUND, COVERAGE, TEMPERATURE, THRESHOLDS
from ..pipeline.textcat import temper_around
from .calibration import calibration_report, describe_categories, log_loss
from .outcomes import EntityOutcomes, Outcomes, SpanOutcomes, TextOutcomes

LOWEST, HIGHEST = 0.1, 10.0
# Natural logarithm of the temperature: how exactly it is looked for
TOLERANCE = 0.005
N_STEPS = 9
# To fewer, any temperature could be fitted
MIN_PREDICTIONS = 30
# Entities that are looked at, of so many or more
N_ENTITIES = 5000


@dataclass
class TemperatureFit:
    """What became of a head.

    name (str): The component.
    kind (str): "exclusive", "multilabel", "entities" or "spans".
    n (int): Texts, predicted entities or possible spans that it was fitted to.
    temperature (Any): The temperature, or one for each label; None: the head is as it was.
    reason (str): Why something is as it was. "" if nothing is.
    before (Dict[str, Any]): See describe; of the same texts.
    after (Dict[str, Any]): The same, at the temperature.
    """

    name: str
    kind: str
    n: int
    temperature: Any = None
    reason: str = ""
    before: Dict[str, Any] = field(default_factory=dict)
    after: Dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): For JSON."""
        return dict(vars(self))


def minimise(function: Callable[[float], float]) -> float:
    """The temperature at which a function is least: steps of equal ratio, then golden sections around the best step.

    function (Callable[[float], float]): Of the temperature.
    RETURNS (float): LOWEST to HIGHEST.
    """
    steps = numpy.linspace(math.log(LOWEST), math.log(HIGHEST), N_STEPS).tolist()
    values = [function(math.exp(step)) for step in steps]
    best = int(numpy.argmin(values))
    low, high = steps[max(best - 1, 0)], steps[min(best + 1, N_STEPS - 1)]
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(math.exp(left)), function(math.exp(right))
    while high - low > TOLERANCE:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(math.exp(right))
    return math.exp((low + high) / 2)


def fit_temperature(outcomes: Outcomes, chosen: Optional[numpy.ndarray] = None) -> TemperatureFit:
    """Fit a head's temperature and apply it. What was fitted to the head before is gone.

    Exclusive labels: one temperature for the logits, by the likelihood of the gold labels. Other labels: one for each,
    measured from the head's threshold, likewise. Entities: one for emissions and transitions of the CRF together, by
    the likelihood that each predicted entity is as right or wrong as it is. Spans that may overlap: one, measured from
    the threshold of each label, by the likelihood of all spans that the head takes for possible. No prediction
    changes.

    outcomes (Outcomes): Of the head.
    chosen (Optional[numpy.ndarray]): True for the texts to fit to; None: all. Bool, (n_texts_of_corpus,).
    RETURNS (TemperatureFit): What was fitted.
    """
    outcomes.head.forget_fitted(TEMPERATURE, THRESHOLDS, COVERAGE)
    if isinstance(outcomes, EntityOutcomes):
        return _fit_entities(outcomes, chosen)
    if isinstance(outcomes, SpanOutcomes):
        return _fit_spans(outcomes, chosen)
    part = outcomes if chosen is None else outcomes.select(chosen)
    return _fit_exclusive(part) if outcomes.is_exclusive else _fit_multilabel(part)


def describe(outcomes: Outcomes, chosen: Optional[numpy.ndarray] = None) -> Dict[str, Any]:
    """Calibration of a head as it is now.

    outcomes (Outcomes): Of the head.
    chosen (Optional[numpy.ndarray]): True for the texts to look at; None: all. Bool, (n_texts_of_corpus,).
    RETURNS (Dict[str, Any]): See calibration_report; "nll", the mean negative log-likelihood in nats, None without
        predictions, of all possible spans where they may overlap; and of text heads "classwise_calibration_error" with
        its interval. For JSON.
    """
    if not isinstance(outcomes, TextOutcomes):
        rated = outcomes.rate(chosen)
        nll = log_loss(rated.confidences, rated.correct)
        found = outcomes.found(rated) if isinstance(outcomes, SpanOutcomes) else slice(None)
        columns = (column[found].tolist() for column in (rated.confidences, rated.correct, rated.texts))
        confidences, correct, texts = columns
        return {**calibration_report(confidences, correct, texts=texts), "nll": nll}
    part = outcomes if chosen is None else outcomes.select(chosen)
    return describe_categories(part.probabilities(), part.truths, part.known, part.is_exclusive)


def _fit_exclusive(outcomes: TextOutcomes) -> TemperatureFit:
    fit = TemperatureFit(outcomes.name, "exclusive", len(outcomes.texts), before=describe(outcomes))
    logits, gold = outcomes.logits.astype("float64"), outcomes.truths.argmax(1) if len(outcomes.texts) else []
    rows = numpy.arange(len(logits))

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        scaled -= scaled.max(1, keepdims=True)
        return float((numpy.log(numpy.exp(scaled).sum(1)) - scaled[rows, gold]).mean())

    right = (logits.argmax(1) == gold) if len(logits) else numpy.zeros(0, dtype=bool)
    fit.reason = _cannot_fit(right, "texts")
    if not fit.reason:
        fit.temperature = outcomes.head.cfg[TEMPERATURE] = minimise(loss)
    fit.after = describe(outcomes)
    return fit


def _fit_multilabel(outcomes: TextOutcomes) -> TemperatureFit:
    fit = TemperatureFit(outcomes.name, "multilabel", len(outcomes.texts), before=describe(outcomes))
    threshold = float(outcomes.head.cfg["threshold"])
    fitted: Dict[str, float] = {}
    left: List[str] = []
    for i, label in enumerate(outcomes.labels):
        here = outcomes.known[:, i]
        logits = torch.from_numpy(outcomes.logits[here, i].astype("float64"))
        truths = torch.from_numpy(outcomes.truths[here, i])
        decided = logits.sigmoid() >= threshold
        if _cannot_fit((decided == truths).numpy(), "texts"):
            left.append(label)
        else:
            fitted[label] = minimise(partial(_label_loss, logits, truths, threshold))
    if not len(outcomes.texts):
        fit.reason = _cannot_fit(numpy.zeros(0, dtype=bool), "texts")
    elif left:
        fit.reason = f"Too few texts, no mistake or nothing else at these labels, which stay: {', '.join(left)}."
    if fitted:
        fit.temperature = outcomes.head.cfg[TEMPERATURE] = fitted
        outcomes.head.cfg[AROUND] = threshold
    fit.after = describe(outcomes)
    return fit


def _label_loss(logits: torch.Tensor, truths: torch.Tensor, threshold: float, temperature: float) -> float:
    scaled = temper_around(logits, logits.new_tensor(temperature), threshold)
    return float(torch.nn.functional.softplus(torch.where(truths, -scaled, scaled)).mean())


def _fit_entities(outcomes: EntityOutcomes, chosen: Optional[numpy.ndarray]) -> TemperatureFit:
    rated = outcomes.rate(chosen)
    fit = TemperatureFit(outcomes.name, "entities", len(rated.correct), before=describe(outcomes, chosen))
    fit.reason = _cannot_fit(rated.correct, "predicted entities")
    if not fit.reason:
        texts = numpy.unique(rated.texts)
        if len(rated.correct) > N_ENTITIES:
            share = N_ENTITIES / len(rated.correct)
            texts = numpy.random.default_rng(0).permutation(texts)[: int(share * len(texts))]
        looked_at = numpy.zeros(sum(len(batch.docs) for batch in outcomes.batches), dtype=bool)
        looked_at[texts] = True

        def loss(temperature: float) -> float:
            outcomes.head.cfg[TEMPERATURE] = temperature
            found = outcomes.rate(looked_at)
            return log_loss(found.confidences, found.correct) or 0.0

        fit.temperature = minimise(loss)
        outcomes.head.cfg[TEMPERATURE] = fit.temperature
    fit.after = describe(outcomes, chosen)
    return fit


def _fit_spans(outcomes: SpanOutcomes, chosen: Optional[numpy.ndarray]) -> TemperatureFit:
    rated, head = outcomes.rate(chosen), outcomes.head
    fit = TemperatureFit(outcomes.name, "spans", len(rated.correct), before=describe(outcomes, chosen))
    fit.reason = _cannot_fit(outcomes.found(rated) == rated.correct, "possible spans")
    if not fit.reason:
        head.cfg[AROUND] = head.thresholds

        def loss(temperature: float) -> float:
            head.cfg[TEMPERATURE] = temperature
            found = outcomes.rate(chosen)
            return log_loss(found.confidences, found.correct) or 0.0

        fit.temperature = head.cfg[TEMPERATURE] = minimise(loss)
    fit.after = describe(outcomes, chosen)
    return fit


def _cannot_fit(right: numpy.ndarray, what: str) -> str:
    """Why there is nothing to fit to; "" if there is."""
    if not len(right):
        return f"It has no {what} with gold annotation."
    if len(right) < MIN_PREDICTIONS:
        return f"It has only {len(right)} {what} with gold annotation; it takes {MIN_PREDICTIONS}."
    if right.all():
        return f"All {len(right)} {what} are right: nothing says how sure it may be."
    if not right.any():
        return f"All {len(right)} {what} are wrong."
    return ""
