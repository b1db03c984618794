"""Vectors of texts of one class nearer to each other than to all others."""

import torch
from torch import Tensor

# Divides the cosines: the lower, the more the nearest texts of other classes count
TEMPERATURE = 0.1


def contrastive_loss(vectors: Tensor, classes: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """For each text the mean of -log of the share that a text of its class has in the similarity to all others of
    the batch; the mean over the texts that have another one of their class beside them.

    vectors (Tensor): Only their directions count. Float, (n_docs, width).
    classes (Tensor): Number of each text's class. Int64, (n_docs,).
    temperature (float): Above 0.
    RETURNS (Tensor): In nats, 0 if no two texts have the same class. Float, ().

    SOURCE: Khosla et al. (2020), Supervised Contrastive Learning, equation 2 (the sum over positives outside the
        logarithm).
    """
    directions = torch.nn.functional.normalize(vectors, dim=1)
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    similarities = (directions @ directions.T / temperature).masked_fill(itself, -torch.inf)
    log_shares = similarities.log_softmax(dim=1).masked_fill(itself, 0.0)
    same = (classes[:, None] == classes[None, :]) & ~itself
    n_same = same.sum(dim=1)
    paired = n_same > 0
    if not bool(paired.any()):
        return vectors.sum() * 0.0
    return -((log_shares * same).sum(dim=1)[paired] / n_same[paired]).mean()
