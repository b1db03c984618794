"""The verb `convert`, as spaCy's command line calls it."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from spacy_bert_heads.cli import app as app_module
from spacy_bert_heads.cli.app import app, user_errors
from spacy_bert_heads.errors import BertHeadsError

GOOD = '{"text": "Apple opened.", "spans": [{"start": 0, "end": 5, "label": "ORG"}]}\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text(GOOD, encoding="utf8")
    return path


def call(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_last_line_says_what_was_written(source: Path, tmp_path: Path):
    result = call(source, tmp_path / "out", "--split", "1,0,0", "--report", tmp_path / "report.json")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("Wrote train.spacy (1 docs)")
    assert (tmp_path / "out" / "train.spacy").is_file()
    assert (tmp_path / "report.json").is_file()


def test_several_inputs_come_before_the_output_folder(source: Path, tmp_path: Path):
    other = tmp_path / "other.jsonl"
    other.write_text(GOOD.replace("Apple", "Pears"), encoding="utf8")
    result = call(source, other, tmp_path / "out", "--split", "1,0,0", "--format", "prodigy", "--lang", "xx")
    assert result.stdout.splitlines()[-1].startswith("Wrote train.spacy (2 docs)")


def test_mistake_is_one_message_on_stderr_and_status_one(source: Path, tmp_path: Path):
    with source.open("a", encoding="utf8") as stream:
        stream.write("{broken\n")
    result = call(source, tmp_path / "out")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"{source}:2: [H105] ")
    assert len(result.stderr.splitlines()) == 1
    result = call(source, tmp_path / "out", "--skip-bad", "--split", "1,0,0")
    assert result.exit_code == 0
    assert f"{source}:2: [H105] " in result.stdout


def test_other_errors_keep_their_traceback():
    def broken():
        raise ZeroDivisionError

    def mistaken():
        raise BertHeadsError("H101", path="a")

    with pytest.raises(ZeroDivisionError):
        user_errors(broken)()
    with pytest.raises(typer.Exit) as info:
        user_errors(mistaken)()
    assert info.value.exit_code == 1


def test_a_verb_that_cannot_be_imported_says_so_when_called_whatever_its_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_module.app, "registered_commands", list(app_module.app.registered_commands))
    app_module._add_verb("later", "spacy_bert_heads.cli.no_such_module:run")
    result = CliRunner().invoke(app_module.app, ["later", "FILE", "--lang", "en"])
    assert result.exit_code == 1
    assert "[H124]" in result.output + (result.stderr or "")


def test_app_is_a_part_of_spacys_own():
    from spacy.cli import app as spacy_app

    assert "bert-heads" in [group.name for group in spacy_app.registered_groups]


def test_importing_the_app_loads_no_transformers():
    code = "import sys, spacy_bert_heads.cli.app; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_names_every_format():
    from spacy_bert_heads.cli.convert import FORMAT
    from spacy_bert_heads.corpus.readers.formats import CONVERTERS

    assert all(name in FORMAT.help for name in CONVERTERS)
