"""Losses and decoding over tag scores: a CRF, ours or pytorch-crf's, or each token by itself."""

import warnings
from typing import List, Optional, Tuple, Union, cast

import numpy
import torch
from thinc.api import Model
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch
from torchcrf import CRF

from ..tags import SCHEMES, UNKNOWN, TagScheme
from ..types import TagIds
from .crf_module import ConditionalRandomField, allowed_from_tags
from .heads import pad, unpad
from .torch_shim import TorchShim

# Ours, constrained by the tag scheme; or pytorch-crf's, as the reference
CONSTRAINED, PYTORCH_CRF = "constrained", "pytorch-crf"
KINDS = (CONSTRAINED, PYTORCH_CRF)


def crf(nO: Optional[int], *, kind: str, scheme: str, lr_scale: float) -> Model[List[Floats2d], List[TagIds]]:
    """A linear-chain CRF. Called, it decodes; `crf_loss` trains it.

    nO (Optional[int]): Number of tags.
    kind (str): One of KINDS.
    scheme (str): Tag scheme, which says what tags may follow each other; see tags.TagScheme.
    lr_scale (float): See TorchShim.

    SOURCE: Lafferty, McCallum and Pereira (2001); Lample et al. (2016) for its place above a BiLSTM.
    """
    settings = {"kind": kind, "scheme": scheme}
    return Model(
        "crf",
        _decode,
        init=_init,
        dims={"nO": nO},
        shims=[TorchShim(_build_crf, lr_scale)],
        attrs={"settings": settings},
    )


def crf_loss(model: Model, emissions: List[Floats2d], targets: List[TagIds]) -> Tuple[float, List[Floats2d]]:
    """Negative log-likelihood of the gold tags, mean over the Docs that have any.

    Where a tag is missing, all paths through the token are summed: it neither helps nor hurts. pytorch-crf cannot do
    that and leaves out Docs with a missing tag. The gradient of the CRF's own parameters is added up in the model.

    model (Model): What `crf` returns.
    emissions (List[Floats2d]): Tag scores of each Doc, (n_tokens, nO).
    targets (List[TagIds]): Gold tags of each Doc, UNKNOWN where there is none.
    RETURNS (Tuple[float, List[Floats2d]]): The loss in nats and its gradient for the emissions. A Doc of no tokens,
        or without any tag, adds nothing to either.

    SOURCE: Tsuboi et al. (2008) for missing tags.
    """
    shim = cast(TorchShim, model.shims[0])
    d_emissions = [model.ops.alloc2f(*scores.shape) for scores in emissions]
    complete = isinstance(shim.module, CRF)
    used = [i for i, tags in enumerate(targets) if _is_usable(tags, complete)]
    if not used:
        return 0.0, d_emissions
    scores, mask = _pad([emissions[i] for i in used], shim)
    scores.requires_grad_(True)
    tags = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(targets[i]) for i in used], batch_first=True)
    loss = -_log_likelihood(shim.module, scores, tags.to(shim.device), mask).mean()
    loss.backward()
    for i, gradient in zip(used, unpad(cast(torch.Tensor, scores.grad), [len(targets[i]) for i in used])):
        d_emissions[i] = gradient
    return float(loss.detach()), d_emissions


def softmax_loss(emissions: List[Floats2d], targets: List[TagIds]) -> Tuple[float, List[Floats2d]]:
    """Cross-entropy of each token by itself, mean over the tokens that have a tag, as in BertForTokenClassification.

    Arguments and result as for `crf_loss`.
    """
    lengths = [len(scores) for scores in emissions]
    flat = torch.cat([xp2torch(scores) for scores in emissions]).requires_grad_(True)
    gold = torch.as_tensor(numpy.concatenate(targets)).to(flat.device)
    if not bool((gold != UNKNOWN).any()):
        return 0.0, [scores * 0 for scores in emissions]
    loss = torch.nn.functional.cross_entropy(flat, gold, ignore_index=UNKNOWN)
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
    if not used:
        return paths, None
    scores, mask = _pad([emissions[i] for i in used], shim)
    with torch.no_grad():
        if isinstance(shim.module, CRF):
            decoded = [numpy.array(path, dtype="int64") for path in _pytorch_crf_decode(shim.module, scores, mask)]
        else:
            decoded = list(shim.module.viterbi(scores, mask)[0].cpu().numpy())
    for i, path in zip(used, decoded):
        paths[i] = path[: len(emissions[i])]
    return paths, None


def _log_likelihood(
    module: Union[CRF, ConditionalRandomField],
    scores: torch.Tensor,
    tags: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Of each Doc, in nats. (n_docs,)."""
    if isinstance(module, CRF):
        return module(scores, tags, mask, reduction="none")
    if bool(((tags == UNKNOWN) & mask).any()):
        allowed = allowed_from_tags(tags, scores.shape[2], module.get_buffer("extends"))
        return module.log_likelihood(scores, allowed, mask)
    return module.log_likelihood_of_tags(scores, tags, mask)


def _is_usable(tags: TagIds, complete: bool) -> bool:
    known = tags != UNKNOWN
    return bool(len(tags) and (known.all() if complete else known.any()))


def _pad(emissions: List[Floats2d], shim: TorchShim) -> Tuple[torch.Tensor, torch.Tensor]:
    """Emissions (n_docs, n_tokens, nO) and the mask of their tokens (n_docs, n_tokens)."""
    scores = pad(emissions, shim.device)
    lengths = torch.tensor([len(array) for array in emissions])
    return scores, (torch.arange(scores.shape[1]) < lengths.unsqueeze(1)).to(scores.device)


def _pytorch_crf_decode(module: CRF, scores: torch.Tensor, mask: torch.Tensor) -> List[List[int]]:
    with warnings.catch_warnings():
        # pytorch-crf turns every mask into uint8, about which torch warns
        warnings.filterwarnings("ignore", message=".*uint8 condition tensor.*")
        return module.decode(scores, mask)


def _init(model: Model, X: object = None, Y: object = None) -> None:
    shim = cast(TorchShim, model.shims[0])
    if shim.module is None:
        shim.build(num_tags=model.get_dim("nO"), **model.attrs["settings"])


def _build_crf(num_tags: int, kind: str, scheme: str) -> Union[CRF, ConditionalRandomField]:
    if kind == PYTORCH_CRF:
        return CRF(num_tags, batch_first=True)
    tags = _unnamed_scheme(num_tags, scheme)
    module = ConditionalRandomField(
        num_tags,
        allowed_transitions=tags.allowed_transitions,
        allowed_start=tags.allowed_start,
        allowed_end=tags.allowed_end,
    )
    module.register_buffer("extends", torch.tensor(tags.extends), persistent=False)
    return module


def _unnamed_scheme(num_tags: int, scheme: str) -> TagScheme:
    """The scheme for so many tags; what may follow what does not depend on the labels' names."""
    n_labels = (num_tags - 1) // len(set(SCHEMES[scheme]))
    return TagScheme(scheme, [str(i) for i in range(n_labels)])


def _no_tags() -> TagIds:
    return numpy.zeros(0, dtype="int64")


def _to_numpy(array: object) -> TagIds:
    return numpy.asarray(array.get() if hasattr(array, "get") else array).astype("int64")
