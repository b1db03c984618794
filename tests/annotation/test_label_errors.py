"""Label errors: the counts are those of confident learning, planted errors come first, and answers can be merged."""

import json
import math
import random
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy
import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span
from thinc.api import Config
from typer.testing import CliRunner

from spacy_bert_heads.annotation import folds as folds_module
from spacy_bert_heads.annotation.confident_learning import find_suspicions
from spacy_bert_heads.annotation.folds import EXCLUSIVE, MULTILABEL, Outcome, OutOfFold, ScoredSpan, assign_folds
from spacy_bert_heads.annotation.label_errors import LABEL_STUDIO, PRODIGY, rank, to_markdown, to_text, write_tasks
from spacy_bert_heads.annotation.merge import merge
from spacy_bert_heads.cli.app import app

from ..corpus.helpers import load_docs
from ..making import make_nlp, make_scratch_config, make_texts
from .test_loop import make_docs


class Killed(BaseException):
    """Ends a training as abruptly as an exception can."""


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_confident_joint_is_that_of_the_definition(seed: int) -> None:
    random_state = numpy.random.RandomState(seed)
    n, classes = 60, 4
    given = random_state.randint(0, classes - (seed == 2), n)  # without a text of the last class
    probabilities = random_state.dirichlet([0.5] * classes, n)
    found = find_suspicions(given, probabilities)
    thresholds: List[Optional[float]] = []
    for j in range(classes):
        own = [probabilities[i, j] for i in range(n) if given[i] == j]
        thresholds.append(sum(own) / len(own) if own else None)
    joint = [[0] * classes for _ in range(classes)]
    suspects = []
    for i in range(n):
        fits = [j for j in range(classes) if thresholds[j] is not None and probabilities[i, j] >= thresholds[j]]
        if fits:
            best = max(fits, key=lambda j: probabilities[i, j])
            joint[given[i]][best] += 1
            if best != given[i]:
                suspects.append(i)
                assert found.suggested[i] == best
        margin = max(probabilities[i, j] for j in range(classes) if j != given[i]) - probabilities[i, given[i]]
        assert found.scores[i] == pytest.approx(margin)
    assert found.joint.tolist() == joint and numpy.flatnonzero(found.is_suspect).tolist() == suspects
    assert suspects


def make_corpus() -> List[Doc]:
    """Texts of two categories, two topics and two entities each, all annotated as they should be."""
    docs = make_docs()
    for doc in docs:
        doc.cats = {**doc.cats, "anna": float("anna" in doc.text), "rome": float("rome" in doc.text)}
    return docs


HEADS = {"cat": (EXCLUSIVE, ("TRACK", "CANCEL")), "topics": (MULTILABEL, ("anna", "rome"))}


def make_outcomes(docs: List[Doc], seed: int = 0) -> List[Outcome]:
    """Fairly sure predictions, all of them right."""
    chooser = random.Random(seed)
    outcomes = []
    for doc in docs:
        cats = {}
        for label, value in doc.cats.items():
            sure = chooser.uniform(0.7, 0.99)
            cats[label] = sure if value else 1 - sure
        spans = []
        for ent in doc.ents:
            sure = chooser.uniform(0.6, 0.99)
            spans.append(ScoredSpan(ent.start_char, ent.end_char, ent.label_, sure, (1 - sure) / 2))
        outcomes.append(Outcome(cats, spans, list(spans), [], (0.9 * 4, 4)))
    return outcomes


def spoil(docs: List[Doc], outcomes: List[Outcome]) -> Dict[int, str]:
    """One error of each kind. RETURNS: What the reason for each text must say."""

    def regold(number: int, ents: List[Tuple[int, int, str]], values: List[Tuple[float, float]]) -> None:
        doc = docs[number]
        doc.set_ents([Span(doc, *ent) for ent in ents], default="outside")
        gold = [ScoredSpan(ent.start_char, ent.end_char, ent.label_, *value) for ent, value in zip(doc.ents, values)]
        outcomes[number] = outcomes[number]._replace(gold=gold)

    docs[3].cats = {**docs[3].cats, "TRACK": docs[3].cats["CANCEL"], "CANCEL": docs[3].cats["TRACK"]}
    docs[9].cats = {**docs[9].cats, "rome": 1.0}
    regold(15, [(3, 4, "CITY"), (5, 6, "CITY")], [(0.01, 0.02), (0.9, 0.02)])
    regold(21, [(5, 6, "CITY")], [(0.9, 0.02)])
    regold(27, [(2, 4, "PERSON"), (5, 6, "CITY")], [(0.02, 0.05), (0.9, 0.02)])
    regold(29, [(0, 1, "CITY"), (3, 4, "PERSON"), (5, 6, "CITY")], [(0.01, 0.97), (0.9, 0.02), (0.9, 0.02)])
    person = docs[21][3].text
    return {
        3: f"labelled {'TRACK' if docs[3].cats['TRACK'] else 'CANCEL'}, out-of-fold 0.",
        9: "labelled rome, out-of-fold 0.",
        15: f'"{docs[15][3].text}" labelled CITY, out-of-fold 0.',
        21: f'"{person}" not labelled, out-of-fold 0.',
        27: f'"of {docs[27][3].text}" labelled PERSON, out-of-fold 0.',
        29: f'"{docs[29][0].text}" labelled CITY, out-of-fold 0.97 for no entity',
    }


@pytest.fixture
def spoiled() -> Tuple[List[Doc], OutOfFold, Dict[int, str]]:
    docs = make_corpus()
    outcomes = make_outcomes(docs)
    expected = spoil(docs, outcomes)
    return docs, OutOfFold(outcomes, HEADS, ("PERSON", "CITY")), expected


def test_planted_errors_are_the_most_suspicious(spoiled: Any) -> None:
    docs, found, expected = spoiled
    errors = rank(docs, found)
    by_score = sorted(errors.suspicions, key=lambda one: -one.score)
    assert {one.text for one in by_score[:6]} == set(expected)
    for one in by_score[:6]:
        assert one.reason.startswith(expected[one.text]) and one.score > 0.3 and one.is_suspect, one
    assert all(one.score < 0 for one in by_score[6:])
    assert errors.n_judged == {"cat": len(docs), "topics": 2 * len(docs), "": 2 * len(docs)}
    assert [text for text, _, _ in errors.chosen(3)] == [one.text for one in errors.suspicions[:3]]
    assert {text for text, _, _ in errors.chosen(None)} == set(expected)
    assert len({text for text, _, _ in errors.chosen(40)}) == 40
    assert "probably wrong" in to_text(errors) and "not labelled" in to_markdown(errors)


def test_what_a_fold_does_not_know_or_nobody_annotated_is_not_judged(spoiled: Any) -> None:
    docs, found, _ = spoiled
    outcome = found.outcomes[15]
    found.outcomes[15] = outcome._replace(gold=[outcome.gold[0]._replace(probability=None), outcome.gold[1]])
    person = found.outcomes[21].predicted[0]
    found.outcomes[21] = found.outcomes[21]._replace(unknown=[(person.start, person.end)])
    found.outcomes[3].cats.pop("TRACK")
    found.outcomes[3].cats.pop("CANCEL")
    docs[9].cats = {}
    errors = rank(docs, found)
    assert {one.text for one in errors.suspicions if one.score > 0.3} == {27, 29}
    assert "1 entities have a label that is in one fold alone; they are not judged." in errors.notes
    assert any("1 texts have a label of 'cat'" in note for note in errors.notes)


def answer(tasks: Path, output: Path) -> None:
    """What somebody who knows the truth makes of the tasks."""
    truth = {doc.text: doc for doc in make_corpus()}
    lines = []
    for task in map(json.loads, tasks.read_text("utf8").splitlines()):
        doc = truth[task["text"]]
        if task["_view_id"] == "choice":
            offered = [option["id"] for option in task["options"]]
            task["accept"] = [label for label in offered if doc.cats[label]]
        else:
            task["spans"] = [{"start": e.start_char, "end": e.end_char, "label": e.label_} for e in doc.ents]
        lines.append(json.dumps({**task, "answer": "accept"}) + "\n")
    output.write_text("".join(lines), "utf8")


def statement(doc: Doc) -> Any:
    return doc.cats, [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents], doc.has_annotation("ENT_IOB")


def test_answers_put_the_corpus_right(spoiled: Any, tmp_path: Path) -> None:
    docs, found, expected = spoiled
    DocBin(docs=docs).to_disk(tmp_path / "train.spacy")
    (tmp_path / "tasks.jsonl").write_text("".join(write_tasks(rank(docs, found), None, PRODIGY).values()), "utf8")
    tasks = [json.loads(line) for line in (tmp_path / "tasks.jsonl").read_text("utf8").splitlines()]
    assert {task["text"] for task in tasks} == {docs[number].text for number in expected}
    assert all(task["meta"]["reason"] and "answer" not in task for task in tasks)
    for view in ("choice", "ner_manual"):
        scores = [task["meta"]["suspicion"] for task in tasks if task["_view_id"] == view]
        assert len(scores) > 1 and scores == sorted(scores, reverse=True)
    # Answered unseen, nothing changes
    untouched = "".join(json.dumps({**task, "answer": "accept"}) + "\n" for task in tasks)
    (tmp_path / "untouched.jsonl").write_text(untouched, "utf8")
    same = merge([tmp_path / "train.spacy"], tmp_path / "same", answers=[tmp_path / "untouched.jsonl"])
    assert same.texts["changed"] == 0, same.to_text()
    answer(tmp_path / "tasks.jsonl", tmp_path / "answers.jsonl")
    report = merge([tmp_path / "train.spacy"], tmp_path / "out", answers=[tmp_path / "answers.jsonl"])
    assert report.texts["changed"] == len(expected), report.to_text()
    right = {doc.text: statement(doc) for doc in make_corpus()}
    assert {doc.text: statement(doc) for doc in load_docs(tmp_path / "out" / "train.spacy")} == right


def test_label_studios_answers_put_the_corpus_right(spoiled: Any, tmp_path: Path) -> None:
    docs, found, expected = spoiled
    for doc in docs:  # an interface asks about one head of categories
        doc.cats = {label: doc.cats[label] for label in ("TRACK", "CANCEL")}
    found = found._replace(heads={"cat": HEADS["cat"]})
    DocBin(docs=docs).to_disk(tmp_path / "train.spacy")
    tasks = json.loads(write_tasks(rank(docs, found), None, LABEL_STUDIO)["tasks.json"])
    assert {task["data"]["text"] for task in tasks} == {docs[n].text for n in expected if n != 9}
    scores = [task["predictions"][0]["score"] for task in tasks]
    assert scores == sorted(scores) and all(task["data"]["reason"] for task in tasks)
    truth = {doc.text: doc for doc in make_corpus()}
    for number, task in enumerate(tasks, 1):
        doc = truth[task["data"]["text"]]
        (prediction,) = task.pop("predictions")
        names = {result["type"]: result["from_name"] for result in prediction["result"]}
        assert set(names) <= {"labels", "choices"}
        results: List[Dict[str, Any]] = [
            {
                "from_name": "ner",
                "to_name": "text",
                "type": "labels",
                "value": {"start": e.start_char, "end": e.end_char, "text": e.text, "labels": [e.label_]},
            }
            for e in doc.ents
        ]
        chosen = [label for label in ("TRACK", "CANCEL") if doc.cats[label]]
        results.append({"from_name": "cat", "to_name": "text", "type": "choices", "value": {"choices": chosen}})
        task.update(id=number, annotations=[{"was_cancelled": False, "result": results}])
    (tmp_path / "answers.json").write_text(json.dumps(tasks), "utf8")
    merge([tmp_path / "train.spacy"], tmp_path / "out", answers=[tmp_path / "answers.json"])
    for doc in load_docs(tmp_path / "out" / "train.spacy"):
        right = truth[doc.text]
        assert [(e.text, e.label_) for e in doc.ents] == [(e.text, e.label_) for e in right.ents]
        assert doc.cats["TRACK"] == right.cats["TRACK"]


def test_single_judgements_are_asked_about_one_by_one(spoiled: Any) -> None:
    docs, found, _ = spoiled
    doc = docs[15]
    doc.set_ents(list(doc.ents), default="missing")
    files = write_tasks(rank(docs, found), None, PRODIGY)
    assert list(files) == ["ner_manual.jsonl", "choice.jsonl", "ner.jsonl"]
    (task,) = map(json.loads, files["ner.jsonl"].splitlines())
    assert task["text"] == doc.text
    assert task["_view_id"] == "ner" and task["_is_binary"] and len(task["spans"]) == 1
    assert task["spans"][0]["label"] == "CITY" and task["spans"][0]["start"] == doc[3].idx


def test_folds_share_labels_evenly_and_keep_equal_texts_together() -> None:
    nlp = spacy.blank("en")
    docs = []
    for number in range(100):
        doc = nlp(f"text {number // 2 if number < 20 else number}")
        doc.cats = {"rare": float(number >= 90), "common": float(number < 90)}
        docs.append(doc)
    docs[1] = nlp("TEXT  0")
    docs[1].cats = docs[0].cats
    folds = assign_folds(docs, 5, 0)
    assert all(folds[i] == folds[i + 1] for i in range(0, 20, 2))
    assert numpy.bincount(folds[90:], minlength=5).tolist() == [2] * 5
    assert max(numpy.bincount(folds)) - min(numpy.bincount(folds)) <= 6
    assert (assign_folds(docs, 5, 0) == folds).all() and (assign_folds(docs, 5, 1) != folds).any()


def test_probabilities_of_given_entities_are_those_of_all_paths(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"])
    ner: Any = nlp.get_pipe("bert_ner")
    docs = list(nlp.pipe(make_texts(4, seed=3, longest=4)))
    spans = [[(0, 1, "CITY"), (0, len(doc), "PERSON"), (0, 1, "OTHER")] for doc in docs]
    found, outside = ner.span_probabilities(docs, spans), ner.outside_probabilities(docs)
    for doc, probabilities, free in zip(docs, found, outside):
        paths = ner.nbest([doc], 5 ** len(doc))[0]
        assert sum(math.exp(path.log_probability) for path in paths) == pytest.approx(1.0, abs=1e-4)
        for span, probability in zip(spans[docs.index(doc)], probabilities):
            expected = sum(math.exp(path.log_probability) for path in paths if span in path.ents)
            assert probability == pytest.approx(expected, abs=1e-4)
        for i, probability in enumerate(free):
            none = [path for path in paths if not any(start <= i < end for start, end, _ in path.ents)]
            assert probability == pytest.approx(sum(math.exp(path.log_probability) for path in none), abs=1e-4)
    same = ner.span_probabilities(docs, [[(e.start, e.end, e.label_) for e in doc.ents] for doc in docs])
    for doc, values in zip(docs, same):
        assert values == pytest.approx([ent._.confidence for ent in doc.ents], abs=1e-5)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["find-label-errors", *map(str, arguments)])


@pytest.fixture
def material(tmp_path: Path) -> Path:
    docs = make_docs()
    DocBin(docs=docs[:40]).to_disk(tmp_path / "train.spacy")
    DocBin(docs=docs[40:48]).to_disk(tmp_path / "dev.spacy")
    nlp = make_nlp(encoder=make_scratch_config(), heads=("bert_textcat", "bert_ner"), initialize=False)
    config = nlp.config.copy()
    config["paths"] = {"train": None, "dev": str(tmp_path / "dev.spacy"), "vectors": None, "init_tok2vec": None}
    optimizer = {"@optimizers": "spacy_bert_heads.AdamW.v1", "learn_rate": 0.003, "total_steps": None}
    config["training"].update(max_epochs=1, dropout=0.0, optimizer=optimizer)
    config["training"]["batcher"] = {"@batchers": "spacy.batch_by_sequence.v1", "size": 8}
    Config(config).to_disk(tmp_path / "config.cfg")
    return tmp_path


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (material / "config.cfg", material / "train.spacy", material / "out", "--folds", 3)
    trained: List[str] = []
    train = folds_module.run

    def count(config: Path, *others: Any, **settings: Any) -> str:
        trained.append(config.parent.name)
        if trained == ["fold-1", "fold-2"]:
            raise Killed()
        return train(config, *others, **settings)

    monkeypatch.setattr(folds_module, "run", count)
    with pytest.raises(Killed):
        CliRunner().invoke(app, ["find-label-errors", *map(str, arguments)], catch_exceptions=False)
    assert (material / "out" / "folds" / "fold-1.json").exists()
    result = run(*arguments, "--n", 5)
    assert result.exit_code == 0, result.output
    assert trained == ["fold-1", "fold-2", "fold-2", "fold-3"] and "Fold 1 of 3 is finished" in result.output
    names = {path.name for path in (material / "out").iterdir()}
    assert {"folds", "label_errors.md"} < names <= {"folds", "label_errors.md", "ner_manual.jsonl", "choice.jsonl"}
    lines = [line for path in (material / "out").glob("*.jsonl") for line in path.open(encoding="utf8")]
    assert len({json.loads(line)["text"] for line in lines}) == 5
    assert not any(path.is_dir() for path in (material / "out" / "folds").iterdir())
    # All is there: another format takes no training
    result = run(*arguments, "--format", "label-studio")
    assert result.exit_code == 0 and len(trained) == 4, result.output
    assert (material / "out" / "labeling_interface.xml").read_text("utf8").startswith("<View>")
    result = run(*arguments[:3], "--folds", 4)
    assert result.exit_code == 1 and "[H630]" in result.output and "folds differ" in result.output


def test_mistakes_are_named(material: Path) -> None:
    config, train, out = material / "config.cfg", material / "train.spacy", material / "out"
    DocBin().to_disk(material / "empty.spacy")
    for arguments, code in (
        ((material / "gone.cfg", train, out), "H101"),
        ((config, material / "gone.spacy", out), "H101"),
        ((config, train, out, "--dev", material / "gone.spacy"), "H635"),
        ((config, train, out, "--folds", 1), "H631"),
        ((config, train, out, "--folds", 41), "H631"),
        ((config, train, out, "--n", 0), "H634"),
        ((config, train, out, "--format", "x"), "H118"),
        ((config, material / "empty.spacy", out), "H633"),
        ((config, train, train), "H123"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and f"[{code}]" in result.output, (arguments, result.output)
    assert not out.exists()
