"""Pipelines saved, loaded where the encoder's own folder is gone, taken apart and put together again."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Union, cast

import pytest
import spacy
import torch
from safetensors.torch import load_file, save_file
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers import encoder_shim

from ..making import (
    HEADS,
    assert_close,
    assert_same_predictions,
    crf_module,
    encoder_module,
    has_gradient,
    initialize_nlp,
    make_bert_folder,
    make_config,
    make_examples,
    make_nlp,
    make_scratch_config,
    predictions,
    record_rectangles,
    weights,
)

TEXTS = ["please cancel my order, Anna", "", "where is London", "我的订单 anna", " \n", "track " * 40]
STOCK = ["tagger", "bert_textcat", "bert_textcat_multilabel", "bert_ner", "bert_spans"]

LOAD = """
import json, sys
import spacy
found = {}
for path in sys.argv[2:]:
    nlp = spacy.load(path)
    docs = list(nlp.pipe(json.loads(sys.argv[1])))
    found[path] = [
        (
            dict(doc.cats),
            [(e.start, e.end, e.label_) for e in (*doc.ents, *doc.spans.get("sc", ()))],
            [t.tag_ for t in doc],
        )
        for doc in docs
    ]
print(json.dumps(found))
"""


def train(nlp: Language, steps: int = 15) -> Language:
    """Enough steps for predictions that are not all alike."""
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.002
    for _ in range(steps):
        nlp.update(make_examples(nlp), sgd=sgd)
    return nlp


def tags(nlp: Language) -> List[List[str]]:
    return [[token.tag_ for token in doc] for doc in nlp.pipe(TEXTS)]


PRIVATE = ("bert_textcat", "bert_ner", "bert_spans")


def make_standalone(tok2vec: Callable[[str], Dict[str, Any]], folder: str) -> Language:
    """Heads with an encoder each and no component that they share."""
    nlp = spacy.blank("en")
    for head in PRIVATE:
        model = {**HEADS[head].get("model", {}), "tok2vec": tok2vec(head)}
        nlp.add_pipe(head, config={"model": model})
    initialize_nlp(nlp)
    return nlp


def wrapped(folder: str) -> Callable[[str], Dict[str, Any]]:
    names = {"bert_textcat": "PooledVectors", "bert_ner": "TokenVectors", "bert_spans": "TokenVectors"}
    return lambda head: {"@architectures": f"spacy_bert_heads.{names[head]}.v1", "encoder": make_config(folder)}


STANDALONE: Dict[str, Callable[[str], Callable[[str], Dict[str, Any]]]] = {
    "encoder at tok2vec": lambda folder: lambda head: make_config(folder),
    "vectors around an encoder": wrapped,
    "encoder from scratch": lambda folder: lambda head: make_scratch_config(),
}


def replace_all_listeners(nlp: Language) -> Language:
    for head in nlp.pipe_names[1:]:
        nlp.replace_listeners("transformer", head, ["model.tok2vec"])
    return nlp


def test_saved_pipelines_load_in_a_fresh_process_without_the_encoders_folder(tmp_path: Path) -> None:
    folders = {kind: tmp_path / kind for kind in ("bert", "roberta", "distilbert", "albert", "electra")}
    pipelines = {}
    for kind, folder in folders.items():
        config = make_config(make_bert_folder(folder, kind))
        pipelines[kind] = train(make_nlp(encoder=config, heads=STOCK if kind == "bert" else STOCK[1:2]), 8)
    pipelines["scratch"] = train(make_nlp(encoder=make_scratch_config(), lang="xx"), 8)
    pipelines["standalone"] = train(make_standalone(wrapped(str(folders["bert"])), ""), 8)
    pipelines["replaced"] = replace_all_listeners(train(make_nlp(str(folders["bert"]), STOCK), 8))
    expected = {}
    for name, nlp in pipelines.items():
        path = str(tmp_path / f"saved {name}")
        nlp.to_disk(path)
        expected[path] = list(zip(predictions(nlp.pipe(TEXTS)), tags(nlp)))
    for folder in folders.values():
        shutil.rmtree(folder)
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, json.dumps(TEXTS), *expected],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        check=True,
        cwd=tmp_path,
    )
    found = json.loads(output.stdout.splitlines()[-1])
    for path, rows in expected.items():
        theirs = [(cats, [tuple(ent) for ent in ents]) for cats, ents, _ in found[path]]
        assert_same_predictions(theirs, [prediction for prediction, _ in rows], 1e-6)
        assert [t for _, _, t in found[path]] == [t for _, t in rows]


def test_the_encoders_weights_are_in_a_file_of_their_own(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_nlp(bert_folder)
    nlp.to_disk(tmp_path)
    folder = tmp_path / "transformer"
    # Read by Hugging Face's loader, written for anybody who may read the rest
    expected = encoder_module(nlp).state_dict()
    found = load_file(folder / "weights.safetensors")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert sorted(path.name for path in folder.iterdir()) == ["cfg", "model", "weights.safetensors"]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    (folder / "weights.safetensors").unlink()
    with pytest.raises(BertHeadsError, match=f"{folder}.*H291"):
        spacy.load(tmp_path)
    # As pipelines had it before: all in one
    (folder / "model").write_bytes(nlp.get_pipe("transformer").model.to_bytes())  # type: ignore[attr-defined]
    assert_same_predictions(predictions(spacy.load(tmp_path).pipe(TEXTS)), predictions(nlp.pipe(TEXTS)))


def test_saving_that_is_killed_mixes_no_weights_of_two_models(
    bert_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nlp = make_nlp(bert_folder)
    nlp.to_disk(tmp_path)
    other = train(make_nlp(bert_folder), 2)
    folder = tmp_path / "transformer"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    # Before anything is replaced: the old ones are there; between the two files: none are
    for place, name, left in ((encoder_shim, "write_weights", 3), (os, "replace", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, killed)
            with pytest.raises(KeyboardInterrupt):
                other.get_pipe("transformer").to_disk(folder, exclude=["vocab"])  # type: ignore[attr-defined]
        assert sorted(path.name for path in folder.iterdir()) == ["cfg", "model", "weights.safetensors"][:left]
        if left == 3:
            assert_same_predictions(predictions(spacy.load(tmp_path).pipe(TEXTS)), predictions(nlp.pipe(TEXTS)))
    with pytest.raises(BertHeadsError, match="H291"):
        spacy.load(tmp_path)
    other.to_disk(tmp_path)
    assert_same_predictions(predictions(spacy.load(tmp_path).pipe(TEXTS)), predictions(other.pipe(TEXTS)))


@pytest.mark.parametrize("content", [None, b"", b"version https://git-lfs.github.com/spec/v1", "short", "of another"])
def test_weights_that_cannot_be_read_leave_the_encoder_as_it_was(
    bert_folder: str, tmp_path: Path, content: Union[None, bytes, str]
) -> None:
    nlp = make_nlp(bert_folder)
    make_nlp(bert_folder).to_disk(tmp_path)
    file = tmp_path / "transformer" / "weights.safetensors"
    if content is None:
        file.unlink()
    elif content == "short":
        file.write_bytes(file.read_bytes()[:-1000])
    elif content == "of another":
        save_file({"weight": torch.zeros(2)}, file)
    else:
        file.write_bytes(cast(bytes, content))
    encoder: Any = nlp.get_pipe("transformer")
    before = predictions(nlp.pipe(TEXTS))
    with pytest.raises(BertHeadsError, match=f"{file}.*{'H291' if content is None else 'H292'}"):
        encoder.from_disk(tmp_path / "transformer", exclude=["vocab"])
    assert_same_predictions(predictions(nlp.pipe(TEXTS)), before)
    # thinc alone knows of no second file
    encoder.model.from_disk(tmp_path / "transformer" / "model")
    for use in (lambda: nlp("where is London"), lambda: encoder.model.initialize(), nlp.to_bytes):
        with pytest.raises(BertHeadsError, match="H291"):
            use()


def test_bytes_bring_the_same_predictions_into_an_uninitialised_pipeline(bert_folder: str) -> None:
    nlp = train(make_nlp(bert_folder, STOCK))
    other = make_nlp(bert_folder, STOCK, initialize=False).from_bytes(nlp.to_bytes())
    assert_same_predictions(predictions(other.pipe(TEXTS)), predictions(nlp.pipe(TEXTS)))
    assert tags(other) == tags(nlp)
    assert other.get_pipe("bert_ner").labels == ("PERSON", "CITY")
    third = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert_same_predictions(predictions(third.pipe(TEXTS)), predictions(nlp.pipe(TEXTS)))


def test_a_loaded_pipeline_goes_on_training_as_the_original_does(bert_folder: str, tmp_path: Path) -> None:
    nlp = train(make_nlp(bert_folder, STOCK), 3)
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    for pipeline in (nlp, loaded):
        train(pipeline, 3)
    expected = weights(encoder_module(nlp))
    for name, tensor in weights(encoder_module(loaded)).items():
        assert_close(tensor, expected[name])


def test_settings_given_while_loading_take_effect(
    bert_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_nlp(bert_folder, ["bert_ner"]).to_disk(tmp_path)
    changes = {
        "components.transformer.max_batch_items": 64,
        "components.transformer.model.overlap": 15,
        "components.bert_ner.model.tok2vec.pooling": "last",
        "components.bert_ner.model.tok2vec.grad_factor": 0.0,
    }
    old, new = spacy.load(tmp_path), spacy.load(tmp_path, config=changes)
    long = "order " * 60
    assert [nlp(long)._.trf_data.align.dataXd[25] for nlp in (old, new)] == [1 + 25, 32 + 1 + 25 - 15]
    rectangles = record_rectangles(new, monkeypatch)
    new(long)
    assert [rows for rows, _, _ in rectangles] == [2, 1]
    docs = [nlp.get_pipe("transformer")(nlp.make_doc("tracking")) for nlp in (old, new)]
    vectors = [
        nlp.get_pipe("bert_ner").model.get_ref("tok2vec").predict([doc])[0] for nlp, doc in zip((old, new), docs)
    ]
    for doc, vector, piece in zip(docs, vectors, (1, -2)):
        assert_close(vector[0], doc._.trf_data.model_output["last_hidden_state"][0, piece])
    for nlp, learns in ((old, True), (new, False)):
        nlp.update(make_examples(nlp), sgd=False)
        assert has_gradient(encoder_module(nlp)) == learns


@pytest.mark.parametrize("kind", ["shared", "standalone", "from scratch", "replaced"])
def test_components_can_be_sent_to_another_process(bert_folder: str, kind: str) -> None:
    """As nlp.pipe(n_process=2) does where processes are spawned."""
    if kind == "standalone":
        nlp = make_standalone(wrapped(bert_folder), bert_folder)
    else:
        nlp = make_nlp(encoder=make_scratch_config() if kind == "from scratch" else make_config(bert_folder))
    if kind == "replaced":
        replace_all_listeners(nlp)
    docs = [nlp.make_doc(text) for text in TEXTS]
    for _, component in nlp.pipeline:
        docs = list(pickle.loads(pickle.dumps(component)).pipe(docs))
    assert_same_predictions(predictions(docs), predictions(nlp.pipe(TEXTS)), 1e-6)


def test_outputs_on_a_doc_survive_bytes_and_doc_bins(bert_folder: str) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder, hidden_states=True))
    doc = nlp(TEXTS[0])
    for copy in (
        Doc(nlp.vocab).from_bytes(doc.to_bytes()),
        next(iter(DocBin(docs=[doc], store_user_data=True).get_docs(nlp.vocab))),
    ):
        ours, theirs = copy._.trf_data.model_output, doc._.trf_data.model_output
        assert list(ours) == ["last_hidden_state", "pooler_output", "hidden_states"]
        assert_close(ours["pooler_output"], theirs["pooler_output"])
        assert len(ours["hidden_states"]) == 3
        assert_close(nlp.get_pipe("bert_textcat").predict([copy]), nlp.get_pipe("bert_textcat").predict([doc]))


def test_replaced_listeners_change_nothing_and_learn_apart(bert_folder: str, tmp_path: Path) -> None:
    nlp = train(make_nlp(bert_folder, STOCK))
    before, before_tags = predictions(nlp.pipe(TEXTS)), tags(nlp)
    replace_all_listeners(nlp)
    assert_same_predictions(predictions(nlp.pipe(TEXTS)), before)
    assert tags(nlp) == before_tags
    nlp.remove_pipe("transformer")
    assert_same_predictions(predictions(nlp.pipe(TEXTS)), before)

    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert_same_predictions(predictions(loaded.pipe(TEXTS)), before)
    assert tags(loaded) == before_tags
    for pipeline in (nlp, loaded):
        shims = [
            (shim, name)
            for name, component in pipeline.pipeline
            for node in component.model.walk()  # type: ignore[attr-defined]
            for shim in node.shims
        ]
        assert len({shim.id for shim, _ in shims}) == len(shims)
        old = {name: weights(shim.module) for shim, name in shims if shim.id and node_is_encoder(shim)}
        assert set(old) == set(STOCK)
        losses: List[Dict[str, float]] = []
        sgd = pipeline.create_optimizer()
        sgd.learn_rate = 0.002
        for _ in range(10):
            losses.append(pipeline.update(make_examples(pipeline), sgd=sgd))
        assert all(losses[-1][head] < losses[0][head] for head in STOCK)
        new = {name: weights(shim.module) for shim, name in shims if node_is_encoder(shim)}
        for name in STOCK:
            assert any(not (old[name][key] == new[name][key]).all() for key in old[name])
        key = "transformer.encoder.layer.0.output.dense.weight"
        assert not (new["bert_ner"][key] == new["bert_textcat"][key]).all()


def node_is_encoder(shim: Any) -> bool:
    return hasattr(shim, "tokenizer")


@pytest.mark.parametrize("kind", STANDALONE)
def test_standalone_heads_overfit_and_reload(bert_folder: str, tmp_path: Path, kind: str) -> None:
    nlp = train(make_standalone(STANDALONE[kind](bert_folder), bert_folder), 60 if "scratch" in kind else 40)
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["cats_acc"] == scores["ents_f"] == scores["spans_sc_f"] == 1.0
    nlp.to_disk(tmp_path)
    assert_same_predictions(predictions(spacy.load(tmp_path).pipe(TEXTS)), predictions(nlp.pipe(TEXTS)))


def test_standalone_heads_predict_what_shared_ones_do(bert_folder: str) -> None:
    shared = train(make_nlp(bert_folder, PRIVATE))
    alone = make_standalone(STANDALONE["encoder at tok2vec"](bert_folder), bert_folder)
    for head in PRIVATE:
        private = next(node for node in alone.get_pipe(head).model.walk() if node.name == "bert_encoder")
        private.shims[0].module.load_state_dict(encoder_module(shared).state_dict())
        for ours, theirs in zip(alone.get_pipe(head).model.layers[1:], shared.get_pipe(head).model.layers[1:]):
            ours.shims[0].module.load_state_dict(theirs.shims[0].module.state_dict())
    assert_same_predictions(predictions(alone.pipe(TEXTS)), predictions(shared.pipe(TEXTS)), 1e-6)


def test_bilstm_crf_works_over_spacys_own_embeddings(tmp_path: Path) -> None:
    tok2vec = {
        "@architectures": "spacy.HashEmbedCNN.v2",
        "width": 32,
        "depth": 1,
        "embed_size": 500,
        "window_size": 1,
        "maxout_pieces": 2,
        "subword_features": True,
        "pretrained_vectors": None,
    }
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"lstm_width": 16, "tok2vec": tok2vec, "lr_scale": 1.0}})
    initialize_nlp(nlp)
    assert crf_module(nlp) is not None
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.01
    for _ in range(40):
        nlp.update(make_examples(nlp), sgd=sgd)
    assert nlp.evaluate(make_examples(nlp))["ents_f"] == 1.0
    nlp.to_disk(tmp_path)
    assert_same_predictions(predictions(spacy.load(tmp_path).pipe(TEXTS)), predictions(nlp.pipe(TEXTS)))


def test_sourced_components_bring_their_predictions_along(bert_folder: str, tmp_path: Path) -> None:
    source = train(make_nlp(bert_folder, STOCK))
    nlp = spacy.blank("en")
    for name in source.pipe_names:
        nlp.add_pipe(name, source=source)
    assert_same_predictions(predictions(nlp.pipe(TEXTS)), predictions(source.pipe(TEXTS)))
    nlp.to_disk(tmp_path)
    assert_same_predictions(predictions(spacy.load(tmp_path).pipe(TEXTS)), predictions(source.pipe(TEXTS)))


def test_a_new_head_is_initialised_on_a_sourced_encoder(bert_folder: str) -> None:
    source = train(make_nlp(bert_folder, ["bert_textcat"]))
    nlp = spacy.blank("en")
    nlp.add_pipe("transformer", source=source)
    nlp.add_pipe("bert_textcat", source=source)
    nlp.add_pipe("bert_ner", config=HEADS["bert_ner"])
    initialize_nlp(nlp)
    cats = [doc.cats for doc in source.pipe(TEXTS)]
    assert [doc.cats for doc in nlp.pipe(TEXTS)] == cats
    losses = [
        nlp.update(make_examples(nlp), exclude=["transformer"], annotates=["transformer"])["bert_ner"]
        for _ in range(9)
    ]
    assert losses[-1] < losses[0]


def test_select_pipes_leaves_the_others_predictions(bert_folder: str) -> None:
    nlp = train(make_nlp(bert_folder))
    whole = predictions(nlp.pipe(TEXTS))
    with nlp.select_pipes(disable=["bert_textcat"]):
        assert predictions(nlp.pipe(TEXTS)) == [({}, ents) for _, ents in whole]
    with nlp.select_pipes(enable=["transformer", "bert_textcat"]):
        assert predictions(nlp.pipe(TEXTS)) == [(cats, []) for cats, _ in whole]
    assert predictions(nlp.pipe(TEXTS)) == whole
