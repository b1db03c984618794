"""`prelabel` against a server that answers well, badly and not at all: what is asked, paid, kept and written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import spacy
from spacy.tokens import DocBin, Span
from typer.testing import CliRunner

from spacy_bert_heads.annotation.hashes import set_hashes
from spacy_bert_heads.annotation.prelabel import endpoint as endpoint_module
from spacy_bert_heads.annotation.prelabel.cache import AnswerCache
from spacy_bert_heads.annotation.prelabel.endpoint import KEY_VARIABLE, is_loopback
from spacy_bert_heads.annotation.prelabel.examples import Examples
from spacy_bert_heads.annotation.prelabel.prelabel import prelabel
from spacy_bert_heads.annotation.prelabel.report import PrelabelReport
from spacy_bert_heads.annotation.prelabel.teacher import Plan, Teacher
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.corpus.docs import load_tokenizer
from spacy_bert_heads.errors import BertHeadsError

from ...corpus.helpers import write_jsonl
from .stub import Stub, complete, drip, know, reply, serve, text_of

KEY = "sk-verysecret0123456789"
TEXTS = [
    "Anna flies to Paris",
    "Bob saw Kim and Kim",
    "nothing here",
    "Kim flew from New York to London",
    "the Parisian Bobby",
]


@pytest.fixture()
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr(endpoint_module, "BACKOFF_SECONDS", 0.001)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serve() as server:
        yield server


@pytest.fixture()
def raw(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "raw.jsonl", *({"text": text, "id": number} for number, text in enumerate(TEXTS)))


def never(plan: Plan) -> bool:
    raise AssertionError("asked to confirm")


def make_teacher(stub: Stub, **settings: Any) -> Teacher:
    given = {
        "labels": ["LOC", "PER"],
        "categories": ["TRAVEL", "OTHER"],
        "concurrency": 3,
        "timeout": 10.0,
        **settings,
    }
    return Teacher(stub.url, "good-model", **given)


def run(stub: Stub, raw: Path, name: str = "tasks.jsonl", **settings: Any) -> PrelabelReport:
    own = ("format", "lang", "limit", "exclude", "cache", "force", "skip_bad", "confirm")
    options = {key: settings.pop(key) for key in own if key in settings}
    return prelabel(raw, raw.parent / name, make_teacher(stub, **settings), **{"confirm": never, **options})


def error_of(*args: Any, **settings: Any) -> BertHeadsError:
    with pytest.raises(BertHeadsError) as error:
        run(*args, **settings)
    return error.value


def read_tasks(folder: Path, name: str = "tasks.jsonl") -> List[Dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf8").splitlines()]


def spans_of(task: Dict[str, Any]) -> List[tuple]:
    return [(task["text"][span["start"] : span["end"]], span["label"]) for span in task["spans"]]


def test_answers_become_tasks_for_people(stub: Stub, raw: Path) -> None:
    report = run(stub, raw)
    tasks = read_tasks(raw.parent)
    assert [task["text"] for task in tasks] == TEXTS and [task["id"] for task in tasks] == list(range(5))
    assert spans_of(tasks[3]) == [("Kim", "PER"), ("New York", "LOC"), ("London", "LOC")]
    assert [(span["start"], span["end"]) for span in tasks[1]["spans"]] == [(0, 3), (8, 11), (16, 19)]
    assert [task["accept"] for task in tasks] == [["TRAVEL"], ["OTHER"], ["OTHER"], ["TRAVEL"], ["OTHER"]]
    for task in tasks:
        assert task["_view_id"] == "blocks" and task["config"]["choice_style"] == "single"
        assert [option["id"] for option in task["options"]] == ["TRAVEL", "OTHER"]
        assert "answer" not in task and task["teacher"].keys() == {"model", "prompt"}
        assert task["meta"] == {"teacher": "good-model", "prompt": task["teacher"]["prompt"]}
        asked = {key: value for key, value in task.items() if key in ("text", "spans", "id")}
        assert all(task[key] == value for key, value in set_hashes(asked).items())
        assert "".join(token["text"] + " " * token["ws"] for token in task["tokens"]) == task["text"]
    assert (report.n_tasks, report.n_ents, report.n_asked, report.n_cached) == (5, 8, 5, 0)
    assert (report.tokens_in, report.tokens_out) == (500, 50) and not report.rejected
    assert {body["response_format"]["type"] for body in stub.bodies} == {"json_schema"}
    assert all(body["temperature"] == 0 and body["model"] == "good-model" for body in stub.bodies)


def test_the_same_again_asks_nothing_and_replaces_nothing(stub: Stub, raw: Path) -> None:
    run(stub, raw)
    assert error_of(stub, raw).code == "H750"
    before = (raw.parent / "tasks.jsonl").read_bytes()
    report = run(stub, raw, force=True)
    assert (report.n_asked, report.n_cached, stub.n_requests) == (0, 5, 5)
    assert (raw.parent / "tasks.jsonl").read_bytes() == before
    # Another question, or another model, is another prompt
    run(stub, raw, "other.jsonl", cache=raw.parent / "tasks.jsonl.answers", labels=["PER", "LOC"])
    assert stub.n_requests == 10


def test_a_file_that_somebody_answers_is_never_replaced(stub: Stub, raw: Path) -> None:
    run(stub, raw)
    output = raw.parent / "tasks.jsonl"
    tasks = read_tasks(raw.parent)
    write_jsonl(output, *tasks[:-1], {**tasks[-1], "answer": "accept"})
    before = output.read_bytes()
    assert error_of(stub, raw, force=True).code == "H751" and output.read_bytes() == before
    assert stub.n_requests == 5


def test_a_file_that_appears_meanwhile_is_not_replaced_either(stub: Stub, raw: Path) -> None:
    output = raw.parent / "tasks.jsonl"

    def meanwhile(body: Dict[str, Any], number: int, handler: Any) -> bool:
        output.write_text('{"text": "x", "answer": "accept"}\n', encoding="utf8")
        return False

    stub.failing = meanwhile
    assert error_of(stub, raw).code == "H750" and "accept" in output.read_text(encoding="utf8")
    assert error_of(stub, raw, force=True).code == "H751" and stub.n_requests == 5


def test_a_higher_limit_draws_others_besides(stub: Stub, tmp_path: Path) -> None:
    raw = write_jsonl(tmp_path / "raw.jsonl", *({"text": f"text {number}"} for number in range(100)))
    run(stub, raw, labels=["PER"], categories=[], limit=10)
    first = {task["text"] for task in read_tasks(tmp_path)}
    assert len(first) == 10 and not first <= {f"text {number}" for number in range(20)}
    report = run(stub, raw, labels=["PER"], categories=[], limit=25, force=True)
    assert first < {task["text"] for task in read_tasks(tmp_path)} and (report.n_asked, report.n_cached) == (15, 10)


def test_texts_are_asked_about_once_and_not_those_that_are_done(stub: Stub, tmp_path: Path) -> None:
    raw = write_jsonl(tmp_path / "raw.jsonl", *({"text": text} for text in [*TEXTS, TEXTS[0], "  ", TEXTS[0]]))
    done = write_jsonl(tmp_path / "done.jsonl", {"text": TEXTS[2], "spans": [], "answer": "ignore"})
    report = run(stub, raw, exclude=[done])
    assert sorted(stub.texts) == sorted({*TEXTS} - {TEXTS[2]})
    assert (report.n_read, report.n_blank, report.n_duplicates, report.n_excluded) == (8, 1, 2, 1)
    assert run(stub, raw, "some.jsonl", limit=2).n_tasks == 2


@pytest.mark.parametrize(
    ("change", "rejected"),
    [
        (lambda answer: answer, {}),
        (lambda answer: json.loads(json.dumps(answer).lower().replace('"per"', '"Per"')), {}),
        (lambda answer: f"Here you are:\n```json\n{json.dumps(answer)}\n```", {}),
        (
            lambda answer: {**answer, "entities": [*answer["entities"], {"text": "Xyz", "label": "PER"}]},
            {"not_there": 5},
        ),
        (
            lambda answer: {**answer, "entities": [*answer["entities"], {"text": "a", "label": "ORG"}]},
            {"unknown_label": 5},
        ),
    ],
    ids=["right", "case", "prose", "invented", "labels"],
)
def test_what_can_be_used_is_used(
    stub: Stub, raw: Path, change: Callable[[Dict[str, Any]], Any], rejected: Dict[str, int]
) -> None:
    stub.answer = lambda text: change(know(text))
    report = run(stub, raw)
    assert (report.n_tasks, report.n_ents, dict(report.rejected)) == (5, 8, rejected)
    assert all(f"{count:,} " in report.to_text() for count in rejected.values())


def test_texts_without_a_usable_answer_are_left_out_and_counted(stub: Stub, raw: Path) -> None:
    bad = {
        TEXTS[0]: json.dumps(know(TEXTS[0]))[:30],
        TEXTS[1]: know(TEXTS[0]),
        TEXTS[2]: "No.",
    }
    stub.answer = lambda text: bad.get(text, know(text))
    report = run(stub, raw)
    assert [task["text"] for task in read_tasks(raw.parent)] == TEXTS[3:]
    assert dict(report.unusable) == {"no_json": 2, "other_text": 1}
    # They were paid for as well
    assert run(stub, raw, force=True).n_asked == 0
    stub.answer = lambda text: "No."
    assert error_of(stub, raw, "other.jsonl").code == "H746" and not (raw.parent / "other.jsonl").exists()


def test_an_endpoint_that_knows_no_schema_is_asked_for_less(stub: Stub, raw: Path) -> None:
    def fail(body: Dict[str, Any], number: int, handler: Any) -> bool:
        if "max_tokens" in body:
            return reply(handler, 400, {"error": {"message": "Use 'max_completion_tokens' instead."}})
        if "temperature" in body:
            return reply(handler, 400, {"error": {"message": "temperature must be 1"}})
        kind = body.get("response_format", {}).get("type")
        return kind == "json_schema" and reply(handler, 400, {"error": "unknown response_format"})

    stub.failing = fail
    assert run(stub, raw).n_ents == 8
    assert all(body["response_format"] == {"type": "json_object"} for body in stub.bodies)
    assert stub.n_requests == 5 + 3  # what it understands is found once


def test_an_endpoint_that_knows_no_json_at_all(stub: Stub, raw: Path) -> None:
    def fail(body: Dict[str, Any], number: int, handler: Any) -> bool:
        return "response_format" in body and reply(handler, 500, b"oops")

    stub.failing = fail
    assert run(stub, raw).n_ents == 8 and all("response_format" not in body for body in stub.bodies)


def test_429_and_5xx_are_tried_again(stub: Stub, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Dict[str, int] = {}

    def fail(body: Dict[str, Any], number: int, handler: Any) -> bool:
        text = text_of(body)
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 1:
            return reply(handler, 429, {"error": {"message": "slow down"}}, Retry_After="0.25")
        return seen[text] == 2 and number > 5 and reply(handler, 503, b"")

    stub.failing = fail
    start = time.monotonic()
    report = run(stub, raw, concurrency=1)
    assert report.n_tasks == 5 and report.n_asked == 5 and not report.refused
    assert time.monotonic() - start >= 5 * 0.25
    assert set(seen.values()) <= {2, 3}


def test_a_text_that_is_refused_does_not_stop_the_others(stub: Stub, raw: Path) -> None:
    def fail(body: Dict[str, Any], number: int, handler: Any) -> bool:
        return text_of(body) == TEXTS[3] and reply(handler, 400, {"error": {"message": "too long"}})

    stub.failing = fail
    report = run(stub, raw)
    assert report.n_tasks == 4 and report.refused == {"status 400: too long": 1}
    stub.failing = None
    assert run(stub, raw, force=True).n_asked == 1


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": 3}}]}']
)
def test_garbage_stops_the_run_soon(stub: Stub, raw: Path, answer: bytes) -> None:
    stub.failing = lambda body, number, handler: reply(handler, 200, answer)
    error = error_of(stub, raw)
    assert error.code == "H746" and not (raw.parent / "tasks.jsonl").exists()
    assert stub.n_requests <= 5


def test_an_answer_without_end_is_cut_off(stub: Stub, raw: Path) -> None:
    stub.failing = lambda body, number, handler: reply(
        handler, 200, b" " * (endpoint_module.MAX_ANSWER_BYTES + 10_000)
    )
    assert "more than" in str(error_of(stub, raw))


def test_a_slow_endpoint_is_not_waited_for(stub: Stub, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "TRIES", 1)
    stub.failing = lambda body, number, handler: drip(handler, 3.0)
    start = time.monotonic()
    error = error_of(stub, raw, timeout=0.3, limit=1)
    assert error.code == "H746" and "0.3 seconds" in str(error) and time.monotonic() - start < 2.5


def test_an_endpoint_that_is_down_says_so_at_once(stub: Stub, raw: Path) -> None:
    with serve() as gone:
        pass
    start = time.monotonic()
    error = error_of(gone, raw)
    assert error.code == "H743" and gone.url in str(error) and time.monotonic() - start < 5


def test_a_wrong_model_a_wrong_key_and_a_redirect_are_told(stub: Stub, raw: Path) -> None:
    stub.failing = lambda body, number, handler: reply(handler, 404, {"error": {"message": "no such model"}})
    error = error_of(stub, raw)
    assert error.code == "H745" and "no such model" in str(error) and "Its models: good-model" in str(error)
    stub.failing = lambda body, number, handler: reply(handler, 401, {"error": {"message": "who are you"}})
    assert error_of(stub, raw).code == "H744"
    stub.failing = lambda body, number, handler: reply(handler, 302, b"", Location="http://127.0.0.1:9/")
    assert error_of(stub, raw).code == "H746"


def test_the_key_is_sent_and_found_nowhere(
    stub: Stub, raw: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)

    def fail(body: Dict[str, Any], number: int, handler: Any) -> bool:
        """Sends it back, in an answer and in an error."""
        given = handler.headers["Authorization"].split()[-1]
        if text_of(body) == TEXTS[0]:
            return reply(handler, 200, complete({**know(TEXTS[0]), "note": given}))
        return text_of(body) == TEXTS[1] and reply(handler, 400, {"error": {"message": f"bad key {given}"}})

    stub.failing = fail
    arguments = [
        "--endpoint",
        stub.url,
        "--model",
        "good-model",
        "--labels",
        "LOC,PER",
        "--categories",
        "TRAVEL,OTHER",
    ]
    result = CliRunner().invoke(app, ["prelabel", str(raw), str(raw.parent / "tasks.jsonl"), *arguments])
    assert result.exit_code == 0, result.output
    assert set(stub.keys) == {f"Bearer {KEY}"} and "bad key ***" in result.output
    stub.failing = lambda body, number, handler: reply(handler, 401, {"error": handler.headers["Authorization"]})
    failed = CliRunner().invoke(app, ["prelabel", str(raw), str(raw.parent / "more.jsonl"), *arguments])
    assert failed.exit_code == 1 and "H744" in failed.output
    shown = result.output + failed.output + str(failed.exception) + "".join(capfd.readouterr())
    assert KEY not in shown
    for path in raw.parent.rglob("*"):
        assert KEY.encode() not in path.read_bytes(), path
    for wrong in ("two words", "ключ", ""):
        monkeypatch.setenv(KEY_VARIABLE, wrong)
        assert error_of(stub, raw, "x.jsonl").code in ("H742", "H580")


def test_a_budget_is_never_exceeded_and_a_higher_one_goes_on(stub: Stub, raw: Path) -> None:
    # An answer costs 100 * 1 + 10 * 1 = 110 millionths. Before it is there, it may cost a few thousand
    prices = {"price_in": 1.0, "price_out": 1.0, "max_tokens": 100, "concurrency": 2}
    most = error_of(stub, raw, budget=1e-6, **prices)
    assert most.code == "H752" and stub.n_requests == 0
    bound = float(str(most).split("up to ")[1].split(". ")[0])
    report = run(stub, raw, budget=bound + 0.00025, **prices)
    assert 1 <= report.n_asked < 5 and report.n_left == 5 - report.n_asked == 5 - report.n_tasks
    assert report.total_cost == pytest.approx(0.00011 * report.n_asked) and "budget is spent" in report.to_text()
    asked = list(stub.texts)
    more = run(stub, raw, budget=1.0, force=True, **prices)
    assert more.n_tasks == 5 and more.n_asked == 5 - report.n_asked
    assert sorted(stub.texts) == sorted(TEXTS) and stub.texts[: len(asked)] == asked
    assert more.total_cost == pytest.approx(0.00055)
    with pytest.raises(BertHeadsError, match="H504"):
        run(stub, raw, budget=1.0)


def test_tokens_that_nobody_counts_are_estimated(stub: Stub, raw: Path) -> None:
    stub.usage = False
    report = run(stub, raw)
    assert report.n_estimated == 5 and report.tokens_in > 500 and "estimated" in report.to_text()


def test_nothing_leaves_the_machine_unless_it_is_confirmed(
    stub: Stub, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "is_loopback", lambda host: False)
    plans: List[Plan] = []

    def confirm(plan: Plan) -> bool:
        plans.append(plan)
        return len(plans) > 1

    error = error_of(stub, raw, confirm=confirm)
    assert error.code == "H747" and "5 texts" in str(error) and "not encrypted" in str(error)
    assert stub.n_requests == 0
    assert run(stub, raw, confirm=confirm, limit=3).n_tasks == 3 and plans[-1].n_texts == 3
    run(stub, raw, confirm=confirm, force=True)
    assert plans[-1].n_texts == 2  # those that were not sent before
    run(stub, raw, confirm=never, force=True)
    arguments = ["--endpoint", stub.url, "--model", "m", "--labels", "LOC"]
    result = CliRunner().invoke(app, ["prelabel", str(raw), str(raw.parent / "new.jsonl"), *arguments])
    assert result.exit_code == 1 and "--yes" in result.output and stub.n_requests == 5
    result = CliRunner().invoke(app, ["prelabel", str(raw), str(raw.parent / "new.jsonl"), *arguments, "--yes"])
    assert result.exit_code == 0 and "Wrote 5 tasks" in result.output


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("LOCALHOST", True), ("localhost.evil.org", False)]
    + [("10.0.0.1", False), ("0.0.0.0", False), ("127.0.0.1.nip.io", False), ("example.org", False)],
)
def test_only_this_machine_is_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "ftp://a/v1", "http://u:p@a/v1", "http://a/v1?key=x", "http://a:0", "http://["]
)
def test_addresses_that_are_none(stub: Stub, raw: Path, url: str) -> None:
    with pytest.raises(BertHeadsError) as error:
        prelabel(raw, raw.parent / "t.jsonl", Teacher(url, "m", labels=["A"]), confirm=never)
    assert error.value.code == "H741" and "u:p" not in str(error.value)


def test_a_proxy_does_not_get_what_stays_on_this_machine(
    stub: Stub, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert run(stub, raw).n_tasks == 5 and proxy.n_requests == 0


def test_two_answers_say_what_is_sure(stub: Stub, raw: Path) -> None:
    def fail(body: Dict[str, Any], number: int, handler: Any) -> bool:
        reversed_labels = body["messages"][0]["content"].index("- PER") < body["messages"][0]["content"].index("- LOC")
        content = know(text_of(body))
        if reversed_labels:
            content["entities"] = content["entities"][:1]
        return reply(handler, 200, complete(content))

    stub.failing = fail
    report = run(stub, raw, twice=True)
    task = read_tasks(raw.parent)[3]
    assert report.n_asked == 10 and spans_of(task) == [("Kim", "PER"), ("New York", "LOC"), ("London", "LOC")]
    assert [span["score"] for span in task["spans"]] == [1.0, 0.5, 0.5]
    assert task["teacher"]["unsure"] == [[14, 22], [26, 32]] and task["meta"]["agreement"] == 0.67
    assert read_tasks(raw.parent)[2]["meta"]["agreement"] == 1.0 and "agree by" in report.to_text()


def test_label_studio_and_doccano_get_the_same(stub: Stub, raw: Path) -> None:
    run(stub, raw, "ls.json", format="label-studio", cache=raw.parent / "answers")
    run(stub, raw, "doc.jsonl", format="doccano", cache=raw.parent / "answers")
    assert stub.n_requests == 5
    tasks = json.loads((raw.parent / "ls.json").read_text(encoding="utf8"))
    [prediction] = tasks[3]["predictions"]
    assert prediction["model_version"] == "good-model" and "annotations" not in tasks[3]
    assert [result["value"].get("text") for result in prediction["result"]][:3] == ["Kim", "New York", "London"]
    assert tasks[3]["data"]["teacher"] == "good-model" and tasks[3]["data"]["id"] == 3
    record = read_tasks(raw.parent, "doc.jsonl")[3]
    assert [record["text"][start:end] for start, end, _ in record["entities"]] == ["Kim", "New York", "London"]
    assert record["cats"] == ["TRAVEL"] and record["teacher"] == "good-model" and record["id"] == 3


def test_similar_examples_are_shown_and_their_labels_are_those(stub: Stub, raw: Path) -> None:
    nlp = spacy.blank("en")
    docs = []
    for text, person, city in [
        ("Anna flew to London", 0, 3),
        ("Bob likes cheese in Paris", 0, 4),
        ("Kim saw a dog in London", 0, 5),
    ]:
        doc = nlp(text)
        doc.set_ents([Span(doc, person, person + 1, "PER"), Span(doc, city, city + 1, "LOC")], default="outside")
        doc.cats = {"TRAVEL": float("flew" in text), "OTHER": float("flew" not in text)}
        docs.append(doc)
    corpus = raw.parent / "corpus.spacy"
    DocBin(docs=docs).to_disk(corpus)
    again = raw.parent / "." / "corpus.spacy"
    report = run(stub, raw, labels=[], categories=[], examples=[corpus, again], shots=2)
    assert report.n_tasks == 5 and report.n_ents == 8
    messages = next(body["messages"] for body in stub.bodies if text_of(body) == TEXTS[3])
    assert [one["role"] for one in messages] == ["system", *["user", "assistant"] * 2, "user"]
    # The most similar one, by words that few texts have, is next to the text
    assert messages[3]["content"] == "Anna flew to London"
    assert json.loads(messages[4]["content"]) == {
        "entities": [
            {"text": "Anna", "label": "PER", "occurrence": 1},
            {"text": "London", "label": "LOC", "occurrence": 1},
        ],
        "categories": ["TRAVEL"],
    }
    # A text that is annotated is not asked about
    more = write_jsonl(raw.parent / "more.jsonl", {"text": "Anna flew to London"}, {"text": "Kim"})
    assert run(stub, more, "m.jsonl", examples=[corpus]).n_excluded == 1


def test_chinese_examples_are_chosen_by_characters(tmp_path: Path) -> None:
    records = [
        {"text": text, "spans": [], "answer": "accept"} for text in ("我想退款，谢谢", "北京天气很好", "订单在哪里")
    ]
    examples = Examples([write_jsonl(tmp_path / "zh.jsonl", *records)], load_tokenizer("zh"))
    assert examples.choose(ents=True, cats=False) == 3 and examples.choose(ents=True, cats=True) == 0
    examples.choose(ents=True, cats=False)
    assert examples.find("上海天气不好", 1)[0].text == "北京天气很好"
    assert [shot.text for shot in examples.find("我的订单在哪里？", 1)] == ["订单在哪里"]


def test_an_interrupted_run_keeps_what_it_has_and_goes_on(
    stub: Stub, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = AnswerCache.put
    n_kept = 0

    def interrupted(self: AnswerCache, *args: Any) -> None:
        nonlocal n_kept
        put(self, *args)
        n_kept += 1
        if n_kept == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(AnswerCache, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(stub, raw)
    assert not (raw.parent / "tasks.jsonl").exists() and 2 <= len(stub.texts) < 5
    assert run(stub, raw).n_tasks == 5 and sorted(stub.texts) == sorted(TEXTS)


KILLED = """
import sys
from spacy_bert_heads.cli.app import app
app(["prelabel", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_run_goes_on_with_nothing_asked_twice(stub: Stub, tmp_path: Path) -> None:
    texts = [f"Anna took flight {number}" for number in range(40)]
    raw = write_jsonl(tmp_path / "raw.jsonl", *({"text": text} for text in texts))
    output = tmp_path / "tasks.jsonl"
    stub.failing = lambda body, number, handler: time.sleep(0.05)
    arguments = [
        str(raw),
        str(output),
        "--endpoint",
        stub.url,
        "--model",
        "m",
        "--labels",
        "PER",
        "--concurrency",
        "1",
    ]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(stub.texts) < 8 and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_before = len(stub.texts)
    assert 8 <= n_before < 40 and not output.exists()
    stub.failing = None
    report = run(stub, raw, labels=["PER"], categories=[])
    # (make_teacher names another model, so ask as the killed run did)
    result = CliRunner().invoke(app, ["prelabel", *arguments, "--force"])
    assert result.exit_code == 0, result.output
    asked = [text for text, body in zip(stub.texts, stub.bodies) if body["model"] == "m"]
    # The one that was on its way when the process died can be asked for again, and no other
    assert set(asked) == set(texts) and len(asked) <= 41 and report.n_tasks == 40
    assert len(read_tasks(tmp_path)) == 40


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("empty.txt", b"", "H505"),
        ("blank.txt", b" \n\t\n", "H505"),
        ("raw.csv", b"a,b\n", "H166"),
        ("bad.jsonl", b'{"text": 3}\n', "H107"),
        ("none.jsonl", None, "H101"),
    ],
)
def test_files_that_cannot_be_used(stub: Stub, tmp_path: Path, name: str, content: Any, code: str) -> None:
    raw = tmp_path / name
    if content is not None:
        raw.write_bytes(content)
    assert error_of(stub, raw).code == code and stub.n_requests == 0
    assert not (tmp_path / "tasks.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"labels": [], "categories": []}, "H740"),
        ({"labels": ["A", "A"]}, "H332"),
        ({"categories": ["A"]}, "H504"),
        ({"concurrency": 0}, "H504"),
        ({"timeout": float("nan")}, "H504"),
        ({"price_in": -1.0}, "H504"),
        ({"shots": -1}, "H504"),
        ({"format": "conll"}, "H167"),
        ({"limit": 0}, "H504"),
        ({"twice": True, "labels": ["LOC"], "categories": []}, "H504"),
    ],
)
def test_settings_that_make_no_sense(stub: Stub, raw: Path, settings: Dict[str, Any], code: str) -> None:
    assert error_of(stub, raw, **settings).code == code and stub.n_requests == 0


def test_a_cache_that_is_none_and_outputs_that_are_inputs(stub: Stub, raw: Path) -> None:
    (raw.parent / "cache").write_text("not a database, but a file of text", encoding="utf8")
    assert error_of(stub, raw, cache=raw.parent / "cache").code == "H749"
    assert error_of(stub, raw, cache=raw).code == "H123"
    assert error_of(stub, raw, "raw.jsonl", force=True).code == "H123"


def test_long_texts_and_control_characters(stub: Stub, tmp_path: Path) -> None:
    long = "Anna went on. " * 1500 + "Then came Kim."
    raw = write_jsonl(
        tmp_path / "raw.jsonl", {"text": long}, {"text": "Kim\x1b[2J and Bob\ud83d".encode("utf8", "replace").decode()}
    )
    report = run(stub, raw)
    tasks = read_tasks(tmp_path)
    assert report.n_tasks == 2 and len(long) > 20_000 and len(tasks[0]["spans"]) == 1501
    assert stub.bodies[0]["max_tokens"] > 2048 and spans_of(tasks[0])[-1] == ("Kim", "PER")


def test_docs_without_words_and_only_categories(stub: Stub, tmp_path: Path) -> None:
    raw = tmp_path / "raw.txt"
    raw.write_text("fly\n\nbus\n", encoding="utf8")
    stub.answer = lambda text: {"categories": ["TRAVEL"] if text == "fly" else []}
    report = run(stub, raw, labels=[], multiple=True)
    tasks = read_tasks(tmp_path)
    assert [task["accept"] for task in tasks] == [["TRAVEL"], []] and report.n_tasks == 2
    assert all(task["config"] == {"choice_style": "multiple"} and "spans" not in task for task in tasks)
