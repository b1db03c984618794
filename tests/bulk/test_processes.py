"""The local engine with processes that are real, and the engine ray: they end, they are killed, and they agree."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy

import spacy_bert_heads
from spacy_bert_heads.bulk.predictions import Options
from spacy_bert_heads.bulk.run import apply_to_files
from spacy_bert_heads.errors import BertHeadsError

from ..corpus.helpers import write_jsonl
from ..making import make_texts

CODE = """
import os, time
from spacy.language import Language

@Language.component("test_apply_exit")
def exit(doc):
    if "killer" in doc.text:
        os._exit(3)
    if "slow" in doc.text:
        time.sleep(0.2)
    doc.user_data["environment"] = {name: os.environ.get(name) for name in (
        "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    return doc
"""


@pytest.fixture
def exits(tmp_path: Path) -> Any:
    code = tmp_path / "code.py"
    code.write_text(CODE)
    nlp = spacy.blank("en")
    nlp.to_disk(tmp_path / "exits")
    config = (tmp_path / "exits" / "config.cfg").read_text()
    config = config.replace("pipeline = []", 'pipeline = ["exit"]')
    config = config.replace("[components]", '[components]\n\n[components.exit]\nfactory = "test_apply_exit"', 1)
    (tmp_path / "exits" / "config.cfg").write_text(config)
    return str(tmp_path / "exits"), code


def read_records(output: Path) -> List[Dict[str, Any]]:
    parts = sorted(output.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text(encoding="utf8").splitlines()]


@pytest.mark.slow
def test_a_text_that_ends_processes_is_set_aside(exits: Any, tmp_path: Path) -> None:
    model, code = exits
    records = [{"id": number, "text": "killer" if number == 7 else f"text {number}"} for number in range(30)]
    source = write_jsonl(tmp_path / "in.jsonl", *records)
    report = apply_to_files(model, [source], tmp_path / "out", options=Options(), n_process=1, code=code, batch_size=8)
    assert (report.n_items, report.n_rejected) == (30, 1)
    assert [record["id"] for record in read_records(tmp_path / "out")] == [n for n in range(30) if n != 7]
    rejected = json.loads((tmp_path / "out" / "rejected.jsonl").read_text())
    assert (rejected["line"], rejected["code"]) == (8, "H653")


def find_workers(parent: int) -> List[int]:
    tasks = Path(f"/proc/{parent}/task")
    children = [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    return [pid for pid in children if b"bulk.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_worker_killed_from_outside_costs_nothing_and_a_killed_run_leaves_none(exits: Any, tmp_path: Path) -> None:
    model, code = exits
    records = [{"id": number, "text": f"slow text {number}"} for number in range(60)]
    source = write_jsonl(tmp_path / "in.jsonl", *records)
    command = [sys.executable, "-m", "spacy", "bert-heads", "apply", model, str(source), str(tmp_path / "out")]
    command += ["-j", "1", "--shard-size", "20", "--batch-size", "4", "--code", str(code)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    manifest = tmp_path / "out" / "manifest.jsonl"

    def wait_for(n_shards: int) -> None:
        while not manifest.exists() or manifest.read_bytes().count(b"\n") <= n_shards:
            assert process.poll() is None
            time.sleep(0.05)

    wait_for(1)
    (worker,) = find_workers(process.pid)
    os.kill(worker, signal.SIGKILL)
    wait_for(2)
    (worker,) = find_workers(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "texts of them in an earlier run" in done.stdout, done.stderr
    assert [record["id"] for record in read_records(tmp_path / "out")] == list(range(60))
    assert not (tmp_path / "out" / "rejected.jsonl").exists()


@pytest.mark.slow
def test_a_run_that_stops_leaves_no_file_of_a_shard_that_was_finished_meanwhile(
    exits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, code = exits
    source = write_jsonl(tmp_path / "in.jsonl", *({"id": number, "text": "text"} for number in range(20)))
    output, waiting = tmp_path / "out", []

    def fail(descriptor: int) -> None:
        if list(output.glob("part-*")):  # the first shard is in its place, and not yet in the manifest
            deadline = time.monotonic() + 60
            while not waiting and time.monotonic() < deadline:
                waiting[:] = output.glob(".part-000001*")
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(BertHeadsError, match="No space left"):
            apply_to_files(model, [source], output, options=Options(), n_process=1, code=code, shard_size=4)
    assert waiting and not list(output.glob(".part*"))
    apply_to_files(model, [source], output, options=Options(), n_process=1, code=code, shard_size=4)
    assert [record["id"] for record in read_records(output)] == list(range(20))


@pytest.mark.slow
def test_processes_have_one_thread_which_does_not_spin_and_errors_come_through(
    exits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spacy.tokens import DocBin

    model, code = exits
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    source = write_jsonl(tmp_path / "in.jsonl", {"text": "a"})
    options = Options(format="spacy")
    apply_to_files(model, [source], tmp_path / "out", options=options, n_process=1, code=code)
    (doc,) = DocBin().from_disk(tmp_path / "out" / "part-000000.spacy").get_docs(spacy.blank("en").vocab)
    expected = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE"}
    assert doc.user_data["environment"] == expected
    with pytest.raises(BertHeadsError) as info:
        apply_to_files(model, [source], tmp_path / "other", options=options, n_process=1)  # without its code
    assert info.value.code == "H227" and "test_apply_exit" in str(info.value)


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_named(model: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", {"text": "a"})
    with pytest.raises(BertHeadsError) as info:
        apply_to_files(model, [source], tmp_path / "out", options=Options(), gpus=[97])
    assert info.value.code == "H656" and "GPU 97" in str(info.value)


def test_the_package_is_imported_without_torch_and_spacy() -> None:
    script = """
import sys, spacy_bert_heads
assert "torch" not in sys.modules and "spacy" not in sys.modules
assert callable(spacy_bert_heads.apply)
assert "torch" not in [name for name in sys.modules if name == "ray"]
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError):
        getattr(spacy_bert_heads, "applied")  # noqa: B009


@pytest.mark.slow
def test_ray_gives_the_same_records(model: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    records: List[Any] = [{"id": number, "text": text} for number, text in enumerate(make_texts(60))]
    records[10:10] = ['{"id": "bad"}']
    source = write_jsonl(tmp_path / "in.jsonl", *records)
    for engine in ("local", "ray"):
        settings: Dict[str, Any] = {"engine": engine, "n_process": 1, "shard_size": 16}
        report = apply_to_files(model, [source], tmp_path / engine, options=Options(), **settings)
        assert (report.n_items, report.n_rejected, report.n_shards) == (61, 1, 4)
    for one, other in zip(read_records(tmp_path / "local"), read_records(tmp_path / "ray"), strict=True):
        assert one["id"] == other["id"] and one["text"] == other["text"]
        assert [{**ent, "confidence": 0} for ent in one["ents"]] == [{**ent, "confidence": 0} for ent in other["ents"]]
        sure = [[ent["confidence"] for ent in record["ents"]] for record in (one, other)]
        assert sure[0] == pytest.approx(sure[1], abs=1e-5)
        assert one["cats"] == pytest.approx(other["cats"], abs=1e-5)
    names = [sorted(path.name for path in (tmp_path / engine).iterdir()) for engine in ("local", "ray")]
    assert names[0] == names[1]
    # What one engine has begun, the other goes on with, and sees that the input has changed
    (tmp_path / "local" / "part-000002.jsonl").unlink()
    report = apply_to_files(model, [source], tmp_path / "local", options=Options(), engine="ray", shard_size=16)
    assert report.n_before > 0 and len(read_records(tmp_path / "local")) == 60
    write_jsonl(source, *records[1:])
    with pytest.raises(BertHeadsError) as info:
        apply_to_files(model, [source], tmp_path / "ray", options=Options(), engine="ray", shard_size=16)
    assert info.value.code == "H648"
