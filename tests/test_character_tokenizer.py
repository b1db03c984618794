"""The tokenizer of texts written without spaces."""

from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy import util

from spacy_bert_heads.character_tokenizer import CHARACTER_TOKENIZER
from spacy_bert_heads.corpus.docs import load_tokenizer

NLP = load_tokenizer("zh")


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("我在iPhone 15上看", "我|在|iPhone|15|上|看"),
        ("花了3.5元和1,000块。", "花|了|3.5|元|和|1,000|块|。"),
        ("第2,3章1. 张三", "第|2,3|章|1|.|张|三"),
        ("CPL2011", "CPL|2011"),
        ("café吧", "café|吧"),
        ("１２　全", "１|２|　|全"),
        ("", ""),
    ],
)
def test_characters_are_tokens_and_words_and_numbers_are_kept_whole(text: str, tokens: str):
    doc = NLP.make_doc(text)
    assert [token.text for token in doc] == (tokens.split("|") if tokens else [])
    assert doc.text == text


@pytest.mark.parametrize("text", ["", "我在iPhone 15上看 \n", " 1,000 ", "e\u0301\U0001f600"])
def test_each_character_is_a_token_where_words_are_not_kept_whole(text: str, tmp_path: Path):
    nlp = spacy.blank("zh", config={"nlp": {"tokenizer": {"@tokenizers": CHARACTER_TOKENIZER, "whole_words": False}}})
    nlp.to_disk(tmp_path)
    for pipeline in (nlp, spacy.load(tmp_path)):
        doc = pipeline(text)
        assert [token.text for token in doc] == list(text)
        assert doc.text == text


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=20))
@settings(deadline=None)
def test_text_is_kept_whatever_it_is(text: str):
    doc = NLP.make_doc(text)
    assert doc.text == text
    for token in doc:
        kinds = {(c.isascii() and c.isalpha(), c.isascii() and c.isdigit(), c.isspace()) for c in token.text}
        assert len(token) == 1 or len(kinds) == 1 or set(token.text) <= set("0123456789.,") or not token.text.isascii()


def test_pipelines_of_our_chinese_configs_tokenize_as_convert_does(tmp_path: Path):
    config = util.load_config(Path(__file__).parents[1] / "configs" / "ner_zh.cfg")
    assert config["nlp"]["tokenizer"] == {"@tokenizers": CHARACTER_TOKENIZER, "whole_words": True}
    nlp = spacy.blank("zh", config={"nlp": {"tokenizer": config["nlp"]["tokenizer"]}})
    nlp.to_disk(tmp_path)
    text = "我在iPhone 15上看了3.5元 的DVD。\n好"
    expected = [token.text for token in NLP.make_doc(text)]
    loaded = spacy.load(tmp_path)
    for pipeline in (nlp, loaded, spacy.blank("zh", config=loaded.config).from_bytes(loaded.to_bytes())):
        assert [token.text for token in pipeline(text)] == expected
    assert [[token.text for token in doc] for doc in loaded.pipe([text, text], n_process=1)] == [expected] * 2
