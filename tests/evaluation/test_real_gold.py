"""Counts on public gold files with predictions perturbed by chance, against seqeval and scikit-learn."""

import random
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy
import pytest
import spacy
from seqeval.metrics import classification_report as seqeval_report
from seqeval.scheme import IOB2
from sklearn.metrics import classification_report
from spacy.tokens import Doc

from spacy_bert_heads.corpus.training_corpus import build_corpus_v1
from spacy_bert_heads.evaluation.category_scores import ExclusiveScorer, MultilabelScorer
from spacy_bert_heads.evaluation.entity_scores import EntityScorer

from .perturb import bio_of, make_example, perturb_cats, perturb_ents

LIMIT = 500  # texts of a file
FILES = {
    "wnut17": ["wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"],
    "resume_ner": ["train.char.bmes", "dev.char.bmes", "test.char.bmes"],
    "snips": ["train", "dev", "test"],
    "trec6": ["TREC.train.all", "TREC.test.all"],
    "goemotions": ["train.tsv", "dev.tsv", "test.tsv"],
}
OPTIONS: Dict[str, Dict[str, Any]] = {
    "goemotions": {"labels": "goemotions/labels.txt", "kind": "multi"},
    "resume_ner": {"skip_bad": True},
}
SPLITS = [(folder, name) for folder, names in FILES.items() for name in names]


def read_gold(data: Path, folder: str, name: str) -> List[Doc]:
    options = dict(OPTIONS.get(folder, {}))
    if "labels" in options:
        options["labels"] = data / options["labels"]
    nlp = spacy.blank("zh" if folder == "resume_ner" else "en")
    return [eg.reference for eg in build_corpus_v1(data / folder / name, limit=LIMIT, **options)(nlp)]


def assert_equal(ours: Dict[str, Any], theirs: Dict[str, Any]) -> None:
    found = [ours[key] for key in ("precision", "recall", "f1", "support")]
    assert found == pytest.approx([theirs[key] for key in ("precision", "recall", "f1-score", "support")])


@pytest.mark.parametrize("folder, name", [split for split in SPLITS if split[0] in ("wnut17", "resume_ner", "snips")])
def test_entities_are_counted_as_by_seqeval(shared_data: Path, folder: str, name: str) -> None:
    docs = read_gold(shared_data, folder, name)
    labels = sorted({ent.label_ for doc in docs for ent in doc.ents})
    chooser, scorer = random.Random(0), EntityScorer("ner", labels)
    tags: Tuple[List[List[str]], List[List[str]]] = ([], [])
    for doc in docs:
        gold = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
        eg = make_example([token.text for token in doc], gold, perturb_ents(chooser, gold, len(doc), labels))
        scorer.add(eg)
        tags[0].append(bio_of(eg.reference))
        tags[1].append(bio_of(eg.predicted))
    ours = scorer.to_dict()
    theirs = seqeval_report(*tags, output_dict=True, mode="strict", scheme=IOB2, zero_division=0)
    assert len(docs) > 400 and 0.05 < ours["micro"]["f1"] < 0.9
    for label in labels:
        assert_equal(ours["per_label"][label], theirs[label])
    for average in ("micro", "macro"):
        assert_equal(ours[average], theirs[f"{average} avg"])
    flat = [[tag for sentence in side for tag in sentence] for side in tags]
    theirs = classification_report(*flat, output_dict=True, zero_division=0)
    for tag, row in ours["tokens"]["per_tag"].items():
        assert_equal(row, theirs[tag])


@pytest.mark.parametrize("folder, name", [split for split in SPLITS if split[0] in ("snips", "trec6")])
def test_classes_are_counted_as_by_scikit_learn(shared_data: Path, folder: str, name: str) -> None:
    docs = read_gold(shared_data, folder, name)
    gold = [max(doc.cats, key=lambda label: doc.cats[label]) for doc in docs]
    labels = sorted(set(gold))
    random_state, scorer = numpy.random.RandomState(0), ExclusiveScorer("textcat", labels)
    predicted = []
    for doc, right in zip(docs, gold):
        cats = perturb_cats(labels, right, random_state)
        predicted.append(max(cats, key=lambda label: cats[label]))
        scorer.add(make_example(["a"], gold_cats=doc.cats, cats=cats))
    ours, theirs = scorer.to_dict(), classification_report(gold, predicted, output_dict=True, zero_division=0)
    assert ours["texts"] == len(docs) > 400 and 0.3 < ours["accuracy"] < 0.99
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"])
    for label in labels:
        assert_equal(ours["per_label"][label], theirs[label])
    assert_equal(ours["macro"], theirs["macro avg"])


@pytest.mark.parametrize("name", FILES["goemotions"])
def test_emotions_are_counted_as_by_scikit_learn(shared_data: Path, name: str) -> None:
    docs = read_gold(shared_data, "goemotions", name)
    labels = (shared_data / "goemotions" / "labels.txt").read_text("utf8").split()
    gold = numpy.array([[doc.cats[label] for label in labels] for doc in docs])
    scores = (0.5 * gold + 0.6 * numpy.random.RandomState(0).rand(*gold.shape)).clip(0, 1)
    scorer = MultilabelScorer("textcat", labels, 0.5)
    for doc, row in zip(docs, scores.tolist()):
        scorer.add(make_example(["a"], gold_cats=doc.cats, cats=dict(zip(labels, row))))
    ours = scorer.to_dict()
    theirs = classification_report(gold, scores >= 0.5, target_names=labels, output_dict=True, zero_division=0)
    assert len(labels) == 28 and len(docs) == LIMIT and 0.3 < ours["micro"]["f1"] < 0.95
    for label in labels:
        assert_equal(ours["per_label"][label], theirs[label])
    assert_equal(ours["micro"], theirs["micro avg"])
