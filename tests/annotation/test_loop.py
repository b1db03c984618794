"""The loop: what its folder holds after each call, and the same after any interruption."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Corpus
from spacy.util import load_config
from thinc.api import Config
from typer.testing import CliRunner

from spacy_bert_heads.annotation import progress
from spacy_bert_heads.annotation.heads import Head, Heads
from spacy_bert_heads.annotation.loop import run_loop
from spacy_bert_heads.annotation.merge import merge
from spacy_bert_heads.annotation.rounds import LoopSettings
from spacy_bert_heads.annotation.suggest import suggest
from spacy_bert_heads.annotation.tasks import default_view
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.project.configs import MOST_EPOCHS
from spacy_bert_heads.training import loop as training_loop

from ..corpus.helpers import ALL_TRAIN, load_docs
from ..making import make_nlp, make_scratch_config

PEOPLE, CITIES = ("anna", "smith", "bob", "kim"), ("london", "york", "paris", "rome")
VERBS = {"TRACK": ("track", "follow"), "CANCEL": ("cancel", "stop")}


class Killed(BaseException):
    """Ends a training as abruptly as an exception can."""


def make_docs() -> List[Doc]:
    nlp, docs = spacy.blank("en"), []
    for city in CITIES:
        for person in PEOPLE:
            for label, verbs in VERBS.items():
                for verb in verbs:
                    doc = nlp(f"{verb} order of {person} in {city}")
                    doc.set_ents([Span(doc, 3, 4, "PERSON"), Span(doc, 5, 6, "CITY")], default="outside")
                    doc.cats = {name: float(name == label) for name in VERBS}
                    docs.append(doc)
    return docs


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> LoopSettings:
    """A config, and files of which no two share a text, but that the raw texts are all there are."""
    folder = tmp_path_factory.mktemp("material")
    docs = make_docs()
    for name, part in (("base", docs[::8]), ("dev", docs[1::8]), ("test", docs[2::8])):
        DocBin(docs=part).to_disk(folder / f"{name}.spacy")
    raw = "".join(json.dumps({"text": doc.text, "id": number}) + "\n" for number, doc in enumerate(docs))
    (folder / "raw.jsonl").write_text(raw, encoding="utf8")
    nlp = make_nlp(encoder=make_scratch_config(), heads=("bert_textcat", "bert_ner"), initialize=False)
    config = nlp.config.copy()
    config["paths"] = {"train": None, "dev": None, "vectors": None, "init_tok2vec": None}
    optimizer = {"@optimizers": "spacy_bert_heads.AdamW.v1", "learn_rate": 0.003, "total_steps": None}
    weights = {"cats_acc": 0.25, "ents_f": 0.75, "ents_p": None}
    config["training"].update(max_epochs=3, dropout=0.0, optimizer=optimizer, score_weights=weights)
    config["training"]["batcher"] = {"@batchers": "spacy.batch_by_sequence.v1", "size": 4}
    Config(config).to_disk(folder / "config.cfg")
    names = {name: folder / f"{name}.spacy" for name in ("dev", "test")}
    base = (folder / "base.spacy",)
    return LoopSettings(folder / "config.cfg", folder / "raw.jsonl", **names, bases=base, limit=10)


def answer(tasks: Path, path: Path, change: Callable[[Dict[str, Any]], Any] = lambda task: None) -> None:
    """What somebody who knows the truth makes of tasks in the view `blocks`."""
    truth = {doc.text: doc for doc in make_docs()}
    lines = []
    for task in map(json.loads, tasks.read_text(encoding="utf8").splitlines()):
        doc = truth[task["text"]]
        task["spans"] = [{"start": ent.start_char, "end": ent.end_char, "label": ent.label_} for ent in doc.ents]
        task["accept"] = [label for label, value in doc.cats.items() if value]
        task["answer"] = "accept"
        change(task)
        lines.append(json.dumps(task) + "\n")
    path.write_text("".join(lines), encoding="utf8")


def call(folder: Path, settings: LoopSettings) -> str:
    return run_loop(folder, settings, say=lambda text: None)


def read_texts(path: Path) -> List[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf8").splitlines()]


def read_tree(folder: Path) -> Dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def begun(material: LoopSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop that waits for the answers of its first round."""
    folder = tmp_path_factory.mktemp("begun") / "loop"
    call(folder, material)
    return folder


@pytest.fixture(scope="module")
def learned(begun: Path, material: LoopSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The loop one round later."""
    folder = tmp_path_factory.mktemp("learned") / "loop"
    shutil.copytree(begun, folder)
    answer(folder / "round-01" / "tasks.jsonl", folder / "round-01" / "answers.jsonl")
    call(folder, material)
    return folder


def _without_pictures(tree: Dict[str, bytes]) -> Dict[str, bytes]:
    return {name: content for name, content in tree.items() if not name.endswith(".png")}


def test_it_begins_with_a_pipeline_and_tasks_about_texts_that_nobody_has_annotated(
    begun: Path, material: LoopSettings
) -> None:
    texts = read_texts(begun / "round-01" / "tasks.jsonl")
    annotated = {doc.text for path in (*material.bases, material.dev, material.test) for doc in load_docs(path)}
    assert len(set(texts)) == 10 and annotated.isdisjoint(texts)
    before = read_tree(begun)
    message = call(begun, material)
    assert str(begun / "round-01" / "tasks.jsonl") in message and "answers.jsonl" in message
    # Pictures are drawn anew, if they can be
    assert _without_pictures(read_tree(begun)) == _without_pictures(before)


def test_a_score_on_few_texts_is_shown_with_its_interval(
    begun: Path, material: LoopSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: List[str] = []
    run_loop(begun, material, say=said.append)
    metrics = json.loads((begun / "round-00" / "metrics.json").read_text(encoding="utf8"))["texts"]
    low, high = (100 * end for end in metrics["accuracy_interval"])
    (line,) = [line for line in said if "texts are scored" in line]
    assert f"Only {metrics['scored']} texts" in line and f"{low:.0f} to {high:.0f} %" in line
    monkeypatch.setattr(progress, "FEW_SCORED", metrics["scored"])
    said.clear()
    run_loop(begun, material, say=said.append)
    assert said and not any("texts are scored" in line for line in said)


def test_the_first_round_is_chosen_by_the_mistakes_in_dev(begun: Path, material: LoopSettings) -> None:
    """As `suggest` by itself does, told which texts were learned from and which were not."""
    again = begun.parent / "again.jsonl"
    model, corpus = begun / "round-00" / "model" / "model-best", begun / "round-00" / "corpus" / "train.spacy"
    held_out = [material.test] if material.test else []
    settings: Dict[str, Any] = {"exclude": [corpus], "dev": material.dev, "held_out": held_out}
    report = suggest(str(model), material.raw, again, limit=material.limit, seed=1, **settings)
    assert report.trust is not None and report.trust.n_texts == 8
    assert again.read_bytes() == (begun / "round-01" / "tasks.jsonl").read_bytes()


def test_answers_become_a_pipeline_trained_on_from_the_last_one(
    learned: Path, material: LoopSettings, tmp_path: Path
) -> None:
    first = learned / "round-01"
    merge(
        material.bases,
        tmp_path,
        answers=[first / "answers.jsonl"],
        split=ALL_TRAIN,
        leave_out=[material.dev, material.test],
        exclusive=True,
    )
    assert (first / "corpus" / "train.spacy").read_bytes() == (tmp_path / "train.spacy").read_bytes()
    components = Config().from_disk(first / "config.cfg", interpolate=False)["components"]
    begun_with = {"source": str(learned / "round-00" / "model" / "model-best")}
    assert components == dict.fromkeys(("transformer", "bert_textcat", "bert_ner"), begun_with)
    asked = read_texts(first / "tasks.jsonl") + read_texts(learned / "round-02" / "tasks.jsonl")
    assert len(set(asked)) == 20


def test_the_table_has_every_round_with_its_scores_and_what_was_annotated_for_it(
    learned: Path, material: LoopSettings
) -> None:
    rows = json.loads((learned / "rounds.json").read_text(encoding="utf8"))
    for number, row in enumerate(rows):
        folder = learned / f"round-{number:02}"
        docs = load_docs(folder / "corpus" / "train.spacy")
        nlp = spacy.load(folder / "model" / "model-best")
        scores = nlp.evaluate(list(Corpus(material.test)(nlp)))
        assert (row["round"], row["texts"], row["tokens"]) == (number, len(docs), sum(map(len, docs)))
        assert row["scores"] == {name: pytest.approx(scores[name]) for name in ("cats_acc", "ents_f")}
        assert row["score"] == pytest.approx(0.25 * scores["cats_acc"] + 0.75 * scores["ents_f"])
    assert [row["texts"] for row in rows] == [8, 18]
    assert rows[1]["score"] >= rows[0]["score"] > 0.5


def test_the_first_training_is_as_long_as_suits_the_texts_and_later_ones_as_in_the_config(learned: Path) -> None:
    configs = [load_config(learned / f"round-{number:02}" / "config.cfg", interpolate=False) for number in range(2)]
    assert [config["training"]["max_epochs"] for config in configs] == [MOST_EPOCHS, 3]


def test_the_rounds_are_drawn(learned: Path) -> None:
    pytest.importorskip("matplotlib")
    assert (learned / "rounds.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_killed_while_it_learns_it_comes_to_the_same_pipeline(
    begun: Path, learned: Path, material: LoopSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "loop"
    shutil.copytree(begun, folder)
    shutil.copy(learned / "round-01" / "answers.jsonl", folder / "round-01" / "answers.jsonl")
    save, saved = training_loop.save_checkpoint, []

    def stop(*args: Any) -> None:
        save(*args)
        saved.append(args)
        if len(saved) == 2:
            raise Killed

    monkeypatch.setattr(training_loop, "save_checkpoint", stop)
    with pytest.raises(Killed):
        call(folder, material)
    assert list((folder / "round-01" / "model").glob("checkpoint-*"))
    assert not (folder / "round-01" / "metrics.json").exists()
    call(folder, material)
    rows, expected = (json.loads((path / "rounds.json").read_text(encoding="utf8")) for path in (folder, learned))
    assert rows == expected
    for name in ("tasks.jsonl", "corpus/train.spacy"):
        assert (folder / "round-01" / name).read_bytes() == (learned / "round-01" / name).read_bytes()


@pytest.mark.slow
def test_a_label_that_is_new_has_the_pipeline_trained_anew(
    learned: Path, material: LoopSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "loop"
    shutil.copytree(learned, folder)
    (folder / "round-02" / "answers.jsonl.part").write_text("not yet there")

    def rename(task: Dict[str, Any]) -> None:
        task["spans"][0]["label"] = "CUSTOMER"

    answer(folder / "round-02" / "tasks.jsonl", folder / "round-02" / "export.jsonl", rename)
    # An answer that came when its round was over counts now.
    late = {"text": "late order", "spans": [], "answer": "accept"}
    (folder / "round-01" / "late.jsonl").write_text(json.dumps(late) + "\n")
    said: List[str] = []
    run_loop(folder, replace(material, epochs=1), say=said.append)
    assert any(text.startswith("New to the pipeline: CUSTOMER.") for text in said)
    assert any("no entity label 'CUSTOMER', first at" in text for text in said)
    nlp = spacy.load(folder / "round-02" / "model" / "model-best")
    assert "CUSTOMER" in nlp.get_pipe("bert_ner").labels
    assert "late order" in {doc.text for doc in load_docs(folder / "round-02" / "corpus" / "train.spacy")}
    assert "source" not in (folder / "round-02" / "config.cfg").read_text(encoding="utf8")


def test_answers_still_being_written_or_not_given_change_nothing(
    learned: Path, material: LoopSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "loop"
    shutil.copytree(learned, folder)
    last = folder / "round-02"
    answers = last / "answers.jsonl"
    before = read_tree(folder)
    answer(last / "tasks.jsonl", answers)
    whole = answers.read_bytes()
    for content, code in ((whole[:-20], "H520"), ((last / "tasks.jsonl").read_bytes(), "H117"), (b"", "H117")):
        answers.write_bytes(content)
        with pytest.raises(BertHeadsError, match=code):
            call(folder, material)
        answers.unlink()
        assert read_tree(folder) == before


def test_rejections_alone_are_not_learned_from(learned: Path, material: LoopSettings, tmp_path: Path) -> None:
    folder, model = tmp_path / "loop", str(learned / "round-01" / "model" / "model-best")
    settings = replace(material, bases=(), model=model, view="ner")
    call(folder, settings)
    rows = json.loads((folder / "rounds.json").read_text(encoding="utf8"))
    assert [(row["texts"], row["tokens"]) for row in rows] == [(0, 0)]
    tasks = [json.loads(line) for line in (folder / "round-01" / "tasks.jsonl").read_text("utf8").splitlines()]
    answers = folder / "round-01" / "answers.jsonl"
    answers.write_text("".join(json.dumps({**task, "answer": "reject"}) + "\n" for task in tasks))
    with pytest.raises(BertHeadsError, match=r"\[H522\] all answers about entities so far \(\d+\) are rejections"):
        call(folder, settings)
    with pytest.raises(BertHeadsError, match="H522"):
        call(folder, settings)
    assert not (folder / "round-01" / "model").exists()


def test_without_texts_or_a_beginning_it_says_so(learned: Path, material: LoopSettings, tmp_path: Path) -> None:
    with pytest.raises(BertHeadsError, match="H521"):
        call(tmp_path / "loop", replace(material, bases=()))
    with pytest.raises(BertHeadsError, match="H101"):
        call(tmp_path / "loop", replace(material, raw=tmp_path / "none.jsonl"))
    assert not (tmp_path / "loop").exists()
    folder = tmp_path / "learned"
    shutil.copytree(learned, folder)
    (folder / "round-02" / "tasks.jsonl").unlink()
    texts = [doc.text for doc in load_docs(material.dev)]
    raw = tmp_path / "raw.txt"
    raw.write_text("\n".join(texts), encoding="utf8")
    assert "add more texts to" in call(folder, replace(material, raw=raw))


def test_the_verb_shows_the_table_and_what_to_do(learned: Path, material: LoopSettings) -> None:
    options = ["--config", material.config, "--raw", material.raw, "--dev", material.dev, "--test", material.test]
    done = CliRunner().invoke(app, ["loop", *map(str, [learned, *options, "--base", material.bases[0]])])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("Round 2 is waiting for answers: annotate ")
    header = next(number for number, line in enumerate(lines) if line.split()[:3] == ["round", "texts", "tokens"])
    assert [line.split()[:3] for line in lines[header + 2 : header + 4]] == [["0", "8", "48"], ["1", "18", "108"]]


def test_it_asks_about_all_that_the_heads_predict() -> None:
    head = Head("head", ("A",), False, True)
    views = [default_view(heads) for heads in (Heads(head, head), Heads(head, None), Heads(None, head))]
    assert views == ["blocks", "ner_manual", "choice"]
