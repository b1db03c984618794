"""Attention on a CPU.

torch's attention computes its scores in small blocks, which keep a CPU's bf16 units waiting. For predictions in bf16
oneDNN multiplies whole windows here, of as many heads as have scores that stay in the cache. Training, and short
windows, take torch's in float32.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .length_groups import filled_up

# In shorter windows, and in fewer of them, torch's attention is as fast
SHORTEST, FEWEST_SCORES = 32, 1 << 16
# Wordpieces of the longest windows in which training drops weights
LONGEST_DROPPED = 64
# Scores that are computed at once
MOST_SCORES = 1 << 19
# (up to so many wordpieces, they are filled up to a multiple of): oneDNN compiles kernels for each number of
# wordpieces and heads, and keeps them, some 1 MiB for each
PIECE_STEPS = ((128, 16), (1 << 62, 32))


class TrainingAttention(TorchFunctionMode):
    """Within it torch's attention on a CPU computes in float32, whatever autocast computes in, and drops weights only
    in short windows, padding counted. To draw a number for each weight, torch has to hold all weights of all heads: in
    windows of 512 wordpieces a step of training then takes three times as long and twice the memory. Encoders that
    attend in a way of their own (DeBERTa, or with `attentions`) are not touched.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        if function is functional.scaled_dot_product_attention:
            return _attend_in_training(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _attend_in_training(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Optional[Tensor] = None,
    dropout_p: float = 0.0,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, *args, **kwargs)
    if key.shape[-2] > LONGEST_DROPPED:
        dropout_p = 0.0
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.float()
    with torch.autocast("cpu", enabled=False):
        parts = (query.float(), key.float(), value.float())
        return functional.scaled_dot_product_attention(*parts, attn_mask, dropout_p, *args, **kwargs).to(query.dtype)


def attention_of_checkpoints() -> Tuple["AbstractContextManager[Any]", "AbstractContextManager[Any]"]:
    """RETURNS (Tuple): For torch's gradient checkpointing: what else to put around the pass forward, and around what
    the pass backward computes again.
    """
    return nullcontext(), TrainingAttention()


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Attention, without dropout and a graph. The queries are scaled already.

    query, key, value (Tensor): Bfloat16 or float32, (n_windows, n_heads, n_pieces, head_width).
    mask (Optional[Tensor]): What is added to the scores of the wordpieces attended to. Float32, (n_windows, 1, 1,
        n_pieces). None: nothing.
    RETURNS (Tensor): (n_windows, n_heads, n_pieces, head_width), in either type.
    """
    n_windows, n_heads, n_pieces, _ = query.shape
    n_scores = n_windows * n_heads * n_pieces**2
    if query.dtype == torch.bfloat16 and n_pieces >= SHORTEST and n_scores >= FEWEST_SCORES:
        return _attend_in_parts(query, key, value, mask)
    # torch's is faster in float32 than in bf16, on CPUs with bf16 too
    parts = (query.float(), key.float(), value.float())
    return functional.scaled_dot_product_attention(*parts, attn_mask=mask, scale=1.0)


def _attend_in_parts(query: Tensor, key: Tensor, value: Tensor, mask: Optional[Tensor]) -> Tensor:
    n_windows, n_heads, n_pieces, width = query.shape
    n, filled = n_windows * n_heads, filled_up(n_pieces, PIECE_STEPS)
    # Zeros, since what is masked must not be NaN either
    inputs = query.new_zeros((3, n_windows, n_heads, filled, width))
    for target, source in zip(inputs, (query, key, value)):
        target[:, :, :n_pieces] = source
    queries, keys, values = inputs.view(3, n, filled, width)
    masks = None if mask is None else mask.to(query.dtype).expand(-1, n_heads, -1, -1).reshape(n, 1, n_pieces)
    attended = torch.empty_like(queries)
    size, parts = _cut(n, max(1, MOST_SCORES // filled**2))
    scores = query.new_empty((size, filled, filled))
    for start, stop in parts:
        torch.bmm(queries[start:stop], keys[start:stop].transpose(1, 2), out=scores)
        if masks is not None:
            scores[:, :, :n_pieces] += masks[start:stop]
        scores[:, :, n_pieces:] = -torch.inf
        torch.bmm(torch.softmax(scores, -1), values[start:stop], out=attended[start:stop])
    return attended.view(n_windows, n_heads, filled, width)[:, :, :n_pieces]


def _cut(n: int, most: int) -> Tuple[int, List[Tuple[int, int]]]:
    """Parts of one size, a power of 2, so that there are few different ones; the last two may overlap.

    RETURNS (Tuple[int, List[Tuple[int, int]]]): The size, and where each part starts and stops.
    """
    size = 1 << (min(n, most).bit_length() - 1)
    stops = [min(start + size, n) for start in range(0, n, size)]
    return size, [(stop - size, stop) for stop in stops]
