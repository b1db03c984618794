"""`spacy train` and `spacy init labels` with our components, from configs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import pytest
import spacy
import srsly
import torch
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from thinc.api import Config

from ..making import (
    HEADS,
    PIECES,
    assert_same_predictions,
    encoder_module,
    head_module,
    make_config,
    make_examples,
    make_nlp,
    make_scratch_config,
    predictions,
    weights,
)

TEXTS = ["where is my order Anna", "cancel New York", ""]


def write_corpus(folder: Path) -> Path:
    nlp = spacy.blank("en")
    path = folder / "corpus.spacy"
    DocBin(docs=[eg.reference for _ in range(4) for eg in make_examples(nlp)]).to_disk(path)
    return path


def make_training(
    folder: Path,
    encoder: Dict[str, Any],
    heads: Sequence[str] = ("bert_textcat", "bert_ner"),
    training: Optional[Dict[str, Any]] = None,
    components: Optional[Dict[str, Any]] = None,
    initialize: Optional[Dict[str, Any]] = None,
) -> Config:
    """A config for a few steps of training on three texts, four times each."""
    config = make_nlp(encoder=encoder, heads=heads, initialize=False).config.copy()
    corpus = str(write_corpus(folder))
    config["paths"] = {"train": corpus, "dev": corpus, "vectors": None, "init_tok2vec": None}
    config["training"].update({"max_steps": 4, "eval_frequency": 2, "dropout": 0.1, "seed": 7, **(training or {})})
    config["training"]["batcher"] = {"@batchers": "spacy.batch_by_sequence.v1", "size": 6}
    config["training"]["logger"] = {"@loggers": "spacy.ConsoleLogger.v1", "progress_bar": False}
    config["components"].update(components or {})
    config["initialize"]["components"] = initialize or {}
    return Config(config)


def train_nlp(nlp: Language, output: Optional[Path] = None) -> Language:
    if output is not None:
        output.mkdir()
    with open(os.devnull, "w") as nowhere:
        train(nlp, output, stdout=nowhere, stderr=nowhere)
    return nlp


def run(config: Config) -> Language:
    return train_nlp(init_nlp(config))


def all_weights(nlp: Language) -> Dict[str, torch.Tensor]:
    found = {f"encoder.{name}": tensor for name, tensor in weights(encoder_module(nlp)).items()}
    for head in nlp.pipe_names[1:]:
        found.update({f"{head}.{name}": tensor for name, tensor in weights(head_module(nlp, head)).items()})
    return found


def same_weights(one: Language, other: Language) -> bool:
    first, second = all_weights(one), all_weights(other)
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_seed_gives_the_same_weights_in_two_processes_and_another_seed_others(tmp_path: Path) -> None:
    config = make_training(tmp_path, make_scratch_config(dropout=0.1))
    config.to_disk(tmp_path / "config.cfg")
    command = [sys.executable, "-W", "ignore", "-m", "spacy", "train", str(tmp_path / "config.cfg")]
    subprocess.run([*command, "--output", str(tmp_path / "out")], check=True, stdout=subprocess.DEVNULL)
    here = run(config)
    there = spacy.load(tmp_path / "out" / "model-last")
    tokenizer, other = (nlp.get_pipe("transformer").model.shims[0].tokenizer for nlp in (here, there))
    assert tokenizer.get_vocab() == other.get_vocab()
    assert same_weights(here, there)
    config["training"]["seed"] = 8
    assert not same_weights(run(config), here)


def test_averages_are_what_training_evaluates_and_saves(bert_folder: str, tmp_path: Path) -> None:
    optimizer = {"@optimizers": "Adam.v1", "learn_rate": 0.01, "use_averages": True}
    nlp = init_nlp(make_training(tmp_path, make_config(bert_folder), training={"optimizer": optimizer}))
    before = all_weights(nlp)
    train_nlp(nlp, tmp_path / "out")
    saved, now = all_weights(spacy.load(tmp_path / "out" / "model-last")), all_weights(nlp)
    moved = [name for name in now if not torch.equal(before[name], now[name])]
    assert moved and all(not torch.equal(saved[name], now[name]) for name in moved)


@pytest.mark.parametrize("frozen", ["transformer", "bert_ner", "bert_textcat", "bert_spans"])
def test_a_frozen_component_keeps_its_weights_and_the_others_learn(
    bert_folder: str, tmp_path: Path, frozen: str
) -> None:
    make_nlp(bert_folder, ("bert_textcat", "bert_ner", "bert_spans")).to_disk(tmp_path / "base")
    base = spacy.load(tmp_path / "base")
    sourced = {name: {"source": str(tmp_path / "base")} for name in base.pipe_names}
    annotating = ["transformer"] if frozen == "transformer" else []
    training = {"frozen_components": [frozen], "annotating_components": annotating, "accumulate_gradient": 2}
    heads = base.pipe_names[1:]
    nlp = run(make_training(tmp_path, make_config(bert_folder), heads, training=training, components=sourced))
    before = {"transformer": encoder_module(base), **{head: head_module(base, head) for head in base.pipe_names[1:]}}
    after = {"transformer": encoder_module(nlp), **{head: head_module(nlp, head) for head in base.pipe_names[1:]}}
    for name in base.pipe_names:
        new = weights(after[name])
        unmoved = all(torch.equal(tensor, new[key]) for key, tensor in weights(before[name]).items())
        assert unmoved == (name == frozen)


def test_replace_listeners_in_a_config_gives_a_frozen_head_an_encoder_of_its_own(
    bert_folder: str, tmp_path: Path
) -> None:
    make_nlp(bert_folder).to_disk(tmp_path / "base")
    base = spacy.load(tmp_path / "base")
    components = {
        "transformer": {"source": str(tmp_path / "base")},
        "bert_ner": {"source": str(tmp_path / "base"), "replace_listeners": ["model.tok2vec"]},
        "bert_textcat": {"factory": "bert_textcat", **HEADS["bert_textcat"]},
    }
    config = make_training(
        tmp_path, make_config(bert_folder), training={"frozen_components": ["bert_ner"]}, components=components
    )
    nlp = init_nlp(config)
    train_nlp(nlp, tmp_path / "out")
    loaded = spacy.load(tmp_path / "out" / "model-last")
    ents = [[(ent.start, ent.end, ent.label_) for ent in doc.ents] for doc in base.pipe(TEXTS)]
    for pipeline in (nlp, loaded):
        assert [[(ent.start, ent.end, ent.label_) for ent in doc.ents] for doc in pipeline.pipe(TEXTS)] == ents
    assert not torch.equal(
        encoder_module(nlp).transformer.pooler.dense.weight, encoder_module(base).transformer.pooler.dense.weight
    )


def test_label_files_of_spacys_command_are_taken(bert_folder: str, tmp_path: Path) -> None:
    from spacy.cli.init_pipeline import init_labels_cli

    heads = ["bert_textcat", "bert_textcat_multilabel", "bert_ner", "bert_spans"]
    config = make_training(tmp_path, make_config(bert_folder), heads)
    config.to_disk(tmp_path / "config.cfg")

    class Context:
        args: List[str] = []

    init_labels_cli(Context(), tmp_path / "config.cfg", tmp_path / "labels", code_path=None, verbose=False, use_gpu=-1)  # type: ignore[arg-type]
    files = {path.stem: srsly.read_json(path) for path in (tmp_path / "labels").iterdir()}
    assert files == {
        "bert_textcat": ["CANCEL", "TRACK"],
        "bert_textcat_multilabel": ["CANCEL", "TRACK"],
        "bert_ner": ["PERSON", "CITY"],
        "bert_spans": ["PERSON", "THING", "CITY", "PLACE"],
    }
    config["initialize"]["components"] = {
        head: {"labels": {"@readers": "spacy.read_labels.v1", "path": str(tmp_path / "labels" / f"{head}.json")}}
        for head in heads
    }
    srsly.write_json(tmp_path / "labels" / "bert_ner.json", ["CITY", "PERSON"])
    nlp = init_nlp(config)
    assert nlp.get_pipe("bert_ner").labels == ("CITY", "PERSON")
    assert nlp.get_pipe("bert_textcat").labels == ("CANCEL", "TRACK")


def test_a_streamed_corpus_takes_its_vocabulary_and_labels_from_files(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf8")
    initialize = {
        "transformer": {"vocab": str(tmp_path / "vocab.txt")},
        "bert_textcat": {"labels": ["CANCEL", "TRACK", "OTHER"]},
        "bert_ner": {"labels": ["PERSON", "CITY", "ORG"]},
    }
    nlp = run(make_training(tmp_path, make_scratch_config(), training={"max_epochs": -1}, initialize=initialize))
    tokenizer = nlp.get_pipe("transformer").model.shims[0].tokenizer
    assert set(tokenizer.get_vocab()) == set(PIECES)
    assert list(nlp("where").cats) == ["CANCEL", "TRACK", "OTHER"]
    nlp.to_disk(tmp_path / "out")
    assert_same_predictions(predictions(spacy.load(tmp_path / "out").pipe(TEXTS)), predictions(nlp.pipe(TEXTS)))
