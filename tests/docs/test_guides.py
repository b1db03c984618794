"""Every config, command and program of a guide runs as it stands, on a tiny encoder and three texts."""

import os
import shlex
from pathlib import Path
from typing import List

import pytest
import spacy
from spacy.tokens import DocBin
from typer.testing import CliRunner

from ..making import make_examples
from .pages import DOCS, blocks

# What the guides call the encoder; the test puts a folder with a tiny one in its place
ENCODER = "bert-base-cased"
GUIDE = DOCS / "guides" / "from-spacy-transformers.md"
DATA = "--paths.train train.spacy --paths.dev dev.spacy"


def run_command(command: str, status: int = 0) -> str:
    """Run `python -m spacy ...` in this process, where spaCy is loaded already."""
    from spacy.cli._util import app
    from spacy.util import registry

    registry.cli.get_all()
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "spacy"], command
    result = CliRunner().invoke(app, words[3:])
    assert result.exit_code == status, f"{command}\n{result.output}\n{result.exception!r}"
    return f"{result.output}\n{result.exception!r}"


def write_corpus(folder: Path) -> None:
    nlp = spacy.blank("en")
    docs = [eg.reference for eg in make_examples(nlp)]
    for name in ("train", "dev"):
        DocBin(docs=docs).to_disk(folder / f"{name}.spacy")


def test_moving_from_spacy_transformers(
    tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    done: List[str] = []
    # The pipeline that a reader of the guide has already
    old = [block.content.replace(ENCODER, bert_folder) for block in blocks(GUIDE) if block.title == "old.cfg"]
    Path("old-blocks.cfg").write_text("\n".join(old), encoding="utf8")
    run_command("python -m spacy init fill-config old-blocks.cfg old-filled.cfg")
    run_command(f"python -m spacy train old-filled.cfg --output old-training {DATA}")
    for block in blocks(GUIDE):
        content = block.content.replace(ENCODER, bert_folder)
        if block.title:
            # Blocks of the same title are one file
            with Path(block.title).open("a", encoding="utf8") as file:
                file.write(content + "\n")
            done.append(block.title)
        if block.language == "console":
            for command in block.commands():
                run_command(command)
                done.append(command.split()[3])
        elif block.language == "python":
            exec(compile(content, "guide", "exec"), {})
            done.append("python")
    assert os.path.isdir("training/model-best")
    assert done.count("train") == 4 and done.count("python") == 3 and "independent.cfg" in done
    # What the guide says about an encoder that is frozen and does not annotate
    alone = f"--output alone --training.annotating_components [] {DATA}"
    assert "H213" in run_command(f"python -m spacy train sourced-filled.cfg {alone}", status=1)
    # The frozen components are those of the pipeline they come from
    trained, sourced = spacy.load("training/model-best"), spacy.load("sourced/model-best")
    assert sourced.get_pipe("bert_ner").model.to_bytes() == trained.get_pipe("bert_ner").model.to_bytes()
    assert sourced.get_pipe("transformer").model.to_bytes() == trained.get_pipe("transformer").model.to_bytes()
    assert spacy.load("independent/model-best").pipe_names == ["bert_ner", "transformer", "bert_textcat"]
