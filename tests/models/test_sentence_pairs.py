"""Sentence pairs against what Hugging Face's own tokenizers make of two sentences."""

from typing import Any, List

import numpy
import pytest
from tokenizers import processors
from transformers import AutoConfig, AutoModel, BertTokenizer, PreTrainedTokenizerFast

from spacy_bert_heads.models.sentence_pairs import (
    PairTokens,
    find_sentences,
    has_token_types,
    pair_input,
    shows_both,
)

from ..making import PIECES, SIZES, make_tokenizer

PAIRS = [("where is my order", "cancel it"), ("", "refund"), ("refund", ""), ("", ""), ("我的订单", "new york?")]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a b\tc", ["a b", "c"]),
        ("a", ["a"]),
        ("", [""]),
        ("\tc", ["", "c"]),
        ("a\t", ["a", ""]),
        ("\t", ["", ""]),
        ("a\tb\tc", ["a", "b\tc"]),
    ],
)
def test_the_first_separator_parts_two_sentences(text: str, expected: List[str]) -> None:
    assert [text[start:stop] for start, stop in find_sentences(text, "\t")] == expected


def test_a_separator_may_be_longer_than_a_character() -> None:
    text = "eins || zwei"
    assert [text[a:b] for a, b in find_sentences(text, " || ")] == ["eins", "zwei"]


def make_berts() -> Any:
    return make_tokenizer()


def make_robertas() -> Any:
    """Two tokens in the middle, no token types."""
    tokenizer = make_tokenizer().backend_tokenizer
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", model_input_names=["input_ids", "attention_mask"]
    )


def make_slow(tmp_path: Any) -> Any:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf8")
    return BertTokenizer(str(tmp_path / "vocab.txt"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "slow"])
@pytest.mark.parametrize("first, second", PAIRS)
def test_a_pair_in_one_window_is_what_the_tokenizer_makes_of_it(
    kind: str, first: str, second: str, tmp_path: Any
) -> None:
    tokenizer = make_slow(tmp_path) if kind == "slow" else make_berts() if kind == "bert" else make_robertas()
    tokens = PairTokens.of(tokenizer)
    parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (first, second)]
    ids = numpy.array(parts[0] + parts[1], dtype="int64")
    pieces, types = pair_input(ids, len(parts[0]), (0, len(ids)), tokens)
    expected = tokenizer([first], [second])  # in lists: a plain empty string counts as no second sentence
    assert pieces == expected["input_ids"][0]
    assert types == (expected["token_type_ids"][0] if "token_type_ids" in expected else [0] * len(pieces))
    assert len(pieces) == len(ids) + len(tokens)


def test_windows_of_a_long_pair_show_the_middle_where_the_sentences_meet() -> None:
    tokens = PairTokens.of(make_berts())
    ids = numpy.arange(100, 110)
    assert pair_input(ids, 4, (0, 4), tokens) == ([2, 100, 101, 102, 103, 3], [0, 0, 0, 0, 0, 1])
    assert pair_input(ids, 4, (2, 6), tokens) == ([2, 102, 103, 3, 104, 105, 3], [0, 0, 0, 0, 1, 1, 1])
    assert pair_input(ids, 4, (4, 8), tokens) == ([2, 104, 105, 106, 107, 3], [0, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("n_pieces", range(7))
def test_the_middle_is_shown_where_both_sides_are_or_a_side_is_empty(n_pieces: int) -> None:
    """By listing what a window holds, an empty sentence standing for a piece of its own at its end of the text."""
    for border in range(n_pieces + 1):
        line = [0] * (border or 1) + [1] * ((n_pieces - border) or 1)
        before = int(border == 0)
        for start in range(n_pieces + 1):
            for stop in range(start, n_pieces + 1):
                left = 0 if start == 0 else start + before
                right = len(line) if stop == n_pieces else stop + before
                expected = {0, 1} <= set(line[left:right])
                assert shows_both(border, (start, stop), n_pieces) == expected, (border, start, stop)


@pytest.mark.parametrize(
    "model_type, expected",
    [("bert", True), ("electra", True), ("albert", True), ("roberta", False), ("distilbert", False)],
)
def test_only_some_encoders_tell_token_types_apart(model_type: str, expected: bool) -> None:
    settings = {"type_vocab_size": 1} if model_type == "roberta" else {}
    config = AutoConfig.for_model(model_type, vocab_size=50, **SIZES[model_type], **settings)
    assert has_token_types(AutoModel.from_config(config)) == expected
