"""The sequence tagger over all Docs at once against each Doc by itself."""

import pytest
import torch
from torch.testing import assert_close

from spacy_bert_heads.layers.head_modules import SequenceTagger


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
