"""Follow a guide: write the files that it shows, type its commands, run its programs."""

import runpy
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple

from .pages import blocks
from .test_guides import run_command

SPACY = "python -m spacy "


class Followed(NamedTuple):
    """What came of it.

    said (Dict[str, str]): What each command of spaCy said, by the command as the guide shows it.
    left_out (List[str]): Commands that were not typed.
    names (Dict[str, Any]): What the guide's programs defined.
    """

    said: Dict[str, str]
    left_out: List[str]
    names: Dict[str, Any]


def follow(
    page: Path,
    *,
    changes: Mapping[str, str] = {},
    before: Mapping[str, Callable[[], Any]] = {},
    every: Mapping[str, Callable[[], Any]] = {},
    skip: Mapping[str, str] = {},
) -> Followed:
    """Do what a guide says, in its order, in the current folder.

    page (Path): The guide. Blocks of the language "console" are typed, blocks with a title are written to the file of
        that name, and blocks of the language "python" without one are run, all with the same names.
    changes (Mapping[str, str]): What to put in place of what, in commands and files: a tiny encoder, fewer epochs.
    before (Mapping[str, Callable]): What somebody else does before the first command that begins like this, such as
        annotate.
    every (Mapping[str, Callable]): The same, before each such command.
    skip (Mapping[str, str]): How commands begin that need what a test does not have, each with the reason.
    """
    done = Followed({}, [], {})
    used, waiting = set(), dict(before)

    def changed(text: str) -> str:
        for old, new in changes.items():
            used.update({old} if old in text else ())
            text = text.replace(old, new)
        return text

    for block in blocks(page):
        if block.title and block.title not in ("before", "after"):
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(changed(block.content), encoding="utf8")
        elif block.language == "python":
            exec(compile(changed(block.content), page.name, "exec"), done.names)
        for command in block.commands() if block.language == "console" else []:
            for start in [start for start in waiting if command.startswith(start)]:
                waiting.pop(start)()
            for start in [start for start in every if command.startswith(start)]:
                every[start]()
            reasons = [start for start in skip if command.startswith(start)]
            if reasons:
                used.update(reasons)
                done.left_out.append(command)
            elif command.startswith(SPACY):
                done.said[command] = run_command(changed(command))
            else:
                python, script = command.split()
                assert python == "python", f"{page.name}: nobody said how to type {command!r}"
                done.names.update(runpy.run_path(script))
    stale = ({*changes, *skip} - used) | {*waiting}
    assert not stale, f"{page.name} has none of {stale}"
    return done
