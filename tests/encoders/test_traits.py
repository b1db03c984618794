"""What is found by looking at an encoder; its effect on configs is in test_fit_config."""

import math
from pathlib import Path

import pytest
import spacy
from safetensors.torch import load_file
from spacy.tokens import DocBin

from spacy_bert_heads.encoders.fetch import fetch_encoder
from spacy_bert_heads.encoders.traits import find_traits, spelled_share
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.evaluation.check_data import check_data
from spacy_bert_heads.project.configs import render_config

from ..making import make_bert_folder


@pytest.mark.parametrize(
    "text, share",
    [
        ("the order, please", 0.0),
        ("a x in 4", 0.0),  # words of one letter are not spelled
        ("abc the", 3 / 4),
        ("我的订单", 0.0),
        ("я ж", 1.0),
        ("tracking", 0.0),
        ("", 0.0),
    ],
)
def test_what_is_spelled_or_unknown(bert_folder: str, text: str, share: float) -> None:
    assert spelled_share(bert_folder, [text] * 3) == pytest.approx(share)


def test_long_and_few_texts_are_looked_at_too(bert_folder: str) -> None:
    traits = find_traits(bert_folder, ["the order " * 100, "", "x"])
    assert traits is not None and traits.pooling == "pooler" and traits.deviation > 0
    one = find_traits(bert_folder, ["the"])
    assert one is not None and math.isnan(one.deviation)


@pytest.mark.parametrize(
    "settings, pooling",
    [
        ('{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}', "mean"),
        ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}', "cls"),
        ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}', "pooler"),
        ('{"pooling_mode_max_tokens": true}', "pooler"),
        ("[]", "pooler"),
        ("{", "pooler"),
    ],
)
def test_a_pooler_that_sentence_transformers_left_alone_is_not_trained(
    tmp_path: Path, settings: str, pooling: str
) -> None:
    make_bert_folder(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(settings)
    traits = find_traits(str(tmp_path), ["the order", "a refund"])
    assert traits is not None and traits.pooling == pooling


def test_the_share_of_the_embeddings(tmp_path: Path) -> None:
    traits = find_traits(make_bert_folder(tmp_path), ["the order", "a refund"])
    state = load_file(tmp_path / "model.safetensors")
    total = sum(tensor.numel() for tensor in state.values())
    expected = state["embeddings.word_embeddings.weight"].numel() / total
    assert traits is not None and traits.embeddings == pytest.approx(expected)


def test_nothing_is_downloaded_to_look(tmp_path: Path) -> None:
    assert find_traits("bert-base-uncased", ["a"]) is None and spelled_share("bert-base-uncased", ["abc"]) == 0.0
    for look in (find_traits, spelled_share):
        with pytest.raises(BertHeadsError, match="H202"):
            look(str(tmp_path / "none"), ["a"])
        with pytest.raises(BertHeadsError, match="H203"):
            look(str(tmp_path), ["a"])


def test_check_data_warns_of_an_encoder_that_lacks_the_language(tmp_path: Path) -> None:
    make_bert_folder(tmp_path / "whole")
    fetch_encoder(str(tmp_path / "whole"), tmp_path / "zh", languages=["zh"])
    nlp = spacy.blank("en")
    docs = [nlp.make_doc(text) for text in ("please cancel the order", "where is the refund")]
    for doc in docs:
        doc.cats = {"A": 1.0, "B": 0.0}
    DocBin(docs=docs).to_disk(tmp_path / "train.spacy")
    warnings = {}
    for name in ("whole", "zh", "none"):
        (tmp_path / "config.cfg").write_text(render_config("en", ["textcat"], str(tmp_path / name)))
        path = tmp_path / "train.spacy"
        report = check_data(tmp_path / "config.cfg", train=path, dev=path, test=None, output=None)
        warnings[name] = [warning for warning in report.warnings if "encoder" in warning]
    assert warnings["whole"] == []
    assert len(warnings["zh"]) == 1 and "100% of the wordpieces in train" in warnings["zh"][0]
    assert len(warnings["none"]) == 1 and "H202" in warnings["none"][0]
