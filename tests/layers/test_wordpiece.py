"""Vocabularies learned from texts or read from files."""

from pathlib import Path
from typing import Any, List

import pytest
from transformers import BertTokenizerFast

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.wordpiece import bert_tokenizer

from ..making import PIECES, make_texts, make_tokenizer

TEXTS = [*make_texts(40), "我的订单在北京", "取消 退款 北京"]


def make(texts: List[str], **settings: Any) -> BertTokenizerFast:
    return bert_tokenizer(texts, **{"vocab": None, "vocab_size": 300, "lowercase": True, "max_length": 32, **settings})


def pieces(tokenizer: Any, text: str) -> List[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def code_of(path: Path) -> str:
    with pytest.raises(BertHeadsError) as error:
        make([], vocab=path)
    assert error.value.path == path
    return error.value.code


def test_learned_wordpieces_stand_between_cls_and_sep_and_cover_the_texts() -> None:
    tokenizer = make(TEXTS)
    for text in TEXTS:
        found = pieces(tokenizer, text)
        assert found[0] == "[CLS]" and found[-1] == "[SEP]" and "[UNK]" not in found
    assert pieces(tokenizer, "") == ["[CLS]", "[SEP]"]
    assert pieces(tokenizer, "北京")[1:-1] == ["北", "京"]
    assert (tokenizer.model_max_length, tokenizer.pad_token_id) == (32, 0)
    assert len(make(TEXTS, vocab_size=60)) <= 60 + len(set("".join(TEXTS)))


def test_the_same_texts_give_the_same_vocabulary() -> None:
    assert make(TEXTS).get_vocab() == make(iter(TEXTS)).get_vocab()  # type: ignore[arg-type]


def test_case_and_accents_are_kept_on_demand() -> None:
    texts = ["Café Order ORDER café"] * 3
    assert {"o", "e"} <= set("".join(make(texts).get_vocab())) and "é" not in "".join(make(texts).get_vocab())
    cased = make(texts, lowercase=False)
    assert "é" in "".join(cased.get_vocab())
    assert pieces(cased, "ORDER") != pieces(cased, "order")


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_texts_with_nothing_in_them_teach_no_vocabulary(texts: List[str]) -> None:
    with pytest.raises(BertHeadsError) as error:
        make(texts)
    assert error.value.code == "H207"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_vocab_txt_gives_hugging_faces_tokenizer(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes((ending.join(PIECES) + ending).encode())
    ours, theirs = make([], vocab=path), make_tokenizer()
    for text in [*TEXTS, "Where is it?", ""]:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_tokenizer_json_is_read_with_or_without_its_special_tokens(tmp_path: Path, wrapped: bool) -> None:
    tokenizer = make_tokenizer().backend_tokenizer
    if not wrapped:
        tokenizer.post_processor = None
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = make([], vocab=tmp_path / "tokenizer.json")
    assert pieces(ours, "my order") == ["[CLS]", "my", "order", "[SEP]"]


def test_files_that_hold_no_vocabulary(tmp_path: Path) -> None:
    bad = tmp_path / "vocab.txt"
    assert code_of(bad) == "H208"
    bad.write_text("\n".join(PIECES[4:]))
    assert code_of(bad) == "H208"
    bad.write_bytes(b"\xff\xfe" + bytes(range(256)))
    assert code_of(bad) == "H208"
    bad.write_text("")
    assert code_of(bad) == "H208"
    broken = tmp_path / "tokenizer.json"
    for text in ("{", "{}", "[1, 2]"):
        broken.write_text(text)
        assert code_of(broken) == "H208"
    assert code_of(tmp_path) == "H208"


@pytest.mark.parametrize("extra", [["order"], [""], ["", ""]], ids=["twice", "blank", "two blank"])
def test_a_line_that_stands_twice_or_blank_leaves_no_id_past_the_embeddings(tmp_path: Path, extra: List[str]) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*PIECES, *extra, "zzz"]) + "\n", encoding="utf8")
    try:
        tokenizer = make([], vocab=path)
    except BertHeadsError as error:
        assert error.code == "H208"
    else:
        assert max(tokenizer.get_vocab().values()) < len(tokenizer)
