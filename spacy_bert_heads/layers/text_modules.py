"""Text classifiers over token vectors, as torch modules.

All of them read texts of different lengths in one rectangle and give each text what it would get alone: what lies
beyond its end is zero for every convolution and never the largest for any pooling. A text of no tokens counts as one
token of zeros.

Each takes X (Tensor): token vectors, zeros beyond each text's end, float (n_docs, n_tokens, nI), at least one token;
and lengths (Tensor): tokens of each text, at least 1, on the CPU, int64 (n_docs,).
Each returns a Tensor: one vector per text, float (n_docs, width), or logits, float (n_docs, nO).
"""

from typing import Callable, Dict, Sequence

import torch
from torch import Tensor

from .head_modules import Classifier
from .lstm import bilstm, run_bilstm

POOLINGS = ("mean", "max", "attention")


class TextClassifier(torch.nn.Module):
    """Dropout over the token vectors, a network that makes one vector of them, and a Classifier on top.

    body (torch.nn.Module): The network; `width` is that of its vector.
    nO (int): Number of labels.
    """

    def __init__(self, body: torch.nn.Module, nO: int) -> None:
        super().__init__()
        self.body = body
        self.classifier = Classifier(body.width, nO)  # type: ignore[arg-type]

    @property
    def dropout(self) -> torch.nn.Dropout:
        """RETURNS (torch.nn.Dropout): The one dropout below and above the network, whose rate training sets."""
        return self.classifier.dropout

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        return self.classifier(self.body(self.dropout(X), lengths))


class TextCNN(torch.nn.Module):
    """Convolutions of several widths, ReLU, and the largest value of each filter over the text.

    nI (int): Width of the input.
    filters (int): Filters of each kernel.
    kernels (Sequence[int]): Tokens a kernel spans. A text shorter than a kernel is followed by zeros.

    SOURCE: Kim (2014), Convolutional Neural Networks for Sentence Classification.
    """

    def __init__(self, nI: int, filters: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.kernels = kernels
        self.width = filters * len(kernels)
        self.convolutions = torch.nn.ModuleList(torch.nn.Conv1d(nI, filters, kernel) for kernel in kernels)

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        features = []
        for kernel, convolution in zip(self.kernels, self.convolutions):
            missing = max(0, kernel - X.shape[1])
            Y = convolution(torch.nn.functional.pad(X, (0, 0, 0, missing)).transpose(1, 2)).transpose(1, 2)
            features.append(_largest(Y, (lengths - kernel + 1).clamp(min=1)))
        return torch.relu(torch.cat(features, dim=1))


class TextRNN(torch.nn.Module):
    """A bidirectional LSTM; the states of its last layer after the last token forwards and the first backwards.

    nI (int): Width of the input.
    lstm_width (int): Width of the LSTM's output, both directions together.
    lstm_depth (int): Layers of the LSTM.
    """

    def __init__(self, nI: int, lstm_width: int, lstm_depth: int) -> None:
        super().__init__()
        self.width = lstm_width
        self.lstm = bilstm(nI, lstm_width, lstm_depth)

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        forwards, backwards = _states(self.lstm, X, lengths).chunk(2, dim=2)
        last = lengths.to(X.device) - 1
        return torch.cat([forwards[torch.arange(len(X), device=X.device), last], backwards[:, 0]], dim=1)


class TextRNNAttention(torch.nn.Module):
    """A bidirectional LSTM, and the tanh of the mean of its states, weighted by how much each matters.

    nI, lstm_width, lstm_depth: see TextRNN.

    SOURCE: Zhou et al. (2016), Attention-Based Bidirectional LSTM Networks for Relation Classification, equations 9
        to 12; their LSTM adds the directions, this one puts them side by side.
    """

    def __init__(self, nI: int, lstm_width: int, lstm_depth: int) -> None:
        super().__init__()
        self.width = lstm_width
        self.lstm = bilstm(nI, lstm_width, lstm_depth)
        self.score = torch.nn.Linear(lstm_width, 1, bias=False)

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        H = _states(self.lstm, X, lengths)
        return torch.tanh(_weighted_mean(H, self.score(torch.tanh(H)), lengths))


class TextRCNN(torch.nn.Module):
    """Each token beside a bidirectional LSTM's view of it, a dense layer with tanh, and each unit's largest value over
    the text.

    nI, lstm_width, lstm_depth: see TextRNN.
    hidden_width (int): Width of the dense layer.

    SOURCE: Lai et al. (2015), Recurrent Convolutional Neural Networks for Text Classification. Their context of a
        token is a plain recurrent network over those before and behind it; an LSTM's state holds the token as well.
    """

    def __init__(self, nI: int, lstm_width: int, lstm_depth: int, hidden_width: int) -> None:
        super().__init__()
        self.width = hidden_width
        self.lstm = bilstm(nI, lstm_width, lstm_depth)
        self.hidden = torch.nn.Linear(lstm_width + nI, hidden_width)

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        H = torch.cat([_states(self.lstm, X, lengths), X], dim=2)
        return _largest(torch.tanh(self.hidden(H)), lengths)


class DPCNN(torch.nn.Module):
    """Convolutions of 3 tokens in blocks with shortcuts; each block first halves the text by the largest of 3 in steps
    of 2. What is left is pooled by its largest values.

    nI (int): Width of the input.
    filters (int): Filters of every convolution.
    depth (int): Blocks that halve the text. One token stays one token, so short texts are read by deep networks too.

    SOURCE: Johnson and Zhang (2017), Deep Pyramid Convolutional Neural Networks for Text Categorization, with one
        region embedding and no unsupervised ones.
    """

    def __init__(self, nI: int, filters: int, depth: int) -> None:
        super().__init__()
        self.width = filters
        self.region = torch.nn.Conv1d(nI, filters, 3, padding=1)
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleList(torch.nn.Conv1d(filters, filters, 3, padding=1) for _ in range(2))
            for _ in range(depth + 1)
        )

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        mask = _mask(X.shape[1], lengths, X.device)[:, None]
        Y = self.region(X.transpose(1, 2)) * mask
        for i, block in enumerate(self.blocks):
            if i:
                Y = _halve(Y.masked_fill(~mask, -torch.inf))
                lengths = (lengths + 1) // 2
                mask = _mask(Y.shape[2], lengths, X.device)[:, None]
                Y = Y.masked_fill(~mask, 0.0)
            shortcut = Y
            for convolution in block:  # type: ignore[attr-defined]
                Y = convolution(torch.relu(Y)) * mask
            Y = Y + shortcut
        return _largest(Y.transpose(1, 2), lengths)


class VectorPooling(torch.nn.Module):
    """One vector of many: their mean, their largest values, or a mean weighted by attention.

    nI (int): Width.
    pooling (str): One of POOLINGS. Attention scores each vector by a learned query, zeros at first,
        which gives the mean.
    """

    def __init__(self, nI: int, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        if pooling == "attention":
            self.score = torch.nn.Linear(nI, 1, bias=False)
            torch.nn.init.zeros_(self.score.weight)

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        if self.pooling == "max":
            return _largest(X, lengths)
        scores = self.score(X) if self.pooling == "attention" else torch.zeros_like(X[:, :, :1])
        return _weighted_mean(X, scores, lengths)


class LayerMix(torch.nn.Module):
    """The weighted mean of an encoder's embeddings and layers, the weights learned and the same at first.

    n_layers (int): How many there are, embeddings counted.

    SOURCE: Peters et al. (2018), equation 1, with gamma = 1.
    """

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(n_layers))

    def forward(self, *layers: Tensor) -> Tensor:
        """layers (Tensor): Embeddings and layers. Float, (n, width) each. RETURNS (Tensor): Float, (n, width)."""
        shares = self.weights.softmax(0)
        return sum((share * layer for share, layer in zip(shares, layers)), torch.zeros_like(layers[0]))


def text_classifier(body: str, nI: int, nO: int, **settings: int) -> TextClassifier:
    """A TextClassifier by the name of its network. settings: the network's arguments besides nI."""
    return TextClassifier(BODIES[body](nI, **settings), nO)


def _states(lstm: torch.nn.LSTM, X: Tensor, lengths: Tensor) -> Tensor:
    """States at every token. Float, (n_docs, n_tokens, width); zeros beyond each text's end."""
    mask = _mask(X.shape[1], lengths, X.device)
    hidden = run_bilstm(lstm, X[mask], lengths)
    return hidden.new_zeros(*mask.shape, hidden.shape[1]).masked_scatter(mask[:, :, None], hidden)


def _mask(n_tokens: int, lengths: Tensor, device: torch.device) -> Tensor:
    """True for tokens. Bool, (n_docs, n_tokens)."""
    return torch.arange(n_tokens, device=device) < lengths.to(device)[:, None]


def _largest(Y: Tensor, lengths: Tensor) -> Tensor:
    """Largest value of each column over a text. Y: float (n_docs, n_tokens, width)."""
    return Y.masked_fill(~_mask(Y.shape[1], lengths, Y.device)[:, :, None], -torch.inf).amax(dim=1)


def _weighted_mean(Y: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
    """Mean over a text, weighted by the softmax of scores, float (n_docs, n_tokens, 1)."""
    mask = _mask(Y.shape[1], lengths, Y.device)[:, :, None]
    shares = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
    return torch.bmm(shares.transpose(1, 2), Y)[:, 0]


def _halve(Y: Tensor) -> Tensor:
    """The largest of tokens 0 to 2, 2 to 4, and so on. Float, (n_docs, width, ceil(n_tokens / 2))."""
    n_tokens = Y.shape[2]
    padded = torch.nn.functional.pad(Y, (0, 1 + n_tokens % 2), value=-torch.inf)
    return torch.nn.functional.max_pool1d(padded, kernel_size=3, stride=2)


BODIES: Dict[str, Callable[..., torch.nn.Module]] = {
    "cnn": TextCNN,
    "rnn": TextRNN,
    "rnn_attention": TextRNNAttention,
    "rcnn": TextRCNN,
    "dpcnn": DPCNN,
}
