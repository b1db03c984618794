"""thinc layers around the heads' torch modules: arrays in, arrays out."""

from functools import partial
from typing import Any, Callable, List, Optional, Tuple, cast

import numpy
import torch
from thinc.api import ArgsKwargs, Model, get_array_module
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch

from ..errors import BertHeadsError
from .head_modules import Classifier, SequenceTagger
from .precision import AUTOCAST_TYPES, check_precision, resolve_precision
from .torch_shim import TorchShim


def classifier(
    nO: Optional[int], lr_scale: float, dropout_samples: int = 1, standardize: bool = False
) -> Model[Floats2d, Floats2d]:
    """Vectors (n_docs, nI) to logits (n_docs, nO). lr_scale: see TorchShim; other settings: see Classifier.

    RAISES (BertHeadsError): H261 for fewer than one dropout sample.
    """
    check_sizes(dropout_samples=dropout_samples)
    settings = {"dropout_samples": dropout_samples, "standardize": standardize}
    return head_layer("classifier", _forward_classifier, TorchShim(Classifier, lr_scale), nO, settings)


def sequence_tagger(
    nO: Optional[int], *, lstm_width: Optional[int], lstm_depth: int, lr_scale: float, precision: str
) -> Model[List[Floats2d], List[Floats2d]]:
    """Token vectors, (n_tokens, nI) per Doc, to emissions, (n_tokens, nO) per Doc.

    precision (str): What the LSTM computes in when it predicts; see resolve_precision.
    RAISES (BertHeadsError): H214 if the LSTM's width cannot be split between two directions, H209 for an unknown
        precision.
    """
    check_precision(precision, training=False)
    if lstm_width is not None:
        check_lstm_width(lstm_width)
    attrs = {"lstm_width": lstm_width, "lstm_depth": lstm_depth}
    forward = partial(forward_rows, precision=precision)
    return head_layer("sequence_tagger", forward, TorchShim(SequenceTagger, lr_scale), nO, attrs)


def check_sizes(**settings: Any) -> None:
    """settings (Any): Sizes, or lists of them, by name. RAISES (BertHeadsError): H261 if one is too small."""
    for name, value in settings.items():
        sizes = value if isinstance(value, list) else [value]
        if not sizes or min(sizes) < (0 if name == "depth" else 1):
            raise BertHeadsError("H261", found=value, name=name)


def check_lstm_width(width: int) -> None:
    """RAISES (BertHeadsError): H214 if a BiLSTM's width cannot be split between two directions."""
    if width < 2 or width % 2:
        raise BertHeadsError("H214", found=width, low=max(2, width - 1), high=max(2, width + 1))


def head_layer(name: str, forward: Callable, shim: TorchShim, nO: Optional[int], attrs: dict) -> Model:
    return Model(
        name,
        forward,
        init=_init,
        dims={"nI": None, "nO": nO},
        shims=[shim],
        # dropout_rate is set by thinc's set_dropout_rate, which spaCy calls with `[training] dropout`
        attrs={"dropout_rate": 0.0, "settings": attrs},
    )


def _init(model: Model, X: Any = None, Y: Any = None) -> None:
    shim = cast(TorchShim, model.shims[0])
    if shim.module is None:
        shim.build(nI=model.get_dim("nI"), nO=model.get_dim("nO"), **model.attrs["settings"])


def prepare(model: Model, is_train: bool) -> TorchShim:
    shim = cast(TorchShim, model.shims[0])
    if shim.module is None:
        raise BertHeadsError("H215", found=model.name)
    if is_train and "dropout_rate" in model.attrs:
        shim.module.dropout.p = model.attrs["dropout_rate"]
    return shim


def _forward_classifier(model: Model, X: Floats2d, is_train: bool) -> Tuple[Floats2d, Callable[[Floats2d], Floats2d]]:
    shim = prepare(model, is_train)
    Yt, bp_torch = shim(ArgsKwargs((xp2torch(X, requires_grad=is_train, device=shim.device),), {}), is_train)

    def backprop(dY: Floats2d) -> Floats2d:
        d_inputs = bp_torch(ArgsKwargs((Yt,), {"grad_tensors": xp2torch(dY, device=shim.device)}))
        return cast(Floats2d, torch2xp(d_inputs.args[0]))

    return cast(Floats2d, torch2xp(Yt.detach())), backprop


def _count_outputs(model: Model) -> int:
    return model.get_dim("nO")


def forward_rows(
    model: Model,
    X: List[Floats2d],
    is_train: bool,
    *,
    precision: str,
    count_columns: Callable[[Model], int] = _count_outputs,
) -> Tuple[List[Floats2d], Callable[[List[Floats2d]], List[Floats2d]]]:
    """thinc's hook of layers over the tokens of all texts, laid end to end, with a BiLSTM in them if wanted.

    precision (str): What the BiLSTM computes in when it predicts.
    count_columns (Callable[[Model], int]): Width of the output, which texts without tokens have too.
    """
    shim = prepare(model, is_train)
    lengths = [len(Xi) for Xi in X]
    if not any(lengths):
        return [model.ops.alloc2f(0, count_columns(model)) for _ in X], lambda dY: X
    Xt = concatenate(X, shim.device).requires_grad_(is_train)
    lstm_type = None if is_train else AUTOCAST_TYPES.get(resolve_precision(precision, shim.device))
    Yt, bp_torch = shim(ArgsKwargs((Xt, torch.tensor(lengths)), {"lstm_type": lstm_type}), is_train)

    def backprop(dY: List[Floats2d]) -> List[Floats2d]:
        d_inputs = bp_torch(ArgsKwargs((Yt,), {"grad_tensors": concatenate(dY, shim.device)}))
        return split(d_inputs.args[0], lengths)

    return split(Yt.detach(), lengths), backprop


def concatenate(arrays: List[Floats2d], device: torch.device) -> torch.Tensor:
    """The rows of all arrays in one tensor. Float, (sum of lengths, width)."""
    flat: Any = arrays[0] if len(arrays) == 1 else get_array_module(arrays[0]).concatenate(arrays)
    return xp2torch(flat, device=device)


def split(tensor: torch.Tensor, lengths: List[int]) -> List[Floats2d]:
    """The arrays back out of a concatenated tensor."""
    flat: Any = torch2xp(tensor)
    ends = numpy.cumsum([0, *lengths]).tolist()
    return [cast(Floats2d, flat[start:stop]) for start, stop in zip(ends, ends[1:])]


def pad(arrays: List[Floats2d], device: torch.device) -> torch.Tensor:
    """One tensor of arrays of different lengths, zeros on the right. Float, (n_docs, n_tokens, width)."""
    flat_t = concatenate(arrays, device)
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) == 1:  # nothing to pad, and no copy of what may be a long text
        return flat_t.view(len(arrays), lengths[0], -1)
    padded = flat_t.new_zeros((len(arrays) * max(lengths), flat_t.shape[1]))
    padded.index_copy_(0, _cells(lengths).to(device), flat_t)
    return padded.view(len(arrays), max(lengths), -1)


def unpad(tensor: torch.Tensor, lengths: List[int]) -> List[Floats2d]:
    """The arrays back out of a padded tensor."""
    return split(tensor.flatten(0, 1).index_select(0, _cells(lengths).to(tensor.device)), lengths)


def _cells(lengths: List[int]) -> torch.Tensor:
    """Where the rows of arrays of these lengths lie when each is padded to the longest. Int64, (sum of lengths,)."""
    inside = numpy.arange(max(lengths)) < numpy.array(lengths)[:, None]
    return torch.from_numpy(numpy.flatnonzero(inside))
