"""The sample data in assets/: rebuilt byte for byte, labels and offsets sound, test texts kept apart."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import spacy

ASSETS = Path(__file__).resolve().parent.parent / "assets"
LANGUAGES = ["en", "zh"]
FILES = [(language, name) for language in LANGUAGES for name in ("generated", "handwritten")]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("assets_generate", ASSETS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()


def read(language: str, name: str) -> list[dict[str, Any]]:
    lines = (ASSETS / language / f"{name}.jsonl").read_text(encoding="utf8").splitlines()
    return [json.loads(line) for line in lines]


def count_labels(records: list[dict[str, Any]]) -> Counter[str]:
    intents = [record["accept"][0] for record in records]
    return Counter(intents + [span["label"] for record in records for span in record["spans"]])


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "1234"])
def test_rebuild_gives_the_same_bytes(tmp_path, hash_seed):
    command = [sys.executable, str(ASSETS / "generate.py"), "--output", str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": hash_seed})
    for language, name in FILES:
        file = f"{language}/{name}.jsonl"
        assert (tmp_path / file).read_bytes() == (ASSETS / file).read_bytes(), file


@pytest.mark.parametrize("language", LANGUAGES)
def test_another_seed_gives_other_texts(language):
    folder = ASSETS / language
    lists = {name: GENERATOR.read_lists(folder / f"{name}.txt") for name in ("fillers", "patterns")}
    lists = {**lists["fillers"], **lists["patterns"]}
    first, second = ([message.text for message in GENERATOR.generate(lists, language, seed, set())] for seed in (1, 2))
    assert len(set(first) & set(second)) < len(first) / 10


def find_references(pattern: str) -> set[str]:
    """The names in braces in a pattern, in every alternative of it."""
    names = set()
    for node in GENERATOR.parse(pattern):
        if node[0] == "ref":
            names.add(node[1])
        elif node[0] == "choice":
            names.update(*map(find_references, node[1]))
    return {name for name in names if name != "a" and not re.match(r"mask:|part:|\d+-\d+$", name)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_patterns_are_many_and_different_and_all_lists_are_known_and_used(language):
    fillers = GENERATOR.read_lists(ASSETS / language / "fillers.txt")
    patterns = GENERATOR.read_lists(ASSETS / language / "patterns.txt")
    lists = {**fillers, **patterns}
    assert len(lists) == len(fillers) + len(patterns)
    for intent in GENERATOR.INTENTS:
        assert len(patterns[intent]) == len(set(patterns[intent])) >= 25
    used = set().union(*(find_references(entry) for entries in lists.values() for entry in entries))
    starts = {"greeting", "aside", "closing", "signature", "emoji"}
    starts |= {name for intent in GENERATOR.INTENTS for name in (intent, f"{intent}.more")}
    assert used - set(lists) == set()
    assert set(lists) - used - starts == set()


@pytest.mark.parametrize(("language", "name"), FILES)
def test_counts_are_as_promised(language, name):
    records = read(language, name)
    counts = count_labels(records)
    texts = {GENERATOR.normalise(record["text"]) for record in records}
    assert len(texts) == len(records) >= (900 if name == "generated" else 125)
    if name == "generated":
        assert {counts[intent] for intent in GENERATOR.INTENTS} == {GENERATOR.PER_INTENT[language]}
    assert min(counts[intent] for intent in GENERATOR.INTENTS) >= 13
    assert min(counts[entity] for entity in GENERATOR.ENTITIES) >= 20
    assert any(not record["spans"] for record in records)


def test_readme_states_the_counts():
    readme = (ASSETS / "README.md").read_text(encoding="utf8")
    rows = {row.split(" | ")[0].strip("| "): row for row in readme.splitlines() if row.startswith("|")}
    counts = [count_labels(read(language, name)) for language, name in FILES]
    for label in GENERATOR.INTENTS + GENERATOR.ENTITIES:
        assert rows[label].endswith(" | ".join(str(count[label]) for count in counts) + " |")


@pytest.mark.parametrize(("language", "name"), FILES)
def test_labels_are_from_one_inventory_and_all_occur(language, name):
    records = read(language, name)
    assert set(count_labels(records)) == {*GENERATOR.INTENTS, *GENERATOR.ENTITIES}
    for record in records:
        assert [option["id"] for option in record["options"]] == list(GENERATOR.INTENTS)
        assert len(record["accept"]) == 1 and record["accept"][0] in GENERATOR.INTENTS
        assert {span["label"] for span in record["spans"]} <= set(GENERATOR.ENTITIES)
        assert (record["answer"], record["_view_id"]) == ("accept", "blocks")
        assert record["meta"] == {"source": name}


@pytest.mark.parametrize(("language", "name"), FILES)
def test_spans_lie_in_the_text_in_order_and_on_token_borders(language, name):
    nlp = spacy.blank(language)
    for record in read(language, name):
        doc, end = nlp(record["text"]), 0
        for span in record["spans"]:
            words = record["text"][span["start"] : span["end"]]
            assert end <= span["start"] < span["end"] <= len(record["text"]), record["text"]
            assert words == words.strip()
            assert doc.char_span(span["start"], span["end"], alignment_mode="strict") is not None, words
            end = span["end"]


@pytest.mark.parametrize(("language", "name"), FILES)
def test_texts_are_clean(language, name):
    for record in read(language, name):
        text = record["text"]
        assert text == text.strip() and "  " not in text and not set("{}|\t\r") & set(text), text


def test_tokens_of_english_handwritten_records_agree_with_spacy_and_spans():
    nlp = spacy.blank("en")
    for record in read("en", "handwritten"):
        tokens = record["tokens"]
        assert [token["text"] for token in tokens] == [token.text for token in nlp(record["text"])]
        for i, token in enumerate(tokens):
            assert token["id"] == i and record["text"][token["start"] : token["end"]] == token["text"]
            assert token["ws"] == (record["text"][token["end"] : token["end"] + 1] == " ")
        for span in record["spans"]:
            assert tokens[span["token_start"]]["start"] == span["start"]
            assert tokens[span["token_end"]]["end"] == span["end"]
    for language, name in set(FILES) - {("en", "handwritten")}:
        assert not any("tokens" in record for record in read(language, name))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_both_generated_and_handwritten(language):
    generated, handwritten = (
        {GENERATOR.normalise(record["text"]) for record in read(language, name)}
        for name in ("generated", "handwritten")
    )
    assert not generated & handwritten


@pytest.mark.parametrize("language", LANGUAGES)
def test_few_entity_values_of_the_test_texts_occur_in_training(language):
    generated, handwritten = (
        {r["text"][s["start"] : s["end"]].lower() for r in read(language, name) for s in r["spans"]}
        for name in ("generated", "handwritten")
    )
    assert len(handwritten & generated) <= len(handwritten) / 5


def test_hashes_follow_prodigy():
    from murmurhash import mrmr

    record = next(record for record in read("zh", "handwritten") if record["text"] == "退货")
    assert record["_input_hash"] == mrmr.hash('text="\\u9000\\u8d27"')
    core = '{"_input_hash":%d,"meta":{},"text":"\\u9000\\u8d27"}' % record["_input_hash"]
    assert record["_task_hash"] == mrmr.hash(str(record["_input_hash"]) + core)
    for language, name in FILES:
        records = read(language, name)
        assert len({record["_input_hash"] for record in records}) == len(records)


def test_markup_becomes_offsets(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("# note\n\nTRACK_ORDER\tHi\\n[A-1](ORDER_ID) for [Bo](PERSON)?\n", encoding="utf8")
    (message,) = GENERATOR.read_handwritten(file)
    assert message.text == "Hi\nA-1 for Bo?"
    assert message.spans == [(3, 6, "ORDER_ID"), (11, 13, "PERSON")]


@pytest.mark.parametrize("line", ["TRACK_ORDER no tab", "NO_INTENT\ttext", "TRACK_ORDER\t[x](NO_LABEL)"])
def test_faulty_markup_is_reported_with_its_line(tmp_path, line):
    file = tmp_path / "texts.txt"
    file.write_text(f"# first\n{line}\n", encoding="utf8")
    with pytest.raises(ValueError, match="line 2"):
        list(GENERATOR.read_handwritten(file))
