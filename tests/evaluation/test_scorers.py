"""Scores against scikit-learn and seqeval."""

import random
from typing import Any, Dict, List

import pytest
import spacy
from seqeval.metrics import f1_score as entity_f1
from seqeval.metrics import precision_score as entity_precision
from seqeval.metrics import recall_score as entity_recall
from sklearn.metrics import accuracy_score, f1_score
from spacy.tokens import Doc
from spacy.training import Example

from spacy_bert_heads.evaluation.scorers import score_textcat, score_textcat_multilabel

VOCAB = spacy.blank("en").vocab
LABELS = ["A", "B", "C"]


def make_scored(predicted: Dict[str, float], gold: Dict[str, float]) -> Example:
    docs = [Doc(VOCAB, words=["x"]), Doc(VOCAB, words=["x"])]
    docs[0].cats, docs[1].cats = dict(predicted), dict(gold)
    return Example(*docs)


def make_exclusive(n: int, seed: int) -> List[Example]:
    chooser = random.Random(seed)
    examples = []
    for _ in range(n):
        gold = chooser.choice(LABELS)
        scores = {label: chooser.random() + 0.5 * (label == gold) for label in LABELS}
        full = {label: float(label == gold) for label in LABELS}
        examples.append(make_scored(scores, chooser.choice([full, {gold: 1.0}])))
    return examples


def make_unscorable() -> List[Example]:
    """Docs that say nothing of which class is right."""
    predicted = {"A": 0.2, "B": 0.7, "C": 0.1}
    return [make_scored(predicted, gold) for gold in ({}, {"B": 0.0}, {"A": 0.0, "B": 0.0, "C": 0.0}, {"C": 0.0})]


def best(cats: Dict[str, float]) -> str:
    return max(cats, key=lambda label: cats[label])


def test_exclusive_scores_are_scikit_learns_over_the_docs_whose_class_is_known() -> None:
    examples = make_exclusive(60, seed=0)
    gold = [best(eg.reference.cats) for eg in examples]
    predicted = [best(eg.predicted.cats) for eg in examples]
    scores = score_textcat([*make_unscorable(), *examples, *make_unscorable()], labels=LABELS)
    assert scores["cats_acc"] == pytest.approx(accuracy_score(gold, predicted))
    assert 0.3 < scores["cats_acc"] < 1
    assert scores["cats_macro_f"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert scores["cats_score"] == scores["cats_macro_f"]
    for label in LABELS:
        expected = f1_score(gold, predicted, labels=[label], average="macro")
        assert scores["cats_f_per_type"][label]["f"] == pytest.approx(expected)


def test_a_class_the_component_does_not_know_counts_as_missed() -> None:
    predicted = {"A": 0.9, "B": 0.1}
    examples = [make_scored(predicted, {"A": 1.0}), make_scored(predicted, {"NEW": 1.0})]
    assert score_textcat(examples, labels=["A", "B"])["cats_acc"] == 0.5


@pytest.mark.parametrize("complete", [True, False], ids=["all labels given", "true labels only"])
def test_classes_that_only_the_gold_docs_have_are_missed(complete: bool) -> None:
    """scikit-learn over the same labels, those the component never learned among them."""
    chooser = random.Random(4)
    gold = [chooser.choice([*LABELS, "NEW", "NEWER"]) for _ in range(50)]
    everything = [*LABELS, "NEWER", "NEW"]
    examples = []
    for label in gold:
        cats = {other: float(other == label) for other in everything} if complete else {label: 1.0}
        examples.append(make_scored({other: chooser.random() for other in LABELS}, cats))
    predicted = [best(eg.predicted.cats) for eg in examples]
    scores = score_textcat(examples, labels=LABELS)
    assert scores["cats_acc"] == pytest.approx(accuracy_score(gold, predicted))
    assert scores["cats_micro_f"] == pytest.approx(f1_score(gold, predicted, average="micro"))
    assert scores["cats_macro_f"] == pytest.approx(f1_score(gold, predicted, average="macro", labels=everything))
    assert scores["cats_f_per_type"]["NEW"] == {"p": 0.0, "r": 0.0, "f": 0.0}
    assert scores["cats_support"] == {label: gold.count(label) for label in everything}


def test_multilabel_classes_that_only_the_gold_docs_have_are_missed() -> None:
    examples = [
        make_scored({"A": 0.9, "B": 0.1}, {"A": 1.0, "NEW": 1.0}),
        make_scored({"A": 0.9, "B": 0.1}, {"B": 0.0}),
    ]
    scores = score_textcat_multilabel(examples, labels=["A", "B"], threshold=0.5)
    assert scores["cats_support"] == {"A": 1, "B": 0, "NEW": 1}
    assert scores["cats_micro_r"] == 0.5
    assert scores["cats_f_per_type"]["NEW"]["f"] == 0.0


@pytest.mark.parametrize("score", [score_textcat, score_textcat_multilabel])
def test_classes_that_no_gold_doc_has_are_reported_with_no_support(score: Any) -> None:
    examples = [make_scored({"A": 0.9, "B": 0.1, "C": 0.3}, {"A": 1.0}) for _ in range(3)]
    scores = score(examples, labels=LABELS)
    assert scores["cats_support"] == {"A": 3, "B": 0, "C": 0}
    assert scores["cats_f_per_type"]["C"] == {"p": 0.0, "r": 0.0, "f": 0.0}
    assert scores["cats_auc_per_type"]["C"] is None
    assert scores["cats_f_per_type"]["A"]["f"] == 1.0


def test_one_class_alone_is_scored() -> None:
    scores = score_textcat_multilabel(
        [make_scored({"A": 0.9}, {"A": 1.0}), make_scored({"A": 0.2}, {"A": 0.0})], labels=["A"]
    )
    assert scores["cats_macro_f"] == 1.0 and scores["cats_support"] == {"A": 1}


def test_docs_without_categories_do_not_change_multilabel_scores() -> None:
    chooser = random.Random(1)
    examples = [
        make_scored({x: chooser.random() for x in LABELS}, {x: float(chooser.random() > 0.5) for x in LABELS})
        for _ in range(50)
    ]
    mixed = [*examples, make_scored({"A": 0.9, "B": 0.9, "C": 0.9}, {})]
    scores = score_textcat_multilabel(mixed, labels=LABELS, threshold=0.4)
    gold = [[int(eg.reference.cats[x]) for x in LABELS] for eg in examples]
    predicted = [[int(eg.predicted.cats[x] >= 0.4) for x in LABELS] for eg in examples]
    for average in ("micro", "macro"):
        assert scores[f"cats_{average}_f"] == pytest.approx(f1_score(gold, predicted, average=average))
    assert scores == score_textcat_multilabel(examples, labels=LABELS, threshold=0.4)


def test_a_rejected_label_counts_in_multilabel_scores() -> None:
    scores = score_textcat_multilabel(
        [make_scored({"A": 0.9, "B": 0.9}, {"A": 0.0})], labels=["A", "B"], threshold=0.5
    )
    assert scores["cats_micro_p"] == 0.0
    assert scores["cats_f_per_type"]["B"]["f"] == 0.0


@pytest.mark.parametrize("score", [score_textcat, score_textcat_multilabel])
@pytest.mark.parametrize("examples", [[], [make_scored({"A": 0.9, "B": 0.1}, {})]], ids=["no Docs", "no categories"])
def test_without_annotation_there_is_no_score(score: Any, examples: List[Example]) -> None:
    scores = score(examples, labels=["A", "B"])
    for name in ("cats_score", "cats_micro_f", "cats_macro_f", "cats_macro_auc"):
        assert scores[name] is None
    assert scores.get("cats_acc") is None


def test_examples_may_come_from_a_generator() -> None:
    examples = make_exclusive(10, seed=3)
    assert score_textcat((eg for eg in examples), labels=LABELS) == score_textcat(examples, labels=LABELS)


def make_tagged(tags: List[str]) -> Doc:
    return Doc(VOCAB, words=["w"] * len(tags), ents=tags)


def make_bio(n_tokens: int, chooser: random.Random) -> List[str]:
    tags: List[str] = []
    while len(tags) < n_tokens:
        label = chooser.choice(["PER", "LOC"])
        choices = [["O"], ["O"], [f"B-{label}"], [f"B-{label}", f"I-{label}"]]
        tags += chooser.choice(choices)
    return tags[:n_tokens]


def test_entity_scores_are_seqevals() -> None:
    chooser = random.Random(0)
    gold = [make_bio(8, chooser) for _ in range(40)]
    predicted = [tags if chooser.random() > 0.5 else make_bio(8, chooser) for tags in gold]
    nlp = spacy.blank("en")
    ner = nlp.add_pipe("bert_ner")
    examples = [Example(make_tagged(p), make_tagged(g)) for p, g in zip(predicted, gold)]
    unannotated = Example(make_tagged(["B-PER", "O"]), Doc(VOCAB, words=["w", "w"]))
    scores = ner.score([*examples, unannotated])  # type: ignore[attr-defined]
    assert scores["ents_f"] == pytest.approx(entity_f1(gold, predicted))
    assert scores["ents_p"] == pytest.approx(entity_precision(gold, predicted))
    assert scores["ents_r"] == pytest.approx(entity_recall(gold, predicted))
    by_type = entity_f1(gold, predicted, average=None)
    assert [scores["ents_per_type"][label]["f"] for label in ("LOC", "PER")] == pytest.approx(list(by_type))
