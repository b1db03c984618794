"""Best paths of a batch: Viterbi and n-best, in the layout of crf_recursions: (tokens, tags, docs).

Neither waits for the device: what they return is still being computed on a GPU.
"""

from typing import Tuple

import torch
from torch import Tensor

from .crf_recursions import threads_for


def best_states(log_e: Tensor, log_m: Tensor) -> Tensor:
    """Most probable path of each doc (Viterbi). The way forward keeps values only; where each came from is
    looked up again on the way back, for the one state per doc that is on the path.

    log_e (Tensor): Scores from pad_emissions. Float, (n_steps, n_states, n_docs).
    log_m (Tensor): Scores from join_transitions. Float, (n_states, n_states).
    RETURNS (Tensor): State of each step. Long, (n_steps, n_docs).

    SOURCE: Viterbi (1967); Forney (1973).
    """
    n_steps, n_states, n_docs = log_e.shape
    step = log_m.unsqueeze(2)
    candidates = log_e.new_empty(n_states, n_states, n_docs)
    best = _centred(log_e)
    rows = best.unbind(0)
    top = torch.empty_like(rows[0])
    with threads_for(n_states * n_states * n_docs, log_e.device):
        for previous, row in zip(rows, rows[1:]):
            torch.add(previous.unsqueeze(1), step, out=candidates)
            torch.amax(candidates, 0, out=top)
            row.add_(top)

        states = torch.full((n_steps, n_docs), n_states - 1, device=log_e.device)
        current = states[-1]
        for t in range(n_steps - 2, 0, -1):
            current = torch.max(rows[t] + log_m.index_select(1, current), 0).indices
            states[t] = current
    return states


def n_best_states(log_e: Tensor, log_m: Tensor, n: int) -> Tuple[Tensor, Tensor]:
    """The n most probable paths of each doc, best first.

    log_e (Tensor): Scores from pad_emissions. Float, (n_steps, n_states, n_docs).
    log_m (Tensor): Scores from join_transitions. Float, (n_states, n_states).
    n (int): Number of paths to look for.
    RETURNS (Tuple[Tensor, Tensor]): States, long, (n_steps, n, n_docs), and whether there is such a path,
        bool, (n, n_docs).
    """
    n_steps, n_states, n_docs = log_e.shape
    log_e = _centred(log_e)
    best = log_e.new_full((n_states, n, n_docs), -torch.inf)
    best[-1, 0] = 0.0
    origins = []
    step = log_m[:, None, :, None]
    for t in range(1, n_steps):
        candidates = (best.unsqueeze(2) + step).reshape(n_states * n, n_states, n_docs)
        top, origin = candidates.topk(n, 0)
        best = (top + log_e[t]).transpose(0, 1)
        origins.append(origin.transpose(0, 1).reshape(n_states * n, n_docs))

    states = torch.full((n_steps, n, n_docs), n_states - 1, device=log_e.device)
    current = torch.arange((n_states - 1) * n, n_states * n, device=log_e.device)[:, None].expand(n, n_docs)
    for t in range(n_steps - 2, 0, -1):
        current = origins[t].gather(0, current)
        states[t] = current // n
    return states, best[-1] > -torch.inf


def _centred(log_e: Tensor) -> Tensor:
    """Take each token's best score away, so that sums along long docs stay small and keep their precision."""
    return log_e - log_e.amax(1, keepdim=True).clamp_min(torch.finfo(log_e.dtype).min)
