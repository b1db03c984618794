"""`bert-heads evaluate`: every score is kept, whatever the corpus lacks."""

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import Example
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.evaluation.evaluate import evaluate_examples, note_trained_on
from spacy_bert_heads.evaluation.report import to_html, to_markdown, to_text

from ..making import make_examples, make_nlp

TEXTS = [("track the order", "A"), ("cancel the order", "B")]
# What evaluate wrote before it wrote reports; other programs read it
OLD_KEYS = (
    *("docs", "speed", "cats_acc", "cats_score", "cats_micro_f", "cats_macro_f", "cats_f_per_type", "cats_support"),
    *("ents_p", "ents_r", "ents_f", "ents_per_type", "token_acc"),
)


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


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_all_scores_are_written_into_one_file(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "metrics" / "test.json"
    result = run(trained / "model", trained / "test.spacy", "--output", output)
    assert result.exit_code == 0, result.output
    scores = srsly.read_json(output)
    assert set(OLD_KEYS) <= set(scores)
    assert scores["docs"] == 2 and 0.0 <= scores["cats_acc"] <= 1.0
    assert set(scores["ents_per_type"]) == {"THING"} and set(scores["cats_f_per_type"]) == {"A", "B"}
    assert scores["entities"]["micro"]["f1"] == pytest.approx(scores["ents_f"])
    assert scores["categories"][0]["accuracy"] == pytest.approx(scores["cats_acc"])
    assert [path.name for path in output.parent.iterdir()] == ["test.json"]
    assert result.output.splitlines()[-1] == f"Wrote the scores on 2 texts to {output}"


def test_a_folder_gets_a_report_and_no_output_only_the_table(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    result = run(trained / "model", trained / "test.spacy", "-o", output)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "report.json", "report.md"]
    assert result.output.splitlines()[-1].startswith(f"Wrote the report on 2 texts to {output}: report.html")
    assert "THING" in (output / "report.md").read_text("utf8")
    # How sure the head was of each token is on the page
    data = json.loads((output / "report.html").read_text("utf8").split('id="data">')[1].split("</script>")[0])
    assert any(example["tokens"] for example in data["examples"])
    shown = run(trained / "model", trained / "test.spacy")
    assert shown.exit_code == 0 and "Wrote" not in shown.output
    header = next(line for line in shown.output.splitlines() if line.startswith("label") and "precision" in line)
    assert header.split() == ["label", "precision", "recall", "F1", "95", "%", "interval", "support"]
    assert any(line.startswith("THING") and line.split()[-1] == "2" for line in shown.output.splitlines())


def test_any_format_is_read(trained: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "entities": [[len(text) - 5, len(text), "THING"]], "cats": {c: 1.0}} for text, c in TEXTS]
    srsly.write_jsonl(tmp_path / "test.jsonl", rows)
    (tmp_path / "test.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in TEXTS), "utf8")
    expected = run(trained / "model", trained / "test.spacy").output.split("Confused")[0]
    found = run(trained / "model", tmp_path / "test.jsonl")
    assert found.exit_code == 0, found.output
    assert [line for line in found.output.splitlines() if line.startswith(("A ", "B ", "THING"))] == [
        line for line in expected.splitlines() if line.startswith(("A ", "B ", "THING"))
    ]
    # spaCy's own reader takes a file of Docs only under the name *.spacy
    (tmp_path / "test.docbin").write_bytes((trained / "test.spacy").read_bytes())
    found = run(trained / "model", tmp_path / "test.docbin", "--format", "spacy")
    assert found.exit_code == 0 and "The corpus has no texts" not in found.output and "THING" in found.output
    found = run(trained / "model", tmp_path / "test.tsv", "--no-header", "--label-column", "2", "--text-column", "1")
    assert found.exit_code == 0, found.output
    assert "'bert_ner' is not scored: no text has a gold annotation of entities." in found.output
    assert "bert_textcat, accuracy" in found.output


@pytest.mark.parametrize(
    ("model", "data", "code"),
    [("model", "gone.spacy", "H101"), ("model", "gone.jsonl", "H101"), ("gone", "test.spacy", "H227")],
)
def test_mistakes_are_named(trained: Path, tmp_path: Path, model: str, data: str, code: str) -> None:
    output = tmp_path / "test.json"
    result = run(trained / model, trained / data, "--output", output)
    assert result.exit_code == 1 and f"[{code}]" in result.output
    assert not output.exists()


def test_a_place_that_cannot_be_written_is_refused_at_once(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    result = run(trained / "gone", trained / "test.spacy", "--output", tmp_path / "file")
    assert result.exit_code == 1 and "[H123]" in result.output


@pytest.mark.parametrize("name", ["empty.spacy", "empty.jsonl", "empty"])
def test_an_empty_corpus_is_reported(trained: Path, tmp_path: Path, name: str) -> None:
    path = trained / name if name.endswith(".spacy") else tmp_path / name
    if not name.endswith(".spacy"):
        path.write_text("")
    result = run(trained / "model", path, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "The corpus has no texts" in result.output
    for file in (tmp_path / "report").iterdir():
        assert "The corpus has no texts" in file.read_text("utf8")


def make_ruler_nlp(*factories: str) -> Language:
    """spaCy's own components, which need no training."""
    nlp = spacy.blank("en")
    if "ents" in factories:
        ruler: Any = nlp.add_pipe("entity_ruler")
        ruler.add_patterns([{"label": "PER", "pattern": "anna"}, {"label": "ORG", "pattern": "acme"}])
    return nlp


def predict(nlp: Language, annotations: List[Dict[str, Any]]) -> List[Example]:
    examples = []
    for annotation in annotations:
        eg = Example.from_dict(nlp.make_doc("anna works at acme"), annotation)
        eg.predicted = nlp(eg.predicted)
        examples.append(eg)
    return examples


ENTS = {"entities": [(0, 4, "PER")]}


@pytest.mark.parametrize(
    ("factories", "annotations", "note"),
    [
        (["ents"], [{}], "'entity_ruler' is not scored: no text has a gold annotation of entities."),
        (["ents"], [{"entities": ["-"] * 4}], "'entity_ruler' is not scored: no text has a gold annotation"),
        (["ents"], [ENTS, {}], "1 of 2 texts have no gold annotation of entities and are left out."),
        (["ents"], [{"entities": ["U-PER", "O", "O", "-"]}], "1 predicted entities in the other parts"),
        (["ents"], [{"entities": [(14, 18, "COMPANY")]}], "always missed: COMPANY (1)."),
        (["ents"], [{"entities": []}], "No text has a gold entity"),
        (["ents"], [{**ENTS, "cats": {"A": 1.0}}], "No component predicts categories"),
        ([], [ENTS], "No component finds entities; the 1 gold entities are not scored."),
        (["ents"], [], "The corpus has no texts"),
    ],
)
def test_what_cannot_be_scored_is_said(factories: List[str], annotations: List[Dict[str, Any]], note: str) -> None:
    nlp = make_ruler_nlp(*factories)
    evaluation = evaluate_examples(nlp, predict(nlp, annotations))
    assert any(note in found for found in evaluation.notes), evaluation.notes
    json.dumps(evaluation.to_dict())
    assert note in to_text(evaluation)
    assert to_markdown(evaluation) and to_html(evaluation)


def test_whole_texts_are_right_in_everything_that_is_known() -> None:
    nlp = make_ruler_nlp("ents")
    both = {"entities": [(0, 4, "PER"), (14, 18, "ORG")]}
    partly = {"entities": ["U-PER", "-", "-", "-"]}
    evaluation = evaluate_examples(nlp, predict(nlp, [both, both, both, ENTS, {}, partly]))
    assert evaluation.texts["scored"] == 5 and evaluation.texts["accuracy"] == 0.8
    low, high = evaluation.texts["accuracy_interval"]
    assert low < 0.8 < high <= 1.0
    assert [(text.number, [one.kind for one in text.mistakes]) for text in evaluation.wrong] == [(4, ["invented"])]


def test_text_heads_without_gold_and_with_unknown_labels(trained: Path) -> None:
    nlp = spacy.load(trained / "model")
    texts = [{"cats": {"A": 1.0, "B": 0.0}}, {"cats": {"NEW": 1.0}}, {}]
    evaluation = evaluate_examples(nlp, predict(nlp, texts))
    [scores] = evaluation.categories
    assert scores["per_label"]["NEW"]["support"] == 1 and scores["texts"] == 2
    assert scores["confusion"]["NEW"].keys() <= {"A", "B"}
    assert "Categories that no component knows are counted as missed: NEW." in evaluation.notes
    assert "1 of 3 texts have no gold value for 'bert_textcat' and are left out." in evaluation.notes
    evaluation = evaluate_examples(nlp, predict(nlp, [ENTS]))
    assert evaluation.categories[0]["accuracy"] is None
    assert "'bert_textcat' is not scored: no text has a gold value for it." in evaluation.notes


@pytest.mark.parametrize(("head", "kind"), [("bert_textcat_multilabel", "multilabel"), ("bert_regression", "numbers")])
def test_other_text_heads_score_as_their_own_scorers_do(bert_folder: str, head: str, kind: str) -> None:
    nlp = make_nlp(bert_folder, heads=[head])
    examples = make_examples(nlp)
    theirs = nlp.evaluate(examples)
    for eg in examples:
        eg.predicted = nlp(eg.predicted)
    evaluation = evaluate_examples(nlp, examples)
    [scores] = evaluation.categories
    assert (scores["component"], scores["kind"]) == (head, kind)
    if kind == "multilabel":
        assert scores["threshold"] == 0.5 and scores["micro"]["f1"] == pytest.approx(theirs["cats_micro_f"])
        assert scores["macro"]["roc_auc"] == pytest.approx(theirs["cats_macro_auc"])
    else:
        for label, expected in theirs["cats_per_target"].items():
            assert {key: scores["per_label"][label][key] for key in expected} == pytest.approx(expected, abs=1e-5)
    assert "No component finds entities; the 4 gold entities are not scored." in evaluation.notes
    page = to_html(evaluation)
    assert ("ROC AUC" in page) == (kind == "multilabel") and ("<circle" in page) == (kind == "numbers")
    assert head in to_text(evaluation) and head in to_markdown(evaluation).replace("\\", "")


def test_texts_that_the_pipeline_was_trained_on_are_counted(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(
        '{"text": "Track  the ORDER", "cats": {"A": 1}}\n{"text": "other", "cats": {"A": 1}}\n'
    )
    result = run(trained / "model", trained / "test.spacy", "--train", tmp_path / "train.jsonl")
    assert result.exit_code == 0, result.output
    assert "Note: 1 of 2 texts are among those that the pipeline was trained on" in result.output
    result = run(trained / "model", trained / "test.spacy", "--train", tmp_path / "gone.spacy")
    assert result.exit_code == 1 and "[H101]" in result.output
    nlp = spacy.blank("en")
    examples = [Example(nlp.make_doc(text), nlp.make_doc(text)) for text, _ in TEXTS]
    assert note_trained_on(nlp, examples, None) == []
    nlp.config["paths"]["train"] = str(tmp_path / "gone.spacy")
    assert note_trained_on(nlp, examples, None) == []
    nlp.config["paths"]["train"] = str(trained / "test.spacy")
    assert note_trained_on(nlp, examples, None)[0].startswith("2 of 2 texts")
