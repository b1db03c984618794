"""The heads as torch modules."""

from typing import Optional

import torch
from torch import Tensor

from .lstm import GROUP_SIZE, bilstm, run_bilstm


class Classifier(torch.nn.Module):
    """Dropout and a linear layer, as on top of BertForSequenceClassification.

    nI (int): Width of the input.
    nO (int): Number of labels.
    dropout_samples (int): Dropouts of the same vector in training, whose logits are averaged.
    standardize (bool): Whether to centre and scale the vectors first, see Standardizer.

    SOURCE: for several dropouts Inoue (2019), Multi-Sample Dropout, who averages their losses.
    """

    def __init__(self, nI: int, nO: int, dropout_samples: int = 1, standardize: bool = False) -> None:
        super().__init__()
        self.standardizer = Standardizer(nI) if standardize else None
        self.dropout_samples = dropout_samples
        self.dropout = torch.nn.Dropout(0.0)
        self.linear = linear(nI, nO)

    def forward(self, X: Tensor) -> Tensor:
        """X (Tensor): Float, (..., nI). RETURNS (Tensor): Logits. Float, (..., nO)."""
        if self.standardizer is not None:
            X = self.standardizer(X)
        if not self.training:
            return self.linear(X)
        # The layer is linear, so the logits of the mean are the mean of the logits
        return self.linear(sum(self.dropout(X) for _ in range(self.dropout_samples)) / self.dropout_samples)


class Standardizer(torch.nn.Module):
    """Vectors with a mean of 0 and a deviation of about 1, by running figures of those seen in training.

    Some encoders' vectors of texts are all nearly the same, and a layer on top of them learns slowly. The figures are
    constants to gradients, so a batch may be of any size. Each number is centred by itself; all are scaled together,
    which leaves the vectors' directions from their centre as they are.

    nI (int): Width of the vectors.

    SOURCE: running figures as in batch normalisation, Ioffe and Szegedy (2015).
    """

    # Share of a new batch in the running figures
    SHARE = 0.1
    SMALLEST = 1e-6

    def __init__(self, nI: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.variance: Tensor
        self.seen: Tensor
        self.register_buffer("mean", torch.zeros(nI))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, X: Tensor) -> Tensor:
        """X (Tensor): Float, (n_docs, nI). RETURNS (Tensor): Of the same shape."""
        if self.training and len(X):
            self._update(X.detach().float())
        return (X - self.mean) / (self.variance + self.SMALLEST).sqrt()

    def take(self, X: Tensor) -> None:
        """Have the figures of these vectors, and let later batches move them. X (Tensor): Float, (n_docs, nI)."""
        self.mean.copy_(X.mean(dim=0))
        self.variance.copy_((X - self.mean).square().mean())
        self.seen.fill_(round(1 / self.SHARE))

    def _update(self, X: Tensor) -> None:
        # The first batches count alike, as in a plain mean
        self.seen += 1
        share = max(self.SHARE, 1.0 / float(self.seen))
        self.mean.lerp_(X.mean(dim=0), share)
        # Around the running mean, so that batches of one text tell something too
        self.variance.lerp_((X - self.mean).square().mean(), share)


class SequenceTagger(torch.nn.Module):
    """Dropout, a bidirectional LSTM if asked for, dropout, and a linear layer to one score per tag.

    nI (int): Width of the input.
    nO (int): Number of tags.
    lstm_width (Optional[int]): Width of the LSTM's output, both directions together. None: no LSTM, which leaves
        the head of BertForTokenClassification.
    lstm_depth (int): Number of LSTM layers.

    SOURCE: Huang, Xu and Yu (2015).
    """

    def __init__(self, nI: int, nO: int, lstm_width: Optional[int], lstm_depth: int) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.0)
        self.lstm: Optional[torch.nn.LSTM] = None
        if lstm_width is not None:
            self.lstm = bilstm(nI, lstm_width, lstm_depth)
        self.linear = linear(nI if lstm_width is None else lstm_width, nO)

    def forward(self, X: Tensor, lengths: Tensor, lstm_type: Optional[torch.dtype] = None) -> Tensor:
        """Score tags.

        X (Tensor): Token vectors of all Docs, one after the other. Float, (n_tokens, nI), at least one token.
        lengths (Tensor): Tokens of each Doc, on the CPU; 0 is allowed. Int64, (n_docs,).
        lstm_type (Optional[torch.dtype]): What the LSTM computes in. None: float32, as everything else here.
        RETURNS (Tensor): Emissions. Float, (n_tokens, nO).
        """
        X = self.dropout(X)
        if self.lstm is None:
            return self.linear(X)
        with torch.autocast(X.device.type, dtype=lstm_type, enabled=lstm_type is not None):
            X = run_bilstm(self.lstm, X, lengths)
        # Of a long text, a copy of all its states in float32 would be the most memory that a prediction ever needs
        size = len(X) if torch.is_grad_enabled() else GROUP_SIZE
        parts = [self.linear(self.dropout(part.float())) for part in X.split(size)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def linear(nI: int, nO: int) -> torch.nn.Linear:
    """A linear layer as Hugging Face initialises those on top of BERT."""
    layer = torch.nn.Linear(nI, nO)
    torch.nn.init.normal_(layer.weight, std=0.02)
    torch.nn.init.zeros_(layer.bias)
    return layer
