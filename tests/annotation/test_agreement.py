"""Agreement between annotators: against scikit-learn, and as `merge` reports it."""

import json
import random
from pathlib import Path
from typing import Any, Dict, List

import pytest

from spacy_bert_heads.annotation.agreement import Agreement, cohen_kappa
from spacy_bert_heads.annotation.merge import merge
from spacy_bert_heads.corpus.annotations import Annotation, CharSpan
from spacy_bert_heads.corpus.findings import Where

from ..corpus.helpers import ALL_TRAIN, make_choice, make_span, write_jsonl

TEXTS = [f"Text number {number} of them." for number in range(30)]
LABELS = ("POS", "NEG", "MIX")


def count_pairs(ones: List[str], others: List[str]) -> Dict[Any, int]:
    pairs = list(zip(ones, others))
    return {pair: pairs.count(pair) for pair in pairs}


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    chooser = random.Random(seed)
    ones = [chooser.choice(LABELS) for _ in range(40)]
    others = [one if chooser.random() < 0.6 else chooser.choice(LABELS) for one in ones]
    assert cohen_kappa(count_pairs(ones, others)) == pytest.approx(metrics.cohen_kappa_score(ones, others))


def test_kappa_of_nothing_and_of_one_answer_is_undefined() -> None:
    assert cohen_kappa({}) is None
    assert cohen_kappa({("POS", "POS"): 9}) is None
    assert cohen_kappa({("POS", "NEG"): 4, ("NEG", "POS"): 4}) == -1.0


def test_questions_with_several_answers_are_weighed_by_their_number() -> None:
    agreement = Agreement()
    chooser = random.Random(0)
    said: Dict[str, List[Any]] = {"A": [], "B": []}
    for number, text in enumerate(TEXTS):
        cats = [{label: float(chooser.random() < 0.5) for label in said if label == "A" or number < 10} for _ in "xy"]
        agreement.add([Annotation(text, Where(Path(), 1), cats=one, annotator=name) for one, name in zip(cats, "xy")])
        for label in cats[0]:
            said[label].append((str(cats[0][label]), str(cats[1][label])))
    kappas = {label: cohen_kappa({pair: pairs.count(pair) for pair in pairs}) for label, pairs in said.items()}
    [pair] = agreement.to_list()
    assert pair["kappa"] == pytest.approx(((kappas["A"] or 0) * 30 + (kappas["B"] or 0) * 10) / 40)


def test_merge_reports_pairs_of_annotators(tmp_path: Path) -> None:
    """Anna and Bob answered all texts, Kim some; sessions that are only a time name nobody."""
    chooser = random.Random(1)
    choices: Dict[str, List[str]] = {"anna": [], "bob": []}
    spans: Dict[str, List[Any]] = {"anna": [], "bob": []}
    records: List[Dict[str, Any]] = []
    for number, text in enumerate(TEXTS):
        for name in choices:
            choices[name].append(chooser.choice(LABELS[:2]))
            spans[name].append([CharSpan(0, 4, "PER")] + ([CharSpan(5, 11, "LOC")] if chooser.random() < 0.5 else []))
            record = {**make_choice(choices[name][-1], text=text), "answer": "accept", "_timestamp": number}
            # An answer that was given later replaces it
            first = {**make_choice("MIX", text=text), "answer": "accept", "_timestamp": number - 100}
            marked = {"spans": [make_span(*span) for span in spans[name][-1]], "_view_id": "blocks"}
            records += [{**first, "_annotator_id": name}, {**record, **marked, "_annotator_id": name}]
        if number < 3:
            records.append({**make_choice("POS", text=text), "answer": "accept", "_session_id": "kim"})
            records.append({**make_choice("POS", text=text), "answer": "accept", "_session_id": "2024-07-23_09-36-48"})
    report_path = tmp_path / "report.json"
    answers = [write_jsonl(tmp_path / "answers.jsonl", *records)]
    report = merge([], tmp_path / "out", answers=answers, report_path=report_path, split=ALL_TRAIN)
    found = {tuple(pair["annotators"]): pair for pair in json.loads(report_path.read_text())["agreement"]}
    assert list(found) == [("anna", "bob"), ("anna", "kim"), ("bob", "kim")]
    pair = found["anna", "bob"]
    assert pair["texts"] == 30
    assert pair["kappa"] == pytest.approx(cohen_kappa(count_pairs(choices["anna"], choices["bob"])))
    both = sum(len({*one} & {*other}) for one, other in zip(spans["anna"], spans["bob"]))
    n_spans = sum(map(len, spans["anna"] + spans["bob"]))
    assert pair["span_f"] == pytest.approx(2 * both / n_spans)
    assert found["anna", "kim"]["texts"] == 3 and found["anna", "kim"]["span_f"] is None
    shown = report.to_text()
    assert f"anna        bob      30   {pair['kappa']:5.2f}      {pair['span_f']:.2f}" in shown


def test_without_names_there_is_no_agreement(tmp_path: Path) -> None:
    records = [{**make_choice(label), "answer": "accept"} for label in LABELS[:2]]
    report = merge([], tmp_path / "out", answers=[write_jsonl(tmp_path / "a.jsonl", *records)], split=ALL_TRAIN)
    assert report.agreement.to_list() == [] and "Agreement" not in report.to_text()
