"""Configs fitted to a corpus: everything else in them stays."""

from pathlib import Path
from typing import Any, Dict

import numpy
import pytest
import spacy
import torch
from spacy.tokens import DocBin
from spacy.util import load_config, load_model_from_config
from thinc.api import Config
from transformers import AutoModel, AutoTokenizer

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.project.configs import (
    DEMO_ENCODER,
    LEAST_STEPS,
    MOST_EPOCHS,
    MULTILINGUAL,
    SCRATCH,
    render_config,
    suitable_epochs,
)
from spacy_bert_heads.training import fit_config as fit_config_module
from spacy_bert_heads.training.fit_config import CROWDED, MANY_EMBEDDINGS, Fit, fit_config
from spacy_bert_heads.training.optimizer import AdamW

from ..making import make_bert_folder, make_texts


def make_files(folder: Path, *, encoder: str = DEMO_ENCODER, docs: int = 100, heads: Any = ("textcat", "ner")) -> None:
    nlp = spacy.blank("en")
    DocBin(docs=[nlp.make_doc(f"text {i}") for i in range(docs)]).to_disk(folder / "train.spacy")
    (folder / "config.cfg").write_text(render_config("en", heads, encoder))


def fit(folder: Path, **changes: Any) -> Fit:
    settings: Dict[str, Any] = {"dev": None, "encoder": None, "epochs": 8, "seed": None, "evaluations": 10, **changes}
    return fit_config(folder / "config.cfg", folder / "fitted.cfg", train=folder / "train.spacy", **settings)


def read(folder: Path) -> Config:
    return load_config(folder / "fitted.cfg", interpolate=False)


def test_the_schedule_and_the_evaluations_end_with_the_last_epoch(tmp_path: Path) -> None:
    make_files(tmp_path)
    found = fit(tmp_path)
    # 4 steps an epoch, 32 in all, numbered from 0; the last multiple of 3 among those numbers is 30
    assert found == Fit(docs=100, steps=31, eval_frequency=3, encoder=DEMO_ENCODER)
    training = read(tmp_path)["training"]
    assert (training["max_epochs"], training["max_steps"], training["eval_frequency"]) == (8, 30, 3)
    assert training["optimizer"]["total_steps"] == 31
    optimizer = load_model_from_config(load_config(tmp_path / "fitted.cfg")).create_optimizer()
    assert isinstance(optimizer, AdamW)
    rates = [optimizer.learn_rate * optimizer.factor(step) for step in range(32)]
    assert max(rates) == pytest.approx(1e-4) and rates[-1] == 0.0 and rates[-2] > 0.0


def test_everything_else_stays_as_it_was(tmp_path: Path) -> None:
    make_files(tmp_path)
    text = (tmp_path / "config.cfg").read_text().replace("lstm_width = 256", "lstm_width = 64")
    (tmp_path / "config.cfg").write_text(text)
    fit(tmp_path, dev=tmp_path / "dev.spacy", seed=7)
    before, after = load_config(tmp_path / "config.cfg", interpolate=False), read(tmp_path)
    assert after["components"] == before["components"]
    assert after["components"]["bert_ner"]["model"]["lstm_width"] == 64
    assert after["system"]["seed"] == 7
    assert after["paths"]["train"] == str(tmp_path / "train.spacy")
    assert after["paths"]["dev"] == str(tmp_path / "dev.spacy")
    assert after["initialize"] == before["initialize"] and after["corpora"] == before["corpora"]


@pytest.mark.parametrize(("before", "after"), [(SCRATCH, DEMO_ENCODER), (DEMO_ENCODER, SCRATCH)])
def test_another_kind_of_encoder_brings_its_learning_rates(tmp_path: Path, before: str, after: str) -> None:
    make_files(tmp_path, encoder=before)
    assert fit(tmp_path, encoder=after).encoder == after
    fitted, wanted = (
        read(tmp_path),
        Config().from_str(render_config("en", ["textcat", "ner"], after), interpolate=False),
    )
    assert fitted["components"] == wanted["components"]
    assert fitted["paths"].get("encoder") == wanted["paths"].get("encoder")
    rates = [config["training"]["optimizer"]["learn_rate"] for config in (fitted, wanted)]
    assert rates[0] == rates[1]
    load_model_from_config(load_config(tmp_path / "fitted.cfg"), validate=True)


def test_heads_hear_on_what_they_heard_of_another_encoder(tmp_path: Path) -> None:
    make_files(tmp_path)
    (tmp_path / "config.cfg").write_text(render_config("en", ["ner"], SCRATCH))
    fit(tmp_path, encoder=DEMO_ENCODER)
    fitted = read(tmp_path)
    assert fitted["components"]["transformer"]["model"]["hidden_states"]
    assert fitted["components"]["bert_ner"]["model"]["tok2vec"]["layer_mix"]
    assert fitted["training"]["dropout"] == 0.1  # what suits an encoder that knows nothing is too much for this one
    load_model_from_config(load_config(tmp_path / "fitted.cfg"), validate=True)


def test_another_pretrained_encoder_is_only_named(tmp_path: Path) -> None:
    make_files(tmp_path)
    text = (tmp_path / "config.cfg").read_text().replace("overlap = 16", "overlap = 8")
    (tmp_path / "config.cfg").write_text(text)
    encoder = make_bert_folder(tmp_path / "bert")
    fit(tmp_path, encoder=encoder)
    before, after = load_config(tmp_path / "config.cfg", interpolate=False), read(tmp_path)
    assert after["paths"]["encoder"] == encoder
    # Its vectors of these texts lie close together
    before["components"]["bert_textcat"]["model"]["standardize"] = True
    assert after["components"] == before["components"]
    rates = [config["training"]["optimizer"]["learn_rate"] for config in (before, after)]
    assert rates == [1e-4, 2e-4]  # it is narrow, too
    assert after["training"]["optimizer"]["freeze_embeddings"] is False


def test_the_configs_own_encoder_keeps_its_learning_rate(tmp_path: Path) -> None:
    make_files(tmp_path)
    text = (tmp_path / "config.cfg").read_text().replace("learn_rate = 1e-4", "learn_rate = 3e-5")
    (tmp_path / "config.cfg").write_text(text)
    for encoder in (None, DEMO_ENCODER):
        assert fit(tmp_path, encoder=encoder).encoder == DEMO_ENCODER
        assert read(tmp_path)["training"]["optimizer"]["learn_rate"] == 3e-5


def test_scratch_stays_scratch(tmp_path: Path) -> None:
    make_files(tmp_path, encoder=SCRATCH)
    text = (tmp_path / "config.cfg").read_text().replace("depth = 3", "depth = 2")
    (tmp_path / "config.cfg").write_text(text)
    fit(tmp_path, encoder=SCRATCH)
    assert read(tmp_path)["components"]["transformer"]["model"]["depth"] == 2


@pytest.mark.parametrize("docs", [1, 2, 33])
def test_a_tiny_corpus_gets_a_schedule_too(tmp_path: Path, docs: int) -> None:
    make_files(tmp_path, docs=docs)
    found = fit(tmp_path, epochs=1)
    assert (found.steps, found.eval_frequency) == (2, 1)


def test_mistakes_are_named(tmp_path: Path) -> None:
    make_files(tmp_path)
    with pytest.raises(BertHeadsError, match="H228"):
        fit(tmp_path, epochs=-1)
    (tmp_path / "config.cfg").write_text("[nlp]\nlang = 'en'\n")
    with pytest.raises(BertHeadsError, match="H221"):
        fit(tmp_path)
    make_files(tmp_path)
    text = (tmp_path / "config.cfg").read_text()
    (tmp_path / "config.cfg").write_text(text.replace("spacy_bert_heads.AdamW.v1", "Adam.v1"))
    with pytest.raises(BertHeadsError, match="H221.*AdamW"):
        fit(tmp_path)
    make_files(tmp_path)
    text = (tmp_path / "config.cfg").read_text().replace('"bert_encoder"', '"transformer"')
    (tmp_path / "config.cfg").write_text(text)
    with pytest.raises(BertHeadsError, match="H222"):
        fit(tmp_path, encoder="bert-base-cased")
    (tmp_path / "train.spacy").unlink()
    with pytest.raises(BertHeadsError, match="H101"):
        fit(tmp_path)


def test_an_encoder_that_cannot_be_loaded_is_named_before_anything_is_written(tmp_path: Path) -> None:
    make_files(tmp_path)
    (tmp_path / "empty").mkdir()
    make_bert_folder(tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer.json").unlink()
    (tmp_path / "bert" / "config.json").write_text("{")
    for encoder, code in (("empty", "H203"), ("missing", "H202"), ("bert", "H203")):
        with pytest.raises(BertHeadsError) as caught:
            fit(tmp_path, encoder=str(tmp_path / encoder))
        assert caught.value.code == code
    with pytest.raises(BertHeadsError, match="H401"):
        fit(tmp_path, encoder="package:no_such_package/model")
    assert not (tmp_path / "fitted.cfg").exists()


def test_paths_that_the_config_does_not_use_are_refused(tmp_path: Path) -> None:
    make_files(tmp_path)
    text = (tmp_path / "config.cfg").read_text().replace("path = ${paths.dev}", 'path = "other.spacy"')
    (tmp_path / "config.cfg").write_text(text)
    fit(tmp_path)
    with pytest.raises(BertHeadsError, match=r"\[H229\].*paths\.dev"):
        fit(tmp_path, dev=tmp_path / "dev.spacy")


def make_encoder(folder: Path, *, pooler: bool, spread: float) -> str:
    """An encoder whose vectors of texts have about this deviation, with or without a pooler's weights."""
    name = make_bert_folder(folder)
    model = AutoModel.from_pretrained(name, add_pooling_layer=pooler)
    with torch.no_grad():
        model.encoder.layer[-1].output.LayerNorm.weight.fill_(spread)
    model.save_pretrained(name)
    return name


@pytest.mark.parametrize(("pooler", "spread"), [(True, 2.0), (True, 0.1), (False, 2.0), (False, 0.1)])
def test_heads_suit_the_encoder_that_is_given(tmp_path: Path, pooler: bool, spread: float) -> None:
    encoder = make_encoder(tmp_path / "encoder", pooler=pooler, spread=spread)
    make_files(tmp_path, encoder="bert-base-cased")
    nlp = spacy.blank("en")
    texts = make_texts(100)
    DocBin(docs=[nlp.make_doc(text) for text in texts]).to_disk(tmp_path / "train.spacy")
    found = fit(tmp_path, encoder=encoder)
    # The same figure by Hugging Face alone
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        rows = [model(**tokenizer(t, return_tensors="pt")).last_hidden_state.mean(1)[0].numpy() for t in texts]
    deviation = numpy.array(rows).std(axis=0).mean()
    assert (deviation < CROWDED) == (spread < 1)
    fitted = read(tmp_path)
    listener = fitted["components"]["bert_textcat"]["model"]["tok2vec"]
    assert listener["pooling"] == ("pooler" if pooler else "mean")
    standardize = not pooler and spread < 1
    assert fitted["components"]["bert_textcat"]["model"]["standardize"] == standardize
    assert {fitted["components"][f"bert_{head}"]["model"]["lr_scale"] for head in ("textcat", "ner")} == {20}
    # It is narrow, and may be crowded
    assert fitted["training"]["optimizer"]["learn_rate"] == (2e-4 if spread < 1 else 1e-4)
    # Few pieces, so the embeddings are a small part
    assert len(found.notes) == 1 + (0 if pooler else 1 + standardize)
    text = (tmp_path / "fitted.cfg").read_text()
    assert all(f"# {note}.\n" in text for note in found.notes)
    load_model_from_config(load_config(tmp_path / "fitted.cfg"), validate=True)


@pytest.mark.parametrize("spread", [2.0, 0.1])
def test_a_crowded_encoder_learns_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spread: float) -> None:
    encoder = make_encoder(tmp_path / "encoder", pooler=True, spread=spread)
    make_files(tmp_path)
    nlp = spacy.blank("en")
    DocBin(docs=[nlp.make_doc(text) for text in make_texts(100)]).to_disk(tmp_path / "train.spacy")
    monkeypatch.setattr(fit_config_module, "MANY", 40)
    monkeypatch.setattr(fit_config_module, "MANY_IF_CROWDED", 60)
    fit(tmp_path, encoder=encoder, epochs=0)
    epochs = [suitable_epochs(encoder, ["textcat", "ner"], 100, many) for many in (40, 60)]
    assert read(tmp_path)["training"]["max_epochs"] == epochs[spread < 1]
    assert epochs[0] < epochs[1]


@pytest.mark.parametrize("pieces", [200, 2000])
def test_large_embeddings_of_a_new_encoder_are_frozen(tmp_path: Path, pieces: int) -> None:
    encoder = make_bert_folder(tmp_path / "encoder")
    model = AutoModel.from_pretrained(encoder)
    model.resize_token_embeddings(pieces)
    model.save_pretrained(encoder)
    share = model.embeddings.word_embeddings.weight.numel() / sum(p.numel() for p in model.parameters())
    make_files(tmp_path)
    notes = fit(tmp_path, encoder=encoder).notes
    assert (
        read(tmp_path)["training"]["optimizer"]["freeze_embeddings"] == (share >= MANY_EMBEDDINGS) == (pieces == 2000)
    )
    assert any("freeze_embeddings" in note and f"{share:.0%}" in note for note in notes) == (pieces == 2000)
    make_files(tmp_path, encoder=encoder)
    assert fit(tmp_path, encoder=encoder).notes == ()
    assert read(tmp_path)["training"]["optimizer"]["freeze_embeddings"] is False


@pytest.mark.parametrize(
    ("encoder", "docs", "epochs"),
    [(SCRATCH, 999, 30), (SCRATCH, 1500, 20), (DEMO_ENCODER, 2000, 5), (DEMO_ENCODER, 99999, 4)],
)
def test_many_texts_need_fewer_epochs(encoder: str, docs: int, epochs: int) -> None:
    assert suitable_epochs(encoder, ["textcat", "ner"], docs) == epochs


def test_few_texts_need_more_epochs_for_heads_over_tokens() -> None:
    for docs in range(1, 2500):
        epochs = suitable_epochs(DEMO_ENCODER, ["ner"], docs)
        steps = epochs * -(-docs // 32)
        assert steps >= LEAST_STEPS or epochs == MOST_EPOCHS
        assert epochs <= max(10, -(-LEAST_STEPS // -(-docs // 32)))
    # The head of a text has its head start
    assert suitable_epochs(DEMO_ENCODER, ["textcat"], 50) == 10
    assert suitable_epochs(DEMO_ENCODER, ["textcat", "ner"], 50) == MOST_EPOCHS


def test_the_multilingual_encoder_is_the_one_that_was_fetched(tmp_path: Path) -> None:
    make_files(tmp_path, encoder=SCRATCH)
    folder = tmp_path / "encoders"
    folder.mkdir()
    found = fit(tmp_path, encoder=MULTILINGUAL, fetched=folder, epochs=0)
    # 4 steps an epoch, and few texts
    assert found.encoder == SCRATCH and LEAST_STEPS - 4 < found.steps <= LEAST_STEPS + 4
    assert len(found.notes) == 1 and "scratch: there is none in" in found.notes[0]
    assert (
        read(tmp_path)["components"]["transformer"]["model"]
        == load_config(tmp_path / "config.cfg")["components"]["transformer"]["model"]
    )
    name = make_encoder(folder, pooler=False, spread=2.0)
    found = fit(tmp_path, encoder=MULTILINGUAL, fetched=folder, epochs=0)
    assert found.encoder == Path(name).as_posix() and read(tmp_path)["paths"]["encoder"] == found.encoder
    assert LEAST_STEPS - 4 < found.steps <= LEAST_STEPS + 4
    with pytest.raises(BertHeadsError, match="H290.*--fetched"):
        fit(tmp_path, encoder=MULTILINGUAL)


def test_what_was_chosen_by_hand_stays(tmp_path: Path) -> None:
    encoder = make_encoder(tmp_path / "encoder", pooler=False, spread=0.1)
    make_files(tmp_path, encoder=encoder)
    text = (tmp_path / "config.cfg").read_text()
    text = text.replace('pooling = "pooler"', 'pooling = "cls"').replace("learn_rate = 5e-5", "learn_rate = 3e-5")
    (tmp_path / "config.cfg").write_text(text)
    assert fit(tmp_path, encoder=encoder).notes == ()
    before, after = load_config(tmp_path / "config.cfg", interpolate=False), read(tmp_path)
    assert after["components"] == before["components"]
