"""N-grams of tokens, compared with scikit-learn's counts of them."""

from collections import Counter
from typing import Dict, List, Tuple

import numpy
import pytest
import spacy
from sklearn.feature_extraction.text import CountVectorizer
from spacy.attrs import LOWER
from spacy.tokens import Doc
from thinc.api import Model, NumpyOps

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.models import ngrams
from spacy_bert_heads.models.ngrams import build_bag_of_ngrams_v1, build_ngram_embed_v1, learn_ngrams

from ..making import assert_close

NLP = spacy.blank("en")
TRAINING = ["Cancel my order", "cancel my my order now", "", "order", "where is my order"]
TEXTS = [*TRAINING, "MY order", "none of these", "cancel", "my my my"]
Gram = Tuple[str, ...]
every_size = pytest.mark.parametrize("size", [1, 2, 3])
every_count = pytest.mark.parametrize("min_count", [1, 2])


def make_docs(texts: List[str]) -> List[Doc]:
    return [NLP.make_doc(text) for text in texts]


def tokens_of(text: str) -> List[str]:
    return text.lower().split()


def fill(model: Model, docs: List[Doc]) -> None:
    """A vocabulary, and a different number everywhere."""
    learn_ngrams(model, docs)
    model.initialize()
    random = numpy.random.default_rng(0)
    for table in model.layers:
        table.set_param("E", random.normal(size=table.get_param("E").shape).astype("float32"))


def rows_of(model: Model) -> List[Dict[Gram, int]]:
    """For each size the row of every n-gram of the training texts that has one."""
    found: List[Dict[Gram, int]] = []
    for size, known in enumerate(model.attrs["vocabulary"], start=1):
        rows = {}
        for text in TRAINING:
            tokens = tokens_of(text)
            for gram in zip(*(tokens[i:] for i in range(size))):
                words = Doc(NLP.vocab, words=list(gram)).to_array([LOWER]).astype("uint64")
                key = words[0] if size == 1 else NumpyOps().ngrams(size, words)[0]
                if key in known:
                    rows[gram] = 1 + known.tolist().index(key)
        assert len(rows) == len(known)
        found.append(rows)
    return found


@every_size
@every_count
def test_a_bag_is_a_linear_layer_over_scikit_learns_counts(size: int, min_count: int) -> None:
    counter = CountVectorizer(tokenizer=tokens_of, token_pattern=None, ngram_range=(1, size))
    totals = counter.fit_transform(TRAINING).sum(axis=0).A1  # type: ignore[attr-defined]
    frequent = {gram for gram, column in counter.vocabulary_.items() if totals[column] >= min_count}
    model = build_bag_of_ngrams_v1(True, size, min_count, nO=3).initialize(X=make_docs(TRAINING))
    fill(model, make_docs(TRAINING))
    rows = rows_of(model)
    assert {" ".join(gram) for known in rows for gram in known} == frequent
    weights = numpy.zeros((len(counter.vocabulary_), 3))
    for table, known in zip(model.layers, rows):
        for gram, row in known.items():
            weights[counter.vocabulary_[" ".join(gram)]] = table.get_param("E")[row]
    bias = numpy.array([0.5, -1.0, 2.0], dtype="float32")
    model.set_param("b", bias)
    counts = counter.transform(TEXTS).toarray()
    Y, backprop = model(make_docs(TEXTS), is_train=True)
    assert_close(Y, counts @ weights + bias)
    dY = numpy.random.default_rng(1).normal(size=Y.shape).astype("float32")
    backprop(dY)
    assert_close(model.get_grad("b"), dY.sum(axis=0))
    expected = counts.T @ dY
    for table, known in zip(model.layers, rows):
        for gram, row in known.items():
            assert_close(table.get_grad("E")[row], expected[counter.vocabulary_[" ".join(gram)]])
        assert not known or not table.get_grad("E")[0].any()


@every_count
def test_a_token_has_the_vectors_of_the_ngrams_that_begin_at_it(min_count: int) -> None:
    widths = [4, 3, 2]
    model = build_ngram_embed_v1(widths, min_count)
    fill(model, make_docs(TRAINING))
    docs = make_docs(TEXTS)
    Ys, backprop = model(docs, is_train=True)
    dYs = [numpy.random.default_rng(len(Y)).normal(size=Y.shape).astype("float32") for Y in Ys]
    backprop(dYs)
    borders = numpy.cumsum([0, *widths])
    for size, (table, rows) in enumerate(zip(model.layers, rows_of(model)), start=1):
        columns = slice(borders[size - 1], borders[size])
        gradient = numpy.zeros_like(table.get_param("E"))
        for text, Y, dY in zip(TEXTS, Ys, dYs):
            tokens = tokens_of(text)
            assert Y.shape == (len(tokens), sum(widths))
            for i in range(len(tokens)):
                row = rows.get(tuple(tokens[i : i + size]), 0)
                assert_close(Y[i, columns], table.get_param("E")[row])
                gradient[row] += dY[i, columns]
        assert_close(table.get_grad("E"), gradient)


def test_counting_in_parts_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ngrams._count(make_docs(TEXTS), 2)
    monkeypatch.setattr(ngrams, "BATCH_SIZE", 5)
    for (keys, counts), (other_keys, other_counts) in zip(whole, ngrams._count(make_docs(TEXTS), 2)):
        assert keys.tolist() == other_keys.tolist()
        assert counts.tolist() == other_counts.tolist()
    tokens = Counter(token for text in TEXTS for token in tokens_of(text))
    assert {NLP.vocab.strings[key]: count for key, count in zip(*(a.tolist() for a in whole[0]))} == tokens


def test_a_vocabulary_is_learned_once_and_saved() -> None:
    model = build_bag_of_ngrams_v1(True, 2, 1, nO=2)
    fill(model, make_docs(TRAINING))
    learned = [keys.tolist() for keys in model.attrs["vocabulary"]]
    learn_ngrams(model, make_docs(["other words"]))
    assert [keys.tolist() for keys in model.attrs["vocabulary"]] == learned
    loaded = build_bag_of_ngrams_v1(True, 2, 1, nO=2).from_bytes(model.to_bytes())
    assert_close(loaded.predict(make_docs(TEXTS)), model.predict(make_docs(TEXTS)))


def test_a_model_alone_learns_from_the_texts_it_is_initialized_with() -> None:
    docs = make_docs(TEXTS)
    shown, blind = (build_ngram_embed_v1([2], 1).initialize(X=X) for X in (docs, None))
    assert len({tuple(vector) for Y in shown.predict(docs) for vector in Y.tolist()}) > 1
    assert len({tuple(vector) for Y in blind.predict(docs) for vector in Y.tolist()}) == 1
    assert shown.predict([]) == []
    assert [Y.shape for Y in shown.predict(make_docs(["", ""]))] == [(0, 2), (0, 2)]


def test_training_hides_a_share_of_the_ngrams() -> None:
    docs = make_docs(["my order"] * 2000)
    model = build_ngram_embed_v1([2, 2], 1, word_dropout=0.3)
    fill(model, docs)
    numpy.random.seed(0)
    Ys, _ = model(docs, is_train=True)
    for i, table in enumerate(model.layers):
        first = numpy.stack([Y[0, 2 * i : 2 * i + 2] for Y in Ys])
        hidden = (first == table.get_param("E")[0]).all(axis=1)
        assert 0.26 < hidden.mean() < 0.34
    assert len({tuple(Y[0].tolist()) for Y in model.predict(docs)}) == 1
    for share in (-0.1, 1.0):
        with pytest.raises(BertHeadsError, match="H273"):
            build_ngram_embed_v1([2], word_dropout=share)


@pytest.mark.parametrize("widths, min_count", [([], 1), ([4, 0], 1), ([4], 0)])
def test_vectors_of_no_width_are_refused(widths: List[int], min_count: int) -> None:
    with pytest.raises(BertHeadsError, match="H261"):
        build_ngram_embed_v1(widths, min_count)


@pytest.mark.parametrize("size, min_count", [(0, 1), (1, 0)])
def test_bags_of_nothing_are_refused(size: int, min_count: int) -> None:
    with pytest.raises(BertHeadsError, match="H261"):
        build_bag_of_ngrams_v1(True, size, min_count)
