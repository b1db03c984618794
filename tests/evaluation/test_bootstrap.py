"""Bootstrap intervals, against resampling one text at a time and against theory."""

import numpy
import pytest

from spacy_bert_heads.evaluation import bootstrap
from spacy_bert_heads.evaluation.bootstrap import intervals, mean_interval, resample_sums


@pytest.mark.parametrize("max_cells", [4_000_000, 50, 1])
def test_sums_are_those_of_drawn_texts(monkeypatch: pytest.MonkeyPatch, max_cells: int) -> None:
    monkeypatch.setattr(bootstrap, "MAX_CELLS", max_cells)
    values = numpy.random.RandomState(0).randint(0, 5, size=(20, 3, 2)).astype("float64")
    sums = resample_sums(values, n_samples=30, seed=1)
    # The generator draws the same numbers in one array and in several
    drawn = numpy.random.default_rng(1).integers(0, 20, size=(30, 20))
    expected = numpy.array([sum(values[i] for i in row) for row in drawn])
    numpy.testing.assert_array_equal(sums, expected)


def test_intervals_of_a_mean_are_those_of_the_normal_distribution() -> None:
    values = numpy.random.RandomState(0).normal(3.0, 2.0, size=2000)
    low, high = mean_interval(values)
    width = 1.96 * values.std() / numpy.sqrt(len(values))
    assert low == pytest.approx(values.mean() - width, abs=0.2 * width)
    assert high == pytest.approx(values.mean() + width, abs=0.2 * width)
    assert mean_interval(values) == (low, high)  # seeded


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random_state = numpy.random.RandomState(0)
    found = [mean_interval((random_state.rand(80) < 0.3).astype("float64")) for _ in range(200)]
    assert 0.88 <= numpy.mean([low <= 0.3 <= high for low, high in found]) <= 0.99


def test_scores_that_no_draw_has_get_no_interval() -> None:
    samples = numpy.array([[1.0, numpy.nan, numpy.nan], [3.0, 2.0, numpy.nan]])
    assert intervals(samples)[1:] == [(2.0, 2.0), None]
    assert mean_interval(numpy.zeros(0)) is None
    assert resample_sums(numpy.zeros((0, 2, 3))).shape == (1000, 2, 3)
