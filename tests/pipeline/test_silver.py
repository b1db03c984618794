"""A Doc that nobody has reviewed pulls as hard as its weight says, in every head, and no further."""

from pathlib import Path
from typing import Any, List, Optional

import numpy
import pytest
import spacy
from spacy.tokens import Doc, DocBin
from spacy.training import Example

from spacy_bert_heads.extensions import SILVER, get_silver
from spacy_bert_heads.pipeline.base import example_weights

from ..generating import make_language_model, text_to_text
from ..making import gradients, head_module, make_example, make_examples, make_nlp

HEADS = ["bert_textcat", "bert_textcat_multilabel", "bert_regression", "bert_ner", "bert_spans", "seq2seq_ner"]


def gradients_by_doc(nlp: Any, head: str, weights: List[Optional[float]]) -> List[numpy.ndarray]:
    """The gradient that each Doc sends to the scores of a head, in one batch."""
    examples = make_examples(nlp)
    for eg, weight in zip(examples, weights):
        eg.reference._.silver = weight
    component = nlp.get_pipe(head)
    docs = [eg.predicted for eg in examples]
    nlp.get_pipe("transformer").set_annotations(docs, nlp.get_pipe("transformer").predict(docs))
    scores, _ = component.model.begin_update(docs)
    return [numpy.array(found) for found in component.get_loss(examples, scores)[1]]


@pytest.mark.parametrize("head", HEADS)
def test_the_gradient_of_a_doc_is_its_share_and_that_of_others_stays(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, (head,))
    plain = gradients_by_doc(nlp, head, [None, None, None])
    weighed = gradients_by_doc(nlp, head, [None, 0.25, 1.0])
    assert all(abs(found).max() > 1e-5 for found in plain)
    for found, before, share in zip(weighed, plain, (1.0, 0.25, 1.0)):
        numpy.testing.assert_allclose(found, share * before, rtol=1e-4, atol=1e-7)


def test_a_language_model_that_copies_the_text_too(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    name = make_language_model(tmp_path / "t5", "t5")
    nlp.add_pipe("seq2seq_ner", config={"model": text_to_text(name)})
    nlp.initialize(lambda: make_examples(nlp))
    found = []
    for weights in ([None, None, None], [None, 0.25, 1.0]):
        examples = make_examples(nlp)
        for eg, weight in zip(examples, weights):
            eg.reference._.silver = weight
        component: Any = nlp.get_pipe("seq2seq_ner")
        scores, _ = component.model.begin_update([eg.predicted for eg in examples])
        found.append([numpy.array(one) for one in component.get_loss(examples, scores)[1]])
    for plain, weighed, share in zip(*found, (1.0, 0.25, 1.0)):
        assert abs(plain).max() > 1e-6
        numpy.testing.assert_allclose(weighed, share * plain, rtol=1e-3, atol=1e-7)


def test_tokens_by_themselves_and_rejected_spans_too(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ("bert_ner",), settings={"bert_ner": {"model": {"crf": None, "lstm_width": 8}}})
    plain, weighed = (gradients_by_doc(nlp, "bert_ner", [None, weight, None]) for weight in (None, 0.5))
    for found, before, share in zip(weighed, plain, (1.0, 0.5, 1.0)):
        numpy.testing.assert_allclose(found, share * before, rtol=1e-4, atol=1e-7)
    nlp = make_nlp(bert_folder, ("bert_ner",))
    found = []
    for weight in (None, 0.5):
        eg = make_example(nlp, "track Smith in London", spans={"incorrect_spans": [(6, 11, "CITY")]})
        eg.reference._.silver = weight
        docs = [eg.predicted]
        nlp.get_pipe("transformer").set_annotations(docs, nlp.get_pipe("transformer").predict(docs))
        scores, _ = nlp.get_pipe("bert_ner").model.begin_update(docs)  # type: ignore[attr-defined]
        loss, [gradient] = nlp.get_pipe("bert_ner").get_loss([eg], scores)  # type: ignore[attr-defined]
        found.append((loss, gradient))
    assert found[0][0] > 0 and found[1][0] == pytest.approx(0.5 * found[0][0], rel=1e-4)
    numpy.testing.assert_allclose(found[1][1], 0.5 * found[0][1], rtol=1e-4, atol=1e-7)


def test_a_whole_batch_of_them_pulls_less(bert_folder: str) -> None:
    norms = []
    for weight in (None, 0.1):
        nlp = make_nlp(bert_folder, ("bert_textcat",))
        examples = make_examples(nlp)
        for eg in examples:
            eg.reference._.silver = weight
        nlp.update(examples, sgd=False, losses={})  # type: ignore[arg-type]
        norms.append(sum(float(one.square().sum()) for one in gradients(head_module(nlp, "bert_textcat")).values()))
    assert norms[1] == pytest.approx(0.01 * norms[0], rel=1e-3)


def test_the_mark_survives_a_file_and_nonsense_is_none(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ("bert_textcat",), initialize=False)
    docs = [nlp.make_doc(text) for text in "abcdef"]
    docs[0]._.silver = 0.3
    for doc, value in zip(docs[1:], ("0.3", 7, -1.0, float("nan"), True)):
        doc.user_data[SILVER] = value
    stored = DocBin(docs=docs, store_user_data=True).to_bytes()
    read: List[Doc] = list(DocBin().from_bytes(stored).get_docs(nlp.vocab))
    assert [get_silver(doc) for doc in read] == [0.3, None, None, None, None, None]
    examples = [Example(nlp.make_doc(doc.text), doc) for doc in read]
    assert example_weights(examples).tolist() == pytest.approx([0.3, 1, 1, 1, 1, 1])  # type: ignore[union-attr]
    assert example_weights(examples[1:]) is None
    docs[0]._.silver = None
    assert SILVER not in docs[0].user_data
