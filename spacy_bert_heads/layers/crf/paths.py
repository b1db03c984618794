"""What the tag scores of a batch say: best paths, n-best paths, uncertainty, exact probabilities of entities.

For each kind of decoder. Probabilities are always our CRF's: with the parameters of pytorch-crf and without
constraints, or, for a head without CRF, with transitions of 0, which makes tokens independent of each other.
"""

import warnings
from functools import lru_cache
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy
import torch
from thinc.api import get_torch_default_device
from thinc.types import Floats2d
from torch import Tensor
from torchcrf import CRF

from ...tags import SCHEMES, TagScheme
from ...types import TagIds
from ..head_layers import pad
from .module import ConditionalRandomField, token_entropy
from .spans import SpanPatterns

# First token, token after the last, number of the label
NumberedSpan = Tuple[int, int, int]
Decoder = Union[CRF, ConditionalRandomField, None]


class Path(NamedTuple):
    """Tags of all tokens of a Doc.

    tags (TagIds): Int, (n_tokens,).
    log_probability (float): Nats, at most 0.
    """

    tags: TagIds
    log_probability: float


class Uncertainty(NamedTuple):
    """How sure a head is of a Doc.

    entropies (numpy.ndarray): Entropy of each token's tag, in nats. Float, (n_tokens,).
    best_marginals (numpy.ndarray): Probability of each token's most probable tag. Float, (n_tokens,).
    path_log_probability (float): Log-probability of the best path, in nats, at most 0; 0 for a Doc of no tokens.
    """

    entropies: numpy.ndarray
    best_marginals: numpy.ndarray
    path_log_probability: float

    @property
    def mean_log_probability(self) -> float:
        """The same per token, so that it does not grow with the Doc.

        RETURNS (float): Nats, at most 0.

        SOURCE: Shen et al. (2018), maximum normalized log-probability.
        """
        return self.path_log_probability / max(len(self.entropies), 1)


class TagPaths:
    """Tag scores of a batch, padded once. Docs of no tokens have one path, the empty one.

    decoder (Decoder): A CRF, or None for tokens that are decided one by one.
    emissions (Sequence[Floats2d]): Tag scores of each Doc in nats. Float, (n_tokens, n_tags).
    scheme (str): One of tags.SCHEMES.
    forbidden (Optional[Sequence[Optional[numpy.ndarray]]]): For each Doc, True for tags that a token cannot have,
        or None. Bool, (n_tokens, n_tags).
    temperature (float): Divides all scores where they become probabilities. Paths and their order stay, for they
        are looked for in the scores as they are. It can be changed.
    """

    def __init__(
        self,
        decoder: Decoder,
        emissions: Sequence[Floats2d],
        scheme: str,
        forbidden: Optional[Sequence[Optional[numpy.ndarray]]] = None,
        temperature: float = 1.0,
    ) -> None:
        self.decoder = decoder
        self.scheme = scheme
        self.temperature = temperature
        self.lengths = [len(scores) for scores in emissions]
        # pytorch-crf takes no empty Docs; ours is faster where the longest come first
        self.used = sorted((i for i, length in enumerate(self.lengths) if length), key=lambda i: -self.lengths[i])
        self.rows = {doc: row for row, doc in enumerate(self.used)}
        device = get_torch_default_device() if decoder is None else next(decoder.parameters()).device
        if self.used:
            self.scores, self.mask = pad_scores([emissions[i] for i in self.used], device)
            if forbidden is not None:
                self._forbid(forbidden)

    def best(self) -> List[TagIds]:
        """RETURNS (List[TagIds]): The best path of each Doc. Int, (n_tokens,)."""
        paths = [numpy.zeros(0, dtype="int64") for _ in self.lengths]
        if self.used:
            decoded = decode(self.decoder, self.scores, self.mask)
            for row, doc in enumerate(self.used):
                paths[doc] = decoded[row][: self.lengths[doc]]
        return paths

    def nbest(self, n: int) -> List[List[Path]]:
        """RETURNS (List[List[Path]]): The n best paths of each Doc, best first; all, where it has fewer."""
        found = [[Path(numpy.zeros(0, dtype="int64"), 0.0)][:n] for _ in self.lengths]
        if self.used and n > 0:
            scores = self.scores.to(_widest(self.scores))
            paths, values, exists = self._plain_crf().nbest(scores, self.mask, n)
            log_z = self._crf().log_partition(scores / self.temperature, self.mask)
            values = (values / self.temperature - log_z[:, None]).clamp_max(0.0)
            tags, logs, there = paths.cpu().numpy(), values.tolist(), exists.tolist()
            for row, doc in enumerate(self.used):
                length = self.lengths[doc]
                found[doc] = [Path(tags[row, k, :length], logs[row][k]) for k in range(n) if there[row][k]]
        return found

    def uncertainty(self, paths: Sequence[TagIds]) -> List[Uncertainty]:
        """How sure the head is of each Doc.

        paths (Sequence[TagIds]): What `best` gives.
        RETURNS (List[Uncertainty]): One for each Doc.
        """
        nothing = numpy.zeros(0, dtype="float32")
        found = [Uncertainty(nothing, nothing, 0.0) for _ in self.lengths]
        if self.used:
            crf, scores = self._crf(), self._tempered(self.scores)
            marginals = crf.marginals(scores, self.mask)
            entropies, best = token_entropy(marginals).cpu().numpy(), marginals.amax(2).cpu().numpy()
            tags = torch.zeros(self.mask.shape, dtype=torch.long)
            for row, doc in enumerate(self.used):
                tags[row, : self.lengths[doc]] = torch.from_numpy(paths[doc])
            logs = crf.path_log_probability(scores, tags.to(self.mask.device), self.mask).tolist()
            for row, doc in enumerate(self.used):
                length = self.lengths[doc]
                # Copies: parts of the batch's arrays would keep all of it in memory
                found[doc] = Uncertainty(entropies[row, :length].copy(), best[row, :length].copy(), logs[row])
        return found

    def marginals(self) -> List[numpy.ndarray]:
        """RETURNS (List[numpy.ndarray]): Probability of each tag on each token. Float, (n_tokens, n_tags) per Doc."""
        n_tags = self.scores.shape[2] if self.used else 0
        found = [numpy.zeros((0, n_tags), dtype="float32") for _ in self.lengths]
        if self.used:
            table = self._crf().marginals(self._tempered(self.scores), self.mask).cpu().numpy()
            for row, doc in enumerate(self.used):
                found[doc] = table[row, : self.lengths[doc]]
        return found

    def span_log_probabilities(self, spans: Sequence[Tuple[int, NumberedSpan]]) -> numpy.ndarray:
        """Exact log-probabilities of entities, written as the scheme writes them; see ConditionalRandomField.

        spans (Sequence[Tuple[int, NumberedSpan]]): Doc and entity.
        RETURNS (numpy.ndarray): Nats, at most 0. Float, (n_spans,).
        """
        if not spans:
            return numpy.zeros(0, dtype="float32")
        # The longest come first, here too. In most texts few Docs have entities
        rows = sorted({self.rows[doc] for doc, _ in spans})
        places = {self.used[row]: place for place, row in enumerate(rows)}
        table = torch.tensor([[places[doc], *span] for doc, span in spans])
        scores, mask = self.scores, self.mask
        if len(rows) < len(self.used):
            longest = self.lengths[self.used[rows[0]]]
            scores, mask = scores[rows, :longest], mask[rows, :longest]
        scores = self._tempered(scores)
        patterns = span_patterns(self.scheme, scores.shape[2], scores.device)
        return self._crf().span_log_probability(scores, mask, table, patterns).cpu().numpy()

    def _tempered(self, scores: Tensor) -> Tensor:
        return scores if self.temperature == 1.0 else scores / self.temperature

    def _crf(self) -> ConditionalRandomField:
        """For probabilities: our CRF with the decoder's parameters, at the temperature."""
        crf = self._plain_crf()
        return crf if self.temperature == 1.0 else crf.at_temperature(self.temperature)

    def _plain_crf(self) -> ConditionalRandomField:
        """Our CRF with the decoder's parameters."""
        if isinstance(self.decoder, ConditionalRandomField):
            return self.decoder
        crf = ConditionalRandomField(self.scores.shape[2])
        if self.decoder is None:
            for parameter in crf.parameters():
                torch.nn.init.zeros_(parameter)
        else:
            crf.load_state_dict(self.decoder.state_dict())
        return crf.to(self.scores.device)

    def _forbid(self, forbidden: Sequence[Optional[numpy.ndarray]]) -> None:
        given = [(row, forbidden[doc]) for row, doc in enumerate(self.used)]
        if all(tags is None for _, tags in given):
            return
        table = torch.zeros(self.scores.shape, dtype=torch.bool)
        for row, tags in given:
            if tags is not None:
                table[row, : len(tags)] = torch.from_numpy(tags)
        self.scores = self.scores.masked_fill(table.to(self.scores.device), -torch.inf)


def decode(decoder: Decoder, scores: Tensor, mask: Tensor) -> List[TagIds]:
    """The best path of each Doc.

    decoder (Decoder): A CRF, or None for tokens that are decided one by one.
    scores (Tensor): Tag scores. Float, (n_docs, n_tokens, n_tags).
    mask (Tensor): True for tokens; pytorch-crf takes no Doc of none. Bool, (n_docs, n_tokens).
    RETURNS (List[TagIds]): Int, (n_tokens,) or longer by padding.
    """
    if decoder is None:
        return list(scores.argmax(2).cpu().numpy())
    if isinstance(decoder, ConditionalRandomField):
        return list(decoder.viterbi(scores, mask)[0].cpu().numpy())
    with torch.no_grad(), warnings.catch_warnings():
        # pytorch-crf turns every mask into uint8, about which torch warns
        warnings.filterwarnings("ignore", message=".*uint8 condition tensor.*")
        return [numpy.array(path, dtype="int64") for path in decoder.decode(scores, mask)]


def pad_scores(emissions: Sequence[Floats2d], device: torch.device) -> Tuple[Tensor, Tensor]:
    """RETURNS (Tuple[Tensor, Tensor]): Emissions (n_docs, n_tokens, n_tags), and the mask of their tokens, bool,
    (n_docs, n_tokens)."""
    scores = pad(list(emissions), device)
    lengths = torch.tensor([len(array) for array in emissions])
    return scores, (torch.arange(scores.shape[1]) < lengths.unsqueeze(1)).to(scores.device)


@lru_cache(maxsize=32)
def span_patterns(scheme: str, n_tags: int, device: torch.device) -> SpanPatterns:
    """How a scheme writes entities, looked up once.

    scheme (str): One of tags.SCHEMES.
    n_tags (int): Number of tags, which says how many labels there are.
    device (torch.device): Where the emissions are.
    RETURNS (SpanPatterns): See there.
    """
    tags = unnamed_scheme(scheme, n_tags)
    return SpanPatterns(torch.tensor(tags.span_tags, device=device), torch.tensor(tags.forbidden_next, device=device))


def unnamed_scheme(scheme: str, n_tags: int) -> TagScheme:
    """RETURNS (TagScheme): The scheme for so many tags: what may follow what does not depend on the labels' names."""
    n_labels = (n_tags - 1) // len(set(SCHEMES[scheme]))
    return TagScheme(scheme, [str(i) for i in range(n_labels)])


def _widest(scores: Tensor) -> torch.dtype:
    """Sums of scores along long Docs hardly differ between paths: take float64 where there is one."""
    return torch.float32 if scores.device.type == "mps" else torch.float64
