"""Scores of spans that may overlap, against sets, and `evaluate` with a head of such spans."""

import random
from pathlib import Path
from typing import Any, List, Tuple

import pytest
import spacy
import srsly
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.evaluation.compare import compare
from spacy_bert_heads.evaluation.compare_report import write_comparison
from spacy_bert_heads.evaluation.evaluate import evaluate_examples
from spacy_bert_heads.evaluation.history import keep, read_history
from spacy_bert_heads.evaluation.records import describe_run
from spacy_bert_heads.evaluation.report import to_json
from spacy_bert_heads.evaluation.saved_reports import parse_report
from spacy_bert_heads.evaluation.span_scores import SpanScorer, overlapping
from spacy_bert_heads.evaluation.tables import headlines, make_tables

from ..making import make_examples, make_nlp

NLP = spacy.blank("en")
WORDS = "one two three four five six seven eight".split()


def make_doc(chooser: random.Random, n: int) -> Doc:
    doc = Doc(NLP.vocab, words=WORDS)
    every = [(i, j, label) for i in range(8) for j in range(i + 1, 9) for label in "AB"]
    doc.spans["sc"] = [Span(doc, *span) for span in chooser.sample(every, n)]
    return doc


def places(doc: Doc) -> List[Tuple[int, int, str]]:
    return [(span.start, span.end, span.label_) for span in doc.spans["sc"]]


def test_scores_are_those_of_sets() -> None:
    chooser = random.Random(0)
    scorer = SpanScorer("spans", ["A", "B"], "sc")
    gold, predicted = set(), set()
    for number in range(12):
        one, other = make_doc(chooser, 5), make_doc(chooser, 40)
        right, mistakes = scorer.add(Example(other, one))
        gold |= {(number, *place) for place in places(one)}
        predicted |= {(number, *place) for place in places(other)}
        here = [set(places(one)), set(places(other))]
        assert len(mistakes) == len(here[0] ^ here[1]) and right == (not mistakes)
    found = scorer.to_dict()
    assert found["micro"]["precision"] == pytest.approx(len(gold & predicted) / len(predicted))
    assert found["micro"]["recall"] == pytest.approx(len(gold & predicted) / len(gold))
    for label in "AB":
        support = sum(place[3] == label for place in gold)
        assert found["per_label"][label]["support"] == support
    assert found["overlapping"]["support"] <= len(gold)


def test_spans_that_share_characters_are_found() -> None:
    chooser = random.Random(1)
    for _ in range(50):
        spans = sorted({(i, i + chooser.randint(1, 4), "A") for i in chooser.sample(range(14), 5)})
        expected = [a for a in spans if any(a != b and a[0] < b[1] and b[0] < a[1] for b in spans)]
        assert overlapping(spans) == expected


def test_gaps_and_texts_without_gold_are_left_out() -> None:
    scorer = SpanScorer("spans", ["A"], "sc", "unknown_spans", "incorrect_spans")
    gold, predicted = (Doc(NLP.vocab, words=WORDS) for _ in range(2))
    gold.spans["sc"] = [Span(gold, 0, 2, "A")]
    gold.spans["unknown_spans"] = [Span(gold, 4, 6)]
    gold.spans["incorrect_spans"] = [Span(gold, 5, 6, "A")]
    predicted.spans["sc"] = [Span(predicted, 0, 2, "A"), Span(predicted, 3, 5, "A"), Span(predicted, 5, 6, "A")]
    right, (mistake,) = scorer.add(Example(predicted, gold))
    assert not right and (mistake.kind, mistake.predicted, mistake.words) == ("invented", "A", "six")
    assert scorer.add(Example(predicted, Doc(NLP.vocab, words=WORDS))) == (None, [])
    found = scorer.to_dict()
    assert (found["predictions_ignored"], found["texts_without_gold"], found["texts"]) == (1, 1, 1)


def test_evaluate_has_a_table_of_spans(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner", "bert_spans"])
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.003
    for _ in range(60):
        nlp.update(make_examples(nlp), sgd=sgd)
    nlp.to_disk(tmp_path / "model")
    DocBin(docs=[eg.reference for eg in make_examples(nlp)]).to_disk(tmp_path / "test.spacy")
    output = tmp_path / "test.json"
    found = CliRunner().invoke(
        app, ["evaluate", str(tmp_path / "model"), str(tmp_path / "test.spacy"), "--output", str(output)]
    )
    assert found.exit_code == 0, found.output
    scores = srsly.read_json(output)
    assert scores["spans_sc_f"] == scores["spans"][0]["micro"]["f1"] == 1.0 and scores["ents_f"] == 1.0
    assert scores["spans"][0]["overlapping"] == {"support": 10, "recall": 1.0}
    # A file of an annotation tool is read as spans, and the outer ones as entities
    text, spans = "track Smith in London", [[6, 11, "PERSON"], [15, 21, "CITY"], [12, 21, "PLACE"], [6, 21, "THING"]]
    srsly.write_jsonl(tmp_path / "test.jsonl", [{"text": text, "label": spans}])
    found = CliRunner().invoke(app, ["evaluate", str(tmp_path / "model"), str(tmp_path / "test.jsonl")])
    assert found.exit_code == 0, found.output
    shown = [line for line in found.output.splitlines() if "F1 of spans" in line or "recall of spans" in line]
    assert len(shown) == 2 and all("100.0" in line for line in shown)


def test_reports_of_spans_are_compared_and_kept(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_nlp(bert_folder, ["bert_spans"])
    chooser, reports = random.Random(3), []
    gold = [make_doc(chooser, 4) for _ in range(8)]
    for texts in ([doc.copy() for doc in gold], [make_doc(chooser, 4) for _ in gold]):
        # The second one finds other spans in the same texts
        predicted = []
        for doc, other in zip(gold, texts):
            copy = doc.copy()
            copy.spans["sc"] = [Span(copy, span.start, span.end, span.label) for span in other.spans["sc"]]
            predicted.append(copy)
        evaluation = evaluate_examples(nlp, [Example(doc, reference) for doc, reference in zip(predicted, gold)])
        evaluation.run = describe_run(nlp)
        reports.append(parse_report(srsly.json_loads(to_json(evaluation)), "report"))
        keep(evaluation, tmp_path)
        expected = evaluation.spans[0]["micro"]["f1"]
    comparison = compare(reports)
    rows = {row.name: row.values for row in comparison.scores}
    assert rows["F1"] == pytest.approx([1.0, expected]) and expected < 0.9
    changes: Any = comparison.changes[1]
    assert changes.broken and len(changes.broken) + changes.n_right == 8 and not changes.mended
    write_comparison(comparison, tmp_path / "pages")
    page = (tmp_path / "pages" / "compare.html").read_text("utf8")
    span = sorted((span.start_char, span.end_char, span.label_) for span in gold[0].spans["sc"])[0]
    assert f"{gold[0].text[span[0] : span[1]]} ({span[2]})" in page
    kept = [run.scores["bert_spans, F1 of spans"][0] for run in read_history(tmp_path).runs]
    assert sorted(kept) == pytest.approx([expected, 1.0])


def test_what_is_not_annotated_is_said(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_spans"])
    docs: List[Any] = [nlp("my order"), nlp("Anna")]
    gold = docs[1].copy()
    gold.spans["sc"] = [Span(gold, 0, 1, "PERSON")]
    evaluation = evaluate_examples(nlp, [Example(docs[0], nlp.make_doc("my order")), Example(docs[1], gold)])
    assert evaluation.notes == ["1 of 2 texts have no gold spans for 'bert_spans' and are left out."]
    assert [table.title for table in make_tables(evaluation)] == ["Spans (bert_spans)"]
    assert headlines(evaluation)[0][0] == "bert_spans, F1 of spans"
    nothing = evaluate_examples(nlp, [Example(docs[0], nlp.make_doc("my order"))])
    assert nothing.notes == ["'bert_spans' is not scored: no text has gold spans under doc.spans['sc']."]
    assert make_tables(nothing) == []
