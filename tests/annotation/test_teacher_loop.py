"""A loop that begins with a large language model: no annotation, no pipeline, no dev split."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

from spacy_bert_heads.annotation.loop import run_loop
from spacy_bert_heads.annotation.prelabel.endpoint import KEY_VARIABLE
from spacy_bert_heads.annotation.prelabel.teacher import Teacher
from spacy_bert_heads.annotation.rounds import LoopSettings
from spacy_bert_heads.errors import BertHeadsError

from ..corpus.helpers import load_docs
from . import test_loop
from .prelabel.stub import Stub, serve
from .test_loop import answer, call, make_docs, read_texts

material = test_loop.material
TRUTH = {doc.text: doc for doc in make_docs()}


def know(text: str) -> Dict[str, Any]:
    """The truth, but that it knows only some cities."""
    ents = [{"text": ent.text, "label": ent.label_} for ent in TRUTH[text].ents if ent.text not in ("paris", "rome")]
    return {"entities": ents, "categories": [label for label, value in TRUTH[text].cats.items() if value]}


@pytest.fixture()
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serve() as server:
        server.answer = know
        yield server


def make_settings(stub: Stub, material: LoopSettings, **changes: Any) -> LoopSettings:
    teacher = Teacher(stub.url, "m", labels=["PERSON", "CITY"], categories=["TRACK", "CANCEL"])
    return replace(material, bases=(), dev=None, test=None, limit=24, teacher=teacher, **changes)


@pytest.mark.slow
def test_from_no_annotation_to_a_pipeline_that_chooses(
    stub: Stub,
    material: LoopSettings,
    tmp_path: Path,
) -> None:
    settings, folder = make_settings(stub, material, epochs=5), tmp_path / "loop"
    message = call(folder, settings)
    first = folder / "round-01"
    assert "Round 1 is waiting" in message and not (folder / "round-00").exists()
    assert stub.n_requests == 24 and len(set(read_texts(first / "tasks.jsonl"))) == 24
    # Not those at the beginning of the file, which are all alike
    assert read_texts(first / "tasks.jsonl") != [doc.text for doc in make_docs()[:24]]
    call(folder, settings)
    assert stub.n_requests == 24

    answer(first / "tasks.jsonl", first / "answers.jsonl")
    said: list = []
    message = run_loop(folder, settings, say=said.append)
    assert "Round 2 is waiting" in message and stub.n_requests == 24
    train = load_docs(first / "corpus" / "train.spacy")
    assert len(train) == 24 and all(doc._.silver is None for doc in train)
    asked = read_texts(folder / "round-02" / "tasks.jsonl")
    assert not {*asked} & {doc.text for doc in train}
    pairs = {tuple(pair["annotators"]): pair for pair in json.loads((first / "agreement.json").read_text())["pairs"]}
    assert pairs["person", "teacher"]["texts"] == 24
    # By cross-validation, the student is asked about all of them
    assert pairs["person", "student"]["texts"] == pairs["student", "teacher"]["texts"] == 24
    # By hand: it has all people and as many cities as it knows, and no category wrong
    found = sum(len(know(doc.text)["entities"]) for doc in train)
    assert pairs["person", "teacher"]["span_f"] == pytest.approx(2 * found / (found + 48))
    assert pairs["person", "teacher"]["kappa"] == 1.0
    assert any("teacher" in text and "kappa" in text for text in said)

    second = folder / "round-02"
    answer(second / "tasks.jsonl", second / "answers.jsonl")
    call(folder, settings)
    assert not (second / "corpus" / "dev.spacy").exists()
    later = load_docs(second / "corpus" / "train.spacy")
    assert {doc.text for doc in later} == {doc.text for doc in train} | {*asked}
    pairs = {tuple(pair["annotators"]): pair for pair in json.loads((second / "agreement.json").read_text())["pairs"]}
    assert pairs["person", "student"]["texts"] == len(later) == 24 + len(asked) and stub.n_requests == 24


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"bases": (Path("base.jsonl"),)}, "H753"),
        ({"model": "en_model"}, "H753"),
        ({"teacher": None, "model": "en_model"}, "H754"),
        ({"teacher": None}, "H521"),
    ],
)
def test_starts_that_make_no_sense(
    stub: Stub,
    material: LoopSettings,
    tmp_path: Path,
    changes: Dict[str, Any],
    code: str,
) -> None:
    with pytest.raises(BertHeadsError) as error:
        call(tmp_path / "loop", replace(make_settings(stub, material), **changes))
    assert error.value.code == code and stub.n_requests == 0


def test_too_few_first_answers_for_cross_validation(
    stub: Stub,
    material: LoopSettings,
    tmp_path: Path,
) -> None:
    settings, folder = replace(make_settings(stub, material), limit=1), tmp_path / "loop"
    call(folder, settings)
    tasks = folder / "round-01" / "tasks.jsonl"
    answer(tasks, tasks.with_name("answers.jsonl"))
    with pytest.raises(BertHeadsError) as error:
        call(folder, settings)
    assert error.value.code == "H755"
    with pytest.raises(BertHeadsError, match="H755"):
        call(folder, settings)
