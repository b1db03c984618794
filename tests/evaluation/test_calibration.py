"""Reliability and expected calibration error, by hand and against scikit-learn."""

import json
import math

import numpy
import pytest
import spacy
from sklearn.calibration import calibration_curve
from spacy.tokens import Span
from spacy.training import Example

from spacy_bert_heads import extensions  # noqa: F401
from spacy_bert_heads.evaluation.calibration import (
    calibration_report,
    entity_outcomes,
    expected_calibration_error,
    reliability,
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
