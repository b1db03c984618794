"""Raw texts become tasks in the right order, each once, whatever is in the file and however the run ends."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence

import pytest
import spacy
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_bert_heads.annotation import suggest as module
from spacy_bert_heads.annotation.hashes import input_hash
from spacy_bert_heads.annotation.heads import find_heads
from spacy_bert_heads.annotation.strategies import make_scorer
from spacy_bert_heads.annotation.suggest import suggest
from spacy_bert_heads.annotation.tasks import SPANS_VIEWS, VIEWS
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.errors import BertHeadsError

from ..corpus.helpers import write_jsonl
from ..making import make_nlp, make_texts

TEXTS = list(dict.fromkeys(make_texts(40, longest=8)))


@pytest.fixture(scope="module")
def model(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    nlp = make_nlp(bert_folder, ("bert_textcat", "bert_ner"), settings={"transformer": {"keep_outputs": False}})
    nlp.add_pipe("doc_cleaner", config={"attrs": {"_.trf_data": None}})
    nlp.to_disk(folder)
    return str(folder)


def write_raw(folder: Path, texts: Sequence[str] = TEXTS, **keys: Any) -> Path:
    path = folder / "raw.jsonl"
    write_jsonl(path, *({"text": text, **keys} for text in texts))
    return path


def read_tasks(path: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def error_of(*args: Any, **settings: Any) -> BertHeadsError:
    with pytest.raises(BertHeadsError) as error:
        suggest(*args, **{"view": "ner_manual", **settings})
    return error.value


@pytest.mark.parametrize("view", [view for view in VIEWS if view not in SPANS_VIEWS])
def test_tasks_come_in_the_order_of_their_scores(model: str, view: str, tmp_path: Path) -> None:
    nlp = spacy.load(model)
    raw, output = write_raw(tmp_path, source="mail", meta={"id": 7}), tmp_path / "tasks.jsonl"
    report = suggest(model, raw, output, view=view)
    strategy = {"blocks": "joint", "choice": "breaking-ties", "classification": "breaking-ties"}.get(view, "mnlp")
    scored = [(doc.text, score) for doc, score in make_scorer(nlp, strategy, find_heads(nlp)).pipe(TEXTS)]
    expected = [text for text, _ in sorted(scored, key=lambda row: -row[1])]
    tasks = read_tasks(output)
    texts = list(dict.fromkeys(task["text"] for task in tasks))
    assert texts == [text for text in expected if text in texts]
    assert len(texts) == report.n_texts == len(TEXTS) - report.n_nothing and report.strategy == strategy
    assert len(tasks) == report.n_tasks
    for task in tasks:
        assert task["_input_hash"] == input_hash(task["text"]) and task["source"] == "mail"
        assert task["priority"] == pytest.approx(dict(scored)[task["text"]], abs=1e-5)
        assert task["meta"]["id"] == 7 and task["meta"]["strategy"] == strategy
    # In other views `meta.score` is the score of the text, in these the probability of what is asked about
    assert all(("score" in task["meta"]) for task in tasks)
    if view in ("ner_manual", "choice", "blocks"):
        assert all(task["meta"]["score"] == round(task["priority"], 4) for task in tasks)
    first = output.read_bytes()
    suggest(model, raw, output, view=view)
    assert output.read_bytes() == first


@pytest.mark.parametrize(
    ("left_out", "view"), [((), "blocks"), (("bert_ner",), "choice"), (("bert_textcat",), "ner_manual")]
)
def test_the_view_is_that_of_the_heads(model: str, left_out: Sequence[str], view: str, tmp_path: Path) -> None:
    nlp = spacy.load(model, exclude=list(left_out))
    nlp.to_disk(tmp_path / "model")
    raw, output, named = write_raw(tmp_path), tmp_path / "tasks.jsonl", tmp_path / "named.jsonl"
    report = suggest(str(tmp_path / "model"), raw, output)
    assert report.view == view and f"Asking by the view {view}" in report.to_text()
    suggest(str(tmp_path / "model"), raw, named, view=view)
    assert output.read_bytes() == named.read_bytes()


def test_memory_zones_change_nothing(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, output = write_raw(tmp_path), tmp_path / "tasks.jsonl"
    found = []
    for zone in (1000, 7):
        monkeypatch.setattr(module, "ZONE", zone)
        suggest(model, raw, output, view="blocks", diverse=True, random_share=0.2, limit=10)
        found.append([(task["text"], task["accept"], task["meta"]["strategy"]) for task in read_tasks(output)])
    assert found[0] == found[1] and len(found[0]) == 10
    assert [strategy for _, _, strategy in found[0]].count("random") == 2


def test_texts_are_given_once_and_not_again(model: str, tmp_path: Path) -> None:
    raw = write_raw(tmp_path, [*TEXTS[:10], TEXTS[0], " \t", TEXTS[0], "Café"])
    done, corpus, edited = tmp_path / "done.jsonl", tmp_path / "old.spacy", tmp_path / "edited.jsonl"
    write_jsonl(done, {"text": TEXTS[1], "spans": [], "answer": "ignore"}, {"text": TEXTS[2], "answer": "accept"})
    doc = spacy.blank("en")(TEXTS[4])
    doc.set_ents([], default="outside")
    DocBin(docs=[doc]).to_disk(corpus)
    # The annotator corrected a typing mistake; the old hash still says which text it was
    write_jsonl(edited, {"text": "Coffee", "spans": [], "_input_hash": input_hash("Café"), "answer": "accept"})
    output = tmp_path / "tasks.jsonl"
    report = suggest(model, raw, output, view="ner_manual", exclude=[done, corpus, edited])
    left = {*TEXTS[:10]} - {TEXTS[1], TEXTS[2], TEXTS[4]}
    assert sorted(task["text"] for task in read_tasks(output)) == sorted(left)
    assert (report.n_read, report.n_blank, report.n_duplicates, report.n_excluded) == (14, 1, 2, 4)
    assert "left out: 4 annotated before, 2 duplicates, 1 blank" in report.to_text()
    # All of what was given out, given back: nothing is left, and the file stays as it was
    before = output.read_bytes()
    error = error_of(model, raw, output.with_name("more.jsonl"), exclude=[done, corpus, edited, output])
    assert error.code == "H505" and "annotated before" in str(error)
    assert output.read_bytes() == before and not output.with_name("more.jsonl").exists()


def test_text_files_and_gzip_give_the_same_tasks(model: str, tmp_path: Path) -> None:
    lines, packed = tmp_path / "raw.txt", tmp_path / "raw.jsonl.gz"
    lines.write_text("\n\n".join(TEXTS) + "\n", encoding="utf8")
    packed.write_bytes(gzip.compress(write_raw(tmp_path).read_bytes()))
    for source in (lines, packed):
        suggest(model, source, tmp_path / f"{source.name}.jsonl", view="choice", strategy="random")
    assert (tmp_path / "raw.txt.jsonl").read_bytes() == (tmp_path / "raw.jsonl.gz.jsonl").read_bytes()


def test_another_strategy_and_labels(model: str, tmp_path: Path) -> None:
    raw, output = write_raw(tmp_path), tmp_path / "tasks.jsonl"
    report = suggest(model, raw, output, view="ner_manual", strategy="breaking-ties", labels=["CITY"], limit=3)
    tasks = read_tasks(output)
    assert report.strategy == "breaking-ties" and len(tasks) == 3
    assert {span["label"] for task in tasks for span in task["spans"]} <= {"CITY"}
    assert all(task["config"]["labels"] == ["CITY"] for task in tasks)


@pytest.mark.parametrize(
    "line, code",
    [
        ('{"text": "broken"', "H105"),
        ('["a list"]', "H106"),
        ('{"txt": "no text"}', "H107"),
        ('{"text": 7}', "H107"),
        ('{"text": "half a pair \\ud83d"}', "H105"),
        (json.dumps({"text": "x" * 1_000_001}), "H138"),
    ],
)
def test_bad_lines_are_named_or_passed_over(model: str, line: str, code: str, tmp_path: Path) -> None:
    raw, output = tmp_path / "raw.jsonl", tmp_path / "tasks.jsonl"
    raw.write_text(f'{{"text": "anna"}}\n{line}\n{{"text": "smith"}}\n', encoding="utf8")
    error = error_of(model, raw, output)
    assert (error.code, error.line) == (code, 2) and not output.exists()
    report = suggest(model, raw, output, view="ner_manual", skip_bad=True)
    assert report.n_texts == 2 and report.findings.counts[code] == 1 and f"{raw}:2" in report.to_text()


def test_very_long_texts_are_read_in_windows(model: str, tmp_path: Path) -> None:
    raw, output = write_raw(tmp_path, ["anna lives in london " * 500, "smith"]), tmp_path / "tasks.jsonl"
    suggest(model, raw, output, view="blocks", diverse=True, limit=2)
    assert sorted(len(task["tokens"]) for task in read_tasks(output)) == [1, 2000]


def test_what_does_not_fit_is_said_before_anything_is_read(model: str, bert_folder: str, tmp_path: Path) -> None:
    raw, output = write_raw(tmp_path), tmp_path / "tasks.jsonl"
    textcat = make_nlp(bert_folder, ("bert_textcat",))
    textcat.to_disk(tmp_path / "textcat")
    only = str(tmp_path / "textcat")
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert error_of(model, raw, raw).code == "H123"
    assert error_of(model, raw, output, exclude=[output]).code == "H123"
    assert error_of(model, empty, output).code == "H505"
    assert error_of(model, tmp_path / "none.txt", output).code == "H101"
    assert error_of(model, tmp_path / "raw.csv", output).code == "H166"
    assert error_of(str(tmp_path / "nothing"), raw, output).code == "H227"
    assert error_of(only, raw, output).code == "H562"
    assert error_of(only, raw, output, view="choice", strategy="mnlp").code == "H501"
    assert error_of(model, raw, output, view="manual").code == "H561"
    assert error_of(model, raw, output, strategy="mnpl").code == "H500"
    assert error_of(model, raw, output, labels=["DOG"]).code == "H563"
    assert error_of(model, raw, output, limit=0).code == "H504"
    assert not output.exists() and sorted(path.name for path in tmp_path.iterdir()) == [
        *("empty.txt", "raw.jsonl", "textcat")
    ]


def test_a_pipeline_that_gives_no_numbers(model: str, tmp_path: Path) -> None:
    nlp = spacy.load(model)
    ner: Any = nlp.get_pipe("bert_ner")
    for node in ner.model.walk():
        for shim in node.shims:
            for parameter in shim.module.parameters():
                parameter.data.fill_(float("nan"))
    nlp.to_disk(tmp_path / "diverged")
    assert error_of(str(tmp_path / "diverged"), write_raw(tmp_path), tmp_path / "tasks.jsonl").code in ("H506", "H330")


def test_diverse_needs_a_shared_encoder(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_nlp(bert_folder, ("bert_ner",))
    nlp.replace_listeners("transformer", "bert_ner", ["model.tok2vec"])
    nlp.remove_pipe("transformer")
    nlp.to_disk(tmp_path / "private")
    raw, output = write_raw(tmp_path), tmp_path / "tasks.jsonl"
    assert error_of(str(tmp_path / "private"), raw, output, diverse=True, limit=3).code == "H503"
    assert suggest(str(tmp_path / "private"), raw, output, view="ner_manual", limit=3).n_tasks == 3


def test_command(model: str, tmp_path: Path) -> None:
    raw, output = write_raw(tmp_path), tmp_path / "new" / "tasks.jsonl"
    options = ["--view", "blocks", "--limit", "5", "--random-share", "0.2", "--labels", "CITY, TRACK", "--diverse"]
    result = CliRunner().invoke(app, ["suggest", model, str(raw), str(output), *options])
    assert result.exit_code == 0, result.output
    assert f"Read {len(TEXTS)} texts\nChose 5 texts by joint, 1 of them drawn at random" in result.output
    assert result.output.splitlines()[-1] == f"Wrote 5 tasks to {output}"
    result = CliRunner().invoke(app, ["suggest", model, str(raw), str(raw), "--view", "blocks"])
    assert result.exit_code == 1 and "[H123]" in result.output


@pytest.mark.skipif(os.name != "posix", reason="asks for a process by its number")
def test_a_killed_run_leaves_the_old_file(model: str, tmp_path: Path) -> None:
    raw, output = write_raw(tmp_path, make_texts(20_000)), tmp_path / "tasks.jsonl"
    output.write_text("old\n")
    arguments = ["suggest", model, str(raw), str(output), "--view", "ner_manual"]
    run = subprocess.Popen([sys.executable, "-m", "spacy", "bert-heads", *arguments], stderr=subprocess.DEVNULL)
    time.sleep(3)
    run.kill()
    run.wait()
    assert output.read_text() == "old\n"
    assert suggest(model, write_raw(tmp_path), output, view="ner_manual").n_texts == len(TEXTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.jsonl", "tasks.jsonl"]
