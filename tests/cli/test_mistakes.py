"""A user's mistake is one message, with a code and without a traceback, whatever the command."""

from pathlib import Path
from typing import Any, List

import pytest
import spacy
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app, user_errors
from spacy_bert_heads.errors import LONGEST, BertHeadsError
from spacy_bert_heads.project.configs import SCRATCH, render_config

from ..making import make_examples

TOO_LONG = "x" * 300
COMMANDS = {
    "convert": ["convert", "{path}", "out"],
    "convert --labels": ["convert", "good.spacy", "out", "--labels", "{path}"],
    "inspect": ["inspect", "{path}"],
    "export": ["export", "{path}", "out.jsonl", "--format", "prodigy"],
    "check-data": ["check-data", "good.cfg", "--train", "{path}", "--dev", "good.spacy"],
    "fit-config": ["fit-config", "good.cfg", "out.cfg", "--train", "{path}"],
    "vocab": ["vocab", "{path}", "vocab.json"],
    "merge": ["merge", "--answers", "{path}", "--output", "out"],
    "merge BASE": ["merge", "{path}", "--answers", "good.spacy", "--output", "out"],
    "train": ["train", "good.cfg", "-o", "out", "--paths.train", "{path}", "--paths.dev", "good.spacy"],
    "train --paths.dev": ["train", "good.cfg", "-o", "out", "--paths.train", "good.spacy", "--paths.dev", "{path}"],
}
CONFIGURED = {
    "check-data": ["check-data", "{path}", "--train", "good.spacy", "--dev", "good.spacy"],
    "fit-config": ["fit-config", "{path}", "out.cfg", "--train", "good.spacy"],
    "train": ["train", "{path}", "-o", "out", "--paths.train", "good.spacy", "--paths.dev", "good.spacy"],
    "loop": ["loop", "rounds", "--config", "{path}", *(f"--{name}=good.spacy" for name in ("raw", "dev", "base"))],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    DocBin(docs=[eg.reference for eg in make_examples(spacy.blank("en"))]).to_disk("good.spacy")
    config = render_config("en", ["textcat", "ner"], SCRATCH)
    Path("good.cfg").write_text(config)
    Path("bad_lang.cfg").write_text(config.replace('lang = "en"', 'lang = "qq"'))
    Path("number_lang.cfg").write_text(config.replace('lang = "en"', "lang = 3"))
    Path("latin1.cfg").write_bytes("# é\n".encode("latin1") + config.encode())
    Path("latin1.spacy").write_bytes("text\té\n".encode("latin1"))
    for empty in ("empty.cfg", "empty.spacy"):
        Path(empty).write_bytes(b"")
    Path("folder").mkdir()
    return tmp_path


def mistake(arguments: List[str], path: str) -> str:
    result = CliRunner().invoke(app, [argument.format(path=path) for argument in arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    return result.output


@pytest.mark.parametrize("path", ["missing.spacy", "folder", "empty.spacy", "latin1.spacy", f"{TOO_LONG}.spacy"])
@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_are_missing_or_something_else(folder: Path, command: str, path: str) -> None:
    if command == "convert --labels" and path in ("empty.spacy", "latin1.spacy"):
        pytest.skip("labels that no reader asks for are not read")
    assert "[H" in mistake(COMMANDS[command], path)
    assert not list(Path().glob("out*"))


@pytest.mark.parametrize(
    "path", ["missing.cfg", "folder", "empty.cfg", "latin1.cfg", "bad_lang.cfg", "number_lang.cfg", f"{TOO_LONG}.cfg"]
)
@pytest.mark.parametrize("command", CONFIGURED)
def test_configs_that_are_missing_or_something_else(folder: Path, command: str, path: str) -> None:
    shown = mistake(CONFIGURED[command], path)
    assert "[H" in shown
    if "lang" in path:
        assert "[H221]" in shown and "no language" in shown


@pytest.mark.parametrize("path", [TOO_LONG, "good.spacy/under/a/file"])
def test_outputs_that_cannot_be(folder: Path, path: str) -> None:
    for arguments in (
        ["convert", "good.spacy", "{path}"],
        ["export", "good.spacy", "{path}", "--format", "prodigy"],
        ["vocab", "good.spacy", "{path}"],
        ["init", "{path}"],
        ["train", "good.cfg", "-o", "{path}", "--paths.train", "good.spacy", "--paths.dev", "good.spacy"],
    ):
        assert "[H" in mistake(arguments, path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "good.spacy", "--html", "{path}"],
        ["inspect", "good.spacy", "--report", "{path}"],
        ["convert", "good.spacy", "out", "--report", "{path}"],
        ["convert", "good.spacy", "out", "--split", "1,0,0", "--report", "out/train.spacy"],
        ["inspect", "good.spacy", "--html", "out.html", "--report", "./out.html"],
        ["export", "good.spacy", "{path}", "--format", "prodigy"],
        ["vocab", "good.spacy", "{path}"],
        ["check-data", "good.cfg", "--train", "good.spacy", "--dev", "good.spacy", "--output", "{path}"],
        ["merge", "--answers", "good.spacy", "--output", "out", "--report", "{path}"],
        ["merge", "good.spacy", "--answers", "other.spacy", "--output", "out", "--report", "{path}"],
        ["evaluate", "model", "good.spacy", "--output", "link.json"],
    ],
)
def test_neither_what_is_read_nor_another_output_is_written_over(folder: Path, arguments: List[str]) -> None:
    Path("other.spacy").write_bytes(Path("good.spacy").read_bytes())
    Path("link.json").symlink_to("good.spacy")
    before = Path("good.spacy").read_bytes()
    assert "[H123]" in mistake(arguments, "good.spacy")
    assert Path("good.spacy").read_bytes() == before and not list(Path().glob("out*"))


def test_errors_of_the_file_system_are_a_users_and_others_keep_their_traceback() -> None:
    def no_space() -> None:
        raise OSError(28, "No space left on device", "out.jsonl")

    app_exit: Any = pytest.raises(BaseException)
    with app_exit as caught:
        user_errors(no_space)()
    assert type(caught.value).__name__ == "Exit" and "No space left" in str(caught.value.__cause__)

    def broken() -> None:
        raise OSError("no file is concerned")

    with pytest.raises(OSError, match="no file is concerned"):
        user_errors(broken)()


def test_long_values_are_cut_off_in_the_message_only() -> None:
    found = "y" * 10_000
    error = BertHeadsError("H139", path="data.txt", line=3, found=found)
    assert error.found == found and len(str(error)) < 3 * LONGEST
    assert f"{'y' * LONGEST}..." in str(error)
    listed = BertHeadsError("H142", found=list(range(10_000)), expected="one")
    assert len(str(listed)) < 3 * LONGEST and len(listed.found) == 10_000
