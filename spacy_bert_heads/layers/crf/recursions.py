"""Sums over every tag path of a batch: forward-backward in scaled probabilities, exact for any scores.

Layout inside this file is (tokens, tags, docs): docs are contiguous, so that a step is a few wide kernels.
Before the first token, after the last and on padding a doc is in one extra tag, "outside": leaving it costs
the start score, entering it the end score. So docs of any length, 0 and 1 too, need no case of their own.

    n_steps = n_tokens + 2 (one outside step at each end)        n_states = n_tags + 1 (outside is the last)
"""

from contextlib import contextmanager
from typing import Callable, Iterator, List, Optional, Tuple

import numpy
import torch
from torch import Tensor

# Smallest state probability that the scaled recursion may carry, and smallest agreement between the two
# directions: below, a path that matters later could have been rounded to nothing.
SMALLEST_STATE = {torch.float32: 1e-37, torch.float64: 1e-300}
SMALLEST_AGREEMENT = {torch.float32: 1e-30, torch.float64: 1e-250}

# Transition scores up to this go into the recursion as they are.
LARGEST_STEP = 30.0
# Steps whose rows are cut apart at once: of a long doc, a million tensors would take more memory than the tables.
BLOCK = 4096
# A kernel of fewer operations than this is done before a second thread has begun (measured on 2 cores).
OPERATIONS_FOR_THREADS = 1_000_000


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep products of float32 exact: no autocast, no TF32 and no bf16 inside a matrix product.

    device (torch.device): Where the tensors are.
    """
    before = torch.get_float32_matmul_precision()
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if before != "highest":
            torch.set_float32_matmul_precision(before)


@contextmanager
def threads_for(n_operations: int, device: torch.device) -> Iterator[None]:
    """Run a loop of small CPU kernels in this thread alone: starting others takes longer than such a kernel.

    n_operations (int): Operations of the largest kernel.
    device (torch.device): Where the tensors are.
    """
    before = torch.get_num_threads()
    alone = device.type == "cpu" and before > 1 and n_operations < OPERATIONS_FOR_THREADS
    if alone:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if alone:
            torch.set_num_threads(before)


def sum_dtype(device: torch.device) -> torch.dtype:
    """Type for sums over the tokens of a doc: float64 where the device has it.

    device (torch.device): Where the tensors are.
    RETURNS (torch.dtype): float64, or float32 on Apple's GPUs.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def join_transitions(start: Tensor, end: Tensor, transitions: Tensor, legal: Optional[Tensor]) -> Tensor:
    """One matrix of transition scores that holds the start and end scores as well.

    start (Tensor): Score of each tag on the first token, in nats. Float, (n_tags,).
    end (Tensor): Score of each tag on the last token. Float, (n_tags,).
    transitions (Tensor): Score from a tag (row) to the next token's tag (column). Float, (n_tags, n_tags).
    legal (Optional[Tensor]): True where the scheme allows the step. Bool, (n_states, n_states).
    RETURNS (Tensor): Minus infinity where illegal. Float, (n_states, n_states).
    """
    n_tags = len(start)
    joined = transitions.new_zeros(n_tags + 1, n_tags + 1)
    joined[:n_tags, :n_tags] = transitions
    joined[n_tags, :n_tags] = start
    joined[:n_tags, n_tags] = end
    return joined if legal is None else joined.masked_fill_(~legal, -torch.inf)


def pad_emissions(emissions: Tensor, mask: Tensor, allowed: Optional[Tensor] = None) -> Tensor:
    """Tag scores in this file's layout, with the outside tag and an outside step at each end.

    emissions (Tensor): Tag scores in nats. Float, (n_docs, n_tokens, n_tags).
    mask (Tensor): True for tokens, False for padding on the right. Bool, (n_docs, n_tokens).
    allowed (Optional[Tensor]): True where a tag may be used. Bool, (n_docs, n_tokens, n_tags).
    RETURNS (Tensor): Minus infinity where a state cannot be. Float, (n_steps, n_states, n_docs).
    """
    n_docs, n_tokens, n_tags = emissions.shape
    padded = emissions.new_full((n_tokens + 2, n_tags + 1, n_docs), -torch.inf)
    padded[0, n_tags] = 0.0
    padded[-1, n_tags] = 0.0
    tokens = padded[1:-1, :n_tags]
    tokens.copy_(emissions.permute(1, 2, 0))
    mask = mask.t()
    tokens.masked_fill_(~mask[:, None], -torch.inf)
    padded[1:-1, n_tags].masked_fill_(~mask, 0.0)
    if allowed is not None:
        tokens.masked_fill_(~allowed.permute(1, 2, 0), -torch.inf)
    return padded


def tags_to_docs(states: Tensor) -> Tensor:
    """Values per state in the layout of the public methods, without the outside tag and steps. A view.

    states (Tensor): One value per state. (n_steps, n_states, n_docs).
    RETURNS (Tensor): One value per tag. (n_docs, n_tokens, n_tags).
    """
    return states[1:-1, :-1].permute(2, 0, 1)


def state_path(paths: Tensor, mask: Tensor, n_tags: int) -> Tensor:
    """Tag paths in this file's layout: outside on padding and on a step at each end.

    paths (Tensor): Tag of each token; anything on padding. Long, (n_docs, n_tokens).
    mask (Tensor): True for tokens. Bool, (n_docs, n_tokens).
    n_tags (int): Number of tags, and so the number of the outside state.
    RETURNS (Tensor): State of each step. Long, (n_steps, n_docs).
    """
    states = paths.new_full((paths.shape[1] + 2, paths.shape[0]), n_tags)
    states[1:-1] = torch.where(mask, paths, n_tags).t()
    return states


def path_score(log_e: Tensor, log_m: Tensor, states: Tensor) -> Tensor:
    """Score of one path per doc, not normalised.

    log_e (Tensor): Scores from pad_emissions. Float, (n_steps, n_states, n_docs).
    log_m (Tensor): Scores from join_transitions. Float, (n_states, n_states).
    states (Tensor): Paths from state_path. Long, (n_steps, n_docs).
    RETURNS (Tensor): Nats, minus infinity for an illegal path. Float of sum_dtype, (n_docs,).
    """
    dtype = sum_dtype(log_e.device)
    steps = log_m.flatten()[states[:-1] * len(log_m) + states[1:]].sum(0, dtype=dtype)
    return steps + log_e.gather(1, states[:, None])[:, 0].sum(0, dtype=dtype)


class Lattice:
    """What forward-backward knows about a batch.

    Prefix, suffix, leaving and agreement are probabilities or their logs (as_log gives logs), each step on a
    scale of its own that cancels out: the marginal of i on step t is prefix[t, i] * leaving[t, i] /
    agreement[t]; the probability that j follows it is exp(log_m[i, j]) * suffix[t + 1, j] / leaving[t, i].

    log_z (Tensor): Log of the sum over all paths, in nats. Float of sum_dtype, (n_docs,).
    lost (Tensor): True if a path that may matter fell out of the range of the float type. Bool, ().
    log_m (Tensor): Scores from join_transitions, less a constant. Float, (n_states, n_states).
    prefix (Tensor): Paths that end in a state, its emission included. (n_steps, n_states, n_docs).
    suffix (Tensor): Paths that begin in a state, its emission included. (n_steps, n_states, n_docs).
    leaving (Tensor): Paths that begin in a state, its emission left out. (n_steps, n_states, n_docs).
    agreement (Tensor): Sum of prefix * leaving over states. (n_steps, 1, n_docs).
    """

    log_z: Tensor
    lost: Tensor
    log_m: Tensor
    prefix: Tensor
    suffix: Tensor
    leaving: Tensor
    agreement: Tensor

    def marginals(self) -> Tensor:
        """RETURNS (Tensor): Probability of each state on each step. Float, (n_steps, n_states, n_docs)."""
        raise NotImplementedError

    def transition_counts(self, weights: Tensor) -> Tensor:
        """Expected number of times each transition is used, docs weighted and summed.

        weights (Tensor): Weight of each doc. Float, (n_docs,).
        RETURNS (Tensor): Expected counts. Float, (n_states, n_states).
        """
        raise NotImplementedError

    def as_log(self, values: Tensor) -> Tensor:
        """RETURNS (Tensor): Logs of values taken from prefix, suffix, leaving or agreement."""
        raise NotImplementedError


class ScaledLattice(Lattice):
    """Forward-backward as matrix products of probabilities, brought back to sum 1 at each step.

    log_e (Tensor): Scores from pad_emissions. Float, (n_steps, n_states, n_docs).
    log_m (Tensor): Scores from join_transitions. Float, (n_states, n_states).
    both (bool): Run the backward direction too, stacked with the forward one; needed for all but log_z.

    SOURCE: Rabiner (1989), section V.A, on scaling.
    """

    def __init__(self, log_e: Tensor, log_m: Tensor, *, both: bool) -> None:
        n_steps = len(log_e)
        shift = log_e.amax(1, keepdim=True)
        shift.masked_fill_(shift == -torch.inf, 0.0)
        # Only so much that one step cannot overflow: elsewhere padding keeps a factor of exactly 1.
        shift_m = (log_m.amax() - LARGEST_STEP).clamp_min(0.0)
        # Large tensors are reused where possible: pages of fresh memory cost as much as the sums themselves.
        e = torch.sub(log_e, shift)
        self.log_m = log_m - shift_m
        self.m = self.log_m.exp()
        smallest = SMALLEST_STATE[e.dtype]

        # Both directions advance in one kernel; the second one is stored from the last step to the first.
        directions = 2 if both else 1
        entered = e.new_empty(directions, *e.shape)
        scale = e.new_ones(n_steps, directions, 1, e.shape[2])
        smallest_log_e = torch.nan_to_num(e, neginf=0.0, out=entered[0]).amin()
        e.exp_()
        entered[:, 0].copy_(e[0])
        entered[:, -1].copy_(e[-1])
        left = e.new_empty(n_steps + 1 if both else 1, *e.shape[1:])
        if e.device.type == "cpu" and e.shape[2] == 1:
            tables = [table[..., 0].numpy() for table in (e, entered, left, scale)]
            _advance_alone(*tables, m=self.m.numpy(), smallest=smallest)
        else:
            _advance(torch.stack((self.m.t(), self.m)[:directions]), e, entered, left, scale, smallest)

        dtype = sum_dtype(e.device)
        log_z = scale[:, 0, 0].log().sum(0, dtype=dtype) + shift[:, 0].sum(0, dtype=dtype)
        log_z = log_z + (n_steps - 1) * shift_m
        self.log_z = log_z.masked_fill_(entered[0, -1, -1] == 0, -torch.inf)
        self.lost = self._lost(smallest_log_e, entered, spare=e)
        if both:
            left[-1, :-1], left[-1, -1] = 0.0, 1.0
            self.prefix, self.suffix, self.leaving = entered[0], entered[1], left[1:]
            self.joint = torch.mul(self.prefix, self.leaving, out=e)
            self.agreement = self.joint.sum(1, keepdim=True)
            disagree = (self.agreement < SMALLEST_AGREEMENT[e.dtype]) & (self.log_z > -torch.inf)
            self.lost = self.lost | disagree.any()

    def _lost(self, smallest_log_e: Tensor, entered: Tensor, spare: Tensor) -> Tensor:
        """No state can fall from the threshold to 0 in one step: one that got lost is seen in between."""
        smallest_log_m = torch.nan_to_num(self.log_m, neginf=torch.inf).amin() - self.log_m.amax()
        smallest_share = (smallest_log_e + smallest_log_m).exp() / len(self.m)
        per_threshold = smallest_share / SMALLEST_STATE[entered.dtype]
        lost = per_threshold < 1
        for direction in entered:
            in_between = torch.mul(direction, per_threshold, out=spare).clamp_max_(1.0).frac_()
            lost = lost | (in_between.amax() > 0)
        return lost

    def marginals(self) -> Tensor:
        return self.joint / self.agreement.clamp_min(SMALLEST_STATE[self.joint.dtype])

    def transition_counts(self, weights: Tensor) -> Tensor:
        smallest = SMALLEST_STATE[self.m.dtype]
        weighted = self.suffix[1:] * (weights / self.agreement[:-1].clamp_min(smallest))
        counts = torch.bmm(self.prefix[:-1], weighted.transpose(1, 2)).sum(0)
        return torch.where(self.m > 0, counts * self.m, 0.0)

    def as_log(self, values: Tensor) -> Tensor:
        return values.log()


def _advance(step: Tensor, e: Tensor, entered: Tensor, left: Tensor, scale: Tensor, smallest: float) -> None:
    """Both directions of the scaled recursion, or the forward one, step by step. What is not given is written.

    step (Tensor): Factors of the transitions, those of the forward direction turned around. (directions, n_states,
        n_states).
    e (Tensor): Factors of the emissions. (n_steps, n_states, n_docs).
    entered (Tensor): First and last step are given. (directions, n_steps, n_states, n_docs).
    left (Tensor): The backward direction with its emission left out, one row late. (n_steps + 1, n_states, n_docs).
        The first row is for use meanwhile, and is the only one without the backward direction.
    scale (Tensor): What each step was divided by; the first row is given. (n_steps, directions, 1, n_docs).
    smallest (float): The least divisor.
    """
    directions, n_steps = entered.shape[:2]
    both, left_ahead = directions == 2, left[0]
    previous = _pair(entered, 0, 2 * n_steps - 1, directions)
    with threads_for(directions * step[0].numel() * e.shape[2], e.device):
        for first in range(1, n_steps, BLOCK):
            ahead = slice(first, min(first + BLOCK, n_steps))
            behind = slice(n_steps - ahead.stop, n_steps - first)
            emissions, scales, rows = e[ahead].unbind(0), scale[ahead].unbind(0), entered[0, ahead].unbind(0)
            if both:
                emissions_back = e[behind].unbind(0)[::-1]
                left_back, rows_back = left[1:][behind].unbind(0)[::-1], entered[1, behind].unbind(0)[::-1]
            for i in range(len(rows)):
                back = n_steps - 1 - first - i
                current = _pair(entered, first + i, n_steps + back, directions)
                torch.bmm(step, previous, out=_pair(left, 0, back + 1, directions))
                torch.mul(left_ahead, emissions[i], out=rows[i])
                if both:
                    torch.mul(left_back[i], emissions_back[i], out=rows_back[i])
                torch.sum(current, 1, keepdim=True, out=scales[i])
                current.div_(scales[i].clamp_min_(smallest))
                previous = current


def _advance_alone(
    e: numpy.ndarray,
    entered: numpy.ndarray,
    left: numpy.ndarray,
    scale: numpy.ndarray,
    *,
    m: numpy.ndarray,
    smallest: float,
) -> None:
    """`_advance` for one doc, without its axis, in numpy, whose kernels begin several times sooner than torch's."""

    def enter(
        factors: numpy.ndarray, before: numpy.ndarray, t: int, left: numpy.ndarray, entered: numpy.ndarray
    ) -> float:
        numpy.dot(factors, before, out=left)
        numpy.multiply(left, e[t], out=entered)
        divisor: float = max(entered.sum(), smallest)
        entered /= divisor
        return divisor

    into, ahead, behind = numpy.ascontiguousarray(m.T), entered[0], entered[-1]
    for t in range(1, len(e)):
        scale[t, 0] = enter(into, ahead[t - 1], t, left[0], ahead[t])
        if len(entered) == 2:
            back = len(e) - 1 - t
            scale[t, 1] = enter(m, behind[back + 1], back, left[back + 1], behind[back])


def _pair(rows: Tensor, first: int, second: int, directions: int) -> Tensor:
    """RETURNS (Tensor): Rows `first` and `second` as one batch, or `first` alone. A view, (directions,
    n_states, n_docs)."""
    n_states, n_docs = rows.shape[-2:]
    size = n_states * n_docs
    return rows.as_strided((directions, n_states, n_docs), ((second - first) * size, n_docs, 1), first * size)


class LogLattice(Lattice):
    """Forward-backward in logs: slower, right for scores of any size. Taken only where ScaledLattice is lost.

    log_e (Tensor): Scores from pad_emissions. Float, (n_steps, n_states, n_docs).
    log_m (Tensor): Scores from join_transitions. Float, (n_states, n_states).
    """

    def __init__(self, log_e: Tensor, log_m: Tensor) -> None:
        self.log_m = log_m
        emit = torch.stack((log_e, log_e.flip(0)), 1)
        step = torch.stack((log_m, log_m.t()))
        entered, left = emit.clone(), torch.full_like(emit, -torch.inf)
        dtype = sum_dtype(log_e.device)
        log_z = log_e.new_zeros(log_e.shape[2], dtype=dtype)
        for t in range(1, len(emit)):
            left[t] = torch.logsumexp(entered[t - 1].unsqueeze(2) + step.unsqueeze(3), 1)
            entered[t] = left[t] + emit[t]
            top = entered[t].amax(1, keepdim=True).clamp_min(torch.finfo(emit.dtype).min)
            entered[t] -= top
            log_z += top[0, 0]
        self.log_z = log_z + entered[-1, 0, -1]
        self.lost = torch.zeros((), dtype=torch.bool, device=log_e.device)
        left[0, 1, -1] = 0.0
        self.prefix, self.suffix = entered[:, 0], entered[:, 1].flip(0)
        self.leaving = left[:, 1].flip(0)
        joint = self.prefix + self.leaving
        self.agreement = torch.logsumexp(joint, 1, keepdim=True).clamp_min(torch.finfo(emit.dtype).min)
        self.log_marginals = joint - self.agreement

    def marginals(self) -> Tensor:
        return self.log_marginals.exp()

    def transition_counts(self, weights: Tensor) -> Tensor:
        counts = torch.zeros_like(self.log_m)
        for t in range(len(self.prefix) - 1):
            future = self.suffix[t + 1] - self.agreement[t]
            counts += torch.exp(self.prefix[t].unsqueeze(1) + self.log_m.unsqueeze(2) + future) @ weights
        return counts

    def as_log(self, values: Tensor) -> Tensor:
        return values


def solve(
    log_e: Tensor, log_m: Tensor, *, both: bool, impossible: Callable[[Lattice], Tensor]
) -> Tuple[Lattice, List[bool]]:
    """Forward-backward by the fastest way that is exact for these scores. Waits for the device once, or once
    more for each way that was not wide enough.

    log_e (Tensor): Scores from pad_emissions. Float, (n_steps, n_states, n_docs).
    log_m (Tensor): Scores from join_transitions. Float, (n_states, n_states).
    both (bool): Run both directions; one is enough for log_z.
    impossible (Callable[[Lattice], Tensor]): What else the caller wants to know on the host. Bool, (n,).
    RETURNS (Tuple[Lattice, List[bool]]): The sums, and `impossible` of them.
    """
    for dtype in {log_e.dtype: None, sum_dtype(log_e.device): None}:
        lattice: Lattice = ScaledLattice(log_e.to(dtype), log_m.to(dtype), both=both)
        lost, *answers = torch.cat((lattice.lost[None], impossible(lattice))).tolist()
        if not lost:
            return lattice, answers
    lattice = LogLattice(log_e.to(dtype), log_m.to(dtype))
    return lattice, impossible(lattice).tolist()
