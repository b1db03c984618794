"""What stays on the Docs, for whom, and for how long."""

import pickle
from pathlib import Path
from typing import Any, Dict, Iterable, List

import numpy
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy_transformers.data_classes import TransformerData, WordpieceBatch

from spacy_bert_heads.errors import BertHeadsError

from ..making import assert_close, assert_same_predictions, make_examples, make_nlp, make_texts, predictions

TEXTS = [*make_texts(5), "", "order " * 60]
HEADS = ["bert_textcat", "bert_ner"]

SEEN: List[bool] = []


@Language.component("outputs_spy")
def spy(doc: Doc) -> Doc:
    SEEN.append(doc._.trf_data is not None)
    return doc


def make_releasing(folder: str, heads: Iterable[str] = HEADS, **options: Any) -> Language:
    return make_nlp(folder, list(heads), settings={"transformer": {"keep_outputs": False}}, **options)


def kept(docs: Iterable[Doc]) -> List[bool]:
    return [doc._.trf_data is not None for doc in docs]


def test_released_outputs_change_no_prediction(bert_folder: str) -> None:
    keeping, releasing = make_nlp(bert_folder), make_releasing(bert_folder)
    expected = list(keeping.pipe(TEXTS))
    found = list(releasing.pipe(TEXTS, batch_size=3))
    assert all(kept(expected)) and not any(kept(found))
    assert_same_predictions(predictions(found), predictions(expected), 1e-5)
    assert releasing(TEXTS[0])._.trf_data is None and keeping(TEXTS[0])._.trf_data is not None


@pytest.mark.parametrize("heads", [["bert_textcat"], ["bert_ner"], ["bert_ner", "bert_textcat_multilabel"]], ids=str)
def test_outputs_go_when_the_last_head_has_read_them(bert_folder: str, heads: List[str]) -> None:
    nlp = make_releasing(bert_folder, heads)
    SEEN.clear()
    for position in range(1, len(heads) + 1):
        nlp.add_pipe("outputs_spy", name=f"spy{position}", after=heads[position - 1])
    assert not any(kept(nlp.pipe(TEXTS[:2], batch_size=1)))
    assert SEEN == ([True] * (len(heads) - 1) + [False]) * 2


def test_heads_disabled_enabled_added_removed_and_loaded(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_releasing(bert_folder)
    expected = predictions(nlp.pipe(TEXTS))
    for disabled in HEADS:  # it may be enabled next, so the outputs stay
        with nlp.select_pipes(disable=[disabled]):
            docs = list(nlp.pipe(TEXTS))
        assert all(kept(docs))
        docs = list(nlp.get_pipe(disabled).pipe(docs))
        assert_same_predictions(predictions(docs), expected, 1e-5)
        assert not any(kept(docs))
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path, disable=["bert_ner"])
    assert not any(ents for _, ents in predictions(loaded.pipe(TEXTS)))
    loaded.enable_pipe("bert_ner")
    docs = list(loaded.pipe(TEXTS))
    assert_same_predictions(predictions(docs), expected, 1e-5)
    assert not any(kept(docs))
    nlp.add_pipe("bert_textcat_multilabel", config={"model": {"exclusive_classes": False}})
    component = nlp.get_pipe("bert_textcat_multilabel")
    component.initialize(lambda: make_examples(nlp), nlp=nlp)
    docs = list(nlp.pipe(TEXTS))
    assert set(docs[0].cats) == {"CANCEL", "TRACK"} and not any(kept(docs))
    copy = pickle.loads(pickle.dumps([component for _, component in nlp.pipeline]))
    docs = [nlp.make_doc(text) for text in TEXTS]
    for part in copy:
        docs = list(part.pipe(docs))
    assert not any(kept(docs))


def test_outputs_stay_for_other_components_that_listen(bert_folder: str) -> None:
    for heads in (["tagger", "bert_ner"], ["bert_ner", "textcat"], []):
        docs = list(make_releasing(bert_folder, heads).pipe(TEXTS))
        assert all(kept(docs))
        for doc in docs:
            for array in doc._.trf_data.model_output.values():
                assert (array if array.base is None else array.base).size == array.size


def test_a_replaced_listener_is_not_waited_for(bert_folder: str) -> None:
    nlp = make_releasing(bert_folder)
    nlp.replace_listeners("transformer", "bert_ner", ["model.tok2vec"])
    docs = list(nlp.pipe(TEXTS))
    assert not any(kept(docs))


def test_training_with_annotating_components_finds_the_outputs(bert_folder: str) -> None:
    """A frozen encoder annotates for heads that learn, in every choice of annotating heads."""
    losses: List[Dict[str, float]] = []
    for annotates in ([], ["bert_textcat"], ["bert_ner"], HEADS):
        nlp = make_releasing(bert_folder)
        found: Dict[str, float] = {}
        nlp.update(
            make_examples(nlp), sgd=False, losses=found, exclude=["transformer"], annotates=["transformer", *annotates]
        )
        losses.append(found)
    for found in losses:
        assert found["bert_textcat"] == losses[0]["bert_textcat"] > 0
        assert found["bert_ner"] == losses[0]["bert_ner"] > 0


def test_a_head_that_comes_back_for_released_outputs_has_them_computed_again(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_releasing(bert_folder)
    nlp.to_disk(tmp_path)
    keeping = spacy.load(tmp_path, config={"components": {"transformer": {"keep_outputs": True}}})
    for shipped in (nlp, spacy.load(tmp_path)):
        ner, other = shipped.get_pipe("bert_ner"), keeping.get_pipe("bert_ner")
        docs, theirs = list(shipped.pipe(TEXTS)), list(keeping.pipe(TEXTS))
        for _ in range(2):  # asking leaves everything as it was
            assert_same_readings(ner.nbest(docs, 3), other.nbest(theirs, 3))
            for unsure, expected in zip(ner.uncertainty(docs), other.uncertainty(theirs)):
                for value, wanted in zip(unsure, expected):
                    assert_close(value, wanted)
            assert not any(kept(docs)) and all(kept(theirs))
        assert_same_predictions(predictions(docs), predictions(theirs), 1e-5)
        # Some Docs have outputs, some had them, one is there twice, one was never read
        mixed = [docs[0], theirs[1], docs[0], shipped.make_doc(TEXTS[2])]
        expected = other.nbest([theirs[0], theirs[1], theirs[0], theirs[2]], 2)
        assert_same_readings(ner.nbest(mixed, 2), expected)
        assert [doc._.trf_data is not None for doc in mixed] == [False, True, False, False]
    nlp.replace_listeners("transformer", "bert_ner", ["model.tok2vec"])
    assert_same_readings(nlp.get_pipe("bert_ner").nbest(theirs, 3), other.nbest(theirs, 3))


def test_outputs_are_computed_again_a_batch_at_a_time(bert_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = make_releasing(bert_folder)
    docs = list(nlp.pipe(TEXTS))
    at_once = nlp.get_pipe("bert_ner").nbest(docs, 2)
    monkeypatch.setattr("spacy_bert_heads.pipeline.ner.SCORED_AT_ONCE", 2)
    sizes = []
    encoder = nlp.get_pipe("transformer")
    predict = encoder.predict
    monkeypatch.setattr(encoder, "predict", lambda docs: sizes.append(len(docs)) or predict(docs))
    assert_same_readings(nlp.get_pipe("bert_ner").nbest(docs, 2), at_once)
    assert max(sizes) == 2 and sum(sizes) == len(docs)


def test_a_head_without_an_encoder_says_what_to_do(bert_folder: str, tmp_path: Path) -> None:
    make_releasing(bert_folder).to_disk(tmp_path)
    nlp = spacy.load(tmp_path, exclude=["transformer"])
    with pytest.raises(BertHeadsError) as error:
        nlp.get_pipe("bert_ner").uncertainty([nlp.make_doc("where is my order")])
    assert error.value.code == "H213"


def assert_same_readings(ours: List[Any], theirs: List[Any]) -> None:
    assert len(ours) == len(theirs)
    for some, others in zip(ours, theirs):
        assert [ranked.ents for ranked in some] == [ranked.ents for ranked in others]
        assert_close([r.log_probability for r in some], [r.log_probability for r in others])


def test_wordpieces_are_those_of_spacy_transformers_after_pickling_and_as_bytes(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, [])
    for doc in nlp.pipe(TEXTS):
        data = doc._.trf_data
        pieces = data.wordpieces
        assert isinstance(pieces, WordpieceBatch) and isinstance(data, TransformerData)
        plain = pickle.loads(pickle.dumps(pieces))
        assert type(plain) is WordpieceBatch
        from_bytes = TransformerData.empty().from_bytes(data.to_bytes()).wordpieces
        for other in (plain, from_bytes, pieces[:]):
            assert other.strings == pieces.strings and other.lengths == pieces.lengths
            assert len(other) == len(pieces)
            numpy.testing.assert_array_equal(other.input_ids, pieces.input_ids)
            numpy.testing.assert_array_equal(other.attention_mask, pieces.attention_mask)
        tokenizer = nlp.get_pipe("transformer").model.shims[0].tokenizer  # type: ignore[attr-defined]
        if len(pieces) == 1:
            assert pieces.strings[0] == tokenizer.convert_ids_to_tokens(tokenizer(doc.text)["input_ids"])
            assert pieces[0].strings == pieces.strings
