"""A loop with few texts and no dev split: each text is predicted by a pipeline that learned from others."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List

import numpy
import pytest
import spacy
from sklearn.metrics import roc_auc_score
from spacy.cli.train import train
from spacy.tokens import Doc, DocBin
from spacy.util import load_config
from thinc.api import Config

from spacy_bert_heads.annotation import cross_validation, folds, loop, progress
from spacy_bert_heads.annotation.curve import draw_rounds, render_rounds
from spacy_bert_heads.annotation.folds import assign_folds
from spacy_bert_heads.annotation.loop import run_loop
from spacy_bert_heads.annotation.rounds import LoopSettings
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.training.fit_config import fit_config

from ..corpus.helpers import load_docs
from . import test_loop
from .test_loop import Killed, answer, call, make_docs, read_texts

material = test_loop.material


@pytest.fixture(scope="module")
def settings(material: LoopSettings, tmp_path_factory: pytest.TempPathFactory) -> LoopSettings:
    """A base of 14 texts and nothing else. Some are annotated otherwise, so that not all is predicted right."""
    base = tmp_path_factory.mktemp("base") / "base.spacy"
    docs = make_docs()[::3][:14]
    for doc in docs[::4]:
        doc.set_ents([], default="outside")
        doc.cats = {label: 1 - value for label, value in doc.cats.items()}
    DocBin(docs=docs).to_disk(base)
    return replace(material, bases=(base,), dev=None, test=None, epochs=12)


@pytest.fixture(scope="module")
def begun(settings: LoopSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun") / "loop"
    call(folder, settings)
    return folder


def read_predicted(folder: Path) -> List[Doc]:
    vocab = spacy.blank("en").vocab
    paths = [folder / f"fold-{number}.spacy" for number in (1, 2, 3)]
    return [doc for path in paths for doc in DocBin(store_user_data=True).from_disk(path).get_docs(vocab)]


def find_entities(doc: Doc) -> set:
    return {(doc.text, ent.start, ent.end, ent.label_) for ent in doc.ents}


def test_each_text_is_predicted_by_a_pipeline_trained_on_the_other_folds(
    begun: Path, settings: LoopSettings, tmp_path: Path
) -> None:
    """The second fold by spaCy's own training, on what is not in it."""
    first = begun / "round-00"
    docs = load_docs(first / "corpus" / "train.spacy")
    assert len(docs) == 14 and not (first / "corpus" / "dev.spacy").exists()
    numbers = assign_folds(docs, 3, 0)
    assert sorted(numpy.bincount(numbers)) == [4, 5, 5]
    predicted = {doc.text: doc for doc in read_predicted(first / "folds")}
    assert predicted.keys() == {doc.text for doc in docs}
    left = sorted(path.name for path in (first / "folds").iterdir())
    assert left == ["config.cfg", *(f"fold-{number}.spacy" for number in (1, 2, 3))]
    held_out = [doc for doc, number in zip(docs, numbers) if number == 1]
    DocBin(docs=[doc for doc, number in zip(docs, numbers) if number != 1]).to_disk(tmp_path / "train.spacy")
    DocBin(docs=held_out).to_disk(tmp_path / "dev.spacy")
    config = Config().from_disk(settings.config, interpolate=False)
    labels = {"bert_textcat": ["CANCEL", "TRACK"], "bert_ner": ["CITY", "PERSON"]}
    config["initialize"]["components"] = {name: {"labels": known} for name, known in labels.items()}
    config.to_disk(tmp_path / "begin.cfg")
    fit_config(
        tmp_path / "begin.cfg",
        tmp_path / "config.cfg",
        train=tmp_path / "train.spacy",
        dev=tmp_path / "dev.spacy",
        encoder=None,
        epochs=12,
        seed=None,
        evaluations=1,
    )
    train(tmp_path / "config.cfg", tmp_path / "training")
    nlp = spacy.load(tmp_path / "training" / "model-last")
    for doc in held_out:
        expected = nlp(doc.text)
        assert predicted[doc.text].cats == pytest.approx(expected.cats, abs=1e-4)
        assert find_entities(predicted[doc.text]) == find_entities(expected)
        assert predicted[doc.text]._.ents_confidence == pytest.approx(expected._.ents_confidence, abs=1e-4)


def test_scores_interval_and_trust_are_those_of_all_these_predictions(begun: Path, settings: LoopSettings) -> None:
    first = begun / "round-00"
    predicted = read_predicted(first / "folds")
    gold = {doc.text: doc for doc in load_docs(first / "corpus" / "train.spacy")}
    found = [find_entities(doc) for doc in predicted]
    true = [find_entities(gold[doc.text]) for doc in predicted]
    right_cats = [gold[doc.text].cats[max(doc.cats.items(), key=lambda item: item[1])[0]] == 1.0 for doc in predicted]
    n_both = sum(len(a & b) for a, b in zip(found, true))
    ents_f = 2 * n_both / (sum(map(len, found)) + sum(map(len, true)))
    metrics = json.loads((first / "metrics.json").read_text(encoding="utf8"))
    assert metrics["ents_f"] == pytest.approx(ents_f) and 0.0 < ents_f < 1.0
    assert metrics["cats_acc"] == pytest.approx(numpy.mean(right_cats))
    (row,) = json.loads((begun / "rounds.json").read_text(encoding="utf8"))
    assert row["score"] == pytest.approx(0.25 * numpy.mean(right_cats) + 0.75 * ents_f)
    assert (row["texts"], row["scored"], row["cross_validated"]) == (14, 14, True)
    right = numpy.array([a == b and c for a, b, c in zip(found, true, right_cats)], dtype=float)
    assert metrics["texts"]["accuracy"] == pytest.approx(right.mean())
    drawn = numpy.random.default_rng(1).choice(right, size=(4000, 14)).mean(axis=1)
    assert metrics["texts"]["accuracy_interval"] == pytest.approx(numpy.percentile(drawn, (2.5, 97.5)), abs=0.08)
    said: List[str] = []
    run_loop(begun, settings, say=said.append)
    assert any(
        "Only 14 texts are scored, each by one of 3 pipelines that did not learn from it" in one for one in said
    )
    trust = cross_validation.read_trust(first / "folds")
    assert (trust.n_texts, trust.n_wrong) == (14, 14 - right.sum())
    doubts: List[Any] = [doc.user_data["doubt"] for doc in predicted]
    assert trust.auc == pytest.approx(roc_auc_score(right == 0, doubts))
    # It chose the tasks
    tasks = (begun / "round-01" / "tasks.jsonl").read_text(encoding="utf8").splitlines()
    ways = [json.loads(line)["meta"]["strategy"] for line in tasks]
    assert ways.count("typical") == round(10 * trust.typical_share)


def test_the_pipeline_is_that_of_the_last_step_and_claims_no_scores(begun: Path) -> None:
    model = begun / "round-00" / "model"
    best, last = (spacy.load(model / name) for name in ("model-best", "model-last"))
    for doc in make_docs()[:20]:
        assert best(doc.text).cats == last(doc.text).cats
        assert best(doc.text)._.ents_confidence == last(doc.text)._.ents_confidence
    assert best.meta["performance"] == {} and last.meta["performance"]


@pytest.mark.slow
def test_killed_between_two_folds_it_goes_on_with_the_second(
    begun: Path, settings: LoopSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_fold = folds.train_fold
    trained: List[int] = []

    def stop(docs: Any, numbers: Any, fold: int, *args: Any) -> Any:
        trained.append(fold)
        if trained == [0, 1]:
            raise Killed
        return train_fold(docs, numbers, fold, *args)

    monkeypatch.setattr(folds, "train_fold", stop)
    with pytest.raises(Killed):
        call(tmp_path / "loop", settings)
    call(tmp_path / "loop", settings)
    assert trained == [0, 1, 1, 2]
    for name in ("rounds.json", "round-01/tasks.jsonl"):
        assert (tmp_path / "loop" / name).read_bytes() == (begun / name).read_bytes()


def test_with_more_texts_a_fifth_is_set_aside_and_the_change_is_seen(
    begun: Path, settings: LoopSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "loop"
    shutil.copytree(begun, folder)
    first = folder / "round-01"
    answer(first / "tasks.jsonl", first / "answers.jsonl")
    forecasts: List[Any] = []
    monkeypatch.setattr(loop, "FEW_TEXTS", 24)
    monkeypatch.setattr(progress, "forecast", lambda texts, *others: forecasts.append(texts))
    said: List[str] = []
    run_loop(folder, replace(settings, epochs=1), say=said.append)
    learned, dev = (load_docs(first / "corpus" / f"{name}.spacy") for name in ("train", "dev"))
    assert len(learned) + len(dev) == 24 and dev and not (first / "folds").exists()
    assert any(f"Of 24 texts, {len(dev)} are set aside as dev from now on" in one for one in said)
    # The pipeline before had learned from what is dev now
    assert "source" not in (first / "config.cfg").read_text(encoding="utf8")
    assert Path(load_config(first / "config.cfg")["paths"]["dev"]) == first / "corpus" / "dev.spacy"
    rows = json.loads((folder / "rounds.json").read_text(encoding="utf8"))
    assert [(row["cross_validated"], row["scored"]) for row in rows] == [(True, 14), (False, len(dev))]
    assert forecasts == [[len(learned)]]
    asked = read_texts(folder / "round-02" / "tasks.jsonl")
    assert not {*asked} & {doc.text for doc in learned + dev}
    # From there on as with a dev split that was given
    second = folder / "round-02"
    answer(second / "tasks.jsonl", second / "answers.jsonl")
    call(folder, replace(settings, epochs=1))
    assert "source" in (second / "config.cfg").read_text(encoding="utf8")
    assert {doc.text for doc in load_docs(second / "corpus" / "train.spacy")} == {*asked, *(d.text for d in learned)}
    assert Path(load_config(second / "config.cfg")["paths"]["dev"]) == first / "corpus" / "dev.spacy"
    assert not (second / "corpus" / "dev.spacy").exists()


def test_the_dev_split_in_a_folder_of_base_is_used(settings: LoopSettings, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    shutil.copy(settings.bases[0], corpus / "train.spacy")
    assert settings.dev is None
    texts = {doc.text for doc in load_docs(settings.bases[0])}
    DocBin(docs=[doc for doc in make_docs() if doc.text not in texts][:6]).to_disk(corpus / "dev.spacy")
    call(tmp_path / "loop", replace(settings, bases=(corpus,), epochs=1))
    (row,) = json.loads((tmp_path / "loop" / "rounds.json").read_text(encoding="utf8"))
    assert (row["texts"], row["scored"], row["cross_validated"]) == (14, 6, False)


def test_a_label_that_one_text_has_is_known_in_each_fold(settings: LoopSettings, tmp_path: Path) -> None:
    """Without it, the pipeline that does not learn from that text would have one category, and no entity."""
    docs = make_docs()[:6]
    for doc in docs[1:]:
        doc.set_ents([], default="outside")
        doc.cats = {"TRACK": 0.0, "CANCEL": 1.0}
    DocBin(docs=docs).to_disk(tmp_path / "base.spacy")
    call(tmp_path / "loop", replace(settings, bases=(tmp_path / "base.spacy",), epochs=1))
    predicted = read_predicted(tmp_path / "loop" / "round-00" / "folds")
    assert len(predicted) == 6 and all(doc.cats.keys() == {"TRACK", "CANCEL"} for doc in predicted)


def test_too_few_texts_for_the_folds_are_an_error_until_there_are_more(settings: LoopSettings, tmp_path: Path) -> None:
    base = tmp_path / "base.spacy"
    DocBin(docs=make_docs()[:2]).to_disk(base)
    for _ in range(2):
        with pytest.raises(BertHeadsError, match="H755"):
            call(tmp_path / "loop", replace(settings, bases=(base,)))


def test_table_and_picture_tell_the_two_kinds_of_scores_apart(tmp_path: Path) -> None:
    row: Dict[str, Any] = {"round": 1, "texts": 200, "tokens": 900, "scores": {"cats_acc": 0.5}, "score": 0.5}
    rows = [{**row, "cross_validated": True}, {**row, "round": 2, "texts": 250, "cross_validated": False}]
    table = render_rounds(rows)
    assert "50.0*" in table and "* cross-validated" in table and table.count("*") == 2
    assert "*" not in render_rounds(rows[1:])
    pytest.importorskip("matplotlib")
    draw_rounds(rows, tmp_path / "rounds.png")
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")
