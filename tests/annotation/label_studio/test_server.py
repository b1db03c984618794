"""The ML backend: what it answers to Label Studio's server, and what it refuses."""

import json
import logging
import socket
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any, Dict, List

import pytest
import requests
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

pytest.importorskip("flask", reason="needs the extra label-studio")
pytest.importorskip("waitress", reason="needs the extra label-studio")

from spacy_bert_heads.annotation.label_studio import server as server_module
from spacy_bert_heads.annotation.label_studio.answers import AnswersFile
from spacy_bert_heads.annotation.label_studio.client import read_token
from spacy_bert_heads.annotation.label_studio.server import Predictor, listen, make_app, serve
from spacy_bert_heads.cli.app import app as cli
from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.readers.label_studio import LabelStudioConverter
from spacy_bert_heads.corpus.readers.labelling_config import LabellingConfig
from spacy_bert_heads.corpus.readers.options import ReadOptions
from spacy_bert_heads.errors import BertHeadsError, NotWrittenError

from ...making import make_nlp, make_texts

TEXTS = make_texts(20, seed=3)


@pytest.fixture(scope="module")
def nlp(bert_folder: str) -> Any:
    return make_nlp(bert_folder)


@pytest.fixture(scope="module")
def predictor(nlp: Any) -> Predictor:
    return Predictor(nlp, "m1")


@pytest.fixture
def client(predictor: Predictor, tmp_path: Path) -> Any:
    return make_app(predictor, answers=AnswersFile(tmp_path / "answers.jsonl")).test_client()


def ask(client: Any, texts: List[Any], **body: Any) -> List[Dict[str, Any]]:
    tasks = [{"id": number, "data": {"text": text}} for number, text in enumerate(texts)]
    response = client.post("/predict", json={"tasks": tasks, **body})
    assert response.status_code == 200, response.json
    return response.json["results"]


def read(prediction: Dict[str, Any]) -> Any:
    spans = [r["value"] for r in prediction["result"] if r["type"] == "labels"]
    cats = [label for r in prediction["result"] if r["type"] == "choices" for label in r["value"]["choices"]]
    return [(span["start"], span["end"], *span["labels"]) for span in spans], cats


def expected(doc: Any) -> Any:
    return [(e.start_char, e.end_char, e.label_) for e in doc.ents], [max(doc.cats, key=lambda label: doc.cats[label])]


def test_health_and_setup(client, caplog):
    assert client.get("/health").json == {"status": "UP", "model_class": "spacy-bert-heads"}
    schema = LabellingConfig.from_labels(["CITY"], ["TRACK", "CANCEL"], True).to_xml(words=True)
    body = {"project": "1.2", "schema": schema, "hostname": "http://x", "access_token": "secret", "extra_params": None}
    assert client.post("/setup", json=body).json == {"model_version": "m1"}
    assert "PERSON" in caplog.text and "CITY" not in caplog.text and "secret" not in caplog.text


def test_predictions_are_those_of_the_pipeline(client, nlp):
    predictions = ask(client, TEXTS)
    assert [read(prediction) for prediction in predictions] == [expected(doc) for doc in nlp.pipe(TEXTS)]
    assert any(read(prediction)[0] for prediction in predictions)
    assert {prediction["model_version"] for prediction in predictions} == {"m1"}
    assert all(0.0 <= prediction["score"] <= 1.0 for prediction in predictions)


def test_bad_tasks_spoil_no_others(client, nlp, monkeypatch):
    monkeypatch.setattr(nlp, "max_length", 200)
    good = "where is my order"
    tasks = [{"data": {"text": text}} for text in (good, None, 7, "", " \n", "x" * 201, good, "half \ud83d")]
    tasks += [{"data": {"other": good}}, {"data": None}, {}, None, "text", {"data": {"text": good}}]
    results = client.post("/predict", json={"tasks": tasks}).json["results"]
    assert len(results) == len(tasks)
    right = [number for number, result in enumerate(results) if "error" not in result]
    assert right == [0, 6, 13]
    assert all(read(results[number]) == expected(nlp(good)) for number in right)
    assert all(results[n]["result"] == [] and results[n]["error"] for n in range(len(tasks)) if n not in right)


def test_names_and_labels_are_those_of_the_project(client, nlp):
    xml = """<View><Header value="Hello"/><Text name="t" value="$review"/><Labels name="slots" toName="t">
    <Label value="City" alias="CITY"/></Labels><Choices name="intent" toName="t"><Choice value="TRACK"/></Choices>
    <Choices name="other" toName="elsewhere"><Choice value="CANCEL"/></Choices></View>"""
    tasks = [{"data": {"review": text}} for text in TEXTS]
    results = client.post("/predict", json={"tasks": tasks, "label_config": xml}).json["results"]
    for result, doc in zip(results, nlp.pipe(TEXTS)):
        spans, cats = expected(doc)
        assert read(result) == ([s for s in spans if s[2] == "CITY"], [c for c in cats if c == "TRACK"])
        assert {(r["from_name"], r["to_name"]) for r in result["result"]} <= {("slots", "t"), ("intent", "t")}


@pytest.mark.parametrize("heads", [("bert_ner",), ("bert_textcat_multilabel",)])
def test_pipelines_with_one_head(bert_folder: str, heads: Any):
    nlp = make_nlp(bert_folder, heads)
    results = ask(make_app(Predictor(nlp, "m1")).test_client(), TEXTS)
    for result, doc in zip(results, nlp.pipe(TEXTS)):
        chosen = [label for label, value in doc.cats.items() if value >= 0.5]
        assert read(result) == ([(e.start_char, e.end_char, e.label_) for e in doc.ents], chosen)
        assert 0.0 <= result["score"] <= 1.0


def test_heads_that_cannot_be_unsure_have_no_score():
    nlp = spacy.blank("en")
    nlp.add_pipe("ner").add_label("CITY")
    nlp.initialize()
    assert all("score" not in result for result in ask(make_app(Predictor(nlp, "m1")).test_client(), TEXTS[:2]))


def test_pipelines_without_a_head():
    with pytest.raises(BertHeadsError, match=r"\[H557\].*sentencizer"):
        nlp = spacy.blank("en")
        nlp.add_pipe("sentencizer")
        Predictor(nlp, "m1")


def test_many_ask_at_once(predictor: Predictor, nlp):
    expectations = {text: expected(doc) for text, doc in zip(TEXTS, nlp.pipe(TEXTS))}
    with running(make_app(predictor)) as url, ThreadPoolExecutor(8) as pool:

        def call(number: int) -> None:
            texts = TEXTS[number % 7 :]
            tasks = [{"id": 1, "data": {"text": text}} for text in texts]
            results = requests.post(f"{url}/predict", json={"tasks": tasks}, timeout=30).json()["results"]
            assert [read(result) for result in results] == [expectations[text] for text in texts]

        list(pool.map(call, range(24)))


class running:
    """The server on a port of its own."""

    def __init__(self, app: Any, token: str = "") -> None:
        self.server = listen(app, "127.0.0.1", 0, token=token)
        self.thread = Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.effective_port}"

    def __exit__(self, *error: Any) -> None:
        self.server.close()
        self.thread.join(5)


@pytest.mark.parametrize(
    "request_, status",
    [
        ({"json": {"tasks": {}}}, 400),
        ({"json": {}}, 400),
        ({"json": []}, 400),
        ({"json": {"tasks": [], "label_config": "<View>"}}, 400),
        ({"data": b"{", "content_type": "application/json"}, 400),
        ({"data": b'{"tasks": []}', "content_type": "text/plain"}, 415),
        ({"data": {"tasks": "[]"}}, 415),
        ({"json": {"tasks": []}, "headers": {"Host": "rebound.example.org"}}, 400),
        ({"json": {"tasks": []}, "headers": {"Host": "localhost:9090"}}, 200),
    ],
)
def test_bad_requests_are_refused_in_json(client, request_: Dict[str, Any], status: int):
    response = client.post("/predict", **request_)
    assert response.status_code == status
    assert "results" in response.json if status == 200 else response.json["error"]


def test_large_requests_are_refused(predictor: Predictor, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_REQUEST_BYTES", 1000)
    with running(make_app(predictor)) as url:
        task = {"data": {"text": "x" * 2000}}
        assert requests.post(f"{url}/predict", json={"tasks": [task]}, timeout=30).status_code == 413
        assert requests.get(f"{url}/health", timeout=30).status_code == 200


def test_a_password_is_asked_for(predictor: Predictor):
    client = make_app(predictor, token="pässword").test_client()

    def status(header: str) -> int:
        return client.get("/health", headers={"Authorization": header, "Host": "example.org"}).status_code

    assert status("Basic " + b64encode("any:pässword".encode()).decode()) == 200
    for header in ("", "Basic", "Basic !", "Bearer pässword".encode().decode("latin1"), "Token x"):
        assert status(header) == 401
    for wrong in ("any:", "any:password", "pässword:any", "any"):
        assert status("Basic " + b64encode(wrong.encode()).decode()) == 401


def event(action: str, number: int, result: Any, text: str = "where is my order", task: int = 5) -> Dict[str, Any]:
    xml = LabellingConfig.from_labels(["CITY"], ["TRACK", "CANCEL"], True).to_xml(words=True)
    annotation = {"id": number, "task": task, "result": result, "was_cancelled": False}
    data = {"text": text}
    return {
        "action": action,
        "annotation": annotation,
        "task": {"id": task, "data": data},
        "project": {"label_config": xml},
    }


def choice(label: str) -> Dict[str, Any]:
    return {"from_name": "cat", "to_name": "text", "type": "choices", "value": {"choices": [label]}}


def answers_in(path: Path) -> List[Any]:
    found = LabelStudioConverter().read(path, Findings(skip_bad=False), ReadOptions())
    return [(a.text, a.complete, {label for label, value in a.cats.items() if value}) for a in found]


def test_webhooks_write_what_merge_reads(client, tmp_path: Path):
    path = tmp_path / "answers.jsonl"

    def send(body: Dict[str, Any]) -> None:
        assert client.post("/webhook", json=body).status_code == 201

    send(event("ANNOTATION_CREATED", 1, [choice("TRACK")]))
    send(event("ANNOTATION_CREATED", 2, [choice("CANCEL")], "another text 😀", task=6))
    first, second = ("where is my order", True, {"TRACK"}), ("another text 😀", True, {"CANCEL"})
    assert answers_in(path) == [first, second]
    # The same once more, as from two webhooks: nothing is counted twice
    send(event("ANNOTATION_CREATED", 1, [choice("TRACK")]))
    assert sorted(answers_in(path)) == sorted([first, second])
    send(event("ANNOTATION_UPDATED", 1, []))
    assert sorted(answers_in(path)) == sorted([("where is my order", True, set()), second])
    many = event("ANNOTATIONS_CREATED", 0, [])
    tasks = [{"id": number, "data": {"text": f"text {number}"}} for number in (7, 8)]
    annotations = [{"id": 10 + number, "task": number, "result": [choice("TRACK")]} for number in (8, 7)]
    send({**many, "task": tasks, "annotation": annotations})
    send({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}, {"id": 99}]})
    assert sorted(answers_in(path)) == sorted([second, ("text 7", True, {"TRACK"}), ("text 8", True, {"TRACK"})])
    for body in ({"action": "PROJECT_UPDATED"}, {"action": "START_TRAINING"}, {"action": 7}, {}):
        send(body)
    assert len(answers_in(path)) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["answers.jsonl"]
    path.unlink()
    send(event("ANNOTATION_CREATED", 1, [choice("TRACK")]))
    assert answers_in(path) == [first]


def test_webhooks_without_payload_are_refused(client, tmp_path: Path):
    for body in ({"action": "ANNOTATION_CREATED"}, {"action": "ANNOTATIONS_DELETED"}):
        response = client.post("/webhook", json=body)
        assert response.status_code == 400 and "[H551]" in response.json["error"]
    assert not list(tmp_path.iterdir())


def test_many_webhooks_at_once_lose_nothing(predictor: Predictor, tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    with running(make_app(predictor, answers=AnswersFile(path))) as url, ThreadPoolExecutor(8) as pool:
        events = [event("ANNOTATION_CREATED", n, [choice("TRACK")], f"text {n}", task=n) for n in range(40)]
        list(pool.map(lambda body: requests.post(f"{url}/webhook", json=body, timeout=30).raise_for_status(), events))
    assert sorted(text for text, *_ in answers_in(path)) == sorted(f"text {n}" for n in range(40))


def test_answers_that_cannot_be_written_are_not_acknowledged(client, tmp_path: Path, monkeypatch):
    def fail(*arguments: Any) -> None:
        raise NotWrittenError("H123", path=tmp_path, found="No space left on device")

    monkeypatch.setattr("spacy_bert_heads.annotation.label_studio.answers.write_files", fail)
    response = client.post("/webhook", json=event("ANNOTATION_CREATED", 1, []))
    assert response.status_code == 500 and "No space left" in response.json["error"]


def test_training_is_acknowledged_and_said_not_to_happen(client, caplog):
    with caplog.at_level(logging.WARNING):
        assert client.post("/webhook", json={"action": "START_TRAINING", "project": {}}).status_code == 201
    assert "train" in caplog.text


def test_the_verb_says_what_keeps_it_from_serving(nlp, tmp_path: Path, monkeypatch):
    monkeypatch.delenv("SPACY_BERT_HEADS_TOKEN", raising=False)
    nlp.to_disk(tmp_path / "model")

    def call(*arguments: Any) -> Any:
        return CliRunner().invoke(cli, ["serve-label-studio", *map(str, arguments)])

    (tmp_path / "broken.jsonl").write_text("{")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, code in (
            ([tmp_path / "model", "--port", port], "H555"),
            ([tmp_path / "model", "--host", "999.0.0.1"], "H556"),
            ([tmp_path / "model", "--host", "0.0.0.0"], "H556"),
            ([tmp_path / "none"], "H227"),
            ([tmp_path / "model", "--answers", tmp_path / "broken.jsonl"], "H105"),
            ([tmp_path / "model", "--answers", tmp_path / "broken.jsonl" / "x.jsonl"], "H123"),
            ([tmp_path / "model", "--token-file", tmp_path / "none"], "H101"),
        ):
            result = call(*arguments)
            assert result.exit_code == 1, arguments
            assert f"[{code}]" in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize("tag", ["Labels", "HyperTextLabels", "Choices"])
def test_an_interface_takes_time_by_its_length_and_ends_at_its_limits(client, tag: str):
    def wrap(middle: str) -> str:
        return f'<View><Text name="t" value="$text"/>{middle}</View>'

    answer = {"Choices": "Choice"}.get(tag, "Label")
    one = f'<{tag} name="l" toName="t"><{answer} value="x"/>'
    for xml, part in (
        (wrap(one * 2000 + f"</{tag}>" * 2000), "within"),
        (wrap("<View>" * 2000 + "</View>" * 2000), "deep"),
        (wrap(one + f'<{answer} value="y"/>' * 20_000 + f"</{tag}>"), "labels"),
        (wrap(" " * 2_000_000), "characters"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + wrap("&a;"), "DOCTYPE"),
        (wrap("\ud83d"), "encoded"),
    ):
        start = time.process_time()
        for route, body in (("/predict", {"tasks": [], "label_config": xml}), ("/setup", {"schema": xml})):
            response = client.post(route, json=body)
            assert response.status_code == 400 and "[H540]" in response.json["error"], response.json
            assert part in response.json["error"]
        assert time.process_time() - start < 2.0
    many = wrap(one + "".join(f'<{answer} value="{number}"/>' for number in range(5000)) + f"</{tag}>")
    assert len(LabellingConfig.from_xml(many).questions[0].labels) == 5001


def test_a_text_that_would_hold_the_tokenizer_is_refused_and_the_others_are_not(client, nlp):
    start = time.process_time()
    results = ask(client, ["where is my order", "!?" * 200_000, "cancel it"])
    assert time.process_time() - start < 5.0
    assert "[H147]" in results[1]["error"] and results[1]["result"] == []
    assert [read(results[n]) for n in (0, 2)] == [expected(nlp(text)) for text in ("where is my order", "cancel it")]


def webhook_body(id: str = "1", text: str = '"x"', more: str = "", task: str = "1", xml: str = '"<View/>"') -> bytes:
    data = f'{{"id": {task}, "data": {{"text": {text}}}}}'
    annotation = f'{{"id": {id}, "result": [] {more}}}'
    event = f'{{"action": "ANNOTATION_CREATED", "task": {data}, "annotation": {annotation}'
    return f'{event}, "project": {{"label_config": {xml}}}}}'.encode("utf8")


INTERFACE = '"<View><Text name=\\"text\\" value=\\"$text\\"/></View>"'
BAD_BODIES = {
    "half a surrogate pair": webhook_body(text='"bad \\ud83d"', xml=INTERFACE),
    "half a pair in a key": webhook_body(more=', "\\udc00": 1', xml=INTERFACE),
    "NaN": webhook_body(more=', "lead_time": NaN', xml=INTERFACE),
    "infinity": webhook_body(more=', "x": -Infinity', xml=INTERFACE),
    "infinity by its size": webhook_body(more=', "x": 1e999', xml=INTERFACE),
    "number of 65 bits": webhook_body(more=', "x": 18446744073709551617', xml=INTERFACE),
    "number of 10,000 digits": webhook_body(id="1" * 10_000, xml=INTERFACE),
    "deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "rather deep": webhook_body(more=', "x": ' + "[" * 300 + "]" * 300, xml=INTERFACE),
    "interface is a number": webhook_body(xml="5"),
    "interface is broken": webhook_body(xml='"<View>"'),
    "text is in no interface": webhook_body(),
    "id is a string": webhook_body(id='"1"', xml=INTERFACE),
    "id is true": webhook_body(id="true", xml=INTERFACE),
    "id is null": webhook_body(id="null", xml=INTERFACE),
    "task is a list": webhook_body(task="[1]", xml=INTERFACE),
    "no UTF-8": webhook_body(xml=INTERFACE) + b"\xff",
    "no JSON": b"{",
    "nothing": b"",
    "data is a string": webhook_body(xml=INTERFACE).replace(b'{"text": "x"}', b'"x"'),
    "result is a number": webhook_body(xml=INTERFACE).replace(b'"result": []', b'"result": 5'),
    "result holds numbers": webhook_body(xml=INTERFACE).replace(b'"result": []', b'"result": [5]'),
    "annotation is a list": b'{"action": "ANNOTATION_CREATED", "task": {}, "annotation": [], "project": {}}',
    "annotations are numbers": b'{"action": "ANNOTATIONS_DELETED", "annotations": [5]}',
    "annotations are a number": b'{"action": "ANNOTATIONS_DELETED", "annotations": 5}',
    "tasks are strings": b'{"action": "ANNOTATIONS_CREATED", "task": ["x"], "annotation": [], "project": {}}',
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_webhooks_are_refused_with_a_code_and_leave_the_file(client, tmp_path: Path, name: str, caplog):
    path = tmp_path / "answers.jsonl"
    good = client.post("/webhook", data=webhook_body(id="7", xml=INTERFACE), content_type="application/json")
    assert good.status_code == 201
    before = path.read_bytes()
    response = client.post("/webhook", data=BAD_BODIES[name], content_type="application/json")
    assert response.status_code == 400 and "[H5" in response.json["error"], response.json
    assert "Traceback" not in caplog.text and path.read_bytes() == before
    assert len(response.json["error"]) < 1000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_webhook_brings_the_file_can_be_read(client, tmp_path: Path, data):
    """A webhook as it should be, with one of its values replaced by any other."""
    body = event(data.draw(st.sampled_from(["ANNOTATION_CREATED", "ANNOTATION_UPDATED"])), 3, [choice("TRACK")])
    places = [(body, key) for key in body]
    places += [(part, key) for part in (body["annotation"], body["task"], body["project"]) for key in part]
    place, key = data.draw(st.sampled_from(places))
    place[key] = data.draw(VALUES)
    raw = json.dumps(body).encode("utf8")
    assert client.post("/webhook", data=raw, content_type="application/json").status_code in (201, 400)
    path = tmp_path / "answers.jsonl"
    AnswersFile(path)
    for line in path.read_text(encoding="utf8").splitlines() if path.exists() else ():
        task = json.loads(line, parse_constant=lambda name: pytest.fail(name))
        assert isinstance(task["data"], dict) and LabellingConfig.from_xml(task["label_config"])


@pytest.mark.parametrize("route", ["/predict", "/webhook", "/none"])
@pytest.mark.parametrize("authorization", ["", "Basic " + b64encode(b"x:wrong").decode(), "Basic \xff", "Bearer x"])
def test_without_the_password_the_body_is_not_read(predictor: Predictor, route: str, authorization: str):
    with running(make_app(predictor, token="secret"), token="secret") as url:
        host, port = url[len("http://") :].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            lines = [f"POST {route} HTTP/1.1", "Host: x", "Content-Type: application/json", "Content-Length: 50000000"]
            lines += [f"Authorization: {authorization}"] if authorization else []
            lines += ["Expect: 100-continue"] if route == "/webhook" else []
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin1"))
            # The answer comes though no byte of the body was sent
            assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
        right = {"auth": ("any", "secret"), "timeout": 30}
        assert requests.get(f"{url}/health", **right).status_code == 200
        assert requests.post(f"{url}/predict", json={"tasks": []}, **right).status_code == 200
        assert requests.get(f"{url}/health", timeout=30).headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("content", ["", "\n", " \t\r\n"])
@pytest.mark.parametrize("verb", ["serve-label-studio", "label-studio-push", "label-studio-pull"])
def test_an_empty_secret_is_not_taken_for_none(tmp_path: Path, monkeypatch, content: str, verb: str):
    server = ["--url", "http://127.0.0.1:1", "--project", "1"]
    arguments = {
        "serve-label-studio": ["model"],
        "label-studio-push": ["tasks.jsonl", "--model", "model", *server],
        "label-studio-pull": ["--output", "x.json", *server],
    }[verb]
    variable = "SPACY_BERT_HEADS_TOKEN" if verb == "serve-label-studio" else "LABEL_STUDIO_API_KEY"
    monkeypatch.delenv(variable, raising=False)
    (tmp_path / "token").write_text(content)
    result = CliRunner().invoke(cli, [verb, *arguments, "--token-file", str(tmp_path / "token")])
    assert (result.exit_code, "[H580]" in result.stderr, "token" in result.stderr) == (1, True, True)
    monkeypatch.setenv(variable, content)
    result = CliRunner().invoke(cli, [verb, *arguments])
    assert (result.exit_code, "[H580]" in result.stderr, variable in result.stderr) == (1, True, True)
    (tmp_path / "token").write_text("secret\n")
    assert read_token(tmp_path / "token", variable) == "secret"
    monkeypatch.delenv(variable)
    assert read_token(None, variable) == ""


def test_serving_needs_no_password_on_this_machine_alone(tmp_path: Path):
    # All come as far as to look at the pipeline
    spacy.blank("en").to_disk(tmp_path / "blank")
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        with pytest.raises(BertHeadsError, match="H557"):
            serve(str(tmp_path / "blank"), host=host, port=1)
    with pytest.raises(BertHeadsError, match="H557"):
        serve(str(tmp_path / "blank"), host="0.0.0.0", port=1, token="secret")
