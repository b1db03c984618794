"""A small transformer decoder that points at tokens: the torch modules."""

import math
from typing import List, NamedTuple, Optional, Tuple, cast

import torch
from torch import Tensor
from torch.nn.functional import gelu, scaled_dot_product_attention

from ..head_modules import linear
from .automaton import START, Rules, Steps, legal

# Distances up to this one have a number of their own; further ones share it with their likes
EXACT_DISTANCES = 16
# Further than this, all are alike
LONGEST_DISTANCE = 512
N_FAR = 8
N_BUCKETS = 2 * (EXACT_DISTANCES + N_FAR) - 1
N_KINDS = 3

# Keys and values of one attention: (n_rows, n_heads, n_keys, head_width) each
KeysValues = Tuple[Tensor, Tensor]


class PointerMemory(torch.nn.Module):
    """Dropout, a linear layer to the decoder's width, and its normalisation: what the decoder reads and points at.

    nI (int): Width of the token vectors.
    nO (int): Width of the decoder.
    """

    def __init__(self, nI: int, nO: int) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.0)
        self.linear = linear(nI, nO)
        torch.nn.init.xavier_uniform_(self.linear.weight)
        self.norm = torch.nn.LayerNorm(nO)

    def forward(self, X: Tensor, lengths: Tensor, lstm_type: Optional[torch.dtype] = None) -> Tensor:
        """X (Tensor): Float, (n_tokens, nI). RETURNS (Tensor): Float, (n_tokens, nO)."""
        return self.norm(self.linear(self.dropout(X)))


class Memory(NamedTuple):
    """Texts as the decoder reads them.

    vectors (Tensor): What it is told of a token that it has chosen. Float, (n_texts, n_tokens, width).
    keys (Tensor): What its queries meet when it points. Of the same shape.
    seen (List[KeysValues]): Keys and values of each layer's attention to the text.
    is_token (Tensor): False for padding. Bool, (n_texts, n_tokens).
    rules (Rules): What is legal.
    """

    vectors: Tensor
    keys: Tensor
    seen: List[KeysValues]
    is_token: Tensor
    rules: Rules


class PointerDecoder(torch.nn.Module):
    """Log-probabilities of the next symbol, given those before it and the text.

    The logit of a token is the dot product of a query with a vector of the token, plus a number for its distance from
    the token that was chosen last; that of a label or of the end is the product with a vector of its own. The softmax
    is over the legal symbols alone.

    nO (int): Number of labels.
    width (int): Width of all vectors.
    depth (int): Number of layers.
    heads (int): Attention heads of each.

    SOURCE: Yan et al. (2021), arXiv 2106.01223, who fine-tune BART; pointers: Vinyals et al. (2015); numbers for
    distances: Raffel et al. (2020).
    """

    def __init__(self, nO: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.0)
        self.labels = torch.nn.Parameter(torch.randn(nO, width))
        self.begin = torch.nn.Parameter(torch.randn(width))
        self.end = torch.nn.Parameter(torch.randn(width))
        self.kinds = torch.nn.Embedding(N_KINDS, width)
        self.layers = torch.nn.ModuleList([DecoderLayer(width, heads, self.dropout) for _ in range(depth)])
        self.norm = torch.nn.LayerNorm(width)
        self.query = linear(width, width)
        self.key = linear(width, width)
        torch.nn.init.xavier_uniform_(self.query.weight)
        torch.nn.init.xavier_uniform_(self.key.weight)
        self.distance = torch.nn.Embedding(N_BUCKETS, N_KINDS)
        torch.nn.init.zeros_(self.distance.weight)

    def read(self, vectors: Tensor, is_token: Tensor, rules: Rules) -> Memory:
        """vectors (Tensor): Float, (n_texts, n_tokens, width). is_token (Tensor): Bool, (n_texts, n_tokens)."""
        seen = [cast(DecoderLayer, layer).attention.keys_values(vectors) for layer in self.layers]
        return Memory(vectors, self.key(vectors), seen, is_token, rules)

    def forward(
        self, memory: Memory, before: Optional[Tensor], steps: Steps, past: Optional[List[KeysValues]] = None
    ) -> Tuple[Tensor, List[KeysValues]]:
        """Log-probabilities of the next symbols.

        memory (Memory): The texts.
        before (Optional[Tensor]): The symbols chosen last. Int64, (n_texts, n_steps). None at the beginning. With
            `past` None all steps are of one sequence, which begins with them: then the symbol before each but the
            first, (n_texts, n_steps - 1).
        steps (Steps): Where the sequences are: (n_texts, n_steps).
        past (Optional[List[KeysValues]]): For one step of each of several sequences: what each layer keeps of the
            steps before, a row for each sequence. An empty list at the beginning.
        RETURNS (Tuple[Tensor, List[KeysValues]]): Float, (n_texts, n_steps, n_symbols), minus infinity where a symbol
            is not legal; and the new past.
        """
        n_texts, n_steps = steps.kind.shape
        X = self.begin.expand(n_texts, n_steps if past == [] else 1, -1)
        if before is not None:
            told = self._vectors(memory, before)
            X = told if past is not None else torch.cat((X, told), dim=1)
        X = self.dropout(X + self.kinds(steps.kind))
        n_tokens = memory.vectors.shape[1]
        tokens = torch.arange(n_tokens, device=X.device)
        buckets = bucket(tokens - steps.position[..., None])
        hidden = memory.is_token[:, None, None]
        kept: List[KeysValues] = []
        for number, layer in enumerate(self.layers):
            old = past[number] if past else None
            X, new = layer(X, memory.seen[number], buckets, hidden, old, together=past is None)
            kept.append(new)
        query = self.query(self.dropout(self.norm(X))) * X.shape[2] ** -0.5
        far = self.distance(buckets).gather(3, steps.kind[..., None, None].expand(-1, -1, n_tokens, 1)).squeeze(3)
        pointed = torch.bmm(query, memory.keys.transpose(1, 2)) + far
        others = query @ torch.cat((self.labels, self.end[None])).T
        logits = torch.cat((pointed, others), dim=2)
        return logits.masked_fill(~legal(steps, memory.rules), -torch.inf).log_softmax(2), kept

    def _vectors(self, memory: Memory, symbols: Tensor) -> Tensor:
        n_tokens, width = memory.vectors.shape[1:]
        rows = symbols.clamp(max=n_tokens - 1)[..., None].expand(-1, -1, width)
        others = torch.cat((self.labels, self.end[None]))[(symbols - n_tokens).clamp(min=0)]
        return torch.where((symbols < n_tokens)[..., None], memory.vectors.gather(1, rows), others)


class DecoderLayer(torch.nn.Module):
    """Attention to the steps before, attention to the text, and a feed-forward part, each after a LayerNorm.

    SOURCE: Vaswani et al. (2017); LayerNorm first: Xiong et al. (2020).
    """

    def __init__(self, width: int, heads: int, dropout: torch.nn.Dropout) -> None:
        super().__init__()
        self.dropout = dropout
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(width) for _ in range(3)])
        self.history = Attention(width, heads)
        self.attention = Attention(width, heads)
        self.inner = torch.nn.Linear(width, 2 * width)
        self.outer = torch.nn.Linear(2 * width, width)

    def forward(
        self,
        X: Tensor,
        seen: KeysValues,
        buckets: Tensor,
        is_token: Tensor,
        past: Optional[KeysValues],
        together: bool,
    ) -> Tuple[Tensor, KeysValues]:
        """X (Tensor): Float, (n_texts, n_steps, width). together (bool): Whether these are steps of one sequence."""
        n_texts, n_steps, width = X.shape
        normed = self.norms[0](X)
        rows = normed if together else normed.reshape(n_texts * n_steps, 1, width)
        keys, values = self.history.keys_values(rows)
        if past is not None:
            keys, values = torch.cat((past[0], keys), dim=2), torch.cat((past[1], values), dim=2)
        distances = torch.arange(rows.shape[1], device=X.device)[:, None] + keys.shape[2] - rows.shape[1]
        distances = distances - torch.arange(keys.shape[2], device=X.device)
        bias = self.history.bias(bucket(distances)[None]).masked_fill(distances < 0, -torch.inf)
        found = self.history(rows, (keys, values), bias)
        X = X + self.dropout(found.reshape(n_texts, n_steps, width))
        bias = self.attention.bias(buckets).masked_fill(~is_token, -torch.inf)
        X = X + self.dropout(self.attention(self.norms[1](X), seen, bias))
        return X + self.dropout(self.outer(gelu(self.inner(self.norms[2](X))))), (keys, values)


class Attention(torch.nn.Module):
    """Attention of several heads, with a number for each distance and head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = torch.nn.Linear(width, width)
        self.pair = torch.nn.Linear(width, 2 * width)
        self.output = torch.nn.Linear(width, width)
        self.distance = torch.nn.Embedding(N_BUCKETS, heads)
        torch.nn.init.zeros_(self.distance.weight)

    def keys_values(self, X: Tensor) -> KeysValues:
        """X (Tensor): Float, (n_rows, n_keys, width)."""
        keys, values = self.pair(X).chunk(2, dim=2)
        return self._split(keys), self._split(values)

    def bias(self, buckets: Tensor) -> Tensor:
        """RETURNS (Tensor): (n_rows, heads, n_queries, n_keys), of buckets without heads."""
        return self.distance(buckets).permute(0, 3, 1, 2)

    def forward(self, X: Tensor, seen: KeysValues, bias: Tensor) -> Tensor:
        """X (Tensor): Float, (n_rows, n_queries, width). RETURNS (Tensor): Of the same shape."""
        found = scaled_dot_product_attention(self._split(self.query(X)), *seen, attn_mask=bias)
        return self.output(found.transpose(1, 2).flatten(2))

    def _split(self, X: Tensor) -> Tensor:
        return X.unflatten(2, (self.heads, -1)).transpose(1, 2)


def bucket(distances: Tensor) -> Tensor:
    """RETURNS (Tensor): Number of a distance, forwards or backwards; far ones share theirs. Int64, of its shape."""
    far = distances.abs()
    rest = (far.clamp(min=EXACT_DISTANCES) / EXACT_DISTANCES).log2()
    group = (rest * (N_FAR - 1) / math.log2(LONGEST_DISTANCE / EXACT_DISTANCES)).long().clamp(max=N_FAR - 1)
    number = torch.where(far < EXACT_DISTANCES, far, EXACT_DISTANCES + group)
    return torch.where(distances < 0, -number, number) + EXACT_DISTANCES + N_FAR - 1


def log_probabilities(decoder: PointerDecoder, memory: Memory, symbols: Tensor, steps: Steps, known: Tensor) -> Tensor:
    """Of sequences that are known.

    symbols (Tensor), steps (Steps), known (Tensor): See automaton.Lesson.
    RETURNS (Tensor): Nats; minus infinity for one that is not legal. Float, (n_texts,).
    """
    scores, _ = decoder(memory, symbols[:, :-1] if symbols.shape[1] > 1 else None, steps)
    return scores.gather(2, symbols[..., None]).squeeze(2).masked_fill(~known, 0.0).sum(1)


def search(decoder: PointerDecoder, memory: Memory, n: int) -> Tuple[Tensor, Tensor]:
    """The best sequences of each text that a beam finds. The greedy one is always among them.

    memory (Memory): The texts.
    n (int): Width of the beam. 1: the greedy sequence alone.
    RETURNS (Tuple[Tensor, Tensor]): Symbols, filled up with the end symbol, int64 (n_texts, n, n_steps); and
        log-probabilities, float (n_texts, n), minus infinity where there are fewer sequences. Best first.
    """
    rules = memory.rules
    n_texts, n_tokens = memory.is_token.shape
    device, n_symbols = memory.vectors.device, rules.n_symbols
    finish = n_symbols - 1
    steps = Steps.begin(n_texts, n, device)
    totals = memory.vectors.new_full((n_texts, n), -torch.inf)
    totals[:, 0] = 0.0
    done = torch.zeros(n_texts, n, dtype=torch.bool, device=device)
    chosen = torch.zeros(n_texts, n, 0, dtype=torch.int64, device=device)
    # Texts that are not finished yet
    rows = torch.arange(n_texts, device=device)
    results: List[Tuple[Tensor, Tensor, Tensor]] = []
    past: List[KeysValues] = []
    stay = torch.full((n_symbols,), -torch.inf, device=device)
    stay[finish] = 0.0
    while len(rows):
        scores, past = decoder(memory, chosen[..., -1] if chosen.shape[2] else None, steps, past)
        scores = torch.where(done[..., None], stay, scores)
        symbols = scores[:, 0].argmax(1, keepdim=True)
        source = torch.zeros_like(symbols)
        if n > 1:
            ranked = totals[..., None] + scores
            ranked[:, 0].scatter_(1, symbols, torch.inf)  # the greedy sequence stays, and stays first
            best = ranked.flatten(1).topk(n, dim=1).indices
            source, symbols = best // n_symbols, best % n_symbols
        rank = source * n_symbols + symbols
        totals = (totals[..., None] + scores).flatten(1).gather(1, rank)
        steps = Steps(*(value.gather(1, source) for value in steps)).advance(symbols, n_tokens)
        chosen = torch.cat(
            (chosen.gather(1, source[..., None].expand(-1, -1, chosen.shape[2])), symbols[..., None]), 2
        )
        done = done.gather(1, source) | ((symbols == finish) & (steps.kind == START)) | totals.isneginf()
        finished = done.all(1)
        n_done = int(finished.sum())
        is_over = n_done == len(rows)
        # To go on with fewer texts pays where enough are over
        drop = is_over or 3 * n_done >= len(rows)
        keep = torch.nonzero(~finished).squeeze(1) if drop else torch.arange(len(rows), device=device)
        if drop:
            results.append((rows[finished], chosen[finished], totals[finished]))
            rows, chosen, totals, done = rows[keep], chosen[keep], totals[keep], done[keep]
            steps = Steps(*(value[keep] for value in steps))
            memory = memory._replace(
                vectors=memory.vectors[keep],
                keys=memory.keys[keep],
                seen=[(keys[keep], values[keep]) for keys, values in memory.seen],
                is_token=memory.is_token[keep],
                rules=memory.rules.take(keep),
            )
        if drop or n > 1:
            history = (keep[:, None] * n + source[keep]).flatten()
            past = [(keys[history], values[history]) for keys, values in past]
    n_steps = max((part.shape[2] for _, part, _ in results), default=0)
    symbols = torch.full((n_texts, n, n_steps), finish, dtype=torch.int64, device=device)
    totals = memory.vectors.new_zeros(n_texts, n)
    for texts, part, values in results:
        symbols[texts, :, : part.shape[2]] = part
        totals[texts] = values
    order = totals.argsort(dim=1, descending=True, stable=True)
    return symbols.gather(1, order[..., None].expand(-1, -1, n_steps)), totals.gather(1, order)
