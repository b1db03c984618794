"""`calibrate` and `set-thresholds` as a user runs them."""

from pathlib import Path
from typing import Any, List

import numpy
import pytest
import spacy
import srsly
import torch
from spacy.tokens import DocBin, Span
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app

from ..making import head_module, make_nlp, make_texts


@pytest.fixture(scope="module")
def folder(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, and dev and test files in which it is right in two of three cases."""
    path = tmp_path_factory.mktemp("calibrating")
    nlp = make_nlp(bert_folder, ["bert_textcat", "bert_ner"])
    for name in ("bert_textcat", "bert_ner"):
        torch.nn.init.normal_(head_module(nlp, name).linear.weight, std=1.0)
    head_module(nlp, "bert_ner").linear.bias.data[0] = -1.0
    nlp.to_disk(path / "model")
    chooser = numpy.random.default_rng(0)
    for name, seed in (("dev", 1), ("test", 2)):
        docs = []
        for doc in nlp.pipe(make_texts(80, seed=seed, longest=5)):
            gold = nlp.make_doc(doc.text)
            kept = [(ent.start, ent.end, ent.label_) for ent in doc.ents if chooser.random() < 0.66]
            gold.set_ents([Span(gold, *ent) for ent in kept], default="outside")
            flip = chooser.random() < 0.33
            best = max(doc.cats, key=lambda label: doc.cats[label])
            gold.cats = {label: float((label == best) != flip) for label in doc.cats}
            docs.append(gold)
        DocBin(docs=docs).to_disk(path / f"{name}.spacy")
    DocBin().to_disk(path / "nothing.spacy")
    DocBin(docs=[nlp.make_doc("x")]).to_disk(path / "bare.spacy")
    return path


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def predict(path: Path) -> List[Any]:
    nlp = spacy.load(path)
    return [
        (max(doc.cats, key=lambda label: doc.cats[label]), [(ent.start, ent.end, ent.label_) for ent in doc.ents])
        for doc in nlp.pipe(make_texts(30, seed=3))
    ]


def test_from_a_trained_pipeline_to_one_with_thresholds(folder: Path, tmp_path: Path) -> None:
    calibrated, final = tmp_path / "calibrated", tmp_path / "final"
    result = run("calibrate", folder / "model", folder / "dev.spacy", calibrated, "--report", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"Wrote the pipeline with 2 calibrated heads to {calibrated}"
    report = srsly.read_json(tmp_path / "c.json")
    assert [fit["name"] for fit in report["temperatures"]] == ["bert_textcat", "bert_ner"] and report["texts"] == 80
    for fit in report["temperatures"]:
        assert fit["after"]["nll"] < fit["before"]["nll"]
        assert spacy.load(calibrated).get_pipe(fit["name"]).temperature == fit["temperature"]  # type: ignore[attr-defined]
    assert predict(calibrated) == predict(folder / "model")

    options = ["--metric", "precision=0.75", "--report", tmp_path / "t.json"]
    result = run("set-thresholds", calibrated, folder / "dev.spacy", final, *options)
    assert result.exit_code == 0, result.output
    head: Any = spacy.load(final).get_pipe("bert_ner")
    for fit in srsly.read_json(tmp_path / "t.json")["thresholds"]:
        if fit["name"] == "bert_ner":
            assert head.thresholds[fit["label"]] == fit["threshold"]
    assert head.temperature == report["temperatures"][1]["temperature"]
    result = run("evaluate", final, folder / "test.spacy")
    assert result.exit_code == 0 and "Only the sure ones" in result.output
    # Once more, over what is there
    result = run("calibrate", final, folder / "dev.spacy", calibrated, "--coverage", "0.5")
    assert result.exit_code == 0, result.output
    assert "'bert_ner': dropped an older temperature; thresholds" in result.output
    doc = next(spacy.load(calibrated).pipe(["anna in new york"]))
    assert doc._.cats_set is not None and doc._.ents_set is not None


@pytest.mark.parametrize("verb", ["calibrate", "set-thresholds"])
@pytest.mark.parametrize(
    ("dev", "code"),
    [("test.spacy", "H601"), ("nothing.spacy", "H602"), ("bare.spacy", "H602"), ("gone.spacy", "H101")],
)
def test_a_file_that_cannot_be_fitted_to_is_refused(
    folder: Path, tmp_path: Path, verb: str, dev: str, code: str
) -> None:
    result = run(verb, folder / "model", folder / dev, tmp_path / "out")
    assert result.exit_code == 1 and f"[{code}]" in result.output
    assert not list(tmp_path.iterdir())


def test_mistakes_are_named_before_time_is_spent(folder: Path, tmp_path: Path) -> None:
    dev = folder / "dev.spacy"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    cases: List[Any] = [
        (["calibrate", folder / "model", dev, folder / "model"], "H247"),
        (["calibrate", folder / "model", dev, tmp_path / "mine"], "H246"),
        (["calibrate", folder / "model", dev, tmp_path / "out", "--coverage", "90"], "H605"),
        (["calibrate", folder / "model", dev, tmp_path / "out", "--report", dev], "H123"),
        (["calibrate", folder / "gone", dev, tmp_path / "out"], "H227"),
        (["set-thresholds", folder / "model", dev, tmp_path / "out", "--metric", "accuracy"], "H604"),
    ]
    for arguments, code in cases:
        result = run(*arguments)
        assert result.exit_code == 1 and f"[{code}]" in result.output, (arguments, result.output)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep" and not (tmp_path / "out").exists()
