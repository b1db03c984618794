"""Words without an end, on which spaCy's tokenizer works by the square of their length."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import spacy

from spacy_bert_heads.annotation.streams import stream_tasks
from spacy_bert_heads.annotation.tasks import TaskMaker
from spacy_bert_heads.corpus.docs import check_words, load_tokenizer
from spacy_bert_heads.errors import BertHeadsError

from ..making import make_nlp, make_scratch_config
from .helpers import ALL_TRAIN, load_docs, run, write_jsonl

# Each takes spaCy's tokenizer from half a minute to hours
HARD = ["!?" * 10_000, '"' * 20_000, "($" * 10_000, "'s" * 10_000, '{"a":' * 30_000, ("!" * 150 + " ") * 20_000]
HARD += ["x" + "!" * 20_000, "!" * 20_000 + "x", "key_of_some_length:" * 20_000]
# What there is in real texts
EASY = [
    "https://example.org/" + "a/" * 900 + "?" + "&".join(f"k{i}=v%20{i}" for i in range(300)),
    "data:image/png;base64," + "iVBORw0KGgo+AAAANSUhEUgAA/AUA" * 10_000 + "==",
    "我周一买的订单，到哪了？上周买的水壶漏水。" * 100,
    "x" * 500_000,
    ("Contents " + "." * 120 + " 12\n") * 2000,
    ("-" * 99 + "\n") * 5000,
    "word, word. " * 50_000,
    "!" * 2500,
    json.dumps({f"key {i}": [i, "value"] for i in range(2000)}, separators=(",", ":")).replace(" ", "_"),
]


@pytest.mark.parametrize("text", HARD, ids=lambda text: text[:10])
def test_what_would_take_minutes_is_refused_at_once(text: str) -> None:
    nlp, start = spacy.blank("en"), time.process_time()
    with pytest.raises(BertHeadsError, match="H147"):
        check_words(nlp, text)
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("text", EASY, ids=lambda text: text[:10])
def test_what_people_write_is_accepted_and_quick(text: str) -> None:
    nlp, start = spacy.blank("en"), time.process_time()
    check_words(nlp, text)
    assert nlp.make_doc(text).text == text
    assert time.process_time() - start < 8.0


def test_characters_as_tokens_need_no_limit() -> None:
    check_words(load_tokenizer("zh"), HARD[0])


def test_convert_counts_the_record_and_keeps_the_rest(tmp_path: Path) -> None:
    records: list = [{"text": f"text {number}", "label": "A"} for number in range(10)]
    path = write_jsonl(tmp_path / "a.jsonl", *records[:5], {"text": HARD[0], "label": "A"}, *records[5:])
    with pytest.raises(BertHeadsError) as caught:
        run(path, tmp_path / "out", split=ALL_TRAIN)
    assert (caught.value.code, caught.value.line) == ("H147", 6) and len(str(caught.value)) < 500
    report = run(path, tmp_path / "out", split=ALL_TRAIN, skip_bad=True)
    assert report.findings.counts["H147"] == 1
    assert len(load_docs(tmp_path / "out" / "train.spacy")) == 10


def test_recipes_leave_the_text_out(caplog: Any) -> None:
    nlp = make_nlp(encoder=make_scratch_config(), heads=["bert_textcat"])
    records = [{"text": text} for text in ("where is my order", HARD[0], "cancel it")]
    tasks = list(stream_tasks(nlp, TaskMaker(nlp, "choice"), records))
    assert sorted(task["text"] for task in tasks) == ["cancel it", "where is my order"]
    assert "H147" in caplog.text
