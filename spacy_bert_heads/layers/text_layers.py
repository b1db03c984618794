"""thinc layers around the text modules: token vectors per Doc in, one vector per Doc out."""

from functools import partial
from typing import Any, Callable, List, Optional, Tuple, cast

import torch
from thinc.api import ArgsKwargs, Model
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch

from ..errors import BertHeadsError
from .head_layers import check_lstm_width, check_sizes, head_layer, pad, prepare, unpad
from .text_modules import LayerMix, VectorPooling, text_classifier
from .torch_shim import TorchShim


def text_head(body: str, nO: Optional[int], lr_scale: float, **settings: Any) -> Model[List[Floats2d], Floats2d]:
    """Token vectors, (n_tokens, nI) per Doc, to logits (n_docs, nO).

    body (str): Name of the network in text_modules.BODIES.
    lr_scale (float): See TorchShim.
    settings (Any): The network's sizes.
    RAISES (BertHeadsError): H214 if the LSTM's width cannot be split between two directions, H261 for a size below 1.
    """
    if "lstm_width" in settings:
        check_lstm_width(settings["lstm_width"])
    check_sizes(**settings)
    shim = TorchShim(text_classifier, lr_scale)
    return head_layer("text_classifier", _forward, shim, nO, {"body": body, **settings})


def vector_pooling(pooling: str, lr_scale: float) -> Model[List[Floats2d], Floats2d]:
    """Vectors, (n, width) per Doc, to one per Doc, (n_docs, width): zeros for a Doc without any.

    pooling (str): "mean", "max" or "attention".
    """
    init = partial(_init_pooling, pooling=pooling)
    return Model("vector_pooling", _forward, init=init, dims={"nO": None}, shims=[TorchShim(VectorPooling, lr_scale)])


def layer_mix(lr_scale: float) -> Model[List[Floats2d], Floats2d]:
    """Layers, (n, width) each, to their learned mean, (n, width). How many there are shows when it first runs."""
    return Model("layer_mix", _forward_mix, shims=[TorchShim(LayerMix, lr_scale)])


def _init_pooling(model: Model, X: Any = None, Y: Any = None, *, pooling: str) -> None:
    shim = cast(TorchShim, model.shims[0])
    if shim.module is None:
        shim.build(nI=model.get_dim("nO"), pooling=pooling)


def _forward(model: Model, X: List[Floats2d], is_train: bool) -> Tuple[Floats2d, Callable[[Floats2d], List[Floats2d]]]:
    shim = prepare(model, is_train)
    lengths = [len(Xi) for Xi in X]
    if not X:
        return model.ops.alloc2f(0, model.get_dim("nO")), lambda dY: []
    empty = torch.zeros((len(X), 1, X[0].shape[1]), device=shim.device)
    Xt = (pad(X, shim.device) if any(lengths) else empty).requires_grad_(is_train)
    Yt, bp_torch = shim(ArgsKwargs((Xt, torch.tensor(lengths).clamp(min=1)), {}), is_train)

    def backprop(dY: Floats2d) -> List[Floats2d]:
        d_inputs = bp_torch(ArgsKwargs((Yt,), {"grad_tensors": xp2torch(dY, device=shim.device)}))
        return unpad(d_inputs.args[0], lengths)

    return cast(Floats2d, torch2xp(Yt.detach())), backprop


def _forward_mix(
    model: Model, X: List[Floats2d], is_train: bool
) -> Tuple[Floats2d, Callable[[Floats2d], List[Floats2d]]]:
    shim = cast(TorchShim, model.shims[0])
    if shim.module is None:
        shim.build(n_layers=len(X))
    n_layers = len(shim.module.weights)
    if n_layers != len(X):
        raise BertHeadsError("H262", found=len(X), expected=n_layers)
    Xt = [xp2torch(Xi, requires_grad=is_train, device=shim.device) for Xi in X]
    Yt, bp_torch = shim(ArgsKwargs(tuple(Xt), {}), is_train)

    def backprop(dY: Floats2d) -> List[Floats2d]:
        d_inputs = bp_torch(ArgsKwargs((Yt,), {"grad_tensors": xp2torch(dY, device=shim.device)}))
        return [cast(Floats2d, torch2xp(dXi)) for dXi in d_inputs.args]

    return cast(Floats2d, torch2xp(Yt.detach())), backprop
