"""The hashes against those that Prodigy stored in public data sets, and against a plain murmurhash3."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any, Dict, List

import pytest

from spacy_bert_heads.annotation.hashes import input_hash, set_hashes

# Files whose input hashes are of the current kind: older ones hash without the name of the key, and in one other
# file some texts were changed afterwards (the data's README).
WITH_INPUT_HASHES = [
    "blocks_spans_and_choice__psynamic_iaa_pia_40_round3.jsonl.gz",
    "ner_manual__fashion_brands_eval.jsonl.gz",
    "ner_manual__fashion_brands_training.jsonl.gz",
    "ner_manual_corrected__slovak_prod11.jsonl",
    "relations__bio_ggp.jsonl",
    "review_ner__restaurant_test.jsonl.gz",
    "textcat_manual_choice_single__prodigy_hf.jsonl",
]
# Manual interfaces hash the task as it was loaded.
WITH_TASK_HASHES = [
    "ner_manual__fashion_brands_eval.jsonl.gz",
    "ner_manual__fashion_brands_training.jsonl.gz",
    "textcat_manual_choice_single__prodigy_hf.jsonl",
]
LOADED_KEYS = ("text", "meta")


def read(path: Path) -> List[Dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf8") if path.suffix == ".gz" else path.open(encoding="utf8") as lines:
        return [json.loads(line) for line in lines]


def murmurhash3(data: bytes) -> int:
    """Austin Appleby's MurmurHash3_x86_32 with seed 0, from its description; signed."""

    def rotate(value: int, bits: int) -> int:
        return ((value << bits) | (value >> (32 - bits))) & 0xFFFFFFFF

    def mix(block: int) -> int:
        return rotate(block * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF

    value = 0
    whole = len(data) // 4 * 4
    for (block,) in struct.iter_unpack("<I", data[:whole]):
        value = (rotate(value ^ mix(block), 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    if len(data) > whole:
        value ^= mix(int.from_bytes(data[whole:], "little"))
    value ^= len(data)
    value = (value ^ value >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    value = (value ^ value >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    value ^= value >> 16
    return value - (1 << 32) if value >> 31 else value


@pytest.mark.parametrize("name", WITH_INPUT_HASHES)
def test_input_hashes_are_those_that_prodigy_stored(shared_data: Path, name: str) -> None:
    for record in read(shared_data / "prodigy" / name):
        assert input_hash(record["text"]) == record["_input_hash"]
        assert set_hashes(record)["_input_hash"] == record["_input_hash"]


@pytest.mark.parametrize("name", WITH_TASK_HASHES)
def test_task_hashes_are_those_that_prodigy_stored(shared_data: Path, name: str) -> None:
    for record in read(shared_data / "prodigy" / name):
        loaded = {key: record[key] for key in LOADED_KEYS if key in record}
        assert set_hashes(loaded) == {
            **loaded,
            **{key: record[key] for key in ("_input_hash", "_task_hash")},
        }


def test_hashes_of_spans_are_those_that_prodigy_stored(shared_data: Path) -> None:
    """In one file the spans were there when the task was loaded, of most records as they are at the end."""
    records = read(shared_data / "prodigy" / "review_ner__restaurant_test.jsonl.gz")
    agree = [set_hashes(record)["_task_hash"] == record["_task_hash"] for record in records if record["spans"]]
    assert sum(agree) > 0.7 * len(agree)


@pytest.mark.parametrize("text", ["", "a", "Zürich", "北京\n\t", "😀 \u2028", "x" * 1001, 'with "quotes" and \\'])
def test_a_hash_is_murmurhash3_of_the_text_as_ascii_json(text: str) -> None:
    written = f"text={json.dumps(text)}" if text else '{"text":""}'
    assert input_hash(text) == murmurhash3(written.encode("ascii"))


def test_a_task_hash_knows_the_question_and_nothing_about_its_score() -> None:
    span = {"start": 0, "end": 2, "label": "A"}
    task = {"text": "ab", "spans": [span]}
    hashed = set_hashes(task)
    again = {
        **task,
        "spans": [{**span, "score": 0.5, "source": "m", "rank": 1, "answer": "accept"}],
        "answer": "accept",
    }
    assert set_hashes(again)["_task_hash"] == hashed["_task_hash"]
    others: List[Dict[str, Any]] = [
        {"text": "ab"},
        {"text": "ab", "label": "A"},
        {"text": "ab", "spans": [{**span, "label": "B"}]},
        {"text": "abc", "spans": [span]},
    ]
    hashes = {set_hashes(other)["_task_hash"] for other in others}
    assert len(hashes | {hashed["_task_hash"]}) == 5


def test_hashes_do_not_depend_on_those_that_are_there() -> None:
    task = {"text": "ab", "label": "A", "_input_hash": 1, "_task_hash": 2}
    assert set_hashes(task) == set_hashes({"text": "ab", "label": "A"})
    assert task["_input_hash"] == 1  # a new task, the old one untouched
