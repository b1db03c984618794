"""Answers of every kind in one corpus teach both heads; the losses are those of all readings, computed by hand."""

import math
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import pytest
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_bert_heads.annotation.merge import merge

from ..corpus.helpers import ALL_TRAIN, load_docs, write_jsonl
from ..making import make_examples, make_nlp

SINGLE = {"choice_style": "single"}
OPTIONS = [{"id": "CANCEL"}, {"id": "TRACK"}]
# Text, span and label that somebody rejected, and others that were accepted.
REJECTED_SPAN, REJECTED_LABEL = "refund Smith in York", "where is the order"
ACCEPTED_SPAN, ACCEPTED_LABEL = "please track London", "cancel my order"


def find(text: str, part: str, label: str) -> Dict[str, Any]:
    return {"start": text.index(part), "end": text.index(part) + len(part), "label": label}


def record(text: str, view: str, answer: str = "accept", **keys: Any) -> Dict[str, Any]:
    return {"text": text, "_view_id": view, "answer": answer, **keys}


def ask_span(text: str, part: str, label: str, answer: str) -> Dict[str, Any]:
    return record(text, "ner", answer, spans=[find(text, part, label)])


ANSWERS = [
    ask_span(REJECTED_SPAN, "York", "PERSON", "reject"),
    ask_span(ACCEPTED_SPAN, "London", "CITY", "accept"),
    record(REJECTED_LABEL, "classification", "reject", label="TRACK"),
    record(ACCEPTED_LABEL, "classification", "accept", label="CANCEL"),
    # Entities complete, categories missing; and the other way round
    record("track Anna", "ner_manual", spans=[find("track Anna", "Anna", "PERSON")]),
    record("where is my refund", "choice", options=OPTIONS, accept=["TRACK"], config=SINGLE),
    # No entities at all, and both heads at once
    record("the order is in", "ner_manual", spans=[]),
    record(
        "cancel London",
        "blocks",
        spans=[find("cancel London", "London", "CITY")],
        options=OPTIONS,
        accept=["CANCEL"],
        config=SINGLE,
    ),
    # Entities from one annotator, a label from another
    ask_span("anna smith?", "smith", "PERSON", "accept"),
    record("anna smith?", "classification", "reject", label="CANCEL"),
    record("my order", "ner_manual", "ignore", spans=[]),
]


def make_corpus(folder: Path, records: Sequence[Dict[str, Any]]) -> List[Doc]:
    merge([], folder / "corpus", answers=[write_jsonl(folder / "answers.jsonl", *records)], split=ALL_TRAIN)
    return load_docs(folder / "corpus" / "train.spacy")


def to_examples(nlp: Language, docs: Sequence[Doc]) -> List[Example]:
    return [Example(nlp.make_doc(doc.text), doc) for doc in docs]


def readings(nlp: Language, text: str) -> List[Tuple[List[Tuple[int, int, str]], float]]:
    """All readings of a text that matter, with their probabilities."""
    doc = nlp.get_pipe("transformer")(nlp.make_doc(text))
    (found,) = nlp.get_pipe("bert_ner").nbest([doc], 3000)  # type: ignore[attr-defined]
    return [(ents, math.exp(log_probability)) for ents, log_probability in found]


def span_probability(nlp: Language, text: str, part: str, label: str) -> float:
    start, end = find(text, part, label)["start"], find(text, part, label)["end"]
    span = nlp.make_doc(text).char_span(start, end)
    assert span is not None
    return sum(p for ents, p in readings(nlp, text) if (span.start, span.end, label) in ents)


def train(nlp: Language, examples: List[Example], steps: int, learn_rate: float = 0.002) -> List[Dict[str, float]]:
    sgd = nlp.create_optimizer()
    sgd.learn_rate = learn_rate
    return [nlp.update(examples, sgd=sgd, losses={}) for _ in range(steps)]


def expected_ner_loss(nlp: Language, docs: Sequence[Doc]) -> float:
    """Mean over annotated texts of -log of what the readings that fit the answers have together."""
    terms = []
    for doc in docs:
        rejected = doc.spans.get("incorrect_spans", ())
        if not doc.has_annotation("ENT_IOB") and not rejected:
            continue
        known = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
        complete = doc.has_annotation("ENT_IOB", require_complete=True)
        found = readings(nlp, doc.text)
        fits = sum(p for ents, p in found if (ents == known if complete else set(known) <= set(ents)))
        term = -math.log(fits) if known or complete else 0.0
        for span in rejected:
            term -= math.log(sum(p for ents, p in found if (span.start, span.end, span.label_) not in ents))
        terms.append(term)
    return sum(terms) / len(terms)


def expected_textcat_loss(nlp: Language, docs: Sequence[Doc]) -> float:
    """-log p of the label that holds; -log(1 - p) of one that was rejected."""
    terms = []
    for doc in docs:
        cats = nlp(doc.text).cats
        if any(doc.cats.values()):
            (label,) = [label for label, value in doc.cats.items() if value]
            terms.append(-math.log(cats[label]))
        elif doc.cats:
            terms.append(-math.log(1 - sum(cats[label] for label in doc.cats)))
    return sum(terms) / len(terms)


def test_each_answer_costs_what_its_probability_says(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_nlp(bert_folder)
    train(nlp, make_examples(nlp), 5)
    docs = make_corpus(tmp_path, ANSWERS)
    assert len(docs) == 9
    losses = nlp.update(to_examples(nlp, docs), sgd=False, losses={})
    assert losses["bert_ner"] == pytest.approx(expected_ner_loss(nlp, docs), abs=2e-4)
    assert losses["bert_textcat"] == pytest.approx(expected_textcat_loss(nlp, docs), abs=1e-4)


def test_one_corpus_of_all_kinds_of_answers_teaches_both_heads(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_nlp(bert_folder)
    docs = make_corpus(tmp_path, ANSWERS)
    before = nlp(REJECTED_LABEL).cats["TRACK"], span_probability(nlp, REJECTED_SPAN, "York", "PERSON")
    losses = train(nlp, to_examples(nlp, docs), 40)
    for name in ("bert_ner", "bert_textcat"):
        assert all(math.isfinite(step[name]) for step in losses)
        assert losses[-1][name] < 0.2 * losses[0][name]
    assert nlp(REJECTED_LABEL).cats["TRACK"] < min(0.2, before[0])
    assert span_probability(nlp, REJECTED_SPAN, "York", "PERSON") < min(0.05, before[1])
    assert nlp(ACCEPTED_LABEL).cats["CANCEL"] > 0.8 and span_probability(nlp, ACCEPTED_SPAN, "London", "CITY") > 0.8
    assert [(ent.text, ent.label_) for ent in nlp("cancel London").ents] == [("London", "CITY")]


def test_a_text_that_says_nothing_about_a_head_changes_nothing_in_it(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_nlp(bert_folder)
    docs = make_corpus(tmp_path, ANSWERS)
    asked = {"bert_textcat": [doc for doc in docs if doc.cats]}
    asked["bert_ner"] = [doc for doc in docs if doc.has_annotation("ENT_IOB") or "incorrect_spans" in doc.spans]
    everything = nlp.update(to_examples(nlp, docs), sgd=False, losses={})
    for name, some in asked.items():
        assert len(some) < len(docs)
        alone = nlp.update(to_examples(nlp, some), sgd=False, losses={})[name]
        assert alone == pytest.approx(everything[name], abs=1e-5)


def test_a_round_of_rejections_beside_the_base_takes_back_the_errors_and_nothing_else(
    bert_folder: str, tmp_path: Path
) -> None:
    nlp = make_nlp(bert_folder)
    train(nlp, make_examples(nlp), 40)
    known = {eg.reference.text: [(ent.start, ent.label_) for ent in eg.reference.ents] for eg in make_examples(nlp)}
    texts = ["please cancel the order in zebra", "please cancel the refund in my order", "track order in the"]
    wrong = [(doc.text, ent.text, ent.label_) for doc in nlp.pipe(texts) for ent in doc.ents]
    assert wrong, "the pipeline has to be wrong somewhere"
    rejections = make_corpus(tmp_path, [ask_span(*answer, "reject") for answer in wrong])
    train(nlp, make_examples(nlp) + to_examples(nlp, rejections), 20, learn_rate=0.001)
    still = {(doc.text, ent.text, ent.label_) for doc in nlp.pipe(texts) for ent in doc.ents}
    assert not still & set(wrong)
    for text, ents in known.items():
        assert [(ent.start, ent.label_) for ent in nlp(text).ents] == ents
