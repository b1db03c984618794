"""Bootstrap intervals, against resampling one text at a time and against theory."""

import numpy
import pytest

from spacy_bert_heads.evaluation import bootstrap, tables
from spacy_bert_heads.evaluation.bootstrap import Cells, intervals, mean_interval, resample_cells, resample_sums
from spacy_bert_heads.evaluation.label_scores import count_cells, score_labels


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


@pytest.mark.parametrize("max_cells", [4_000_000, 50])
def test_sums_of_cells_are_those_of_the_whole_table(monkeypatch: pytest.MonkeyPatch, max_cells: int) -> None:
    table = numpy.random.RandomState(0).randint(-6, 3, size=(20, 9)).clip(0).astype("float64") / 2
    cells = Cells.from_table(table)
    assert len(cells.texts) < table.size / 2
    numpy.testing.assert_array_equal(cells.total(), table.sum(0))
    expected = resample_sums(table, n_samples=40, seed=2)
    monkeypatch.setattr(bootstrap, "MAX_CELLS", max_cells)
    numpy.testing.assert_array_equal(resample_cells(cells, n_samples=40, seed=2), expected)
    assert not resample_cells(Cells.from_table(numpy.zeros((0, 3)))).any()


def test_precision_and_recall_have_the_intervals_of_their_draws() -> None:
    counts = numpy.random.RandomState(0).randint(0, 2, size=(30, 2, 3)).astype("float32")
    counts[:, :, 0] = counts.min(2)
    row = score_labels(["a", "b"], counts)["per_label"]["b"]
    drawn = numpy.random.default_rng(0).integers(0, 30, size=(1000, 30))
    sums = counts[drawn, 1].sum(1)
    for name, whole in (("precision", sums[:, 1]), ("recall", sums[:, 2]), ("f1", (sums[:, 1] + sums[:, 2]) / 2)):
        expected = numpy.percentile(sums[:, 0] / whole, (2.5, 97.5))
        assert row[f"{name}_interval"] == pytest.approx(expected, abs=1e-6)


def test_tables_of_thousands_of_labels_show_the_most_frequent() -> None:
    labels = [f"label {i}" for i in range(3000)]
    cells = [(i % 50, i, column) for i in range(3000) for column in ((0, 1, 2) if i % 10 == 0 else (2,))]
    scores = {**score_labels(labels, count_cells(50, 3000, cells)), "texts": 50}
    table = tables._label_table("Labels", scores)
    assert len(table.rows) == tables.MAX_LABELS + 2 and table.title == "Labels, the 200 most frequent of 3,000"
    assert all(int(row[0].split()[1]) % 10 == 0 for row in table.rows[:-2])
    assert table.rows[-2][-1] == "3,000"
