"""Losses and decoding over tag scores: a CRF, ours or pytorch-crf's, or each token by itself."""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union, cast

import numpy
import torch
from thinc.api import Model
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch
from torch import Tensor
from torchcrf import CRF

from ...tags import UNKNOWN
from ...types import TagIds
from ..head_layers import unpad
from ..torch_shim import CRF_ROLE, TorchShim
from .module import ConditionalRandomField, allowed_from_tags
from .paths import NumberedSpan, TagPaths, pad_scores, span_patterns, unnamed_scheme

# Ours, constrained by the tag scheme; or pytorch-crf's, as the reference
CONSTRAINED, PYTORCH_CRF = "constrained", "pytorch-crf"
KINDS = (CONSTRAINED, PYTORCH_CRF)


class CrfLoss(NamedTuple):
    """What `crf_loss` computes.

    loss (float): Nats, a mean over Docs.
    d_emissions (List[Floats2d]): Its gradient. Float, (n_tokens, n_tags) per Doc.
    impossible (List[int]): Docs left out because no legal path fits their annotation.
    certain (List[Tuple[int, NumberedSpan]]): Rejected entities left out, with their Docs, because every path has
        them: their loss is infinite.
    """

    loss: float
    d_emissions: List[Floats2d]
    impossible: List[int]
    certain: List[Tuple[int, NumberedSpan]]


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
        shims=[TorchShim(_build_crf, lr_scale, role=CRF_ROLE)],
        attrs={"settings": settings},
    )


def crf_loss(
    model: Model,
    emissions: List[Floats2d],
    targets: List[TagIds],
    rejected: Optional[Sequence[Sequence[NumberedSpan]]] = None,
    *,
    weight: float = 1.0,
    shares: Optional[numpy.ndarray] = None,
) -> CrfLoss:
    """Negative log-likelihood of the gold tags, and -log(1 - P) of each rejected entity, summed for each Doc; the
    mean of that over the Docs that have any of them.

    Where a tag is missing, all paths through the token are summed: it neither helps nor hurts. pytorch-crf cannot do
    that and leaves out Docs with a missing tag. The gradient of the CRF's own parameters is added up in the model.

    model (Model): What `crf` returns.
    emissions (List[Floats2d]): Tag scores of each Doc, (n_tokens, nO).
    targets (List[TagIds]): Gold tags of each Doc, UNKNOWN where there is none.
    rejected (Optional[Sequence[Sequence[NumberedSpan]]]): Entities of each Doc that somebody rejected. Only our own
        CRF can learn from them.
    weight (float): Multiplies the gradients, also those of the CRF, but not the loss.
    shares (Optional[numpy.ndarray]): How much of its loss each Doc adds, of the same mean. None: all of it. Float,
        (n_docs,).
    RETURNS (CrfLoss): The loss. A Doc of no tokens, or without tags and rejected entities, adds nothing to it.
    RAISES (BertHeadsError): H230 for emissions of a wrong shape.

    SOURCE: Tsuboi et al. (2008) for missing tags.
    """
    shim = cast(TorchShim, model.shims[0])
    shim.step_pending()
    complete = isinstance(shim.module, CRF)
    spans = [list(dict.fromkeys(given)) for given in rejected or [[] for _ in targets]]
    d_emissions = [model.ops.alloc2f(*scores.shape) for scores in emissions]
    used = [i for i, tags in enumerate(targets) if len(tags) and (spans[i] or _is_usable(tags, complete))]
    if not used:
        return CrfLoss(0.0, d_emissions, [], [])
    scores, mask = pad_scores([emissions[i] for i in used], shim.device)
    scores.requires_grad_(True)
    log_likelihood = _log_likelihood(shim.module, scores, _pad_tags([targets[i] for i in used], shim), mask)
    is_impossible = log_likelihood.isneginf()
    parts = numpy.ones(len(used), dtype="float32") if shares is None else shares[used]
    share = torch.from_numpy(parts).to(log_likelihood)
    loss = -(log_likelihood.masked_fill(is_impossible, 0.0) * share).sum()
    pairs = [(row, span) for row, i in enumerate(used) for span in spans[i]]
    flags = [is_impossible]
    if pairs:
        losses = _rejected_loss(model, scores, mask, pairs)
        rows = torch.tensor([row for row, _ in pairs], device=losses.device)
        of_impossible = is_impossible[rows]
        flags.append(losses.isposinf() & ~of_impossible)
        loss = loss + (losses.masked_fill(flags[1] | of_impossible, 0.0) * share[rows]).sum()
    answers = torch.cat(flags).tolist()
    without_path = [row for row in range(len(used)) if answers[row]]
    certain = [pair for pair, is_certain in zip(pairs, answers[len(used) :]) if is_certain]
    taught = {row for row, span in pairs if (row, span) not in certain}
    taught.update(row for row, i in enumerate(used) if _is_usable(targets[i], complete))
    taught.difference_update(without_path)
    if taught:
        loss = loss / len(taught)
        (loss * weight).backward()
        for i, gradient in zip(used, unpad(cast(Tensor, scores.grad), [len(targets[i]) for i in used])):
            d_emissions[i] = gradient
    return CrfLoss(
        float(loss.detach()),
        d_emissions,
        [used[row] for row in without_path],
        [(used[row], span) for row, span in certain],
    )


def softmax_loss(
    emissions: List[Floats2d],
    targets: List[TagIds],
    *,
    weight: float = 1.0,
    shares: Optional[numpy.ndarray] = None,
) -> Tuple[float, List[Floats2d]]:
    """Cross-entropy of each token by itself, mean over the tokens that have a tag, as in BertForTokenClassification.

    emissions (List[Floats2d]): Tag scores of each Doc. Float, (n_tokens, nO).
    targets (List[TagIds]): Gold tags of each Doc, UNKNOWN where there is none.
    weight (float): Multiplies the gradient, but not the loss.
    shares (Optional[numpy.ndarray]): See crf_loss. Float, (n_docs,).
    RETURNS (Tuple[float, List[Floats2d]]): The loss in nats and its gradient for the emissions.
    """
    lengths = [len(scores) for scores in emissions]
    flat = torch.cat([xp2torch(scores) for scores in emissions]).requires_grad_(True)
    gold = torch.as_tensor(numpy.concatenate(targets)).to(flat.device)
    if not bool((gold != UNKNOWN).any()):
        return 0.0, [scores * 0 for scores in emissions]
    if shares is None:
        loss = torch.nn.functional.cross_entropy(flat, gold, ignore_index=UNKNOWN)
    else:
        losses = torch.nn.functional.cross_entropy(flat, gold, ignore_index=UNKNOWN, reduction="none")
        share = torch.from_numpy(numpy.repeat(shares, lengths)).to(losses)
        loss = (losses * share).sum() / (gold != UNKNOWN).sum()
    (loss * weight).backward()
    gradients = torch.split(cast(Tensor, flat.grad), lengths)
    return float(loss.detach()), [cast(Floats2d, torch2xp(gradient)) for gradient in gradients]


def learns_from_rejected(model: Optional[Model]) -> bool:
    """RETURNS (bool): Whether a CRF layer can learn from rejected entities; False if there is none."""
    return model is not None and model.attrs["settings"]["kind"] == CONSTRAINED


def decoder(model: Model) -> Union[CRF, ConditionalRandomField]:
    """RETURNS (Union[CRF, ConditionalRandomField]): The module of a CRF layer, to decode with."""
    shim = cast(TorchShim, model.shims[0])
    shim.step_pending()
    return shim.module


def _decode(model: Model, emissions: List[Floats2d], is_train: bool) -> Tuple[List[TagIds], None]:
    """The best path of tags of each Doc (Viterbi)."""
    return TagPaths(decoder(model), emissions, model.attrs["settings"]["scheme"]).best(), None


def _log_likelihood(
    module: Union[CRF, ConditionalRandomField],
    scores: Tensor,
    tags: Tensor,
    mask: Tensor,
) -> Tensor:
    """Of each Doc, in nats. (n_docs,)."""
    if isinstance(module, CRF):
        return module(scores, tags, mask, reduction="none")
    if bool(((tags == UNKNOWN) & mask).any()):
        allowed = allowed_from_tags(tags, scores.shape[2], module.get_buffer("extends"))
        return module.log_likelihood(scores, allowed, mask)
    return module.log_likelihood_of_tags(scores, tags, mask)


def _rejected_loss(model: Model, scores: Tensor, mask: Tensor, pairs: Sequence[Tuple[int, NumberedSpan]]) -> Tensor:
    """Of each rejected entity, in nats. (n_spans,).

    Entities of about the same length go together, for each takes as many sums as the longest has tokens.
    """
    patterns = span_patterns(model.attrs["settings"]["scheme"], scores.shape[2], scores.device)
    groups: Dict[int, List[int]] = {}
    for number, (_, (start, end, _)) in enumerate(pairs):
        groups.setdefault((end - start).bit_length(), []).append(number)
    module = cast(TorchShim, model.shims[0]).module
    losses = scores.new_zeros(len(pairs))
    for numbers in groups.values():
        spans = torch.tensor([[pairs[number][0], *pairs[number][1]] for number in numbers])
        index = torch.tensor(numbers, device=scores.device)
        losses = losses.index_copy(0, index, module.rejected_span_loss(scores, mask, spans, patterns))
    return losses


def _is_usable(tags: TagIds, complete: bool) -> bool:
    known = tags != UNKNOWN
    return bool(known.all() if complete else known.any())


def _pad_tags(targets: List[TagIds], shim: TorchShim) -> Tensor:
    tags = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(given) for given in targets], batch_first=True)
    return tags.to(shim.device)


def _init(model: Model, X: object = None, Y: object = None) -> None:
    shim = cast(TorchShim, model.shims[0])
    if shim.module is None:
        shim.build(num_tags=model.get_dim("nO"), **model.attrs["settings"])


def _build_crf(num_tags: int, kind: str, scheme: str) -> Union[CRF, ConditionalRandomField]:
    if kind == PYTORCH_CRF:
        return CRF(num_tags, batch_first=True)
    tags = unnamed_scheme(scheme, num_tags)
    module = ConditionalRandomField(
        num_tags,
        allowed_transitions=tags.allowed_transitions,
        allowed_start=tags.allowed_start,
        allowed_end=tags.allowed_end,
    )
    module.register_buffer("extends", torch.tensor(tags.extends), persistent=False)
    return module
