"""Probability of an entity under the CRF: exactly these borders, exactly this label."""

from typing import NamedTuple, Tuple

import torch
from torch import Tensor

from .recursions import Lattice


class SpanPatterns(NamedTuple):
    """How a scheme writes an entity: the tags of TagScheme.span_tags and .forbidden_next as tensors.

    roles (Tensor): Tags for first, inside, last and single, for each label. Long, (n_labels, 4).
    forbidden_next (Tensor): True for tags that cannot follow the entity. Bool, (n_labels, n_tags).
    """

    roles: Tensor
    forbidden_next: Tensor


def span_chain(lattice: Lattice, spans: Tensor, patterns: SpanPatterns, mask: Tensor) -> Tensor:
    """Log-probability of entities as a chain: the first tag, each next tag given the one before, then a tag
    that does not make it longer. Each link is a probability of its own, so nothing large cancels.

    lattice (Lattice): Both directions of the batch.
    spans (Tensor): Doc, first token, token after the last, label. Long, (n_spans, 4).
    patterns (SpanPatterns): How the scheme writes an entity.
    mask (Tensor): True for tokens. Bool, (n_docs, n_tokens).
    RETURNS (Tensor): Nats, at most 0; minus infinity if the entity ends after its Doc. Float, (n_spans,).
    """
    tags, inside = _span_tags(spans, patterns)
    docs, starts, ends, labels = spans.to(mask.device).unbind(1)
    final = mask.shape[1] + 1  # step 0 is before the first token, this one after the last
    steps = (starts[:, None] + 1 + torch.arange(tags.shape[1], device=mask.device)).clamp_max(final)
    leaving = lattice.as_log(lattice.leaving[steps, tags, docs[:, None]])
    entering = lattice.as_log(lattice.suffix[steps, tags, docs[:, None]])

    first = lattice.as_log(lattice.prefix[steps[:, 0], tags[:, 0], docs]) + leaving[:, 0]
    first -= lattice.as_log(lattice.agreement[steps[:, 0], 0, docs])
    # Where nothing can follow a tag, another term is minus infinity already: keep the sum from being NaN.
    leaving.masked_fill_(leaving == -torch.inf, 0.0)
    links = lattice.log_m[tags[:, :-1], tags[:, 1:]] + entering[:, 1:] - leaving[:, :-1]
    links.masked_fill_(~inside[:, 1:], 0.0)
    last = (ends - starts - 1)[:, None]
    after = lattice.as_log(lattice.suffix[(ends + 1).clamp_max(final), :, docs])
    after = after + lattice.log_m[tags.gather(1, last)[:, 0]]
    after[:, :-1].masked_fill_(patterns.forbidden_next[labels], -torch.inf)
    closing = after.logsumexp(1) - leaving.gather(1, last)[:, 0]
    return (first + links.sum(1) + closing).clamp_max(0.0)


def departures(spans: Tensor, patterns: SpanPatterns, mask: Tensor) -> Tensor:
    """All ways not to have an entity, as sets of paths without overlap: set k follows the entity for k tokens
    and leaves it at the next one, or makes it longer where k is its length. The last set is all paths.

    spans (Tensor): Doc, first token, token after the last, label. Long, (n_spans, 4).
    patterns (SpanPatterns): How the scheme writes an entity.
    mask (Tensor): True for tokens of the Doc of each span. Bool, (n_spans, n_tokens).
    RETURNS (Tensor): Allowed tags of each set; a set that cannot be allows nothing. Bool, (n_spans, n_sets,
        n_tokens, n_tags).
    """
    tags, _ = _span_tags(spans, patterns)
    longest = tags.shape[1]
    _, starts, ends, labels = spans.to(mask.device).unbind(1)
    n_tokens, n_tags = mask.shape[1], patterns.forbidden_next.shape[1]
    offset = torch.arange(n_tokens, device=mask.device) - starts[:, None]
    inside = (offset >= 0) & (offset < (ends - starts)[:, None])
    expected = tags.gather(1, offset.clamp(0, longest - 1))
    follows = (expected[:, :, None] == torch.arange(n_tags, device=mask.device)) & inside[:, :, None]
    longer = (offset == (ends - starts)[:, None])[:, :, None] & patterns.forbidden_next[labels][:, None]
    leaves = (inside[:, :, None] & ~follows) | longer

    k = torch.arange(longest + 1, device=mask.device)[:, None, None]
    offset = offset[:, None, :, None]
    allowed = torch.where(
        offset == k, leaves[:, None], torch.where((offset >= 0) & (offset < k), follows[:, None], True)
    )
    in_doc = starts[:, None] + k[:, 0, 0] < mask.sum(1)[:, None]
    possible = in_doc & (k[:, 0, 0] <= (ends - starts)[:, None])
    everything = torch.ones_like(allowed[:, :1])
    return torch.cat((allowed & possible[:, :, None, None], everything), 1)


def _span_tags(spans: Tensor, patterns: SpanPatterns) -> Tuple[Tensor, Tensor]:
    """RETURNS (Tuple[Tensor, Tensor]): Tags of the entities' tokens, long, and whether each token is in the
    entity, bool; (n_spans, longest) each, on the device of the patterns."""
    longest = int((spans[:, 2] - spans[:, 1]).max())
    roles = patterns.roles
    lengths = (spans[:, 2] - spans[:, 1]).to(roles.device)[:, None]
    offset = torch.arange(longest, device=roles.device)
    first, inside, last, single = roles[spans[:, 3].to(roles.device)][:, :, None].unbind(1)
    tags = torch.where(offset == 0, first, torch.where(offset == lengths - 1, last, inside))
    return torch.where(lengths == 1, single, tags), offset < lengths
