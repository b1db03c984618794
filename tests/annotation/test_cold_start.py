"""The first texts: one for each cluster, in the midst of its neighbours."""

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
from typer.testing import CliRunner

from spacy_bert_heads.annotation import cold_start
from spacy_bert_heads.annotation.cold_start import choose_first_texts
from spacy_bert_heads.annotation.hashes import input_hash
from spacy_bert_heads.annotation.prelabel.questions import Question
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.project.configs import SCRATCH, render_config

from ..corpus.helpers import load_docs
from ..making import make_texts

QUESTION = Question(("PERSON", "CITY"), ("TRACK", "CANCEL"))


@pytest.fixture
def material(tmp_path: Path, bert_folder: str) -> Dict[str, Path]:
    config = tmp_path / "config.cfg"
    config.write_text(render_config("en", ["textcat", "ner"], bert_folder), encoding="utf8")
    raw = tmp_path / "raw.jsonl"
    rows: List[Dict[str, Any]] = [{"text": text, "id": n} for n, text in enumerate(dict.fromkeys(make_texts(60)))]
    rows[3]["meta"] = {"source": "mail"}
    raw.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": " "}, rows[0]]), encoding="utf8")
    return {"config": config, "raw": raw, "output": tmp_path / "tasks.jsonl"}


def read_tasks(path: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def test_tasks_are_empty_questions_about_typical_texts(material: Dict[str, Path]) -> None:
    report = choose_first_texts(material["raw"], material["output"], QUESTION, config=material["config"], limit=12)
    tasks = read_tasks(material["output"])
    assert len({task["text"] for task in tasks}) == report.n_chosen == 12 and report.n_left_out == 2
    assert "12 texts" in report.to_text() and "typical" in report.to_text()
    for task in tasks:
        assert task["spans"] == task["accept"] == [] and "answer" not in task and "teacher" not in task
        assert [option["id"] for option in task["options"]] == ["TRACK", "CANCEL"]
        assert task["meta"]["strategy"] == "typical" and isinstance(task["id"], int)
        assert "".join(t["text"] + " " * t["ws"] for t in task["tokens"]) == task["text"]
    before = material["output"].read_bytes()
    choose_first_texts(material["raw"], material["output"], QUESTION, config=material["config"], limit=12)
    assert material["output"].read_bytes() == before


def test_texts_that_are_excluded_are_not_chosen_and_nothing_left_is_an_error(material: Dict[str, Path]) -> None:
    first = material["raw"].with_name("first.jsonl")
    choose_first_texts(material["raw"], first, QUESTION, config=material["config"], limit=40)
    arguments: Dict[str, Any] = {"config": material["config"], "limit": 40}
    choose_first_texts(material["raw"], material["output"], QUESTION, exclude=[first], **arguments)
    texts = [{task["text"] for task in read_tasks(path)} for path in (first, material["output"])]
    assert texts[1] and not texts[0] & texts[1]
    with pytest.raises(BertHeadsError) as error:
        choose_first_texts(
            material["raw"], first.with_name("x.jsonl"), QUESTION, exclude=[first, material["output"]], **arguments
        )
    assert error.value.code == "H505"


def test_a_text_that_an_annotator_edited_is_known_by_its_input_hash(material: Dict[str, Path]) -> None:
    """As in `suggest`: the raw text is not asked about again, whatever the annotator made of it."""
    texts = [json.loads(line)["text"] for line in material["raw"].read_text(encoding="utf8").splitlines()]
    edited = material["raw"].with_name("edited.jsonl")
    row = {"text": "Coffee", "spans": [], "_input_hash": input_hash(texts[5]), "answer": "accept"}
    edited.write_text(json.dumps(row) + "\n", encoding="utf8")
    choose_first_texts(
        material["raw"], material["output"], QUESTION, config=material["config"], limit=999, exclude=[edited]
    )
    assert {task["text"] for task in read_tasks(material["output"])} == {*texts} - {texts[5], " "}


def test_an_encoder_from_scratch_knows_nothing_so_texts_are_drawn(material: Dict[str, Path]) -> None:
    material["config"].write_text(render_config("en", ["textcat", "ner"], SCRATCH), encoding="utf8")
    report = choose_first_texts(material["raw"], material["output"], QUESTION, config=material["config"], limit=9)
    assert report.strategy == "random" and len(read_tasks(material["output"])) == 9
    assert {task["meta"]["strategy"] for task in read_tasks(material["output"])} == {"random"}


def test_of_a_large_file_an_even_sample_is_compared(
    material: Dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_start, "MOST_TEXTS", 15)
    report = choose_first_texts(material["raw"], material["output"], QUESTION, config=material["config"], limit=99)
    numbers = [task["id"] for task in read_tasks(material["output"])]
    assert len(set(numbers)) == report.n_chosen == 15 and max(numbers) > 20


def test_a_loop_begins_with_nothing_but_labels(material: Dict[str, Path], tmp_path: Path) -> None:
    """Two calls of the command: the first asks, and the second learns from what was answered."""
    folder = tmp_path / "rounds"
    command = ["bert-heads", "loop", str(folder), "--config", str(material["config"]), "--raw", str(material["raw"])]
    command += ["--labels", "PERSON,CITY", "--categories", "TRACK,CANCEL", "--limit", "20", "--epochs", "1"]

    def run() -> str:
        result = CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, result.output
        return result.output

    assert "waiting for answers" in run()
    tasks = read_tasks(folder / "round-01" / "tasks.jsonl")
    for number, task in enumerate(tasks):
        task.update(answer="accept", accept=["TRACK" if number % 2 else "CANCEL"])
        first = task["tokens"][0]
        place = {"start": first["start"], "end": first["end"], "token_start": 0, "token_end": 0}
        task["spans"] = [{**place, "label": "CITY" if number % 3 else "PERSON"}]
    text = "".join(json.dumps(task) + "\n" for task in tasks)
    (folder / "round-01" / "answers.jsonl").write_text(text, encoding="utf8")
    assert "Round 2 is waiting" in run()
    nlp = spacy.load(folder / "round-01" / "model" / "model-best")
    assert nlp.get_pipe("bert_ner").labels and set(nlp("the order").cats) == {"TRACK", "CANCEL"}
    assert len(load_docs(folder / "round-01" / "corpus" / "train.spacy")) == 20
    asked = {task["text"] for task in read_tasks(folder / "round-02" / "tasks.jsonl")}
    assert asked and not asked & {task["text"] for task in tasks}


def test_a_loop_that_is_told_nothing_says_what_it_needs(material: Dict[str, Path], tmp_path: Path) -> None:
    command = ["loop", str(tmp_path / "rounds"), "--config", str(material["config"]), "--raw", str(material["raw"])]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1 and "H521" in result.output and "--labels" in result.output
