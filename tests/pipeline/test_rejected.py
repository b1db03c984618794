"""Learning from rejected spans, and from corpora that mix complete, partial and binary answers."""

import itertools
import logging
import math
from typing import Any, Dict, List, Sequence, Tuple

import numpy
import pytest
import torch
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.crf.layer import crf, crf_loss
from spacy_bert_heads.tags import SCHEMES, UNKNOWN, TagScheme

from ..making import assert_close, crf_module, gradients, head_module, initialize_nlp, make_examples, make_nlp

LABELS = ["PERSON", "CITY"]


def make_reference(nlp: Language, text: str, ents: Any = None, rejected: Sequence[Tuple[int, int, str]] = ()) -> Doc:
    """ents: None leaves all tokens missing; otherwise a list of entities, the other tokens outside."""
    doc = nlp.make_doc(text)
    if ents is not None:
        doc.set_ents([Span(doc, *ent) for ent in ents], default="outside")
    if rejected:
        doc.spans["incorrect_spans"] = [Span(doc, *span) for span in rejected]
    return doc


def make_answer(nlp: Language, text: str, ents: Any = None, rejected: Sequence[Tuple[int, int, str]] = ()) -> Example:
    return Example(nlp.make_doc(text), make_reference(nlp, text, ents, rejected))


def make_ner(folder: str, seed: int = 0, **model: Any) -> Language:
    nlp = make_nlp(folder, ["bert_ner"], settings={"bert_ner": {"model": {"lstm_width": 8, **model}}}, seed=seed)
    torch.manual_seed(seed)
    torch.nn.init.normal_(head_module(nlp, "bert_ner").linear.weight, std=2.0)
    return nlp


def probability(nlp: Language, text: str, span: Tuple[int, int, str]) -> float:
    """Of an entity, by way of the best thousand readings: all that matter in a short text."""
    doc = nlp.get_pipe("transformer")(nlp.make_doc(text))
    (readings,) = nlp.get_pipe("bert_ner").nbest([doc], 1000)  # type: ignore[attr-defined]
    return sum(math.exp(p) for ents, p in readings if span in ents)


def make_layer(scheme: str, seed: int) -> Tuple[Any, TagScheme, torch.nn.Module]:
    tags = TagScheme(scheme, LABELS)
    layer = crf(len(tags.tags), kind="constrained", scheme=scheme, lr_scale=1.0)
    layer.initialize()
    module = layer.shims[0].module  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer, tags, module


def brute_force_loss(
    module: Any,
    tags: TagScheme,
    emissions: List[torch.Tensor],
    targets: List[numpy.ndarray],
    rejected: List[List[Tuple[int, int, int]]],
) -> torch.Tensor:
    """Sums over every path in float64, differentiated by autograd."""
    start, end, step = (parameter.double() for parameter in module.parameters())
    terms = []
    for scores, gold, spans in zip(emissions, targets, rejected):
        if not spans and (gold == UNKNOWN).all():
            continue
        all_scores, fits, entities = [], [], []
        for path in itertools.product(range(len(tags.tags)), repeat=len(scores)):
            follows = all(tags.allowed_transitions[i][j] for i, j in zip(path, path[1:]))
            if follows and tags.allowed_start[path[0]] and tags.allowed_end[path[-1]]:
                score = start[path[0]] + end[path[-1]]
                score = score + sum(scores[t, tag].double() for t, tag in enumerate(path))
                score = score + sum((step[i, j] for i, j in zip(path, path[1:])), torch.zeros(()).double())
                all_scores.append(score)
                # A known entity that ends before a gap ends there
                fits.append(
                    all(g in (UNKNOWN, tag) for g, tag in zip(gold, path))
                    and not any(
                        gold[t] != UNKNOWN and gold[t + 1] == UNKNOWN and tags.extends[path[t]][path[t + 1]]
                        for t in range(len(gold) - 1)
                    )
                )
                entities.append(tags.spans_from_tags(path))
        z = torch.stack(all_scores).logsumexp(0)
        if not (gold == UNKNOWN).all():
            terms.append(z - torch.stack([s for s, fit in zip(all_scores, fits) if fit]).logsumexp(0))
        else:
            terms.append(z * 0)
        for first, last, label in spans:
            span = (first, last, tags.labels[label])
            without = [s for s, found in zip(all_scores, entities) if span not in found]
            terms[-1] = terms[-1] + z - torch.stack(without).logsumexp(0)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_loss_of_mixed_answers_and_its_gradient_are_those_of_all_paths(scheme: str) -> None:
    layer, tags, module = make_layer(scheme, seed=1)
    torch.manual_seed(2)
    emissions = [torch.randn(n, len(tags.tags)) for n in (3, 2, 0, 3, 1, 2)]
    complete = numpy.array(tags.tags_from_spans(3, [(0, 2, "PERSON")]))
    partial = numpy.array(tags.tags_from_spans(3, [(0, 1, "CITY")], [True, True, False]))
    missing = [numpy.full(n, UNKNOWN) for n in (2, 0, 1, 2)]
    targets = [complete, missing[0], missing[1], partial, missing[2], missing[3]]
    rejected = [[(0, 1, 0)], [(0, 2, 1), (1, 2, 0)], [], [(1, 3, 1), (1, 2, 1)], [(0, 1, 0)], []]
    result = crf_loss(layer, [scores.numpy() for scores in emissions], targets, rejected)
    ours = gradients(module)
    module.zero_grad()
    leaves = [scores.clone().requires_grad_(True) for scores in emissions]
    expected = brute_force_loss(module, tags, leaves, targets, rejected)
    expected.backward()
    assert result.loss == pytest.approx(float(expected.detach()), abs=1e-5)
    for d_scores, leaf in zip(result.d_emissions, leaves):
        assert_close(d_scores, torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
    for name, gradient in gradients(module).items():
        assert gradient.abs().sum() > 0
        assert_close(ours[name], gradient)
    assert (result.impossible, result.certain) == ([], [])


def test_a_rejection_given_twice_counts_once() -> None:
    layer, tags, _ = make_layer("bio", seed=0)
    scores, nothing = numpy.ones((3, 5), dtype="float32"), numpy.full(3, UNKNOWN)
    once, twice = (crf_loss(layer, [scores], [nothing], [[(0, 2, 1)] * n]).loss for n in (1, 2))
    assert once == twice > 0


def test_all_missing_gives_zero_and_no_gradient(bert_folder: str) -> None:
    nlp = make_ner(bert_folder)
    losses = nlp.update([make_answer(nlp, "Anna in London"), make_answer(nlp, "")], sgd=False)
    assert losses["bert_ner"] == 0.0
    assert not any(bool(g.abs().sum() > 0) for g in gradients(head_module(nlp, "bert_ner")).values())
    assert gradients(crf_module(nlp)) == {}


def test_docs_that_say_nothing_do_not_change_what_the_others_say(bert_folder: str) -> None:
    nlp = make_ner(bert_folder)
    answer = make_answer(nlp, "track Smith in London", None, [(1, 2, "CITY")])
    found = []
    for batch in ([answer], [make_answer(nlp, "my order"), answer, make_answer(nlp, "")]):
        loss = nlp.update(batch, sgd=False)["bert_ner"]
        found.append((loss, gradients(crf_module(nlp)), gradients(head_module(nlp, "bert_ner"))))
        crf_module(nlp).zero_grad()
        head_module(nlp, "bert_ner").zero_grad()
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6) and found[0][0] > 0
    for ours, theirs in zip(found[0][1:], found[1][1:]):
        for name, gradient in ours.items():
            assert_close(theirs[name], gradient)


@pytest.mark.parametrize("scheme", ["bio", "biluo"])
def test_rejections_alone_lower_the_span_and_leave_the_others_sane(bert_folder: str, scheme: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], settings={"bert_ner": {"model": {"lstm_width": 8, "scheme": scheme}}})
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.002
    for _ in range(40):
        nlp.update(make_examples(nlp), sgd=sgd)
    text, london, smith = "track Smith in London", (3, 4, "CITY"), (1, 2, "PERSON")
    before = probability(nlp, text, london)
    assert before > 0.9 and probability(nlp, text, smith) > 0.9
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.0002
    losses = []
    while probability(nlp, text, london) > 0.3 and len(losses) < 40:
        losses.append(nlp.update([make_answer(nlp, text, None, [london])], sgd=sgd)["bert_ner"])
    assert losses[0] == pytest.approx(-math.log(1 - before), rel=1e-2)
    assert 1 < len(losses) < 40 and all(loss < earlier for earlier, loss in zip(losses, losses[1:]))
    assert probability(nlp, text, smith) > 0.7
    for start, end in itertools.combinations(range(5), 2):
        for label in LABELS:
            assert 0 <= probability(nlp, text, (start, end, label)) <= 1


def test_a_corpus_of_complete_partial_and_binary_answers_trains(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], settings={"bert_ner": {"model": {"lstm_width": 8}}}, initialize=False)
    partial = make_reference(nlp, "please track Smith in York")
    partial.set_ents([Span(partial, 2, 3, "PERSON")], default="missing")
    examples = [
        make_answer(nlp, "track Smith in London", [(1, 2, "PERSON"), (3, 4, "CITY")]),
        Example(nlp.make_doc(partial.text), partial),
        make_answer(nlp, "cancel York", None, [(1, 2, "PERSON"), (0, 1, "CITY")]),
        make_answer(nlp, "my order", []),
        make_answer(nlp, "anna where"),
        make_answer(nlp, ""),
    ]
    initialize_nlp(nlp, examples=examples)
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.003
    losses = [nlp.update(examples, sgd=sgd)["bert_ner"] for _ in range(40)]
    assert all(math.isfinite(loss) for loss in losses) and losses[-1] < 0.05 < losses[0]
    assert [(ent.text, ent.label_) for ent in nlp("track Smith in London").ents] == [
        ("Smith", "PERSON"),
        ("London", "CITY"),
    ]
    assert probability(nlp, "cancel York", (1, 2, "PERSON")) < 0.05
    for component in (head_module(nlp, "bert_ner"), crf_module(nlp)):
        assert all(bool(parameter.isfinite().all()) for parameter in component.parameters())


def test_labels_are_read_off_rejected_spans_too(bert_folder: str, caplog: Any) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], initialize=False)
    answers = [
        make_answer(nlp, "my order", None, [(1, 2, "PRODUCT")]),
        make_answer(nlp, "Anna", None, [(0, 1, "ORG")]),
    ]
    initialize_nlp(nlp, examples=answers)
    assert nlp.get_pipe("bert_ner").labels == ("PRODUCT", "ORG")
    before = probability(nlp, "my order", (1, 2, "PRODUCT"))
    sgd = nlp.create_optimizer()
    for _ in range(5):
        assert nlp.update(answers, sgd=sgd)["bert_ner"] > 0
    assert probability(nlp, "my order", (1, 2, "PRODUCT")) < before

    nlp = make_nlp(bert_folder, ["bert_ner"], initialize=False)
    nlp.config["initialize"]["components"]["bert_ner"] = {"labels": ["ORG"]}
    with caplog.at_level(logging.WARNING, logger="spacy"):
        initialize_nlp(nlp, examples=answers)
    ner = nlp.get_pipe("bert_ner")
    assert ner.labels == ("ORG",) and ner.skipped.counts == {"H345": 1}
    assert "1 rejected spans" in caplog.text and "'order' (PRODUCT) in 'my order'" in caplog.text


def test_another_key_or_none_can_be_named(bert_folder: str) -> None:
    for key, learns in (("incorrect_spans", True), ("no", False), (None, False)):
        nlp = make_nlp(bert_folder, ["bert_ner"], settings={"bert_ner": {"incorrect_spans_key": key}})
        assert (
            nlp.update([make_answer(nlp, "my order", None, [(0, 1, "CITY")])], sgd=False)["bert_ner"] > 0
        ) == learns


def test_only_the_constrained_crf_learns_from_rejections_and_the_others_say_so_once(
    bert_folder: str, caplog: Any
) -> None:
    for kind in ("pytorch-crf", None):
        nlp = make_ner(bert_folder, crf=kind)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="spacy"):
            for _ in range(3):
                answer = make_answer(nlp, "my order", None, [(0, 1, "CITY")])
                assert nlp.update([answer], sgd=False)["bert_ner"] == 0.0
        assert [record.getMessage()[:6] for record in caplog.records] == ["[H349]"]


def test_rejected_spans_follow_the_predicted_tokens(bert_folder: str, caplog: Any) -> None:
    nlp = make_ner(bert_folder)
    ner: Any = nlp.get_pipe("bert_ner")
    reference = make_reference(nlp, "Anna Smith in New York", None, [(0, 2, "CITY"), (3, 4, "CITY"), (0, 1, "CITY")])
    joined = Doc(nlp.vocab, words=["Anna Smith", "in", "New", "York"])
    with caplog.at_level(logging.WARNING, logger="spacy"):
        nlp.update([Example(joined, reference)], sgd=False)
        nlp.update([Example(joined, reference)], sgd=False)
    assert ner.skipped.counts == {"H344": 2}
    assert len(caplog.records) == 1 and "'Anna' (CITY)" in caplog.text

    same = make_reference(nlp, "new york", None, [(0, 2, "CITY")])
    split = Doc(nlp.vocab, words=["n", "ew", "york"], spaces=[False, True, False])
    scores = [numpy.zeros((3, len(ner.tags)), dtype="float32")]
    crf_module(nlp).zero_grad()
    loss, _ = ner.get_loss([Example(split, same)], scores)
    (expected,) = [
        crf_loss(ner.model.layers[-1], scores, [numpy.full(3, UNKNOWN)], [[(0, 3, ner.labels.index("CITY"))]]).loss
    ]
    assert loss == pytest.approx(expected)


def test_a_rejected_span_that_is_gold_in_the_same_doc_is_left_out(bert_folder: str, caplog: Any) -> None:
    nlp = make_ner(bert_folder)
    with_reject = make_answer(nlp, "Anna in London", [(2, 3, "CITY")], [(2, 3, "CITY")])
    without = make_answer(nlp, "Anna in London", [(2, 3, "CITY")])
    with caplog.at_level(logging.WARNING, logger="spacy"):
        losses = [nlp.update([answer], sgd=False)["bert_ner"] for answer in (with_reject, without)]
    assert losses[0] == losses[1]
    assert nlp.get_pipe("bert_ner").skipped.counts == {"H346": 1}  # type: ignore[attr-defined]
    assert "'London' (CITY) in 'Anna in London'" in caplog.text


def test_a_span_of_probability_one_is_left_out_and_the_rest_is_learned() -> None:
    layer, tags, module = make_layer("bio", seed=0)
    certain = numpy.full((2, 5), -numpy.inf, dtype="float32")
    certain[0, tags.tag_numbers["B-CITY"]] = certain[1, 0] = 0.0
    free = numpy.zeros((2, 5), dtype="float32")
    nothing = numpy.full(2, UNKNOWN)
    result = crf_loss(layer, [certain, free], [nothing, nothing], [[(0, 1, 1)], [(0, 1, 1)]])
    assert result.certain == [(0, (0, 1, 1))] and 0 < result.loss < 10
    assert not result.d_emissions[0].any() and result.d_emissions[1].any()
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(module).values())


def test_what_is_left_out_of_a_batch_changes_nothing_for_the_rest() -> None:
    """Of Docs: an illegal one with a rejection, a certain rejection and nothing else, a certain one beside another."""
    layer, tags, module = make_layer("bio", seed=3)
    torch.manual_seed(0)
    free = [torch.randn(n, 5).numpy() for n in (3, 2)]
    certain = numpy.full((3, 5), -numpy.inf, dtype="float32")
    certain[0, tags.tag_numbers["B-CITY"]] = certain[1, 0] = certain[2, 0] = certain[2, 1] = 0.0
    gold, nothing = numpy.array([1, 2, 0]), [numpy.full(n, UNKNOWN) for n in range(4)]
    illegal = numpy.array([0, 2, 0])
    rejected: List[Any] = [[], [(0, 1, 0)], [(2, 3, 0)]]
    alone = crf_loss(layer, [free[0], free[1], certain], [gold, nothing[2], nothing[3]], rejected)
    expected = gradients(module)
    module.zero_grad()
    result = crf_loss(
        layer,
        [free[0], free[0], certain, free[1], certain],
        [illegal, gold, nothing[3], nothing[2], nothing[3]],
        [[(0, 1, 0)], [], [(0, 1, 1)], [(0, 1, 0)], [(0, 1, 1), (2, 3, 0)]],
    )
    assert (result.impossible, result.certain) == ([0], [(2, (0, 1, 1)), (4, (0, 1, 1))])
    assert result.loss == pytest.approx(alone.loss, abs=1e-6) and result.loss > 0
    assert not result.d_emissions[0].any() and not result.d_emissions[2].any()
    for found, same in zip((1, 3, 4), alone.d_emissions):
        assert_close(result.d_emissions[found], same)
    for name, gradient in gradients(module).items():
        assert gradient.abs().sum() > 0
        assert_close(gradient, expected[name])


def test_very_sure_models_still_learn_from_rejections() -> None:
    layer, tags, module = make_layer("bio", seed=0)
    scores = numpy.zeros((3, 5), dtype="float32")
    scores[1, tags.tag_numbers["B-CITY"]] = scores[2, 0] = 500.0
    result = crf_loss(layer, [scores], [numpy.full(3, UNKNOWN)], [[(1, 2, 1)]])
    assert not result.certain and result.loss > 400
    assert numpy.isfinite(result.d_emissions[0]).all() and result.d_emissions[0][1].argmax() != 0


def test_annotation_without_a_legal_path_is_left_out_of_the_loss() -> None:
    layer, tags, _ = make_layer("bio", seed=0)
    dead = numpy.full((2, 5), -numpy.inf, dtype="float32")
    free, gold = numpy.zeros((2, 5), dtype="float32"), numpy.array([1, 2])
    illegal = numpy.array([2, 0])  # inside an entity that never began
    result = crf_loss(layer, [dead, free, free], [gold, gold, illegal])
    assert result.impossible == [0, 2] and numpy.isfinite(result.loss) and result.loss > 0
    assert result.d_emissions[1].any() and not result.d_emissions[0].any() and not result.d_emissions[2].any()
    with pytest.raises(BertHeadsError) as error:
        crf_loss(layer, [numpy.zeros((2, 3), dtype="float32")], [gold])
    assert error.value.code == "H230"


def test_no_legal_path_does_not_stop_an_update(bert_folder: str, caplog: Any) -> None:
    nlp = make_ner(bert_folder)
    head_module(nlp, "bert_ner").linear.bias.data.fill_(-math.inf)
    with caplog.at_level(logging.WARNING, logger="spacy"):
        for _ in range(2):
            losses = nlp.update([make_answer(nlp, "Anna in London", [(2, 3, "CITY")])], sgd=False)
    assert losses["bert_ner"] == 0.0
    assert [record.getMessage()[:6] for record in caplog.records] == ["[H347]"]
    assert nlp.get_pipe("bert_ner").skipped.counts == {"H347": 2}  # type: ignore[attr-defined]


KINDS: List[Dict[str, Any]] = [{}, {"crf": "pytorch-crf"}, {"crf": None}]


@pytest.mark.parametrize("model", KINDS, ids=str)
def test_nothing_in_the_data_stops_a_training(bert_folder: str, model: Dict[str, Any], caplog: Any) -> None:
    """Entities off the tokens, unreadable annotation, unknown labels: named once, counted, skipped."""
    nlp = make_ner(bert_folder, **model)
    ner: Any = nlp.get_pipe("bert_ner")
    off = make_reference(nlp, "Anna Smith in London", [(0, 1, "PERSON"), (3, 4, "CITY")])
    joined = Doc(nlp.vocab, words=["Anna Smith", "in", "London"])
    unreadable = make_reference(nlp, "Anna in London", [(1, 3, "CITY")])
    codes = unreadable.to_array(["ENT_IOB", "ENT_TYPE"])
    codes[1, 0] = 1
    codes[1, 1] = codes[2, 1]
    unreadable.from_array(["ENT_IOB", "ENT_TYPE"], codes)
    with pytest.raises(ValueError, match="E093"):
        assert unreadable.ents
    examples = [
        Example(joined, off),
        Example(nlp.make_doc(unreadable.text), unreadable),
        make_answer(nlp, "my order in Prag", [(1, 2, "PLANET"), (3, 4, "CITY")]),
        make_answer(nlp, "Anna in London", [(2, 3, "CITY")]),
    ]
    sgd = nlp.create_optimizer()
    with caplog.at_level(logging.WARNING, logger="spacy"):
        for _ in range(3):
            assert nlp.update(examples, sgd=sgd)["bert_ner"] > 0
    assert ner.skipped.counts == {"H340": 3, "H342": 3, "H343": 3}
    messages = sorted(record.getMessage() for record in caplog.records)
    assert [message[:16] for message in messages] == [f"[H34{i}] bert_ner:" for i in (0, 2, 3)]
    assert "'Anna' (PERSON) in 'Anna Smith in London'" in messages[0]
    assert "'Anna in London'" in messages[1] and "'order' (PLANET) in 'my order in Prag'" in messages[2]


def test_what_training_leaves_out_is_said_when_it_begins_with_its_number(bert_folder: str, caplog: Any) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], initialize=False)
    off = make_reference(nlp, "Anna Smith in London", [(0, 1, "PERSON"), (3, 4, "CITY")])
    examples = [Example(Doc(nlp.vocab, words=["Anna Smith", "in", "London"]), off) for _ in range(5)]
    with caplog.at_level(logging.WARNING, logger="spacy"):
        initialize_nlp(nlp, examples=examples)
        nlp.update(examples, sgd=False)
    assert [record.getMessage()[:13] for record in caplog.records] == ["[H340] bert_n"]
    assert "5 entities do not start and end at token boundaries" in caplog.text
    assert nlp.get_pipe("bert_ner").labels == ("PERSON", "CITY")
