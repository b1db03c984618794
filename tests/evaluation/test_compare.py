"""`compare`: scores are those of the reports, the test is that of the paper, nothing that differs is an exception."""

import json
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy
import pytest
import spacy
import srsly
from spacy.training import Example
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.evaluation import evaluate as evaluation_module
from spacy_bert_heads.evaluation.bootstrap import resample_sums
from spacy_bert_heads.evaluation.category_scores import ExclusiveScorer, MultilabelScorer, NumberScorer
from spacy_bert_heads.evaluation.compare import compare, paired_test
from spacy_bert_heads.evaluation.compare_report import to_dict, to_html, to_markdown, to_text
from spacy_bert_heads.evaluation.entity_scores import EntityScorer
from spacy_bert_heads.evaluation.evaluate import Evaluation, evaluate_examples
from spacy_bert_heads.evaluation.report import to_json, write_report
from spacy_bert_heads.evaluation.saved_reports import SavedReport, parse_report

from .perturb import make_example, make_gold_ents, perturb_cats, perturb_ents

LABELS, CATS, TOPICS = ("ORG", "PER", "LOC"), ("news", "sport", "<b>x"), ("x", "y")


def make_examples(n: int, seed: int, *, gold_seed: int = 0, labels: Sequence[str] = LABELS) -> List[Example]:
    """Texts and gold annotation by one seed, predictions by another."""
    truth, chooser, random_state = random.Random(gold_seed), random.Random(seed), numpy.random.RandomState(seed)
    examples = []
    for number in range(n):
        words = [f"w{truth.randint(0, 99)}" for _ in range(truth.randint(1, 9))] + [str(number)]
        gold = make_gold_ents(truth, len(words), LABELS)
        cat, topics, value = (
            truth.choice(CATS),
            {topic: float(truth.random() < 0.5) for topic in TOPICS},
            truth.random(),
        )
        near = {topic: (true + random_state.rand()) / 2 for topic, true in topics.items()}
        predicted = perturb_ents(chooser, gold, len(words), labels)
        examples.append(
            make_example(
                words,
                gold,
                predicted,
                gold_cats={**{name: float(name == cat) for name in CATS}, **topics, "size": value},
                cats={**perturb_cats(CATS, cat, random_state), **near, "size": value + random_state.normal(0, 0.3)},
            )
        )
    return examples


def evaluate(
    monkeypatch: pytest.MonkeyPatch, examples: List[Example], *, labels: Sequence[str] = LABELS, heads: Any = None
) -> Evaluation:
    heads = (
        heads
        if heads is not None
        else [
            ExclusiveScorer("cat", CATS),
            MultilabelScorer("topics", TOPICS, 0.5),
            NumberScorer("reg", ["size"]),
        ]
    )
    monkeypatch.setattr(evaluation_module, "_find_entity_scorer", lambda nlp: EntityScorer("ner", labels))
    monkeypatch.setattr(evaluation_module, "_find_category_scorers", lambda nlp, gold: heads)
    evaluation = evaluate_examples(spacy.blank("en"), examples)
    evaluation.corpus = "test.spacy"
    return evaluation


def read(evaluation: Evaluation, name: str = "report.json") -> SavedReport:
    """By way of the file."""
    return parse_report(json.loads(to_json(evaluation)), name)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> List[Evaluation]:
    return [evaluate(monkeypatch, make_examples(50, seed)) for seed in (1, 2)]


def test_the_paired_test_is_that_of_the_paper_on_both_sides() -> None:
    random_state = numpy.random.RandomState(0)
    one, other = random_state.rand(40) < 0.5, random_state.rand(40) < 0.65
    observed = other.mean() - one.mean()
    draws = resample_sums(other.astype(float), 500, 3) / 40 - resample_sums(one.astype(float), 500, 3) / 40
    found = paired_test(observed, draws)
    beyond = 0
    for row in numpy.random.default_rng(3).integers(0, 40, size=(500, 40)):
        difference = other[row].mean() - one[row].mean()
        # Berg-Kirkpatrick et al. count differences above twice the observed one
        beyond += difference >= 2 * observed - 1e-9 or difference <= 1e-9
    assert found.value == observed > 0 and found.p_value == pytest.approx((beyond + 1) / 501)
    low, high = numpy.percentile(draws, (2.5, 97.5))
    assert found.interval == pytest.approx((low, high))


def test_chance_is_called_a_difference_as_often_as_the_p_value_says() -> None:
    random_state = numpy.random.RandomState(0)
    called = 0
    for trial in range(200):
        one, other = (random_state.rand(2, 120) < 0.6).astype(float)
        draws = (resample_sums(other, 300, trial) - resample_sums(one, 300, trial)) / 120
        called += paired_test(float(other.mean() - one.mean()), draws).p_value < 0.1
    assert 8 <= called <= 36


def test_scores_are_those_of_the_reports(pair: List[Evaluation]) -> None:
    comparison = compare([read(one) for one in pair])
    assert comparison.notes == [] and comparison.n_texts == 50
    found = {(row.head, row.name): row for row in [*comparison.scores, *comparison.labels]}
    for i, evaluation in enumerate(pair):
        cat, topics, numbers = evaluation.categories
        ents = evaluation.entities
        assert ents is not None
        expected = {
            ("ner", "F1"): ents["micro"]["f1"],
            ("ner", "precision"): ents["micro"]["precision"],
            ("ner", "recall"): ents["micro"]["recall"],
            ("ner", "macro F1"): ents["macro"]["f1"],
            ("cat", "accuracy"): cat["accuracy"],
            ("cat", "macro F1"): cat["macro"]["f1"],
            ("topics", "micro F1"): topics["micro"]["f1"],
            ("topics", "all categories right"): topics["accuracy"],
            ("reg", "size, Pearson"): numbers["per_label"]["size"]["pearson"],
            ("reg", "size, RMSE"): numbers["per_label"]["size"]["rmse"],
            ("whole texts", "everything right"): evaluation.texts["accuracy"],
        }
        for label in LABELS:
            expected["ner", label] = ents["per_label"][label]["f1"]
        for key, value in expected.items():
            assert found[key].values[i] == pytest.approx(value), key
    for row in found.values():
        difference = row.differences[1]
        assert difference is not None and difference.interval is not None
        assert difference.value == pytest.approx(row.values[1] - row.values[0])  # type: ignore[operator]
        assert difference.interval[0] <= difference.interval[1] and 0 < difference.p_value <= 1


def test_texts_mended_and_broken_are_counted_one_by_one(pair: List[Evaluation]) -> None:
    comparison = compare([read(one) for one in pair])
    changes = comparison.changes[1]
    assert comparison.changes[0] is None and changes is not None
    mended, broken = [], []
    for number, (one, other) in enumerate(zip(*(evaluation.records for evaluation in pair)), 1):
        wrong = []
        for record in (one, other):
            gold, predicted = ({tuple(span[:3]) for span in side} for side in record["ents"])
            cats = [sorted(side) for side in record["cats"]["topics"]]
            wrong.append(gold != predicted or cats[0] != cats[1] or len(set(record["cats"]["cat"])) > 1)
        if wrong == [True, False]:
            mended.append(number)
        elif wrong == [False, True]:
            broken.append(number)
    assert [text.number for text in changes.mended] == mended and [text.number for text in changes.broken] == broken
    assert mended and broken
    assert changes.n_right + changes.n_wrong + len(mended) + len(broken) == 50
    data = to_dict(comparison)
    assert data["changes"][1]["mended_texts"] == mended and json.loads(srsly.json_dumps(data))["texts"] == 50


def test_a_report_beside_itself_differs_in_nothing(pair: List[Evaluation]) -> None:
    comparison = compare([read(pair[0])] * 3)
    for row in [*comparison.scores, *comparison.labels]:
        for found in row.differences[1:]:
            assert found is not None and found.value == 0 and found.p_value == 1.0
    assert all(changes.mended == changes.broken == [] for changes in comparison.changes[1:])  # type: ignore[union-attr]


def test_other_labels_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    one = evaluate(monkeypatch, make_examples(60, 1))
    other = evaluate(monkeypatch, make_examples(60, 2, labels=("ORG", "PER", "NEW")), labels=("ORG", "PER", "NEW"))
    comparison = compare([read(one), read(other)])
    assert any("B does not know these labels of 'ner', which are left out: LOC" in note for note in comparison.notes)
    assert any("A does not know these labels of 'ner', which are left out: NEW" in note for note in comparison.notes)
    row = next(row for row in comparison.scores if row.name == "F1" and row.head == "ner")
    for value, evaluation in zip(row.values, (one, other)):
        counts = numpy.zeros(3)
        for record in evaluation.records:
            gold, predicted = (
                {tuple(span[:3]) for span in side if span[2] in ("ORG", "PER")} for side in record["ents"]
            )
            counts += len(gold & predicted), len(predicted), len(gold)
        assert value == pytest.approx(2 * counts[0] / (counts[1] + counts[2]))
    assert {row.name for row in comparison.labels if row.head == "ner"} == {"ORG", "PER"}


def test_other_corpora_are_compared_on_common_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, others = make_examples(60, 1), make_examples(60, 2)
    one, other = evaluate(monkeypatch, examples), evaluate(monkeypatch, [*others[20:], *others[20:25]])
    comparison = compare([read(one), read(other)])
    assert comparison.n_texts == 40
    assert any("A has 60 texts (test.spacy), B has 45 texts" in note for note in comparison.notes)
    part = evaluate(monkeypatch, examples[20:])
    assert part.entities is not None
    assert comparison.scores[0].values[0] == pytest.approx(part.entities["micro"]["f1"])
    with pytest.raises(BertHeadsError, match="H625"):
        compare([read(one), read(evaluate(monkeypatch, make_examples(9, 1, gold_seed=5)))])


def test_other_gold_heads_and_texts_without_gold_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = make_examples(30, 2)
    for eg in examples[:3]:
        eg.reference.cats = {name: float(name == "news") for name in CATS}
    one = evaluate(monkeypatch, make_examples(30, 1))
    other = evaluate(monkeypatch, examples, heads=[ExclusiveScorer("intent", CATS)])
    comparison = compare([read(one), read(other)])
    text = "\n".join(comparison.notes)
    assert "B has no head like 'topics' (multilabel)" in text and "B has no head like 'reg' (numbers)" in text
    assert "texts have another gold annotation in B than in A" in text
    assert {row.head for row in comparison.scores} == {"ner", "cat", "whole texts"}
    nothing = evaluate(monkeypatch, make_examples(30, 1), heads=[])
    nothing.entities = None
    comparison = compare([read(nothing), read(nothing)])
    assert "no head in common" in comparison.notes[0] and comparison.scores == []
    assert "Nothing could be compared" in to_html(comparison) and to_text(comparison) and to_markdown(comparison)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: List[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names.append(tag)


def test_nothing_of_a_report_becomes_markup(pair: List[Evaluation]) -> None:
    evil = "</script><img src=x>\x1b[31m|"
    for evaluation in pair:
        evaluation.model = evaluation.corpus = evil
        for record in evaluation.records:
            record["text"] = evil
    comparison = compare([read(one, evil) for one in pair])
    page, markdown, text = to_html(comparison), to_markdown(comparison), to_text(comparison)
    tags = Tags()
    tags.feed(page)
    assert "img" not in tags.names and "b" in tags.names and tags.names.count("script") == 1
    assert "http" not in page and "\x1b" not in text and "\x1b" not in markdown and "<img" not in markdown


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


@pytest.fixture
def folder(pair: List[Evaluation], tmp_path: Path) -> Path:
    write_report(pair[0], tmp_path / "a")
    write_report(pair[1], tmp_path / "b.json")
    return tmp_path


def test_reports_are_compared_as_files_and_folders(folder: Path) -> None:
    result = run(folder / "a", folder / "b.json", folder / "a" / "report.json", "-o", folder / "out")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["compare.html", "compare.json", "compare.md"]
    assert len(srsly.read_json(folder / "out" / "compare.json")["systems"]) == 3
    assert "Texts broken in B" in result.output
    again = run(folder / "a", folder / "b.json", "-o", folder / "out")
    assert again.exit_code == 0, again.output


def test_mistakes_are_named(folder: Path) -> None:
    (folder / "old.json").write_text('{"docs": 1, "model": "m"}')
    (folder / "other.json").write_text('{"x": 1}')
    (folder / "broken.json").write_text('{"docs": ')
    (folder / "corpus.jsonl").write_text('{"text": "a"}\n')
    for arguments, code in (
        ((), "H622"),
        (("a",), "H622"),
        (("a", "gone.json"), "H101"),
        (("a", "old.json"), "H624"),
        (("other.json", "a"), "H623"),
        (("broken.json", "a", "b.json"), "H623"),
        (("a", "b.json", "corpus.jsonl"), "H621"),
        (("a", "b.json", "-o", "b.json"), "H123"),
    ):
        result = run(*(folder / one if one[0] != "-" else one for one in arguments))
        assert result.exit_code == 1 and f"[{code}]" in result.output, (arguments, result.output)


def test_mutated_reports_are_refused_or_compared(pair: List[Evaluation]) -> None:
    chooser = random.Random(0)
    values: List[Any] = [None, 1, -1, "x", [], {}, [[]], True, 1e400, {"kind": "x"}]

    def mutate(value: Any) -> Any:
        if isinstance(value, dict) and value:
            key = chooser.choice(list(value))
            return {**value, key: mutate(value[key]) if chooser.random() < 0.8 else chooser.choice(values)}
        if isinstance(value, list) and value:
            i = chooser.randrange(len(value))
            return [
                *value[:i],
                mutate(value[i]) if chooser.random() < 0.8 else chooser.choice(values),
                *value[i + 1 :],
            ]
        return chooser.choice(values)

    content = json.loads(to_json(pair[0]))
    content["records"] = content["records"][:3]
    good = parse_report(content, "a")
    refused = 0
    for _ in range(300):
        mutated: Dict[str, Any] = content
        for _ in range(3):
            mutated = mutate(mutated)
            if not isinstance(mutated, dict):
                break
        try:
            comparison = compare([good, parse_report(mutated, "b")])
        except BertHeadsError:
            refused += 1
        else:
            to_text(comparison)
    assert refused > 20
