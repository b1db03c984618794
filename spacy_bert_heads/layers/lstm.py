"""A bidirectional LSTM over texts of different lengths."""

from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .length_groups import group_by_length
from .precision import has_bf16

# Tokens that go through at once on a CPU, and what one more group of texts costs, in tokens
GROUP_SIZE, GROUP_COST = 16384, 64


def bilstm(nI: int, width: int, depth: int) -> torch.nn.LSTM:
    """A bidirectional LSTM whose two directions are together `width` wide."""
    return torch.nn.LSTM(nI, width // 2, num_layers=depth, bidirectional=True, batch_first=True)


def run_bilstm(lstm: torch.nn.LSTM, X: Tensor, lengths: Tensor) -> Tensor:
    """States of each token, both directions side by side.

    lstm (torch.nn.LSTM): From `bilstm`.
    X (Tensor): Token vectors of all texts, one after the other. Float, (n_tokens, nI), at least one token.
    lengths (Tensor): Tokens of each text, on the CPU; 0 is allowed. Int64, (n_texts,).
    RETURNS (Tensor): Float, (n_tokens, nO), of the type that the LSTM computes in.
    """
    lengths = lengths[lengths > 0]
    if X.device.type != "cpu":
        return _run_packed(lstm, X, lengths)
    if torch.is_autocast_enabled("cpu") and not has_bf16(X.device):
        # oneDNN has no LSTM in bf16 for such a CPU
        with torch.autocast("cpu", enabled=False):
            return _run_in_groups(lstm, X.float(), lengths).to(torch.get_autocast_dtype("cpu"))
    return _run_in_groups(lstm, X, lengths)


def _run_packed(lstm: torch.nn.LSTM, X: Tensor, lengths: Tensor) -> Tensor:
    order, batch_sizes = _packed_order(lengths)
    order = order.to(X.device)
    hidden = lstm(PackedSequence(X.index_select(0, order), batch_sizes))[0].data
    return torch.empty_like(hidden).index_copy(0, order, hidden)


def _packed_order(lengths: Tensor) -> Tuple[Tensor, Tensor]:
    """The order in which a PackedSequence holds tokens: the first of each text, longest text first, then the second.

    lengths (Tensor): Tokens of each text. Int64, (n_texts,).
    RETURNS (Tuple[Tensor, Tensor]): Numbers of the tokens, (n_tokens,), and how many texts have a first token, a
        second, and so on, (longest,). Int64.
    """
    longest_first = lengths.argsort(descending=True, stable=True)
    starts = lengths.cumsum(0) - lengths
    steps = torch.arange(int(lengths.max()))[:, None]
    inside = steps < lengths[longest_first]
    return (starts[longest_first] + steps)[inside], inside.sum(1)


def _run_in_groups(lstm: torch.nn.LSTM, X: Tensor, lengths: Tensor) -> Tensor:
    """Padded on the right, each direction by itself: oneDNN has a kernel for that, where torch takes packed texts of
    different lengths token by token (2 times slower on short texts; in training on long ones, far more). The second
    direction reads texts that are turned around in place, so that padding comes last in both.
    """
    if len(lengths) == 1 and not torch.is_grad_enabled():  # nothing to pad, and no copies of what may be a long text
        return _run_alone(lstm, X)
    starts = lengths.cumsum(0) - lengths
    rows, hidden = [], []
    for group in map(torch.from_numpy, group_by_length(lengths.numpy(), GROUP_SIZE, GROUP_COST)):
        n_tokens = lengths[group, None]
        columns = torch.arange(int(n_tokens.max()))
        inside = columns < n_tokens
        own = starts[group, None] + columns
        places = torch.arange(inside.numel()).view_as(inside)
        turned = torch.where(inside, places - 2 * columns + n_tokens - 1, places).flatten()
        Y = X.index_select(0, torch.where(inside, own, 0).flatten())
        for there, back in zip(*(iter(lstm.all_weights),) * 2):
            first = _run_one_way(Y, inside.shape, there)[0]
            second = _run_one_way(Y.index_select(0, turned), inside.shape, back)[0].index_select(0, turned)
            Y = torch.cat((first, second), 1)
        rows.append(own[inside])
        hidden.append(Y[inside.flatten()])
    flat = torch.cat(hidden)
    return torch.empty_like(flat).index_copy(0, torch.cat(rows), flat)


def _run_alone(lstm: torch.nn.LSTM, X: Tensor) -> Tensor:
    """One text, a part after the other if it is long: what oneDNN needs grows with the tokens that go through at
    once. The state at the end of a part is where the next one begins."""
    if len(X) <= GROUP_SIZE:
        alone: Tensor = lstm(X[None])[0][0]
        return alone
    given = X.dtype
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else given
    parts = [slice(start, start + GROUP_SIZE) for start in range(0, len(X), GROUP_SIZE)]
    for there, back in zip(*(iter(lstm.all_weights),) * 2):
        Y = X.new_empty(len(X), 2 * there[1].shape[1], dtype=dtype)
        ahead, behind = Y.chunk(2, 1)
        state: Optional[List[Tensor]] = None
        for part in parts:
            ahead[part], *state = _run_one_way(X[part].to(given), (1, -1), there, state)
        state = None
        for part in reversed(parts):
            turned, *state = _run_one_way(X[part].flip(0).to(given), (1, -1), back, state)
            behind[part] = turned.flip(0)
        X = Y
    return X


def _run_one_way(
    X: Tensor, shape: Tuple[int, ...], weights: Sequence[Tensor], state: Optional[Sequence[Tensor]] = None
) -> Tuple[Tensor, Tensor, Tensor]:
    """One layer in one direction.

    X (Tensor): Float, (n_texts * longest, nI).
    shape (Tuple[int, ...]): (n_texts, longest).
    weights (Sequence[Tensor]): Of the layer and direction, as nn.LSTM.all_weights has them.
    state (Optional[Sequence[Tensor]]): Hidden and cell state to begin with. None: zeros.
    RETURNS (Tuple[Tensor, Tensor, Tensor]): Hidden states of all tokens, (n_texts * longest, width); hidden and cell
        state at the end, (1, n_texts, width).
    """
    if state is None:
        state = [X.new_zeros(1, shape[0], weights[1].shape[1])] * 2
    else:  # in the type of X, as zeros are, whatever autocast computes in
        state = [values.to(X.dtype) for values in state]
    output, hidden, cell = torch.lstm(
        X.view(*shape, X.shape[-1]),
        tuple(state),
        tuple(weights),
        has_biases=True,
        num_layers=1,
        dropout=0.0,
        train=torch.is_grad_enabled(),
        bidirectional=False,
        batch_first=True,
    )
    return output.flatten(0, 1), hidden, cell
