"""What reaches a terminal, of labels, texts and file names that somebody else chose."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import srsly
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from spacy_bert_heads.annotation.curve import render_rounds
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.errors import BertHeadsError, printable

from .making import make_nlp

# Clears the screen, sets the window's title, goes to the start of the line, turns the direction of writing; C1
EVIL = "A\x1b[2J\x1b]0;owned\x07\r\u202eB\u2066\x9b1mC\nWrote nothing"
FORBIDDEN = set(map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)])) - {"\n"}


@given(st.text(), st.booleans())
def test_nothing_that_a_terminal_obeys_is_left_and_the_rest_is_as_it_was(text: str, lines: bool) -> None:
    shown = printable(text, lines=lines)
    assert not FORBIDDEN & set(shown) and ("\n" not in shown or lines)
    shown.encode("utf8")
    plain = "".join(character for character in text if character.isalnum() or character == " ")
    assert printable(plain) == plain


@pytest.mark.parametrize("text", ["Straße", "北京", "👩\u200d💻", "می\u200cخواهم", "a\u00a0b"])
def test_what_people_write_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_half_a_surrogate_pair_can_be_printed() -> None:
    assert printable("a\ud83d") == "a\\ud83d"


def test_errors_show_paths_and_values_escaped_and_keep_them_as_they_are() -> None:
    error = BertHeadsError("H335", path=Path(EVIL), line=3, found=EVIL, expected=EVIL)
    for text in (str(error), error.text, str(pickle.loads(pickle.dumps(error)))):
        assert not FORBIDDEN & set(text) and "\\x1b[2J" in text
    assert error.found == EVIL and error.path == Path(EVIL)
    assert "\n" not in str(error).split("[H335]")[0]


def run(*arguments: Any) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def make_answers(folder: Path) -> Path:
    """Texts with an entity and a category of an evil label; one of them contradicts itself."""
    span = {"start": 0, "end": 4, "label": EVIL}
    records: list = [{"text": f"Oslo {i}", "spans": [span], "answer": "accept"} for i in range(9)]
    records += [{"text": f"Oslo {i}", "label": EVIL, "answer": "accept"} for i in range(5)]
    records += [{"text": "Oslo 1", "spans": [], "answer": "accept"}]
    path = folder / "a\x1b[2Jb.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf8")
    return path


def test_no_verb_passes_control_characters_on(tmp_path: Path) -> None:
    answers, out = make_answers(tmp_path), tmp_path / "out"
    report = tmp_path / "r.json"
    shown = {"convert": run("convert", answers, out, "--split", "0.5,0.3,0.2", "--report", report)}
    shown["merge"] = run("merge", out, "--answers", answers, "--output", tmp_path / "merged")
    shown["inspect"] = run("inspect", out)
    shown["export"] = run("export", out / "train.spacy", tmp_path / "o.conll", "--format", "conll")
    config = tmp_path / "config.cfg"
    config.write_text(make_nlp(heads=["bert_ner"], initialize=False).config.to_str(), encoding="utf8")
    shown["check-data"] = run("check-data", config, "--train", out / "train.spacy", "--dev", out / "dev.spacy")
    shown["error"] = run("convert", tmp_path / "none\x1b[2J.jsonl", out)
    for verb, text in shown.items():
        assert not FORBIDDEN & set(text), verb
        assert verb == "export" or "\\x1b[2J" in text, verb
        assert "\nWrote nothing" not in text, verb
    # For programs it stays what it is
    assert EVIL in srsly.read_json(report)["splits"]["train"]["spans"]


def test_tables_of_scores_are_escaped() -> None:
    row = {"round": 0, "texts": 1, "tokens": 1, "scores": {EVIL: 0.5}, "score": 0.5, "cross_validated": True}
    assert not FORBIDDEN & set(render_rounds([row]))
