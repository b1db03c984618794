"""Attention a few heads at a time, and in training, against the formula in float64."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from spacy_bert_heads.layers import attention
from spacy_bert_heads.layers.attention import TrainingAttention, attend
from spacy_bert_heads.layers.length_groups import filled_up

# A pipeline's: rounded to 8 bits are inputs, scores, shares and outputs
TOLERANCE = 2e-2


def make_inputs(n_windows: int, n_heads: int, n_pieces: int, width: int = 16) -> Any:
    generator = torch.Generator().manual_seed(0)
    shape = (3, n_windows, n_heads, n_pieces, width)
    return (torch.randn(shape, generator=generator) * width**-0.25).bfloat16()


def by_formula(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    scores = query.double() @ key.double().transpose(2, 3)
    if mask is not None:
        scores = scores + mask
    shares = scores.exp()
    return shares / shares.sum(-1, keepdim=True) @ value.double()


@pytest.mark.parametrize(
    "n_windows, n_heads, n_pieces", [(6, 12, 32), (3, 12, 50), (1, 7, 129), (2, 3, 301), (1, 1, 513)]
)
@pytest.mark.parametrize("masked", [False, True])
def test_matches_the_formula(n_windows: int, n_heads: int, n_pieces: int, masked: bool) -> None:
    inputs = make_inputs(n_windows, n_heads, n_pieces)
    mask = None
    if masked:
        hidden = torch.arange(n_pieces) >= torch.arange(1, n_windows + 1)[:, None] * n_pieces // n_windows - 3
        mask = torch.zeros(n_windows, 1, 1, n_pieces).masked_fill(
            hidden[:, None, None], torch.finfo(torch.float32).min
        )
    found = attend(*inputs, mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), by_formula(*inputs, mask), atol=TOLERANCE, rtol=TOLERANCE)


def test_in_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(5, 3, 70)
    monkeypatch.setattr(attention, "MOST_SCORES", 4 * 80 * 80)
    torch.testing.assert_close(attend(*inputs, None).double(), by_formula(*inputs), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("n_pieces, dtype", [(12, torch.bfloat16), (64, torch.float32)])
def test_short_windows_and_float32_are_left_to_torch(n_pieces: int, dtype: torch.dtype) -> None:
    inputs = make_inputs(4, 12, n_pieces).to(dtype)
    found = attend(*inputs, None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), by_formula(*inputs), atol=1e-5, rtol=1e-5)


def test_what_is_masked_may_be_large() -> None:
    query, key, value = make_inputs(1, 4, 128)
    key[:, :, 100:] = 1e30
    mask = torch.zeros(1, 1, 1, 128)
    mask[..., 100:] = -math.inf
    rest = (query, key[:, :, :100], value[:, :, :100])
    found = attend(query, key, value, mask)
    torch.testing.assert_close(found.double(), by_formula(*rest), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("most", [1, 5, 16, 1000])
def test_parts_cover_all_and_have_one_size(most: int) -> None:
    for n in range(1, 60):
        size, parts = attention._cut(n, most)
        assert {i for start, stop in parts for i in range(start, stop)} == set(range(n))
        assert {stop - start for start, stop in parts} == {size}
        assert max(stop - start for start, stop in parts) <= most


def test_few_numbers_of_wordpieces() -> None:
    """oneDNN keeps kernels for each of them."""
    assert len({filled_up(n, attention.PIECE_STEPS) for n in range(attention.SHORTEST, 513)}) <= 20


@pytest.mark.parametrize("mask_type", [None, torch.bool, torch.float32, torch.bfloat16])
def test_in_training_only_outputs_and_gradients_are_rounded(mask_type: Any) -> None:
    inputs = make_inputs(3, 4, 21).requires_grad_()
    exact = inputs.detach().double().requires_grad_()
    hidden = (torch.arange(21) >= torch.tensor([[21], [9], [14]]))[:, None, None]
    added = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)
    mask = None if mask_type is None else ~hidden if mask_type == torch.bool else added.to(mask_type)
    with TrainingAttention(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = functional.scaled_dot_product_attention(*inputs, attn_mask=mask, scale=1.0)
    expected = by_formula(*exact, None if mask is None else added)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=2**-8)
    outside = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    found.backward(outside)
    expected.backward(outside.double())
    # bf16 keeps 8 bits
    torch.testing.assert_close(inputs.grad.double(), exact.grad, atol=1e-3, rtol=2**-7)


@pytest.mark.parametrize(
    "n_pieces, drops", [(attention.LONGEST_DROPPED, True), (attention.LONGEST_DROPPED + 1, False)]
)
def test_training_drops_weights_in_short_windows_alone(n_pieces: int, drops: bool) -> None:
    inputs = make_inputs(1, 2, n_pieces).float()
    with TrainingAttention():
        found = functional.scaled_dot_product_attention(*inputs, dropout_p=0.5, scale=1.0)
    difference = (found.double() - by_formula(*inputs)).abs().max()
    assert difference > 0.1 if drops else difference < 1e-5
