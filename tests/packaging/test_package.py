"""`package` and the model card in its wheel, with a tiny pipeline. spaCy writes the package; the build is recorded."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest
import spacy
import srsly
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.evaluation.evaluate import evaluate
from spacy_bert_heads.evaluation.report import write_report
from spacy_bert_heads.packaging.model_card import find_licence, make_model_card
from spacy_bert_heads.packaging.package import package, read_scores
from spacy_bert_heads.pipeline.fitted import Coverage

from ..making import make_config, make_examples, make_nlp


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, bert_folder: str) -> Path:
    """A pipeline, its corpus, and reports on it as a file and as a folder."""
    folder = tmp_path_factory.mktemp("package")
    nlp = make_nlp(bert_folder)
    DocBin(docs=[eg.reference for eg in make_examples(nlp)]).to_disk(folder / "test.spacy")
    nlp._config["paths"].update({"encoder": bert_folder, "train": str(folder / "test.spacy"), "dev": "gone.spacy"})
    nlp._config["components"]["transformer"]["model"]["name"] = "${paths.encoder}"
    nlp.meta["name"] = "tiny"
    nlp.to_disk(folder / "model")
    evaluation = evaluate(str(folder / "model"), folder / "test.spacy")
    write_report(evaluation, folder / "report")
    write_report(evaluation, folder / "test.json")
    return folder


def nlp_folder(work: Path) -> str:
    """Where the encoder came from."""
    return str(spacy.util.load_config(work / "model" / "config.cfg")["paths"]["encoder"])


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> List[Any]:
    """Folders in which a wheel was to be built."""
    seen: List[Any] = []

    def run(command: List[str], cwd: Path, **options: Any) -> Any:
        assert command == [sys.executable, "-m", "build", ".", "--wheel"]
        seen.append(cwd)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_the_card_says_what_the_report_and_the_pipeline_say(work: Path, tmp_path: Path, builds: List[Any]) -> None:
    wheel = package(
        work / "model", tmp_path / "new" / "packages", name="demo", version="1.2.3", report=work / "report"
    )
    folder = tmp_path / "new" / "packages" / "en_demo-1.2.3"
    assert wheel == folder / "dist" / "en_demo-1.2.3-py3-none-any.whl" and builds == [folder]
    card = (folder / "README.md").read_text(encoding="utf8")
    assert card == (folder / "en_demo" / "en_demo-1.2.3" / "README.md").read_text(encoding="utf8")
    assert card.startswith("# en_demo 1.2.3\n") and 'spacy.load("en_demo")' in card
    report = srsly.read_json(work / "report" / "report.json")
    for label, row in report["entities"]["per_label"].items():
        low, high = row["f1_interval"]
        expected = f"| {label} | {100 * row['precision']:.1f} | {100 * row['recall']:.1f} | {100 * row['f1']:.1f} |"
        assert f"{expected} {100 * low:.1f} to {100 * high:.1f} | {row['support']} |" in card
    for said in ("`CITY`", "`TRACK`", "Training texts: 3.", "Test texts: 3, in `test.spacy`", "Fewer than 30"):
        assert said in card
    assert f"from `{Path(nlp_folder(work)).name}`" in card and "${" not in card and "Mistakes" not in card
    assert "32 wordpieces" in card and "type bert" in card and "Development texts" not in card
    assert str(work) not in card, "a path of this machine"
    # spaCy's package as it is, with the pipeline inside
    assert spacy.load(folder / "en_demo" / "en_demo-1.2.3").pipe_names == spacy.load(work / "model").pipe_names
    assert srsly.read_json(folder / "meta.json")["version"] == "1.2.3"


def test_a_report_is_read_as_it_was_written(work: Path) -> None:
    evaluation = evaluate(str(work / "model"), work / "test.spacy")
    for path in (work / "report", work / "test.json"):
        found = read_scores(path)
        assert found.entities == srsly.json_loads(srsly.json_dumps(evaluation.entities))
        assert found.texts["scored"] == evaluation.texts["scored"] and found.docs == 3


def test_without_a_report_it_shows_the_scores_on_dev(work: Path, tmp_path: Path, builds: List[Any]) -> None:
    shutil.copytree(work / "model", tmp_path / "model")
    meta = srsly.read_json(tmp_path / "model" / "meta.json")
    meta["performance"] = {"ents_f": 0.5, "ents_per_type": {}, "bert_ner_loss": 3.0, "speed": 9.0}
    srsly.write_json(tmp_path / "model" / "meta.json", meta)
    package(tmp_path / "model", tmp_path)
    card = (tmp_path / "en_tiny-0.0.0" / "README.md").read_text(encoding="utf8")
    assert "| `ents_f` | 0.500 |" in card and "loss" not in card and "speed" not in card
    assert "no report on a test set" in card


def test_twice_in_a_row_the_second_is_what_remains(work: Path, tmp_path: Path, builds: List[Any]) -> None:
    package(work / "model", tmp_path)
    folder = tmp_path / "en_tiny-0.0.0"
    (folder / "build").mkdir()
    (folder / "build" / "old").touch()
    package(work / "model", tmp_path, report=work / "test.json")
    assert "Test texts: 3" in (folder / "README.md").read_text(encoding="utf8") and not (folder / "build").exists()


def test_what_cannot_be_packaged(work: Path, tmp_path: Path, builds: List[Any], bert_folder: str) -> None:
    def code(**options: Any) -> str:
        with pytest.raises(BertHeadsError) as error:
            package(**{"model": work / "model", "output": tmp_path / "out", **options})
        return error.value.code

    (tmp_path / "other.json").write_text('{"docs": 3}', encoding="utf8")
    (tmp_path / "list.json").write_text("[]", encoding="utf8")
    (tmp_path / "broken.json").write_text('{"docs":', encoding="utf8")
    for name, expected in (("other", "H623"), ("list", "H623"), ("broken", "H623"), ("missing", "H101")):
        assert code(report=tmp_path / f"{name}.json") == expected
    assert code(model=tmp_path / "missing") == "H227"
    assert code(name="no identifier") == "H682"
    make_nlp(bert_folder, ["bert_textcat"]).to_disk(tmp_path / "textcat")
    assert code(model=tmp_path / "textcat", report=work / "report") == "H680"
    assert not builds


def test_a_build_that_fails_says_so(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 7))
    done = CliRunner().invoke(app, ["package", str(work / "model"), str(tmp_path)])
    assert done.exit_code == 1 and "H682" in done.output


def test_licences(tmp_path: Path) -> None:
    assert "pytest" in find_licence("package:pytest/model") and "MIT" in find_licence("package:pytest/model")
    assert "not installed" in find_licence("package:no_such_package/model")
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n", encoding="utf8")
    assert find_licence(str(tmp_path)).startswith("apache-2.0")
    (tmp_path / "README.md").write_text("# A model", encoding="utf8")
    assert find_licence(str(tmp_path)).startswith("Unknown")
    (tmp_path / "SOURCE.md").write_text("Licence: MIT, as the *card* says.\n", encoding="utf8")
    assert find_licence(str(tmp_path)).startswith("MIT, as the \\*card\\* says.")
    assert "huggingface.co/bert-base-uncased" in find_licence("bert-base-uncased")
    assert find_licence("/no/such/folder").startswith("Unknown")


def test_labels_of_others_cannot_break_the_card(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat"], initialize=False)
    nlp.get_pipe("bert_textcat").cfg["labels"] = ["a|b", "`c`", "line\nbreak", "<script>"]  # type: ignore[attr-defined]
    card = make_model_card(nlp, None, name="en_x", version="0")
    (row,) = [line for line in card.split("\n") if line.startswith("| `bert_textcat`")]
    assert "a\\|b" in row and "<script>`" in row and row.count("`") == 2 + 2 + 8


@pytest.mark.parametrize("window, shown", [(None, 32), (20, 20), (500, 32)])
def test_the_card_says_how_much_the_encoder_reads_at_once(bert_folder: str, window: Any, shown: int) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder, window=window), heads=["bert_textcat"])
    assert f"It reads {shown} wordpieces at once." in make_model_card(nlp, None, name="en_x", version="0")


def test_what_was_fitted_is_on_the_card(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat", "bert_ner"])
    assert "## Calibration" not in make_model_card(nlp, None, name="en_x", version="0")
    textcat: Any = nlp.get_pipe("bert_textcat")
    ner: Any = nlp.get_pipe("bert_ner")
    textcat.cfg["temperature"] = 1.25
    ner.set_coverage(Coverage(0.9, 0.01))
    ner.set_thresholds({"CITY": 0.5, "PERSON": 0.0})
    card = make_model_card(nlp, None, name="en_x", version="0")
    for said in ("a temperature of 1.25", "90% of texts", "does not count: `CITY` 0.50."):
        assert said in card
