"""Best paths of a batch: Viterbi and n-best, in the layout of crf_recursions: (tokens, tags, docs).

Neither waits for the device: what they return is still being computed on a GPU.
"""

from typing import List, Sequence, Tuple

import numpy
import torch
from torch import Tensor

from .recursions import threads_for


def best_states(log_e: Tensor, log_m: Tensor, n_within: Sequence[int]) -> Tensor:
    """Most probable path of each doc (Viterbi). The way forward keeps values only; where each came from is
    looked up again on the way back, for the one state per doc that is on the path.

    log_e (Tensor): Scores from pad_emissions. Float, (n_steps, n_states, n_docs).
    log_m (Tensor): Scores from join_transitions. Float, (n_states, n_states).
    n_within (Sequence[int]): For each step, how many docs to go through; from docs_within.
    RETURNS (Tensor): State of each step. Long, (n_steps, n_docs).

    SOURCE: Viterbi (1967); Forney (1973).
    """
    n_steps, n_states, n_docs = log_e.shape
    best = _centred(log_e)
    if log_e.device.type == "cpu" and n_docs == 1:
        return torch.from_numpy(_best_states_alone(best[:, :, 0].numpy(), log_m.numpy()))[:, None]
    step = log_m.unsqueeze(2)
    candidates = log_e.new_empty(n_states * n_states * n_docs)
    with threads_for(n_states * n_states * n_docs, log_e.device):
        for t in range(1, n_steps):
            n = n_within[t - 1]
            table = candidates[: n_states * n_states * n].view(n_states, n_states, n)
            torch.add(best[t - 1, :, :n].unsqueeze(1), step, out=table)
            best[t, :, :n].add_(table.amax(0))

        states = torch.full((n_steps, n_docs), n_states - 1, device=log_e.device)
        for t in range(n_steps - 2, 0, -1):
            n = n_within[t]
            following = log_m.index_select(1, states[t + 1, :n])
            states[t, :n] = torch.max(following.add_(best[t, :, :n]), 0).indices
    return states


def _best_states_alone(best: numpy.ndarray, log_m: numpy.ndarray) -> numpy.ndarray:
    """The same for one doc in numpy, whose kernels begin several times sooner than torch's.

    best (numpy.ndarray): Scores of each step, overwritten by those of the best paths that end there. Float, (n_steps,
        n_states).
    log_m (numpy.ndarray): Scores from join_transitions. Float, (n_states, n_states).
    RETURNS (numpy.ndarray): State of each step. Int64, (n_steps,).
    """
    n_steps, n_states = best.shape
    into = numpy.ascontiguousarray(log_m.T)  # a row for each state that is entered
    candidates, top = numpy.empty_like(into), numpy.empty_like(best[0])
    for t in range(1, n_steps):
        numpy.add(into, best[t - 1], out=candidates)
        numpy.max(candidates, axis=1, out=top)
        best[t] += top
    states = numpy.full(n_steps, n_states - 1)
    for t in range(n_steps - 2, 0, -1):
        states[t] = (into[states[t + 1]] + best[t]).argmax()
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


def docs_within(mask: Tensor) -> List[int]:
    """For each step, how many docs there are up to the last one that has a token on it: the fewer, the more docs are
    sorted, longest first. On a GPU, which would have to be waited for, all.

    mask (Tensor): True for tokens. Bool, (n_docs, n_tokens).
    RETURNS (List[int]): One for each step, that before the first token and that after the last one included.
    """
    n_docs, n_tokens = mask.shape
    if mask.device.type != "cpu" or not n_docs:
        return [n_docs] * (n_tokens + 2)
    numbers = torch.arange(1, n_docs + 1)[:, None]
    return [n_docs, *(mask * numbers).amax(0).tolist(), 0]


def _centred(log_e: Tensor) -> Tensor:
    """Take each token's best score away, so that sums along long docs stay small and keep their precision."""
    return log_e - log_e.amax(1, keepdim=True).clamp_min(torch.finfo(log_e.dtype).min)
