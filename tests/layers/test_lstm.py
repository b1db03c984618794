"""The two ways through a BiLSTM, for CPUs and for GPUs, against nn.LSTM on each text by itself."""

import pytest
import torch
from torch.testing import assert_close

from spacy_bert_heads.layers import lstm as lstm_module
from spacy_bert_heads.layers.lstm import bilstm, run_bilstm


@pytest.mark.parametrize("way", ["_run_in_groups", "_run_packed"])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("lengths", [(1,), (0, 3, 1, 0), (200, 3, 90, 201, 4, 4), (7,) * 5])
def test_states_and_gradients_are_those_of_each_text_by_itself(way, depth, lengths, monkeypatch):
    monkeypatch.setattr(lstm_module, "_run_in_groups", getattr(lstm_module, way))
    torch.manual_seed(0)
    lstm = bilstm(5, 6, depth)
    X = torch.randn(sum(lengths), 5, requires_grad=True)
    found = run_bilstm(lstm, X, torch.tensor(lengths))
    expected = torch.cat([lstm(text[None])[0][0] for text in X.split(lengths) if len(text)])
    assert_close(found, expected)
    weights = torch.randn(found.shape)
    inputs = [X, *lstm.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad((out * weights).sum(), inputs) for out in (found, expected))):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_prediction_in_bf16_computes_and_returns_bf16():
    lstm, X = bilstm(8, 8, 1).eval(), torch.randn(30, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = run_bilstm(lstm, X, torch.tensor([10, 20]))
    assert found.dtype == torch.bfloat16
    with torch.no_grad():
        assert_close(found.float(), run_bilstm(lstm, X, torch.tensor([10, 20])), rtol=0, atol=0.02)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_long_text_goes_through_in_parts_with_the_same_states(precision, depth, monkeypatch):
    monkeypatch.setattr(lstm_module, "GROUP_SIZE", 64)
    torch.manual_seed(0)
    lstm, X = bilstm(5, 6, depth).eval(), torch.randn(200, 5)
    with torch.no_grad(), torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        found = run_bilstm(lstm, X, torch.tensor([0, 200]))
    assert found.dtype == (precision or torch.float32)
    with torch.no_grad():
        expected = lstm(X[None])[0][0]
    assert_close(found.float(), expected, **({"rtol": 0, "atol": 0.03} if precision else {}))
