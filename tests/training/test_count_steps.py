"""The steps of a training, counted before it, are those it takes."""

import random
from pathlib import Path
from typing import Any, Dict

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import create_train_batches
from spacy.util import registry, resolve_dot_names
from thinc.api import Config

from spacy_bert_heads.training.count_steps import count_steps, fill_in_total_steps

BATCHERS: Dict[str, Dict[str, Any]] = {
    "sequences": {"@batchers": "spacy.batch_by_sequence.v1", "size": 4},
    "growing": {
        "@batchers": "spacy.batch_by_sequence.v1",
        "size": {"@schedules": "compounding.v1", "start": 1, "stop": 8, "compound": 1.3},
    },
}


def make_blank(folder: Path, batcher: Dict[str, Any], **training: Any) -> Language:
    nlp = spacy.blank("en")
    DocBin(docs=[nlp.make_doc("word " * (1 + i % 7)) for i in range(30)]).to_disk(folder / "train.spacy")
    optimizer = {"@optimizers": "spacy_bert_heads.AdamW.v1", "total_steps": None}
    nlp.config["paths"]["train"] = str(folder / "train.spacy")
    nlp.config["paths"]["dev"] = str(folder / "train.spacy")
    settings = {"max_epochs": 5, "max_steps": 0, "batcher": batcher, "optimizer": optimizer, **training}
    nlp.config["training"].update(settings)
    return nlp


@pytest.mark.parametrize("batcher", list(BATCHERS))
@pytest.mark.parametrize("max_steps", [0, 9, 1000])
def test_as_many_as_the_training_takes(tmp_path: Path, batcher: str, max_steps: int) -> None:
    nlp = make_blank(tmp_path, BATCHERS[batcher], max_steps=max_steps)
    config = nlp.config.interpolate()
    (corpus,) = resolve_dot_names(config, ["corpora.train"])
    batches = create_train_batches(nlp, corpus, registry.resolve(config["training"])["batcher"], 5)
    taken = 0
    for step, _ in enumerate(batches):
        taken += 1
        if max_steps and step >= max_steps:
            break
    state = random.getstate()
    assert count_steps(nlp) == taken
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("training", "expected"),
    [({"max_epochs": -1, "max_steps": 20}, 21), ({"max_epochs": 0, "max_steps": 20}, 21), ({"max_epochs": 0}, None)],
)
def test_without_epochs_the_limit_counts(tmp_path: Path, training: Dict[str, Any], expected: Any) -> None:
    assert count_steps(make_blank(tmp_path, BATCHERS["sequences"], **training)) == expected


def test_a_corpus_that_is_not_there_is_left_to_spacy(tmp_path: Path) -> None:
    nlp = make_blank(tmp_path, BATCHERS["sequences"])
    (tmp_path / "train.spacy").unlink()
    assert count_steps(nlp) is None
    nlp.config["paths"]["train"] = None
    assert count_steps(nlp) is None


def test_a_number_in_the_config_stays(tmp_path: Path) -> None:
    nlp = make_blank(tmp_path, BATCHERS["sequences"])
    optimizer = nlp.config["training"]["optimizer"]
    assert fill_in_total_steps(nlp).config["training"]["optimizer"]["total_steps"] == 40
    optimizer["total_steps"] = 7
    assert fill_in_total_steps(nlp).config["training"]["optimizer"]["total_steps"] == 7
    nlp.config["training"]["optimizer"] = {"@optimizers": "Adam.v1"}
    assert fill_in_total_steps(nlp).config["training"]["optimizer"] == {"@optimizers": "Adam.v1"}


def test_spacy_train_gets_the_number(tmp_path: Path) -> None:
    nlp = make_blank(tmp_path, BATCHERS["sequences"])
    config = nlp.config.copy()
    config["initialize"]["before_init"] = {"@callbacks": "spacy_bert_heads.count_steps.v1"}
    initialized = init_nlp(Config(config))
    optimizer = registry.resolve(initialized.config.interpolate()["training"])["optimizer"]
    assert optimizer.total_steps == 40
    assert initialized.create_optimizer().total_steps == 40  # type: ignore[attr-defined]
