"""`bert-heads evaluate`: every score is kept."""

from pathlib import Path

import pytest
import spacy
import srsly
from spacy.tokens import DocBin
from spacy.training import Example
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.evaluation.evaluate import to_text

TEXTS = [("track the order", "A"), ("cancel the order", "B")]


@pytest.fixture(scope="module")
def trained(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    nlp = spacy.blank("en")
    docs = []
    for text, label in TEXTS:
        doc = nlp.make_doc(text)
        doc.set_ents([doc.char_span(len(text) - 5, len(text), label="THING")])
        doc.cats = {"A": float(label == "A"), "B": float(label == "B")}
        docs.append(doc)
    DocBin(docs=docs, store_user_data=True).to_disk(folder / "test.spacy")
    DocBin().to_disk(folder / "empty.spacy")
    nlp.add_pipe("bert_encoder", config={"model": {"name": bert_folder, "overlap": 4}})
    nlp.add_pipe("bert_textcat")
    nlp.add_pipe("bert_ner", config={"model": {"lstm_width": 8}})
    nlp.initialize(lambda: [Example(nlp.make_doc(doc.text), doc) for doc in docs])
    nlp.to_disk(folder / "model")
    return folder


def test_all_scores_are_written(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "metrics" / "test.json"
    arguments = ["evaluate", str(trained / "model"), str(trained / "test.spacy"), "--output", str(output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    scores = srsly.read_json(output)
    assert scores["docs"] == 2 and 0.0 <= scores["cats_acc"] <= 1.0
    assert set(scores["ents_per_type"]) == {"THING"} and set(scores["cats_f_per_type"]) == {"A", "B"}
    assert "categories, accuracy" in result.output and "entity THING, F" in result.output
    assert result.output.splitlines()[-1] == f"Wrote the scores on 2 texts to {output}"


def test_support_is_shown_and_numbers_have_figures_of_their_own() -> None:
    scores = {"cats_f_per_type": {"A": {"f": 0.5}, "B": {"f": 0.0}}, "cats_support": {"A": 3, "B": 0}, "speed": 9.0}
    rows = to_text(scores).splitlines()
    assert any("category A, F (3 texts)" in row and "50.0" in row for row in rows)
    assert any("category B, F (0 texts)" in row and "0.0" in row for row in rows)
    targets = {"X": {"pearson": 0.25, "support": 4}, "Y": {"pearson": None, "support": 0}}
    rows = to_text({"cats_pearson": 0.25, "cats_rmse": 1.5, "cats_per_target": targets, "speed": 9.0}).splitlines()
    assert any("numbers, RMSE" in row and "1.500" in row for row in rows)
    assert any("number X, Pearson (4 texts)" in row and "25.0" in row for row in rows)
    assert any("number Y, Pearson (0 texts)" in row and row.rstrip().endswith("-") for row in rows)


@pytest.mark.parametrize(
    ("model", "data", "code"),
    [("model", "gone.spacy", "H101"), ("gone", "test.spacy", "H227"), ("model", "empty.spacy", "H310")],
)
def test_mistakes_are_named(trained: Path, tmp_path: Path, model: str, data: str, code: str) -> None:
    output = tmp_path / "test.json"
    arguments = ["evaluate", str(trained / model), str(trained / data), "--output", str(output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and f"[{code}]" in result.output
    assert not output.exists()
