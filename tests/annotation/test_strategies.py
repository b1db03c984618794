"""Scores of strategies against sums over every tag path, scipy and what they mean for single texts."""

import itertools
import math
from typing import Any, Dict, List, Sequence, Tuple

import numpy
import pytest
import spacy
import torch
from scipy.stats import entropy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_bert_heads.annotation.heads import Head, Heads, find_heads
from spacy_bert_heads.annotation.strategies import STRATEGIES, default_strategy, make_scorer, random_number
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.crf.paths import TagPaths

from ..making import assert_same_predictions, make_nlp, make_texts, predictions

JOINT = ("bert_textcat", "bert_ner")
NER = Head("bert_ner", ("CITY", "PERSON"), exclusive=False, scored=True)
SPACY_NER = NER._replace(name="ner", scored=False)
TEXTS = ["new york 42", "anna", "where is my order"]


@pytest.fixture(scope="module")
def nlp(bert_folder: str) -> Language:
    return make_nlp(bert_folder, JOINT)


def textcat(labels: Sequence[str], exclusive: bool) -> Head:
    return Head("cat", tuple(labels), exclusive=exclusive, scored=True)


def doc_with(cats: Dict[str, float]) -> Doc:
    doc = Doc(spacy.blank("en").vocab, words=["a"])
    doc.cats = dict(cats)
    return doc


def every_path(nlp: Language, doc: Doc) -> List[Tuple[Tuple[int, ...], float]]:
    """All legal paths of tags and their probabilities, from the emissions of the head."""
    ner: Any = nlp.get_pipe("bert_ner")
    with nlp.select_pipes(enable=["transformer"]):
        encoded = nlp(doc.text)
    (emissions,) = ner.model.predict([encoded])
    crf = next(node for node in ner.model.walk() if node.name == "crf").shims[0].module
    start, end, steps = (t.detach().numpy() for t in (crf.start_transitions, crf.end_transitions, crf.transitions))
    n_tags = len(ner.tags)
    legal = torch.ones(n_tags + 1, n_tags + 1).numpy() if crf.legal is None else crf.legal.numpy()
    paths, scores = [], []
    for path in itertools.product(range(n_tags), repeat=len(doc)):
        pairs = list(zip(path, path[1:]))
        if legal[n_tags, path[0]] and legal[path[-1], n_tags] and all(legal[a, b] for a, b in pairs):
            paths.append(path)
            score = start[path[0]] + end[path[-1]] + sum(steps[a, b] for a, b in pairs)
            scores.append(float(score + sum(emissions[t, tag] for t, tag in enumerate(path))))
    weights = numpy.exp(numpy.array(scores) - max(scores))
    return list(zip(paths, weights / weights.sum()))


@pytest.mark.parametrize("text", TEXTS)
def test_scores_of_entities_are_those_of_all_paths(nlp: Language, text: str) -> None:
    heads = find_heads(nlp)
    paths = every_path(nlp, nlp.make_doc(text))
    marginals = numpy.zeros((len(nlp.make_doc(text)), len(nlp.get_pipe("bert_ner").tags)))  # type: ignore[attr-defined]
    for path, probability in paths:
        for t, tag in enumerate(path):
            marginals[t, tag] += probability
    best = max(probability for _, probability in paths)
    ((doc, found),) = make_scorer(nlp, "mnlp", heads).pipe([text])
    assert found == pytest.approx(-math.log(best) / len(marginals), abs=1e-5)
    assert doc._.ents_uncertainty.entropies == pytest.approx(entropy(marginals, axis=1), abs=1e-5)
    assert doc._.ents_uncertainty.best_marginals == pytest.approx(marginals.max(axis=1), abs=1e-5)
    ((doc, found),) = make_scorer(nlp, "joint", heads).pipe([text])
    whole = best * max(doc.cats.values())
    assert found == pytest.approx(-math.log(whole) / (len(doc) + 1), abs=1e-5)


@pytest.mark.parametrize("cats", [(0.5, 0.3, 0.2), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])
def test_scores_of_exclusive_labels(cats: Tuple[float, ...]) -> None:
    heads = Heads(None, textcat("abc", exclusive=True))
    doc = doc_with(dict(zip("abc", cats), other=0.5))  # a label of some other component
    first, second, _ = sorted(cats, reverse=True)
    assert STRATEGIES["breaking-ties"].score(doc, heads) == pytest.approx(1 - (first - second))


@pytest.mark.parametrize("cats", [(0.5, 0.9), (0.1, 0.99), (1.0, 0.0)])
def test_scores_of_labels_that_may_all_hold(cats: Tuple[float, ...]) -> None:
    heads = Heads(None, textcat("ab", exclusive=False))
    doc = doc_with(dict(zip("ab", cats)))
    closest = min(abs(p - (1 - p)) for p in cats)
    assert STRATEGIES["breaking-ties"].score(doc, heads) == pytest.approx(1 - closest)


def test_joint_score_of_labels_that_may_all_hold_is_that_of_the_likeliest_set(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ("bert_textcat_multilabel", "bert_ner"))
    heads = find_heads(nlp)
    ((doc, found),) = make_scorer(nlp, None, heads).pipe(["anna in london"])
    sets = [
        math.prod(p if holds else 1 - p for p, holds in zip(doc.cats.values(), choice))
        for choice in itertools.product([True, False], repeat=len(doc.cats))
    ]
    path = doc._.ents_uncertainty.path_log_probability
    assert found == pytest.approx(-(path + math.log(max(sets))) / (len(doc) + 1))


def test_texts_without_tokens_or_entities_are_worth_least(nlp: Language) -> None:
    heads = find_heads(nlp)
    ((_, score),) = make_scorer(nlp, "mnlp", heads).pipe([""])
    assert score == 0.0


def test_scoring_takes_one_pass_and_leaves_predictions_as_they_are(
    bert_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nlp = make_nlp(bert_folder, JOINT, settings={"transformer": {"keep_outputs": False}})
    plain = predictions(nlp.pipe(make_texts(20)))
    encoder: Any = nlp.get_pipe("transformer")
    encode, seen = encoder.predict, []
    monkeypatch.setattr(encoder, "predict", lambda docs: seen.extend(docs) or encode(docs))
    scorer = make_scorer(nlp, None, find_heads(nlp))
    found = list(scorer.pipe(((text, i) for i, text in enumerate(make_texts(20))), as_tuples=True))
    assert [i for _, _, i in found] == list(range(20))
    assert len(seen) == 20 and all(doc._.trf_data is None for doc, _, _ in found)
    assert_same_predictions(predictions(doc for doc, _, _ in found), plain)
    for doc, score, _ in found[:5]:  # one by one as in a batch
        assert scorer.score(nlp(doc.text)) == pytest.approx(score, abs=1e-5)


def test_uncertainty_comes_back_from_bytes(nlp: Language) -> None:
    scorer = make_scorer(nlp, "mnlp", find_heads(nlp))
    doc = nlp("anna in london")
    assert scorer.score(Doc(nlp.vocab).from_bytes(doc.to_bytes())) == scorer.score(doc)


def test_uncertainty_is_not_computed_unless_asked_for(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlp.get_pipe("bert_ner"), "annotates_uncertainty", False)
    monkeypatch.setattr(TagPaths, "uncertainty", lambda *args: pytest.fail("asked for"))
    make_scorer(nlp, "breaking-ties", find_heads(nlp))
    assert nlp("anna")._.ents_uncertainty is None


def test_random_scores_are_even_and_those_of_the_text(nlp: Language) -> None:
    scorer = make_scorer(nlp, "random", Heads(None, None), seed=3)
    texts = make_texts(10)
    scores = {doc.text: score for doc, score in scorer.pipe(texts)}
    assert {doc.text: score for doc, score in scorer.pipe(texts[5:])}.items() <= scores.items()
    assert random_number(texts[0], 3) == scores[texts[0]] != random_number(texts[0], 4)
    numbers = [random_number(f"text {i} \ud83d", 0) for i in range(2000)]
    assert all(0 <= number < 1 for number in numbers)
    counts, _ = numpy.histogram(numbers, bins=10, range=(0, 1))
    assert counts.min() > 150 and counts.max() < 250


def test_defaults_by_heads() -> None:
    cats = textcat("ab", exclusive=True)
    assert default_strategy(Heads(NER, cats)) == "joint"
    assert default_strategy(Heads(NER, None)) == "mnlp"
    assert default_strategy(Heads(None, cats)) == default_strategy(Heads(SPACY_NER, cats)) == "breaking-ties"
    assert default_strategy(Heads(NER, textcat("a", exclusive=True))) == "mnlp"
    assert default_strategy(Heads(None, textcat("a", exclusive=False))) == "breaking-ties"
    for nothing in (Heads(None, None), Heads(SPACY_NER, None)):
        with pytest.raises(BertHeadsError) as error:
            default_strategy(nothing)
        assert error.value.code == "H502"


@pytest.mark.parametrize(
    "strategy, heads, code",
    [
        ("mnpl", Heads(NER, None), "H500"),
        ("mnlp", Heads(SPACY_NER, None), "H501"),
        ("joint", Heads(NER, None), "H501"),
        ("breaking-ties", Heads(NER, None), "H501"),
        ("breaking-ties", Heads(None, textcat("a", exclusive=True)), "H501"),
    ],
)
def test_strategies_that_do_not_fit(nlp: Language, strategy: str, heads: Heads, code: str) -> None:
    with pytest.raises(BertHeadsError, match=strategy) as error:
        make_scorer(nlp, strategy, heads)
    assert error.value.code == code
