"""Tokens that change between the encoder and its heads, and heads that lose their encoder."""

from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.pipeline_io import check_encoders, load_pipeline

from ..making import assert_same_predictions, make_example, make_examples, make_nlp, predictions

TEXT = "please cancel the refund in New York"
LISTENER = ["model.tok2vec"]


@Language.component("merge_first_two")
def merge_first_two(doc: Doc) -> Doc:
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[0:2])
    return doc


@Language.component("split_second")
def split_second(doc: Doc) -> Doc:
    with doc.retokenize() as retokenizer:
        retokenizer.split(doc[1], [doc[1].text[:2], doc[1].text[2:]], heads=[(doc[1], 0), (doc[1], 1)])
    return doc


@Language.component("merge_one_and_split_another")
def merge_one_and_split_another(doc: Doc) -> Doc:
    """As many tokens as before."""
    return merge_first_two(split_second(split_last(doc)))


def split_last(doc: Doc) -> Doc:
    with doc.retokenize() as retokenizer:
        last = doc[len(doc) - 1]
        retokenizer.split(last, [last.text[:2], last.text[2:]], heads=[(last, 0), (last, 1)])
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[2:4])
    return doc


RETOKENIZERS = ["merge_first_two", "split_second", "merge_one_and_split_another"]


def add_behind_the_encoder(nlp: Language, component: str, head: str) -> Language:
    nlp.add_pipe(component, before=head)
    return nlp


@pytest.mark.parametrize("component", RETOKENIZERS)
def test_entities_are_refused_where_tokens_changed_since_the_encoder_read_them(
    bert_folder: str, component: str
) -> None:
    nlp = add_behind_the_encoder(make_nlp(bert_folder), component, "bert_ner")
    with pytest.raises(BertHeadsError, match=r"\[H238\].*before bert_encoder or after the heads") as caught:
        nlp(TEXT)
    assert caught.value.code == "H238"


def test_the_test_component_leaves_the_number_of_tokens_alone(bert_folder: str) -> None:
    doc = spacy.blank("en")(TEXT)
    assert len(merge_one_and_split_another(spacy.blank("en")(TEXT))) == len(doc)


def test_stored_outputs_are_checked_by_the_number_of_tokens(bert_folder: str) -> None:
    """The names of the classes on a Doc do not outlive spaCy's bytes."""
    nlp = make_nlp(bert_folder)
    doc = Doc(nlp.vocab).from_bytes(nlp(TEXT).to_bytes())
    same = nlp.get_pipe("bert_ner")(Doc(nlp.vocab).from_bytes(doc.to_bytes()))
    assert_same_predictions(predictions([same]), predictions([nlp(TEXT)]))
    with pytest.raises(BertHeadsError, match="H238"):
        nlp.get_pipe("bert_ner")(merge_first_two(doc))


def test_categories_do_not_depend_on_tokens(bert_folder: str) -> None:
    for pooling in ("cls", "mean", "max", "attention"):
        listener = {"@architectures": "spacy_bert_heads.PooledListener.v1", "pooling": pooling}
        settings = {"bert_textcat": {"model": {"tok2vec": listener}}}
        nlp = make_nlp(bert_folder, ["bert_textcat"], settings=settings)
        expected = nlp(TEXT).cats
        assert add_behind_the_encoder(nlp, "merge_first_two", "bert_textcat")(TEXT).cats == expected


def test_a_head_with_an_encoder_of_its_own_reads_the_tokens_that_there_are(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder)
    nlp.replace_listeners("transformer", "bert_ner", LISTENER)
    before = make_nlp(bert_folder)
    before.replace_listeners("transformer", "bert_ner", LISTENER)
    before.add_pipe("merge_first_two", first=True)
    doc = add_behind_the_encoder(nlp, "merge_first_two", "bert_ner")(TEXT)
    assert_same_predictions(predictions([doc]), predictions([before(TEXT)]))


@pytest.mark.parametrize("head", ["bert_ner", "bert_textcat"])
def test_training_refuses_tokens_that_changed_behind_the_encoder(bert_folder: str, head: str) -> None:
    nlp = add_behind_the_encoder(make_nlp(bert_folder, [head]), "merge_first_two", head)
    with pytest.raises(BertHeadsError, match="H238"):
        nlp.update([make_example(nlp, TEXT, cats={"TRACK": 1.0, "CANCEL": 0.0})], annotates=["merge_first_two"])


def test_training_goes_on_with_tokens_that_changed_in_front_of_the_encoder(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder)
    nlp.add_pipe("merge_first_two", first=True)
    losses = nlp.update(make_examples(nlp), annotates=["merge_first_two"])
    assert losses["bert_ner"] > 0 and losses["bert_textcat"] > 0


def test_a_head_sourced_without_its_encoder_is_told_of_replace_listeners(bert_folder: str, tmp_path: Any) -> None:
    trained = make_nlp(bert_folder)
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", source=trained)
    with pytest.raises(BertHeadsError, match=r"\[H249\] 'bert_ner'.*replace_listeners"):
        check_encoders(nlp)
    with pytest.raises(BertHeadsError, match=r"\[H213\].*replace_listeners"):
        nlp(TEXT)
    nlp.to_disk(tmp_path)
    with pytest.raises(BertHeadsError, match="H249"):
        load_pipeline(str(tmp_path))


def test_the_advice_about_sourced_heads_works(bert_folder: str) -> None:
    trained = make_nlp(bert_folder)
    expected = predictions([trained(TEXT)])[0][1]
    trained.replace_listeners("transformer", "bert_ner", LISTENER)
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", source=trained)
    check_encoders(nlp)
    assert predictions([nlp(TEXT)])[0][1] == expected


def test_encoders_that_are_disabled_or_have_any_name_count(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder)
    nlp.disable_pipe("transformer")
    check_encoders(nlp)
    nlp = make_nlp(bert_folder)
    nlp.rename_pipe("transformer", "reader")
    check_encoders(nlp)
