"""Learned vectors of n-grams of tokens, and a linear classifier over them, for networks with no BERT.

The n-grams that count are those that occur often enough in the training texts; every one has a row of its own. Hashed
ones would share theirs with others, and those that training never saw would be noise.
"""

from functools import partial
from typing import Any, Callable, Iterable, List, Optional, Tuple, cast

import numpy
from spacy.attrs import LOWER
from spacy.ml.staticvectors import StaticVectors
from spacy.tokens import Doc
from spacy.training.batchers import minibatch_by_words
from thinc.api import Embed, Model, NumpyOps, chain, concatenate, ragged2list, zero_init
from thinc.types import Floats2d, Ints1d

from ..layers.head_layers import check_sizes
from ..layers.length_groups import ends_of
from .encoder import check_word_dropout
from .head_on_vectors import set_n_labels

# The row of what is no n-gram of the vocabulary
UNKNOWN = 0
# A key that no n-gram has
NO_NGRAM = numpy.uint64(0)
# Tokens that are counted at a time
BATCH_SIZE = 1000000
# Model attributes: keys of the n-grams of 1, 2, ... tokens, sorted, None until they are learned; how often they occur
VOCABULARY = "vocabulary"
MIN_COUNT = "min_count"


def build_ngram_embed_v1(
    widths: List[int], min_count: int = 2, word_dropout: float = 0.0, include_static_vectors: bool = False
) -> Model[List[Doc], List[Floats2d]]:
    """Learned vectors of the n-grams that begin at a token, side by side: of the token itself, of it and the next one,
    and so on, in lower case. A tok2vec for networks without a BERT. Registered as spacy_bert_heads.NgramEmbed.v1.

    The components of this package learn the vocabulary from all training texts. Other components, and a corpus that is
    streamed (`max_epochs = -1`), show a model only a few texts: use spacy.MultiHashEmbed.v2 there.

    widths (List[int]): Width of the vectors of n-grams of 1, 2, ... tokens.
    min_count (int): How often an n-gram must occur in the training texts. All rarer ones share one vector.
    word_dropout (float): Share of the n-grams that training treats as rare ones.
    include_static_vectors (bool): Whether to append the vocabulary's static vectors, through a linear layer as wide as
        the first of `widths`.
    RETURNS (Model): Docs to vectors, float (n_tokens, sum of widths) per Doc.
    RAISES (BertHeadsError): H261 for a size below 1, H273 for a word_dropout below 0, of 1 or more.
    """
    check_sizes(widths=widths, min_count=min_count)
    check_word_dropout(word_dropout)
    embed: Model = Model(
        "ngram_embed",
        partial(_forward_embed, word_dropout=word_dropout),
        init=_init_embed,
        layers=[Embed(width) for width in widths],
        dims={"nO": sum(widths)},
        attrs={VOCABULARY: None, MIN_COUNT: min_count},
    )
    return concatenate(embed, chain(StaticVectors(widths[0]), ragged2list())) if include_static_vectors else embed


def build_bag_of_ngrams_v1(
    exclusive_classes: bool, ngram_size: int = 3, min_count: int = 2, nO: Optional[int] = None
) -> Model[List[Doc], Floats2d]:
    """A linear layer over the counts of n-grams, in lower case: fastText without its hidden layer. It learns its
    vocabulary like build_ngram_embed_v1. Registered as spacy_bert_heads.BagOfNgrams.v1.

    exclusive_classes (bool): Whether exactly one label is true. The component then uses softmax, otherwise sigmoid.
    ngram_size (int): Length of the longest n-grams in tokens; all shorter ones count too.
    min_count (int): How often an n-gram must occur in the training texts. Rarer ones are ignored.
    nO (Optional[int]): Number of labels, if known.
    RETURNS (Model): Docs to logits, float (n_docs, nO).
    RAISES (BertHeadsError): H261 for a size below 1.

    SOURCE: Joulin et al. (2017), Bag of Tricks for Efficient Text Classification.
    """
    check_sizes(ngram_size=ngram_size, min_count=min_count)
    return Model(
        "bag_of_ngrams",
        _forward_bag,
        init=_init_bag,
        layers=[Embed(initializer=zero_init) for _ in range(ngram_size)],
        dims={"nO": nO},
        params={"b": None},
        attrs={VOCABULARY: None, MIN_COUNT: min_count, "multi_label": not exclusive_classes},
    )


def learn_ngrams(model: Model, docs: Iterable[Doc]) -> None:
    """Give every model of this module inside a model its vocabulary; those that have one keep it.

    model (Model): A head, or any other model.
    docs (Iterable[Doc]): The training texts, as the pipeline's tokenizer splits them.
    """
    new = [node for node in model.walk() if node.attrs.get(VOCABULARY, ()) is None]
    if not new:
        return
    counted = _count(docs, max(len(node.layers) for node in new))
    for node in new:
        known = [keys[counts >= node.attrs[MIN_COUNT]] for keys, counts in counted[: len(node.layers)]]
        node.attrs[VOCABULARY] = known
        for table, keys in zip(node.layers, known):
            table.set_dim("nV", 1 + len(keys))


def _count(docs: Iterable[Doc], n_sizes: int) -> List[Tuple[numpy.ndarray, numpy.ndarray]]:
    """Keys of n-grams, sorted, and how often they occur, for each size from 1."""
    totals = [(numpy.empty(0, "uint64"), numpy.empty(0, "int64")) for _ in range(n_sizes)]
    for batch in minibatch_by_words(docs, BATCH_SIZE, get_length=len):
        for i, found in enumerate(_keys(batch, n_sizes)):
            keys, counts = totals[i]
            found = found[found != NO_NGRAM]
            unique, places = numpy.unique(numpy.concatenate([keys, found]), return_inverse=True)
            each = numpy.concatenate([counts, numpy.ones(len(found), "int64")])
            totals[i] = unique, numpy.bincount(places, each, len(unique)).astype("int64")
    return totals


def _keys(docs: List[Doc], n_sizes: int) -> List[numpy.ndarray]:
    """For each size from 1 the keys of the n-grams that begin at each token, NO_NGRAM where the text ends first.
    Uint64, (n_tokens of all Docs,).
    """
    tokens = numpy.concatenate([doc.to_array([LOWER]).astype("uint64") for doc in docs])
    lengths = [len(doc) for doc in docs]
    left = numpy.repeat(ends_of(lengths)[1:], lengths) - numpy.arange(len(tokens))
    keys = [tokens]
    for size in range(2, n_sizes + 1):
        ngrams = numpy.full_like(tokens, NO_NGRAM)
        if len(tokens) >= size:
            ngrams[: len(tokens) - size + 1] = NumpyOps().ngrams(size, tokens)
        keys.append(numpy.where(left >= size, ngrams, NO_NGRAM))
    return keys


def _rows(model: Model, docs: List[Doc]) -> List[numpy.ndarray]:
    """For each size the rows of the n-grams that begin at each token. Int64, (n_tokens of all Docs,)."""
    rows = []
    for known, keys in zip(model.attrs[VOCABULARY], _keys(docs, len(model.layers))):
        places = numpy.searchsorted(known, keys)
        found = numpy.append(known, NO_NGRAM)[places] == keys
        rows.append(numpy.where(found & (keys != NO_NGRAM), places + 1, UNKNOWN))
    return rows


def _forward_embed(
    model: Model, docs: List[Doc], is_train: bool, *, word_dropout: float
) -> Tuple[List[Floats2d], Callable[[List[Floats2d]], List]]:
    if not docs:
        return [], lambda dYs: []
    outputs = []
    for table, ids in zip(model.layers, _rows(model, docs)):
        if is_train and word_dropout:
            ids = numpy.where(numpy.random.random(len(ids)) < word_dropout, UNKNOWN, ids)
        outputs.append(table(model.ops.asarray1i(cast(Ints1d, ids)), is_train))
    lengths = model.ops.asarray1i([len(doc) for doc in docs])
    Y = model.ops.xp.concatenate([vectors for vectors, _ in outputs], axis=1)

    def backprop(dYs: List[Floats2d]) -> List:
        dY, start = model.ops.flatten(dYs), 0
        for vectors, backprop_table in outputs:
            backprop_table(model.ops.as_contig(dY[:, start : start + vectors.shape[1]]))
            start += vectors.shape[1]
        return []

    return cast(List[Floats2d], model.ops.unflatten(Y, lengths)), backprop


def _init_embed(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    learn_ngrams(model, X or ())
    for table in model.layers:
        table.initialize()


def _forward_bag(model: Model, docs: List[Doc], is_train: bool) -> Tuple[Floats2d, Callable[[Floats2d], List]]:
    ops = model.ops
    if not docs:
        return ops.alloc2f(0, model.get_dim("nO")), lambda dY: []
    owners = numpy.repeat(numpy.arange(len(docs)), [len(doc) for doc in docs])
    Y = cast(Floats2d, ops.alloc2f(len(docs), model.get_dim("nO")) + model.get_param("b"))
    backprops = []
    for table, ids in zip(model.layers, _rows(model, docs)):
        known = ids != UNKNOWN
        if not known.any():
            continue
        lengths = ops.asarray1i(cast(Ints1d, numpy.bincount(owners[known], minlength=len(docs))))
        vectors, backprop_table = table(ops.asarray1i(ids[known]), is_train)
        Y += ops.reduce_sum(vectors, lengths)
        backprops.append((lengths, backprop_table))

    def backprop(dY: Floats2d) -> List:
        model.inc_grad("b", dY.sum(axis=0))
        for lengths, backprop_table in backprops:
            backprop_table(ops.backprop_reduce_sum(dY, lengths))
        return []

    return Y, backprop


def _init_bag(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    set_n_labels(model, Y)
    learn_ngrams(model, X or ())
    for table in model.layers:
        table.set_dim("nO", model.get_dim("nO"))
        table.initialize()
    model.set_param("b", model.ops.alloc1f(model.get_dim("nO")))
