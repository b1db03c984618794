"""Attention weights on `doc._.trf_data`, against those of Hugging Face's own models, window by window."""

from pathlib import Path
from typing import Any, Dict

import numpy
import pytest
import spacy
import torch
from spacy_transformers.data_classes import TransformerData
from transformers import AutoConfig, AutoModel, LongformerConfig

from spacy_bert_heads.backends.optimize import optimize
from spacy_bert_heads.errors import BertHeadsError

from ..making import (
    PIECES,
    SIZES,
    assert_close,
    assert_gradients_close,
    assert_same_predictions,
    encoder_module,
    make_bert_folder,
    make_config,
    make_examples,
    make_nlp,
    make_scratch_config,
    make_texts,
    make_tokenizer,
    predictions,
)

TEXTS = [*make_texts(6), "", "order my refund " * 25, "我的订单"]


def attending(folder: str, **options: Any) -> Any:
    return make_nlp(encoder=make_config(folder, attentions=True, **options))


def hf_attentions(folder: str, ids: numpy.ndarray) -> Any:
    """Hugging Face's, of the wordpieces of one window, loaded anew from the encoder's folder."""
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.from_numpy(ids)[None], output_attentions=True).attentions


@pytest.mark.parametrize("kind", list(SIZES))
def test_they_are_hugging_faces_own_for_each_window(tmp_path: Path, kind: str) -> None:
    folder = make_bert_folder(tmp_path / kind, kind)
    nlp = attending(folder)
    several = 0
    for doc in [*nlp.pipe(TEXTS), nlp(TEXTS[0])]:
        data = doc._.trf_data
        layers, pieces = data.model_output["attentions"], data.wordpieces
        n_windows, width = data.model_output["last_hidden_state"].shape[:2]
        assert len(layers) == 2 and all(layer.shape == (n_windows, 2, width, width) for layer in layers)
        several += n_windows > 1
        for window, length in enumerate(pieces.lengths):
            expected = hf_attentions(folder, pieces.input_ids[window, :length])
            for layer, theirs in zip(layers, expected):
                assert_close(layer[window, :, :length, :length], theirs[0])
                assert_close(layer[window, :, :length].sum(-1), numpy.ones((2, length)))
                assert not layer[window, :, length:].any() and not layer[window, :, :, length:].any()
    assert several == 1


def test_they_change_no_prediction_and_no_gradient(bert_folder: str) -> None:
    plain, nlp = make_nlp(bert_folder), attending(bert_folder)
    assert_same_predictions(predictions(nlp.pipe(TEXTS)), predictions(plain.pipe(TEXTS)), 1e-5)
    for each in (plain, nlp):
        each.update(make_examples(each), sgd=False)
    assert_gradients_close(encoder_module(nlp), encoder_module(plain))


def test_they_are_there_after_loading_and_pass_through_bytes(bert_folder: str, tmp_path: Path) -> None:
    nlp = attending(bert_folder)
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    for doc, other in zip(nlp.pipe(TEXTS), loaded.pipe(TEXTS)):
        again = TransformerData.empty().from_bytes(doc._.trf_data.to_bytes()).model_output["attentions"]
        theirs = other._.trf_data.model_output["attentions"]
        for layer, same, stored in zip(doc._.trf_data.model_output["attentions"], theirs, again):
            assert_close(layer, same)
            assert_close(layer, stored)
            assert (layer if layer.base is None else layer.base).size == layer.size
    plain = spacy.load(tmp_path, config={"components": {"transformer": {"model": {"attentions": False}}}})
    assert "attentions" not in plain("order")._.trf_data.model_output


def test_an_encoder_from_scratch_has_them(tmp_path: Path) -> None:
    nlp = make_nlp(encoder=make_scratch_config(attentions=True))
    assert nlp("where is my order")._.trf_data.model_output["attentions"][0].ndim == 4


def test_an_exported_encoder_has_none(bert_folder: str, tmp_path: Path) -> None:
    attending(bert_folder).to_disk(tmp_path / "attending")
    with pytest.raises(BertHeadsError) as error:
        optimize(str(tmp_path / "attending"), tmp_path / "out", backend="torch", precision="fp32")
    assert error.value.code == "H288" and not (tmp_path / "out").exists()
    make_nlp(bert_folder).to_disk(tmp_path / "plain")
    optimize(str(tmp_path / "plain"), tmp_path / "out", backend="torch", precision="bf16")
    nlp = spacy.load(tmp_path / "out", config={"components": {"transformer": {"model": {"attentions": True}}}})
    with pytest.raises(BertHeadsError) as error:
        nlp("order")
    assert error.value.code == "H288"


def test_local_attention_is_refused_by_name(tmp_path: Path) -> None:
    sizes: Dict[str, Any] = {**SIZES["bert"], "attention_window": [4, 4], "max_position_embeddings": 34}
    config = LongformerConfig(vocab_size=len(PIECES), **sizes)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).model_type == "longformer"
    with pytest.raises(BertHeadsError) as error:
        attending(str(tmp_path))("where is my order")
    assert error.value.code == "H287"
