"""Text classifiers over token vectors of any origin: BERT's, a tok2vec of spaCy's, plain embeddings.

The same network is "bert_CNN" on a TokenListener and "TextCNN" on spacy.MultiHashEmbed.v2.
"""

from functools import partial
from typing import Any, Callable, List, Optional, Tuple, cast

import numpy
from spacy.attrs import ORTH
from spacy.ml.staticvectors import StaticVectors
from spacy.tokens import Doc
from thinc.api import (
    HashEmbed,
    Model,
    NumpyOps,
    SparseLinear_v2,
    chain,
    concatenate,
    list2ragged,
    ragged2list,
    with_array,
    with_cpu,
)
from thinc.types import Floats2d, Ints2d

from ..errors import BertHeadsError
from ..layers.text_heads import text_head
from .encoder import is_encoder
from .heads import forward_tokens, init
from .listeners import replace_listener, token_vectors


def build_text_cnn_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    kernels: List[int] = [2, 3, 4],  # noqa: B006 (never changed; a tuple does not survive a config file)
    filters: int = 256,
    lr_scale: float = 20.0,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """Convolutions and the largest value of each filter. Registered as spacy_bert_heads.TextCNN.v1.

    tok2vec (Model): Token vectors: spacy_bert_heads.TokenListener.v1, any tok2vec of spaCy's, or an encoder of the
        head's own: an encoder architecture, or spacy_bert_heads.TokenVectors.v1 around one.
    exclusive_classes (bool): Whether exactly one label is true. The component reads it: softmax or sigmoid.
    kernels (List[int]): Tokens each kernel spans.
    filters (int): Filters of each kernel.
    lr_scale (float): Multiplies the learning rate for this head, BERT's own rate being too low. 1 over embeddings.
    nO (Optional[int]): Number of labels, if known.
    RETURNS (Model): Docs to logits, float (n_docs, nO). A text shorter than a kernel is followed by zeros.
    RAISES (BertHeadsError): H261 for a size below 1.
    """
    return _text_model(tok2vec, "cnn", exclusive_classes, nO, lr_scale, kernels=kernels, filters=filters)


def build_text_rnn_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    lstm_width: int = 256,
    lstm_depth: int = 2,
    lr_scale: float = 20.0,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """The last states of a BiLSTM. Registered as spacy_bert_heads.TextRNN.v1.

    lstm_width (int): Width of the BiLSTM's output, both directions together, so even.
    lstm_depth (int): Layers of the BiLSTM.
    tok2vec, exclusive_classes, lr_scale, nO: see build_text_cnn_v1.
    RAISES (BertHeadsError): H214 for an odd width, H261 for a size below 1.
    """
    sizes = {"lstm_width": lstm_width, "lstm_depth": lstm_depth}
    return _text_model(tok2vec, "rnn", exclusive_classes, nO, lr_scale, **sizes)


def build_text_rnn_attention_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    lstm_width: int = 256,
    lstm_depth: int = 2,
    lr_scale: float = 20.0,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """A BiLSTM's states, weighted by attention. Registered as spacy_bert_heads.TextRNNAttention.v1.

    Arguments as for build_text_rnn_v1.
    """
    sizes = {"lstm_width": lstm_width, "lstm_depth": lstm_depth}
    return _text_model(tok2vec, "rnn_attention", exclusive_classes, nO, lr_scale, **sizes)


def build_text_rcnn_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    lstm_width: int = 512,
    lstm_depth: int = 1,
    hidden_width: int = 256,
    lr_scale: float = 20.0,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """A BiLSTM beside its input, a dense layer, the largest value of each unit. Registered as
    spacy_bert_heads.TextRCNN.v1.

    hidden_width (int): Width of the dense layer.
    Other arguments as for build_text_rnn_v1.
    """
    sizes = {"lstm_width": lstm_width, "lstm_depth": lstm_depth, "hidden_width": hidden_width}
    return _text_model(tok2vec, "rcnn", exclusive_classes, nO, lr_scale, **sizes)


def build_dpcnn_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    filters: int = 250,
    depth: int = 4,
    lr_scale: float = 20.0,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """A pyramid of convolutions. Registered as spacy_bert_heads.DPCNN.v1.

    filters (int): Filters of every convolution.
    depth (int): Blocks that halve the text.
    tok2vec, exclusive_classes, lr_scale, nO: see build_text_cnn_v1.
    RAISES (BertHeadsError): H261 for no filters or a negative depth.
    """
    return _text_model(tok2vec, "dpcnn", exclusive_classes, nO, lr_scale, filters=filters, depth=depth)


def build_ngram_embed_v1(
    widths: List[int], rows: List[int], include_static_vectors: bool = False
) -> Model[List[Doc], List[Floats2d]]:
    """Learned vectors of the n-grams that begin at a token, side by side: of the token itself, of it and the next one,
    and so on. A tok2vec for networks with no BERT. Registered as spacy_bert_heads.NgramEmbed.v1.

    widths (List[int]): Width of the vectors of n-grams of 1, 2, ... tokens.
    rows (List[int]): Rows of their tables. An n-gram is hashed to four, so there may be more n-grams than rows.
    include_static_vectors (bool): Whether to put a linear layer over the vocabulary's vectors beside them, as wide as
        the first.
    RETURNS (Model): Docs to vectors, float (n_tokens, sum of widths) per Doc.
    RAISES (BertHeadsError): H261 for a size below 1, H266 for unequal numbers of sizes.
    """
    for name, sizes in (("widths", widths), ("rows", rows)):
        if not sizes or min(sizes) < 1:
            raise BertHeadsError("H261", found=sizes, name=name)
    if len(rows) != len(widths):
        raise BertHeadsError("H266", found=rows, expected=widths)
    tables: List[Model] = [HashEmbed(width, n, column=i, seed=i) for i, (width, n) in enumerate(zip(widths, rows))]
    ngrams: Model = Model("ngrams", partial(_forward_ngrams, ngram_size=len(widths)))
    embed: Model = chain(ngrams, list2ragged(), with_array(concatenate(*tables)))
    if include_static_vectors:
        embed = concatenate(embed, StaticVectors(widths[0]))
    return chain(embed, ragged2list())


def _forward_ngrams(
    model: Model, docs: List[Doc], is_train: bool, *, ngram_size: int
) -> Tuple[List[Ints2d], Callable[[Any], List]]:
    """Keys of the n-grams that begin at each token; zeros follow the last one. Uint64, (n_tokens, ngram_size)."""
    ops = NumpyOps()
    keys: List[Ints2d] = []
    for doc in docs:
        tokens = numpy.concatenate([doc.to_array([ORTH]).astype("uint64"), numpy.zeros(ngram_size - 1, "uint64")])
        columns = [tokens, *(ops.ngrams(n, tokens) for n in range(2, ngram_size + 1))]
        stacked = numpy.stack([column[: len(doc)] for column in columns], axis=1)
        keys.append(model.ops.asarray2i(cast(Ints2d, stacked), dtype="uint64"))
    return keys, lambda dY: []


def build_bag_of_ngrams_v1(
    exclusive_classes: bool, ngram_size: int = 3, length: int = 262144, nO: Optional[int] = None
) -> Model[List[Doc], Floats2d]:
    """A linear layer over hashed n-grams of tokens, as spaCy's spacy.TextCatBOW.v3, which knows no empty Docs: what
    fastText computes, without the narrow layer between n-grams and labels. Registered as
    spacy_bert_heads.BagOfNgrams.v1.

    exclusive_classes, nO: see build_text_cnn_v1.
    ngram_size (int): Tokens of the longest n-grams; all shorter ones count too.
    length (int): Rows of the table that n-grams are hashed into. It stays in main memory.
    RAISES (BertHeadsError): H261 for a size below 1.

    SOURCE: Joulin et al. (2017), Bag of Tricks for Efficient Text Classification; the layer is thinc's SparseLinear.
    """
    for name, value in (("ngram_size", ngram_size), ("length", length)):
        if value < 1:
            raise BertHeadsError("H261", found=value, name=name)
    linear = SparseLinear_v2(nO=nO, length=length)
    bag = with_cpu(linear, linear.ops)
    forward = partial(_forward_bag, ngram_size=ngram_size)
    model: Model = Model("bag_of_ngrams", forward, init=_init_bag, layers=[bag], dims={"nO": nO})
    model.set_ref("output_layer", linear)
    model.attrs["multi_label"] = not exclusive_classes
    return model


def _forward_bag(
    model: Model, docs: List[Doc], is_train: bool, *, ngram_size: int
) -> Tuple[Floats2d, Callable[[Floats2d], Any]]:
    if not docs:
        return model.ops.alloc2f(0, model.get_dim("nO")), lambda dY: []
    ops = NumpyOps()
    counted = []
    for doc in docs:
        tokens = doc.to_array([ORTH]).astype("uint64")
        ngrams = [tokens, *(ops.ngrams(n, tokens) for n in range(2, ngram_size + 1) if len(tokens) >= n)]
        counted.append(numpy.unique(numpy.concatenate(ngrams), return_counts=True))
    keys = numpy.concatenate([keys for keys, _ in counted])
    counts = numpy.concatenate([counts for _, counts in counted]).astype("float32")
    return model.layers[0]((keys, counts, numpy.array([len(keys) for keys, _ in counted], dtype="int32")), is_train)


def _init_bag(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    if model.has_dim("nO") is None and Y is not None:
        model.set_dim("nO", Y.shape[1])
    linear = model.get_ref("output_layer")
    linear.set_dim("nO", model.get_dim("nO"))
    linear.initialize()


def _text_model(
    tok2vec: Model, body: str, exclusive_classes: bool, nO: Optional[int], lr_scale: float, **sizes: Any
) -> Model[List[Doc], Floats2d]:
    if is_encoder(tok2vec):
        tok2vec = token_vectors(replace_listener(tok2vec), pooling="first", grad_factor=1.0)
    head = text_head(body, nO, lr_scale, **sizes)
    model: Model = Model(f"text_{body}", forward_tokens, init=init, layers=[tok2vec, head], dims={"nO": nO})
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("output_layer", head)
    model.attrs["multi_label"] = not exclusive_classes
    return model
