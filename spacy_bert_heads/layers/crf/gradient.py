"""Sums over paths as one autograd step.

The gradient of a log sum is the expected counts under that sum, so no graph over the tokens is kept.
"""

from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...errors import BertHeadsError
from .recursions import (
    Lattice,
    full_precision,
    join_transitions,
    pad_emissions,
    path_score,
    solve,
    state_path,
    tags_to_docs,
)


def solve_possible(log_e: Tensor, log_m: Tensor, *, both: bool) -> Lattice:
    """Forward-backward for docs that all have a legal path.

    log_e (Tensor): Scores from pad_emissions. Float, (n_steps, n_states, n_docs).
    log_m (Tensor): Scores from join_transitions. Float, (n_states, n_states).
    both (bool): Run both directions; one is enough for log_z.
    RETURNS (Lattice): The sums.
    RAISES (BertHeadsError): H330 if a Doc has no legal path.
    """
    lattice, impossible = solve(log_e, log_m, both=both, impossible=lambda sums: torch.isneginf(sums.log_z))
    _raise_impossible(impossible)
    return lattice


class PathSum(torch.autograd.Function):
    """Log of the sum over some paths: the path `tags`, the paths within `allowed`, or all legal ones.

    With `relative`, less the log of the sum over all legal paths. Where there are no such paths the result is
    minus infinity, and its gradient 0 whatever arrives; only a sum over all legal paths that has none raises H330.
    """

    @staticmethod
    def forward(
        ctx: Any,
        emissions: Tensor,
        start: Tensor,
        end: Tensor,
        transitions: Tensor,
        legal: Optional[Tensor],
        mask: Tensor,
        allowed: Optional[Tensor],
        tags: Optional[Tensor],
        relative: bool,
        learns: bool,
    ) -> Tensor:
        """Compute the sums, and what the gradient needs if `learns`; shapes as in ConditionalRandomField.

        RETURNS (Tensor): Nats. Float of sum_dtype, (n_docs,).
        RAISES (BertHeadsError): H330 for all legal paths without `relative`.
        """
        dtype = torch.float64 if emissions.dtype == torch.float64 else torch.float32
        n_docs, n_tags = len(emissions), emissions.shape[2]
        # The sums that make up the result lie side by side as if they were docs; each is added or taken off.
        signs = [1.0, -1.0] if relative and allowed is not None else [-1.0] if relative else [1.0]
        with full_precision(emissions.device):
            log_m = join_transitions(start.to(dtype), end.to(dtype), transitions.to(dtype), legal)
            log_e = pad_emissions(emissions.to(dtype), mask)
            states = None if tags is None else state_path(tags, mask, n_tags)
            path = 0.0 if states is None else path_score(log_e, log_m, states)
            if allowed is not None:
                within = pad_emissions(emissions.to(dtype), mask, allowed)
                log_e = torch.cat((within, log_e), 2) if relative else within

            def result(sums: Lattice) -> Tensor:
                return path + sum(sign * part for sign, part in zip(signs, sums.log_z.split(n_docs)))

            def impossible(sums: Lattice) -> Tensor:
                return torch.isneginf(torch.stack(sums.log_z.split(n_docs)).amin(0) + path)

            lattice, missing = solve(log_e, log_m, both=learns, impossible=impossible)
        if not relative and allowed is None:
            _raise_impossible(missing)
        none = impossible(lattice)
        if learns:
            ctx.lattice, ctx.states, ctx.signs, ctx.none = lattice, states, signs, none
            ctx.dtypes = [given.dtype for given in (emissions, start, end, transitions)]
        return result(lattice).clamp_max(0.0).masked_fill(none, -torch.inf) if relative else result(lattice)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Expected counts under each sum, weighted by the gradient of the result.

        grad (Tensor): Gradient of each Doc's result. Float, (n_docs,).
        RETURNS (Tuple[Optional[Tensor], ...]): Gradients of forward's arguments; None for those without.
        """
        lattice, states = ctx.lattice, ctx.states
        grad = grad.masked_fill(ctx.none, 0.0)
        with full_precision(grad.device):
            weights = torch.cat([sign * grad for sign in ctx.signs]).to(lattice.prefix.dtype)
            d_m = lattice.transition_counts(weights)
            d_e = lattice.marginals().mul_(weights)
            if len(ctx.signs) == 2:
                d_e = d_e[:, :, : len(grad)].add_(d_e[:, :, len(grad) :])
            if states is not None:
                d_e.scatter_add_(1, states[:, None], grad.to(d_e.dtype).expand(len(states), 1, -1))
                steps = (states[:-1] * len(d_m) + states[1:]).flatten()
                d_m.view(-1).scatter_add_(0, steps, grad.to(d_m.dtype).repeat(len(states) - 1))
        d_weights = (d_m[-1, :-1], d_m[:-1, -1], d_m[:-1, :-1])
        gradients = (tags_to_docs(d_e), *d_weights)
        return *(g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes)), None, None, None, None, None, None


def _raise_impossible(missing: List[bool]) -> None:
    docs = [doc for doc, is_missing in enumerate(missing) if is_missing]
    if docs:
        raise BertHeadsError("H330", found=docs)
