"""What heads listen to: the encoder's outputs as token vectors or as one pooled vector per Doc.

Each head has one such layer, at `model.tok2vec`. Its source is a listener, which hears a shared encoder earlier in
the pipeline, or a private encoder. `nlp.replace_listeners` turns the one into the other.
"""

from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple, cast

import numpy
from spacy.attrs import LENGTH
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData
from spacy_transformers.layers import TransformerListener, trfs2arrays
from thinc.api import Model, chain
from thinc.types import Floats2d, Ragged

from ..defaults import HEAD_LR_SCALE
from ..errors import BertHeadsError
from .pooling import Source, cls_as_pooled, gradient, init_width, mixed_layers, pooled_pieces

# Of a token's wordpieces, of a Doc, and of the [CLS] of a Doc's windows
POOLINGS = ("first", "mean", "last")
DOC_POOLINGS = ("pooler", "cls", "mean", "max", "attention")
WINDOW_POOLINGS = ("mean", "first", "max")
TRANSFORMER_LISTENER = "spacy-transformers.TransformerListener.v1"
# Listener architectures and their counterparts with an encoder of their own
PRIVATE_FORMS = {
    "spacy_bert_heads.TokenListener.v1": "spacy_bert_heads.TokenVectors.v1",
    "spacy_bert_heads.PooledListener.v1": "spacy_bert_heads.PooledVectors.v1",
    TRANSFORMER_LISTENER: "spacy_bert_heads.TransformerVectors.v1",
}


class EncoderListener(TransformerListener):
    """Hears a `bert_encoder` earlier in the pipeline. Unlike spacy-transformers' listener it never makes up zeros
    for an encoder that did not run.
    """

    name = "bert-listener"

    def __init__(self, upstream_name: str, *, reads_tokens: bool = True) -> None:
        """upstream_name (str): Name of the encoder component, or "*".
        reads_tokens (bool): Whether vectors go to tokens, which must then be those that the encoder read.
        """
        super().__init__(upstream_name)
        # Bound here, for a copy of a model is a plain one with the same function
        self._func = partial(_listen, reads_tokens=reads_tokens)


def build_token_listener_v1(
    pooling: str = "first",
    layer_mix: bool = False,
    lr_scale: float = HEAD_LR_SCALE,
    grad_factor: float = 1.0,
    upstream: str = "*",
) -> Model[List[Doc], List[Floats2d]]:
    """Token vectors from the shared encoder. Registered as spacy_bert_heads.TokenListener.v1.

    pooling (str): A token's vector is that of its "first" or "last" wordpiece, or the "mean" of all. Tokens
        without a wordpiece, such as white space, get zeros.
    layer_mix (bool): Whether to read a learned mix of embeddings and all layers in place of the last layer. The
        encoder needs hidden_states = true.
    lr_scale (float): Multiplies the learning rate of the layer mix, which is learned here.
    grad_factor (float): Multiplies the gradients this head sends to the encoder; 0 sends none.
    upstream (str): Name of the encoder component, or "*" for whichever there is.
    RETURNS (Model): Docs to one array per Doc, float (n_tokens, width).
    RAISES (BertHeadsError): H211 for an unknown pooling.
    """
    return token_vectors(EncoderListener(upstream, reads_tokens=True), pooling, grad_factor, layer_mix, lr_scale)


def build_pooled_listener_v1(
    pooling: str = "pooler",
    windows: str = "mean",
    layer_mix: bool = False,
    lr_scale: float = HEAD_LR_SCALE,
    grad_factor: float = 1.0,
    upstream: str = "*",
) -> Model[List[Doc], Floats2d]:
    """One vector per Doc from the shared encoder. Registered as spacy_bert_heads.PooledListener.v1.

    pooling (str): "pooler": [CLS] through BERT's own dense layer and tanh; untrained in some encoders, such as
        roberta-base. "cls": [CLS] as it stands. "mean", "max", "attention" (a mean weighted by a learned query): of
        the Doc's wordpieces, without special tokens and padding.
    windows (str): How the vectors of several windows of a Doc become one, with "pooler" and "cls": their "mean", the
        "first", or the "max" of each component. The other poolings read the wordpieces of all windows.
    layer_mix (bool): Whether to read a learned mix of embeddings and all layers in place of the last layer. The
        encoder needs hidden_states = true. Not for "pooler", which exists for the last layer only.
    lr_scale (float): Multiplies the learning rate of the layer mix and the attention, which are learned here.
    grad_factor, upstream: see build_token_listener_v1.
    RETURNS (Model): Docs to one vector per Doc, float (n_docs, width).
    RAISES (BertHeadsError): H211 for an unknown pooling, H237 for an unknown way to combine windows, H263 for a
        layer mix with "pooler".
    """
    source = EncoderListener(upstream, reads_tokens=False)
    return pooled_vectors(source, windows, grad_factor, pooling, layer_mix, lr_scale)


def build_token_vectors_v1(
    encoder: Model[List[Doc], FullTransformerBatch],
    pooling: str = "first",
    layer_mix: bool = False,
    lr_scale: float = HEAD_LR_SCALE,
    grad_factor: float = 1.0,
) -> Model[List[Doc], List[Floats2d]]:
    """Token vectors from an encoder of the head's own. Registered as spacy_bert_heads.TokenVectors.v1.

    encoder (Model): spacy_bert_heads.BertEncoder.v1 or spacy_bert_heads.BertFromScratch.v1.

    Other settings: see build_token_listener_v1.
    """
    return token_vectors(replace_listener(encoder), pooling, grad_factor, layer_mix, lr_scale)


def build_pooled_vectors_v1(
    encoder: Model[List[Doc], FullTransformerBatch],
    pooling: str = "pooler",
    windows: str = "mean",
    layer_mix: bool = False,
    lr_scale: float = HEAD_LR_SCALE,
    grad_factor: float = 1.0,
) -> Model[List[Doc], Floats2d]:
    """One vector per Doc from an encoder of the head's own. Registered as spacy_bert_heads.PooledVectors.v1.

    encoder (Model): spacy_bert_heads.BertEncoder.v1 or spacy_bert_heads.BertFromScratch.v1.

    Other settings: see build_pooled_listener_v1.
    """
    return pooled_vectors(replace_listener(encoder), windows, grad_factor, pooling, layer_mix, lr_scale)


def build_transformer_vectors_v1(
    encoder: Model[List[Doc], FullTransformerBatch], pooling: Model[Ragged, Floats2d], grad_factor: float = 1.0
) -> Model[List[Doc], List[Floats2d]]:
    """What a spacy-transformers listener becomes when `nlp.replace_listeners` gives its component an encoder of its
    own. Registered as spacy_bert_heads.TransformerVectors.v1.

    encoder (Model): spacy_bert_heads.BertEncoder.v1 or spacy_bert_heads.BertFromScratch.v1.
    pooling (Model): A thinc reduction, as in spacy-transformers.TransformerListener.v1.
    grad_factor: see build_token_listener_v1.
    """
    return chain(replace_listener(encoder), trfs2arrays(pooling, grad_factor))


def replace_listener(encoder: Model[List[Doc], FullTransformerBatch]) -> Source:
    """A private encoder in the form a listener has: Docs to one TransformerData per Doc."""
    return Model("private_encoder", _run_private, init=_init_private, layers=[encoder], dims={"nO": None})


def replace_listener_cfg(encoder_cfg: Dict[str, Any], listener_cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The config of a listener's counterpart with an encoder of its own."""
    settings = {key: value for key, value in listener_cfg.items() if key != "upstream"}
    settings["@architectures"] = PRIVATE_FORMS[listener_cfg["@architectures"]]
    return {**settings, "encoder": encoder_cfg}


def token_vectors(
    source: Source, pooling: str, grad_factor: float, layer_mix: bool = False, lr_scale: float = 1.0
) -> Model[List[Doc], List[Floats2d]]:
    """Layer from TransformerData to token vectors; see build_token_listener_v1.

    Settings are bound to the function, not kept as attributes, which a loaded model would bring along over the config.
    """
    if pooling not in POOLINGS:
        raise BertHeadsError("H211", found=pooling, expected=", ".join(POOLINGS))
    if layer_mix:
        source, grad_factor = mixed_layers(source, grad_factor, lr_scale), 1.0
    forward = partial(_forward_tokens, pooling=pooling, grad_factor=grad_factor)
    return Model("token_vectors", forward, init=init_width, layers=[source], dims={"nO": None})


def pooled_vectors(
    source: Source,
    windows: str,
    grad_factor: float,
    pooling: str = "pooler",
    layer_mix: bool = False,
    lr_scale: float = 1.0,
) -> Model[List[Doc], Floats2d]:
    """Layer from TransformerData to pooled vectors; see build_pooled_listener_v1."""
    if pooling not in DOC_POOLINGS:
        raise BertHeadsError("H211", found=pooling, expected=", ".join(DOC_POOLINGS))
    if windows not in WINDOW_POOLINGS:
        raise BertHeadsError("H237", found=windows, expected=", ".join(WINDOW_POOLINGS))
    if layer_mix and pooling == "pooler":
        raise BertHeadsError("H263", expected=", ".join(DOC_POOLINGS[1:]))
    if layer_mix:
        source, grad_factor = mixed_layers(source, grad_factor, lr_scale), 1.0
    if pooling == "cls":
        source = cls_as_pooled(source)
    elif pooling != "pooler":
        return pooled_pieces(source, pooling, grad_factor, lr_scale)
    forward = partial(_forward_pooled, windows=windows, grad_factor=grad_factor)
    return Model("pooled_vectors", forward, init=init_width, layers=[source], dims={"nO": None})


def _forward_tokens(
    model: Model, docs: List[Doc], is_train: bool, *, pooling: str, grad_factor: float
) -> Tuple[List[Floats2d], Callable[[List[Floats2d]], Any]]:
    """All Docs in one gather: their outputs are laid end to end, their tokens too."""
    ops: Any = model.ops
    width = _width(model)
    trf_data, bp_source = model.layers[0](docs, is_train)
    if not trf_data:
        return [], lambda dY: bp_source([])
    outputs = [data.model_output.last_hidden_state for data in trf_data]
    first_row = numpy.cumsum([0, *(output.shape[0] * output.shape[1] for output in outputs)])
    flat = [output.reshape(-1, width) for output in outputs]
    # Not copied where there is one only, which may be that of a long Doc
    X = flat[0] if len(flat) == 1 else ops.xp.concatenate(flat)
    lengths = numpy.concatenate([data.align.lengths for data in trf_data])
    # The rows of X that each token reads; tokens without any, such as white space, are left out
    n_pairs = [len(data.align.dataXd) for data in trf_data]
    rows = numpy.concatenate([data.align.dataXd for data in trf_data]) + numpy.repeat(first_row[:-1], n_pairs)
    tokens = numpy.flatnonzero(lengths)
    ends = numpy.cumsum(lengths)[tokens]
    if pooling == "first":
        rows = rows[ends - lengths[tokens]]
    elif pooling == "last":
        rows = rows[ends - 1]
    rows, tokens = ops.asarray1i(rows.astype("int32")), ops.asarray1i(tokens.astype("int32"))
    runs = ops.asarray1i(lengths[lengths > 0].astype("int32"))
    if pooling == "mean":
        means = ops.reduce_mean(X[rows], runs)
        Y = _gather(ops, means, ops.xp.arange(len(means)), tokens, len(lengths))
    else:
        Y = _gather(ops, X, rows, tokens, len(lengths))
    first_token = numpy.cumsum([0, *(len(data.align.lengths) for data in trf_data)])

    def backprop(dY: List[Any]) -> Any:
        d_vectors = ops.xp.concatenate(dY)[tokens] * grad_factor
        if pooling == "mean":
            d_vectors = ops.backprop_reduce_mean(d_vectors, runs)
        dX = ops.alloc2f(len(X), width)
        ops.scatter_add(dX, rows, d_vectors)
        d_outputs = _split(dX, first_row)
        return bp_source(
            [
                gradient(data, last_hidden_state=d_output.reshape(output.shape))
                for data, output, d_output in zip(trf_data, outputs, d_outputs)
            ]
        )

    return _split(Y, first_token), backprop


def _gather(ops: Any, X: Any, rows: Any, tokens: Any, n_tokens: int) -> Any:
    """RETURNS (Any): Some rows of X at tokens, zeros at all others, in one copy. Float, (n_tokens, width)."""
    if len(tokens) == n_tokens:
        return X[rows]
    if not len(tokens):  # then X may be empty
        return ops.alloc2f(n_tokens, X.shape[1])
    everywhere, missing = ops.alloc1i(n_tokens), ops.xp.ones(n_tokens, dtype=bool)
    everywhere[tokens], missing[tokens] = rows, False
    Y = X[everywhere]
    Y[missing] = 0.0
    return Y


def _forward_pooled(
    model: Model, docs: List[Doc], is_train: bool, *, windows: str, grad_factor: float
) -> Tuple[Floats2d, Callable[[Floats2d], Any]]:
    ops: Any = model.ops
    trf_data, bp_source = model.layers[0](docs, is_train)
    if not trf_data:
        return ops.alloc2f(0, _width(model)), lambda dY: bp_source([])
    outputs = [data.model_output.pooler_output for data in trf_data]
    first_window = numpy.cumsum([0, *(len(output) for output in outputs)])
    runs = ops.asarray1i(numpy.diff(first_window).astype("int32"))
    X = ops.xp.concatenate(outputs)
    which: Any = None
    if windows == "mean":
        Y = ops.reduce_mean(X, runs)
    elif windows == "max":
        Y, which = ops.reduce_max(X, runs)
    else:
        Y = X[ops.asarray1i(first_window[:-1].astype("int32"))]

    def backprop(dY: Floats2d) -> Any:
        dY = dY * grad_factor
        if windows == "mean":
            dX = ops.backprop_reduce_mean(dY, runs)
        elif windows == "max":
            dX = ops.backprop_reduce_max(dY, which, runs)
        else:
            dX = ops.alloc2f(len(X), dY.shape[1])
            dX[ops.asarray1i(first_window[:-1].astype("int32"))] = dY
        d_outputs = _split(dX, first_window)
        return bp_source([gradient(data, pooler_output=d_output) for data, d_output in zip(trf_data, d_outputs)])

    return cast(Floats2d, Y), backprop


def _split(array: Any, ends: Any) -> List[Any]:
    return [array[start:stop] for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist())]


def _width(model: Model) -> int:
    if not model.has_dim("nO"):
        raise BertHeadsError("H215", found=model.name)
    return model.get_dim("nO")


def _listen(
    model: EncoderListener, docs: List[Doc], is_train: bool, *, reads_tokens: bool
) -> Tuple[List[TransformerData], Callable[[List[TransformerData]], Any]]:
    """Outputs the encoder sent for this batch in training, or left on the Docs.

    RAISES (BertHeadsError): H213 if there are none, because the encoder is missing, disabled, or frozen without
        being among the annotating components; H238 if tokens were merged or split since the encoder read them.
    """
    if is_train and model._batch_id is not None:
        _check_tokens(docs, model._outputs or [])
        model.verify_inputs(docs)
        return cast(List[TransformerData], model._outputs), model.backprop_and_clear
    outputs = [doc._.trf_data for doc in docs]
    if any(output is None for output in outputs):
        raise BertHeadsError("H213", found=model.upstream_name)
    if reads_tokens:
        _check_tokens(docs, outputs)
    return outputs, lambda d_outputs: []


def _check_tokens(docs: List[Doc], outputs: List[TransformerData]) -> None:
    """Outputs that were stored and loaded say only how many tokens there were."""
    for doc, data in zip(docs, outputs):
        then = getattr(data, "token_lengths", None)
        same = len(doc) == len(data.align.lengths)
        if not same or (then is not None and not numpy.array_equal(then, doc.to_array([LENGTH]))):
            expected = len(data.align.lengths)
            raise BertHeadsError("H238", found=len(doc), expected=expected, text=doc.text[:40])


def _run_private(
    model: Model, docs: List[Doc], is_train: bool
) -> Tuple[List[TransformerData], Callable[[List[TransformerData]], Any]]:
    batch, backprop = model.layers[0](docs, is_train)
    return batch.doc_data, backprop


def _init_private(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    encoder = model.layers[0]
    encoder.initialize(X)
    model.set_dim("nO", encoder.get_dim("nO"))
