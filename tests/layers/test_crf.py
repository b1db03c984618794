"""The CRF against sums over every path, finite differences and pytorch-crf."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from torchcrf import CRF as PytorchCRF

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.crf import recursions
from spacy_bert_heads.layers.crf.decoding import best_states, docs_within, n_best_states
from spacy_bert_heads.layers.crf.module import ConditionalRandomField, allowed_from_tags, token_entropy
from spacy_bert_heads.layers.crf.recursions import (
    LogLattice,
    ScaledLattice,
    join_transitions,
    pad_emissions,
    path_score,
)
from spacy_bert_heads.layers.crf.spans import SpanPatterns
from spacy_bert_heads.tags import SCHEMES, TagScheme

LENGTHS = [(3,), (2, 4), (1, 0, 3), (0, 0), (0, 1, 5, 2)]
CONSTRAINTS = [None, *SCHEMES]
# Beyond about 40 the float32 recursion is too narrow, beyond about 300 the float64 one: every way is tested.
SCALES = [1.0, 60.0, 2000.0]


def make_crf(scheme=None, n_labels=1, n_tags=3, seed=0, scale=1.0, dtype=torch.float32):
    torch.manual_seed(seed)
    tags = None if scheme is None else TagScheme(scheme, [f"L{i}" for i in range(n_labels)])
    constraints = {} if tags is None else make_constraints(tags)
    crf = ConditionalRandomField(n_tags if tags is None else len(tags.tags), **constraints).to(dtype)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return crf, tags


def make_constraints(tags):
    return {
        "allowed_transitions": tags.allowed_transitions,
        "allowed_start": tags.allowed_start,
        "allowed_end": tags.allowed_end,
    }


def make_batch(n_tags, lengths, seed=0, scale=1.0, dtype=torch.float32):
    torch.manual_seed(seed + 100)
    n_tokens = max(lengths)
    emissions = torch.randn(len(lengths), n_tokens, n_tags, dtype=dtype) * scale
    mask = torch.arange(n_tokens) < torch.tensor(lengths)[:, None]
    return emissions, mask


def make_patterns(tags):
    return SpanPatterns(torch.tensor(tags.span_tags), torch.tensor(tags.forbidden_next))


def make_annotation(crf, mask, seed=0):
    """Sets of allowed tags that some legal path fits: such a path, and other tags at random."""
    torch.manual_seed(seed + 200)
    noise = torch.randn(*mask.shape, crf.num_tags)
    paths, _ = crf.viterbi(noise * 10, mask)
    allowed = torch.rand(noise.shape) < 0.4
    return allowed.scatter_(2, paths[:, :, None], True), paths


def every_path(crf, emissions, mask):
    """All legal paths of each doc: one namespace per doc with the paths and their scores in float64."""
    start, end, step = (p.detach().double() for p in (crf.start_transitions, crf.end_transitions, crf.transitions))
    legal = crf.legal if crf.legal is not None else torch.ones(crf.num_tags + 1, crf.num_tags + 1).bool()
    docs = []
    for scores, n_tokens in zip(emissions.detach().double(), mask.sum(1).tolist()):
        found = []
        for path in itertools.product(range(crf.num_tags), repeat=n_tokens):
            states = [crf.num_tags, *path, crf.num_tags]
            if n_tokens and not all(legal[i, j] for i, j in zip(states, states[1:])):
                continue
            score = sum(float(scores[t, tag]) for t, tag in enumerate(path))
            score += sum(float(step[i, j]) for i, j in zip(path, path[1:]))
            score += float(start[path[0]] + end[path[-1]]) if path else 0.0
            found.append((path, score))
        total = logsumexp([score for _, score in found])
        docs.append(SimpleNamespace(paths=found, total=total))
    return docs


def logsumexp(scores):
    return torch.tensor(scores, dtype=torch.float64).logsumexp(0).item() if scores else -math.inf


def log_share(doc, keep):
    """Log of the share of the doc's probability that lies in the paths to keep."""
    return logsumexp([score for path, score in doc.paths if keep(path)]) - doc.total


def tolerance(scale):
    return {"rtol": 1e-5, "atol": 2e-5 * scale}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("scheme", CONSTRAINTS)
def test_log_partition_equals_sum_over_all_paths(scheme, lengths, scale):
    crf, _ = make_crf(scheme, scale=scale)
    emissions, mask = make_batch(crf.num_tags, lengths, scale=scale)
    expected = [doc.total for doc in every_path(crf, emissions, mask)]
    assert_close(crf.log_partition(emissions, mask).tolist(), expected, **tolerance(scale))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("scheme", CONSTRAINTS)
def test_partial_likelihood_equals_sum_over_paths_within_allowed_tags(scheme, lengths, scale):
    crf, _ = make_crf(scheme, scale=scale)
    emissions, mask = make_batch(crf.num_tags, lengths, scale=scale)
    allowed, _ = make_annotation(crf, mask)
    expected = [
        log_share(doc, lambda path, rows=rows: all(rows[t, tag] for t, tag in enumerate(path)))
        for doc, rows in zip(every_path(crf, emissions, mask), allowed)
    ]
    assert_close(crf.log_likelihood(emissions, allowed, mask).tolist(), expected, **tolerance(scale))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("scheme", CONSTRAINTS)
def test_full_likelihood_equals_share_of_the_path(scheme, scale):
    crf, _ = make_crf(scheme, scale=scale)
    emissions, mask = make_batch(crf.num_tags, (4, 0, 1), scale=scale)
    allowed, paths = make_annotation(crf, mask)
    expected = [
        log_share(doc, lambda path, tags=tags: list(path) == tags[: len(path)])
        for doc, tags in zip(every_path(crf, emissions, mask), paths.tolist())
    ]
    assert_close(crf.log_likelihood_of_tags(emissions, paths, mask).tolist(), expected, **tolerance(scale))
    assert_close(crf.path_log_probability(emissions, paths, mask).tolist(), expected, **tolerance(scale))
    one_hot = torch.nn.functional.one_hot(paths, crf.num_tags).bool()
    assert_close(crf.log_likelihood(emissions, one_hot, mask).tolist(), expected, **tolerance(scale))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("scheme", CONSTRAINTS)
def test_marginals_equal_shares_of_paths(scheme, lengths, scale):
    crf, _ = make_crf(scheme, scale=scale)
    emissions, mask = make_batch(crf.num_tags, lengths, scale=scale)
    marginals = crf.marginals(emissions, mask)
    expected = torch.zeros_like(marginals)
    for d, doc in enumerate(every_path(crf, emissions, mask)):
        for path, score in doc.paths:
            for t, tag in enumerate(path):
                expected[d, t, tag] += math.exp(score - doc.total)
    assert_close(marginals, expected, rtol=1e-4, atol=1e-5 if scale < 100 else 1e-3)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("scheme", CONSTRAINTS)
def test_viterbi_and_nbest_equal_sorted_paths(scheme, lengths, scale):
    crf, _ = make_crf(scheme, scale=scale)
    emissions, mask = make_batch(crf.num_tags, lengths, scale=scale)
    best, best_scores = crf.viterbi(emissions, mask)
    paths, scores, exists = crf.nbest(emissions, mask, 7)
    for d, doc in enumerate(every_path(crf, emissions, mask)):
        ranked = sorted(doc.paths, key=lambda found: -found[1])[:7]
        n_tokens = int(mask[d].sum())
        assert tuple(best[d, :n_tokens].tolist()) == ranked[0][0]
        assert best[d, n_tokens:].sum() == 0
        assert best_scores[d].item() == pytest.approx(ranked[0][1], rel=1e-5, abs=1e-5)
        assert exists[d].tolist() == [True] * len(ranked) + [False] * (7 - len(ranked))
        assert [tuple(path) for path in paths[d, exists[d], :n_tokens].tolist()] == [path for path, _ in ranked]
        assert_close(scores[d, exists[d]].tolist(), [score for _, score in ranked], rtol=1e-5, atol=1e-5)


def all_spans(lengths, n_labels):
    return [
        (doc, start, end, label)
        for doc, n_tokens in enumerate(lengths)
        for start in range(n_tokens)
        for end in range(start + 1, n_tokens + 1)
        for label in range(n_labels)
    ]


def expected_span_log_probabilities(crf, tags, emissions, mask, spans):
    docs = every_path(crf, emissions, mask)
    read = {path: set(tags.spans_from_tags(path)) for doc in docs for path, _ in doc.paths}
    return [
        log_share(docs[doc], lambda path, span=(start, end, tags.labels[label]): span in read[path])
        for doc, start, end, label in spans
    ]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("lengths", [(3,), (1, 0, 4)])
@pytest.mark.parametrize("scheme, n_labels", [("bio", 1), ("bio", 2), ("biluo", 1), ("bioes", 1), ("bmes", 1)])
def test_span_probability_equals_share_of_paths_with_that_entity(scheme, n_labels, lengths, scale):
    crf, tags = make_crf(scheme, n_labels, scale=scale)
    emissions, mask = make_batch(crf.num_tags, lengths, scale=scale)
    spans = all_spans(lengths, n_labels)
    log_p = crf.span_log_probability(emissions, mask, torch.tensor(spans), make_patterns(tags))
    expected = expected_span_log_probabilities(crf, tags, emissions, mask, spans)
    assert_close(log_p.tolist(), expected, rtol=1e-4, atol=2e-5 * scale)


def test_span_probability_without_spans_or_beyond_the_doc():
    crf, tags = make_crf("bio")
    emissions, mask = make_batch(crf.num_tags, (2, 4))
    patterns = make_patterns(tags)
    assert crf.span_log_probability(emissions, mask, torch.zeros(0, 4).long(), patterns).shape == (0,)
    beyond = torch.tensor([(0, 1, 3, 0), (0, 3, 4, 0), (1, 3, 5, 0)])
    assert crf.span_log_probability(emissions, mask, beyond, patterns).tolist() == [-math.inf] * 3


@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("scheme, n_labels", [("bio", 1), ("bio", 2), ("biluo", 1), ("bmes", 1)])
def test_rejected_span_loss_is_minus_log_of_all_other_paths(scheme, n_labels, scale):
    crf, tags = make_crf(scheme, n_labels, scale=scale)
    lengths = (3, 0, 1)
    emissions, mask = make_batch(crf.num_tags, lengths, scale=scale)
    spans = all_spans(lengths, n_labels)
    docs = every_path(crf, emissions, mask)
    read = {path: set(tags.spans_from_tags(path)) for doc in docs for path, _ in doc.paths}
    expected = [
        -log_share(docs[doc], lambda path, span=(start, end, tags.labels[label]): span not in read[path])
        for doc, start, end, label in spans
    ]
    loss = crf.rejected_span_loss(emissions, mask, torch.tensor(spans), make_patterns(tags))
    assert_close(loss.tolist(), expected, rtol=1e-4, atol=2e-5 * scale)
    assert crf.rejected_span_loss(emissions, mask, torch.zeros(0, 4).long(), make_patterns(tags)).shape == (0,)


def test_rejected_span_still_teaches_when_the_model_is_sure_of_it():
    crf, tags = make_crf("bio")
    emissions = torch.zeros(1, 2, 3)
    emissions[0, 0, tags.tag_numbers["B-L0"]] = 50.0
    emissions[0, 1, tags.tag_numbers["O"]] = 50.0
    emissions.requires_grad_()
    spans = torch.tensor([(0, 0, 1, 0)])
    loss = crf.rejected_span_loss(emissions, torch.ones(1, 2).bool(), spans, make_patterns(tags))
    (gradient,) = torch.autograd.grad(loss.sum(), emissions)
    assert 40 < loss.item() < 60
    assert gradient.isfinite().all() and gradient.abs().max() > 0.5


LOSSES = {
    "log_partition": lambda crf, e, mask, tags: crf.log_partition(e, mask),
    "partial": lambda crf, e, mask, tags: crf.log_likelihood(e, make_annotation(crf, mask)[0], mask),
    "tags": lambda crf, e, mask, tags: crf.log_likelihood_of_tags(e, make_annotation(crf, mask)[1], mask),
    "rejected": lambda crf, e, mask, tags: crf.rejected_span_loss(
        e, mask, torch.tensor([(0, 1, 3, 0), (0, 2, 4, 0), (2, 0, 1, 0)]), make_patterns(tags)
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_equal_finite_differences(scheme, loss):
    crf, tags = make_crf(scheme, dtype=torch.float64)
    emissions, mask = make_batch(crf.num_tags, (4, 0, 1), dtype=torch.float64)

    def compute(emissions, *weights):
        names = [name for name, _ in crf.named_parameters()]
        return torch.func.functional_call(
            Bound(crf, loss, mask, tags), dict(zip([f"crf.{n}" for n in names], weights)), (emissions,)
        )

    weights = [p.detach().clone().requires_grad_() for p in crf.parameters()]
    assert torch.autograd.gradcheck(compute, (emissions.requires_grad_(), *weights))


class Bound(torch.nn.Module):
    """One loss of a CRF as a module, so that its parameters can be replaced."""

    def __init__(self, crf, loss, mask, tags):
        super().__init__()
        self.crf, self.loss, self.mask, self.tags = crf, loss, mask, tags

    def forward(self, emissions):
        return LOSSES[self.loss](self.crf, emissions, self.mask, self.tags)


@pytest.mark.parametrize("scale", [60.0, 2000.0])
def test_gradients_for_large_scores_equal_expected_counts(scale):
    crf, _ = make_crf("bio", scale=scale)
    emissions, mask = make_batch(crf.num_tags, (4, 0, 1), scale=scale)
    emissions.requires_grad_()
    d_emissions, d_steps = torch.autograd.grad(crf.log_partition(emissions, mask).sum(), [emissions, crf.transitions])
    expected, expected_steps = torch.zeros_like(emissions), torch.zeros_like(crf.transitions)
    for d, doc in enumerate(every_path(crf, emissions, mask)):
        for path, score in doc.paths:
            share = math.exp(score - doc.total)
            for t, tag in enumerate(path):
                expected[d, t, tag] += share
            for i, j in zip(path, path[1:]):
                expected_steps[i, j] += share
    assert_close(d_emissions, expected.detach(), rtol=1e-3, atol=1e-3)
    assert_close(d_steps, expected_steps.detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_equals_pytorch_crf(seed):
    torch.manual_seed(seed)
    lengths = torch.randint(1, 30, (8,)).tolist()
    reference = PytorchCRF(11, batch_first=True)
    crf = ConditionalRandomField(11)
    crf.load_state_dict(reference.state_dict())
    reference.load_state_dict(crf.state_dict())
    emissions, mask = make_batch(11, lengths, seed=seed, scale=3.0)
    emissions.requires_grad_()
    tags = torch.randint(0, 11, mask.shape)
    ours, theirs = crf.log_likelihood_of_tags(emissions, tags, mask), reference(emissions, tags, mask, "none")
    assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    weights = torch.randn(8)
    d_ours = torch.autograd.grad((ours * weights).sum(), [emissions, *crf.parameters()])
    d_theirs = torch.autograd.grad((theirs * weights).sum(), [emissions, *reference.parameters()])
    assert_close(d_ours, d_theirs, rtol=1e-4, atol=1e-4)
    paths, _ = crf.viterbi(emissions, mask)
    assert [path[:n].tolist() for path, n in zip(paths, lengths)] == reference.decode(emissions, mask)


def test_state_holds_the_three_parameters_only():
    crf, _ = make_crf("bio")
    assert list(crf.state_dict()) == ["start_transitions", "end_transitions", "transitions"]


def test_everything_allowed_contributes_exactly_nothing():
    crf, _ = make_crf("biluo", n_labels=2)
    emissions, mask = make_batch(crf.num_tags, (5, 0, 3), scale=10.0)
    emissions.requires_grad_()
    log_likelihood = crf.log_likelihood(emissions, torch.ones_like(emissions).bool(), mask)
    gradients = torch.autograd.grad(log_likelihood.sum(), [emissions, *crf.parameters()])
    assert log_likelihood.tolist() == [0.0, 0.0, 0.0]
    assert all(gradient.abs().max() == 0 for gradient in gradients)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["tags", "allowed"])
def test_annotation_that_no_legal_path_fits_has_no_probability_and_no_gradient(kind, scale):
    crf, tags = make_crf("bio")
    emissions, mask = make_batch(crf.num_tags, (2, 3, 2), scale=scale)
    emissions.requires_grad_()
    paths = torch.tensor([[0, 0, 0], [0, tags.tag_numbers["I-L0"], 0], [tags.tag_numbers["I-L0"], 0, 0]])

    def log_likelihood(rows):
        if kind == "tags":
            return crf.log_likelihood_of_tags(emissions[rows], paths[rows], mask[rows])
        return crf.log_likelihood(emissions[rows], allowed_from_tags(paths[rows], crf.num_tags), mask[rows])

    assert log_likelihood([0, 1, 2]).isneginf().tolist() == [False, True, True]
    of_all, of_first = (
        torch.autograd.grad(log_likelihood(rows).sum(), [emissions, *crf.parameters()]) for rows in ([0, 1, 2], [0])
    )
    assert of_first[0][0].any() and not of_all[0][1:].any()
    for found, expected in zip(of_all, of_first):
        assert_close(found, expected)


def test_docs_without_any_legal_path_are_named():
    crf, _ = make_crf("bio")
    emissions, mask = make_batch(crf.num_tags, (2, 3, 2))
    emissions[1:, 0] = -torch.inf
    for sums in (crf.log_partition, crf.marginals):
        with pytest.raises(BertHeadsError, match="H330") as error:
            sums(emissions, mask)
        assert error.value.found == [1, 2]
    assert crf.log_likelihood(emissions, torch.ones_like(emissions).bool(), mask).tolist() == [0, -math.inf, -math.inf]


@pytest.mark.parametrize("call", ["tags", "allowed", "viterbi"])
def test_autocast_changes_nothing(call):
    crf, _ = make_crf("bio")
    emissions, mask = make_batch(crf.num_tags, (6, 2), scale=5.0)
    emissions = emissions.bfloat16()
    allowed, paths = make_annotation(crf, mask)
    compute = {
        "tags": lambda e: crf.log_likelihood_of_tags(e, paths, mask),
        "allowed": lambda e: crf.log_likelihood(e, allowed, mask),
        "viterbi": lambda e: crf.viterbi(e, mask)[1],
    }[call]
    with torch.autocast("cpu", torch.bfloat16):
        inside = compute(emissions)
        if call != "viterbi":
            inside_gradient = torch.autograd.grad(inside.sum(), crf.transitions)[0]
            assert_close(inside_gradient, torch.autograd.grad(compute(emissions.float()).sum(), crf.transitions)[0])
    assert inside.dtype == torch.float32
    assert torch.equal(inside, compute(emissions.float()))


@pytest.mark.parametrize("scale", [1.0, 50.0, 10_000.0])
@pytest.mark.parametrize("scheme", CONSTRAINTS)
def test_long_docs_and_large_scores_stay_finite(scheme, scale):
    crf, tags = make_crf(scheme, n_labels=2)
    emissions, mask = make_batch(crf.num_tags, (200, 1, 0, 500 if scale < 100 else 120), scale=scale)
    emissions.requires_grad_()
    allowed, paths = make_annotation(crf, mask)
    loss = crf.log_likelihood(emissions, allowed, mask) + crf.log_likelihood_of_tags(emissions, paths, mask)
    gradients = torch.autograd.grad(loss.sum(), [emissions, *crf.parameters()])
    assert loss.isfinite().all() and (loss <= 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert_close(crf.marginals(emissions, mask).sum(2), mask.float())
    best, scores = crf.viterbi(emissions, mask)
    assert (crf.path_log_probability(emissions, best, mask) <= 1e-4).all() and scores.isfinite().all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_illegal_tags_never_come_out_however_much_they_are_wanted(scheme):
    crf, tags = make_crf(scheme, n_labels=2)
    emissions, mask = make_batch(crf.num_tags, (12, 1, 0, 7), scale=1.0)
    middle = [tag for number, tag in enumerate(tags.tags) if not tags.allowed_start[number]]
    for tag in middle:
        emissions[:, :, tags.tag_numbers[tag]] += 1e6
    paths, _, exists = crf.nbest(emissions, mask, 5)
    paths = torch.cat((paths, crf.viterbi(emissions, mask)[0][:, None]), 1)
    allowed = torch.tensor(tags.allowed_transitions)
    for doc, n_tokens in enumerate(mask.sum(1).tolist()):
        for path in paths[doc, [*exists[doc].tolist(), True], :n_tokens]:
            assert allowed[path[:-1], path[1:]].all()
            assert n_tokens == 0 or tags.allowed_start[path[0]] and tags.allowed_end[path[-1]]
    assert (crf.marginals(emissions, mask)[:, 0, [tags.tag_numbers[tag] for tag in middle]] == 0).all()


def test_a_path_far_below_the_others_is_not_lost_when_it_alone_is_legal_later():
    """In float32 exp(-200) is 0: O beats B-L0 by 200 on token 0, then only I-L0 is wanted."""
    crf, tags = make_crf("bio", scale=0.1)
    emissions = torch.zeros(1, 2, 3)
    emissions[0, 0, tags.tag_numbers["O"]] = 200.0
    emissions[0, 1, tags.tag_numbers["I-L0"]] = 1000.0
    mask = torch.ones(1, 2).bool()
    expected = every_path(crf, emissions, mask)[0]
    assert crf.log_partition(emissions, mask).item() == pytest.approx(expected.total)
    b_then_i = [tags.tag_numbers["B-L0"], tags.tag_numbers["I-L0"]]
    assert crf.viterbi(emissions, mask)[0].tolist() == [b_then_i]
    assert crf.marginals(emissions, mask)[0, 0, b_then_i[0]].item() == pytest.approx(1.0)


@pytest.mark.parametrize("lengths", [(60, 0, 1, 33), (60,)])  # a doc alone goes another way
@pytest.mark.parametrize("scale", [3.0, 8.0, 15.0, 25.0, 40.0, 100.0, 400.0])
@pytest.mark.parametrize("scheme", CONSTRAINTS)
def test_scaled_sums_are_right_or_report_that_they_are_not(scheme, scale, lengths, monkeypatch):
    monkeypatch.setattr(recursions, "BLOCK", 25)  # of 60 steps
    crf, _ = make_crf(scheme, n_labels=3, n_tags=9, scale=scale / 4)
    emissions, mask = make_batch(crf.num_tags, lengths, scale=scale)
    allowed, _ = make_annotation(crf, mask)
    weights = crf.start_transitions, crf.end_transitions, crf.transitions, crf.legal
    log_m = join_transitions(*(w if w is None else w.detach() for w in weights))
    for log_e in (pad_emissions(emissions, mask), pad_emissions(emissions, mask, allowed)):
        exact = LogLattice(log_e.double(), log_m.double())
        for dtype in (torch.float32, torch.float64):
            scaled = ScaledLattice(log_e.to(dtype), log_m.to(dtype), both=True)
            assert bool(scaled.lost) or scale < 400 or dtype == torch.float64
            assert not scaled.lost or scale > 3
            if not scaled.lost:
                assert_close(scaled.log_z, exact.log_z, rtol=1e-6, atol=1e-4)
                assert_close(scaled.marginals().double(), exact.marginals(), rtol=1e-4, atol=1e-5)
                ones = torch.ones(len(mask))
                counts = exact.transition_counts(ones.double())[:-1, :-1]
                ours = scaled.transition_counts(ones.to(dtype))[:-1, :-1]
                assert_close(ours.double(), counts, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", CONSTRAINTS)
def test_a_doc_alone_has_the_path_and_the_sum_that_it_has_in_a_batch(scheme):
    crf, _ = make_crf(scheme, n_labels=3, n_tags=9)
    emissions, mask = make_batch(crf.num_tags, (200, 63, 1))
    together, scores = crf.viterbi(emissions, mask)
    sums = crf.log_partition(emissions, mask)
    for doc, n_tokens in enumerate(mask.sum(1).tolist()):
        alone = emissions[doc : doc + 1, :n_tokens], mask[doc : doc + 1, :n_tokens]
        path, score = crf.viterbi(*alone)
        assert path[0].tolist() == together[doc, :n_tokens].tolist()
        assert_close(score[0], scores[doc])
        assert_close(crf.log_partition(*alone)[0], sums[doc])


def test_decoding_reads_nothing_back_from_the_device():
    """Tensors on the device "meta" hold no values: anything that had to look at one would fail."""
    log_e, log_m = torch.empty(8, 4, 5, device="meta"), torch.empty(4, 4, device="meta")
    mask = torch.empty(5, 6, device="meta", dtype=torch.bool)
    states = best_states(log_e, log_m, docs_within(mask))
    assert states.shape == (8, 5) and path_score(log_e, log_m, states).shape == (5,)
    states, exists = n_best_states(log_e, log_m, 2)
    assert states.shape == (8, 2, 5) and exists.shape == (2, 5)


@pytest.mark.parametrize("call", ["tags", "allowed", "marginals", "spans"])
def test_sums_read_the_device_once(call, monkeypatch):
    crf, tags = make_crf("bio")
    emissions, mask = make_batch(crf.num_tags, (6, 2, 0))
    allowed, paths = make_annotation(crf, mask)
    spans, patterns = torch.tensor([(0, 1, 3, 0)]), make_patterns(tags)
    compute = {
        "tags": lambda: crf.log_likelihood_of_tags(emissions, paths, mask).sum().backward(),
        "allowed": lambda: crf.log_likelihood(emissions, allowed, mask).sum().backward(),
        "marginals": lambda: crf.marginals(emissions, mask),
        "spans": lambda: crf.span_log_probability(emissions, mask, spans, patterns),
    }[call]
    reads = []
    for name in ("tolist", "item", "__bool__", "__float__", "nonzero"):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *a, m=method, n=name: (reads.append(n), m(*a))[1])
    compute()
    assert reads == ["tolist"]


def test_entropy_of_sure_and_unsure_tokens():
    marginals = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]]])
    assert_close(token_entropy(marginals), torch.tensor([[0.0, math.log(2), 0.0]]))


def test_gaps_allow_every_tag_except_one_that_makes_a_known_entity_longer():
    tags = TagScheme("bio", ["X", "Y"])
    known = torch.tensor([tags.numbers(["B-X", "-", "-", "O", "-"])])
    allowed = allowed_from_tags(known, len(tags.tags), torch.tensor(tags.extends))
    names = [[tags.tags[i] for i in row.nonzero()[:, 0]] for row in allowed[0]]
    assert names == [["B-X"], ["O", "B-X", "B-Y", "I-Y"], tags.tags, ["O"], tags.tags]


@pytest.mark.parametrize(
    "name, change",
    [
        ("emissions", {"emissions": torch.zeros(2, 3, 4)}),
        ("mask", {"mask": torch.ones(2, 2).bool()}),
        ("mask", {"mask": torch.ones(2, 3)}),
        ("tags", {"tags": torch.zeros(2, 4).long()}),
    ],
)
def test_wrong_shapes_and_types_are_named(name, change):
    crf, _ = make_crf()
    inputs = {
        "emissions": torch.zeros(2, 3, 3),
        "tags": torch.zeros(2, 3).long(),
        "mask": torch.ones(2, 3).bool(),
        **change,
    }
    with pytest.raises(BertHeadsError, match=f"H230.*{name}"):
        crf.log_likelihood_of_tags(**inputs)


def test_wrong_constraints_are_named():
    with pytest.raises(BertHeadsError, match="H231.*allowed_start"):
        ConditionalRandomField(3, allowed_start=[True, False])
    with pytest.raises(BertHeadsError, match="H232"):
        ConditionalRandomField(0)
