"""Two rounds of annotation with a real Label Studio, which the test installs (1 GB) and starts on 127.0.0.1."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest
import requests
import spacy
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

from spacy_bert_heads.annotation.label_studio.tasks import pipeline_config, pipeline_version
from spacy_bert_heads.cli.app import app

from ...making import make_nlp, make_texts

VERSION = "1.23.2"
# A virtual environment to install it into, and to find it in the next time.
ENVIRONMENT_VARIABLE = "SPACY_BERT_HEADS_LABEL_STUDIO"
USER, PASSWORD, TOKEN = "somebody@example.org", "no secret: 127.0.0.1", "0123456789abcdef" * 2
BACKEND_PASSWORD = "another one"
TEXTS = [f"{text} 😀 {number}" for number, text in enumerate(make_texts(12, seed=5, longest=8))]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="ends the server as POSIX systems do")]


@pytest.fixture(scope="session")
def label_studio() -> Path:
    """The command of an installed Label Studio."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get(ENVIRONMENT_VARIABLE) or cache / "spacy-bert-heads-label-studio")
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "-q", f"label-studio=={VERSION}"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot install Label Studio: {done.stderr.strip().splitlines()[-1]}")
    return folder / "bin" / "label-studio"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def process(command: List[Any], log: Path, url: str, seconds: float, **options: Any) -> Iterator[None]:
    """A server that answers at URL/health, until the block is left."""
    with log.open("w") as stream:
        running = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True, **options)
    try:
        end = time.monotonic() + seconds
        while True:
            try:
                requests.get(f"{url}/health", timeout=5)
                break
            except requests.RequestException:
                if time.monotonic() > end or running.poll() is not None:
                    pytest.fail(f"{command[0]} does not answer:\n{log.read_text()[-3000:]}")
                time.sleep(0.5)
        yield
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


@pytest.fixture(scope="module")
def server(label_studio: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Annotator"]:
    folder = tmp_path_factory.mktemp("label_studio")
    port = free_port()
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("LABEL_STUDIO", "PYTHON"))}
    variables.update(
        LABEL_STUDIO_BASE_DATA_DIR=str(folder),
        SENTRY_DSN="",
        FRONTEND_SENTRY_DSN="",
        COLLECT_ANALYTICS="false",
        LATEST_VERSION_CHECK="false",
        ML_BLOCK_LOCAL_IP="false",
        SSRF_PROTECTION_ENABLED="false",  # or webhooks do not go to this machine
    )
    command: List[Any] = [label_studio, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    command += ["--username", USER, "--password", PASSWORD, "--user-token", TOKEN, "--enable-legacy-api-token"]
    url = f"http://127.0.0.1:{port}"
    with process([*command, "--log-level", "WARNING"], folder / "log", url, 600, env=variables, cwd=folder):
        yield Annotator(url)


class Annotator:
    """Somebody with a browser: annotates what the server shows next."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        headers = {"Authorization": f"Token {TOKEN}"}
        response = requests.request(method, self.url + path, json=body, headers=headers, timeout=120)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    def next(self, project: int) -> Dict[str, Any]:
        return dict(self.call("GET", f"/api/projects/{project}/next"))

    def annotate(self, task: int, result: Optional[List[Any]]) -> None:
        """None skips the task."""
        body = {"result": result or [], "was_cancelled": result is None, "lead_time": 1.5}
        self.call("POST", f"/api/tasks/{task}/annotations/", body, 201)

    def personal_token(self) -> str:
        session = requests.Session()
        page = session.get(f"{self.url}/user/login/", timeout=60).text
        token = re.search(r'csrfmiddlewaretoken" value="([^"]+)', page)
        assert token
        form = {"csrfmiddlewaretoken": token[1], "email": USER, "password": PASSWORD}
        session.post(f"{self.url}/user/login/", data=form, headers={"Referer": self.url}, timeout=60)
        headers = {"X-CSRFToken": str(session.cookies["csrftoken"]), "Referer": self.url}
        settings = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
        session.post(f"{self.url}/api/jwt/settings", json=settings, headers=headers, timeout=60).raise_for_status()
        return str(session.post(f"{self.url}/api/token/", headers=headers, timeout=60).json()["token"])


@pytest.fixture(scope="module")
def models(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> List[str]:
    """A pipeline before and after a round of training, as far as Label Studio can tell."""
    folders = []
    for seed in (0, 1):
        folders.append(str(tmp_path_factory.mktemp("model")))
        make_nlp(bert_folder, seed=seed).to_disk(folders[-1])
    return folders


def call(*arguments: Any) -> List[str]:
    """Run a verb; RETURNS the lines that it says."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def spans_of(result: List[Dict[str, Any]]) -> List[Any]:
    values = [r["value"] for r in result if r["type"] == "labels"]
    return sorted((value["start"], value["end"], value["labels"][0]) for value in values)


def cats_of(result: List[Dict[str, Any]]) -> List[str]:
    return [label for r in result if r["type"] == "choices" for label in r["value"]["choices"]]


def test_two_rounds(server: Annotator, models: List[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    raw, tasks, answers = tmp_path / "raw.jsonl", tmp_path / "tasks.jsonl", tmp_path / "answers.json"
    raw.write_text("".join(json.dumps({"text": text, "source": "made"}) + "\n" for text in TEXTS), encoding="utf8")
    there = ("--url", server.url, "--project", "Two rounds")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)

    # First round
    call("suggest", models[0], raw, tasks, "--view", "blocks", "--limit", 8, "--strategy", "joint")
    suggested = {task["text"]: task for task in map(json.loads, tasks.read_text(encoding="utf8").splitlines())}
    pushed = call("label-studio-push", tasks, *there, "--model", models[0])
    assert pushed[1] == "8 new tasks"
    project = int(pushed[0].split()[2].rstrip(","))
    assert call("label-studio-push", tasks, *there, "--model", models[0])[-2].endswith("8 unchanged")
    expected: Dict[str, Any] = {}
    for text in list(suggested)[:5]:  # the least sure first, as `suggest` has them
        task = server.next(project)
        assert task["data"]["text"] == text and task["data"]["source"] == "made"
        [prediction] = task["predictions"]
        assert spans_of(prediction["result"]) == sorted(
            (span["start"], span["end"], span["label"]) for span in suggested[text]["spans"]
        )
        assert cats_of(prediction["result"]) == suggested[text]["accept"]
        result = answer(len(expected), text, prediction["result"])
        server.annotate(task["id"], result)
        expected[text] = result
    # By the other kind of token, as another user of the command would
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", server.personal_token())
    assert call("label-studio-pull", *there, "-o", answers)[0].startswith("Wrote 5 annotations of 5 texts")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    for _ in range(2):  # the second time changes nothing
        call("merge", "-a", answers, "-o", tmp_path / "corpus", "--split", "1,0,0")
    docs = {doc.text: doc for doc in read_corpus(tmp_path / "corpus")}
    assert set(docs) == {text for text, result in expected.items() if result is not None}
    for text, doc in docs.items():
        result = expected[text]
        assert [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents] == spans_of(result)
        assert all(token.ent_iob for token in doc)
        chosen = cats_of(result)
        assert doc.cats == ({label: float(label in chosen) for label in ("CANCEL", "TRACK")} if chosen else {})

    # Second round: of what nobody has annotated, some is there and some is new
    call("suggest", models[1], raw, tasks, "--view", "blocks", "--exclude", answers)
    suggested = {task["text"]: task for task in map(json.loads, tasks.read_text(encoding="utf8").splitlines())}
    assert set(suggested) == set(TEXTS) - {text for text, result in expected.items() if result is not None}
    n_there = len(set(suggested) & {task["data"]["text"] for task in tasks_of(server, project)})
    pushed = call("label-studio-push", tasks, *there, "--model", models[1])
    assert pushed[:2] == [
        f"{len(suggested) - n_there} new tasks",
        f"{n_there} tasks with new predictions, 0 unchanged",
    ]
    settings = server.call("GET", f"/api/projects/{project}")
    version = pipeline_version(spacy.load(models[1]))
    assert settings["model_version"] == version != pipeline_version(spacy.load(models[0]))
    for text in [text for text in suggested if text not in expected][:3]:
        task = server.next(project)
        assert task["data"]["text"] == text
        server.annotate(task["id"], [])


def read_corpus(folder: Path) -> List[Doc]:
    return list(DocBin().from_disk(folder / "train.spacy").get_docs(spacy.blank("en").vocab))


def tasks_of(server: Annotator, project: int) -> List[Dict[str, Any]]:
    return list(server.call("GET", f"/api/tasks?project={project}&page_size=100&fields=all")["tasks"])


def answer(number: int, text: str, suggested: List[Dict[str, Any]]) -> Optional[List[Dict[str, Any]]]:
    """Accept, correct, empty, skip, accept."""
    if number == 1:
        word = text.split()[0]
        value = {"start": 0, "end": len(word), "text": word, "labels": ["CITY"]}
        smile = text.index("😀") + 2
        other = {"start": smile, "end": len(text), "text": text[smile:], "labels": ["PERSON"]}
        common = {"from_name": "ner", "to_name": "text", "type": "labels"}
        choice = {"from_name": "cat", "to_name": "text", "type": "choices", "value": {"choices": ["CANCEL"]}}
        return [{**common, "id": "x", "value": value}, {**common, "id": "y", "value": other}, {**choice, "id": "z"}]
    return [] if number == 2 else None if number == 3 else suggested


def test_the_server_asks_our_backend(server: Annotator, models: List[str], tmp_path: Path):
    nlp = spacy.load(models[0])
    port = free_port()
    url, answers = f"http://127.0.0.1:{port}", tmp_path / "answers.jsonl"
    command = [sys.executable, "-m", "spacy", "bert-heads", "serve-label-studio", models[0], "--port", str(port)]
    variables = {**os.environ, "SPACY_BERT_HEADS_TOKEN": BACKEND_PASSWORD}
    with process([*command, "--answers", str(answers)], tmp_path / "log", url, 120, env=variables):
        assert requests.get(f"{url}/health", timeout=10).status_code == 401
        config = pipeline_config(nlp).to_xml(words=True)
        project = server.call("POST", "/api/projects", {"title": "Backend", "label_config": config}, 201)["id"]
        backend = {"project": project, "url": url, "title": "ours", "auth_method": "BASIC_AUTH"}
        backend.update(basic_auth_user="any", basic_auth_pass=BACKEND_PASSWORD)
        connected = server.call("POST", "/api/ml", backend, 201)
        assert connected["state"] == "CO" and connected["model_version"] == pipeline_version(nlp)
        password = b64encode(f"any:{BACKEND_PASSWORD}".encode()).decode()
        hook = {"project": project, "url": f"{url}/webhook", "send_payload": True, "send_for_all_actions": True}
        server.call("POST", "/api/webhooks/", {**hook, "headers": {"Authorization": f"Basic {password}"}}, 201)

        texts = [*TEXTS[:3], " "]
        imported = server.call(
            "POST", f"/api/projects/{project}/import?return_task_ids=true", [{"data": {"text": t}} for t in texts], 201
        )
        body = {"selectedItems": {"all": False, "included": imported["task_ids"]}}
        server.call("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", body)
        tasks = {task["data"]["text"]: task for task in tasks_of(server, project)}
        assert tasks[" "]["predictions"][0]["result"] == []
        for doc in nlp.pipe(TEXTS[:3]):
            [prediction] = tasks[doc.text]["predictions"]
            assert prediction["model_version"] == pipeline_version(nlp) and 0.0 <= prediction["score"] <= 1.0
            assert spans_of(prediction["result"]) == [(e.start_char, e.end_char, e.label_) for e in doc.ents]
            assert cats_of(prediction["result"]) == [max(doc.cats, key=lambda label: doc.cats[label])]

        first, second = (tasks[text] for text in TEXTS[:2])
        server.annotate(first["id"], first["predictions"][0]["result"])
        server.annotate(second["id"], [])
        server.call("POST", f"/api/ml/{connected['id']}/train")
        [mine] = server.call("GET", f"/api/tasks/{second['id']}")["annotations"]
        server.call("DELETE", f"/api/annotations/{mine['id']}/", status=204)
        assert len(answers.read_text(encoding="utf8").splitlines()) == 1
    call("merge", "-a", answers, "-o", tmp_path / "corpus", "--split", "1,0,0")
    [doc] = read_corpus(tmp_path / "corpus")
    assert doc.text == TEXTS[0]
    assert [(e.start_char, e.end_char, e.label_) for e in doc.ents] == spans_of(first["predictions"][0]["result"])
    assert [label for label, value in doc.cats.items() if value] == cats_of(first["predictions"][0]["result"])
    log = (tmp_path / "log").read_text()
    assert "was asked to train" in log
    assert BACKEND_PASSWORD not in log and TOKEN not in log
