"""The learning curve of the rounds, against scipy's least squares and against curves that are known."""

import numpy
import pytest

from spacy_bert_heads.annotation.forecast import HARDLY, forecast

TEXTS = [50, 150, 250, 350, 450, 550]


def curve(n: numpy.ndarray, top: float, drop: float, power: float) -> numpy.ndarray:
    return top - drop * n**-power


def noisy(seed: int, n_scored: int, top: float = 0.9, drop: float = 4.0, power: float = 0.6) -> numpy.ndarray:
    """Scores of the rounds as shares of right texts among so many."""
    shares = curve(numpy.array(TEXTS, dtype="float64"), top, drop, power)
    return numpy.random.default_rng(seed).binomial(n_scored, shares) / n_scored


@pytest.mark.parametrize(("top", "drop", "power"), [(0.9, 2.0, 0.5), (0.7, 30.0, 1.0), (0.95, 0.9, 0.25)])
def test_a_power_law_is_found_again(top: float, drop: float, power: float) -> None:
    scores = curve(numpy.array(TEXTS, dtype="float64"), top, drop, power)
    found = forecast(TEXTS, list(scores), 10_000_000, 100)
    expected = curve(numpy.array([550.0, 650.0]), top, drop, power)
    assert found is not None
    assert found.gain == pytest.approx(expected[1] - expected[0], abs=1e-6)
    assert found.low == pytest.approx(found.gain, abs=1e-3) and found.high == pytest.approx(found.gain, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_least_squares_of_scipy(seed: int) -> None:
    from scipy.optimize import curve_fit

    y, n = noisy(seed, 2000), numpy.array(TEXTS, dtype="float64")
    bounds = ([-10.0, 0.0, 0.1], [10.0, 1000.0, 2.0])
    theirs, _ = curve_fit(curve, n, y, p0=[0.9, 4.0, 0.6], bounds=bounds, max_nfev=20000)
    found = forecast(TEXTS, list(y), 2000, 100)
    assert found is not None
    expected = numpy.diff(curve(numpy.array([550.0, 650.0]), *theirs))[0]
    # Powers are tried in steps of 0.05
    assert found.gain == pytest.approx(expected, abs=1e-3)


def test_the_interval_holds_the_truth_nine_times_in_ten() -> None:
    truth = numpy.diff(curve(numpy.array([550.0, 650.0]), 0.9, 4.0, 0.6))[0]
    held = []
    for seed in range(60):
        found = forecast(TEXTS, list(noisy(seed, 500)), 500, 100)
        assert found is not None
        held.append(found.low <= truth <= found.high)
    assert numpy.mean(held) >= 0.8


def test_falling_scores_bring_nothing_and_promise_nothing_below_zero() -> None:
    found = forecast(TEXTS, [0.9, 0.89, 0.88, 0.87, 0.86, 0.85], 100_000, 100)
    assert found is not None and found.gain == 0.0 and found.low == 0.0


def test_it_says_when_more_will_hardly_help() -> None:
    flat = forecast(TEXTS, [0.90, 0.951, 0.952, 0.952, 0.953, 0.953], 100_000, 100)
    steep = forecast(TEXTS, [0.2, 0.4, 0.5, 0.56, 0.6, 0.63], 500, 100)
    assert flat is not None and flat.high < HARDLY and "hardly help" in flat.to_text()
    assert steep is not None and steep.gain > HARDLY and "hardly" not in steep.to_text()
    assert f"{100 * steep.gain:.1f} points" in steep.to_text()


@pytest.mark.parametrize("texts", [[], [100], [100, 200], [100, 100, 200], [0, 100, 200]])
def test_two_rounds_say_nothing(texts: list) -> None:
    assert forecast(texts, [0.5] * len(texts), 100, 100) is None


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
def test_extreme_scores_have_an_interval(scores: list) -> None:
    found = forecast([10, 20, 30], scores, 0, 100)
    assert found is not None and numpy.isfinite([found.gain, found.low, found.high]).all()
    assert found.low <= found.gain <= found.high
