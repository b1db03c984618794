"""bert_regression against Hugging Face's own loss, its scores against scipy's, and the values it refuses."""

import math
import warnings
from typing import Any, Dict, List, Tuple

import numpy
import pytest
import spacy
import torch
from scipy.stats import pearsonr, spearmanr
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam
from transformers import BertForSequenceClassification

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.evaluation.scorers import score_regression

from ..making import (
    TRAINING,
    assert_close,
    assert_gradients_close,
    assert_same_predictions,
    encoder_module,
    gradients,
    head_module,
    hf_inputs,
    initialize_nlp,
    make_example,
    make_nlp,
    predictions,
    randomise,
)

TEXTS = [text for text, _, _ in TRAINING]
VOCAB = spacy.blank("en").vocab


def make_regression(folder: str, cats: List[Dict[str, Any]]) -> Tuple[Language, List[Example]]:
    nlp = make_nlp(folder, ["bert_regression"], initialize=False)
    examples = [make_example(nlp, text) for text in TEXTS]
    for eg, values in zip(examples, cats):  # Example.from_dict takes numbers only
        eg.reference.cats = dict(values)
    initialize_nlp(nlp, examples=examples)
    randomise(head_module(nlp, "bert_regression"), 0)
    return nlp, examples


def hugging_faces_model(nlp: Language, folder: str) -> BertForSequenceClassification:
    linear = head_module(nlp, "bert_regression").linear
    model = BertForSequenceClassification.from_pretrained(
        folder, num_labels=linear.out_features, problem_type="regression"
    ).eval()
    model.bert.load_state_dict(encoder_module(nlp).transformer.state_dict())
    model.classifier.load_state_dict(linear.state_dict())
    return model


@pytest.mark.parametrize(
    "targets", [{"SCORE": [3.5, -1.0, 0.25]}, {"A": [3.5, -1.0, 0.25], "B": [100.0, 20.0, 0.0]}], ids=["one", "two"]
)
def test_loss_gradients_and_predictions_are_hugging_faces(bert_folder: str, targets: Dict[str, List[float]]) -> None:
    nlp, examples = make_regression(bert_folder, [dict(zip(targets, row)) for row in zip(*targets.values())])
    model = hugging_faces_model(nlp, bert_folder)
    output = model(**hf_inputs(nlp, TEXTS), labels=torch.tensor(list(targets.values())).T.squeeze(1))
    output.loss.backward()
    losses = nlp.update(examples, sgd=False)
    assert losses["bert_regression"] == pytest.approx(float(output.loss), rel=1e-5)
    scale = max(float(gradient.abs().max()) for gradient in gradients(model).values())
    assert_gradients_close(encoder_module(nlp).transformer, model.bert, 1e-5 * scale)
    assert_close(head_module(nlp, "bert_regression").linear.weight.grad, model.classifier.weight.grad, 1e-5 * scale)
    docs = list(nlp.pipe(TEXTS))
    assert_close([[doc.cats[target] for target in targets] for doc in docs], output.logits, 1e-5)


def test_missing_targets_neither_help_nor_hurt(bert_folder: str) -> None:
    nlp, examples = make_regression(bert_folder, [{"A": 1.0, "B": 2.0}, {"B": 5.0}, {}])
    model = hugging_faces_model(nlp, bert_folder)
    logits = model(**hf_inputs(nlp, TEXTS)).logits
    loss = ((logits[0, 0] - 1) ** 2 + (logits[0, 1] - 2) ** 2 + (logits[1, 1] - 5) ** 2) / 3
    loss.backward()
    assert nlp.update(examples, sgd=False)["bert_regression"] == pytest.approx(float(loss), rel=1e-5)
    assert_gradients_close(encoder_module(nlp).transformer, model.bert, 1e-4)
    assert nlp.update(examples[2:], sgd=False)["bert_regression"] == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "4", None, [1.0], numpy.float32("nan")])
def test_what_is_no_finite_number_is_refused_when_training_begins_and_in_a_batch(bert_folder: str, value: Any) -> None:
    with pytest.raises(BertHeadsError) as error:
        make_regression(bert_folder, [{"A": 1.0}] * 2 + [{"A": value}])
    assert error.value.code == "H305" and TEXTS[2] in str(error.value) and repr(value) in str(error.value)
    nlp, examples = make_regression(bert_folder, [{"A": 1.0}] * 3)
    examples[1].reference.cats = {"A": value}
    with pytest.raises(BertHeadsError) as error:
        nlp.update(examples, sgd=False)
    assert error.value.code == "H305" and TEXTS[1] in str(error.value)
    with pytest.raises(BertHeadsError) as error:  # as where it is in the dev split alone
        nlp.evaluate(examples)
    assert error.value.code == "H305" and TEXTS[1] in str(error.value)


@pytest.mark.parametrize("value", [7, True, numpy.float32(2.5), numpy.int64(3)])
def test_numbers_of_other_types_are_numbers(bert_folder: str, value: Any) -> None:
    nlp, examples = make_regression(bert_folder, [{"A": value}] * 3)
    assert nlp.update(examples, sgd=False)["bert_regression"] > 0


def test_three_texts_are_overfitted_and_saved(bert_folder: str) -> None:
    nlp, examples = make_regression(bert_folder, [{"A": 1.0, "B": -2.0}, {"A": 3.0, "B": 0.0}, {"A": 0.5, "B": 4.0}])
    sgd = Adam(0.002)
    for _ in range(60):
        nlp.update(examples, sgd=sgd)
    scores = nlp.evaluate(examples)
    assert scores["cats_pearson"] > 0.99 and scores["cats_rmse"] < 0.5
    assert list(scores["cats_per_target"]) == ["A", "B"]
    before = predictions(nlp.pipe([*TEXTS, ""]))
    loaded = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert_same_predictions(predictions(loaded.pipe([*TEXTS, ""])), before)


def test_given_targets_must_hold_those_of_the_data(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_regression"], initialize=False)
    nlp.config["initialize"]["components"]["bert_regression"] = {"labels": ["B", "A"]}
    initialize_nlp(nlp, examples=[make_example(nlp, "where", cats={"A": 2.0})])
    assert nlp.get_pipe("bert_regression").labels == ("B", "A")  # type: ignore[attr-defined]
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp, examples=[make_example(nlp, "where", cats={"C": 2.0})])
    assert (error.value.code, error.value.found) == ("H301", "C")


def make_scored(predicted: Dict[str, float], gold: Dict[str, float]) -> Example:
    docs = [Doc(VOCAB, words=["x"]), Doc(VOCAB, words=["x"])]
    docs[0].cats, docs[1].cats = dict(predicted), dict(gold)
    return Example(*docs)


@pytest.mark.parametrize("steps", [1000, 4], ids=["few ties", "many ties"])
def test_scores_are_scipys(steps: int) -> None:
    random_state = numpy.random.RandomState(steps)
    gold = random_state.randint(0, steps, size=(60, 2)) / steps
    predicted = gold + random_state.randint(0, steps, size=(60, 2)) / steps
    examples = [
        make_scored({"A": p[0], "B": p[1]}, {"A": g[0]} if i % 3 == 0 else {"A": g[0], "B": g[1]})
        for i, (p, g) in enumerate(zip(predicted, gold))
    ]
    has_b = numpy.arange(60) % 3 != 0
    columns = {"A": (predicted[:, 0], gold[:, 0]), "B": (predicted[has_b, 1], gold[has_b, 1])}
    scores = score_regression(examples, labels=["A", "B"])
    for label, (x, y) in columns.items():
        found = scores["cats_per_target"][label]
        assert found["pearson"] == pytest.approx(pearsonr(x, y)[0])
        assert found["spearman"] == pytest.approx(spearmanr(x, y)[0])
        assert found["rmse"] == pytest.approx(math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y)) / len(x)))
        assert found["support"] == len(x)
    for name in ("pearson", "spearman", "rmse"):
        mean = (scores["cats_per_target"]["A"][name] + scores["cats_per_target"]["B"][name]) / 2
        assert scores[f"cats_{name}"] == pytest.approx(mean)


@pytest.mark.parametrize(
    "pairs, correlation, support",
    [
        ([], None, 0),
        ([(1.0, 2.0)], None, 1),
        ([(1.0, 2.0), (3.0, 2.0)], None, 2),
        ([(0.1, 2.0), (0.1, 3.0), (0.1, 5.0)], 0.0, 3),
    ],
    ids=["no Docs", "one Doc", "gold all alike", "predictions all alike"],
)
def test_correlations_where_there_are_none(pairs: List[Tuple[float, float]], correlation: Any, support: int) -> None:
    examples = [make_scored({"A": p}, {"A": g}) for p, g in pairs] + [make_scored({"A": 9.0}, {})]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score_regression(examples, labels=["A", "NEVER"])
    assert scores["cats_pearson"] == scores["cats_spearman"] == correlation
    assert scores["cats_per_target"]["A"]["support"] == support
    assert scores["cats_per_target"]["NEVER"] == {"pearson": None, "spearman": None, "rmse": None, "support": 0}
    assert (scores["cats_rmse"] is None) == (not pairs)


def test_loss_weight_multiplies_gradients_alone(bert_folder: str) -> None:
    found = []
    for loss_weight in (1.0, 0.5):
        nlp, examples = make_regression(bert_folder, [{"A": 1.0}, {"A": -2.0}, {"A": 3.0}])
        component = nlp.get_pipe("bert_regression")
        component.loss_settings = component.loss_settings._replace(loss_weight=loss_weight)  # type: ignore[attr-defined]
        loss = nlp.update(examples, sgd=False)["bert_regression"]
        found.append((loss, head_module(nlp, "bert_regression").linear.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0])
    assert_close(found[0][1] / 2, found[1][1], 1e-5)
    with pytest.raises(BertHeadsError) as error:
        spacy.blank("en").add_pipe("bert_regression", config={"loss_weight": -1.0})
    assert error.value.code == "H273"
