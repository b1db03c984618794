"""Losses and decoding over tag scores: pytorch-crf's CRF, or each token by itself."""

import warnings
from typing import List, Optional, Tuple, cast

import numpy
import torch
from thinc.api import Model
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch
from torchcrf import CRF

from ..types import TagIds
from .heads import pad, unpad
from .torch_shim import TorchShim

# Cross-entropy skips it, and so marks tokens whose annotation is missing
MISSING = -1


def crf(nO: Optional[int], lr_scale: float) -> Model[List[Floats2d], List[TagIds]]:
    """A linear-chain CRF. Called, it decodes; `crf_loss` trains it.

    nO (Optional[int]): Number of tags.
    lr_scale (float): See TorchShim.

    SOURCE: Lafferty, McCallum and Pereira (2001); Lample et al. (2016) for its place above a BiLSTM.
    """
    return Model("crf", _decode, init=_init, dims={"nO": nO}, shims=[TorchShim(_build_crf, lr_scale)])


def crf_loss(model: Model, emissions: List[Floats2d], targets: List[TagIds]) -> Tuple[float, List[Floats2d]]:
    """Negative log-likelihood of the gold tags, mean over the Docs that have a complete annotation.

    The gradient of the CRF's own parameters is added up inside the model.

    model (Model): What `crf` returns.
    emissions (List[Floats2d]): Tag scores of each Doc, (n_tokens, nO).
    targets (List[TagIds]): Gold tags of each Doc, MISSING where there is none.
    RETURNS (Tuple[float, List[Floats2d]]): The loss in nats and its gradient for the emissions. A Doc of no tokens,
        or with a token whose tag is missing, adds nothing to either.
    """
    shim = cast(TorchShim, model.shims[0])
    d_emissions = [model.ops.alloc2f(*scores.shape) for scores in emissions]
    used = [i for i, tags in enumerate(targets) if len(tags) and (tags != MISSING).all()]
    if not used:
        return 0.0, d_emissions
    scores = pad([emissions[i] for i in used], shim.device).requires_grad_(True)
    lengths = [len(targets[i]) for i in used]
    tags = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(targets[i]) for i in used], batch_first=True)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    loss = -shim.module(scores, tags.to(shim.device), mask.to(shim.device), reduction="mean")
    loss.backward()
    for i, gradient in zip(used, unpad(cast(torch.Tensor, scores.grad), lengths)):
        d_emissions[i] = gradient
    return float(loss.detach()), d_emissions


def softmax_loss(emissions: List[Floats2d], targets: List[TagIds]) -> Tuple[float, List[Floats2d]]:
    """Cross-entropy of each token by itself, mean over the tokens that have a tag, as in BertForTokenClassification.

    Arguments and result as for `crf_loss`.
    """
    lengths = [len(scores) for scores in emissions]
    flat = torch.cat([xp2torch(scores) for scores in emissions]).requires_grad_(True)
    gold = torch.as_tensor(numpy.concatenate(targets)).to(flat.device)
    if not bool((gold != MISSING).any()):
        return 0.0, [scores * 0 for scores in emissions]
    loss = torch.nn.functional.cross_entropy(flat, gold, ignore_index=MISSING)
    loss.backward()
    gradients = torch.split(cast(torch.Tensor, flat.grad), lengths)
    return float(loss.detach()), [cast(Floats2d, torch2xp(gradient)) for gradient in gradients]


def softmax_decode(emissions: List[Floats2d]) -> List[TagIds]:
    """The best tag of each token by itself."""
    return [_to_numpy(scores.argmax(axis=1)) if len(scores) else _no_tags() for scores in emissions]


def _decode(model: Model, emissions: List[Floats2d], is_train: bool) -> Tuple[List[TagIds], None]:
    """The best path of tags of each Doc (Viterbi)."""
    shim = cast(TorchShim, model.shims[0])
    paths: List[TagIds] = [_no_tags() for _ in emissions]
    used = [i for i, scores in enumerate(emissions) if len(scores)]
    if used:
        scores = pad([emissions[i] for i in used], shim.device)
        lengths = torch.tensor([len(emissions[i]) for i in used])
        mask = torch.arange(scores.shape[1]) < lengths.unsqueeze(1)
        with torch.no_grad():
            for i, path in zip(used, _viterbi(shim.module, scores, mask)):
                paths[i] = numpy.array(path, dtype="int64")
    return paths, None


def _viterbi(module: CRF, scores: torch.Tensor, mask: torch.Tensor) -> List[List[int]]:
    with warnings.catch_warnings():
        # pytorch-crf turns every mask into uint8, about which torch warns
        warnings.filterwarnings("ignore", message=".*uint8 condition tensor.*")
        return module.decode(scores, mask.to(scores.device))


def _init(model: Model, X: object = None, Y: object = None) -> None:
    shim = cast(TorchShim, model.shims[0])
    if shim.module is None:
        shim.build(num_tags=model.get_dim("nO"))


def _build_crf(num_tags: int) -> CRF:
    return CRF(num_tags, batch_first=True)


def _no_tags() -> TagIds:
    return numpy.zeros(0, dtype="int64")


def _to_numpy(array: object) -> TagIds:
    return numpy.asarray(array.get() if hasattr(array, "get") else array).astype("int64")
