"""The contrastive loss, against loops over all pairs."""

import math

import pytest
import torch

from spacy_bert_heads.layers.contrastive import contrastive_loss


def slow_loss(vectors: torch.Tensor, classes: torch.Tensor, temperature: float) -> float:
    def similarity(i: int, j: int) -> float:
        return float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)) / temperature

    n, losses = len(vectors), []
    for i in range(n):
        friends = [j for j in range(n) if j != i and classes[j] == classes[i]]
        if friends:
            total = sum(math.exp(similarity(i, j)) for j in range(n) if j != i)
            losses.append(-sum(similarity(i, j) - math.log(total) for j in friends) / len(friends))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("classes", [[0, 0], [0, 1, 0, 2], [3, 3, 1, 1, 1, 0, 5]])
def test_it_is_the_mean_over_all_pairs_of_a_class(classes: list, temperature: float) -> None:
    torch.manual_seed(0)
    vectors, labels = torch.randn(len(classes), 5), torch.tensor(classes)
    expected = slow_loss(vectors, labels, temperature)
    assert float(contrastive_loss(vectors, labels, temperature)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("classes", [[0], [0, 1, 2]])
def test_without_pairs_there_is_nothing_to_learn(classes: list) -> None:
    vectors = torch.randn(len(classes), 5, requires_grad=True)
    loss = contrastive_loss(vectors, torch.tensor(classes))
    loss.backward()
    assert float(loss) == 0.0 and vectors.grad is not None and not vectors.grad.any()


def test_its_gradient_brings_texts_of_a_class_together() -> None:
    torch.manual_seed(0)
    vectors, labels = torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 1])
    vectors[5] = vectors[0]  # equal vectors of different classes, and a zero one
    vectors[2] = 0.0
    vectors.requires_grad_(True)
    before = contrastive_loss(vectors, labels)
    before.backward()
    assert vectors.grad is not None and bool(vectors.grad.isfinite().all())
    with torch.no_grad():
        assert contrastive_loss(vectors - 0.01 * vectors.grad, labels) < before
