"""Other views of the encoder's output, for a head to read: layers mixed, [CLS] without BERT's pooler,
wordpieces pooled. What a head learns here is its own; gradients go back under the names of what was used.
"""

from functools import partial
from typing import Any, Callable, List, Optional, Tuple

import numpy
from spacy.tokens import Doc
from spacy_transformers.data_classes import TransformerData
from spacy_transformers.layers import TransformerListener
from thinc.api import Model
from thinc.types import Floats2d
from transformers.file_utils import ModelOutput

from ..errors import BertHeadsError
from ..layers.text_layers import layer_mix, vector_pooling

# Whatever gives the encoder's outputs: a listener, a private encoder, or a view of either
Source = Model[List[Doc], List[TransformerData]]


def mixed_layers(source: Source, grad_factor: float, lr_scale: float) -> Source:
    """`last_hidden_state` is a learned mix of embeddings and all layers. Its gradient reaches each by its share.

    grad_factor (float): Multiplies the gradients that are passed to the encoder; the mix itself learns in any case.
    lr_scale (float): Multiplies the learning rate for the mix.
    """
    forward = partial(_forward_mixed, grad_factor=grad_factor)
    return Model("mixed_layers", forward, init=init_width, layers=[source, layer_mix(lr_scale)], dims={"nO": None})


def cls_as_pooled(source: Source) -> Source:
    """`pooler_output` is the vector of [CLS] as it stands, without BERT's dense layer and tanh."""
    return Model("cls_as_pooled", _forward_cls, init=init_width, layers=[source], dims={"nO": None})


def pooled_pieces(source: Source, pooling: str, grad_factor: float, lr_scale: float) -> Model[List[Doc], Floats2d]:
    """One vector per Doc of its wordpieces, special tokens and padding left out.

    Each wordpiece of a token counts once, from the window in which it has most context. A wordpiece that two tokens
    share may be read in two windows, and then counts in both. A Doc without wordpieces gets zeros.

    pooling (str): "mean", "max" or "attention".
    """
    forward = partial(_forward_pieces, grad_factor=grad_factor)
    layers: List[Model] = [source, vector_pooling(pooling, lr_scale)]
    return Model("pooled_vectors", forward, init=_init_pieces, layers=layers, dims={"nO": None})


def gradient(data: TransformerData, **named: Any) -> TransformerData:
    """Gradients by name, in the wrapping that listeners send upstream."""
    return TransformerData(model_output=ModelOutput(named), wordpieces=data.wordpieces, align=data.align)


def init_width(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    """thinc's hook: initialise the source, and take its width.

    RAISES (BertHeadsError): H212 if it has none, because there is no encoder.
    """
    source = model.layers[0]
    source.initialize(X)
    if not source.has_dim("nO"):
        raise BertHeadsError("H212", found=source.upstream_name if isinstance(source, TransformerListener) else "*")
    model.set_dim("nO", source.get_dim("nO"))


def _init_pieces(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    init_width(model, X)
    model.layers[1].set_dim("nO", model.get_dim("nO"))
    model.layers[1].initialize()


def _forward_mixed(
    model: Model, docs: List[Doc], is_train: bool, *, grad_factor: float
) -> Tuple[List[TransformerData], Callable[[List[TransformerData]], Any]]:
    xp = model.ops.xp
    source, mix = model.layers
    trf_data, bp_source = source(docs, is_train)
    if not trf_data:
        return [], bp_source
    if any(data.model_output.get("hidden_states") is None for data in trf_data):
        raise BertHeadsError("H260")
    shapes = [data.model_output.hidden_states[0].shape for data in trf_data]
    ends = numpy.cumsum([shape[0] * shape[1] for shape in shapes]).tolist()

    def join(arrays: List[Any]) -> Any:
        return xp.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays])

    def part(rows: Any) -> List[Any]:
        return [rows[end - s[0] * s[1] : end].reshape(s) for s, end in zip(shapes, ends)]

    layers = [join(list(layer)) for layer in zip(*(data.model_output.hidden_states for data in trf_data))]
    mixed, bp_mix = mix(layers, is_train)

    def backprop(d_trf_data: List[TransformerData]) -> Any:
        d_layers = bp_mix(join([d_data.model_output["last_hidden_state"] for d_data in d_trf_data]))
        per_doc = zip(*(part(d_layer * grad_factor) for d_layer in d_layers))
        return bp_source([gradient(data, hidden_states=list(ds)) for data, ds in zip(trf_data, per_doc)])

    views = [
        TransformerData(d.wordpieces, ModelOutput(last_hidden_state=m), d.align) for d, m in zip(trf_data, part(mixed))
    ]
    return views, backprop


def _forward_cls(
    model: Model, docs: List[Doc], is_train: bool
) -> Tuple[List[TransformerData], Callable[[List[TransformerData]], Any]]:
    trf_data, bp_source = model.layers[0](docs, is_train)
    views = []
    for data in trf_data:
        cls = data.model_output.last_hidden_state[:, 0]
        views.append(TransformerData(data.wordpieces, ModelOutput(pooler_output=cls), data.align))

    def backprop(d_trf_data: List[TransformerData]) -> Any:
        gradients = []
        for data, d_data in zip(trf_data, d_trf_data):
            d_last = model.ops.xp.zeros_like(data.model_output.last_hidden_state)
            d_last[:, 0] = d_data.model_output["pooler_output"]
            gradients.append(gradient(data, last_hidden_state=d_last))
        return bp_source(gradients)

    return views, backprop


def _forward_pieces(
    model: Model, docs: List[Doc], is_train: bool, *, grad_factor: float
) -> Tuple[Floats2d, Callable[[Floats2d], Any]]:
    source, pooling = model.layers
    if not model.has_dim("nO"):
        raise BertHeadsError("H215", found=model.name)
    width = model.get_dim("nO")
    trf_data, bp_source = source(docs, is_train)
    ops: Any = model.ops
    rows = [ops.asarray1i(numpy.unique(data.align.dataXd)) for data in trf_data]
    vectors = [data.model_output.last_hidden_state.reshape(-1, width)[row] for data, row in zip(trf_data, rows)]
    Y, bp_pooling = pooling(vectors, is_train)

    def backprop(dY: Floats2d) -> Any:
        gradients = []
        for data, row, d_vectors in zip(trf_data, rows, bp_pooling(dY)):
            d_last = model.ops.xp.zeros_like(data.model_output.last_hidden_state)
            d_last.reshape(-1, width)[row] = d_vectors * grad_factor
            gradients.append(gradient(data, last_hidden_state=d_last))
        return bp_source(gradients)

    return Y, backprop
