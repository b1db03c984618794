"""Verbs on a disk that takes no more: a code and the folder's name, no traceback, and what was there stays."""

import errno
import os
from pathlib import Path
from typing import List

import pytest
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app

from ..corpus.helpers import write_jsonl
from ..making import make_nlp, make_scratch_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    make_nlp(encoder=make_scratch_config(), heads=["bert_textcat"]).to_disk(folder / "model")
    records = [{"text": f"text {number}", "label": "A", "answer": "accept"} for number in range(9)]
    write_jsonl(folder / "answers.jsonl", *records)
    write_jsonl(folder / "raw.jsonl", *({"text": f"raw {number}"} for number in range(9)))
    result = CliRunner().invoke(app, ["merge", "-a", str(folder / "answers.jsonl"), "-o", str(folder / "corpus")])
    assert result.exit_code == 0, result.output
    return folder


VERBS = {
    "optimize": ["model", "OUT", "--backend", "torch", "--precision", "fp32"],
    "apply": ["model", "raw.jsonl", "OUT"],
    "suggest": ["model", "raw.jsonl", "OUT", "--view", "choice"],
    "merge": ["--answers", "answers.jsonl", "--output", "OUT"],
    "convert": ["answers.jsonl", "OUT"],
    "export": ["corpus/train.spacy", "OUT", "--format", "prodigy"],
    "inspect": ["corpus/train.spacy", "--html", "OUT"],
    "evaluate": ["model", "corpus/train.spacy", "--output", "OUT"],
    "vocab": ["corpus/train.spacy", "OUT"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.chdir(folder)
    arguments: List[str] = [str(tmp_path / "out") if part == "OUT" else part for part in VERBS[verb]]
    result = CliRunner().invoke(app, [verb, *arguments])
    assert isinstance(result.exception, SystemExit), result.output
    assert result.exit_code == 1 and "[H123]" in result.stderr and "No space left" in result.stderr
    assert str(tmp_path / "out") in result.stderr
    assert not os.listdir(tmp_path)
