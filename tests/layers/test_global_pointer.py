"""Span scores, their loss and choices of spans, against loops over every span."""

import itertools
import math
import random
from typing import Any, List, Optional, Tuple

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from spacy_bert_heads.layers import global_pointer as module
from spacy_bert_heads.layers.global_pointer import (
    GlobalPointer,
    SpanParts,
    SpanTargets,
    Tempering,
    all_scores,
    best_without_overlap,
    find_spans,
    span_loss,
    span_uncertainty,
)

LENGTHS = [(1,), (3,), (2, 0, 5), (40, 1, 70, 33), (0, 0, 4, 0)]


def make_pointer(max_width: int = 4, n_labels: int = 3, lstm_width: Optional[int] = None) -> GlobalPointer:
    torch.manual_seed(0)
    pointer = GlobalPointer(6, n_labels, max_width, key_width=8, lstm_width=lstm_width, lstm_depth=1)
    for parameter in pointer.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return pointer.eval()


def rotate(vector: torch.Tensor, position: int) -> torch.Tensor:
    """Rotary positions as complex numbers, each pair turned by its own speed."""
    numbers = torch.view_as_complex(vector.double().reshape(-1, 2).contiguous())
    width = len(vector)
    turns = torch.tensor([position * 10000 ** (-2 * i / width) for i in range(width // 2)], dtype=torch.float64)
    return torch.view_as_real(numbers * torch.polar(torch.ones_like(turns), turns)).flatten()


def score(pointer: GlobalPointer, X: torch.Tensor, start: int, end: int, label: int) -> torch.Tensor:
    """One span of one Doc, positions counted from its beginning."""
    n_labels = len(pointer.labels.bias) // 3
    query, key = pointer.pair(X[start]).chunk(2)[0], pointer.pair(X[end - 1]).chunk(2)[1]
    product = rotate(query, start) @ rotate(key, end - 1) / math.sqrt(len(query))
    first, last = pointer.labels(X[start])[label], pointer.labels(X[end - 1])[n_labels + label]
    return product + first + last + sum(pointer.labels(X[i])[2 * n_labels + label] for i in range(start, end))


@pytest.mark.parametrize("max_width", [1, 2, 4, 50])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_scores_are_those_of_a_loop_over_all_spans(lengths: Tuple[int, ...], max_width: int) -> None:
    pointer = make_pointer(max_width)
    X = torch.randn(sum(lengths), 6)
    flat = pointer(X, torch.tensor(lengths)).detach()
    assert flat.shape == (len(X), max_width + 6)
    chooser, offset = random.Random(0), 0
    for length, doc in zip(lengths, X.split(lengths)):
        parts = SpanParts.from_flat(flat[offset : offset + length], max_width)
        scores = all_scores(parts, length)
        assert scores.shape == (length, max_width, 3)
        spans = [(i, j) for i in range(length) for j in range(i + 1, min(length, i + max_width) + 1)]
        for start, end in chooser.sample(spans, min(len(spans), 150)):
            for label in range(3):
                expected = float(score(pointer, doc, start, end, label).detach())
                assert float(scores[start, end - start - 1, label]) == pytest.approx(expected, abs=1e-4)
        beyond = [(i, w) for i in range(length) for w in range(max_width) if i + w >= length]
        assert all(float(parts.content[i, w]) == 0.0 for i, w in beyond)
        offset += length


@pytest.mark.parametrize("lstm_width", [None, 8])
def test_a_doc_has_the_scores_and_gradients_that_it_has_alone(lstm_width: Optional[int]) -> None:
    pointer, lengths = make_pointer(5, lstm_width=lstm_width), (7, 0, 90, 1, 64)
    X = torch.randn(sum(lengths), 6, requires_grad=True)
    flat = pointer(X, torch.tensor(lengths))
    weights = torch.randn(flat.shape)
    inputs = [X, *pointer.parameters()]
    together = torch.autograd.grad((flat * weights).sum(), inputs)
    alone = torch.cat([pointer(doc, torch.tensor([len(doc)])) for doc in X.split(lengths) if len(doc)])
    torch.testing.assert_close(flat, alone)
    for ours, theirs in zip(together, torch.autograd.grad((alone * weights).sum(), inputs)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_are_finite_differences() -> None:
    pointer = make_pointer(3).double()
    pointer.cos, pointer.sin = pointer.cos.double(), pointer.sin.double()
    lengths = torch.tensor([4, 1, 2])
    X = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda X: pointer(X, lengths), (X,))


def make_targets(length: int, n_labels: int, seed: int, gaps: str = "") -> Optional[SpanTargets]:
    """gaps: "tokens", "labels" or none; "nothing" for a Doc that nobody annotated."""
    if gaps == "nothing":
        return None
    chooser = random.Random(seed)
    spans = [(i, j, k) for i in range(length) for j in range(i + 1, length + 1) for k in range(n_labels)]
    chosen = chooser.sample(spans, min(len(spans), 6))
    blank = numpy.array([chooser.random() < 0.15 for _ in range(length)], dtype=bool)
    chosen = [span for span in chosen if not blank[span[0]] and not blank[span[1] - 1]]
    columns = n_labels if gaps == "labels" else 1
    unknown = numpy.array([[bool(gaps) and chooser.random() < 0.2] * 1 for _ in range(length * columns)], dtype=bool)
    return SpanTargets(chosen[:4], chosen[4:], unknown.reshape(length, columns), blank)


def loop_loss(parts: List[torch.Tensor], targets: List[Optional[SpanTargets]], max_width: int) -> torch.Tensor:
    total, n_docs = torch.zeros(()), 0
    for flat, target in zip(parts, targets):
        if target is None or not len(flat):
            continue
        n_docs += bool(target.spans or target.rejected or not target.unknown.all())
        n_labels = (flat.shape[1] - max_width) // 2
        for i, j, k in itertools.product(range(len(flat)), range(len(flat) + 1), range(n_labels)):
            if not i < j <= i + max_width or target.blank[i] or target.blank[j - 1]:
                continue
            is_gap = target.unknown[i:j, k if target.unknown.shape[1] > 1 else 0].any()
            if is_gap and (i, j, k) not in target.spans and (i, j, k) not in target.rejected:
                continue
            logit = flat[i, j - i - 1] + flat[i, max_width + k] + flat[j - 1, max_width + n_labels + k]
            truth = torch.tensor(float((i, j, k) in target.spans))
            total = total + binary_cross_entropy_with_logits(logit, truth, reduction="sum")
    return total / max(n_docs, 1)


@pytest.mark.parametrize("chunk", [1, 40, 1 << 21])
@pytest.mark.parametrize("gaps", ["", "tokens", "labels", "mixed"])
def test_the_loss_and_its_gradient_are_those_of_a_loop(gaps: str, chunk: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "CHUNK_CELLS", chunk)
    max_width, n_labels, lengths = 3, 2, [5, 0, 1, 6, 4]
    kinds = ["labels", "", "nothing", "tokens", ""] if gaps == "mixed" else [gaps] * 5
    targets = [make_targets(n, n_labels, seed, kind) for seed, (n, kind) in enumerate(zip(lengths, kinds))]
    torch.manual_seed(1)
    parts = [torch.randn(n, max_width + 2 * n_labels, requires_grad=True) for n in lengths]
    expected = loop_loss(parts, targets, max_width)
    expected.backward()
    loss, gradients = span_loss([part.detach().numpy() for part in parts], targets, max_width, weight=2.0)  # type: ignore[misc]
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5) and loss > 0
    for part, gradient in zip(parts, gradients):
        theirs = numpy.zeros(part.shape) if part.grad is None else part.grad.numpy()
        numpy.testing.assert_allclose(numpy.asarray(gradient), 2.0 * theirs, atol=1e-5)


def test_nothing_known_is_no_loss() -> None:
    parts: List[Any] = [numpy.ones((4, 7), dtype="float32"), numpy.ones((0, 7), dtype="float32")]
    unknown = SpanTargets([], [], numpy.ones((4, 1), dtype=bool), numpy.zeros(4, dtype=bool))
    for targets in ([None, None], [unknown, None]):
        loss, gradients = span_loss(parts, targets, 3)
        assert loss == 0.0 and not any(numpy.asarray(gradient).any() for gradient in gradients)


@pytest.mark.parametrize("thresholds", [[0.0, 0.0], [-1.0, 2.0], [-math.inf, math.inf]])
def test_found_spans_are_all_that_reach_their_threshold(thresholds: List[float]) -> None:
    max_width, lengths = 3, [6, 0, 1, 9]
    generator = numpy.random.default_rng(0)
    parts: List[Any] = [generator.normal(size=(n, max_width + 4)).astype("float32") for n in lengths]
    blank = [generator.random(n) < 0.2 for n in lengths]
    found = find_spans(parts, blank, max_width, numpy.array(thresholds, dtype="float32"))
    for flat, is_blank, (spans, scores, _) in zip(parts, blank, found):
        expected = {}
        for i, j, k in itertools.product(range(len(flat)), range(len(flat) + 1), range(2)):
            if i < j <= i + max_width and not is_blank[i] and not is_blank[j - 1]:
                logit = flat[i, j - i - 1] + flat[i, max_width + k] + flat[j - 1, max_width + 2 + k]
                if logit >= thresholds[k]:
                    expected[i, j, k] = logit
        assert [tuple(span) for span in spans.tolist()] == sorted(expected, key=lambda s: (s[0], -s[1], s[2]))
        for span, value in zip(spans.tolist(), scores):
            assert value == pytest.approx(expected[tuple(span)], abs=1e-5)


@pytest.mark.parametrize("temperature", [None, 2.5])
@pytest.mark.parametrize("chunk", [1, 40, 1 << 21])
def test_uncertainty_is_that_of_a_loop_over_all_spans(
    chunk: int, temperature: Optional[float], monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "CHUNK_CELLS", chunk)
    max_width, lengths = 3, [6, 0, 1, 9]
    generator = numpy.random.default_rng(0)
    parts: List[Any] = [generator.normal(size=(n, max_width + 4)).astype("float32") for n in lengths]
    blank = [generator.random(n) < 0.2 for n in lengths]
    middle = numpy.array([0.5, -1.0], dtype="float32")
    tempering = None if temperature is None else Tempering(temperature, middle)
    found = span_uncertainty(parts, blank, max_width, tempering)
    for flat, is_blank, unsure in zip(parts, blank, found):
        best: List[List[float]] = [[] for _ in flat]
        entropies = numpy.zeros(len(flat))
        for i, j, k in itertools.product(range(len(flat)), range(len(flat) + 1), range(2)):
            if i < j <= i + max_width and not is_blank[i] and not is_blank[j - 1]:
                logit = float(flat[i, j - i - 1] + flat[i, max_width + k] + flat[j - 1, max_width + 2 + k])
                if temperature is not None:
                    logit = float(middle[k]) + (logit - float(middle[k])) / temperature
                p = 1 / (1 + math.exp(-logit))
                best[i].append(max(p, 1 - p))
                entropies[i] -= p * math.log(p) + (1 - p) * math.log(1 - p)
        numpy.testing.assert_allclose(unsure.entropies, entropies, atol=1e-4)
        numpy.testing.assert_allclose(unsure.best_marginals, [min(ps, default=1.0) for ps in best], atol=1e-5)
        expected = sum(math.log(p) for ps in best for p in ps)
        assert unsure.path_log_probability == pytest.approx(expected, abs=1e-4)


WEIGHTED = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 4), st.floats(0, 8, allow_nan=False)).map(
        lambda drawn: (drawn[0], drawn[0] + drawn[1], drawn[2])
    ),
    max_size=9,
)


@given(WEIGHTED)
def test_the_best_choice_without_overlap_is_that_of_brute_force(weighted: List[Tuple[int, int, float]]) -> None:
    spans, weights = [(i, j, "X") for i, j, _ in weighted], [weight for *_, weight in weighted]
    chosen = best_without_overlap(spans, weights)
    inside = [token for number in chosen for token in range(*spans[number][:2])]
    assert inside == sorted(set(inside))
    best = 0.0
    for size in range(len(spans) + 1):
        for choice in itertools.combinations(range(len(spans)), size):
            tokens = [token for number in choice for token in range(*spans[number][:2])]
            if len(tokens) == len(set(tokens)):
                best = max(best, sum(weights[number] for number in choice))
    assert sum(weights[number] for number in chosen) == pytest.approx(best)
