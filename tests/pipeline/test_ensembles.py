"""TextEnsemble.v1: the mean of what its members say, each of which learns as it would alone."""

from pathlib import Path
from typing import Any, Dict, List

import numpy
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import Adam, Model

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.models.ensembles import n_classifiers

from ..making import assert_close, clear_gradients, encoder_module, gradients, initialize_nlp, make_example, make_nlp
from .test_text_heads import (
    EXCLUSIVE,
    TEXTS,
    architecture,
    assert_learned_and_saved,
    embedding,
    every_component,
    examples_of,
    learn,
    make_alone,
    make_bag,
    token_listener,
)

ENSEMBLE = "spacy_bert_heads.TextEnsemble.v1"


def make_ensemble(head: str, **members: Dict[str, Any]) -> Dict[str, Any]:
    return {"@architectures": ENSEMBLE, "exclusive_classes": EXCLUSIVE[head], "*": members}


def make_networks(head: str) -> Dict[str, Dict[str, Any]]:
    return {"cnn": architecture("TextCNN.v1", head, embedding()), "bag": make_bag(head)}


def make_docs(nlp: Language) -> List[Doc]:
    return [nlp.make_doc(text) for text in TEXTS]


def gradient_arrays(model: Model) -> Dict[str, Any]:
    """Gradients of every parameter, thinc's and torch's, by its place in the model."""
    found: Dict[str, Any] = {}
    for i, node in enumerate(model.walk()):
        found.update({f"{i} {name}": node.get_grad(name) for name in node.grad_names})
        found.update({f"{i} {n}": g for shim in node.shims for n, g in gradients(shim.module).items()})
    return found


@every_component
def test_an_ensemble_learns_and_is_saved(head: str, tmp_path: Path) -> None:
    nlp = make_alone(head, make_ensemble(head, **make_networks(head)))
    learn(nlp, head, *((400, 0.05) if head == "bert_regression" else (150, 0.02)))
    assert_learned_and_saved(nlp, head, tmp_path)


@every_component
def test_it_says_the_mean_of_what_its_members_say(head: str) -> None:
    nlp = make_alone(head, make_ensemble(head, **make_networks(head)))
    learn(nlp, head, 20)
    model = nlp.get_pipe(head).model  # type: ignore[attr-defined]
    apart = [member.predict(make_docs(nlp)) for member in model.layers]
    assert numpy.abs(apart[0] - apart[1]).max() > 0.01
    assert_close(model.predict(make_docs(nlp)), (apart[0] + apart[1]) / 2)


@every_component
def test_each_member_learns_as_it_would_alone(head: str) -> None:
    """The loss is the mean of theirs, so gradients are halved; some labels are unknown."""
    networks = make_networks(head)
    nlp = make_alone(head, make_ensemble(head, **networks))
    examples = examples_of(nlp, head)
    examples[1].reference.cats = {}
    if head != "bert_textcat":
        examples[2].reference.cats = dict(list(examples[2].reference.cats.items())[:1])
    losses = [nlp.update(examples, sgd=False)[head]]
    for member, network in zip(nlp.get_pipe(head).model.layers, networks.values()):  # type: ignore[attr-defined]
        alone = make_alone(head, network)
        model = alone.get_pipe(head).model.from_bytes(member.to_bytes())  # type: ignore[attr-defined]
        losses.append(alone.update(examples, sgd=False)[head])
        ours, theirs = gradient_arrays(member), gradient_arrays(model)
        assert ours.keys() == theirs.keys() != set()
        assert any(numpy.abs(numpy.asarray(gradient)).max() > 1e-4 for gradient in theirs.values())
        for name, gradient in theirs.items():
            assert_close(ours[name], numpy.asarray(gradient) / 2)
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2)


@every_component
def test_an_ensemble_within_an_ensemble_learns_as_its_members_do(head: str) -> None:
    """All three classifiers weigh alike in the loss, as side by side."""
    networks = make_networks(head)
    inner = make_ensemble(head, **networks)
    nested = make_alone(head, make_ensemble(head, inner=inner, third=networks["bag"]))
    flat = make_alone(head, make_ensemble(head, **networks, third=networks["bag"]))
    members = nested.get_pipe(head).model.layers  # type: ignore[attr-defined]
    for member, source in zip(flat.get_pipe(head).model.layers, [*members[0].layers, members[1]]):  # type: ignore[attr-defined]
        member.from_bytes(source.to_bytes())
    examples = examples_of(nested, head)
    assert nested.update(examples, sgd=False)[head] == pytest.approx(flat.update(examples, sgd=False)[head])
    pairs = zip([*members[0].layers, members[1]], flat.get_pipe(head).model.layers)  # type: ignore[attr-defined]
    for ours, theirs in pairs:
        expected = gradient_arrays(theirs)
        assert any(numpy.abs(numpy.asarray(gradient)).max() > 1e-4 for gradient in expected.values())
        for name, gradient in gradient_arrays(ours).items():
            assert_close(gradient, numpy.asarray(expected[name]))


@every_component
def test_how_many_classifiers_learn_is_told_by_the_model(head: str) -> None:
    """Not by the number of rows: those of another model are no loss at all."""
    networks = make_networks(head)
    alone, both = make_alone(head, networks["bag"]), make_alone(head, make_ensemble(head, **networks))
    assert n_classifiers(alone.get_pipe(head).model) == 1  # type: ignore[attr-defined]
    assert n_classifiers(both.get_pipe(head).model) == 2  # type: ignore[attr-defined]
    examples = examples_of(alone, head)
    scores, _ = both.get_pipe(head).model.begin_update([eg.predicted for eg in examples])  # type: ignore[attr-defined]
    assert both.get_pipe(head).get_loss(examples, scores)[0] > 0  # type: ignore[attr-defined]
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        alone.get_pipe(head).get_loss(examples, scores)  # type: ignore[attr-defined]


def test_over_a_shared_encoder_every_member_teaches_it(bert_folder: str, tmp_path: Path) -> None:
    head = "bert_textcat"
    pooled = {"@architectures": "spacy_bert_heads.PooledClassifier.v1", "exclusive_classes": True, "lr_scale": 1.0}
    pooled["tok2vec"] = {"@architectures": "spacy_bert_heads.PooledListener.v1"}
    networks = {"pooled": pooled, "cnn": architecture("TextCNN.v1", head, token_listener())}
    nlp = make_nlp(bert_folder, [head], settings={head: {"model": make_ensemble(head, **networks)}}, initialize=False)
    initialize_nlp(nlp, examples=examples_of(nlp, head))
    members = nlp.get_pipe(head).model.layers  # type: ignore[attr-defined]
    assert len(nlp.get_pipe("transformer").listeners) == 2  # type: ignore[attr-defined]

    def teach(*taught: int) -> Dict[str, Any]:
        """The encoder's gradients when some members alone have any to give."""
        clear_gradients(nlp)
        transformer, component = nlp.get_pipe("transformer"), nlp.get_pipe(head)
        examples = examples_of(nlp, head)
        transformer.update(examples)  # type: ignore[attr-defined]
        scores, backprop = component.model.begin_update([eg.predicted for eg in examples])  # type: ignore[attr-defined]
        _, d_scores = component.get_loss(examples, scores)  # type: ignore[attr-defined]
        parts = d_scores.reshape(len(members), len(examples), -1).copy()
        for i in range(len(members)):
            parts[i] *= i in taught
        backprop(parts.reshape(d_scores.shape))
        return gradients(encoder_module(nlp).transformer)

    both, first, second = teach(0, 1), teach(0), teach(1)
    for name, gradient in both.items():
        assert_close(gradient, sum(part[name] for part in (first, second) if name in part))
    assert all(any(bool(g.abs().max() > 1e-5) for g in part.values()) for part in (first, second))
    learn(nlp, head, 40, 0.001)
    assert_learned_and_saved(nlp, head, tmp_path)


@every_component
def test_texts_that_are_all_empty_and_batches_without_any(head: str) -> None:
    nlp = make_alone(head, make_ensemble(head, **make_networks(head)))
    empty = [make_example(nlp, "", cats=examples_of(nlp, head)[0].reference.cats)] * 2
    sgd = Adam(0.01)
    losses = [nlp.update(empty, sgd=sgd)[head] for _ in range(20)]
    assert losses[-1] < losses[0]
    assert list(nlp.pipe([])) == []
    model = nlp.get_pipe(head).model  # type: ignore[attr-defined]
    Y, backprop = model.begin_update([])
    assert Y.shape == model.predict([]).shape == (0, 2) and backprop(Y) == []


@every_component
def test_members_of_the_wrong_kind_or_none_at_all_are_refused(head: str) -> None:
    other = "bert_textcat_multilabel" if EXCLUSIVE[head] else "bert_textcat"
    right, wrong = make_bag(head), make_bag(other)
    for code, model in (
        ("H265", make_ensemble(head, right=right, wrong=wrong)),
        ("H261", make_ensemble(head)),
        ("H217", make_ensemble(other, wrong=wrong)),
    ):
        with pytest.raises(BertHeadsError) as error:
            spacy.blank("en").add_pipe(head, config={"model": model})
        assert error.value.code == code
