"""The hand-over from typical texts to doubts: against scikit-learn, against draws, and in the files of `suggest`."""

import json
import random
from pathlib import Path
from typing import Any, Dict, List

import numpy
import pytest
import spacy
from sklearn.metrics import average_precision_score, roc_auc_score
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from typer.testing import CliRunner

from spacy_bert_heads.annotation import suggest as module
from spacy_bert_heads.annotation.handover import Trust, lower_auc, measure_trust, rate_doubts
from spacy_bert_heads.annotation.strategies import Scorer
from spacy_bert_heads.annotation.suggest import make_view_scorer, suggest
from spacy_bert_heads.cli.app import app

from ..corpus.helpers import write_jsonl
from ..making import make_nlp, make_texts

TEXTS = list(dict.fromkeys(make_texts(300, longest=8)))
DEV, RAW = TEXTS[:60], TEXTS[60:]
HEADS = ("bert_textcat", "bert_ner")


@pytest.mark.parametrize("seed", range(5))
def test_area_and_precision_are_those_of_scikit_learn_with_ties_too(seed: int) -> None:
    chooser = numpy.random.default_rng(seed)
    wrong, doubts = chooser.random(80) < 0.3, chooser.integers(0, 9, 80) / 8
    trust = rate_doubts(wrong.tolist(), doubts.tolist())
    assert trust.auc == pytest.approx(roc_auc_score(wrong, doubts))
    assert trust.precision == pytest.approx(average_precision_score(wrong, doubts))
    assert (trust.n_texts, trust.n_wrong) == (80, wrong.sum())


@pytest.mark.parametrize("distance", [0.0, 0.7, 1.5])
def test_the_lower_end_is_where_one_area_in_a_hundred_is_below(distance: float) -> None:
    chooser = numpy.random.default_rng(0)
    true = numpy.repeat([True, False], [40, 120])
    drawn = [roc_auc_score(true, chooser.normal(size=160) + distance * true) for _ in range(2000)]
    mean = float(numpy.mean(drawn))
    assert lower_auc(mean, 40, 120) == pytest.approx(numpy.quantile(drawn, 0.01), abs=0.03)


def test_few_texts_make_nobody_sure() -> None:
    assert lower_auc(1.0, 1, 3) < 0.5 < lower_auc(1.0, 10, 30) < lower_auc(1.0, 100, 300) < 1.0
    assert lower_auc(1.0, 1, 1) < 0.5 and lower_auc(0.0, 1, 1) < 0.5


def test_who_is_wrong_at_random_is_not_asked_and_who_knows_where_is() -> None:
    chooser = random.Random(0)
    doubts = [chooser.random() for _ in range(400)]
    at_random = rate_doubts([chooser.random() < 0.4 for _ in doubts], doubts)
    assert at_random.typical_share == 1.0
    wrong_way = rate_doubts([doubt < 0.3 for doubt in doubts], doubts)
    assert wrong_way.typical_share == 1.0
    good = rate_doubts([doubt + chooser.gauss(0, 0.1) > 0.8 for doubt in doubts], doubts)
    assert 0.2 < good.typical_share < 0.3
    assert rate_doubts([True] * 9, [0.5] * 9).typical_share == 1.0
    assert rate_doubts([True, *[False] * 9], [0.5] * 10).typical_share == 1.0
    assert rate_doubts([False] * 9, doubts[:9]).typical_share == rate_doubts([], []).typical_share == 0.5
    for trust in (at_random, good, Trust(), Trust(9, 9, None, 1.0), Trust(9, 0)):
        assert trust.to_text()


def test_of_mistakes_that_are_everywhere_doubts_find_hardly_more_and_of_rare_ones_many() -> None:
    """Perfect doubts, so that the share is that of texts with a mistake."""
    for n_wrong in (90, 40, 5):
        trust = rate_doubts([number < n_wrong for number in range(100)], [-number for number in range(100)])
        assert trust.typical_share == pytest.approx(n_wrong / 100)


@pytest.fixture(scope="module")
def model(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    nlp = make_nlp(bert_folder, HEADS, settings={"transformer": {"keep_outputs": False}})
    nlp.add_pipe("doc_cleaner", config={"attrs": {"_.trf_data": None}})
    nlp.to_disk(folder)
    return str(folder)


def write_dev(nlp: Language, scorer: Scorer, path: Path, kind: str) -> List[bool]:
    """Dev texts in which the pipeline is wrong where it is unsure ("good"), where it is sure ("bad"), or everywhere.

    RETURNS (List[bool]): Whether it is wrong in each.
    """
    scored = list(scorer.pipe(DEV))
    middle = float(numpy.median([score for _, score in scored]))
    docs, wrong = [], []
    for predicted, score in scored:
        doc = Doc(nlp.vocab, words=[t.text for t in predicted], spaces=[bool(t.whitespace_) for t in predicted])
        doc.set_ents([Span(doc, ent.start, ent.end, ent.label_) for ent in predicted.ents], default="outside")
        best = max(predicted.cats, key=lambda label: predicted.cats[label])
        is_wrong = {"good": score > middle, "bad": score <= middle, "all": True}[kind]
        doc.cats = {label: float((label == best) != is_wrong) for label in predicted.cats}
        docs.append(doc)
        wrong.append(is_wrong)
    DocBin(docs=docs).to_disk(path)
    return wrong


def read_tasks(path: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


@pytest.mark.parametrize("kind, share", [("good", "half"), ("bad", "all"), ("all", "all")])
def test_the_share_of_typical_texts_is_by_the_mistakes_in_dev(
    model: str, kind: str, share: str, tmp_path: Path
) -> None:
    nlp = spacy.load(model)
    scorer = make_view_scorer(nlp, "blocks", None)
    wrong = write_dev(nlp, scorer, tmp_path / "dev.spacy", kind)
    trust = measure_trust(scorer, tmp_path / "dev.spacy", HEADS)
    assert (trust.n_texts, trust.n_wrong) == (len(DEV), sum(wrong))
    if kind != "all":
        doubts = [score for _, score in scorer.pipe(DEV)]
        assert trust.auc == pytest.approx(roc_auc_score(wrong, doubts))
        assert trust.precision == pytest.approx(average_precision_score(wrong, doubts))
    # Of a head about which nothing is wrong nothing is known
    assert measure_trust(scorer, tmp_path / "dev.spacy", ["bert_ner"]).n_wrong == 0
    raw, output = tmp_path / "raw.jsonl", tmp_path / "tasks.jsonl"
    write_jsonl(raw, *({"text": text} for text in [*RAW, *DEV]))
    report = suggest(model, raw, output, limit=20, dev=tmp_path / "dev.spacy")
    tasks = read_tasks(output)
    ways = [task["meta"]["strategy"] for task in tasks]
    assert report.n_typical == ways.count("typical") == round(20 * trust.typical_share)
    assert report.n_typical == {"all": 20, "half": 10}[share]
    assert set(ways) <= {"typical", "joint"} and len(ways) == 20
    assert not {task["text"] for task in tasks} & set(DEV) and report.n_excluded == len(DEV)
    # The others are the first by their scores, but for the typical ones
    typical = {task["text"] for task in tasks if task["meta"]["strategy"] == "typical"}
    scored = sorted(((-score, n, doc.text) for n, (doc, score) in enumerate(scorer.pipe(RAW))))
    rest = [text for _, _, text in scored if text not in typical]
    assert [task["text"] for task in tasks if task["meta"]["strategy"] == "joint"] == rest[: 20 - len(typical)]
    assert f"Of them {report.n_typical} as typical texts: " in report.to_text()
    before = output.read_bytes()
    suggest(model, raw, output, limit=20, dev=tmp_path / "dev.spacy")
    assert output.read_bytes() == before


def test_typical_texts_are_not_those_of_clusters_that_are_annotated(model: str, tmp_path: Path) -> None:
    """All the vectors, all the clusters, by hand."""
    from spacy_bert_heads.annotation.selection import choose_typical
    from spacy_bert_heads.annotation.vectors import annotate_vectors, get_vector

    nlp = spacy.load(model)
    write_dev(nlp, make_view_scorer(nlp, "blocks", None), tmp_path / "dev.spacy", "all")
    raw, done = tmp_path / "raw.jsonl", tmp_path / "done.jsonl"
    write_jsonl(raw, *({"text": text} for text in RAW))
    write_jsonl(done, *({"text": text, "answer": "accept"} for text in RAW[:30]))
    suggest(model, raw, tmp_path / "tasks.jsonl", limit=10, exclude=[done], dev=tmp_path / "dev.spacy")
    annotate_vectors(nlp)
    vectors = numpy.stack([get_vector(nlp(text)) for text in RAW])
    expected = choose_typical(vectors[30:], 10, 0, vectors[:30])
    assert [task["text"] for task in read_tasks(tmp_path / "tasks.jsonl")] == [RAW[30 + row] for row in expected]


def test_half_are_typical_if_nobody_knows_and_none_where_they_cannot_be(
    model: str, bert_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, output = tmp_path / "raw.jsonl", tmp_path / "tasks.jsonl"
    write_jsonl(raw, *({"text": text} for text in RAW))
    assert suggest(model, raw, output, limit=9).n_typical == 4
    assert suggest(model, raw, output, limit=1000).n_texts == len(RAW)
    for settings in ({"strategy": "joint", "limit": 9}, {"strategy": "random", "limit": 9}, {}):
        report = suggest(model, raw, output, **settings)  # type: ignore[arg-type]
        assert report.n_typical == 0 and report.trust is None and "typical" not in report.to_text()
    assert suggest(model, raw, output, view="classification", limit=9).trust is None
    monkeypatch.setattr(module, "can_cluster", lambda: False)
    report = suggest(model, raw, output, limit=9)
    assert report.trust is None and "`diverse`" in report.to_text()
    monkeypatch.undo()
    nlp = make_nlp(bert_folder, ("bert_ner",))  # no text head
    nlp.to_disk(tmp_path / "ner")
    report = suggest(str(tmp_path / "ner"), raw, output, limit=9)
    assert (report.strategy, report.n_typical) == ("mnlp", 4)
    assert all(task["meta"]["strategy"] in ("mnlp", "typical") for task in read_tasks(output))


def test_an_empty_dev_says_nothing(model: str, tmp_path: Path) -> None:
    nlp = spacy.load(model)
    raw, dev = tmp_path / "raw.jsonl", tmp_path / "dev.spacy"
    write_jsonl(raw, *({"text": text} for text in RAW[:20]))
    DocBin(docs=[nlp.make_doc("anna")]).to_disk(dev)  # nothing is annotated there
    assert measure_trust(make_view_scorer(nlp, "blocks", None), dev, HEADS).n_texts == 0
    options = ["suggest", model, str(raw), str(tmp_path / "tasks.jsonl"), "--limit", "6", "--dev", str(dev)]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert "Of them 3 as typical texts" in result.output
