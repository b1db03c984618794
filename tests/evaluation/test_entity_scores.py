"""Counts of entities against seqeval, scikit-learn, spaCy's scorer and matchings found by scipy."""

import random
from typing import Any, Dict, List

import numpy
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2
from sklearn.metrics import precision_recall_fscore_support
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_bert_heads.evaluation.entity_scores import (
    INVENTED,
    MISSED,
    STRICT,
    WRONG_BOTH,
    WRONG_BOUNDARY,
    WRONG_LABEL,
    EntityScorer,
    match_entities,
    overlapping_pairs,
    read_entities,
)

from .perturb import VOCAB, bio_of, make_example, make_examples

LABELS = ("ORG", "PER", "LOC")


def score(examples: List[Example], labels: Any = LABELS) -> Dict[str, Any]:
    scorer = EntityScorer("ner", labels)
    for eg in examples:
        scorer.add(eg)
    return scorer.to_dict()


def assert_scores_equal(ours: Dict[str, Any], theirs: Dict[str, Any], f1: str = "f1-score") -> None:
    for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", f1), ("support", "support")):
        assert ours[name] == pytest.approx(theirs[key]), name


@pytest.mark.parametrize("seed", range(5))
def test_strict_scores_are_those_of_seqeval(seed: int) -> None:
    examples = make_examples(200, LABELS, seed)
    ours = score(examples)
    gold, predicted = ([bio_of(doc) for doc in docs] for docs in zip(*((eg.y, eg.x) for eg in examples)))
    theirs = classification_report(gold, predicted, output_dict=True, mode="strict", scheme=IOB2, zero_division=0)
    for label in LABELS:
        assert_scores_equal(ours["per_label"][label], theirs[label])
    for average in ("micro", "macro"):
        assert_scores_equal(ours[average], theirs[f"{average} avg"])
        low, high = ours[average]["f1_interval"]
        assert low < ours[average]["f1"] < high
    # Every mistake is somewhere: gold entities in their own row, invented ones in that of their label
    for label, counts in ours["errors"].items():
        assert sum(counts.values()) - counts[INVENTED] == ours["per_label"][label]["support"]
        assert counts[STRICT] == ours["per_label"][label]["correct"]


def test_tags_of_tokens_are_those_of_scikit_learn() -> None:
    examples = make_examples(200, LABELS, seed=7)
    gold = [tag for eg in examples for tag in bio_of(eg.reference)]
    predicted = [tag for eg in examples for tag in bio_of(eg.predicted)]
    found = score(examples)["tokens"]
    tags = sorted(found["per_tag"])
    assert set(tags) == {*gold, *predicted}
    theirs = precision_recall_fscore_support(gold, predicted, labels=tags, zero_division=0)
    for tag, *values in zip(tags, *theirs):
        assert list(found["per_tag"][tag].values()) == pytest.approx(values)
    assert sum(sum(row.values()) for row in found["confusion"].values()) == len(gold)


def test_parts_without_annotation_count_as_in_spacys_scorer() -> None:
    chooser = random.Random(3)
    examples = []
    for eg in make_examples(150, LABELS, seed=3):
        gold = [(ent.start, ent.end, ent.label_) for ent in eg.reference.ents]
        predicted = [(ent.start, ent.end, ent.label_) for ent in eg.predicted.ents]
        free = [i for i in range(len(eg.reference)) if all(not start <= i < end for start, end, _ in gold)]
        missing = [(i, i + 1) for i in free if chooser.random() < 0.4]
        words = [token.text for token in eg.reference]
        if chooser.random() < 0.8:
            examples.append(make_example(words, gold, predicted, missing=missing))
        else:
            examples.append(make_example(words, None, predicted))
    theirs, ours = get_ner_prf(examples), score(examples)
    for label in LABELS:
        assert [ours["per_label"][label][key] for key in ("precision", "recall", "f1")] == pytest.approx(
            [theirs["ents_per_type"][label][key] for key in "prf"]
        )
    assert ours["micro"]["f1"] == pytest.approx(theirs["ents_f"])
    assert ours["predictions_ignored"] > 10 and ours["texts_partly_annotated"] > 10
    known = sum(token.ent_iob != 0 for eg in examples for token in eg.reference if read_entities(eg))
    assert sum(row["support"] for row in ours["tokens"]["per_tag"].values()) == known


@pytest.mark.parametrize("seed", range(3))
def test_lenient_matches_are_the_most_there_can_be(seed: int) -> None:
    examples = make_examples(150, LABELS, seed=seed + 20, longest=20)
    modes = score(examples)["modes"]
    boundaries = by_label = overlap = 0
    for eg in examples:
        found = read_entities(eg)
        gold, predicted = found.gold, found.predicted
        if not gold or not predicted:
            continue
        touching = numpy.array([[a.start < b.end and b.start < a.end for b in predicted] for a in gold])
        same = numpy.array([[a.label == b.label for b in predicted] for a in gold])
        boundaries += len({(a.start, a.end) for a in gold} & {(b.start, b.end) for b in predicted})
        for name, table in (("label", touching & same), ("any", touching)):
            n_pairs = int((maximum_bipartite_matching(csr_matrix(table)) >= 0).sum())
            pairs = overlapping_pairs(gold, predicted, lambda a, b, n=name: n == "any" or a.label == b.label)
            assert len(pairs) == n_pairs
            by_label += n_pairs if name == "label" else 0
            overlap += n_pairs if name == "any" else 0
    correct = {mode: scores["correct"] for mode, scores in modes.items()}
    assert correct["boundaries"] == boundaries and correct["label"] == by_label
    assert correct["partial"] == boundaries + 0.5 * (overlap - boundaries)
    assert correct["strict"] < correct["boundaries"] < correct["partial"]


def test_kinds_of_mistakes_in_one_text() -> None:
    gold = [(0, 1, "ORG"), (1, 2, "ORG"), (2, 4, "PER"), (4, 6, "LOC"), (7, 8, "PER")]
    predicted = [(0, 1, "ORG"), (1, 2, "LOC"), (2, 3, "PER"), (5, 7, "ORG"), (9, 10, "LOC")]
    eg = make_example([f"w{i}" for i in range(10)], gold, predicted)
    found = read_entities(eg)
    kinds = [match.kind for match in match_entities(found.gold, found.predicted)]
    assert kinds == [STRICT, WRONG_LABEL, WRONG_BOUNDARY, WRONG_BOTH, MISSED, INVENTED]
    right, mistakes = EntityScorer("ner", LABELS).add(eg)
    assert right is False
    assert [(one.kind, one.gold, one.predicted, one.words) for one in mistakes] == [
        (WRONG_LABEL, "ORG", "LOC", "w1"),
        (WRONG_BOUNDARY, "PER", "PER", "w2 w3"),
        (WRONG_BOTH, "LOC", "ORG", "w4 w5"),
        (MISSED, "PER", None, "w7"),
        (INVENTED, None, "LOC", "w9"),
    ]
    scores = score([eg])
    assert scores["confusion"] == {
        "": {"LOC": 1},
        "LOC": {"ORG": 1},
        "ORG": {"LOC": 1, "ORG": 1},
        "PER": {"": 1, "PER": 1},
    }
    assert scores["errors"]["ORG"][WRONG_LABEL] == 1 and scores["errors"]["LOC"][INVENTED] == 1


def test_gold_and_prediction_may_have_different_tokens() -> None:
    reference = Doc(VOCAB, words=["New", "York", "-", "based", "Anna", "Li"], spaces=[1, 0, 0, 1, 1, 0])
    predicted = Doc(VOCAB, words=["New", "York-based", "Anna", "L", "i"], spaces=[1, 1, 1, 0, 0])
    reference.set_ents([Span(reference, 0, 2, "LOC"), Span(reference, 4, 6, "PER")])
    predicted.set_ents([Span(predicted, 0, 2, "LOC"), Span(predicted, 2, 5, "PER")])
    scores = score([Example(predicted, reference)])
    assert scores["errors"]["LOC"][WRONG_BOUNDARY] == 1 and scores["per_label"]["PER"]["f1"] == 1.0
    # A token is in an entity if any of its characters are
    assert {tag: row["f1"] for tag, row in scores["tokens"]["per_tag"].items()} == dict.fromkeys(
        ("B-LOC", "I-LOC", "B-PER", "I-PER"), 1.0
    )


def test_labels_and_texts_without_anything_to_count() -> None:
    unknown = make_example(["a"], None, [(0, 1, "ORG")])
    other = make_example(["a", "b"], [(0, 1, "NEW")], [])
    empty = make_example([], [], [])
    plain = make_example(["a"], [], [])
    scores = score([unknown, other, plain])
    assert (scores["texts"], scores["texts_without_gold"], scores["texts_without_entities"]) == (2, 1, 1)
    assert scores["per_label"]["NEW"]["support"] == 1 and scores["per_label"]["ORG"]["support"] == 0
    assert scores["per_label"]["ORG"]["f1_interval"] is None and scores["macro"]["labels"] == 1
    for examples in ([], [unknown], [empty], [plain]):
        nothing = score(examples)
        assert nothing["micro"]["f1"] == 0.0 and nothing["micro"]["f1_interval"] is None
        assert nothing["macro"]["f1_interval"] is None
