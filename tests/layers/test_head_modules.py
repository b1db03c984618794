"""The sequence tagger over all Docs at once against each Doc by itself; running figures against numpy's."""

import numpy
import pytest
import torch
from torch.testing import assert_close

from spacy_bert_heads.layers.head_modules import SequenceTagger, Standardizer


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("lengths", [(3,), (2, 5), (1, 0, 4, 4, 0, 2), (7, 1), (150, 2, 70, 149)])
def test_scores_and_gradients_are_those_of_each_doc_by_itself(lengths, depth):
    torch.manual_seed(0)
    tagger = SequenceTagger(6, 5, lstm_width=8, lstm_depth=depth)
    X = torch.randn(sum(lengths), 6, requires_grad=True)
    weights = torch.randn(sum(lengths), 5)
    parameters = [X, *tagger.parameters()]

    scores = tagger(X, torch.tensor(lengths))
    gradients = torch.autograd.grad((scores * weights).sum(), parameters)

    alone = torch.cat([tagger.linear(tagger.lstm(Xi[None])[0][0]) for Xi in X.split(lengths) if len(Xi)])
    expected = torch.autograd.grad((alone * weights).sum(), parameters)
    assert_close(scores, alone)
    for gradient, one_by_one in zip(gradients, expected):
        assert_close(gradient, one_by_one)


def test_standardized_vectors_are_those_of_numpys_running_figures() -> None:
    batches = [3.0 + 0.05 * torch.randn(size, 6, generator=torch.Generator().manual_seed(size)) for size in (32, 1, 7)]
    batches = batches * 5
    module = Standardizer(6).train()
    mean, variance = numpy.zeros(6), 1.0
    for number, batch in enumerate(batches):
        found = module(batch)
        share = max(0.1, 1 / (number + 1))
        mean = (1 - share) * mean + share * batch.numpy().mean(0)
        variance = (1 - share) * variance + share * ((batch.numpy() - mean) ** 2).mean()
        expected = (batch.numpy() - mean) / numpy.sqrt(variance + 1e-6)
        numpy.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    seen = torch.cat(batches)
    standardized = module.eval()(seen)
    assert abs(float(standardized.mean())) < 0.3 and 0.8 < float(standardized.std()) < 1.25
    assert torch.equal(module(seen), standardized)  # predictions change nothing
    X = seen.clone().requires_grad_()
    module.train()(X).sum().backward()
    assert_close(X.grad, torch.full_like(X, float((module.variance + 1e-6).rsqrt())))


def test_vectors_that_are_all_the_same_and_none_at_all_can_be_standardized() -> None:
    module = Standardizer(4).train()
    assert module(torch.zeros(0, 4)).shape == (0, 4)
    for _ in range(50):
        found = module(torch.full((3, 4), 2.0))
    assert torch.isfinite(found).all() and float(found.abs().max()) < 1e-2
