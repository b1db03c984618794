"""Learning from answers, against `nlp.update` with Examples made by hand."""

import logging
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_bert_heads.annotation.streams import stream_tasks
from spacy_bert_heads.annotation.tasks import TaskMaker
from spacy_bert_heads.annotation.updates import Learner
from spacy_bert_heads.corpus.docs import INCORRECT_SPANS_KEY
from spacy_bert_heads.pipeline_io import load_pipeline
from spacy_bert_heads.training.optimizer import CONSTANT, build_adamw_v1

from ..making import TRAINING, encoder_module, head_module, make_examples, make_nlp, weights

TEXT = TRAINING[2][0]  # track Smith in London
SMITH, LONDON = {"start": 6, "end": 11, "label": "PERSON"}, {"start": 15, "end": 21, "label": "CITY"}


@pytest.fixture(scope="module")
def trained(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that knows its three texts by heart, and has a head that is not to learn."""
    nlp = make_nlp(bert_folder, ("bert_textcat", "bert_ner", "tagger"))
    optimizer = build_adamw_v1(3e-3, warmup=0, decay=CONSTANT)
    for _ in range(40):
        nlp.update(make_examples(nlp), sgd=optimizer, exclude=["tagger"])
    optimizer.step_schedules()
    folder = tmp_path_factory.mktemp("pipeline") / "trained"
    nlp.to_disk(folder)
    assert [ent.label_ for ent in nlp(TEXT).ents] == ["PERSON", "CITY"]
    return folder


@pytest.fixture
def nlp(trained: Path) -> Language:
    return load_pipeline(str(trained))


def all_weights(nlp: Language) -> Dict[str, torch.Tensor]:
    modules = {"encoder": encoder_module(nlp)}
    modules.update((name, head_module(nlp, name)) for name in ("bert_textcat", "bert_ner"))
    found = {f"{name}.{key}": value for name, module in modules.items() for key, value in weights(module).items()}
    tagger: Any = nlp.get_pipe("tagger")
    found["tagger.W"] = torch.from_numpy(tagger.model.get_ref("softmax").get_param("W").copy())
    return found


def changed(before: Dict[str, torch.Tensor], after: Dict[str, torch.Tensor]) -> List[str]:
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


def probabilities(nlp: Language) -> Dict[Any, float]:
    """Of everything that the heads say about the training texts."""
    found = {}
    for doc in nlp.pipe([text for text, _, _ in TRAINING]):
        found.update({(doc.text, label): value for label, value in doc.cats.items()})
        found.update({(doc.text, ent.text, ent.label_): ent._.confidence for ent in doc.ents})
    return found


def make_choice(*accept: str, **keys: Any) -> Dict[str, Any]:
    options = [{"id": label, "text": label} for label in ("CANCEL", "TRACK")]
    return {"text": TEXT, "options": options, "accept": list(accept), "config": {"choice_style": "single"}, **keys}


def make_reference(nlp: Language, *, rejected: Any = None, cats: Any = None, **ents: Any) -> Example:
    reference = nlp.make_doc(TEXT)
    if ents:
        spans = [reference.char_span(*span[:2], label=span[2]) for span in ents.pop("ents")]
        reference.set_ents(spans, **ents)
    if rejected:
        reference.spans[INCORRECT_SPANS_KEY] = [reference.char_span(*rejected[:2], label=rejected[2])]
    reference.cats = cats or {}
    return Example(nlp.make_doc(TEXT), reference)


ANSWERS = [
    (
        {"text": TEXT, "spans": [SMITH], "_view_id": "ner_manual", "answer": "accept"},
        {"ents": [(6, 11, "PERSON")], "default": "outside"},
    ),
    (
        {
            "text": TEXT,
            "spans": [SMITH],
            "_view_id": "ner_manual",
            "config": {"labels": ["PERSON"]},
            "answer": "accept",
        },
        {"ents": [(6, 11, "PERSON")], "default": "missing"},
    ),
    (
        {"text": TEXT, "spans": [LONDON], "_is_binary": True, "_view_id": "ner", "answer": "accept"},
        {"ents": [(15, 21, "CITY")], "default": "missing"},
    ),
    (
        {"text": TEXT, "spans": [LONDON], "_is_binary": True, "_view_id": "ner", "answer": "reject"},
        {"ents": [], "default": "missing", "rejected": (15, 21, "CITY")},
    ),
    ({"text": TEXT, "label": "CANCEL", "_view_id": "classification", "answer": "accept"}, {"cats": {"CANCEL": 1.0}}),
    ({"text": TEXT, "label": "TRACK", "_view_id": "classification", "answer": "reject"}, {"cats": {"TRACK": 0.0}}),
    (make_choice("CANCEL", _view_id="choice", answer="accept"), {"cats": {"CANCEL": 1.0, "TRACK": 0.0}}),
    (
        make_choice("CANCEL", spans=[], _view_id="blocks", answer="accept"),
        {"cats": {"CANCEL": 1.0, "TRACK": 0.0}, "ents": [], "default": "outside"},
    ),
]


@pytest.mark.parametrize("answer, says", ANSWERS)
def test_an_answer_teaches_what_it_says(trained: Path, nlp: Language, answer: Dict[str, Any], says: Any) -> None:
    before = all_weights(nlp)
    loss = Learner(nlp, learn_rate=1e-3).update([answer])
    other = load_pipeline(str(trained))
    optimizer = build_adamw_v1(1e-3, warmup=0, decay=CONSTANT)
    losses: Dict[str, float] = {}
    other.update([make_reference(other, **says)], sgd=optimizer, losses=losses)
    optimizer.step_schedules()
    assert loss == losses["bert_textcat"] + losses["bert_ner"] > 0
    # Weights are no measure: Adam makes steps of the rounding errors of biases that make no difference
    assert probabilities(nlp) == pytest.approx(probabilities(other), abs=1e-4)
    assert any(name.startswith("encoder") for name in changed(before, all_weights(nlp)))


def test_rejected_entities_and_labels_become_less_probable(nlp: Language) -> None:
    before = nlp(TEXT)
    learner = Learner(nlp, learn_rate=1e-3)
    for _ in range(3):
        [_, city] = TaskMaker(nlp, "ner").make(before)
        [label] = TaskMaker(nlp, "classification").make(before)
        learner.update([{**city, "answer": "reject"}, {**label, "answer": "reject"}])
    after = nlp(TEXT)
    confidence = {ent.label_: ent._.confidence for ent in after.ents}
    assert confidence.get("CITY", 0.0) < before.ents[1]._.confidence
    assert confidence["PERSON"] > 0.5
    assert after.cats["TRACK"] < before.cats["TRACK"]


def test_only_heads_and_their_encoder_learn(trained: Path, nlp: Language) -> None:
    before = all_weights(nlp)
    Learner(nlp).update([answer for answer, _ in ANSWERS])
    parts = {name.split(".")[0] for name in changed(before, all_weights(nlp))}
    assert parts == {"encoder", "bert_textcat", "bert_ner"}


def test_answers_that_say_nothing_change_nothing(nlp: Language, caplog: pytest.LogCaptureFixture) -> None:
    before = all_weights(nlp)
    learner = Learner(nlp)
    with caplog.at_level(logging.WARNING, "spacy"):
        assert learner.update([]) == 0.0
        assert learner.update([{**answer, "answer": "ignore"} for answer, _ in ANSWERS]) == 0.0
    assert not caplog.records
    assert not changed(before, all_weights(nlp))
    assert learner.findings.counts["ignored"] == len(ANSWERS)


def test_bad_answers_are_told_and_the_others_learned_from(nlp: Language, caplog: pytest.LogCaptureFixture) -> None:
    bad = [
        {"spans": [], "answer": "accept"},
        {"text": TEXT, "spans": [{"start": 6, "end": 99, "label": "PERSON"}], "answer": "accept"},
        {"text": TEXT, "spans": [SMITH], "answer": "perhaps"},
    ]
    good = {"text": TEXT, "label": "CANCEL", "_view_id": "classification", "answer": "accept"}
    learner = Learner(nlp)
    with caplog.at_level(logging.WARNING, "spacy"):
        assert learner.update([*bad, good]) > 0
    assert [record.getMessage().split("]")[0] for record in caplog.records] == [
        "answers:1: [H107",
        "answers:2: [H110",
        "answers:3: [H114",
    ]
    assert learner.update([good]) > 0
    assert all(learner.findings.counts[code] == 1 for code in ("H107", "H110", "H114"))


def test_labels_and_tokens_of_another_pipeline(nlp: Language, caplog: pytest.LogCaptureFixture) -> None:
    """Such answers teach what they can, here that the rest of the text is no entity."""
    tokens = [{"text": TEXT[i : i + 2], "start": i, "end": i + 2, "id": i // 2} for i in range(0, 20, 2)]
    tokens.append({"text": "n", "start": 20, "end": 21, "id": 10})
    spans = [{"start": 6, "end": 8, "label": "PERSON"}, {"start": 15, "end": 21, "label": "PLANET"}]
    answer = {"text": TEXT, "tokens": tokens, "spans": spans, "_view_id": "ner_manual", "answer": "accept"}
    with caplog.at_level(logging.WARNING, "spacy"):
        Learner(nlp).update([answer])
    assert [ent.label_ for ent in nlp(TEXT).ents][:1] == ["PERSON"]


def test_two_questions_about_a_text_are_one_example(trained: Path, nlp: Language) -> None:
    answers = [
        {"text": TEXT, "spans": [SMITH], "_is_binary": True, "_view_id": "ner", "answer": "accept"},
        {"text": TEXT, "spans": [LONDON], "_is_binary": True, "_view_id": "ner", "answer": "reject"},
    ]
    loss = Learner(nlp).update(answers)
    other = load_pipeline(str(trained))
    example = make_reference(other, ents=[(6, 11, "PERSON")], default="missing", rejected=(15, 21, "CITY"))
    losses: Dict[str, float] = {}
    other.update([example], sgd=False, losses=losses, exclude=["tagger"])  # type: ignore[arg-type]
    assert loss == losses["bert_ner"]


def test_tasks_are_made_while_the_pipeline_learns(nlp: Language) -> None:
    learner = Learner(nlp)
    records = [{"text": f"{text} {number}"} for number in range(5) for text, _, _ in TRAINING]
    asked = []
    for task in stream_tasks(nlp, TaskMaker(nlp, "classification"), records, lookahead=3):
        learner.update([{**task, "answer": "accept"}])
        asked.append(task["text"])
    assert sorted(asked) == sorted(record["text"] for record in records)
    assert isinstance(nlp(TEXT), Doc)


def test_spacys_own_heads_learn_too() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("ner", config={"incorrect_spans_key": INCORRECT_SPANS_KEY})
    nlp.add_pipe("textcat")
    nlp.initialize(lambda: make_examples(nlp))
    ner: Any = nlp.get_pipe("ner")
    before = {label: nlp(TEXT).cats[label] for label in ("CANCEL", "TRACK")}, ner.model.to_bytes()
    learner = Learner(nlp, learn_rate=1e-2)
    for _ in range(5):
        assert learner.update([answer for answer, _ in ANSWERS if answer["answer"] == "accept"]) > 0
    assert nlp(TEXT).cats["CANCEL"] > before[0]["CANCEL"]
    assert ner.model.to_bytes() != before[1]
