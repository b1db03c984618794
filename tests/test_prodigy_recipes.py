"""The recipes with a stand-in for Prodigy, which does what its documentation says of the few names we use.

Prodigy itself needs a licence: these tests show what it is given, not what it does with it.
"""

import importlib
import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List

import pytest
import torch
from spacy.language import Language
from spacy.training import Example

from spacy_bert_heads.annotation.hashes import set_hashes
from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.readers.formats import AUTO, find_converter
from spacy_bert_heads.corpus.readers.options import ReadOptions
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.pipeline_io import load_pipeline

from .corpus.helpers import write_jsonl
from .making import encoder_module, head_module, make_nlp, make_texts, weights

TEXTS = ["Where is my order, Anna?", *make_texts(20)]
VIEWS = {
    "ner.correct": "ner_manual",
    "ner.teach": "ner",
    "spans.correct": "spans_manual",
    "spans.teach": "spans",
    "textcat.correct": "choice",
    "textcat.teach": "classification",
    "joint.correct": "blocks",
}
RECIPES = list(VIEWS)
LABELS = {"textcat": [], "spans": ["CITY", "PERSON", "PLACE", "THING"]}
# docs/reference/formats.md
COMPONENTS = {"dataset", "view_id", "stream", "update", "exclude", "config", "on_load", "on_exit", "before_db"}
COMPONENTS |= {"validate_answer", "progress", "db"}


class Stream:
    """A source of tasks to which functions from tasks to tasks are applied."""

    def __init__(self, tasks: Iterator[Dict[str, Any]]) -> None:
        self.tasks = tasks

    def apply(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.tasks = function(self.tasks, *args, **kwargs)

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        return self.tasks


def get_stream(source: str, *, rehash: bool, dedup: bool, input_key: str) -> Stream:
    tasks: Dict[int, Dict[str, Any]] = {}
    for line in Path(source).read_text(encoding="utf8").splitlines():
        task = set_hashes(json.loads(line))
        if input_key in task:
            tasks.setdefault(task["_task_hash"], task)
    return Stream(iter(tasks.values()))


class Arg:
    def __init__(self, *names: str, help: str) -> None:
        assert help and all(name.startswith("-") for name in names)


def recipe(name: str, **arguments: Arg) -> Callable[[Callable], Callable]:
    def register(function: Callable) -> Callable:
        code = function.__code__
        assert {*arguments} == {*code.co_varnames[: code.co_argcount]}
        function.recipe_name = name  # type: ignore[attr-defined]
        return function

    return register


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    names: Dict[str, Dict[str, Any]] = {
        "prodigy": {},
        "prodigy.core": {"Arg": Arg, "recipe": recipe},
        "prodigy.components": {},
        "prodigy.components.stream": {"get_stream": get_stream},
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("spacy_bert_heads.prodigy_recipes")
    sys.modules.pop("spacy_bert_heads.prodigy_recipes")


@pytest.fixture(scope="module")
def model(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    nlp = make_nlp(bert_folder, ("bert_textcat", "bert_ner", "bert_spans"))
    nlp.get_pipe("bert_spans").threshold = 0.001  # type: ignore[attr-defined]
    for parameter in head_module(nlp, "bert_spans").parameters():
        torch.nn.init.normal_(parameter, std=0.6, generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    nlp.to_disk(folder)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> str:
    records = [{"text": text, "meta": {"page": number}} for number, text in enumerate(TEXTS)]
    return str(write_jsonl(tmp_path / "texts.jsonl", *records, {"title": "no text"}, records[0]))


def find_recipe(recipes: ModuleType, name: str) -> Callable[..., Dict[str, Any]]:
    """By the entry point, as Prodigy does."""
    found: Any = entry_points()
    group = found.select(group="prodigy_recipes") if hasattr(found, "select") else found["prodigy_recipes"]
    [entry_point] = [point for point in group if point.name == f"bert_heads.{name}"]
    function = entry_point.load()
    assert function.recipe_name == entry_point.name
    assert function.__module__ == recipes.__name__
    return function  # type: ignore[no-any-return]


def read_answers(path: Path, answers: List[Dict[str, Any]]) -> List[Any]:
    write_jsonl(path, *answers)
    converter = find_converter(path, AUTO)
    return list(converter.read(path, Findings(skip_bad=False), ReadOptions()))


@pytest.mark.parametrize("name", RECIPES)
def test_a_session(recipes: ModuleType, model: Path, source: str, tmp_path: Path, name: str) -> None:
    session = find_recipe(recipes, name)("answers", str(model), source)
    view = VIEWS[name]
    assert session.keys() <= COMPONENTS
    assert (session["dataset"], session["view_id"], session["exclude"]) == ("answers", view, None)
    config = session["config"]
    assert config["exclude_by"] == ("task" if name.endswith("teach") else "input")
    assert sorted(config.get("labels", [])) == LABELS.get(name.partition(".")[0], ["CITY", "PERSON"])
    assert config.get("choice_style") == ("single" if view in ("choice", "blocks") else None)
    assert [block["view_id"] for block in config.get("blocks", [])] == (
        ["ner_manual", "choice"] if view == "blocks" else []
    )
    tasks = list(session["stream"])
    assert json.loads(json.dumps(tasks)) == tasks
    texts = [task["text"] for task in tasks]
    assert set(texts) <= set(TEXTS)
    if view not in ("ner", "spans"):
        assert sorted(texts) == sorted(set(TEXTS))  # each once
    assert all(set_hashes({"text": task["text"]})["_input_hash"] == task["_input_hash"] for task in tasks)
    assert all(TEXTS[task["meta"]["page"]] == task["text"] and "score" in task["meta"] for task in tasks)
    answers = [{**task, "answer": "accept"} for task in tasks]
    found = read_answers(tmp_path / "answers.jsonl", answers)
    assert len(found) == len(tasks) and not any(annotation.is_empty for annotation in found)
    if session["update"] is not None:
        assert isinstance(session["update"](answers), float)
    assert (session["update"] is None) == name.endswith("correct")


@pytest.mark.parametrize("name", ["ner.teach", "joint.correct"])
def test_what_is_learned_is_saved_at_the_end(
    recipes: ModuleType, model: Path, source: str, tmp_path: Path, name: str
) -> None:
    output = tmp_path / "new" / "updated"
    session = find_recipe(recipes, name)("answers", str(model), source, output=output)
    batch: List[Dict[str, Any]] = []
    for number, task in enumerate(session["stream"]):
        batch.append({**task, "answer": "accept" if number % 2 else "reject"})
        if len(batch) == 5:
            session["update"](batch)
            batch = []
    assert not output.exists()
    session["on_exit"]("the controller")
    saved = load_pipeline(str(output))
    first = weights(encoder_module(load_pipeline(str(model))))
    assert any(not value.equal(first[key]) for key, value in weights(encoder_module(saved)).items())
    # A second session goes on from there, and may not replace what it reads
    find_recipe(recipes, name)("answers", str(output), source, output=tmp_path / "third")
    for folder in (output, tmp_path):
        with pytest.raises(BertHeadsError) as caught:
            find_recipe(recipes, name)("answers", str(output), source, output=folder)
        assert caught.value.code in ("H246", "H247")


def test_options(recipes: ModuleType, model: Path, source: str) -> None:
    joint = find_recipe(recipes, "joint.correct")
    session = joint("answers", str(model), source, label="CITY, TRACK", exclude="a,b", strategy="random", update=True)
    assert session["exclude"] == ["a", "b"]
    assert session["config"]["labels"] == ["CITY"]
    assert session["config"]["auto_count_stream"] is False
    task = next(iter(session["stream"]))
    assert [option["id"] for option in task["options"]] == ["TRACK"]
    assert task["config"]["labels"] == ["CITY"]
    with pytest.raises(BertHeadsError) as caught:
        joint("answers", str(model), source, component="tagger")
    assert caught.value.code == "H560"
    with pytest.raises(BertHeadsError) as caught:
        joint("answers", "no such model", source)
    assert caught.value.code == "H227"


def test_prodigy_is_imported_by_its_recipes_alone() -> None:
    import spacy_bert_heads

    folder = Path(spacy_bert_heads.__file__).parent
    importing = [path.name for path in folder.rglob("*.py") if "from prodigy" in path.read_text(encoding="utf8")]
    assert importing == ["prodigy_recipes.py"]


# What Prodigy's own recipes look for, as their public versions do (explosion/prodigy-recipes)


@pytest.fixture(params=["bert_textcat", "bert_textcat_multilabel"])
def loaded(request: pytest.FixtureRequest, bert_folder: str, tmp_path: Path) -> Language:
    make_nlp(bert_folder, (request.param, "bert_ner")).to_disk(tmp_path / "model")
    return load_pipeline(str(tmp_path / "model"))


def test_ner_correct_finds_what_it_looks_for(loaded: Language) -> None:
    component = "bert_ner"
    assert component in loaded.pipe_names
    assert set(loaded.pipe_labels.get(component, [])) == {"CITY", "PERSON"}
    for default in ("outside", "missing"):  # its `make_update`, right after loading
        text = "track Smith in London"
        before = weights(encoder_module(loaded))
        doc, reference = loaded.make_doc(text), loaded.make_doc(text)
        reference.set_ents([doc.char_span(6, 11, label="PERSON")], default=default)
        loaded.update([Example(doc, reference)])
        loaded(text)
        assert any(not value.equal(before[key]) for key, value in weights(encoder_module(loaded)).items())
    for doc in loaded.pipe(TEXTS):
        assert all(doc.text[ent.start_char : ent.end_char] == ent.text and ent.label_ for ent in doc.ents)


def test_textcat_correct_finds_what_it_looks_for(loaded: Language) -> None:
    [component] = [name for name in loaded.pipe_names if "textcat" in name]
    labels = loaded.pipe_labels.get(component, [])
    assert set(labels) == {"CANCEL", "TRACK"}
    exclusive = component == "bert_textcat"
    assert loaded.get_pipe_config(component)["model"]["exclusive_classes"] is exclusive
    assert loaded.config["components"][component]["model"]["exclusive_classes"] is exclusive
    [(doc, context)] = loaded.pipe([("cancel it", {"id": 1})], as_tuples=True, batch_size=10)
    assert set(doc.cats) == set(labels) and context == {"id": 1}
    assert (abs(sum(doc.cats.values()) - 1.0) < 1e-5) == exclusive


def test_textcat_teach_updates_with_one_label(loaded: Language) -> None:
    [component] = [name for name in loaded.pipe_names if "textcat" in name]
    for value in (1.0, 0.0):
        example = Example.from_dict(loaded.make_doc("cancel it"), {"cats": {"CANCEL": value}})
        losses: Dict[str, float] = {}
        loaded.update([example], losses=losses)
        assert losses[component] > 0.0


def test_the_options_of_every_text_head_say_if_labels_are_exclusive(bert_folder: str) -> None:
    for name in ("TextCNN", "TextRNN", "TextRNNAttention", "TextRCNN", "DPCNN", "BagOfNgrams"):
        model: Dict[str, Any] = {"@architectures": f"spacy_bert_heads.{name}.v1", "exclusive_classes": True}
        if name != "BagOfNgrams":
            model["tok2vec"] = {"@architectures": "spacy_bert_heads.TokenListener.v1"}
        nlp = make_nlp(bert_folder, ("bert_textcat",), settings={"bert_textcat": {"model": model}}, initialize=False)
        assert nlp.get_pipe_config("bert_textcat")["model"]["exclusive_classes"] is True
        component: Any = nlp.get_pipe("bert_textcat")
        assert component.model.attrs["multi_label"] is False
