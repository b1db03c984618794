"""Warnings about tokens: of a tokenizer for another language, and of texts far longer than the rest."""

from collections import Counter
from pathlib import Path
from typing import Optional

import pytest
import spacy
from spacy.tokens import Doc

from spacy_bert_heads.corpus.convert import convert
from spacy_bert_heads.corpus.docs import load_tokenizer
from spacy_bert_heads.corpus.readers.formats import ReadOptions
from spacy_bert_heads.corpus.tokens import ScriptCounts, long_texts_warning

TEXTS = {
    "zh": "我的订单在哪里？请帮我查一下退款",
    "ja": "私の注文はどこですか。返金をお願いします",
    "th": "คำสั่งซื้อของฉันอยู่ที่ไหน",
    "en": "Where is my order? Please refund me, 张三",
    "ko": "내 주문은 어디에 있나요",
    "ru": "Где мой заказ",
}


def warn(doc: Doc) -> Optional[str]:
    counts = ScriptCounts()
    counts.add(doc)
    return counts.warning()


@pytest.mark.parametrize("lang", TEXTS)
def test_texts_that_the_tokenizer_cannot_split_name_their_language(lang: str) -> None:
    warning = warn(spacy.blank("en")(TEXTS[lang]))
    assert (warning is not None) == (lang in ("zh", "ja", "th"))
    assert warning is None or f"--lang {lang}" in warning


def test_texts_that_are_split_need_no_warning_whatever_split_them() -> None:
    assert warn(load_tokenizer("zh")(TEXTS["zh"])) is None
    words = ["我", "的", "订单", "在", "哪里"]
    assert warn(Doc(spacy.blank("en").vocab, words=words, spaces=[False] * 5)) is None
    assert warn(spacy.blank("en")("")) is None


def test_long_texts_are_told_by_the_middle_length() -> None:
    warning = long_texts_warning(Counter({20: 1000, 52906: 3}))
    assert warning is not None and "3 texts have 52,906 to 52,906 tokens" in warning and "89% of all tokens" in warning
    assert long_texts_warning(Counter({3000: 10, 52906: 3})) is None
    assert long_texts_warning(Counter({20: 10, 500: 3})) is None
    assert long_texts_warning(Counter()) is None


def test_convert_says_both(tmp_path: Path) -> None:
    lines = [f"{TEXTS['zh']}{i}\tA" for i in range(20)] + ["word " * 3000 + "\tB"]
    (tmp_path / "in.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf8")
    report = convert([tmp_path / "in.tsv"], tmp_path / "out", split="1,0,0")
    assert "in train, 1 texts have" in report.to_text()
    lines = [line for line in lines if "word" not in line]
    (tmp_path / "in.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf8")
    report = convert([tmp_path / "in.tsv"], tmp_path / "out", split="1,0,0")
    assert "--lang zh" in report.to_text()
    report = convert([tmp_path / "in.tsv"], tmp_path / "out", split="1,0,0", options=ReadOptions(lang="zh"))
    assert "--lang" not in report.to_text()
