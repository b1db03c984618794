"""The text modules against plain torch that reads one text after another, with no padding and no mask."""

import copy
from typing import Any, Callable, Dict, List, Tuple

import numpy
import pytest
import torch
from thinc.api import Model

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.text_layers import layer_mix, text_head, vector_pooling
from spacy_bert_heads.layers.text_modules import VectorPooling, text_classifier

from ..making import assert_close, randomise

NI, NO = 6, 3
SIZES: Dict[str, Dict[str, Any]] = {
    "cnn": {"kernels": [2, 3, 4], "filters": 5},
    "rnn": {"lstm_width": 8, "lstm_depth": 2},
    "rnn_attention": {"lstm_width": 8, "lstm_depth": 2},
    "rcnn": {"lstm_width": 8, "lstm_depth": 1, "hidden_width": 7},
    "dpcnn": {"filters": 5, "depth": 3},
}
# Shorter than a kernel, as long, odd and even, a power of two and its neighbours, and empty
LENGTHS = [(3,), (1, 9), (0, 5, 1), (7, 8, 9, 2, 4, 0, 3), (0, 0), (1, 1, 1)]
every_body = pytest.mark.parametrize("body", SIZES)
every_batch = pytest.mark.parametrize("lengths", LENGTHS)


def one_cnn(module: Any, x: torch.Tensor) -> torch.Tensor:
    found = []
    for convolution in module.convolutions:
        kernel = convolution.kernel_size[0]
        padded = torch.cat([x, x.new_zeros(max(0, kernel - len(x)), NI)])
        windows = [padded[i : i + kernel] for i in range(len(padded) - kernel + 1)]
        values = [torch.einsum("ki,oik->o", window, convolution.weight) + convolution.bias for window in windows]
        found.append(torch.stack([value.relu() for value in values]).max(dim=0).values)
    return torch.cat(found)


def run_cells(lstm: torch.nn.LSTM, x: torch.Tensor) -> Tuple[List[torch.Tensor], List[torch.Tensor]]:
    """States of both directions of the last layer, token by token, by LSTM cells."""
    for layer in range(lstm.num_layers):
        directions = []
        for suffix, order in (("", range(len(x))), ("_reverse", range(len(x) - 1, -1, -1))):
            cell = torch.nn.LSTMCell(x.shape[1], lstm.hidden_size)
            weights = {
                n: getattr(lstm, f"{n}_l{layer}{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            h = c = x.new_zeros(1, lstm.hidden_size)
            states: Dict[int, torch.Tensor] = {}
            for i in order:
                h, c = torch.func.functional_call(cell, weights, (x[i : i + 1], (h, c)))
                states[i] = h[0]
            directions.append([states[i] for i in range(len(x))])
        x = torch.stack([torch.cat(pair) for pair in zip(*directions)])
    return directions[0], directions[1]


def one_rnn(module: Any, x: torch.Tensor) -> torch.Tensor:
    forwards, backwards = run_cells(module.lstm, x)
    return torch.cat([forwards[-1], backwards[0]])


def one_rnn_attention(module: Any, x: torch.Tensor) -> torch.Tensor:
    states = [torch.cat(pair) for pair in zip(*run_cells(module.lstm, x))]
    exponentials = [(state.tanh() @ module.score.weight[0]).exp() for state in states]
    total = sum(exponentials)
    return sum(e / total * state for e, state in zip(exponentials, states)).tanh()  # type: ignore[union-attr]


def one_rcnn(module: Any, x: torch.Tensor) -> torch.Tensor:
    rows = [torch.cat([f, b, xi]) for f, b, xi in zip(*run_cells(module.lstm, x), x)]
    return torch.stack([(module.hidden.weight @ row + module.hidden.bias).tanh() for row in rows]).max(dim=0).values


def one_dpcnn(module: Any, x: torch.Tensor) -> torch.Tensor:
    def convolve(convolution: Any, rows: torch.Tensor) -> torch.Tensor:
        zero = rows.new_zeros(1, rows.shape[1])
        padded = torch.cat([zero, rows, zero])
        return torch.stack(
            [
                torch.einsum("ki,oik->o", padded[i : i + 3], convolution.weight) + convolution.bias
                for i in range(len(rows))
            ]
        )

    y = convolve(module.region, x)
    for number, (first, second) in enumerate(module.blocks):
        if number:
            y = torch.stack([y[i : i + 3].max(dim=0).values for i in range(0, len(y), 2)])
        y = y + convolve(second, convolve(first, y.relu()).relu())
    return y.max(dim=0).values


ONE: Dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "cnn": one_cnn,
    "rnn": one_rnn,
    "rnn_attention": one_rnn_attention,
    "rcnn": one_rcnn,
    "dpcnn": one_dpcnn,
}


def make_texts(lengths: Tuple[int, ...], seed: int = 0) -> List[Any]:
    random_state = numpy.random.RandomState(seed)
    return [random_state.normal(size=(length, NI)).astype("float32") for length in lengths]


def make_head(body: str) -> Tuple[Model, Any]:
    model = text_head(body, NO, 1.0, **SIZES[body])
    model.set_dim("nI", NI)
    model.initialize()
    module = model.shims[0].module  # type: ignore[attr-defined]
    randomise(module, 0)
    return model, module


def at_least_one(x: torch.Tensor) -> torch.Tensor:
    """A text of no tokens counts as one token of zeros."""
    return x if len(x) else x.new_zeros(1, x.shape[1])


def assert_same_gradients(module: torch.nn.Module, reference: torch.nn.Module) -> None:
    """To the last digits of the largest. Attention over one token gets exactly none, or what rounding leaves."""
    theirs = {name: parameter.grad for name, parameter in reference.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in theirs.values() if gradient is not None)
    assert largest > 1e-2
    for name, parameter in module.named_parameters():
        gradient = theirs[name]
        zeros = torch.zeros_like(parameter)
        ours = zeros if parameter.grad is None else parameter.grad
        assert_close(ours, zeros if gradient is None else gradient, 1e-5 * max(1.0, largest))


@every_body
@every_batch
def test_a_batch_is_what_its_texts_are_one_by_one(body: str, lengths: Tuple[int, ...]) -> None:
    model, module = make_head(body)
    reference = copy.deepcopy(module)
    X = make_texts(lengths)
    Xt = [torch.from_numpy(x).requires_grad_() for x in X]
    expected = torch.stack([reference.classifier.linear(ONE[body](reference.body, at_least_one(x))) for x in Xt])
    assert_close(model.predict(X), expected)
    Y, backprop = model.begin_update(X)
    assert_close(Y, expected)
    weights = torch.arange(1.0, expected.numel() + 1).reshape(expected.shape)
    (expected * weights).sum().backward()
    dX = backprop(weights.numpy())
    assert_same_gradients(module, reference)
    for dx, xt in zip(dX, Xt):
        assert dx.shape == xt.shape
        if len(dx):
            assert_close(dx, xt.grad, 2e-4)
            assert numpy.abs(dx).max() > 1e-3


@every_body
def test_no_texts_give_no_logits(body: str) -> None:
    model, _ = make_head(body)
    Y, backprop = model.begin_update([])
    assert Y.shape == (0, NO) and backprop(Y) == []


@every_body
def test_dropout_is_used_in_training_alone(body: str) -> None:
    model, _ = make_head(body)
    X = make_texts((5, 3))
    calm = model.predict(X)
    model.attrs["dropout_rate"] = 0.5
    assert numpy.abs(model.begin_update(X)[0] - calm).max() > 1e-3
    assert_close(model.predict(X), calm, 0)


@every_body
def test_a_loaded_head_is_the_saved_one(body: str) -> None:
    model, _ = make_head(body)
    X = make_texts((5, 0, 3))
    other = text_head(body, NO, 1.0, **SIZES[body]).from_bytes(model.to_bytes())
    assert_close(other.predict(X), model.predict(X), 0)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_kernel_longer_than_the_text_sees_zeros_behind_it(length: int) -> None:
    module = text_classifier("cnn", NI, NO, kernels=[7], filters=2).eval()
    X = torch.from_numpy(numpy.stack(make_texts((length,))))
    with torch.no_grad():
        padded = torch.cat([X, X.new_zeros(1, 7 - length, NI)], dim=1)
        assert_close(module(X, torch.tensor([length])), module(padded, torch.tensor([7])))


@pytest.mark.parametrize(
    "body, sizes, code",
    [
        ("rnn", {"lstm_width": 7, "lstm_depth": 1}, "H214"),
        ("rcnn", {"lstm_width": 0, "lstm_depth": 1, "hidden_width": 2}, "H214"),
        ("rnn_attention", {"lstm_width": 8, "lstm_depth": 0}, "H261"),
        ("cnn", {"kernels": [], "filters": 5}, "H261"),
        ("cnn", {"kernels": [2, 0], "filters": 5}, "H261"),
        ("cnn", {"kernels": [2], "filters": 0}, "H261"),
        ("dpcnn", {"filters": 5, "depth": -1}, "H261"),
        ("rcnn", {"lstm_width": 8, "lstm_depth": 1, "hidden_width": 0}, "H261"),
    ],
)
def test_sizes_that_cannot_be(body: str, sizes: Dict[str, Any], code: str) -> None:
    with pytest.raises(BertHeadsError) as error:
        text_head(body, NO, 1.0, **sizes)
    assert error.value.code == code


def one_pooled(pooling: str, module: VectorPooling, x: torch.Tensor) -> torch.Tensor:
    if pooling == "max":
        return x.max(dim=0).values
    if pooling == "mean":
        return x.mean(dim=0)
    exponentials = [(xi @ module.score.weight[0]).exp() for xi in x]
    return sum(e / sum(exponentials) * xi for e, xi in zip(exponentials, x))  # type: ignore[return-value]


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
@every_batch
def test_pooled_vectors_are_those_of_each_text_alone(pooling: str, lengths: Tuple[int, ...]) -> None:
    model = vector_pooling(pooling, 1.0)
    model.set_dim("nO", NI)
    model.initialize()
    module: Any = model.shims[0].module  # type: ignore[attr-defined]
    X = make_texts(lengths)
    if pooling == "attention":  # which begins as the mean
        assert_close(model.predict(X), numpy.stack([x.mean(0) if len(x) else numpy.zeros(NI) for x in X]))
        randomise(module, 0)
    reference = copy.deepcopy(module)
    Xt = [torch.from_numpy(x).requires_grad_() for x in X]
    expected = torch.stack([one_pooled(pooling, reference, at_least_one(x)) for x in Xt])
    Y, backprop = model.begin_update(X)
    assert_close(Y, expected)
    weights = torch.arange(1.0, expected.numel() + 1).reshape(expected.shape)
    if expected.requires_grad:
        (expected * weights).sum().backward()
    for dx, xt in zip(backprop(weights.numpy()), Xt):
        if len(dx):
            assert_close(dx, xt.grad, 1e-4)
    if pooling == "attention" and max(lengths) > 1:
        assert_same_gradients(module, reference)


def test_a_layer_mix_is_the_softmax_of_its_weights() -> None:
    model = layer_mix(1.0)
    layers = [make_texts((4,), seed)[0] for seed in range(3)]
    assert_close(model.predict(layers), numpy.mean(layers, axis=0))
    module: Any = model.shims[0].module  # type: ignore[attr-defined]
    module.weights.data = torch.tensor([0.3, -1.0, 2.0])
    shares = numpy.exp([0.3, -1.0, 2.0]) / numpy.exp([0.3, -1.0, 2.0]).sum()
    Y, backprop = model.begin_update(layers)
    assert_close(Y, sum(share * layer for share, layer in zip(shares, layers)))
    dY = make_texts((4,), 9)[0]
    for share, d_layer in zip(shares, backprop(dY)):
        assert_close(d_layer, share * dY)
    inner = numpy.array([(dY * layer).sum() for layer in layers])
    assert_close(module.weights.grad, shares * (inner - shares @ inner), 1e-4)
    loaded = layer_mix(1.0).from_bytes(model.to_bytes())
    assert_close(loaded.predict(layers), Y, 0)
    with pytest.raises(BertHeadsError) as error:
        model.predict(layers[:2])
    assert (error.value.code, error.value.found) == ("H262", 2)
