"""The encoder as a spaCy component and as a thinc model: batches, precision, memory, settings that cannot work."""

from typing import Any, Dict, Tuple

import numpy
import pytest
import torch

from spacy_bert_heads.errors import BertHeadsError

from ..making import (
    assert_close,
    encoder_module,
    gradients,
    has_gradient,
    make_config,
    make_examples,
    make_nlp,
    make_texts,
    record_rectangles,
)


@pytest.mark.parametrize("max_batch_items", [32, 100, 100000])
def test_texts_of_like_length_go_together_in_rectangles_of_at_most_max_batch_items(
    bert_folder: str, monkeypatch: pytest.MonkeyPatch, max_batch_items: int
) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat"], max_batch_items=max_batch_items)
    rectangles = record_rectangles(nlp, monkeypatch)
    list(nlp.pipe([*make_texts(40), "order " * 300], batch_size=64))
    assert all(rows * columns <= max_batch_items or rows == 1 for rows, columns, _ in rectangles)
    padded, real = sum(rows * columns for rows, columns, _ in rectangles), sum(n for _, _, n in rectangles)
    assert padded < 1.5 * real
    if max_batch_items == 100000:  # never more rectangles than it pays to have
        assert len(rectangles) < 6


def test_what_lies_on_a_doc_keeps_no_other_doc_in_memory(bert_folder: str) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder, hidden_states=True), heads=[])
    for doc in nlp.pipe(["order", *make_texts(8), "order " * 100]):
        output = doc._.trf_data.model_output
        for array in [output["last_hidden_state"], output["pooler_output"], *output["hidden_states"]]:
            assert (array if array.base is None else array.base).size == array.size


def test_hidden_states_are_there_when_asked_for_and_end_in_the_last(bert_folder: str) -> None:
    assert list(make_nlp(bert_folder, [])("order")._.trf_data.model_output) == ["last_hidden_state", "pooler_output"]
    for text in ("order", "order " * 100):
        doc = make_nlp(encoder=make_config(bert_folder, hidden_states=True), heads=[])(text)
        output = doc._.trf_data.model_output
        assert len(output["hidden_states"]) == 3
        assert_close(output["hidden_states"][-1], output["last_hidden_state"])
        assert_close(doc._.trf_data.tensors[0], output["last_hidden_state"])


def test_wordpieces_are_shown_as_spacy_transformers_shows_them(bert_folder: str) -> None:
    data = make_nlp(bert_folder, [])("my orders 我的")._.trf_data
    assert data.wordpieces.strings == [["[CLS]", "my", "order", "##s", "我", "的", "[SEP]"]]
    assert data.wordpieces.lengths == [7] and data.wordpieces.attention_mask.sum() == 7
    assert [data.align[i].dataXd.ravel().tolist() for i in range(3)] == [[1], [2, 3], [4, 5]]
    assert data.width == 16


def test_bf16_gives_single_precision_outputs_near_those_of_fp32(bert_folder: str) -> None:
    texts = make_texts(4)
    outputs, grads = {}, {}
    for precision in ("fp32", "bf16"):
        nlp = make_nlp(encoder=make_config(bert_folder, precision=precision))
        outputs[precision] = [doc._.trf_data.model_output for doc in nlp.pipe(texts)]
        nlp.update(make_examples(nlp), sgd=False)
        assert {p.dtype for p in encoder_module(nlp).parameters()} == {torch.float32}
        assert has_gradient(encoder_module(nlp))
        grads[precision] = gradients(encoder_module(nlp))
    for exact, rounded in zip(outputs["fp32"], outputs["bf16"]):
        for name in exact:
            assert rounded[name].dtype == numpy.float32
            difference = numpy.abs(exact[name] - rounded[name]).max()
            assert 0 < difference < 0.1
    key = "transformer.encoder.layer.0.output.dense.weight"
    cosine = torch.nn.functional.cosine_similarity(grads["fp32"][key].flatten(), grads["bf16"][key].flatten(), dim=0)
    assert cosine > 0.99


def test_the_first_pass_of_a_training_has_dropout_as_the_later_ones_have(bert_folder: str) -> None:
    """What from_pretrained returns is ready to predict."""
    config = make_config(bert_folder, transformer_config={"hidden_dropout_prob": 0.5})
    nlp = make_nlp(encoder=config, heads=[])
    model = nlp.get_pipe("transformer").model  # type: ignore[attr-defined]
    doc = nlp.make_doc("my order")
    first, second = (model.begin_update([doc])[0].doc_data[0].tensors[0] for _ in range(2))
    assert abs(first - second).max() > 0.1
    assert_close(model.predict([doc]).doc_data[0].tensors[0], model.predict([doc]).doc_data[0].tensors[0], 0)


def test_extra_annotations_are_set_from_the_batch(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, [])
    seen = []
    nlp.get_pipe("transformer").set_extra_annotations = lambda docs, batch: seen.append((docs, batch))
    list(nlp.pipe(["my order", ""]))
    docs, batch = seen[0]
    assert [doc.text for doc in docs] == ["my order", ""] and len(batch.doc_data) == 2
    assert [spans[0].text for spans in batch.spans] == ["my order", ""]


@pytest.mark.parametrize(
    "settings, found",
    [
        ({"transformer": {"precision": "fp8"}}, ("H209", "fp8")),
        ({"transformer": {"train_precision": "half"}}, ("H209", "half")),
        ({"transformer": {"train_precision": "fp16"}}, ("H233", None)),
        ({"bert_ner": {"precision": "fp8"}}, ("H209", "fp8")),
        ({"bert_textcat": {"tok2vec": {"windows": "last"}}}, ("H237", "last")),
        ({"bert_ner": {"tok2vec": {"pooling": "max"}}}, ("H211", "max")),
        ({"bert_ner": {"lstm_width": 7}}, ("H214", 7)),
        ({"bert_ner": {"lstm_width": 0}}, ("H214", 0)),
        ({"bert_ner": {"lstm_width": 1}}, ("H214", 1)),
        ({"bert_ner": {"crf": "no-such"}}, ("H216", "no-such")),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_at_once(
    bert_folder: str, settings: Dict[str, Any], found: Tuple[str, Any]
) -> None:
    with pytest.raises(BertHeadsError) as error:
        make_nlp(
            encoder=make_config(bert_folder, **settings.pop("transformer", {})),
            settings={head: {"model": model} for head, model in settings.items()},
            initialize=False,
        )
    assert (error.value.code, error.value.found) == found


def test_the_component_refuses_another_encoders_architecture(bert_folder: str) -> None:
    foreign = {"@architectures": "spacy-transformers.TransformerModel.v3", "name": bert_folder}
    spans = {"@span_getters": "spacy-transformers.doc_spans.v1"}
    with pytest.raises(BertHeadsError) as error:
        make_nlp(encoder={**foreign, "get_spans": spans}, heads=[], initialize=False)
    assert error.value.code == "H251"


@pytest.mark.parametrize("window, longest", [(None, 32), (0, None), (2, None), (-4, None), (3, 3), (500, 32)])
def test_a_window_holds_at_least_one_wordpiece_and_at_most_what_the_encoder_reads(
    bert_folder: str, window: Any, longest: Any
) -> None:
    config = make_config(bert_folder, window=window)
    if longest is None:
        with pytest.raises(BertHeadsError):
            make_nlp(encoder=config, heads=[])("order " * 50)
    else:
        data = make_nlp(encoder=config, heads=[])("order " * 50)._.trf_data
        assert max(data.wordpieces.lengths) == longest
        assert (data.align.lengths == 1).all()


def test_an_overlap_wider_than_half_a_window_is_cut_to_it(bert_folder: str) -> None:
    data = make_nlp(encoder=make_config(bert_folder, overlap=64), heads=[])("order " * 60)._.trf_data
    assert len(data.wordpieces) == 3  # 30 wordpieces a window, 15 of them shared
