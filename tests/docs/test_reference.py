"""The generated pages are those that the code gives now, and leave nothing out."""

import re
import sys
from types import ModuleType

import pytest
from typer.main import get_group

from spacy_bert_heads.cli.app import VERBS, app
from spacy_bert_heads.errors import MESSAGES

from .pages import DOCS, ROOT

# Settings that a reader once found in the changelog alone
SETTINGS = "class_weights label_smoothing focal_gamma loss_weight word_dropout whole_words dropout_samples".split()


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import make_reference
    finally:
        sys.path.pop(0)
    return make_reference


@pytest.mark.parametrize("name", ["factories.md", "architectures.md", "errors.md"])
def test_pages_are_up_to_date(generator: ModuleType, name: str) -> None:
    assert not generator.out_of_date([name]), f"{name}: {generator.HOW}"


def test_commands_are_up_to_date(generator: ModuleType) -> None:
    if not generator.same_typer():
        pytest.skip("another version of typer, which formats commands otherwise, made the page")
    assert not generator.out_of_date(["commands.md"]), generator.HOW


def test_every_command_and_option_is_there_under_any_typer() -> None:
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", page, flags=re.M | re.S))
    assert set(sections) == set(VERBS)
    for verb, command in get_group(app).commands.items():
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            assert parameter.help in sections[verb], f"{verb} {parameter.name}"
            if parameter.opts[0].startswith("-"):
                assert all(option in sections[verb] for option in parameter.opts), f"{verb} {parameter.name}"


def test_nothing_is_missing() -> None:
    reference = {path.name: path.read_text(encoding="utf8") for path in (DOCS / "reference").glob("*.md")}
    for code in MESSAGES:
        assert f'<a id="{code.lower()}"></a>{code} |' in reference["errors.md"]
    for setting in SETTINGS:
        assert f"| `{setting}` |" in reference["factories.md"] + reference["architectures.md"]


def test_a_docstring_in_the_house_form_is_read(generator: ModuleType) -> None:
    def function(first: int, second: str = "x", third: float = 1.0) -> int:
        """What it does: something. Registered as spacy_bert_heads.Thing.v1.

        More of it.

        first (int): A number,
            on two lines.
        second (str), third (float): Others.
        RETURNS (int): The sum.
        RAISES (BertHeadsError): H101 for none.
        """
        return first

    found = generator.read_docstring(function)
    assert found.paragraphs == ["What it does: something.", "More of it."]
    assert found.settings["first"] == ("int", "A number, on two lines.")
    assert found.settings["third"] == ("float", "Others.")
    assert [kind for kind, _ in found.results] == ["RETURNS", "RAISES"]
