"""Tasks are answered as an annotator would, written, read back by our reader, and say what the annotator meant."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, FrozenSet, List, Optional, Sequence

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_bert_heads.annotation.hashes import input_hash, set_hashes
from spacy_bert_heads.annotation.heads import find_heads
from spacy_bert_heads.annotation.tasks import MIN_CONFIDENCE, SPANS_VIEWS, VIEWS, TaskMaker
from spacy_bert_heads.corpus.annotations import Annotation, CharSpan
from spacy_bert_heads.corpus.findings import Findings, Where
from spacy_bert_heads.corpus.readers.formats import AUTO, find_converter
from spacy_bert_heads.corpus.readers.options import ReadOptions
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.extensions import set_confidence

from ..corpus.helpers import write_jsonl

WORDS = ["Anna", "Smith", "lives", "in", "São", "Paulo", "😀", "北京", "."]
SPACES = [True, True, True, True, True, True, False, False, False]
TEXT = "Anna Smith lives in São Paulo 😀北京."
PERSON, CITY, SECOND_CITY = CharSpan(0, 10, "PERSON"), CharSpan(20, 29, "CITY"), CharSpan(31, 33, "CITY")
LABELS = ("PERSON", "CITY", "ORG")
CATS = ("NEWS", "SPORT", "WEATHER")
ENT_VIEWS = [view for view in VIEWS if view not in SPANS_VIEWS]


@pytest.fixture(scope="module")
def pipelines(bert_folder: str) -> Dict[str, Language]:
    """Ours and spaCy's, with exclusive labels and others."""
    encoder = {"model": {"@architectures": "spacy_bert_heads.BertEncoder.v1", "name": bert_folder}}
    pipelines = {}
    for name, factories in {
        "exclusive": ("bert_textcat", "bert_ner"),
        "multilabel": ("bert_ner", "bert_textcat_multilabel"),
        "spacy": ("ner", "textcat"),
    }.items():
        nlp = spacy.blank("en")
        if name != "spacy":
            nlp.add_pipe("bert_encoder", config=encoder)
        for factory in factories:
            component: Any = nlp.add_pipe(factory)
            for label in LABELS if factory.endswith("ner") else CATS:
                component.add_label(label)
        pipelines[name] = nlp
    return pipelines


def make_predicted(nlp: Language, *, scored: bool = True, cats: Sequence[float] = (0.2, 0.7, 0.1)) -> Doc:
    """Three entities, the second of which is doubtful."""
    doc = Doc(nlp.vocab, words=WORDS, spaces=SPACES)
    doc.ents = [Span(doc, 0, 2, "PERSON"), Span(doc, 4, 6, "CITY"), Span(doc, 7, 8, "CITY")]
    for ent, confidence in zip(doc.ents, (0.9, 0.4, 0.8)):
        if scored:
            set_confidence(ent, confidence)
    doc.cats = dict(zip(CATS, cats))
    return doc


def answer(task: Dict[str, Any], verdict: str, *, by_prodigy: bool) -> Dict[str, Any]:
    """What comes back: from Prodigy with more keys, some of them in places that JSON does not keep."""
    answered = json.loads(json.dumps(task))
    answered["answer"] = verdict
    if by_prodigy:
        answered.update(_timestamp=1700000000, _annotator_id="d-anna", _session_id="d-anna")
        if "spans" in task:
            answered["_is_binary"] = task["_view_id"] == "ner"
    return answered


def read_back(path: Path, *records: Dict[str, Any], labels: FrozenSet[str] = frozenset()) -> List[Annotation]:
    write_jsonl(path, *records)
    converter = find_converter(path, AUTO)
    assert converter.name == "prodigy"
    options = ReadOptions(only_answered=True, other_labels=labels)
    return list(converter.read(path, Findings(skip_bad=False), options))


def content(annotation: Annotation) -> Annotation:
    """What an annotation says, wherever and whenever it was said."""
    return replace(annotation, where=Where(Path(), 0), timestamp=None, tokens=None, input_hash=None, annotator=None)


def make_annotation(**says: Any) -> Annotation:
    return Annotation(TEXT, Where(Path(), 0), **says)


ALL_ENTS = {"ents": [PERSON, CITY, SECOND_CITY], "complete": True}
ACCEPTED = {
    ("exclusive", "ner_manual"): [ALL_ENTS],
    ("exclusive", "ner"): [{"ents": [span]} for span in (PERSON, CITY, SECOND_CITY)],
    ("exclusive", "choice"): [{"cats": {"NEWS": 0.0, "SPORT": 1.0, "WEATHER": 0.0}, "exclusive": True}],
    ("exclusive", "classification"): [{"cats": {"SPORT": 1.0}}],
    ("exclusive", "blocks"): [
        {**ALL_ENTS, "cats": {"NEWS": 0.0, "SPORT": 1.0, "WEATHER": 0.0}, "exclusive": True},
    ],
    ("multilabel", "choice"): [{"cats": {"NEWS": 0.0, "SPORT": 1.0, "WEATHER": 0.0}}],
    ("multilabel", "classification"): [{"cats": {"SPORT": 1.0}}],
    ("multilabel", "blocks"): [{**ALL_ENTS, "cats": {"NEWS": 0.0, "SPORT": 1.0, "WEATHER": 0.0}}],
}
REJECTED = {
    "ner_manual": [],
    "ner": [{"rejected": [span]} for span in (PERSON, CITY, SECOND_CITY)],
    "choice": [],
    "classification": [{"cats": {"SPORT": 0.0}}],
    "blocks": [],
}


@pytest.mark.parametrize("by_prodigy", [True, False])
@pytest.mark.parametrize("pipeline, view", ACCEPTED)
def test_answers_say_what_was_answered(
    pipelines: Dict[str, Language], tmp_path: Path, pipeline: str, view: str, by_prodigy: bool
) -> None:
    nlp = pipelines[pipeline]
    tasks = TaskMaker(nlp, view).make(make_predicted(nlp), meta={"from": "test"}, record={"id": 7})
    expected = {"accept": ACCEPTED[pipeline, view], "reject": REJECTED[view], "ignore": []}
    for verdict, says in expected.items():
        answered = [answer(task, verdict, by_prodigy=by_prodigy) for task in tasks]
        found = read_back(tmp_path / "answers.jsonl", *answered)
        assert [content(annotation) for annotation in found] == [make_annotation(**one) for one in says]
    assert read_back(tmp_path / "tasks.jsonl", *tasks) == []  # nobody has answered yet


@pytest.mark.parametrize("pipeline", ["exclusive", "multilabel"])
def test_corrections_say_what_was_corrected(pipelines: Dict[str, Language], tmp_path: Path, pipeline: str) -> None:
    nlp = pipelines[pipeline]
    [task] = TaskMaker(nlp, "blocks").make(make_predicted(nlp))
    answered = answer(task, "accept", by_prodigy=True)
    answered["spans"] = [{**answered["spans"][0], "label": "ORG"}]
    answered["accept"] = ["NEWS"]
    [found] = read_back(tmp_path / "answers.jsonl", answered)
    assert found.ents == [CharSpan(0, 10, "ORG")] and found.complete
    assert found.cats == {"NEWS": 1.0, "SPORT": 0.0, "WEATHER": 0.0}
    assert found.exclusive == (pipeline == "exclusive")


@pytest.mark.parametrize("view", ["ner_manual", "ner", "blocks"])
def test_spans_and_tokens_are_where_the_entities_are(pipelines: Dict[str, Language], view: str) -> None:
    nlp = pipelines["exclusive"]
    doc = make_predicted(nlp)
    tasks = TaskMaker(nlp, view).make(doc)
    spans = [span for task in tasks for span in task["spans"]]
    assert [(TEXT[span["start"] : span["end"]], span["label"], span["score"]) for span in spans] == [
        (ent.text, ent.label_, ent._.confidence) for ent in doc.ents
    ]
    for task in tasks:
        tokens = task["tokens"]
        assert "".join(token["text"] + " " * token["ws"] for token in tokens) == TEXT
        assert [token["id"] for token in tokens] == list(range(len(doc)))
        assert [TEXT[token["start"] : token["end"]] for token in tokens] == WORDS
        for span in task["spans"]:
            covered = tokens[span["token_start"] : span["token_end"] + 1]
            assert (covered[0]["start"], covered[-1]["end"]) == (span["start"], span["end"])
            assert span["source"] == "en_pipeline-0.0.0"
            assert span.get("input_hash", task["_input_hash"]) == task["_input_hash"]


def test_binary_tasks_show_how_sure_the_pipeline_is(pipelines: Dict[str, Language]) -> None:
    nlp = pipelines["exclusive"]
    doc = make_predicted(nlp)
    assert [task["meta"]["score"] for task in TaskMaker(nlp, "ner").make(doc)] == [0.9, 0.4, 0.8]
    [task] = TaskMaker(nlp, "classification").make(doc, record={"text": TEXT, "meta": {"page": 3}})
    assert (task["label"], task["meta"]) == ("SPORT", {"page": 3, "score": 0.7})
    [task] = TaskMaker(nlp, "classification").make(doc, meta={"score": 5.0})
    assert task["meta"] == {"score": 5.0}


@pytest.mark.parametrize("view", ["ner_manual", "blocks", "ner"])
def test_improbable_entities_are_not_suggested(pipelines: Dict[str, Language], view: str) -> None:
    nlp = pipelines["exclusive"]
    for confidence, n_spans in ((6e-27, 2), (MIN_CONFIDENCE - 1e-6, 2), (MIN_CONFIDENCE, 3)):
        doc = make_predicted(nlp)
        set_confidence(doc.ents[1], confidence)
        spans = [span for task in TaskMaker(nlp, view).make(doc) for span in task["spans"]]
        assert len(spans) == n_spans and all(span["score"] >= MIN_CONFIDENCE for span in spans)


def test_spacys_own_entities_have_no_score(pipelines: Dict[str, Language]) -> None:
    nlp = pipelines["spacy"]
    tasks = TaskMaker(nlp, "ner").make(make_predicted(nlp, scored=False))
    assert len(tasks) == 3
    assert not any("score" in task["spans"][0] or "meta" in task for task in tasks)
    [task] = TaskMaker(nlp, "choice").make(make_predicted(nlp))
    assert (task["accept"], task["config"]) == (["SPORT"], {"choice_style": "single"})


@pytest.mark.parametrize("cats, chosen", [((0.2, 0.3, 0.1), "SPORT"), ((0.2, 0.9, 0.6), "SPORT")])
def test_exclusive_labels_have_one_choice(pipelines: Dict[str, Language], cats: Sequence[float], chosen: str) -> None:
    nlp = pipelines["exclusive"]
    doc = make_predicted(nlp, cats=cats)
    [choice] = TaskMaker(nlp, "choice").make(doc)
    [binary] = TaskMaker(nlp, "classification").make(doc)
    assert (choice["accept"], choice["config"]["choice_style"], binary["label"]) == ([chosen], "single", chosen)


@pytest.mark.parametrize(
    "cats, chosen, asked",
    [
        ((0.1, 0.2, 0.3), [], "WEATHER"),
        ((0.9, 0.99, 0.4), ["NEWS", "SPORT"], "WEATHER"),
        ((0.5, 0.1, 1.0), None, "NEWS"),
    ],
)
def test_other_labels_have_any_number_of_choices(
    pipelines: Dict[str, Language], cats: Sequence[float], chosen: Optional[List[str]], asked: str
) -> None:
    nlp = pipelines["multilabel"]
    doc = make_predicted(nlp, cats=cats)
    [choice] = TaskMaker(nlp, "choice").make(doc)
    [binary] = TaskMaker(nlp, "classification").make(doc)
    assert choice["accept"] == (["NEWS", "WEATHER"] if chosen is None else chosen)
    assert choice["config"]["choice_style"] == "multiple"
    assert binary["label"] == asked
    assert [option["meta"] for option in choice["options"]] == [f"{value:.2f}" for value in cats]


def test_named_labels_are_the_only_ones_asked_about(pipelines: Dict[str, Language], tmp_path: Path) -> None:
    nlp = pipelines["multilabel"]
    doc = make_predicted(nlp)
    assert [span["label"] for task in TaskMaker(nlp, "ner", labels=["CITY"]).make(doc) for span in task["spans"]] == [
        "CITY",
        "CITY",
    ]
    binary = TaskMaker(nlp, "classification", labels=["WEATHER", "NEWS"]).make(doc)
    assert [(task["label"], task["meta"]["score"]) for task in binary] == [("NEWS", 0.2), ("WEATHER", 0.1)]
    [choice] = TaskMaker(nlp, "choice", labels=["WEATHER", "NEWS"]).make(doc)
    assert [option["id"] for option in choice["options"]] == ["NEWS", "WEATHER"]
    [both] = TaskMaker(nlp, "blocks", labels=["CITY"]).make(doc)
    assert both["config"]["labels"] == ["CITY"] and len(both["options"]) == 3
    # So the reader knows that nobody was asked about persons
    [manual] = TaskMaker(nlp, "ner_manual", labels=["CITY"]).make(doc)
    answered = answer(manual, "accept", by_prodigy=True)
    [found] = read_back(tmp_path / "answers.jsonl", answered, labels=frozenset(LABELS))
    assert found.ents == [CITY, SECOND_CITY] and not found.complete


def test_hashes_are_of_the_text_and_of_what_is_asked(pipelines: Dict[str, Language]) -> None:
    nlp = pipelines["exclusive"]
    doc = make_predicted(nlp)
    made = {view: TaskMaker(nlp, view).make(doc, record={"text": TEXT, "meta": {"page": 3}}) for view in ENT_VIEWS}
    assert {task["_input_hash"] for tasks in made.values() for task in tasks} == {input_hash(TEXT)}
    loaded = {"text": TEXT, "meta": {"page": 3}}
    for view, question in {
        "ner_manual": {"spans": made["ner_manual"][0]["spans"]},
        "choice": {},
        "classification": {"label": "SPORT"},
        "blocks": {"spans": made["ner_manual"][0]["spans"]},
    }.items():
        assert [task["_task_hash"] for task in made[view]] == [set_hashes({**loaded, **question})["_task_hash"]]
    assert len({task["_task_hash"] for task in made["ner"]}) == 3
    # The same questions by a pipeline that is less sure
    for ent in doc.ents:
        set_confidence(ent, 0.1)
    for view, tasks in made.items():
        again = TaskMaker(nlp, view).make(doc, record={"text": TEXT, "meta": {"page": 3}})
        assert [task["_task_hash"] for task in again] == [task["_task_hash"] for task in tasks]


def test_earlier_answers_do_not_come_back(pipelines: Dict[str, Language]) -> None:
    nlp = pipelines["exclusive"]
    record = {"text": "edited since", "id": 7, "meta": "no object", "_input_hash": 1, "_task_hash": 2}
    record.update(answer="reject", accept=["NEWS"], spans=[], label="NEWS", _is_binary=True, _timestamp=1, tokens=[])
    for view in ENT_VIEWS:
        for task in TaskMaker(nlp, view).make(make_predicted(nlp), record=record, meta={"a": 1}):
            assert (task["text"], task["id"], task["meta"]["a"], task["_view_id"]) == (TEXT, 7, 1, view)
            assert task["_input_hash"] == input_hash(TEXT)
            assert not {"answer", "_is_binary", "_timestamp"} & task.keys()
            assert task.get("accept", ["SPORT"]) == ["SPORT"]
    assert record["answer"] == "reject"


def test_a_text_without_entities(pipelines: Dict[str, Language], tmp_path: Path) -> None:
    nlp = pipelines["exclusive"]
    doc = make_predicted(nlp)
    doc.ents = []
    assert TaskMaker(nlp, "ner").make(doc) == []
    [task] = TaskMaker(nlp, "ner_manual").make(doc)
    [found] = read_back(tmp_path / "answers.jsonl", answer(task, "accept", by_prodigy=True))
    assert found.complete and found.ents == []


def test_heads_are_found_by_factory(pipelines: Dict[str, Language]) -> None:
    for name, nlp in pipelines.items():
        ner, textcat, _ = find_heads(nlp)
        assert ner is not None and textcat is not None
        assert (ner.labels, textcat.labels) == (tuple(sorted(LABELS)) if name == "spacy" else LABELS, CATS)
        assert (ner.scored, textcat.exclusive) == (name != "spacy", name != "multilabel")
    nlp = spacy.blank("en")
    assert find_heads(nlp) == (None, None, None)
    for other in ("intent", "topic"):
        nlp.add_pipe("textcat", name=other).add_label("A")  # type: ignore[attr-defined]
    assert find_heads(nlp).textcat.name == "intent"  # type: ignore[union-attr]
    assert find_heads(nlp, ["topic"]).textcat.name == "topic"  # type: ignore[union-attr]
    with nlp.select_pipes(disable="intent"):
        assert find_heads(nlp).textcat.name == "topic"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "arguments, code",
    [
        ({"view": "ner_manual", "components": ["tagger"]}, "H560"),
        ({"view": "spans_correct"}, "H561"),
        ({"view": "spans"}, "H562"),
        ({"view": "blocks"}, "H562"),
        ({"view": "choice"}, "H562"),
        ({"view": "ner", "labels": ["PERSON", "PLANET"]}, "H563"),
        ({"view": "ner", "labels": ["SPORT"]}, "H563"),
    ],
)
def test_what_a_pipeline_cannot_do_is_said(arguments: Dict[str, Any], code: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("ner").add_label("PERSON")  # type: ignore[attr-defined]
    view = arguments.pop("view")
    with pytest.raises(BertHeadsError) as caught:
        TaskMaker(nlp, view, **arguments)
    assert caught.value.code == code
