"""Evaluations that are kept: none replaces another, and all are shown."""

import json
import re
from pathlib import Path
from typing import Any, List

import pytest
import spacy
import srsly
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.evaluation import history as history_module
from spacy_bert_heads.evaluation.history import keep, read_history
from spacy_bert_heads.evaluation.records import describe_run

from .test_compare import evaluate, make_examples


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for seed in (1, 2):
        evaluation = evaluate(monkeypatch, make_examples(20, seed))
        evaluation.run = {**describe_run(spacy.blank("en")), "date": f"2026-01-0{seed}T10:00:00+00:00"}
        keep(evaluation, tmp_path / "metrics" / "history")
        keep(evaluation, tmp_path / "metrics" / "history")
    return tmp_path / "metrics"


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_no_evaluation_replaces_another(kept: Path) -> None:
    names = sorted(path.name for path in (kept / "history").iterdir())
    assert len(names) == 4
    assert all(re.fullmatch(r"2026-01-0[12]T10-00-00-[0-9a-f]{8}(-2)?\.json", name) for name in names)
    found = read_history(kept)
    assert [one.date[:10] for one in found.runs] == ["2026-01-01"] * 2 + ["2026-01-02"] * 2
    content = srsly.read_json(found.runs[3].path)
    assert found.runs[3].scores["ner, F1 of entities"][0] == content["entities"]["micro"]["f1"]
    assert found.runs[3].scores["whole texts, everything right"][0] == content["texts"]["accuracy"]
    # What was kept can be compared text by text
    result = run(found.runs[0].path, found.runs[3].path)
    assert result.exit_code == 0 and "mended" in result.output, result.output


def test_table_and_pages_show_all_of_them(kept: Path, tmp_path: Path) -> None:
    (kept / "history" / "other.json").write_text('{"x": 1}')
    (kept / "history" / "half.json").write_text('{"x": ')
    result = run("--history", kept, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.output.count("2026-01-0") == 4
    assert "Note: half.json is left out" in result.output and "Note: other.json is left out" in result.output
    rows = srsly.read_json(tmp_path / "out" / "history.json")
    assert [row["docs"] for row in rows] == [20] * 4
    page = (tmp_path / "out" / "history.html").read_text("utf8")
    assert page.count("<circle") == 4 * len(rows[0]["scores"]) and "http" not in page and "nan" not in page
    assert (tmp_path / "out" / "history.md").read_text("utf8").count("| 2026") == 4


def test_mistakes_are_named(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, code in (
        (("--history", tmp_path / "gone"), "H101"),
        (("--history", tmp_path / "empty"), "H626"),
        (("--history", kept, kept), "H627"),
        (("--history", kept, "-o", kept / "history"), "H123"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and f"[{code}]" in result.output, (arguments, result.output)


def test_an_evaluation_of_nothing_can_be_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    evaluation = evaluate(monkeypatch, [])
    evaluation.run = describe_run(spacy.blank("en"))
    path = keep(evaluation, tmp_path)
    assert json.loads(path.read_text("utf8"))["records"] == []
    result = run("--history", tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output


def test_a_curve_is_drawn_to_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_run(i: int, value: float) -> Any:
        scores = {"F1": (value, (value - 0.1, value + 0.1))}
        return history_module.Run(Path("x"), f"2026-01-0{i + 1}", "m", "c", 1, "-", "00000000", scores)

    runs: List[Any] = [make_run(i, value) for i, value in enumerate((0.2, 0.4, 0.3))]
    curve = history_module._draw("F1", history_module.History(Path("x"), runs))
    # Scores per unit of height, from the first two points
    scale = 20 / (curve.points[0][1] - curve.points[1][1])
    assert curve.high - curve.points[1][1] * scale == pytest.approx(40, abs=0.3)
    assert (curve.points[2][3] - curve.points[2][2]) * scale == pytest.approx(20, abs=0.5)
