"""Tasks to Label Studio and answers back, against a stub of its server."""

import json
import math
import shutil
import socket
from pathlib import Path
from typing import Any, Dict, Iterator, List
from xml.etree import ElementTree

import pytest
import spacy
import srsly
from typer.testing import CliRunner

from spacy_bert_heads.annotation.hashes import input_hash
from spacy_bert_heads.annotation.heads import find_heads
from spacy_bert_heads.annotation.label_studio import client as label_studio_client
from spacy_bert_heads.annotation.label_studio import exchange as label_studio
from spacy_bert_heads.annotation.label_studio.client import LabelStudio
from spacy_bert_heads.annotation.label_studio.exchange import pull, push
from spacy_bert_heads.annotation.label_studio.tasks import pipeline_config, pipeline_version, read_tasks
from spacy_bert_heads.annotation.strategies import make_scorer
from spacy_bert_heads.annotation.tasks import TaskMaker
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.readers.label_studio import LabelStudioConverter
from spacy_bert_heads.corpus.readers.labelling_config import LabellingConfig
from spacy_bert_heads.corpus.readers.options import ReadOptions
from spacy_bert_heads.errors import BertHeadsError

from ...making import make_nlp, make_texts
from .stub import ACCESS, LEGACY, PERSONAL, Stub, failing_with, running_stub

CATS = {"CANCEL", "TRACK"}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running_stub() as stub:
        yield stub


@pytest.fixture(scope="module")
def nlp(bert_folder: str) -> Any:
    return make_nlp(bert_folder)


@pytest.fixture(scope="module")
def model(nlp: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pipeline")
    nlp.to_disk(folder)
    return str(folder)


@pytest.fixture
def tasks(nlp: Any, tmp_path: Path) -> Path:
    """Ten texts with suggestions."""
    return write_tasks(
        nlp, tmp_path / "tasks.jsonl", [f"{text} {number}" for number, text in enumerate(make_texts(10))]
    )


def write_tasks(nlp: Any, path: Path, texts: List[str]) -> Path:
    maker, scorer = TaskMaker(nlp, "blocks"), make_scorer(nlp, None, find_heads(nlp))
    lines = [task for doc, score in scorer.pipe(texts) for task in maker.make(doc, meta={"score": score})]
    srsly.write_jsonl(path, lines)
    return path


def connect(stub: Stub, token: str = LEGACY, seconds: float = 10.0) -> LabelStudio:
    return LabelStudio(stub.url, token, read_seconds=seconds)


def annotate(stub: Stub, *results: Any) -> None:
    """Answer tasks in their order; None skips one."""
    for number, (task, result) in enumerate(zip(stub.tasks.values(), results)):
        annotation = {"id": number, "result": result or [], "was_cancelled": result is None}
        task["annotations"].append({**annotation, "updated_at": "2026-01-01T00:00:00Z"})


def test_a_push_creates_the_project_and_its_tasks(stub: Stub, nlp, model: str, tasks: Path):
    report = push(connect(stub), tasks, project="round one", model=model)
    assert (report.created, report.n_tasks, report.n_predictions, report.n_unchanged) == (True, 10, 0, 0)
    project = stub.projects[report.project.id]
    assert project["title"] == "round one"
    root = ElementTree.fromstring(project["label_config"])
    assert {tag.get("value") for tag in root.iter("Choice")} == CATS == set(nlp.get_pipe("bert_textcat").labels)
    assert [tag.get("value") for tag in root.iter("Label")] == list(nlp.get_pipe("bert_ner").labels)
    assert project["model_version"] == report.model_version
    assert project["sampling"] == "Uncertainty sampling"


def test_what_is_pushed_is_what_the_tasks_suggest(stub: Stub, model: str, tasks: Path):
    push(connect(stub), tasks, project="round one", model=model)
    by_text = {task["data"]["text"]: task for task in stub.tasks.values()}
    lines = list(srsly.read_jsonl(tasks))
    assert list(by_text) == [line["text"] for line in lines]
    assert any(line["spans"] for line in lines)
    for line in lines:
        stored = by_text[line["text"]]
        [prediction] = stored["predictions"]
        spans = [result for result in prediction["result"] if result["type"] == "labels"]
        choices = [result for result in prediction["result"] if result["type"] == "choices"]
        values = [result["value"] for result in spans]
        expected = [(span["start"], span["end"], [span["label"]]) for span in line["spans"]]
        assert [(value["start"], value["end"], value["labels"]) for value in values] == expected
        assert [result["score"] for result in spans] == pytest.approx([span["score"] for span in line["spans"]])
        assert all(value["text"] == line["text"][value["start"] : value["end"]] for value in values)
        assert [result["value"]["choices"] for result in choices] == [line["accept"]]
        assert stored["data"]["_input_hash"] == line["_input_hash"] == input_hash(line["text"])
        assert 0.0 <= prediction["score"] <= 1.0
    # The least sure text comes first there and has the highest score here
    scores = {text: task["predictions"][0]["score"] for text, task in by_text.items()}
    by_worth = sorted(lines, key=lambda line: -line["meta"]["score"])
    assert sorted(scores, key=lambda text: scores[text]) == [line["text"] for line in by_worth]


def test_a_second_push_creates_nothing(stub: Stub, model: str, tasks: Path):
    first = push(connect(stub), tasks, project="round one", model=model)
    before = json.dumps([stub.projects, stub.tasks])
    second = push(connect(stub), tasks, project=str(first.project.id), model=model)
    assert (second.created, second.n_tasks, second.n_predictions, second.n_unchanged) == (False, 0, 0, 10)
    assert json.dumps([stub.projects, stub.tasks]) == before


def test_a_new_model_adds_predictions_and_is_activated(stub: Stub, nlp, model: str, tasks: Path, tmp_path: Path):
    first = push(connect(stub), tasks, project="round one", model=model)
    texts = [line["text"] for line in srsly.read_jsonl(tasks)]
    more = write_tasks(nlp, tmp_path / "more.jsonl", texts[5:] + ["one more", "and another one"])
    second = push(connect(stub), more, project="round one", model=model, model_version="r2")
    assert (second.created, second.n_tasks, second.n_predictions, second.n_unchanged) == (False, 2, 5, 0)
    versions: Dict[str, List[str]] = {}
    for text, version, _ in stub.predictions(first.project.id):
        versions.setdefault(text, []).append(version)
    assert [len(versions[text]) for text in texts] == [1] * 5 + [2] * 5
    assert all(versions[text] == [first.model_version, "r2"] for text in texts[5:])
    assert versions["one more"] == ["r2"]
    assert stub.projects[first.project.id]["model_version"] == "r2"


def test_a_push_that_was_cut_short_is_completed(stub: Stub, model: str, tasks: Path, monkeypatch):
    monkeypatch.setattr(label_studio, "IMPORT_SIZE", 3)
    imports: List[str] = []

    def fail_third_import(method: str, path: str, handler: Any) -> bool:
        imports.extend([path] if path.endswith("/import") else [])
        if len(imports) == 3:
            handler.send(500, b"{}")
        return len(imports) == 3

    stub.failing = fail_third_import
    with pytest.raises(BertHeadsError, match=r"\[H547\].*500"):
        push(connect(stub), tasks, project="round one", model=model)
    assert len(stub.tasks) == 6
    stub.failing = None
    assert push(connect(stub), tasks, project="round one", model=model).n_tasks == 4
    assert [task["data"]["text"] for task in stub.tasks.values()] == [line["text"] for line in srsly.read_jsonl(tasks)]


def test_tasks_on_many_pages_are_all_known(stub: Stub, model: str, tasks: Path, monkeypatch):
    monkeypatch.setattr(label_studio_client, "PAGE_SIZE", 4)
    push(connect(stub), tasks, project="round one", model=model)
    assert push(connect(stub), tasks, project="round one", model=model).n_unchanged == 10


def test_a_project_made_by_hand_gets_results_by_its_own_names(stub: Stub, model: str, nlp, tasks: Path):
    xml = pipeline_config(nlp).to_xml(words=True)
    xml = xml.replace('name="ner"', 'name="slots"').replace('name="cat"', 'name="intent"').replace("$text", "$review")
    stub.projects[1] = {"id": 1, "title": "by hand", "label_config": xml}
    push(connect(stub), tasks, project="1", model=model)
    names = {r["from_name"] for task in stub.tasks.values() for r in task["predictions"][0]["result"]}
    assert names == {"slots", "intent"}
    assert [t["data"]["review"] for t in stub.tasks.values()] == [line["text"] for line in srsly.read_jsonl(tasks)]


@pytest.mark.parametrize(
    "change, code",
    [
        ({"spans": [{"start": 0, "end": 3, "label": "PLANET"}]}, "H550"),
        ({"accept": ["UNHEARD"]}, "H550"),
        ({"spans": [{"start": 0, "end": 999, "label": "CITY"}]}, "H110"),
        ({"spans": [{"start": -1, "end": 2, "label": "CITY"}]}, "H110"),
        ({"spans": [{"start": 2, "end": 2, "label": "CITY"}]}, "H109"),
        ({"spans": [{"start": 0, "end": "2", "label": "CITY"}]}, "H108"),
        ({"spans": ["CITY"]}, "H108"),
        ({"spans": [{"start": 0, "end": 2}]}, "H112"),
        ({"spans": [{"start": 0, "end": 2, "label": "CITY", "score": 3.5}]}, "H551"),
        ({"meta": {"score": -1}}, "H551"),
        ({"meta": {"score": float("nan")}}, "H551"),
        ({"accept": "TRACK"}, "H122"),
        ({"answer": "accept"}, "H552"),
        ({"_view_id": "ner"}, "H558"),
        ({"text": " "}, "H107"),
    ],
)
def test_bad_tasks_are_named_and_nothing_is_sent(stub: Stub, model: str, tmp_path: Path, change, code: str):
    path = tmp_path / "bad.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text, **task}) + "\n" for text, task in (("one", {}), ("where is it", change)))
    )
    with pytest.raises(BertHeadsError, match=rf"bad.jsonl:2: \[{code}\]"):
        push(connect(stub), path, project="round one", model=model)
    assert stub.projects == stub.tasks == {}


def test_a_project_with_other_labels(stub: Stub, model: str, tasks: Path):
    xml = LabellingConfig.from_labels(["CITY"], sorted(CATS), True).to_xml(words=True)
    stub.projects[1] = {"id": 1, "title": "by hand", "label_config": xml}
    with pytest.raises(BertHeadsError, match=r"tasks.jsonl:\d+: \[H550\] the project has no entity label 'PERSON'"):
        push(connect(stub), tasks, project="1", model=model)
    assert not stub.tasks


def test_records_of_one_text_become_one_task(tmp_path: Path):
    span = {"start": 0, "end": 5, "label": "CITY", "score": 0.75}
    lines = [
        {"text": "Paris", "id": 7, "spans": [span], "meta": {"score": 0.5}, "_view_id": "ner_manual", "tokens": []},
        {"text": "other", "spans": [], "meta": {"score": math.inf}},
        {"text": "Paris", "options": [], "accept": ["TRACK"], "meta": {"score": 1.5}, "_view_id": "choice"},
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    paris, other = read_tasks(tmp_path / "tasks.jsonl")
    config = LabellingConfig.from_labels(["CITY"], ["TRACK"], True)
    prediction = paris.prediction(config, "r1")
    assert [result["type"] for result in prediction["result"]] == ["labels", "choices"]
    assert prediction["score"] == pytest.approx(math.exp(-1.5))
    assert paris.data(config) == {"text": "Paris", "id": 7, "_input_hash": input_hash("Paris")}
    assert other.prediction(config, "r1") == {"model_version": "r1", "result": [], "score": 0.0}


def test_the_version_of_a_pipeline_follows_its_weights(model: str, tmp_path: Path):
    shutil.copytree(model, tmp_path / "copy")
    first, copy = (pipeline_version(spacy.load(folder)) for folder in (model, tmp_path / "copy"))
    assert first == copy and first.startswith("en_pipeline-0.0.0-")
    nlp = spacy.load(tmp_path / "copy")
    path = next(path for path in sorted((tmp_path / "copy" / "bert_ner").rglob("*")) if path.is_file())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert pipeline_version(nlp) != first


def test_interfaces_survive_xml():
    labels = ['A & B <"quoted">', "我的", "a,b", "x" * 200]
    config = LabellingConfig.from_labels(labels, list(reversed(labels)), False)
    for words in (True, False):
        assert LabellingConfig.from_xml(config.to_xml(words=words)) == config
    tags = ElementTree.fromstring(config.to_xml(words=True))
    colours = [tag.get("background") for tag in tags.iter("Label")]
    assert len(set(colours)) == len(labels)
    single = LabellingConfig.from_labels([], ["A", "B"], True)
    assert LabellingConfig.from_xml(single.to_xml(words=True)) == single


@pytest.mark.parametrize("xml", ["", "<View>", "<View></View>", "no xml"])
def test_broken_interfaces_are_named(xml: str):
    with pytest.raises(BertHeadsError, match=r"\[H540\]"):
        LabellingConfig.from_xml(xml)


def test_answers_come_back_as_they_were_given(stub: Stub, model: str, tasks: Path, tmp_path: Path):
    push(connect(stub), tasks, project="round one", model=model)
    first, second = list(stub.tasks.values())[:2]
    annotate(stub, first["predictions"][0]["result"], [], None)
    report = pull(connect(stub), tmp_path / "answers.json", project="round one")
    assert (report.n_tasks, report.n_annotations, report.n_skipped) == (3, 3, 1)
    findings = Findings(skip_bad=False)
    texts = list(LabelStudioConverter().read(tmp_path / "answers.json", findings, ReadOptions()))
    assert [annotation.text for annotation in texts] == [first["data"]["text"], second["data"]["text"]]
    assert findings.counts["cancelled"] == 1
    suggested = list(srsly.read_jsonl(tasks))[0]
    assert [(e.start, e.end, e.label) for e in texts[0].ents] == [
        (s["start"], s["end"], s["label"]) for s in suggested["spans"]
    ]
    # All labels of the project are known, though only one was ever chosen
    assert texts[0].cats == {label: float(label in suggested["accept"]) for label in CATS} and texts[0].exclusive
    # An answer without spans says that there are none
    assert texts[1].complete and not texts[1].ents and not texts[1].cats


def test_nothing_chosen_of_labels_that_do_not_exclude_each_other_is_an_answer(tmp_path: Path):
    xml = LabellingConfig.from_labels([], ["A", "B"], False).to_xml(words=True)
    task = {"label_config": xml, "data": {"text": "some text"}, "annotations": [{"result": []}]}
    (tmp_path / "answers.json").write_text(json.dumps([task]))
    [annotation] = LabelStudioConverter().read(tmp_path / "answers.json", Findings(skip_bad=False), ReadOptions())
    assert annotation.cats == {"A": 0.0, "B": 0.0} and not annotation.exclusive


def test_a_pull_without_answers_leaves_the_old_file(stub: Stub, model: str, tasks: Path, tmp_path: Path):
    output = tmp_path / "answers.json"
    output.write_text("old")
    push(connect(stub), tasks, project="round one", model=model)
    with pytest.raises(BertHeadsError, match=r"\[H553\].*'round one'"):
        pull(connect(stub), output, project="round one")
    annotate(stub, [])
    for content in (b"<html>", b'[{"annotations": []}', b'{"detail": "no"}', b"[1]"):
        stub.failing = failing_with(200, content, path="/export")
        with pytest.raises(BertHeadsError, match=r"\[H547\]"):
            pull(connect(stub), output, project="round one")
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.json", "tasks.jsonl"]


def test_a_personal_token_is_exchanged_once(stub: Stub, model: str, tasks: Path):
    report = push(connect(stub, PERSONAL), tasks, project="round one", model=model)
    assert report.n_tasks == 10
    assert stub.refreshed == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_no_token_goes_where_a_redirect_leads(stub: Stub, token: str, status: int):
    with running_stub() as other:

        def redirect(method: str, path: str, handler: Any) -> bool:
            handler.send_response(status)
            handler.send_header("Location", other.url + path)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        stub.failing = redirect
        with pytest.raises(BertHeadsError, match=rf"\[H547\].*status {status}.*{other.url}"):
            connect(stub, token).find_project("1")
        assert len(stub.calls) == 1 and other.calls == []


@pytest.mark.parametrize("token", ["f" * 40, PERSONAL[:-3] + "xxx"])
def test_a_refused_token_is_said_and_not_shown(stub: Stub, tmp_path: Path, token: str):
    with pytest.raises(BertHeadsError, match=r"\[H545\]") as caught:
        connect(stub, token).find_project("round one")
    assert token not in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\nfeed", "töken"])
def test_what_cannot_be_a_token_is_said_and_not_shown(token: str):
    with pytest.raises(BertHeadsError, match=r"\[H542\]") as caught:
        LabelStudio("http://127.0.0.1:1", token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "http://[1", "http://x:99999", "http://me:secret@127.0.0.1"]
)
def test_bad_addresses(url: str):
    with pytest.raises(BertHeadsError, match=r"\[H541\]") as caught:
        LabelStudio(url, LEGACY)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "failing, code",
    [
        (failing_with(403, b'{"detail": "Not yours"}'), "H546"),
        (failing_with(500, b"<html>Oops</html>"), "H547"),
        (failing_with(400, b'{"detail": "Bad", "validation_errors": {"title": ["taken"]}}'), "H547"),
        (failing_with(200, b"<html>another server</html>"), "H547"),
        (failing_with(200, b"[]"), "H547"),
        (failing_with(200, b"[" * 100_000), "H547"),
        (failing_with(200, b'{"results": [{}]}'), "H547"),
        (failing_with(302, b""), "H547"),
        (failing_with(200, b"{}", seconds=0.5), "H544"),
    ],
)
def test_failures_of_the_server(stub: Stub, failing, code: str):
    stub.failing = failing
    with pytest.raises(BertHeadsError, match=rf"\[{code}\].*{stub.url}") as caught:
        connect(stub, seconds=0.2).find_project("round one")
    assert LEGACY not in str(caught.value)


def test_an_answer_that_does_not_end_is_not_read_to_its_end(stub: Stub, monkeypatch):
    monkeypatch.setattr(label_studio_client, "MAX_ANSWER_BYTES", 1 << 17)
    for status in (200, 401):
        stub.failing = failing_with(status, b" " * (1 << 18) + b"{}")
        with pytest.raises(BertHeadsError, match=r"\[H54[57]\]"):
            connect(stub).find_project("round one")
    stub.failing = failing_with(200, b" " * (1 << 16) + b'{"results": []}')
    assert connect(stub).find_project("round one") is None


def test_a_server_that_is_down(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr(label_studio_client.RETRIED, "backoff_factor", 0)
    with pytest.raises(BertHeadsError, match=rf"\[H543\].*{url}.*refused"):
        LabelStudio(url, LEGACY).find_project("1")


def test_a_busy_server_is_asked_again_but_sent_nothing_twice(stub: Stub, model: str, tasks: Path, monkeypatch):
    monkeypatch.setattr(label_studio_client.RETRIED, "backoff_factor", 0)
    seen: List[str] = []

    def fail_once(method: str, path: str, handler: Any) -> bool:
        is_first = f"{method} {path}" not in seen
        seen.append(f"{method} {path}")
        if is_first:
            handler.send(503, b"{}")
        return is_first

    stub.failing = fail_once
    with pytest.raises(BertHeadsError, match=r"\[H547\].*503"):
        push(connect(stub), tasks, project="round one", model=model)
    assert seen.count("GET /api/projects") == 2 and seen.count("POST /api/projects") == 1


def test_projects_that_are_not_there_or_several(stub: Stub, tmp_path: Path):
    xml = LabellingConfig.from_labels(["A"], [], False).to_xml(words=True)
    for number in (1, 2):
        stub.projects[number] = {"id": number, "title": "twice", "label_config": xml}
    for name in ("7", "none", "twice"):
        with pytest.raises(BertHeadsError, match=r"\[H548\]"):
            pull(connect(stub), tmp_path / "answers.json", project=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("title", ["ab", "x" * 51])
def test_titles_the_server_would_refuse(stub: Stub, model: str, tasks: Path, title: str):
    with pytest.raises(BertHeadsError, match=r"\[H549\]"):
        push(connect(stub), tasks, project=title, model=model)


def test_the_verbs(stub: Stub, model: str, tasks: Path, tmp_path: Path, monkeypatch):
    def call(*arguments: Any) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    there = ["--url", stub.url, "--project", "round one"]
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    result = call("label-studio-push", tasks, *there, "--model", model)
    assert result.exit_code == 1 and "[H542]" in result.stderr and "Traceback" not in result.output
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", LEGACY)
    result = call("label-studio-push", tasks, *there, "--model", model, "--model-version", "r1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "Created project 1, 'round one'",
        "10 new tasks",
        f"Annotate at {stub.url}/projects/1, suggestions by r1",
    ]
    annotate(stub, [], None)
    (tmp_path / "token").write_text(f"{PERSONAL}\n")
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    output = tmp_path / "answers.json"
    result = call("label-studio-pull", *there, "-o", output, "--token-file", tmp_path / "token")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == f"Wrote 2 annotations of 2 texts to {output}"
    for secret in (LEGACY, PERSONAL, ACCESS):
        assert secret not in result.output
    result = call("label-studio-push", tasks, *there, "--model", tmp_path, "--token-file", tmp_path / "token")
    assert result.exit_code == 1 and "[H227]" in result.stderr
    result = call("label-studio-push", tasks, *there, "-m", model, "--model-version", "a,b", "--token-file", "none")
    assert result.exit_code == 1 and "[H101]" in result.stderr
