"""Every config, command and program of a guide runs as it stands, on a tiny encoder and three texts."""

import configparser
import os
import shlex
import shutil
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import pytest
import spacy
import srsly
from spacy.tokens import DocBin
from typer.testing import CliRunner

from ..making import make_examples
from .pages import DOCS, ROOT, blocks

# What the guides call the encoder; the test puts a folder with a tiny one in its place
ENCODERS = ("bert-base-cased", "roberta-base")
GUIDE = DOCS / "guides" / "from-spacy-transformers.md"
DATA = "--paths.train train.spacy --paths.dev dev.spacy"

Blocks = Dict[str, Dict[str, str]]


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


def read_config(text: str) -> Blocks:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def write_config(config: Blocks, path: Path, encoder: str) -> None:
    lines = [f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in config[name].items()) for name in config]
    path.write_text(with_encoder("\n".join(lines), encoder), encoding="utf8")


def with_encoder(text: str, encoder: str) -> str:
    for name in ENCODERS:
        text = text.replace(name, encoder)
    return text


def changes() -> Iterator[Tuple[Blocks, Blocks]]:
    """The blocks "before" of the guide, each with the block "after" it."""
    pairs = [block for block in blocks(GUIDE) if block.title in ("before", "after")]
    for before, after in zip(pairs[::2], pairs[1::2]):
        assert (before.title, after.title) == ("before", "after")
        yield read_config(before.content), read_config(after.content)


def follow_the_guide(config: Blocks) -> Blocks:
    """A config with every change of the guide made as its introduction says."""
    config = {name: dict(settings) for name, settings in config.items()}
    for before, after in changes():
        # "Delete every block whose name begins with"
        if "components.textcat" in before:
            config.pop("components.textcat.model.linear_model", None)
        for name, settings in before.items():
            if name not in after:
                config.pop(name)
            else:
                config[name] = {key: value for key, value in config[name].items() if key not in settings}
        for name, settings in after.items():
            config[name] = {**config.get(name, {}), **settings}
    return config


def quickstart(folder: Path, optimize: str) -> Blocks:
    path = folder / f"{optimize}.cfg"
    command = f"python -m spacy init config {path} --gpu --lang en --pipeline textcat,ner --optimize {optimize}"
    run_command(command)
    return read_config(path.read_text(encoding="utf8"))


@pytest.mark.parametrize("optimize", ["efficiency", "accuracy"])
def test_the_changes_fit_what_spacy_writes(tmp_path: Path, bert_folder: str, optimize: str) -> None:
    written = quickstart(tmp_path, optimize)
    if optimize == "efficiency":  # spaCy's default, which the guide shows
        assert written == read_config((GUIDE.parent / "quickstart.cfg").read_text(encoding="utf8"))
        for before, after in changes():
            for name, settings in before.items():
                assert settings.items() <= written[name].items(), name
                assert name in after or settings == written[name], f"[{name}] is not shown as a whole"
    config = follow_the_guide(written)
    names = " ".join(config)
    assert "components.textcat" not in names and "components.ner" not in names
    write_config(config, tmp_path / "new.cfg", bert_folder)
    run_command(f"python -m spacy init fill-config {tmp_path / 'new.cfg'} {tmp_path / 'config.cfg'}")
    nlp = spacy.util.load_model_from_config(spacy.util.load_config(tmp_path / "config.cfg"), auto_fill=False)
    assert nlp.pipe_names == ["transformer", "bert_textcat", "bert_ner"]


@pytest.mark.slow
def test_moving_from_spacy_transformers(tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    done: List[str] = []
    # The pipeline that a reader of the guide has already
    old = quickstart(tmp_path, "efficiency")
    write_config(old, Path("old.cfg"), bert_folder)
    run_command(f"python -m spacy train old.cfg --output old-training --training.max_steps 1 {DATA}")
    write_config(follow_the_guide(old), Path("new.cfg"), bert_folder)
    for block in blocks(GUIDE):
        content = with_encoder(block.content, bert_folder)
        if block.title.endswith(".cfg"):
            Path(block.title).write_text(content, encoding="utf8")
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
    # What the guide says about steps: of three texts in batches of 32, one for each epoch
    config = spacy.load("training/model-best").config["training"]
    assert config["max_epochs"] == config["optimizer"]["total_steps"] == 10 and config["patience"] == 0
    # What the guide says about two settings of before_init
    both = Path("new.cfg").read_text(encoding="utf8").replace("[initialize]\n", "[initialize]\nbefore_init = null\n")
    Path("both.cfg").write_text(both, encoding="utf8")
    assert "conflicting values" in run_command("python -m spacy init fill-config both.cfg filled.cfg", status=1)
    # What the guide says about an encoder that is frozen and does not annotate
    alone = f"--output alone --training.annotating_components [] {DATA}"
    assert "H213" in run_command(f"python -m spacy train sourced-filled.cfg {alone}", status=1)
    # The frozen components are those of the pipeline they come from
    trained, sourced = spacy.load("training/model-best"), spacy.load("sourced/model-best")
    assert sourced.get_pipe("bert_ner").model.to_bytes() == trained.get_pipe("bert_ner").model.to_bytes()
    assert sourced.get_pipe("transformer").model.to_bytes() == trained.get_pipe("transformer").model.to_bytes()
    assert spacy.load("independent/model-best").pipe_names == ["bert_ner", "transformer", "bert_textcat"]


def test_readings_of_a_shipped_pipeline_as_the_page_about_the_loop_says(
    tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    nlp = spacy.blank("en")
    settings = {"keep_outputs": False, "model": {"name": bert_folder}}
    nlp.add_pipe("bert_encoder", name="transformer", config=settings)
    nlp.add_pipe("bert_ner")
    nlp.initialize(lambda: make_examples(nlp))
    Path("training").mkdir()
    nlp.to_disk("training/model-best")
    (code,) = (block.content for block in blocks(DOCS / "annotation-loop.md") if block.language == "python")
    exec(compile(code, "page", "exec"), {})
    assert "RankedEntities" in capsys.readouterr().out


def test_the_guide_in_chinese(tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "guides" / "zh-quickstart.md"
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    titles, sentence = (block.content for block in blocks(page) if block.title)
    numbered = [line.rpartition("\t") for line in titles.splitlines()]
    lines = [f"{title}{number}\t{label}" for number in range(24) for title, _, label in numbered]
    Path("titles.txt").write_text("\n".join(lines), encoding="utf8")
    names = ["财经", "房产", "股票", "教育", "科技", "社会", "时政", "体育", "游戏", "娱乐"]
    Path("class.txt").write_text("\n".join(names), encoding="utf8")
    sentences = [f"{sentence}{number} O\n" for number in range(40)]
    Path("resumes.bmes").write_text("\n".join(sentences), encoding="utf8")
    # The encoder comes with an extra, and the trainings are short
    shutil.copytree(bert_folder, "encoders/zh")
    done: List[str] = []
    for block in blocks(page):
        for command in block.commands() if block.language == "console" else []:
            verb = command.split()[4] if command.startswith("python -m spacy bert-heads") else ""
            if verb in ("convert", "fit-config", "check-data", "train", "evaluate"):
                short = command.replace("--epochs 0", "--epochs 1")
                run_command(short)
                done.append(verb)
        if block.language == "python":
            exec(compile(block.content, "guide", "exec"), {})
            done.append("python")
    steps = ["convert", "fit-config", "train", "evaluate", "python"]
    assert done == [*steps[:2], "check-data", *steps[2:], *steps]
    assert sorted(spacy.load("training/model-best").get_pipe("bert_textcat").labels) == sorted(names)
    assert Path("report/report.html").is_file()


def test_a_table_with_columns_of_ones_own_is_read_as_the_page_about_projects_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_command("python -m spacy bert-heads init . --lang en --heads textcat")
    Path("assets/table.csv").write_text("body,topic\nThe first,0\nThe second,1\nThe third,0\n", encoding="utf8")
    Path("labels.txt").write_text("red\ngreen\n", encoding="utf8")
    (block,) = (block for block in blocks(DOCS / "reference" / "project.md") if block.language == "yaml")
    (command,) = srsly.yaml_loads(block.content)
    project = srsly.read_yaml("project.yml")
    (written,) = (one for one in project["commands"] if one["name"] == command["name"])
    added = " --text-column body --label-column topic --labels labels.txt"
    assert command["script"][0].replace(added, "") == written["script"][0]
    assert command["deps"] == [*written["deps"], "labels.txt"]
    script = command["script"][0].replace("${vars.split}", "1,0,0").replace("${vars.seed}", "0")
    run_command(script.replace("${vars.raw}", project["vars"]["raw"]))
    docs = DocBin().from_disk("corpus/en/train.spacy").get_docs(spacy.blank("en").vocab)
    assert {doc.text: max(doc.cats, key=doc.cats.__getitem__) for doc in docs} == {
        "The first": "red",
        "The second": "green",
        "The third": "red",
    }
