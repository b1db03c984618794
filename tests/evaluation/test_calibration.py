"""Reliability and expected calibration error, by hand and against scikit-learn."""

import json
import math
from typing import Tuple

import numpy
import pytest
import spacy
from sklearn.calibration import calibration_curve
from spacy.tokens import Span
from spacy.training import Example

from spacy_bert_heads import extensions  # noqa: F401
from spacy_bert_heads.evaluation.calibration import (
    calibration_error_interval,
    calibration_report,
    classwise_calibration,
    describe_categories,
    entity_outcomes,
    expected_calibration_error,
    reliability,
    selective_report,
)


def test_bins_and_error_are_those_computed_by_hand() -> None:
    bins = reliability([0.05, 0.55, 0.6, 0.95, 0.85, 1.0], [False, True, False, True, True, True])
    assert [b.predictions for b in bins] == [1, 0, 0, 0, 0, 2, 0, 0, 1, 2]
    assert (bins[5].confidence, bins[5].accuracy) == (pytest.approx(0.575), 0.5)
    assert (bins[9].low, bins[9].high) == (0.9, 1.0) and math.isnan(bins[1].accuracy)
    # 1/6 * 0.05 + 2/6 * 0.075 + 1/6 * 0.15 + 2/6 * 0.025
    assert expected_calibration_error(bins) == pytest.approx(0.4 / 6)


def test_borders_belong_to_the_bin_below() -> None:
    bins = reliability([0.0, 0.1, 0.5, 1.0], [True] * 4)
    assert [i for i, b in enumerate(bins) for _ in range(b.predictions)] == [0, 0, 4, 9]


@pytest.mark.parametrize("n_bins", [1, 5, 10])
def test_bins_equal_those_of_scikit_learn(n_bins: int) -> None:
    chooser = numpy.random.RandomState(0)
    confidences = chooser.rand(500)
    correct = chooser.rand(500) < confidences**2
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=n_bins, strategy="uniform")
    bins = [b for b in reliability(confidences, correct, n_bins) if b.predictions]
    numpy.testing.assert_allclose([b.accuracy for b in bins], accuracy)
    numpy.testing.assert_allclose([b.confidence for b in bins], confidence)
    weights = numpy.array([b.predictions for b in bins]) / 500
    assert expected_calibration_error(bins) == pytest.approx(float((weights * abs(accuracy - confidence)).sum()))


def test_well_calibrated_predictions_have_little_error_and_boasting_ones_have_more() -> None:
    chooser = numpy.random.RandomState(1)
    confidences = chooser.rand(20000)
    correct = chooser.rand(20000) < confidences
    assert expected_calibration_error(reliability(confidences, correct)) < 0.02
    assert expected_calibration_error(reliability(numpy.ones(20000), correct)) == pytest.approx(0.5, abs=0.02)


def test_nothing_predicted_has_no_error() -> None:
    assert math.isnan(expected_calibration_error(reliability([], [])))
    report = calibration_report([], [])
    assert report["predictions"] == 0 and report["expected_calibration_error"] is None
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_entities_count_as_right_where_gold_has_them_and_not_at_all_where_gold_says_nothing() -> None:
    nlp = spacy.blank("en")
    predicted, reference = (
        nlp.make_doc("Anna Smith in New York and Rome"),
        nlp.make_doc("Anna Smith in New York and Rome"),
    )
    reference.set_ents(
        [Span(reference, 0, 2, "PERSON"), Span(reference, 3, 5, "CITY")], missing=[reference[6:7]], default="outside"
    )
    predicted.ents = [
        Span(predicted, 0, 2, "PERSON"),
        Span(predicted, 2, 3, "CITY"),
        Span(predicted, 4, 5, "CITY"),
        Span(predicted, 6, 7, "CITY"),
    ]
    for ent, confidence in zip(predicted.ents, (0.9, None, 0.25, 0.7)):
        ent._.confidence = confidence
    assert entity_outcomes([Example(predicted, reference)]) == ([0.9, 0.25], [True, False])
    report = calibration_report([0.9, 0.25], [True, False])
    assert report["accuracy"] == 0.5 and report["mean_confidence"] == pytest.approx(0.575)
    assert report["expected_calibration_error"] == pytest.approx(0.175)


def make_predictions(n: int, *, seed: int = 0, rounded: bool = False) -> Tuple[numpy.ndarray, numpy.ndarray]:
    random_state = numpy.random.default_rng(seed)
    confidences = random_state.random(n)
    correct = random_state.random(n) < confidences**2
    return confidences.round(1) if rounded else confidences, correct


def test_the_interval_is_that_of_a_bootstrap_over_texts() -> None:
    confidences, correct = make_predictions(200)
    texts = numpy.random.default_rng(1).integers(0, 60, 200)
    found = calibration_error_interval(confidences.tolist(), correct.tolist(), texts.tolist())
    random_state = numpy.random.default_rng(5)
    numbers, errors = numpy.unique(texts), []
    for _ in range(500):
        drawn = [i for text in random_state.choice(numbers, len(numbers)) for i in numpy.flatnonzero(texts == text)]
        errors.append(expected_calibration_error(reliability(confidences[drawn], correct[drawn])))
    assert found == pytest.approx(numpy.percentile(errors, (2.5, 97.5)), abs=0.015)
    assert calibration_error_interval([], [], []) is None


def test_classwise_error_is_the_mean_of_that_of_each_label() -> None:
    random_state = numpy.random.default_rng(2)
    probabilities = random_state.dirichlet([0.3, 0.5, 1.0], 300)
    truths = numpy.eye(3, dtype=bool)[random_state.integers(0, 3, 300)]
    known = random_state.random((300, 3)) < 0.7
    for mask in (None, known):
        there = numpy.ones_like(known) if mask is None else mask
        errors = [
            expected_calibration_error(reliability(probabilities[there[:, i], i], truths[there[:, i], i]))
            for i in range(3)
        ]
        error, interval = classwise_calibration(probabilities, truths, mask)
        assert error == pytest.approx(numpy.mean(errors), abs=1e-6)
        assert interval is not None and interval[0] < interval[1]
    assert classwise_calibration(numpy.zeros((0, 3)), numpy.zeros((0, 3), dtype=bool)) == (None, None)


def test_top_label_and_every_label_of_a_text() -> None:
    probabilities = numpy.array([[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    truths = numpy.array([[True, False], [True, False], [False, False]])  # the last one has a label that it lacks
    known = numpy.ones_like(truths)
    found = describe_categories(probabilities, truths, known, True)
    assert (found["predictions"], found["accuracy"]) == (3, pytest.approx(1 / 3))
    assert found["mean_confidence"] == pytest.approx(0.7)
    assert found["nll"] == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)
    known[0, 1] = False
    found = describe_categories(probabilities, truths, known, False)
    assert found["predictions"] == 5
    assert found["nll"] == pytest.approx(-sum(map(math.log, (0.8, 0.4, 0.4, 0.3, 0.7))) / 5)


@pytest.mark.parametrize("rounded", [False, True])
def test_risk_and_coverage_of_the_surest(rounded: bool) -> None:
    confidences, correct = make_predictions(80, rounded=rounded)
    found = selective_report(confidences.tolist(), correct.tolist())
    areas = []
    for seed in range(400 if rounded else 1):
        # Among equals any order is as good
        order = numpy.lexsort((numpy.random.default_rng(seed).random(80), -confidences))
        areas.append(numpy.mean(numpy.cumsum(~correct[order]) / numpy.arange(1, 81)))
    assert found["aurc"] == pytest.approx(numpy.mean(areas), abs=0.003 if rounded else 1e-12)
    assert found["curve"][-1] == [1.0, pytest.approx(1 - correct.mean(), abs=1e-4)]
    for row in found["right"]:
        every = [(correct[confidences >= c].mean(), (confidences >= c).mean(), c) for c in confidences]
        fits = [(share, c) for accuracy, share, c in every if accuracy >= row["accuracy"]]
        if fits:
            assert (row["coverage"], row["confidence"]) == pytest.approx(max(fits))
        else:
            assert (row["coverage"], row["confidence"]) == (0.0, None)


def test_without_predictions_there_is_nothing_to_say() -> None:
    found = calibration_report([], [])
    assert found["selective"]["aurc"] is None and found["expected_calibration_error_interval"] is None
    assert all(row["confidence"] is None for row in found["selective"]["right"])
    json.dumps(found)
    nothing = describe_categories(numpy.zeros((0, 2)), numpy.zeros((0, 2), bool), numpy.zeros((0, 2), bool), True)
    json.dumps(nothing)
    assert nothing["nll"] is None
