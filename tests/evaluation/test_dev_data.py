"""Which files count as test data, and what a dev file must have."""

from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import DocBin

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.evaluation.dev_data import find_test_name, read_dev


@pytest.mark.parametrize(
    ("name", "is_test"),
    [
        ("test.spacy", True),
        ("snips-test.jsonl", True),
        ("wnut17test.conll", True),
        ("TEST_set.csv", True),
        ("testset.tsv", True),
        ("test/part1.spacy", True),
        ("dev.spacy", False),
        ("latest.spacy", False),
        ("contest.jsonl", False),
        ("devtest.jsonl", False),
        ("dev-test.jsonl", False),
        ("testimonials.csv", False),
    ],
)
def test_names_of_test_data(tmp_path: Path, name: str, is_test: bool) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert bool(find_test_name(spacy.blank("en"), path)) is is_test


@pytest.mark.parametrize("section", ["paths", "corpora"])
def test_the_config_names_test_data(tmp_path: Path, section: str) -> None:
    held_out, copy = tmp_path / "held_out.jsonl", tmp_path / "copy.jsonl"
    held_out.write_text("the same")
    copy.write_text("the same")
    (tmp_path / "other.jsonl").write_text("not same")
    nlp = spacy.blank("en")
    value: Any = {"paths": {"test": str(held_out)}, "corpora": {"test": {"path": str(held_out)}}}[section]
    nlp.config[section] = value
    for path in (held_out, copy, tmp_path / "x" / ".." / "held_out.jsonl"):
        assert "config names" in find_test_name(nlp, path) or not path.exists()
    assert find_test_name(nlp, tmp_path / "other.jsonl") == ""


PROJECT = """
vars:
  lang: en
commands:
  - name: corpus
    script:
      - >-
        python -m spacy bert-heads convert assets/a.jsonl corpus --dev assets/dev.jsonl
        --test assets/${vars.lang}/handwritten.jsonl
  - name: broken
    script: ["echo 'unfinished", 3]
  - 5
"""


def test_the_project_file_names_test_data(tmp_path: Path) -> None:
    (tmp_path / "project.yml").write_text(PROJECT)
    (tmp_path / "assets" / "en").mkdir(parents=True)
    for name in ("en/handwritten.jsonl", "dev.jsonl"):
        (tmp_path / "assets" / name).write_text(name)
    nlp = spacy.blank("en")
    assert "--test" in find_test_name(nlp, tmp_path / "assets" / "en" / "handwritten.jsonl")
    assert find_test_name(nlp, tmp_path / "assets" / "dev.jsonl") == ""


@pytest.mark.parametrize("content", ["", "[]", "commands: 3", "a: [", "commands: [{script: {a: b}}]\nvars: 5", "\0"])
def test_a_project_file_that_makes_no_sense_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "project.yml").write_text(content)
    (tmp_path / "dev.jsonl").touch()
    assert find_test_name(spacy.blank("en"), tmp_path / "dev.jsonl") == ""


def test_what_cannot_be_fitted_to(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    DocBin().to_disk(tmp_path / "dev.spacy")
    DocBin(docs=[nlp.make_doc("x")]).to_disk(tmp_path / "test.spacy")
    (tmp_path / "dev.jsonl").touch()
    (tmp_path / "broken.jsonl").write_text("{")
    cases = [("gone.spacy", "H101"), ("dev.spacy", "H602"), ("dev.jsonl", "H602"), ("test.spacy", "H601")]
    for name, code in [*cases, ("broken.jsonl", "H1")]:
        with pytest.raises(BertHeadsError) as caught:
            read_dev(nlp, tmp_path / name)
        assert caught.value.code.startswith(code), name
