"""Scores of categories and numbers, against scikit-learn, scipy and spaCy's own scorer."""

from typing import Any, Dict, List

import numpy
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    average_precision_score,
    classification_report,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)
from spacy.training import Example

from spacy_bert_heads.evaluation.category_scores import (
    ExclusiveScorer,
    MultilabelScorer,
    NumberScorer,
    average_precision,
    roc_auc,
)
from spacy_bert_heads.evaluation.scorers import score_textcat, score_textcat_multilabel
from spacy_bert_heads.evaluation.tables import confusion_matrix as shown_matrix

from .perturb import make_example, perturb_cats


def run(scorer: Any, examples: List[Example]) -> Dict[str, Any]:
    for eg in examples:
        scorer.add(eg)
    return scorer.to_dict()


def make_exclusive(n: int, labels: List[str], unknown: List[str] = (), seed: int = 0) -> List[Example]:
    """Texts of some classes. The last label is never gold, and the first is never predicted."""
    random_state = numpy.random.RandomState(seed)
    examples = []
    for _ in range(n):
        gold = str(random_state.choice([*labels[:-1], *unknown]))
        cats = perturb_cats(labels, gold if gold in labels else labels[1], random_state)
        cats[labels[0]] = 0.0
        examples.append(make_example(["a"], gold_cats={c: float(c == gold) for c in [*labels, *unknown]}, cats=cats))
    return examples


def test_exclusive_classes_that_are_missing_on_either_side() -> None:
    labels, unknown = ["never-predicted", "b", "c", "never-gold"], ["unheard"]
    examples = make_exclusive(300, labels, unknown)
    examples += [make_example(["a"], cats={"b": 1.0}), make_example(["a"], gold_cats={"b": 0.0}, cats={"b": 1.0})]
    ours = run(ExclusiveScorer("textcat", labels, unknown), examples)
    assert (ours["texts"], ours["texts_without_gold"]) == (300, 2)
    gold = [max(eg.reference.cats, key=eg.reference.cats.get) for eg in examples[:300]]
    predicted = [max(eg.predicted.cats, key=eg.predicted.cats.get) for eg in examples[:300]]
    every = [*labels, *unknown]
    theirs = classification_report(gold, predicted, labels=every, output_dict=True, zero_division=0)
    for label in every:
        found = ours["per_label"][label]
        assert [found["precision"], found["recall"], found["f1"], found["support"]] == pytest.approx(
            [theirs[label][key] for key in ("precision", "recall", "f1-score", "support")]
        )
    assert ours["per_label"]["never-gold"]["support"] == 0 and ours["per_label"]["unheard"]["recall"] == 0.0
    used = classification_report(gold, predicted, output_dict=True, zero_division=0)
    assert ours["macro"]["f1"] == pytest.approx(used["macro avg"]["f1-score"])
    shown, matrix = shown_matrix(every, ours["confusion"], 30)
    assert shown == every
    numpy.testing.assert_array_equal(matrix, confusion_matrix(gold, predicted, labels=every))
    assert ours["accuracy"] == pytest.approx(numpy.mean([a == b for a, b in zip(gold, predicted)]))
    assert ours["accuracy"] == pytest.approx(score_textcat(examples, labels=labels)["cats_acc"])


def test_the_matrix_shows_the_labels_with_the_most_mistakes() -> None:
    confusion = {"a": {"a": 9, "b": 1}, "b": {"c": 4}, "c": {"c": 2}, "d": {"d": 5}}
    assert shown_matrix(["a", "b", "c", "d"], confusion, 2) == (["b", "c"], [[0, 4], [0, 2]])


def test_multilabel_scores_are_those_of_scikit_learn_and_spacy() -> None:
    random_state = numpy.random.RandomState(0)
    labels = [f"l{i}" for i in range(6)]
    gold = (random_state.rand(400, 6) < [0.5, 0.3, 0.1, 0.02, 0.0, 1.0]).astype("float64")
    scores = (0.4 * gold + 0.7 * random_state.rand(400, 6)).clip(0, 1).round(2)  # with ties
    known = random_state.rand(400, 6) < 0.9
    known[:5] = False
    examples = [
        make_example(
            ["a"],
            gold_cats={label: row[i] for i, label in enumerate(labels) if there[i]},
            cats=dict(zip(labels, values.tolist())),
        )
        for row, values, there in zip(gold, scores, known)
    ]
    ours = run(MultilabelScorer("textcat", labels, 0.6), examples)
    assert (ours["texts"], ours["texts_without_gold"]) == (395, 5)
    for i, label in enumerate(labels):
        here, found = known[:, i], ours["per_label"][label]
        theirs = precision_recall_fscore_support(
            gold[here, i], scores[here, i] >= 0.6, average="binary", zero_division=0
        )
        assert [found["precision"], found["recall"], found["f1"]] == pytest.approx(theirs[:3])
        if len(set(gold[here, i])) == 2:
            assert found["roc_auc"] == pytest.approx(roc_auc_score(gold[here, i], scores[here, i]))
        else:
            assert found["roc_auc"] is None
        if gold[here, i].any():
            expected = average_precision_score(gold[here, i], scores[here, i])
            assert found["average_precision"] == pytest.approx(expected)
        else:
            assert found["average_precision"] is None
    theirs = score_textcat_multilabel(examples, labels=labels, threshold=0.6)
    assert ours["micro"]["f1"] == pytest.approx(theirs["cats_micro_f"])
    exact = [all((gold[i, j] > 0) == (scores[i, j] >= 0.6) for j in range(6) if known[i, j]) for i in range(5, 400)]
    assert ours["accuracy"] == pytest.approx(numpy.mean(exact))


def test_curves_without_a_choice_are_not_scored() -> None:
    assert roc_auc(numpy.array([True, True]), numpy.array([0.1, 0.2])) is None
    assert average_precision(numpy.zeros(2, dtype=bool), numpy.array([0.1, 0.2])) is None
    assert roc_auc(numpy.zeros(0, dtype=bool), numpy.zeros(0)) is None


def test_mistakes_of_multilabel_classes_say_how_sure_they_are() -> None:
    scorer = MultilabelScorer("textcat", ["a", "b", "c"], 0.5)
    eg = make_example(["x"], gold_cats={"a": 1.0, "b": 0.0}, cats={"a": 0.2, "b": 0.9, "c": 0.9})
    right, mistakes = scorer.add(eg)
    assert right is False
    assert [(one.kind, one.gold, one.predicted) for one in mistakes] == [
        ("missed category", "a", None),
        ("extra category", None, "b"),
    ]
    assert [one.confidence for one in mistakes] == pytest.approx([0.8, 0.9])


def test_numbers_are_compared_as_in_scipy() -> None:
    random_state = numpy.random.RandomState(0)
    gold = random_state.rand(100).round(1)
    predicted = (gold + 0.3 * random_state.randn(100)).round(1)
    examples = [make_example(["a"], gold_cats={"x": g}, cats={"x": p, "y": 1.0}) for g, p in zip(gold, predicted)]
    examples.append(make_example(["a"], cats={"x": 0.0, "y": 0.0}))
    scorer = NumberScorer("regression", ["x", "y"])
    found = run(scorer, examples)
    x, y = found["per_label"]["x"], found["per_label"]["y"]
    assert (x["support"], y["support"], found["texts_without_gold"]) == (100, 0, 1)
    assert x["pearson"] == pytest.approx(pearsonr(gold, predicted)[0])
    assert x["spearman"] == pytest.approx(spearmanr(gold, predicted)[0])
    assert x["rmse"] == pytest.approx(float(numpy.sqrt(((gold - predicted) ** 2).mean())))
    assert x["pearson_interval"][0] < x["pearson"] < x["pearson_interval"][1]
    assert x["rmse_interval"][0] < x["rmse"] < x["rmse_interval"][1]
    assert {y[key] for key in y if key != "support"} == {None}
    # Against resampling one draw at a time, with the same draws
    drawn = numpy.random.default_rng(0).integers(0, 100, size=(1000, 100))
    values = [pearsonr(gold[row], predicted[row])[0] for row in drawn]
    assert x["pearson_interval"] == pytest.approx(numpy.percentile(values, [2.5, 97.5]))
    worst = scorer.worst(3)
    errors = numpy.abs(gold - predicted)
    assert [errors[number] for number, _, _ in worst] == sorted(errors, reverse=True)[:3]
