"""Losses of the text heads against torch's own."""

from typing import Any, Dict

import numpy
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from spacy_bert_heads.layers.class_losses import exclusive_loss, multilabel_loss

N_DOCS, N_LABELS = 7, 4
PLAIN: Dict[str, Any] = {"weights": None, "label_smoothing": 0.0, "focal_gamma": 0.0}
WEIGHTS = torch.tensor([0.2, 3.0, 1.0, 0.7])


def make_logits(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(N_DOCS, N_LABELS, generator=generator)).requires_grad_()


def make_labels() -> torch.Tensor:
    return torch.tensor([0, 1, 2, 3, 1, 1, 0])


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, N_LABELS).bool()


def assert_same_loss(ours: torch.Tensor, theirs: torch.Tensor, logits: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_one_label_of_several_is_torchs_cross_entropy(weights: Any, label_smoothing: float) -> None:
    logits, labels = make_logits(), make_labels()
    settings = {**PLAIN, "weights": weights, "label_smoothing": label_smoothing}
    ours = exclusive_loss(logits, one_hot(labels), **settings)
    assert_same_loss(ours, cross_entropy(logits, labels, weight=weights, label_smoothing=label_smoothing), logits)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_is_the_papers_formula(gamma: float) -> None:
    logits, labels = make_logits(), make_labels()
    p = logits.softmax(1)[range(N_DOCS), labels]
    ours = exclusive_loss(logits, one_hot(labels), **{**PLAIN, "focal_gamma": gamma})
    assert_same_loss(ours, (-((1 - p) ** gamma) * p.log()).mean(), logits)
    truths = one_hot(labels).float()
    p = torch.where(truths > 0, logits.sigmoid(), 1 - logits.sigmoid())
    ours = multilabel_loss(logits, truths, truths >= 0, **{**PLAIN, "focal_gamma": gamma})
    assert_same_loss(ours, (-((1 - p) ** gamma) * p.log()).mean(), logits)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_any_number_of_labels_is_torchs_binary_cross_entropy(weights: Any, label_smoothing: float) -> None:
    logits = make_logits()
    truths = (make_logits(1) > 0).float()
    known = make_logits(2) > -1
    settings = {**PLAIN, "weights": weights, "label_smoothing": label_smoothing}
    smooth = (truths * (1 - label_smoothing) + label_smoothing / 2).detach()
    theirs = binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights, reduction="none")[known].mean()
    assert_same_loss(multilabel_loss(logits, truths, known, **settings), theirs, logits)


def test_several_allowed_labels_have_the_mean_of_their_weights_and_are_not_smoothed() -> None:
    logits = make_logits()
    allowed = one_hot(make_labels())
    allowed[0] = torch.tensor([True, False, True, False])
    p = logits.softmax(1)
    singles = cross_entropy(logits[1:], make_labels()[1:], weight=WEIGHTS, label_smoothing=0.1, reduction="none").sum()
    weight = (WEIGHTS[0] + WEIGHTS[2]) / 2
    total = singles - weight * (p[0, 0] + p[0, 2]).log()
    ours = exclusive_loss(logits, allowed, **{**PLAIN, "weights": WEIGHTS, "label_smoothing": 0.1})
    assert_same_loss(ours, total / (WEIGHTS[make_labels()[1:]].sum() + weight), logits)


def test_a_text_that_is_certain_makes_no_trouble() -> None:
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
    for gamma in (0.0, 0.5, 2.0):
        for label in (0, 1):
            allowed = torch.zeros(2, 2, dtype=torch.bool)
            allowed[:, label] = True
            settings = {**PLAIN, "focal_gamma": gamma}
            for loss in (
                exclusive_loss(logits, allowed, **settings),
                multilabel_loss(logits, allowed.float(), allowed | True, **settings),
            ):
                (gradient,) = torch.autograd.grad(loss, logits)
                assert numpy.isfinite(loss.item()) and bool(gradient.isfinite().all())
    zero = exclusive_loss(logits, allowed, **{**PLAIN, "weights": torch.zeros(2)})
    assert zero.item() == 0.0
