"""bert_spans: labels, what annotation means, thresholds, entities, learning."""

import itertools
import math
import random
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.pipeline.spancat import make_spancat_scorer
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_bert_heads.defaults import MAX_SPAN_WIDTH
from spacy_bert_heads.errors import BertHeadsError

from ..making import (
    HEADS,
    NESTED,
    TRAINING,
    gradients,
    head_module,
    initialize_nlp,
    make_examples,
    make_nlp,
    make_scratch_config,
    make_texts,
)

Triples = List[Tuple[int, int, str]]


def make_spans(folder: str, **settings: Any) -> Language:
    settings = {"model": {**HEADS["bert_spans"]["model"], **settings.pop("model", {})}, **settings}
    return make_nlp(folder, ["bert_spans"], settings={"bert_spans": settings})


def learn(nlp: Language, examples: Sequence[Example], steps: int = 60, rate: float = 0.003) -> Language:
    sgd = nlp.create_optimizer()
    sgd.learn_rate = rate
    for _ in range(steps):
        nlp.update(list(examples), sgd=sgd)
    return nlp


def make_unsure(folder: str, seed: int = 0, **settings: Any) -> Language:
    """A head of random weights: spans of any probability."""
    nlp = make_spans(folder, **settings)
    torch.manual_seed(seed)
    for parameter in head_module(nlp, "bert_spans").parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return nlp


@pytest.fixture(scope="module")
def nlp(bert_folder: str) -> Language:
    found = make_spans(bert_folder)
    return learn(found, make_examples(found))


def head(nlp: Language) -> Any:
    return nlp.get_pipe("bert_spans")


def triples(doc: Doc, key: str = "sc") -> Triples:
    return [(span.start, span.end, span.label_) for span in doc.spans[key]]


def annotated(nlp: Language, text: str, spans: Optional[Triples] = None, **groups: Triples) -> Example:
    """Token borders; no spans: not annotated."""
    reference = nlp.make_doc(text)
    for key, found in {**({} if spans is None else {"sc": spans}), **groups}.items():
        reference.spans[key] = [Span(reference, *span) for span in found]
    return Example(nlp.make_doc(text), reference)


@pytest.mark.parametrize("model", [{}, {"lstm_width": 8}, {"max_width": 6}, {"key_width": 2}], ids=str)
def test_three_examples_with_nested_spans_are_overfitted(bert_folder: str, model: Dict[str, Any]) -> None:
    nlp = make_spans(bert_folder, model=model)
    examples = make_examples(nlp)
    learn(nlp, examples)
    before = [eg.reference.to_bytes() for eg in examples]
    scores = nlp.evaluate(examples)
    assert scores["spans_sc_f"] == scores["spans_sc_p"] == scores["spans_sc_r"] == 1.0
    assert set(scores["spans_sc_per_type"]) == {"PERSON", "CITY", "PLACE", "THING"}
    assert [eg.reference.to_bytes() for eg in examples] == before
    for (text, _, entities), nested in zip(TRAINING, NESTED):
        doc = nlp(text)
        found = {(span.start_char, span.end_char, span.label_) for span in doc.spans["sc"]}
        assert found == {*entities, *nested}


def make_nested_sentences(nlp: Language, n: int, labels: Sequence[str] = "ABC") -> List[Example]:
    """Spans of random borders: within each other, crossing, several labels on the same words."""
    chooser, examples = random.Random(0), []
    for text in make_texts(n, seed=3, longest=9):
        doc = nlp.make_doc(text)
        every = [(i, j, k) for i in range(len(doc)) for j in range(i + 1, len(doc) + 1) for k in labels]
        examples.append(annotated(nlp, text, chooser.sample(every, min(len(every), 4))))
    return examples


@pytest.mark.slow
def test_twenty_sentences_of_nested_spans_are_learned_by_heart(bert_folder: str) -> None:
    settings = {"bert_spans": {"model": {"lstm_width": 32}}}
    nlp = make_nlp(bert_folder, ["bert_spans"], initialize=False, settings=settings)
    examples = make_nested_sentences(nlp, 20)
    spans = [triples(eg.reference) for eg in examples]
    same_label = [
        1
        for found in spans
        for a, b in itertools.combinations(found, 2)
        if a[2] == b[2] and (a[0] <= b[0] <= b[1] <= a[1] or b[0] <= a[0] <= a[1] <= b[1])
    ]
    assert len(same_label) > 5
    initialize_nlp(nlp, examples=examples)
    for _ in range(15):
        learn(nlp, examples, 20, 0.0005)
        scores = nlp.evaluate(examples)
        if scores["spans_sc_f"] == 1.0:
            break
    assert scores["spans_sc_f"] == 1.0


def test_labels_and_the_longest_span_come_from_the_data_or_are_given(bert_folder: str) -> None:
    found = head(make_spans(bert_folder))
    assert found.labels == ("PERSON", "THING", "CITY", "PLACE") and found.max_width == 3
    assert found.model.get_dim("nO") == 4
    nlp = make_nlp(bert_folder, ["bert_spans"], initialize=False)
    labels = ["CITY", "ORG", "PERSON", "PLACE", "THING"]
    nlp.config["initialize"]["components"]["bert_spans"] = {"labels": labels}
    initialize_nlp(nlp)
    assert list(head(nlp).labels) == head(nlp).label_data == labels
    nlp = make_nlp(bert_folder, ["bert_spans"], initialize=False)
    nlp.config["initialize"]["components"]["bert_spans"] = {"labels": ["CITY", "PLACE", "THING"]}
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp)
    assert (error.value.code, error.value.found) == ("H301", "PERSON")
    nlp = make_nlp(bert_folder, ["bert_spans"], initialize=False)
    text = "the order " * 60
    initialize_nlp(nlp, examples=[annotated(nlp, text, [(0, 100, "A"), (3, 4, "B")])])
    assert head(nlp).max_width == MAX_SPAN_WIDTH and head(nlp).skipped.counts == {"H362": 1}


def test_data_without_spans_cannot_be_learned(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_spans"], initialize=False)
    for examples in ([annotated(nlp, "my order")], [annotated(nlp, "my order", [])]):
        with pytest.raises(BertHeadsError, match=r"H360.*doc.spans\['sc'\]"):
            initialize_nlp(nlp, examples=examples)


def test_a_label_can_be_added_before_initialisation_and_not_after(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_spans"], initialize=False)
    assert (head(nlp).add_label("ORG"), head(nlp).add_label("ORG")) == (1, 0)
    initialize_nlp(nlp)
    assert head(nlp).labels[0] == "ORG" and head(nlp).add_label("CITY") == 0
    with pytest.raises(ValueError, match="E922"):
        head(nlp).add_label("NEW")
    with pytest.raises(ValueError, match="E187"):
        head(nlp).add_label(5)


def test_settings_have_defaults_and_are_saved(bert_folder: str, tmp_path: Path) -> None:
    defaults = {"spans_key": "sc", "threshold": 0.5, "label_thresholds": {}, "annotate_ents": False}
    defaults.update({"incorrect_spans_key": "incorrect_spans", "unknown_spans_key": "unknown_spans"})
    found = head(make_spans(bert_folder))
    assert {name: getattr(found, name) for name in defaults} == defaults
    given = {"threshold": 0.25, "label_thresholds": {"CITY": 0.75}, "annotate_ents": True}
    nlp = make_spans(bert_folder, **given)
    nlp.to_disk(tmp_path)
    for pipeline in (nlp, spacy.load(tmp_path), spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())):
        assert {name: getattr(head(pipeline), name) for name in given} == given
        assert head(pipeline).thresholds == [0.25, 0.25, 0.75, 0.25] and head(pipeline).max_width == 3
    loaded = spacy.load(tmp_path, config={"components": {"bert_spans": {"threshold": 0.9, "spans_key": "mine"}}})
    assert head(loaded).threshold == 0.9 and "mine" in loaded("my order").spans


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"threshold": 0.0}, "H273"),
        ({"threshold": 1.5}, "H273"),
        ({"label_thresholds": {"CITY": 1.0}}, "H273"),
        ({"label_thresholds": {"NEVER": 0.5}}, "H367"),
        ({"spans_key": "incorrect_spans"}, "H273"),
        ({"loss_weight": -1.0}, "H273"),
        ({"model": {"max_width": 0}}, "H261"),
        ({"model": {"key_width": 5}}, "H273"),
        ({"model": {"lstm_width": 7}}, "H214"),
        ({"model": {"precision": "fp8"}}, "H209"),
    ],
)
def test_settings_that_make_no_sense_are_named(bert_folder: str, settings: Dict[str, Any], code: str) -> None:
    with pytest.raises(BertHeadsError, match=code):
        make_spans(bert_folder, **settings)


def test_two_heads_that_write_to_one_place_are_refused(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_spans"], initialize=False)
    nlp.add_pipe("bert_spans", name="other")
    with pytest.raises(BertHeadsError, match=r"\[H365\] 'bert_spans' and 'other' .*doc.spans\['sc'\]"):
        initialize_nlp(nlp)
    nlp = make_nlp(bert_folder, ["bert_ner", "bert_spans"], initialize=False)
    initialize_nlp(nlp)
    head(nlp).annotate_ents = True
    with pytest.raises(BertHeadsError, match=r"\[H365\] 'bert_spans' and 'bert_ner' .*doc.ents"):
        initialize_nlp(nlp)


def every_span(nlp: Language, doc: Doc) -> Dict[Tuple[int, int, str], float]:
    """Probability of each span and label, put together from the parts one by one."""
    (flat,) = head(nlp).model.predict([doc])
    labels, width = head(nlp).labels, head(nlp).max_width
    found = {}
    for i, j in itertools.product(range(len(doc)), range(len(doc) + 1)):
        if i < j <= i + width and not doc[i].is_space and not doc[j - 1].is_space:
            for k, label in enumerate(labels):
                score = flat[i, j - i - 1] + flat[i, width + k] + flat[j - 1, width + len(labels) + k]
                found[i, j, label] = 1 / (1 + math.exp(-score))
    return found


TEXTS = ["Anna in New York", "", " \n", "x", " order \n my order ", "track Smith in London please " * 9, "42 zebra"]


def test_spans_are_all_that_reach_the_threshold_and_know_their_probability(bert_folder: str) -> None:
    thresholds = {"CITY": 0.3, "PLACE": 0.9}
    nlp = make_unsure(bert_folder, threshold=0.6, label_thresholds=thresholds)
    n_found = 0
    for doc in nlp.pipe(TEXTS):
        expected = {s: p for s, p in every_span(nlp, doc).items() if p >= thresholds.get(s[2], 0.6)}
        assert set(triples(doc)) == set(expected) and len(doc.spans["sc"]) == len(expected)
        assert triples(doc) == sorted(triples(doc), key=lambda s: (s[0], -s[1], head(nlp).labels.index(s[2])))
        scores = doc.spans["sc"].attrs["scores"]
        assert scores.dtype == "float32" and len(scores) == len(expected)
        for span, score in zip(doc.spans["sc"], scores):
            assert score == pytest.approx(expected[span.start, span.end, span.label_], abs=1e-5)
            assert span._.confidence == float(score)
        assert not doc.ents
        n_found += len(expected)
    assert n_found > 30


def test_a_temperature_moves_probabilities_and_not_what_is_found(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder, threshold=0.6, label_thresholds={"CITY": 0.3})
    before = [{s: c._.confidence for s, c in zip(triples(doc), doc.spans["sc"])} for doc in nlp.pipe(TEXTS)]
    head(nlp).cfg.update(temperature=2.0, temperature_around=head(nlp).thresholds)
    n_found = 0
    for doc, old in zip(nlp.pipe(TEXTS), before):
        assert triples(doc) == list(old)
        for span in doc.spans["sc"]:
            middle = logit(0.3 if span.label_ == "CITY" else 0.6)
            raw = logit(old[span.start, span.end, span.label_])
            if raw < 8:
                assert logit(span._.confidence) == pytest.approx(middle + (raw - middle) / 2.0, abs=1e-2)
                n_found += 1
    assert n_found > 30
    # Fitted thresholds are about the tempered probabilities, and go with the weights
    head(nlp).set_thresholds({"CITY": 0.5})
    for doc, old in zip(nlp.pipe(TEXTS), before):
        kept = [s for s, p in old.items() if s[2] != "CITY" or logit(p) >= -logit(0.3)]
        assert triples(doc) == kept
    nlp.update([annotated(nlp, TEXTS[0], [])], sgd=nlp.create_optimizer())
    assert head(nlp).temperature is None and head(nlp).thresholds == [
        0.3 if label == "CITY" else 0.6 for label in head(nlp).labels
    ]


def test_uncertainty_is_left_where_it_is_asked_for(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    assert nlp(TEXTS[0])._.spans_uncertainty is None
    head(nlp).annotates_uncertainty = True
    for doc in nlp.pipe(TEXTS):
        unsure, every = doc._.spans_uncertainty, every_span(nlp, doc)
        likelier = [max(p, 1 - p) for p in every.values()]
        assert unsure.path_log_probability == pytest.approx(sum(map(math.log, likelier)), rel=1e-3, abs=1e-4)
        assert unsure.best_marginals.min(initial=1.0) == pytest.approx(min(likelier, default=1.0), abs=1e-4)


def logit(p: float) -> float:
    """Of a probability that may be rounded to 1: then it says nothing exact."""
    return math.log(p / (1 - p)) if p < 1 else math.inf


def test_predicting_again_replaces_the_group_and_its_confidence(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    doc = nlp(TEXTS[0])
    first, confidence = triples(doc), [span._.confidence for span in doc.spans["sc"]]
    doc.spans["mine"] = doc.spans["sc"].copy()
    gone = Span(doc, 0, 4, "NOTHING")
    doc.spans["sc"] = [gone]
    nlp(doc)
    assert triples(doc) == first and [span._.confidence for span in doc.spans["sc"]] == confidence
    head(nlp).threshold = 1 - 1e-15
    nlp(doc)
    assert triples(doc) == [] and all(span._.confidence is None for span in doc.spans["mine"])


def test_spans_survive_a_doc_bin(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    doc = nlp(TEXTS[0])
    del doc.user_data[("._.", "trf_data", None, None)]
    for other in (
        *DocBin(docs=[doc], store_user_data=True).get_docs(nlp.vocab),
        Doc(nlp.vocab).from_bytes(doc.to_bytes()),
    ):
        assert triples(other) == triples(doc) != []
        assert list(other.spans["sc"].attrs["scores"]) == list(doc.spans["sc"].attrs["scores"])
        assert [span._.confidence for span in other.spans["sc"]] == [span._.confidence for span in doc.spans["sc"]]


def flat_choice(spans: Dict[Tuple[int, int, str], float], free: Iterable[int]) -> float:
    """The greatest sum of log-odds of spans that do not overlap, by trying them all."""
    allowed, best = set(free), 0.0
    usable = [(s, math.log(p / (1 - p))) for s, p in spans.items() if set(range(s[0], s[1])) <= allowed]

    def try_rest(number: int, taken: frozenset, weight: float) -> None:
        nonlocal best
        best = max(best, weight)
        for n in range(number, len(usable)):
            (start, end, _), value = usable[n]
            if taken.isdisjoint(range(start, end)):
                try_rest(n + 1, taken | set(range(start, end)), weight + value)

    try_rest(0, frozenset(), 0.0)
    return best


@pytest.mark.parametrize("seed", range(4))
def test_entities_are_the_most_probable_choice_that_does_not_overlap(bert_folder: str, seed: int) -> None:
    nlp = make_unsure(bert_folder, seed, annotate_ents=True)
    for text in ("Anna in New York", "", "track Smith please", " my \n order "):
        doc = nlp(text)
        spans = {s: p for s, p in every_span(nlp, doc).items() if p >= 0.5}
        ents = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
        assert set(ents) <= set(triples(doc)) == set(spans)
        weight = sum(math.log(spans[ent] / (1 - spans[ent])) for ent in ents)
        assert weight == pytest.approx(flat_choice(spans, range(len(doc))), abs=1e-3)
        assert doc._.ents_confidence == pytest.approx([spans[ent] for ent in ents], abs=1e-5)
        again = [(ent.start, ent.end, ent.label_) for ent in nlp(doc).ents]
        assert again == ents and None not in doc._.ents_confidence
        assert [token.ent_iob_ for token in doc] == [token.ent_iob_ or "O" for token in doc]


def test_entities_on_a_doc_and_blocked_tokens_stay(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder, annotate_ents=True)
    doc = nlp.make_doc("Anna in New York")
    doc.set_ents([Span(doc, 1, 2, "ORG")], blocked=[doc[3:4]], default="missing")
    nlp(doc)
    free = {s: p for s, p in every_span(nlp, doc).items() if p >= 0.5}
    ents = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    assert (1, 2, "ORG") in ents and all(end <= 3 for _, end, _ in ents)
    weight = sum(math.log(free[ent] / (1 - free[ent])) for ent in ents if ent != (1, 2, "ORG"))
    assert weight == pytest.approx(flat_choice(free, [0, 2]), abs=1e-3)
    assert doc[1:2]._.confidence is None and set(triples(doc)) == set(free)


def test_it_learns_beside_bert_ner_and_a_text_head_in_one_pass(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat", "bert_ner", "bert_spans"])
    learn(nlp, make_examples(nlp), 80)
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["spans_sc_f"] == scores["ents_f"] == scores["cats_acc"] == 1.0
    doc = nlp(TRAINING[2][0])
    assert {(ent.label_, ent.text) for ent in doc.ents} == {("PERSON", "Smith"), ("CITY", "London")}
    assert None not in doc._.ents_confidence
    assert all(span._.confidence is not None for span in doc.spans["sc"]) and len(doc.spans["sc"]) == 4


# What annotation means


def loss_and_gradient(nlp: Language, examples: Sequence[Example]) -> Tuple[float, Any]:
    parts = head(nlp).model.predict(list(nlp.pipe([eg.predicted for eg in examples])))
    loss, gradient = head(nlp).get_loss(examples, parts)
    return loss, [numpy.asarray(array) for array in gradient]


def expected_loss(nlp: Language, doc: Doc, true: Triples, known: Any) -> float:
    """Cross-entropy of the spans for which `known` is true."""
    total = 0.0
    for span, p in every_span(nlp, doc).items():
        if known(*span):
            total -= math.log(p if span in true else 1 - p)
    return total


TEXT = "Anna Smith in New York"
GOLD: Triples = [(0, 2, "PERSON"), (0, 1, "PERSON"), (3, 5, "CITY"), (2, 5, "PLACE")]


def test_an_absent_group_is_not_annotated_and_an_empty_one_is_complete(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    doc = nlp(TEXT)
    loss, gradient = loss_and_gradient(nlp, [annotated(nlp, TEXT)])
    assert loss == 0.0 and not gradient[0].any()
    loss, _ = loss_and_gradient(nlp, [annotated(nlp, TEXT, [])])
    assert loss == pytest.approx(expected_loss(nlp, doc, [], lambda *span: True), rel=1e-4)
    loss, _ = loss_and_gradient(nlp, [annotated(nlp, TEXT, GOLD)])
    assert loss == pytest.approx(expected_loss(nlp, doc, GOLD, lambda *span: True), rel=1e-4)


@pytest.mark.parametrize("through", ["as it is", "DocBin"])
def test_gaps_are_no_part_of_the_loss_and_survive_a_doc_bin(bert_folder: str, through: str) -> None:
    nlp = make_unsure(bert_folder)
    doc = nlp(TEXT)
    gap = {"unknown_spans": [(3, 4, ""), (0, 5, "THING")], "incorrect_spans": [(3, 4, "CITY"), (1, 2, "THING")]}
    example = annotated(nlp, TEXT, GOLD, **gap)
    if through == "DocBin":
        (reference,) = DocBin(docs=[example.reference]).get_docs(nlp.vocab)
        example = Example(example.predicted, reference)

    def known(start: int, end: int, label: str) -> bool:
        told = (start, end, label) in GOLD or (start, end, label) in gap["incorrect_spans"]
        return told or not (start <= 3 < end or label == "THING")

    loss, _ = loss_and_gradient(nlp, [example])
    assert loss == pytest.approx(expected_loss(nlp, doc, GOLD, known), rel=1e-4)


def test_yes_and_no_answers_are_learned_and_nothing_else(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    doc = nlp(TEXT)
    yes, no = (0, 2, "PERSON"), (3, 5, "PERSON")
    binary = annotated(nlp, TEXT, [yes], incorrect_spans=[no], unknown_spans=[(0, 5, "")])
    loss, _ = loss_and_gradient(nlp, [binary])
    assert loss == pytest.approx(expected_loss(nlp, doc, [yes], lambda *span: span in (yes, no)), rel=1e-4)
    loss, _ = loss_and_gradient(nlp, [annotated(nlp, TEXT, None, incorrect_spans=[no])])
    assert loss == pytest.approx(expected_loss(nlp, doc, [], lambda *span: span == no), rel=1e-4)
    p = every_span(nlp, doc)[no]
    learn(nlp, [annotated(nlp, TEXT, None, incorrect_spans=[no])], 10)
    assert every_span(nlp, nlp(TEXT))[no] < p


def test_docs_without_annotation_neither_help_nor_hurt(bert_folder: str) -> None:
    nlp = make_spans(bert_folder)
    examples, found = make_examples(nlp), []
    for batch in (examples, [annotated(nlp, "Anna is in London"), *examples, annotated(nlp, "", [])]):
        losses = nlp.update(batch, sgd=False)
        found.append((losses["bert_spans"], gradients(head_module(nlp, "bert_spans"))))
        head_module(nlp, "bert_spans").zero_grad()
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-4)
    for name, gradient in found[0][1].items():
        assert gradient.abs().sum() > 0 and (gradient - found[1][1][name]).abs().max() < 1e-5


def test_what_cannot_be_learned_is_counted_and_named(bert_folder: str, caplog: pytest.LogCaptureFixture) -> None:
    nlp = make_spans(bert_folder)
    doc = nlp.make_doc(TEXT)
    reference = Doc(nlp.vocab, words=["An", "na", "Smith in", "New", "York"], spaces=[False, True, True, True, False])
    spans = [(0, 2, "PERSON"), (1, 2, "THING"), (3, 5, "NEVER"), (0, 5, "CITY"), (4, 5, "")]
    reference.spans["sc"] = [Span(reference, *span) for span in spans]
    rejected = [(1, 2, "CITY"), (0, 2, "PERSON"), (3, 4, "NEVER"), (3, 4, "THING")]
    reference.spans["incorrect_spans"] = [Span(reference, *span) for span in rejected]
    example = Example(doc, reference)
    head(nlp).skipped.counts.clear()
    loss, _ = loss_and_gradient(nlp, [example])
    assert head(nlp).skipped.counts == {"H361": 1, "H363": 1, "H344": 1, "H346": 1, "H364": 1, "H362": 1, "H345": 1}

    def known(start: int, end: int, label: str) -> bool:
        touches = any(start <= token < end for token in (0, 4))  # "na" and "York"
        return not touches or (start, end, label) in [(0, 1, "PERSON"), (3, 4, "THING")]

    expected = expected_loss(nlp, nlp(TEXT), [(0, 1, "PERSON")], known)
    assert loss == pytest.approx(expected, rel=1e-4)
    message = next(record.getMessage() for record in caplog.records if "H362" in record.getMessage())
    assert message.startswith("[H362] bert_spans: 1 spans have more tokens than max_width allows")
    assert "'Anna Smith in New York' (CITY)" in message


def test_white_space_around_gold_spans_does_not_count(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    text = " my \n order "
    doc = nlp(text)
    assert [token.is_space for token in doc] == [True, False, True, False]
    loss, _ = loss_and_gradient(nlp, [annotated(nlp, text, [(0, 3, "THING"), (1, 4, "THING")])])
    gold: Triples = [(1, 2, "THING"), (1, 4, "THING")]
    assert loss == pytest.approx(expected_loss(nlp, doc, gold, lambda *span: True), rel=1e-4)
    counts = head(nlp).skipped.counts
    loss_and_gradient(nlp, [annotated(nlp, text, [(0, 1, "THING")])])
    assert counts == {"H361": 1}


def test_thousands_of_spans_on_one_text_are_learned_and_found(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_spans"], initialize=False)
    text = " ".join(make_texts(30, seed=5))
    n = len(nlp.make_doc(text))
    spans = [(i, j, label) for i in range(n) for j in range(i + 1, min(n, i + 9) + 1) for label in "AB"]
    assert len(spans) > 3000
    example = annotated(nlp, text, spans)
    initialize_nlp(nlp, examples=[example])
    learn(nlp, [example], 3)
    head_module(nlp, "bert_spans").labels.bias.data.fill_(20.0)
    assert set(triples(nlp(text))) == set(spans)


def test_tokenisation_that_differs_from_gold_can_be_learned(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_spans"], initialize=False)
    words = ["track", "Sm", "ith", "in", "Lon", "don"]
    reference = Doc(nlp.vocab, words=words, spaces=[True, False, True, True, False, False])
    reference.spans["sc"] = [
        Span(reference, 1, 3, "PERSON"),
        Span(reference, 3, 6, "PLACE"),
        Span(reference, 4, 6, "CITY"),
    ]
    example = Example(nlp.make_doc(reference.text), reference)
    initialize_nlp(nlp, examples=[example])
    learn(nlp, [example])
    assert triples(nlp(reference.text)) == [(1, 2, "PERSON"), (2, 4, "PLACE"), (3, 4, "CITY")]
    assert nlp.evaluate([example])["spans_sc_f"] == 1.0


# Scores


def test_scores_are_those_of_spacys_spancat(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    examples = make_nested_sentences(nlp, 12, head(nlp).labels)
    for eg in examples:
        eg.predicted = nlp(eg.predicted)
    ours, theirs = head(nlp).score(examples), make_spancat_scorer()(examples, spans_key="sc")
    assert ours == theirs and 0 < ours["spans_sc_f"] < 1


def test_predictions_in_gaps_are_not_scored(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    predicted: Triples = [(0, 2, "PERSON"), (1, 2, "PERSON"), (3, 5, "CITY"), (4, 5, "CITY"), (2, 3, "PLACE")]
    gap: Triples = [(0, 1, ""), (0, 5, "CITY")]
    example = annotated(nlp, TEXT, [(0, 2, "PERSON")], unknown_spans=gap, incorrect_spans=[(4, 5, "CITY")])
    example.predicted.spans["sc"] = [Span(example.predicted, *span) for span in predicted]
    other = annotated(nlp, TEXT)
    other.predicted.spans["sc"] = [Span(other.predicted, 0, 1, "CITY")]
    scores = head(nlp).score([example, other])
    # Right: one. Wrong: the second PERSON, PLACE, and the CITY that was rejected
    assert (scores["spans_sc_p"], scores["spans_sc_r"]) == (1 / 4, 1.0)
    assert head(nlp).score([other])["spans_sc_f"] is None


def test_entities_are_scored_where_they_are_set(bert_folder: str) -> None:
    nlp = make_spans(bert_folder, annotate_ents=True)
    learn(nlp, make_examples(nlp))
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["spans_sc_f"] == 1.0 and scores["ents_f"] is not None


def test_it_works_over_spacys_own_embeddings(tmp_path: Path) -> None:
    tok2vec = {"@architectures": "spacy.HashEmbedCNN.v2", "width": 32, "depth": 1, "embed_size": 500}
    tok2vec.update({"window_size": 1, "maxout_pieces": 2, "subword_features": True, "pretrained_vectors": None})
    features = {"@architectures": "spacy.MultiHashEmbed.v2", "width": 8, "attrs": ["SHAPE"], "rows": [50]}
    features["include_static_vectors"] = False
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_spans", config={"model": {"tok2vec": tok2vec, "features": features, "lr_scale": 1.0}})
    initialize_nlp(nlp)
    learn(nlp, make_examples(nlp), 40, 0.01)
    assert nlp.evaluate(make_examples(nlp))["spans_sc_f"] == 1.0
    nlp.to_disk(tmp_path)
    assert [triples(doc) for doc in spacy.load(tmp_path).pipe(TEXTS)] == [triples(doc) for doc in nlp.pipe(TEXTS)]


def test_an_encoder_from_scratch_of_its_own(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_spans", config={"model": {"tok2vec": make_scratch_config()}})
    initialize_nlp(nlp)
    learn(nlp, make_examples(nlp), 120, rate=0.001)
    assert nlp.evaluate(make_examples(nlp))["spans_sc_f"] == 1.0
