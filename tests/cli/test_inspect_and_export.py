"""The verbs `inspect` and `export`, as spaCy's command line calls them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app

from ..corpus.helpers import ALL_TRAIN, make_span, run, write_jsonl


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    record = {"text": "Apple opened.", "spans": [make_span(0, 5)], "label": "NEWS"}
    run(write_jsonl(tmp_path / "in.jsonl", record), tmp_path / "corpus", split=ALL_TRAIN)
    return tmp_path / "corpus" / "train.spacy"


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_inspect_shows_counts_and_says_what_was_written(tmp_path: Path, corpus: Path):
    result = call("inspect", corpus, "--html", tmp_path / "page.html", "--report", tmp_path / "report.json")
    assert result.exit_code == 0
    assert "span ORG" in result.stdout and "category NEWS" in result.stdout
    assert (
        result.stdout.splitlines()[-1]
        == f"Read 1 texts; wrote {tmp_path / 'page.html'} and {tmp_path / 'report.json'}"
    )


def test_export_says_what_is_lost_and_what_was_written(tmp_path: Path, corpus: Path):
    result = call("export", corpus, tmp_path / "out.conll", "--format", "conll", "--scheme", "biluo")
    assert result.exit_code == 0
    assert "1 categories, which the format cannot hold" in result.stdout
    assert result.stdout.splitlines()[-1] == f"Wrote 1 texts as conll to {tmp_path / 'out.conll'}"
    assert (tmp_path / "out.conll").read_text(encoding="utf8").startswith("Apple\tU-ORG\n")


def test_mistakes_are_one_message_on_stderr_and_status_one(tmp_path: Path, corpus: Path):
    for arguments, code in (
        (["inspect", tmp_path / "none.spacy"], "H101"),
        (["export", corpus, tmp_path / "out", "--format", "xml"], "H167"),
    ):
        result = call(*arguments)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert f"[{code}] " in result.stderr and len(result.stderr.splitlines()) == 1
