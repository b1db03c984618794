"""What more answers are expected to bring, by the scores of the rounds up to now."""

from typing import List, NamedTuple, Optional, Sequence

import numpy

# Rounds that a curve of three numbers needs
LEAST_ROUNDS = 3
# How steep a curve may be: the error falls with the number of texts to the power of minus this
POWERS = numpy.linspace(0.1, 2.0, 39)
SAMPLES = 500
# Of the interval
SHARE = 0.9
# Points below which more answers hardly help
HARDLY = 0.01


class Forecast(NamedTuple):
    """What is expected of more texts.

    more (int): How many.
    gain (float): Change of the score, from 0 to 1.
    low (float): Of nine gains in ten that fit the rounds, the smallest.
    high (float): The largest of them.
    """

    more: int
    gain: float
    low: float
    high: float

    def to_text(self) -> str:
        """RETURNS (str): A sentence for the person who decides whether to go on."""
        said = (
            f"The next {self.more} texts are expected to bring {100 * self.gain:.1f} points "
            f"({100 * self.low:.1f} to {100 * self.high:.1f})"
        )
        return f"{said}: more answers of this kind will hardly help." if self.high < HARDLY else f"{said}."


def forecast(texts: Sequence[int], scores: Sequence[float], n_scored: int, more: int) -> Optional[Forecast]:
    """Fit a learning curve to the rounds, score = a - b * texts ** -c with b >= 0, and read it further on.

    The interval is that of a parametric bootstrap: scores are drawn anew around the curve, with the deviation that the
    rounds have from it, but not less than that of a share of `n_scored` texts, and the curve is fitted again.

    texts (Sequence[int]): Annotated texts of each round.
    scores (Sequence[float]): Its score, from 0 to 1.
    n_scored (int): Texts that were scored.
    more (int): Texts to come.
    RETURNS (Optional[Forecast]): None if there are fewer than three rounds with different numbers of texts.

    SOURCE: for the power law Figueroa et al. (2012), Predicting sample size required for classification performance.
    """
    n, y = numpy.array(texts, dtype="float64"), numpy.array(scores, dtype="float64")
    n, y = n[n > 0], y[n > 0]
    if len(set(n.tolist())) < LEAST_ROUNDS:
        return None
    last, fitted = n.max(), _Curve(n, y)
    free = max(1, len(n) - LEAST_ROUNDS)
    residual = float(numpy.sqrt(((y - fitted.at(n)) ** 2).sum() / free))
    share = float(numpy.clip(fitted.at(numpy.array([last]))[0], 0.0, 1.0))
    # Not less than if one text in n_scored + 2 had been different
    deviation = max(residual, float(numpy.sqrt(max(share * (1 - share), 1 / (n_scored + 2)) / max(1, n_scored))))
    draws = numpy.random.default_rng(0).normal(fitted.at(n), deviation, size=(SAMPLES, len(n)))
    ends = numpy.array([last, last + more])
    gains: List[float] = [float(numpy.diff(_Curve(n, drawn).at(ends))[0]) for drawn in draws]
    low, high = numpy.quantile(gains, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    gain = float(numpy.diff(fitted.at(ends))[0])
    return Forecast(more, gain, min(float(low), gain), max(float(high), gain))


class _Curve:
    """The curve with the least squares: for each power a straight line, of which the best one is taken."""

    def __init__(self, n: numpy.ndarray, y: numpy.ndarray) -> None:
        x = n[None, :] ** -POWERS[:, None]
        centred, height = x - x.mean(axis=1, keepdims=True), y - y.mean()
        # Scores that fall are a flat curve with noise
        slopes = numpy.minimum(0.0, (centred @ height) / (centred**2).sum(axis=1))
        errors = ((height - slopes[:, None] * centred) ** 2).sum(axis=1)
        best = int(errors.argmin())
        self.power, self.slope = POWERS[best], slopes[best]
        self.top = y.mean() - self.slope * x[best].mean()

    def at(self, n: numpy.ndarray) -> numpy.ndarray:
        """RETURNS (numpy.ndarray): The score at numbers of texts. Float64, of the same shape."""
        return self.top + self.slope * n**-self.power
