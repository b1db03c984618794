"""`bert-heads train`: what `spacy train` gives, and the same after any interruption."""

import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import DocBin
from thinc.api import Config
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.training import checkpoint, loop
from spacy_bert_heads.training.checkpoint import find_checkpoints
from spacy_bert_heads.training.run import run

from ..making import make_examples, make_nlp, make_scratch_config

HEAD_NAMES = ("bert_textcat", "bert_ner", "tagger")
ADAMW = {"@optimizers": "spacy_bert_heads.AdamW.v1", "learn_rate": 0.003, "total_steps": None}
# With everything that has a state: moments, averages, a schedule
ADAM = {
    "@optimizers": "Adam.v1",
    "use_averages": True,
    "learn_rate": {"@schedules": "warmup_linear.v1", "initial_rate": 0.003, "warmup_steps": 3, "total_steps": 20},
}
LEFT = {"model-best", "model-last", "training.json"}
ANNOTATING = ["transformer", "bert_ner"]


class Killed(BaseException):
    """Ends a training as abruptly as an exception can."""


def make_corpus(path: Path, times: int = 4) -> str:
    nlp = spacy.blank("en")
    DocBin(docs=[eg.reference for _ in range(times) for eg in make_examples(nlp)]).to_disk(path)
    return str(path)


def make_config_file(folder: Path, **training: Any) -> Path:
    """Three heads, dropout everywhere; 4 epochs of 4 batches, evaluated at every third step."""
    nlp = make_nlp(encoder=make_scratch_config(dropout=0.1), heads=HEAD_NAMES, initialize=False)
    config = nlp.config.copy()
    corpus = make_corpus(folder / "corpus.spacy")
    config["paths"] = {"train": corpus, "dev": corpus, "vectors": None, "init_tok2vec": None}
    settings = {"max_epochs": 4, "max_steps": 0, "eval_frequency": 3, "dropout": 0.2, "seed": 7, "patience": 0}
    config["training"].update({**settings, "optimizer": ADAMW, **training})
    config["training"]["batcher"] = {"@batchers": "spacy.batch_by_sequence.v1", "size": 3}
    config["training"]["logger"] = {
        "@loggers": "spacy_bert_heads.ConsoleLogger.v1",
        "output_file": str(folder / "log.jsonl"),
    }
    config["initialize"]["before_init"] = {"@callbacks": "spacy_bert_heads.count_steps.v1"}
    Config(config).to_disk(folder / "config.cfg")
    return folder / "config.cfg"


def train(config: Path, output: Path, *, resume: bool = False, or_restart: bool = False, **overrides: Any) -> str:
    settings: Dict[str, Any] = {"use_gpu": -1, "resume": resume, "or_restart": or_restart, "verbose": False}
    return run(config, output, overrides=overrides, **settings)


def read_rows(output: Path) -> List[Dict[str, Any]]:
    rows = json.loads((output / "training.json").read_text())["evaluations"]
    assert rows
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def rows_without_time(rows: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    # A dev score of speed, or the time, is not the same twice
    return [
        {**row, "scores": {name: value for name, value in row["scores"].items() if name != "speed"}} for row in rows
    ]


def model_bytes(nlp: Language) -> List[bytes]:
    return [component.model.to_bytes() for _, component in nlp.pipeline]  # type: ignore[attr-defined]


def assert_same_training(one: Path, other: Path) -> None:
    assert rows_without_time(read_rows(one)) == rows_without_time(read_rows(other))
    for name in ("model-last", "model-best"):
        first, second = spacy.load(one / name), spacy.load(other / name)
        assert model_bytes(first) == model_bytes(second)
        scores = [dict(nlp.meta["performance"]) for nlp in (first, second)]
        assert scores[0] == scores[1] and scores[0]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train(make_config_file(folder), folder / "out")
    return folder


def test_the_training_is_that_of_spacy_train(unbroken: Path, tmp_path: Path) -> None:
    from spacy.cli.train import train as spacy_train

    spacy_train(unbroken / "config.cfg", tmp_path, overrides={"training.logger.output_file": None})
    for name in ("model-last", "model-best"):
        ours, theirs = spacy.load(unbroken / "out" / name), spacy.load(tmp_path / name)
        assert model_bytes(ours) == model_bytes(theirs)
        assert ours.meta["performance"].keys() == theirs.meta["performance"].keys()


def test_it_says_what_it_does_before_and_after_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_config_file(tmp_path, max_steps=4), tmp_path / "out")
    said = " ".join(capsys.readouterr().out.split())
    steps = ("Loading the training corpus; 5 steps", "every 3", "epoch", "An evaluation takes")
    places = [said.index(part) for part in ("Initialising: ", "learning a vocabulary", *steps)]
    assert places == sorted(places) and said.count("An evaluation takes") == 1
    assert "1 more, the next after step 3, take" in said


def test_what_a_training_leaves(unbroken: Path) -> None:
    assert {path.name for path in (unbroken / "out").iterdir()} - {"training.png"} == LEFT
    rows = read_rows(unbroken / "out")
    assert [row["step"] for row in rows] == [0, 3, 6, 9, 12, 15]
    assert rows[-1]["losses"]["bert_ner"] < rows[0]["losses"]["bert_ner"]
    # 12 texts in 4 epochs of 4 batches
    config = spacy.load(unbroken / "out" / "model-last").config
    assert config["training"]["optimizer"]["total_steps"] == 16


def kill_at(monkeypatch: pytest.MonkeyPatch, where: str, count: int) -> None:
    """Let the training die when it comes to a place for the count-th time."""
    calls = 0

    def wrap(module: Any, name: str, after: bool) -> None:
        function = getattr(module, name)

        def dying(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if after:
                function(*args, **kwargs)
            if calls == count:
                monkeypatch.undo()
                raise Killed
            return None if after else function(*args, **kwargs)

        monkeypatch.setattr(module, name, dying)

    {
        "step": lambda: wrap(Language, "update", after=False),
        "before a checkpoint": lambda: wrap(loop, "save_checkpoint", after=False),
        "in a checkpoint": lambda: wrap(checkpoint.torch, "save", after=False),
        "before the old one goes": lambda: wrap(checkpoint, "remove_folder", after=False),
        "after a checkpoint": lambda: wrap(loop, "save_checkpoint", after=True),
    }[where]()


@pytest.mark.parametrize(
    ("where", "counts"),
    [
        ("step", [2]),
        ("step", [9, 3, 1]),
        ("before a checkpoint", [3]),
        ("in a checkpoint", [1, 4]),
        ("before the old one goes", [2]),
        ("after a checkpoint", [6]),
    ],
)
def test_an_interrupted_training_ends_as_an_unbroken_one(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, counts: List[int]
) -> None:
    log = str(tmp_path / "log.jsonl")
    settings = {"training.logger.output_file": log}
    for count in counts:
        kill_at(monkeypatch, where, count)
        with pytest.raises(Killed):
            train(unbroken / "config.cfg", tmp_path / "out", resume=True, **settings)
        random.seed(), torch.manual_seed(random.randrange(1000))
    train(unbroken / "config.cfg", tmp_path / "out", resume=True, **settings)
    assert_same_training(unbroken / "out", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} - {"training.png"} == LEFT
    logged = [json.loads(line) for line in Path(log).read_text().splitlines()]
    assert [row["step"] for row in logged] == [0, 3, 6, 9, 12, 15]


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        {"optimizer": ADAM, "accumulate_gradient": 2},
        {"optimizer": {**ADAMW, "use_averages": True, "freeze_embeddings": True}, "annotating_components": ANNOTATING},
        {"max_epochs": -1, "max_steps": 9, "patience": 4},
    ],
    ids=["thinc's Adam", "averages, frozen embeddings", "a streamed corpus, patience"],
)
def test_other_settings_resume_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: Dict[str, Any]) -> None:
    config = make_config_file(tmp_path, **training)
    train(config, tmp_path / "one")
    kill_at(monkeypatch, "step", 5)
    with pytest.raises(Killed):
        train(config, tmp_path / "other")
    train(config, tmp_path / "other", resume=True)
    assert_same_training(tmp_path / "one", tmp_path / "other")


def interrupt(config: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_at(monkeypatch, "step", 6)
    with pytest.raises(Killed):
        train(config, output)


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, output = make_config_file(tmp_path), tmp_path / "out"
    with pytest.raises(BertHeadsError, match="H101"):
        train(tmp_path / "nothing.cfg", output)
    interrupt(config, output, monkeypatch)
    before = find_checkpoints(output)
    with pytest.raises(BertHeadsError, match="H180.*step 3"):
        train(config, output)
    with pytest.raises(BertHeadsError, match="H181.*training.dropout"):
        train(config, output, resume=True, **{"training.dropout": 0.5})
    corpus = (tmp_path / "corpus.spacy").read_bytes()
    for times in (1, 5):
        make_corpus(tmp_path / "corpus.spacy", times)  # as many tokens in as many steps
        with pytest.raises(BertHeadsError, match="H182"):
            train(config, output, resume=True)
    (tmp_path / "corpus.spacy").write_bytes(corpus)
    assert find_checkpoints(output) == before
    state = before[-1] / "state.pt"
    content = state.read_bytes()
    state.write_bytes(content[:1000])
    with pytest.raises(BertHeadsError, match="H183"):
        train(config, output, resume=True)
    state.write_bytes(content)
    train(config, output, resume=True)
    last = (output / "model-last" / "meta.json").stat().st_mtime_ns
    assert "already finished" in train(config, output, resume=True)
    assert (output / "model-last" / "meta.json").stat().st_mtime_ns == last
    with pytest.raises(BertHeadsError, match="H181.*training.dropout"):
        train(config, output, resume=True, **{"training.dropout": 0.5})
    train(config, output)
    assert (output / "model-last" / "meta.json").stat().st_mtime_ns > last


@pytest.mark.slow
def test_a_projects_training_goes_on_or_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is run because something changed must not be skipped, and must not be refused."""
    config, output = make_config_file(tmp_path, max_epochs=2), tmp_path / "out"
    resumed: List[Optional[int]] = []
    begin = loop.train

    def note(*args: Any, **kwargs: Any) -> Any:
        resumed.append(kwargs["resumed"] and kwargs["resumed"].step)
        return begin(*args, **kwargs)

    monkeypatch.setattr("spacy_bert_heads.training.run.train", note)

    def run_once(kill: bool = False, **settings: Any) -> None:
        with monkeypatch.context() as patch:
            if kill:
                kill_at(patch, "step", 5)
            try:
                train(config, output, or_restart=True, **settings)
            except Killed:
                assert kill and find_checkpoints(output)
            else:
                assert not kill and (output / "training.json").exists()

    run_once()
    run_once()
    run_once(kill=True)
    run_once()
    assert resumed == [None, None, None, 3]
    run_once(kill=True)
    run_once(**{"training.dropout": 0.5})
    assert resumed[4:] == [None, None]
    run_once(kill=True)
    make_corpus(tmp_path / "corpus.spacy", 5)
    run_once()
    assert resumed[6:] == [None, 3, None]
    monkeypatch.setattr("spacy_bert_heads.training.run.train", begin)
    train(config, tmp_path / "unbroken")
    assert_same_training(tmp_path / "unbroken", output)


def test_the_command_takes_the_options_of_spacy_train(tmp_path: Path) -> None:
    config = make_config_file(tmp_path)
    arguments = ["train", str(config), "--output", str(tmp_path / "out"), "--training.max_epochs", "1"]
    result = CliRunner().invoke(app, [*arguments, "--gpu-id", "-1", "--resume"])
    assert result.exit_code == 0, result.output
    assert "best score" in result.output
    again = CliRunner().invoke(app, [*arguments, "--resume"])
    assert again.exit_code == 0 and "already finished" in again.output
    missing = CliRunner().invoke(app, ["train", str(tmp_path / "none.cfg"), "-o", str(tmp_path / "out")])
    assert missing.exit_code == 1 and "H101" in missing.output


def start(config: Path, output: Path) -> "subprocess.Popen[str]":
    log = str(output.with_suffix(".jsonl"))
    command = [sys.executable, "-W", "ignore", "-m", "spacy", "bert-heads", "train", str(config), "--resume"]
    command += ["--output", str(output), "--training.logger.output_file", log]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def kill_after(process: "subprocess.Popen[str]", output: Path, seconds: float) -> Optional[int]:
    """SIGKILL some time after the first checkpoint is there."""
    while process.poll() is None and not find_checkpoints(output):
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_it_ends_as_an_unbroken_one(unbroken: Path, tmp_path: Path, seed: int) -> None:
    chooser = random.Random(seed)
    codes = [
        kill_after(start(unbroken / "config.cfg", tmp_path / "out"), tmp_path / "out", chooser.uniform(0, 0.6))
        for _ in range(3)
    ]
    assert -signal.SIGKILL in codes
    last = start(unbroken / "config.cfg", tmp_path / "out")
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert_same_training(unbroken / "out", tmp_path / "out")


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A disk that takes no more after some files: with late writing, it says so when they are synced."""
    calls, sync = [], os.fsync

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("after", [0, 57])
def test_a_full_disk_is_named_and_with_more_space_the_training_goes_on(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    log, out = str(tmp_path / "log.jsonl"), tmp_path / "out"
    with monkeypatch.context() as patch:
        fill_disk(patch, after)
        with pytest.raises(BertHeadsError, match=rf"^{out}/model-last: \[H123\].*No space left"):
            train(unbroken / "config.cfg", out, resume=True, **{"training.logger.output_file": log})
    assert not list(out.glob(".*"))
    assert bool(find_checkpoints(out)) == bool(after)
    train(unbroken / "config.cfg", out, resume=True, **{"training.logger.output_file": log})
    assert_same_training(unbroken / "out", out)


def test_what_torch_says_of_a_full_disk_is_told_as_the_system_says_it(tmp_path, monkeypatch) -> None:
    class Full(io.BytesIO):
        def write(self, content: Any) -> int:
            if self.tell() > 1000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    monkeypatch.setattr(checkpoint, "create", lambda temporary, path: Full())
    state = checkpoint.Checkpoint("", 3, 0, [], ((), ("", torch.zeros(9999))), [], {})
    with pytest.raises(BertHeadsError, match=r"checkpoint-000003: \[H123\].*No space left"):
        checkpoint.save_checkpoint(spacy.blank("en"), state, tmp_path)
    assert not os.listdir(tmp_path)


TRAINING = """
import sys
from pathlib import Path
from spacy_bert_heads.training import loop
from spacy_bert_heads.training.run import run
save = loop.save_checkpoint
def wait(*args):
    save(*args)
    print("saved", flush=True)
    sys.stdin.readline()
loop.save_checkpoint = wait
run(Path(sys.argv[1]), Path(sys.argv[2]), overrides={}, use_gpu=-1, resume=True, verbose=False)
"""


def test_a_second_training_in_the_same_folder_is_refused(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", TRAINING, str(unbroken / "config.cfg"), str(out)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdin is not None and first.stdout is not None
    while first.stdout.readline() != "saved\n":
        assert first.poll() is None
    try:
        before = sorted(path.name for path in out.iterdir())
        arguments = ["train", str(unbroken / "config.cfg"), "--output", str(out), "--resume"]
        second = CliRunner().invoke(app, arguments)
        assert second.exit_code == 1 and f"[H187] is in use by process {first.pid}" in second.stderr
        assert sorted(path.name for path in out.iterdir()) == before
    finally:
        first.kill()
        first.wait()
    # The killed one leaves nothing that stands in the way
    train(unbroken / "config.cfg", out, resume=True)
    assert_same_training(unbroken / "out", out)
    assert {path.name for path in out.iterdir()} - {"training.png"} == LEFT
