"""Commands that README and docs show exist, with the options that they are shown with."""

import shlex
from typing import List, Set, Tuple

import pytest
from typer.main import get_group

from spacy_bert_heads.cli.app import READS_OPTIONS, app

from .pages import blocks, pages

PREFIX = ["python", "-m", "spacy", "bert-heads"]
SHOWN: List[Tuple[str, str]] = [
    (name, command)
    for name, page in pages().items()
    if name != "docs/reference/commands.md"
    for block in blocks(page)
    if block.language in ("console", "bash")
    for command in block.commands() or block.content.splitlines()
    if "bert-heads" in command and not command.startswith(("pip", "git", "cd", "torchrun"))
]


@pytest.mark.parametrize("name, command", SHOWN)
def test_a_command_that_is_shown_exists(name: str, command: str) -> None:
    words = shlex.split(command)
    assert words[:4] == PREFIX, name
    verb = get_group(app).commands[words[4]]
    known: Set[str] = {option for parameter in verb.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word for word in words[5:] if word.startswith("-")}
    assert words[4] in READS_OPTIONS or given <= known, f"{name}: {given - known}"
    required = [parameter for parameter in verb.params if parameter.required and parameter.opts[0].startswith("-")]
    assert all(given & set(parameter.opts) for parameter in required), f"{name}: {command}"


def test_most_commands_are_shown_somewhere() -> None:
    assert len({shlex.split(command)[4] for _, command in SHOWN}) >= 12
