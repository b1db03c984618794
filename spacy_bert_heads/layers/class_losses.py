"""Losses of the text heads: cross-entropy with class weights, label smoothing and focal loss."""

from typing import Dict, NamedTuple, Optional, Union

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..errors import BertHeadsError

BALANCED = "balanced"


class LossSettings(NamedTuple):
    """How a text head learns.

    class_weights (Optional[Union[str, Dict[str, float]]]): Weight of each label; labels not named have 1. "balanced":
        the rarer a label, the greater its weight. None: all weigh the same. With exclusive classes, the weight of the
        true label weighs the whole text; otherwise it weighs the positive term of that label.
    label_smoothing (float): Share of the target probability that is spread evenly over all labels. 0: none.
    focal_gamma (float): Down-weights examples the model already gets right with confidence; higher values do so more
        strongly. 0: all examples count alike.
    loss_weight (float): Weight of this head's loss beside those of the other heads.
    """

    class_weights: Optional[Union[str, Dict[str, float]]]
    label_smoothing: float
    focal_gamma: float
    loss_weight: float

    def check(self) -> None:
        """RAISES (BertHeadsError): H273 for a value that makes no sense."""
        weights = self.class_weights
        if isinstance(weights, str) and weights != BALANCED:
            raise BertHeadsError(
                "H273", name="class_weights", found=repr(weights), expected=f'"{BALANCED}" or numbers'
            )
        if isinstance(weights, dict) and any(weight < 0 for weight in weights.values()):
            raise BertHeadsError("H273", name="class_weights", found=weights, expected="a number of 0 or more")
        if not 0 <= self.label_smoothing < 1:
            raise BertHeadsError(
                "H273", name="label_smoothing", found=self.label_smoothing, expected="0 or more, below 1"
            )
        for name in ("focal_gamma", "loss_weight"):
            if getattr(self, name) < 0:
                raise BertHeadsError("H273", name=name, found=getattr(self, name), expected="0 or more")


def exclusive_loss(
    logits: Tensor,
    allowed: Tensor,
    *,
    weights: Optional[Tensor],
    label_smoothing: float,
    focal_gamma: float,
    shares: Optional[Tensor] = None,
) -> Tensor:
    """-log of the probability that the label is among those the annotation allows, a weighted mean over the Docs.

    With one allowed label it is torch's cross_entropy. A Doc of several has the mean of their weights, and its labels
    are not smoothed, for its truth is spread already.

    logits (Tensor): Float, (n_docs, n_labels).
    allowed (Tensor): At least one for each Doc. Bool, (n_docs, n_labels).
    weights (Optional[Tensor]): Of the labels. Float, (n_labels,).
    label_smoothing (float): See LossSettings.
    focal_gamma (float): See LossSettings.
    shares (Optional[Tensor]): How much of its loss each Doc adds, of the same mean. None: all of it. Float, (n_docs,).
    RETURNS (Tensor): Nats. Float, ().

    SOURCE: Lin et al. (2017) for the focal loss; Szegedy et al. (2016) for smoothing, as torch weights it.
    """
    log_p = logits.log_softmax(dim=1)
    log_allowed = log_p.masked_fill(~allowed, -torch.inf).logsumexp(dim=1)
    weights = torch.ones_like(logits[0]) if weights is None else weights
    n_allowed = allowed.sum(dim=1)
    doc_weights = (weights * allowed).sum(dim=1) / n_allowed
    losses = -doc_weights * log_allowed
    if label_smoothing:
        smooth = (1 - label_smoothing) * losses - label_smoothing * (weights * log_p).mean(dim=1)
        losses = torch.where(n_allowed == 1, smooth, losses)
    if focal_gamma:
        losses = losses * _focus(log_allowed, focal_gamma)
    if shares is not None:
        losses = losses * shares
    # Weights of 0 alone make no loss rather than 0/0
    return losses.sum() / doc_weights.sum().clamp(min=torch.finfo(logits.dtype).tiny)


def multilabel_loss(
    logits: Tensor,
    truths: Tensor,
    known: Tensor,
    *,
    weights: Optional[Tensor],
    label_smoothing: float,
    focal_gamma: float,
    shares: Optional[Tensor] = None,
) -> Tensor:
    """Binary cross-entropy, mean over the labels that are known.

    logits (Tensor): Float, (n_docs, n_labels).
    truths (Tensor): 0 or 1. Float, (n_docs, n_labels).
    known (Tensor): At least one. Bool, (n_docs, n_labels).
    weights (Optional[Tensor]): Of the labels where they are true, as torch's `pos_weight`. Float, (n_labels,).
    label_smoothing (float): See LossSettings; false labels become true by half of it.
    focal_gamma (float): See LossSettings.
    shares (Optional[Tensor]): See exclusive_loss. Float, (n_docs,).
    RETURNS (Tensor): Nats. Float, ().

    SOURCE: Lin et al. (2017) for the focal loss.
    """
    weights = torch.ones_like(logits[0]) if weights is None else weights
    log_true, log_false = logsigmoid(logits), logsigmoid(-logits)
    smooth = truths * (1 - label_smoothing) + label_smoothing / 2
    losses = -(weights * smooth * log_true + (1 - smooth) * log_false)
    if focal_gamma:
        losses = losses * _focus(torch.where(truths > 0.5, log_true, log_false), focal_gamma)
    if shares is not None:
        losses = losses * shares[:, None]
    return losses[known].mean()


def _focus(log_p: Tensor, gamma: float) -> Tensor:
    """(1 - p) ** gamma. Of a probability of exactly 1 the root has no gradient."""
    return (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps) ** gamma
