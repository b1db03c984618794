"""Spans that may overlap all the way round: asked about, answered, read, merged, learned from."""

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span
from thinc.api import Config
from typer.testing import CliRunner

from spacy_bert_heads.annotation.heads import find_heads, found_spans
from spacy_bert_heads.annotation.label_studio.tasks import pipeline_config, read_tasks
from spacy_bert_heads.annotation.loop import run_loop
from spacy_bert_heads.annotation.merge import merge
from spacy_bert_heads.annotation.rounds import LoopSettings
from spacy_bert_heads.annotation.strategies import Scorer
from spacy_bert_heads.annotation.suggest import suggest
from spacy_bert_heads.annotation.tasks import TaskMaker, asked_heads, default_view
from spacy_bert_heads.annotation.updates import Learner
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.corpus.annotations import Annotation, CharSpan
from spacy_bert_heads.corpus.annotations import merge as merge_records
from spacy_bert_heads.corpus.findings import Findings, Where
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.pipeline_io import load_pipeline

from ..corpus.helpers import ALL_TRAIN, load_docs, write_jsonl
from ..making import head_module, make_nlp, make_scratch_config, make_texts
from ..pipeline.test_spans import make_unsure, triples

TEXT = "mayor of New York resigned"
MAYOR, CITY, STATE = CharSpan(0, 17, "ROLE"), CharSpan(9, 17, "CITY"), CharSpan(9, 17, "STATE")


@pytest.fixture(scope="module")
def model(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Spans of any probability, a text head, and no entities."""
    nlp = make_nlp(bert_folder, ("bert_textcat", "bert_spans"))
    source = make_unsure(bert_folder)
    head_module(nlp, "bert_spans").load_state_dict(head_module(source, "bert_spans").state_dict())
    folder = tmp_path_factory.mktemp("model")
    nlp.to_disk(folder)
    return str(folder)


@pytest.fixture(scope="module")
def spans_model(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("spans_model")
    make_unsure(bert_folder).to_disk(folder)
    return str(folder)


def char_spans(spans: Any) -> List[CharSpan]:
    return sorted(CharSpan(span.start_char, span.end_char, span.label_) for span in spans)


def as_spans(*spans: CharSpan) -> List[Dict[str, Any]]:
    return [span._asdict() for span in spans]


def manual(text: str, *spans: CharSpan, **keys: Any) -> Dict[str, Any]:
    return {"text": text, "spans": as_spans(*spans), "_view_id": "spans_manual", "answer": "accept", **keys}


def yes_or_no(text: str, span: CharSpan, answer: str) -> Dict[str, Any]:
    return {"text": text, "spans": as_spans(span), "_view_id": "spans", "answer": answer}


def read_tasks_file(path: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def test_the_head_that_is_asked_is_the_one_for_entities_or_else_that_for_spans(bert_folder: str) -> None:
    both = make_nlp(bert_folder, ("bert_ner", "bert_spans"), initialize=False)
    heads = find_heads(both)
    assert heads.finder == heads.ner and heads.spans is not None and heads.spans.spans_key == "sc"
    assert default_view(heads) == "ner_manual" and asked_heads(heads, "spans").finder == heads.spans
    spans = find_heads(make_nlp(bert_folder, ("bert_spans",), initialize=False))
    assert spans.finder == spans.spans and default_view(spans) == "spans_manual"
    nlp = spacy.blank("en")
    nlp.add_pipe("spancat", config={"spans_key": "mine"}).add_label("A")  # type: ignore[attr-defined]
    assert find_heads(nlp).spans == ("spancat", ("A",), False, False, "mine")


@pytest.mark.parametrize("view", ["spans_manual", "spans", "blocks"])
def test_tasks_hold_what_the_head_found_and_come_in_the_order_of_their_scores(
    model: str, view: str, tmp_path: Path
) -> None:
    nlp = load_pipeline(model)
    texts = list(dict.fromkeys(make_texts(20, longest=8)))
    raw, output = write_jsonl(tmp_path / "raw.jsonl", *({"text": text} for text in texts)), tmp_path / "tasks.jsonl"
    report = suggest(model, raw, output, view=None if view == "blocks" else view)
    assert report.view == view and report.strategy == ("joint" if view == "blocks" else "mnlp")
    scorer = Scorer(nlp, report.strategy, find_heads(nlp))
    scored = {doc.text: (doc, score) for doc, score in scorer.pipe(texts)}
    tasks = read_tasks_file(output)
    order = list(dict.fromkeys(task["text"] for task in tasks))
    assert order == sorted(order, key=lambda text: -scored[text][1]) and len(order) == report.n_texts
    for text in order:
        doc, score = scored[text]
        asked = [span for task in tasks if task["text"] == text for span in task["spans"]]
        assert [(span["token_start"], span["token_end"] + 1, span["label"]) for span in asked] == triples(doc)
        assert [span["score"] for span in asked] == [value for _, value in found_spans(doc, find_heads(nlp).spans)]
    if view == "blocks":
        assert tasks[0]["config"]["blocks"][0] == {"view_id": "spans_manual"}
    # What comes back is read as it was said
    accepted = [{**task, "answer": "accept"} for task in tasks]
    merge([], tmp_path / "merged", answers=[write_jsonl(tmp_path / "a.jsonl", *accepted)], spans_key="sc")
    for doc in load_docs(tmp_path / "merged" / "train.spacy"):
        predicted = scored[doc.text][0]
        assert sorted(triples(doc)) == sorted(triples(predicted))
        assert ("unknown_spans" in doc.spans) == (view == "spans")
    # What is in a corpus of spans is not asked about again
    merged = tmp_path / "merged" / "train.spacy"
    with pytest.raises(BertHeadsError, match=r"\[H505\]"):
        suggest(model, raw, output, view=view, exclude=[merged])


@pytest.mark.parametrize("strategy", ["mnlp", "random"])
def test_strategies_for_entities_are_strategies_for_spans(spans_model: str, strategy: str) -> None:
    nlp = load_pipeline(spans_model)
    texts = ["Anna in New York", " ", "x", "track Smith in London please"]
    alone = [Scorer(nlp, strategy, find_heads(nlp)).score(nlp(text)) for text in texts]
    together = [score for _, score in Scorer(nlp, strategy, find_heads(nlp)).pipe(texts)]
    assert together == pytest.approx(alone, abs=1e-4) and all(score >= 0 for score in alone)
    assert strategy == "random" or alone[1] == pytest.approx(0.0, abs=1e-9)
    # A head that is surer of everything is less worth asking
    head_module(nlp, "bert_spans").labels.bias.data[:] -= 30.0  # type: ignore[union-attr, operator]
    if strategy != "random":
        assert Scorer(nlp, strategy, find_heads(nlp)).score(nlp(texts[0])) < alone[0]


def test_label_studio_gets_overlapping_predictions(spans_model: str, tmp_path: Path) -> None:
    nlp = load_pipeline(spans_model)
    config = pipeline_config(nlp)
    (question,) = config.asked()
    assert question.type == "labels" and set(question.labels) == set(find_heads(nlp).spans.labels)  # type: ignore[union-attr]
    [task] = TaskMaker(nlp, "spans_manual").make(nlp("Anna in New York"))
    [suggested] = read_tasks(write_jsonl(tmp_path / "tasks.jsonl", task))
    results = suggested.prediction(config, "v1")["result"]
    found = [CharSpan(r["value"]["start"], r["value"]["end"], r["value"]["labels"][0]) for r in results]
    doc = nlp("Anna in New York")
    assert found == char_spans(doc.spans["sc"]) and len(found) > 2


def test_answers_become_a_group_and_its_gaps(tmp_path: Path) -> None:
    answers = [
        manual(TEXT, MAYOR, CITY),
        yes_or_no("a York b", CharSpan(2, 6, "CITY"), "accept"),
        yes_or_no("a York b", CharSpan(2, 8, "CITY"), "accept"),
        yes_or_no("a York b", CharSpan(0, 1, "CITY"), "reject"),
        manual("nothing here"),
    ]
    path = write_jsonl(tmp_path / "answers.jsonl", *answers)
    report = merge([], tmp_path / "corpus", answers=[path], split=ALL_TRAIN, spans_key="sc")
    docs = {doc.text: doc for doc in load_docs(tmp_path / "corpus" / "train.spacy")}
    assert char_spans(docs[TEXT].spans["sc"]) == sorted([MAYOR, CITY]) and "unknown_spans" not in docs[TEXT].spans
    assert list(docs["nothing here"].spans["sc"]) == [] and not docs[TEXT].has_annotation("ENT_IOB")
    partial = docs["a York b"].spans
    assert char_spans(partial["sc"]) == [CharSpan(2, 6, "CITY"), CharSpan(2, 8, "CITY")]
    assert char_spans(partial["incorrect_spans"]) == [CharSpan(0, 1, "CITY")]
    assert char_spans(partial["unknown_spans"]) == [CharSpan(0, 8, "")]
    assert report.splits["train"].spans == {"ROLE": 1, "CITY": 3}
    # The same again changes nothing, byte for byte, and a newer answer wins
    before = (tmp_path / "corpus" / "train.spacy").read_bytes()
    again = merge([tmp_path / "corpus"], tmp_path / "corpus", answers=[path], spans_key="sc")
    assert (tmp_path / "corpus" / "train.spacy").read_bytes() == before and again.texts["unchanged"] == 3
    newer = write_jsonl(tmp_path / "newer.jsonl", manual(TEXT, STATE, CITY))
    changed = merge([tmp_path / "corpus"], tmp_path / "corpus", answers=[newer], spans_key="sc")
    docs = {doc.text: doc for doc in load_docs(tmp_path / "corpus" / "train.spacy")}
    assert char_spans(docs[TEXT].spans["sc"]) == sorted([STATE, CITY]) and changed.texts["changed"] == 1
    assert changed.new_labels.keys() == {("entity", "STATE")}


def test_label_by_label_is_one_annotation(tmp_path: Path) -> None:
    def shown(label: str, *spans: CharSpan) -> Dict[str, Any]:
        return manual(TEXT, *spans, config={"labels": [label]})

    path = write_jsonl(tmp_path / "answers.jsonl", shown("ROLE", MAYOR), shown("CITY", CITY))
    report = merge([], tmp_path / "corpus", answers=[path], spans_key="sc")
    (doc,) = load_docs(tmp_path / "corpus" / "train.spacy")
    assert char_spans(doc.spans["sc"]) == sorted([MAYOR, CITY]) and "unknown_spans" not in doc.spans
    assert not report.conflicts
    # A third label came later: of it, nobody was asked
    third = write_jsonl(tmp_path / "third.jsonl", {**shown("STATE", STATE), "text": f"{TEXT}."})
    merge([tmp_path / "corpus"], tmp_path / "corpus", answers=[third], spans_key="sc")
    docs = {doc.text: doc for doc in load_docs(tmp_path / "corpus" / "train.spacy")}
    gaps = {gap.label_ for gap in docs[f"{TEXT}."].spans["unknown_spans"]}
    assert gaps == {"ROLE", "CITY"}


def test_versions_that_contradict_each_other_are_a_conflict_where_both_say_something() -> None:
    def version(*spans: CharSpan, unknown: List[CharSpan], line: int) -> Annotation:
        return Annotation(TEXT, Where(Path("a"), line), ents=list(spans), complete=True, unknown=unknown)

    whole = [CharSpan(0, len(TEXT), label) for label in ("CITY", "ROLE")]
    first, second = version(MAYOR, unknown=whole[:1], line=1), version(CITY, unknown=whole[1:], line=2)
    third = version(unknown=whole[1:], line=3)
    findings = Findings(skip_bad=False)
    found = merge_records([first, second, third], findings, overlaps=True)
    # The third says that there is no city
    assert found.ents == [MAYOR] and found.unknown == [] and found.complete
    assert [case.where.line for case in findings.cases["entity_conflict"]] == [2]


def test_a_corpus_with_entities_beside_spans_is_refused(tmp_path: Path) -> None:
    doc = spacy.blank("en")(TEXT)
    doc.ents = [Span(doc, 2, 4, "CITY")]
    doc.spans["sc"] = [Span(doc, 0, 4, "ROLE")]
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "train.spacy")
    answers = write_jsonl(tmp_path / "a.jsonl", manual("another"))
    result = CliRunner().invoke(
        app,
        ["merge", str(tmp_path), "--answers", str(answers), "--output", str(tmp_path / "out"), "--spans-key", "sc"],
    )
    assert result.exit_code == 1 and "H590" in result.output and not (tmp_path / "out" / "train.spacy").exists()


def test_a_session_learns_from_answers_about_spans(spans_model: str) -> None:
    nlp = load_pipeline(spans_model)
    text = "Anna in New York"
    doc = nlp(text)
    rejected = doc.spans["sc"][0]
    span = CharSpan(rejected.start_char, rejected.end_char, rejected.label_)
    before = rejected._.confidence
    learner = Learner(nlp, learn_rate=1e-3)
    for _ in range(10):
        assert learner.update([yes_or_no(text, span, "reject")]) > 0
    nlp.get_pipe("bert_spans").threshold = 1e-6  # type: ignore[attr-defined]
    again = nlp(text)
    after = {place: span._.confidence for place, span in zip(triples(again), again.spans["sc"])}
    assert after.get(triples(doc)[0], 0.0) < before and not learner.findings.counts["bad"]


PEOPLE, CITIES = ("anna", "smith", "bob", "kim"), ("london", "york", "paris", "rome")


def make_docs() -> List[Doc]:
    nlp, docs = spacy.blank("en"), []
    for city in CITIES:
        for person in PEOPLE:
            for verb in ("track", "cancel"):
                doc = nlp(f"{verb} order of {person} in {city}")
                doc.spans["sc"] = [Span(doc, 1, 4, "THING"), Span(doc, 3, 4, "PERSON"), Span(doc, 5, 6, "CITY")]
                docs.append(doc)
    return docs


@pytest.mark.slow
def test_the_loop_goes_round(tmp_path: Path) -> None:
    docs = make_docs()
    for name, part in (("base", docs[::4]), ("dev", docs[1::4])):
        DocBin(docs=part, store_user_data=True).to_disk(tmp_path / f"{name}.spacy")
    raw = write_jsonl(tmp_path / "raw.jsonl", *({"text": doc.text} for doc in docs))
    nlp = make_nlp(encoder=make_scratch_config(), heads=("bert_spans",), initialize=False)
    config = nlp.config.copy()
    config["paths"] = {"train": None, "dev": None, "vectors": None, "init_tok2vec": None}
    optimizer = {"@optimizers": "spacy_bert_heads.AdamW.v1", "learn_rate": 0.003, "total_steps": None}
    config["training"].update(max_epochs=2, dropout=0.0, optimizer=optimizer, score_weights={"spans_sc_f": 1.0})
    config["training"]["batcher"] = {"@batchers": "spacy.batch_by_sequence.v1", "size": 4}
    Config(config).to_disk(tmp_path / "config.cfg")
    settings = LoopSettings(
        tmp_path / "config.cfg", raw, tmp_path / "dev.spacy", bases=(tmp_path / "base.spacy",), limit=6
    )
    folder = tmp_path / "loop"
    said = run_loop(folder, settings, say=lambda text: None)
    assert "Round 1 is waiting" in said
    tasks = read_tasks_file(folder / "round-01" / "tasks.jsonl")
    known = {doc.text for doc in (*docs[::4], *docs[1::4])}
    assert len(tasks) == 6 and not known & {task["text"] for task in tasks}
    assert {task["_view_id"] for task in tasks} == {"spans_manual"}
    truth = {doc.text: char_spans(doc.spans["sc"]) for doc in docs}
    answered = [{**task, "spans": as_spans(*truth[task["text"]]), "answer": "accept"} for task in tasks]
    write_jsonl(folder / "round-01" / "answers.jsonl", *answered)
    said = run_loop(folder, settings, say=lambda text: None)
    assert "Round 2 is waiting" in said
    learned = {
        doc.text: char_spans(doc.spans["sc"]) for doc in load_docs(folder / "round-01" / "corpus" / "train.spacy")
    }
    assert learned == {doc.text: truth[doc.text] for doc in docs if doc.text in learned} and len(learned) == 8 + 6
    rows = json.loads((folder / "rounds.json").read_text(encoding="utf8"))
    assert [row["texts"] for row in rows] == [8, 14] and all("spans_sc_f" in row["scores"] for row in rows)
    shutil.rmtree(folder)


def test_yes_and_no_fill_the_gaps_of_a_complete_annotation(tmp_path: Path) -> None:
    shown = manual(TEXT, MAYOR, config={"labels": ["ROLE"]})
    other = CharSpan(0, 5, "CITY")
    answers = [shown, yes_or_no(TEXT, CITY, "accept"), yes_or_no(TEXT, other, "reject")]
    answers.append(yes_or_no(TEXT, CharSpan(0, 5, "ROLE"), "accept"))  # against the complete one, which wins
    report = merge([], tmp_path / "c", answers=[write_jsonl(tmp_path / "a.jsonl", *answers)], spans_key="sc")
    (doc,) = load_docs(tmp_path / "c" / "train.spacy")
    assert char_spans(doc.spans["sc"]) == sorted([MAYOR, CITY])
    assert char_spans(doc.spans["incorrect_spans"]) == [other]
    assert char_spans(doc.spans["unknown_spans"]) == [CharSpan(0, len(TEXT), "CITY")]
    assert [conflict.kind for conflict in report.conflicts] == ["binary_against_manual"]
    before = (tmp_path / "c" / "train.spacy").read_bytes()
    merge([tmp_path / "c"], tmp_path / "c", answers=[tmp_path / "a.jsonl"], spans_key="sc")
    assert (tmp_path / "c" / "train.spacy").read_bytes() == before
    # Nor does it forget them when it is about another text
    another = write_jsonl(tmp_path / "b.jsonl", manual("another"))
    merge([tmp_path / "c"], tmp_path / "c", answers=[another], spans_key="sc")
    (kept,) = [found for found in load_docs(tmp_path / "c" / "train.spacy") if found.text == TEXT]
    assert {key: char_spans(group) for key, group in kept.spans.items()} == {
        key: char_spans(group) for key, group in doc.spans.items()
    }
