"""Texts and Docs that nobody should send: a result or a clear error, and the rest of the batch unharmed."""

from typing import Any, List

import numpy
import pytest
from spacy.language import Language
from spacy.tokens import Doc

from ..making import assert_same_predictions, make_nlp, predictions

GOOD = ["where is my order", "cancel the refund Anna"]
STRANGE = {
    "a NUL": "\x00",
    "NULs between words": "a\x00b \x00 order",
    "white space only": " \n\t  ",
    "nothing": "",
    "a word longer than the encoder reads": "z" * 5000,
    "a word over the tokenizer's own limit": "a" * 50000,
    "punctuation in a row": "!?" * 400,
    "Chinese": "我的订单在北京上海" * 200,
    "emoji": "👩‍👩‍👧‍👦👍🏽🏳️‍🌈 " * 40,
    "combining marks": "e" + "\u0301" * 500,
    "private use and unassigned": "\ue000\uffff\U0010ffff order",
}


@pytest.fixture(scope="module")
def nlp(bert_folder: str) -> Language:
    return make_nlp(bert_folder, ("bert_textcat", "bert_ner", "bert_spans"))


def vectors(nlp: Language, docs: List[Doc]) -> Any:
    return nlp.get_pipe("bert_ner").model.get_ref("tok2vec").predict(docs)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", STRANGE)
def test_strange_texts_have_results_and_harm_nobody(nlp: Language, name: str) -> None:
    alone = predictions(nlp(text) for text in GOOD)
    docs = list(nlp.pipe([GOOD[0], STRANGE[name], GOOD[1]]))
    assert_same_predictions(predictions([docs[0], docs[2]]), alone, 1e-5)
    assert numpy.isclose(sum(docs[1].cats.values()), 1.0)
    for doc, found in zip(docs, vectors(nlp, docs)):
        assert found.shape[0] == len(doc) and numpy.isfinite(found).all()
        for token, vector in zip(doc, found):
            # Controls and what is not assigned are cleaned away by BERT's tokenizer, as white space is
            assert vector.any() or token.is_space or not any(c.isprintable() for c in token.text)


def test_docs_made_by_hand_with_odd_spaces_are_read(nlp: Language) -> None:
    words = ["where", " ", "is", "\n\n", "my", "order", "?"]
    docs = [
        Doc(nlp.vocab, words=words, spaces=spaces) for spaces in ([True] * 7, [False] * 7, [False, True] * 3 + [True])
    ]
    docs.append(Doc(nlp.vocab))
    for doc, found in zip(docs, vectors(nlp, list(nlp.pipe(docs)))):
        assert found.shape == (len(doc), 16)
        assert [bool(vector.any()) for vector in found] == [bool(token.text.strip()) for token in doc]
        assert set(doc.cats) == {"CANCEL", "TRACK"}


def test_empty_batches_are_nothing(nlp: Language) -> None:
    assert list(nlp.pipe([])) == []
    encoder = nlp.get_pipe("transformer")
    assert encoder.predict([]).doc_data == []  # type: ignore[attr-defined]
    assert nlp.update([], sgd=False) is not None
    for head in ("bert_textcat", "bert_ner", "bert_spans"):
        assert len(nlp.get_pipe(head).predict([])) == 0  # type: ignore[attr-defined]


def test_half_a_surrogate_pair_is_refused_by_spacy_and_the_next_batch_works(nlp: Language) -> None:
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        nlp("order \ud800")
    assert_same_predictions(predictions(nlp.pipe(GOOD)), predictions(nlp(text) for text in GOOD), 1e-5)
