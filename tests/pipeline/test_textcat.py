"""bert_textcat and bert_textcat_multilabel: labels, empty input, learning, scores."""

import logging
from typing import Any, List

import pytest
import spacy
from spacy.language import Language
from spacy.training import Example
from thinc.api import Adam

from spacy_bert_heads.errors import BertHeadsError

from ..making import (
    TRAINING,
    assert_same_predictions,
    head_module,
    initialize_nlp,
    make_config,
    make_example,
    make_examples,
    make_nlp,
    predictions,
    weights,
)

HEADS = ["bert_textcat", "bert_textcat_multilabel"]
both = pytest.mark.parametrize("head", HEADS)


def make_empty_examples(nlp: Language, n: int = 2) -> List[Example]:
    return [make_example(nlp, "", cats={"TRACK": 1.0, "CANCEL": 0.0}) for _ in range(n)]


@both
def test_labels_come_from_the_data(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head])
    component = nlp.get_pipe(head)
    assert component.labels == ("CANCEL", "TRACK")
    assert list(nlp("where")._.trf_data.model_output) == ["last_hidden_state", "pooler_output"]
    assert list(nlp("where").cats) == ["CANCEL", "TRACK"]


@both
def test_data_without_labels_cannot_be_learned(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head], initialize=False)
    with pytest.raises(ValueError):
        initialize_nlp(nlp, examples=[make_example(nlp, "where", cats={})])


@both
def test_given_labels_keep_their_order_and_must_hold_those_of_the_data(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head], initialize=False)
    nlp.config["initialize"]["components"][head] = {"labels": ["TRACK", "OTHER", "CANCEL"]}
    initialize_nlp(nlp)
    assert nlp.get_pipe(head).labels == ("TRACK", "OTHER", "CANCEL")
    assert nlp.get_pipe(head).model.get_dim("nO") == 3
    nlp = make_nlp(bert_folder, [head], initialize=False)
    nlp.config["initialize"]["components"][head] = {"labels": ["TRACK", "OTHER"]}
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp)
    assert (error.value.code, error.value.found) == ("H301", "CANCEL")


@both
def test_a_label_can_be_added_before_initialisation_and_not_after(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head], initialize=False)
    component = nlp.get_pipe(head)
    assert (component.add_label("OTHER"), component.add_label("OTHER")) == (1, 0)
    initialize_nlp(nlp)
    assert component.labels == ("OTHER", "CANCEL", "TRACK")
    assert len(nlp("where").cats) == 3
    assert component.add_label("TRACK") == 0
    with pytest.raises(ValueError, match="E922"):
        component.add_label("NEW")


@both
def test_labels_added_by_hand_count_as_given(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head], initialize=False)
    nlp.get_pipe(head).add_label("CANCEL")
    nlp.config["initialize"]["components"][head] = {"labels": ["TRACK"]}
    initialize_nlp(nlp)
    assert nlp.get_pipe(head).labels == ("CANCEL", "TRACK")


@both
def test_categories_other_than_true_and_false_are_refused(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head])
    with pytest.raises(ValueError, match="E851"):
        nlp.update([make_example(nlp, "where", cats={"TRACK": 0.5})], sgd=False)


def test_two_true_categories_are_refused_where_classes_exclude_each_other(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat"])
    with pytest.raises(ValueError, match="E895"):
        nlp.update([make_example(nlp, "where", cats={"TRACK": 1.0, "CANCEL": 1.0})], sgd=False)


@pytest.mark.parametrize("head, exclusive", [("bert_textcat", False), ("bert_textcat_multilabel", True)])
def test_a_model_for_the_other_kind_of_classes_is_refused(head: str, exclusive: bool) -> None:
    with pytest.raises(BertHeadsError) as error:
        spacy.blank("en").add_pipe(head, config={"model": {"exclusive_classes": exclusive}})
    assert (error.value.code, error.value.found) == ("H217", exclusive)


@both
def test_probabilities_sum_to_one_only_where_classes_exclude_each_other(bert_folder: str, head: str) -> None:
    sums = [sum(doc.cats.values()) for doc in make_nlp(bert_folder, [head]).pipe(["where", "", "track Anna"])]
    assert all(total == pytest.approx(1.0, abs=1e-6) for total in sums) == (head == "bert_textcat")
    assert all(0 <= total <= 2 for total in sums)


@both
def test_docs_without_categories_neither_help_nor_hurt(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head])
    examples = make_examples(nlp)
    found = []
    for batch in (examples, [*examples, make_example(nlp, "please", cats={})]):
        losses = nlp.update(batch, sgd=False)
        found.append((losses[head], {n: p.grad.clone() for n, p in head_module(nlp, head).named_parameters()}))
        head_module(nlp, head).zero_grad()
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    for name, gradient in found[0][1].items():
        assert gradient.abs().sum() > 0 and (gradient - found[1][1][name]).abs().max() < 1e-6
    losses = nlp.update(
        [make_example(nlp, "please", cats={}), make_example(nlp, "x", cats={"UNKNOWN": 1.0})], sgd=False
    )
    assert losses[head] == 0.0


@both
def test_empty_input_is_no_trouble(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head, "bert_ner"])
    before = weights(head_module(nlp, head))
    assert nlp.update([]) == {}
    for component in (nlp.get_pipe("transformer"), nlp.get_pipe(head), nlp.get_pipe("bert_ner")):
        assert not any(component.update([]).values())  # type: ignore[attr-defined]
    nlp.update(make_empty_examples(nlp), sgd=False)
    nlp.update([*make_empty_examples(nlp), *make_examples(nlp)], sgd=False)
    assert all((tensor == before[name]).all() for name, tensor in weights(head_module(nlp, head)).items())
    assert list(nlp.pipe([])) == []
    assert len(nlp.get_pipe(head).predict([])) == 0
    assert nlp.evaluate([])["cats_macro_f"] in (None, 0.0)


@both
def test_an_empty_text_is_learned_too(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head])
    alone, mixed = make_empty_examples(nlp), [*make_examples(nlp), *make_empty_examples(nlp)]
    assert nlp.update(mixed, sgd=False)[head] != nlp.update(make_examples(nlp), sgd=False)[head]
    assert nlp.update(alone, sgd=False)[head] > 0


@both
def test_three_examples_are_overfitted_and_scoring_leaves_them_as_they_were(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head])
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.002
    first = nlp.update(make_examples(nlp), sgd=sgd)[head]
    for _ in range(30):
        losses = nlp.update(make_examples(nlp), sgd=sgd)
    assert losses[head] < first / 10
    examples = make_examples(nlp)
    before = [(eg.reference.to_bytes(), dict(eg.predicted.cats)) for eg in examples]
    scores = nlp.evaluate(examples)
    assert scores["cats_macro_f"] == 1.0
    assert [eg.reference.to_bytes() for eg in examples] == [reference for reference, _ in before]
    again = nlp.evaluate(examples)
    assert {k: v for k, v in again.items() if k != "speed"} == {k: v for k, v in scores.items() if k != "speed"}


@both
def test_averages_of_the_weights_are_used_and_put_back(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head])
    sgd = Adam(0.01, use_averages=True)
    for _ in range(6):
        nlp.update(make_examples(nlp), sgd=sgd)
    now = weights(head_module(nlp, head))
    ours = predictions(nlp.pipe(["where", "cancel"]))
    with nlp.use_params(sgd.averages):
        averaged = weights(head_module(nlp, head))
        assert predictions(nlp.pipe(["where", "cancel"])) != ours
        saved = nlp.to_bytes()
    assert any(not (averaged[name] == now[name]).all() for name in now)
    assert predictions(nlp.pipe(["where", "cancel"])) == ours
    other = make_nlp(bert_folder, [head], initialize=False).from_bytes(saved)
    loaded = weights(head_module(other, head))
    assert all((loaded[name] == averaged[name]).all() for name in averaged)


@pytest.mark.parametrize("head", ["bert_textcat", "bert_textcat_multilabel", "bert_regression"])
def test_labels_that_a_trained_head_does_not_know_are_named_once(bert_folder: str, head: str, caplog: Any) -> None:
    nlp = make_nlp(bert_folder, [head])
    known = make_examples(nlp)
    new = [make_example(nlp, text, cats={"NEW": 1.0, "CANCEL": 0.0}) for text in ("order", "refund")]
    with caplog.at_level(logging.WARNING, logger="spacy"):
        for _ in range(3):
            nlp.update([*known, *new], sgd=False)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"[H350] {head}: 2 texts of a batch")
    assert "NEW (2)" in record.getMessage()


def test_a_text_whose_category_is_unknown_teaches_an_exclusive_head_nothing(bert_folder: str) -> None:
    """That CANCEL does not hold would otherwise say that TRACK, the only other label, does."""
    nlp = make_nlp(bert_folder, ["bert_textcat"])
    component: Any = nlp.get_pipe("bert_textcat")
    example = make_example(nlp, "order", cats={"NEW": 1.0, "CANCEL": 0.0})
    scores = component.model.ops.asarray2f([[0.5, -0.5]])
    loss, gradient = component.get_loss([example], scores)
    assert loss == 0.0 and not gradient.any()
    several, with_known = component.get_loss([example, make_examples(nlp)[0]], scores.repeat(2, axis=0))
    alone, of_known = component.get_loss([make_examples(nlp)[0]], scores)
    assert several == alone > 0 and not with_known[0].any() and (with_known[1] == of_known[0]).all()


def test_positive_label_is_scored(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat"], initialize=False)
    nlp.config["initialize"]["components"]["bert_textcat"] = {"positive_label": "TRACK"}
    initialize_nlp(nlp)
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["cats_score_desc"] == "F (TRACK)"


def test_a_private_encoder_and_a_shared_one_live_together(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat"], initialize=False)
    nlp.add_pipe("bert_ner", config={"model": {"tok2vec": make_config(bert_folder), "lstm_width": 8}})
    initialize_nlp(nlp)
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.002
    for _ in range(30):
        nlp.update(make_examples(nlp), sgd=sgd)
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["cats_acc"] == scores["ents_f"] == 1.0
    texts = [text for text, _, _ in TRAINING]
    assert_same_predictions(predictions(nlp.pipe(texts)), predictions(nlp(text) for text in texts), 1e-5)
