"""Linear-chain CRF in torch: constrained by a tag scheme, partial labels, exact probabilities of entities.

Parameters have pytorch-crf's names, so weights load both ways; constraints are not part of the state.
Everything is computed in float32 (float64 for float64 emissions), inside any autocast.
"""

from copy import deepcopy
from typing import Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from ...errors import BertHeadsError
from .decoding import best_states, docs_within, n_best_states
from .gradient import PathSum, solve_possible
from .recursions import full_precision, join_transitions, pad_emissions, path_score, tags_to_docs
from .spans import SpanPatterns, departures, span_chain

BoolMatrix = Union[Tensor, Sequence[Sequence[bool]]]
BoolVector = Union[Tensor, Sequence[bool]]


class ConditionalRandomField(nn.Module):
    """Scores for tags that follow each other, and sums and maxima over all paths of tags.

    In every method emissions (Tensor) are tag scores in nats, not normalised: float, (n_docs, n_tokens,
    n_tags); and mask (Tensor) is True for tokens, False for padding, which is on the right: bool, (n_docs,
    n_tokens). A Doc of no tokens has one path, the empty one. Illegal steps have probability 0 everywhere.

    num_tags (int): Number of tags.
    allowed_transitions (Optional[BoolMatrix]): True where a tag (row) may be followed by a tag (column).
        Bool, (num_tags, num_tags).
    allowed_start (Optional[BoolVector]): True where the first token may have the tag. Bool, (num_tags,).
    allowed_end (Optional[BoolVector]): True where the last token may have the tag. Bool, (num_tags,).
    RAISES (BertHeadsError): H231 for a constraint of the wrong shape, H232 for no tags.

    SOURCE: Lafferty, McCallum and Pereira (2001).
    """

    legal: Optional[Tensor]

    def __init__(
        self,
        num_tags: int,
        *,
        allowed_transitions: Optional[BoolMatrix] = None,
        allowed_start: Optional[BoolVector] = None,
        allowed_end: Optional[BoolVector] = None,
    ) -> None:
        super().__init__()
        if num_tags < 1:
            raise BertHeadsError("H232", found=num_tags)
        self.num_tags = num_tags
        self.start_transitions = nn.Parameter(torch.empty(num_tags))
        self.end_transitions = nn.Parameter(torch.empty(num_tags))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
        constraints = (allowed_transitions, allowed_start, allowed_end)
        legal = None if all(given is None for given in constraints) else self._join_constraints(*constraints)
        self.register_buffer("legal", legal, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all transition scores from -0.1 to 0.1, as pytorch-crf does."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    @torch.no_grad()
    def at_temperature(self, temperature: float) -> "ConditionalRandomField":
        """A copy whose transition scores are divided by a temperature. With emissions divided by it too, every path's
        log-probability is that of its score divided by the temperature: the order of the paths stays.

        temperature (float): Above 0; above 1 for less extreme probabilities.
        """
        copy = deepcopy(self)
        for parameter in copy.parameters():
            parameter.div_(temperature)
        return copy

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Log of the sum over all legal paths of exp(score of the path).

        RETURNS (Tensor): Nats. Float, (n_docs,). A Doc of no tokens gives 0.
        RAISES (BertHeadsError): H230 if shapes or types differ; H330 if a Doc has no legal path.
        """
        self._check_emissions(emissions, mask)
        return self._sum(emissions, mask, relative=False).to(_dtype(emissions))

    def log_likelihood(self, emissions: Tensor, allowed: Tensor, mask: Tensor) -> Tensor:
        """Log-probability that the true tag path stays within the allowed tags.

        With one allowed tag per token this is the usual CRF log-likelihood. With several, all paths through
        them are summed, so tokens that nobody annotated neither help nor hurt. Paths that the tag scheme
        forbids are left out of both sums.

        allowed (Tensor): True where a tag fits the annotation. Bool, (n_docs, n_tokens, n_tags).
        RETURNS (Tensor): Nats, at most 0. Float, (n_docs,). Exactly 0, with a gradient of exactly 0, for a
            Doc in which everything is allowed or that has no tokens. Minus infinity, with a gradient of 0, if no
            legal path fits the annotation.
        RAISES (BertHeadsError): H230 if shapes or types differ.

        SOURCE: Tsuboi et al. (2008), Training Conditional Random Fields Using Incomplete Annotations.
        """
        self._check_emissions(emissions, mask)
        self._check("allowed", allowed, emissions.shape, torch.bool)
        log_likelihood = self._sum(emissions, mask, allowed, relative=True).to(_dtype(emissions))
        everything = (allowed | ~mask[:, :, None]).flatten(1).all(1)
        return log_likelihood.masked_fill(everything & ~log_likelihood.isneginf(), 0.0)

    def log_likelihood_of_tags(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Log-probability of one path per Doc: log_likelihood for complete annotation, at half the cost.

        tags (Tensor): Tag of each token, anything on padding. Long, (n_docs, n_tokens).
        RETURNS (Tensor): Nats, at most 0. Float, (n_docs,). Minus infinity, with a gradient of 0, for an
            illegal path.
        RAISES (BertHeadsError): H230 if shapes or types differ.
        """
        self._check_emissions(emissions, mask)
        self._check("tags", tags, emissions.shape[:2], torch.long)
        return self._sum(emissions, mask, tags=tags, relative=True).to(_dtype(emissions))

    @torch.no_grad()
    def path_log_probability(self, emissions: Tensor, paths: Tensor, mask: Tensor) -> Tensor:
        """Log-probability of a decoded path, without gradient. Divide by the number of tokens to compare.

        paths (Tensor): Tag of each token, anything on padding. Long, (n_docs, n_tokens).
        RETURNS (Tensor): Nats, at most 0. Float, (n_docs,). Minus infinity for an illegal path.
        RAISES (BertHeadsError): H230 if shapes or types differ.
        """
        return self.log_likelihood_of_tags(emissions, paths, mask)

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Most probable path of each Doc. Does not wait for the device.

        RETURNS (Tuple[Tensor, Tensor]): Paths, 0 on padding, long, (n_docs, n_tokens), and their scores in
            nats, not normalised, float, (n_docs,); minus infinity for a Doc that has no legal path.
        RAISES (BertHeadsError): H230 if shapes or types differ.
        """
        with full_precision(emissions.device):
            log_e, log_m = self._scores(emissions, mask)
            states = best_states(log_e, log_m, docs_within(mask))
            scores = path_score(log_e, log_m, states).to(log_e.dtype)
        return states[1:-1].t().masked_fill(~mask, 0), scores

    @torch.no_grad()
    def nbest(self, emissions: Tensor, mask: Tensor, n: int) -> Tuple[Tensor, Tensor, Tensor]:
        """The n most probable paths of each Doc, best first. Does not wait for the device.

        n (int): Number of paths to look for.
        RETURNS (Tuple[Tensor, Tensor, Tensor]): Paths, 0 on padding, long, (n_docs, n, n_tokens); their
            scores in nats, not normalised, float, (n_docs, n); and False where a Doc has fewer paths, bool,
            (n_docs, n).
        RAISES (BertHeadsError): H230 if shapes or types differ.
        """
        with full_precision(emissions.device):
            log_e, log_m = self._scores(emissions, mask)
            states, exists = n_best_states(log_e, log_m, n)
            ranks = [path_score(log_e, log_m, states[:, rank]) for rank in range(n)]
            scores = torch.stack(ranks, 1).to(log_e.dtype)
        exists = exists.t()
        paths = states[1:-1].permute(2, 1, 0).masked_fill(~(mask[:, None] & exists[:, :, None]), 0)
        return paths, scores.masked_fill(~exists, -torch.inf), exists

    @torch.no_grad()
    def marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Exact probability of each tag on each token, without gradient.

        RETURNS (Tensor): Probabilities, 0 on padding. Float, (n_docs, n_tokens, n_tags).
        RAISES (BertHeadsError): H230 if shapes or types differ; H330 if a Doc has no legal path.
        """
        with full_precision(emissions.device):
            log_e, log_m = self._scores(emissions, mask)
            lattice = solve_possible(log_e, log_m, both=True)
            return tags_to_docs(lattice.marginals().to(log_e.dtype))

    @torch.no_grad()
    def span_log_probability(self, emissions: Tensor, mask: Tensor, spans: Tensor, patterns: SpanPatterns) -> Tensor:
        """Exact log-probability of entities: this label, exactly these borders, the other tokens free.

        spans (Tensor): Doc, first token, token after the last, label. Long, (n_spans, 4). Best on the CPU:
            the longest is looked up on the host.
        patterns (SpanPatterns): How the scheme writes an entity.
        RETURNS (Tensor): Nats, at most 0, without gradient. Float, (n_spans,). Minus infinity if the entity
            ends after its Doc.
        RAISES (BertHeadsError): H230 if shapes or types differ; H330 if a Doc has no legal path.
        """
        self._check("spans", spans, (len(spans), 4), torch.long)
        with full_precision(emissions.device):
            log_e, log_m = self._scores(emissions, mask)
            if len(spans) == 0:
                return log_e.new_zeros(0)
            lattice = solve_possible(log_e, log_m, both=True)
            return span_chain(lattice, spans, patterns, mask).to(log_e.dtype)

    def rejected_span_loss(self, emissions: Tensor, mask: Tensor, spans: Tensor, patterns: SpanPatterns) -> Tensor:
        """-log(1 - P(entity)) for entities that somebody rejected; P as in span_log_probability.

        1 - P is the sum over the paths that leave the entity at its first token, at its second, ... or that
        make it longer: sums of positive numbers only, so that it is exact however sure the model was.

        spans (Tensor): Doc, first token, token after the last, label. Long, (n_spans, 4). Best on the CPU.
        patterns (SpanPatterns): How the scheme writes an entity.
        RETURNS (Tensor): Nats, at least 0. Float, (n_spans,). Infinity, with a gradient of 0, if every legal path
            has the entity; not a number if the Doc has no legal path.
        RAISES (BertHeadsError): H230 if shapes or types differ.
        """
        self._check_emissions(emissions, mask)
        self._check("spans", spans, (len(spans), 4), torch.long)
        if len(spans) == 0:
            return emissions.new_zeros(0)
        docs = spans[:, 0].to(emissions.device)
        allowed = departures(spans, patterns, mask[docs])
        n_spans, n_rows = allowed.shape[:2]
        docs = docs.repeat_interleave(n_rows)
        rows = emissions.index_select(0, docs)
        sums = self._sum(rows, mask[docs], allowed.flatten(0, 1), None, relative=False).view(n_spans, n_rows)
        return (sums[:, -1] - sums[:, :-1].logsumexp(1)).clamp_min(0.0).to(_dtype(emissions))

    def _weights(self) -> Tuple[Tensor, Tensor, Tensor, Optional[Tensor]]:
        return self.start_transitions, self.end_transitions, self.transitions, self.legal

    def _sum(
        self,
        emissions: Tensor,
        mask: Tensor,
        allowed: Optional[Tensor] = None,
        tags: Optional[Tensor] = None,
        *,
        relative: bool,
    ) -> Tensor:
        weights = self._weights()
        learns = torch.is_grad_enabled() and any(
            given is not None and given.requires_grad for given in (emissions, *weights)
        )
        return PathSum.apply(emissions, *weights, mask, allowed, tags, relative, learns)

    def _scores(self, emissions: Tensor, mask: Tensor) -> Tuple[Tensor, Tensor]:
        self._check_emissions(emissions, mask)
        dtype = _dtype(emissions)
        start, end, transitions, legal = self._weights()
        log_m = join_transitions(start.to(dtype), end.to(dtype), transitions.to(dtype), legal)
        return pad_emissions(emissions.to(dtype), mask), log_m

    def _check_emissions(self, emissions: Tensor, mask: Tensor) -> None:
        if emissions.dim() != 3 or emissions.shape[2] != self.num_tags or not emissions.is_floating_point():
            expected = f"float (n_docs, n_tokens, {self.num_tags})"
            raise BertHeadsError("H230", name="emissions", expected=expected, found=_describe(emissions))
        self._check("mask", mask, emissions.shape[:2], torch.bool)

    @staticmethod
    def _check(name: str, given: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
        if given.shape != tuple(shape) or given.dtype != dtype:
            expected = f"{str(dtype).replace('torch.', '')} {tuple(shape)}"
            raise BertHeadsError("H230", name=name, expected=expected, found=_describe(given))

    def _join_constraints(
        self,
        allowed_transitions: Optional[BoolMatrix],
        allowed_start: Optional[BoolVector],
        allowed_end: Optional[BoolVector],
    ) -> Tensor:
        n_tags = self.num_tags
        legal = torch.ones(n_tags + 1, n_tags + 1, dtype=torch.bool)
        parts = {
            "allowed_transitions": (legal[:n_tags, :n_tags], allowed_transitions),
            "allowed_start": (legal[n_tags, :n_tags], allowed_start),
            "allowed_end": (legal[:n_tags, n_tags], allowed_end),
        }
        for name, (part, given) in parts.items():
            if given is not None:
                given = torch.as_tensor(given, dtype=torch.bool)
                if given.shape != part.shape:
                    expected = f"bool {tuple(part.shape)}"
                    raise BertHeadsError("H231", name=name, expected=expected, found=_describe(given))
                part.copy_(given)
        return legal


def _dtype(emissions: Tensor) -> torch.dtype:
    return torch.float64 if emissions.dtype == torch.float64 else torch.float32


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).replace('torch.', '')} {tuple(tensor.shape)}"


def token_entropy(marginals: Tensor) -> Tensor:
    """Uncertainty of each token's tag.

    marginals (Tensor): Probabilities of tags. Float, (n_docs, n_tokens, n_tags).
    RETURNS (Tensor): Nats, 0 on padding. Float, (n_docs, n_tokens).
    """
    return torch.special.entr(marginals).sum(-1)


def allowed_from_tags(tags: Tensor, n_tags: int, extends: Optional[Tensor] = None) -> Tensor:
    """Allowed tags for annotation with gaps: the given tag where there is one, every tag where there is none.

    A known entity ends where the annotation says so: on a gap right after it, tags that would make it longer
    are not allowed (I-X after B-X or I-X in BIO; other schemes mark the end themselves).

    tags (Tensor): Tag of each token, negative if unknown. Long, (n_docs, n_tokens).
    n_tags (int): Number of tags.
    extends (Optional[Tensor]): TagScheme.extends. Bool, (n_tags, n_tags).
    RETURNS (Tensor): Bool, (n_docs, n_tokens, n_tags).
    """
    unknown = tags < 0
    allowed = unknown[:, :, None] | (tags[:, :, None] == torch.arange(n_tags, device=tags.device))
    if extends is not None:
        after_known = unknown[:, 1:] & ~unknown[:, :-1]
        allowed[:, 1:] &= ~(after_known[:, :, None] & extends[tags[:, :-1].clamp_min(0)])
    return allowed
