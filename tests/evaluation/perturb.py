"""Predictions with every kind of mistake, made from gold annotation by chance."""

import random
from typing import Dict, List, Optional, Sequence, Tuple

import numpy
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab

from spacy_bert_heads import extensions  # noqa: F401

Ent = Tuple[int, int, str]
VOCAB = Vocab()


def make_gold_ents(chooser: random.Random, n_tokens: int, labels: Sequence[str]) -> List[Ent]:
    ents, at = [], 0
    while at < n_tokens:
        start = at + chooser.randint(0, 4)
        end = start + chooser.randint(1, 3)
        if end > n_tokens:
            break
        ents.append((start, end, chooser.choice(labels)))
        at = end
    return ents


def perturb_ents(chooser: random.Random, ents: Sequence[Ent], n_tokens: int, labels: Sequence[str]) -> List[Ent]:
    """Some stay, some move, some get another label, some go, and some come from nowhere."""
    moved = []
    for start, end, label in ents:
        what = chooser.random()
        if what < 0.1:
            continue
        if what < 0.35:
            start, end = start + chooser.randint(-1, 1), end + chooser.randint(-1, 2)
        if what > 0.8 or 0.3 < what < 0.35:
            label = chooser.choice(labels)
        moved.append((start, end, label))
    moved += make_gold_ents(chooser, n_tokens, labels)[:: chooser.randint(2, 9)]
    kept: List[Ent] = []
    for start, end, label in moved:
        start, end = max(0, start), min(n_tokens, end)
        if start < end and all(end <= one or start >= other for one, other, _ in kept):
            kept.append((start, end, label))
    return sorted(kept)


def make_example(
    words: Sequence[str],
    gold: Optional[Sequence[Ent]] = (),
    predicted: Sequence[Ent] = (),
    *,
    missing: Sequence[Tuple[int, int]] = (),
    gold_cats: Optional[Dict[str, float]] = None,
    cats: Optional[Dict[str, float]] = None,
) -> Example:
    """gold=None: nobody has annotated entities."""
    reference, doc = Doc(VOCAB, words=words), Doc(VOCAB, words=words)
    if gold is not None:
        unknown = [reference[start:end] for start, end in missing]
        reference.set_ents([Span(reference, *ent) for ent in gold], missing=unknown, default="outside")
    doc.set_ents([Span(doc, *ent) for ent in predicted])
    for number, ent in enumerate(doc.ents):
        ent._.confidence = 1 / (number + 1.5)
    reference.cats, doc.cats = dict(gold_cats or {}), dict(cats or {})
    return Example(doc, reference)


def make_examples(n: int, labels: Sequence[str], seed: int = 0, longest: int = 14) -> List[Example]:
    chooser = random.Random(seed)
    examples = []
    for _ in range(n):
        n_tokens = chooser.randint(1, longest)
        gold = make_gold_ents(chooser, n_tokens, labels)
        predicted = perturb_ents(chooser, gold, n_tokens, labels)
        examples.append(make_example([f"w{i}" for i in range(n_tokens)], gold, predicted))
    return examples


def bio(ents: Sequence[Ent], n_tokens: int) -> List[str]:
    tags = ["O"] * n_tokens
    for start, end, label in ents:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tags


def bio_of(doc: Doc) -> List[str]:
    return bio([(ent.start, ent.end, ent.label_) for ent in doc.ents], len(doc))


def perturb_cats(labels: Sequence[str], right: str, random_state: numpy.random.RandomState) -> Dict[str, float]:
    """Probabilities of exclusive classes, of which the right one is the best more often than not."""
    values = random_state.dirichlet(numpy.ones(len(labels)))
    values[list(labels).index(right)] += 0.4 * random_state.rand()
    return dict(zip(labels, (values / values.sum()).tolist()))
