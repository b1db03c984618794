"""Broken files through every reader: our own errors or findings, in bounded time, and nothing half written.

The first cases run by default. SPACY_BERT_HEADS_MUTATIONS is how many to run of each format.
"""

import os
import random
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Dict, List

import pytest
import spacy
from spacy.tokens import DocBin

from spacy_bert_heads.corpus.docs import OFF_TOKENS, check_annotation
from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.readers.formats import AUTO, CONVERTERS, ReadOptions, find_converter
from spacy_bert_heads.errors import BertHeadsError

from .helpers import run
from .reading import write

N_CASES = int(os.environ.get("SPACY_BERT_HEADS_MUTATIONS", "40"))
# What no input of a few kilobytes may take. Seconds.
MAX_SECONDS = 5.0

NLP = spacy.blank("en")


def make_doc_bin() -> bytes:
    doc = NLP("Anna lives in Oslo")
    doc.set_ents([doc.char_span(0, 4, "PER")])
    doc.cats = {"A": 1.0, "B": 0.0}
    return DocBin(docs=[doc, NLP("b")], store_user_data=True).to_bytes()


SPAN = b'{"start": 0, "end": 4, "label": "PER", "text": "Anna", "token_start": 0, "token_end": 0}'
TOKENS = b'[{"text": "Anna", "start": 0, "end": 4, "id": 0}, {"text": "ran", "start": 5, "end": 8, "id": 1}]'
# Format, and small files of it.
SEEDS: Dict[str, List[bytes]] = {
    "prodigy": [
        b'{"text": "Anna ran", "spans": [' + SPAN + b'], "tokens": ' + TOKENS + b', "answer": "accept"}\n' * 3,
        b'{"text": "a\xc3\xa9", "options": [{"id": "X"}], "accept": ["X"], "config": {"labels": ["Y"]}}\n' * 2,
    ],
    "doccano": [b'{"text": "Anna ran", "label": [[0, 4, "PER"]]}\n{"text": "b", "label": ["X"]}\n' * 2],
    "label-studio": [
        b'[{"data": {"text": "Hi\\r\\nAnna"}, "annotations": [{"result": [{"type": "labels", "from_name": "q", '
        b'"to_name": "text", "value": {"start": 3, "end": 7, "text": "Anna", "labels": ["PER"]}}, '
        b'{"type": "choices", "from_name": "c", "to_name": "text", "value": {"choices": ["X"]}}]}]}]',
        b'{"id": 1, "text": "a", "c": "X", "annotation_id": 1, "lead_time": 1.5}\n' * 3,
    ],
    "cluener": [b'{"text": "Anna ran", "label": {"PER": {"Anna": [[0, 3]]}}}\n{"id": 1, "text": "b"}\n' * 2],
    "spacy-json": [
        b'{"text": "Anna ran", "entities": [[0, 4, "PER"]], "cats": {"X": 1, "Y": 0.5}}\n' * 3,
        b'[["Anna ran", {"entities": [[0, 4, "PER"]]}], ["b", {"cats": {"X": 2}}]]',
        b'{"classes": ["PER"], "annotations": [["Anna ran", {"entities": [[0, 4, "PER"]]}], null]}',
        b'[{"id": 0, "paragraphs": [{"raw": "Anna ran", "sentences": [{"tokens": [{"orth": "Anna", "ner": "U-PER"},'
        b' {"orth": "ran", "ner": "O"}]}], "cats": [{"label": "X", "value": 1}]}]}]',
    ],
    "spacy": [make_doc_bin()],
    "conll": [
        b"# c\nAnna\tB-PER\nran\tO\n\nIn\tO\nOslo\tB-LOC\n\n" * 3,
        b"ID TOKEN NE\n1 Anna B-PER\n2 ran O\n\n1 In O\n2-3 x _\n2 Oslo B-LOC\n",
        b"en:a O\nen:b B_X\n\nen:c O\nen:d O\n",
    ],
    "token-spans": [b'{"tokens": ["Anna", "ran"], "entities": [{"start": 0, "end": 1, "type": "PER"}]}\n' * 3],
    "cmeee": [
        b'[{"text": "Anna ran", "entities": [{"start_idx": 0, "end_idx": 3, "type": "PER", "entity": "Anna"}]}]',
    ],
    "brat": [b"T1\tPER 0 4\tAnna\nT2\tX 0 4;5 8\tAnna ran\nR1\tR Arg1:T1 Arg2:T2\n"],
    "token-lines": [b'{"tokens": ["Anna", "ran"], "ner_tags": ["B-PER", "O"]}\n' * 3],
    "fasttext": [b"__label__a one text\n__label__b __label__a two\n" * 3],
    "opennlp": [b"<START:PER> Anna Lee <END> ran .\nIn <START> Oslo <END>\nno more\n"],
    "labelled-lines": [
        b"one\tx\ntwo\ty\nthree\tx\n",
        b"5 How far ?\n4 What ?\n5 Who ?\n",
        b"one\t1,2\tid\ntwo\t1\tid\n",
    ],
    "csv": [b'text,label\n"one, ""two""",x\nthree,"[""a"", ""b""]"\nfour,a|b\n' * 2, b"one a,two b,1.5\nx,y,2.5\n"],
    "tsv": [b'text\tlabel\n"a ""b"""\tx\nc\ty\n' * 2],
    "triples": [b"Anna ran\nIn Oslo\n"],
}
if find_spec("datasets"):
    beginnings = (b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff")
    SEEDS["hf-datasets"] = [beginning + bytes(range(64)) + b"PAR1" for beginning in beginnings]
PIECES = [
    b"\0", b"\n", b"\r", b"\r\n", b"\t", b" ", b'"', b"'", b",", b":", b"{", b"}", b"[", b"]", b"#", b"-", b"\\",
    b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xf0\x9f\x8d\xbf", b"\\ud83d", b"\\u0000", b"null", b"true", b"NaN",
    b"1e999", b"-1", b"9" * 30, b"[" * 2000, b'{"a":' * 2000, b"(" * 500, b"\n\n\n", b"O", b"B-", b"__label__",
    b"-DOCSTART-", b"x" * 3000,
]  # fmt: skip
# A word of so much punctuation takes spaCy's tokenizer too long; `corpus.docs` has its own tests for that.
TOO_SLOW_TO_SPLIT = 400


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 20)]


def cut_off(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def duplicate(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 60)]
    at = rng.randrange(len(data))
    data[at:at] = piece


def insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(PIECES)


def swap_lines(data: bytearray, rng: random.Random) -> None:
    lines = bytes(data).split(b"\n")
    rng.shuffle(lines)
    data[:] = b"\n".join(lines)


Mutation = Callable[[bytearray, random.Random], None]
MUTATIONS: List[Mutation] = [flip, cut, cut_off, duplicate, insert, insert, swap_lines]


def mutate(seed: bytes, rng: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data:
            rng.choice(MUTATIONS)(data, rng)
    return bytes(data)


def put(folder: Path, format: str, content: bytes) -> Path:
    """The file, with its companions where a format has several."""
    if format == "triples":
        write(folder / "seq.out", b"B-PER O\nO B-LOC\n")
        write(folder / "label", b"x\ny\n")
        return write(folder / "seq.in", content)
    if format == "brat":
        write(folder / "a.txt", b"Anna ran\n")
        return write(folder / "a.ann", content)
    return write(folder / "a.x", content)


@pytest.mark.parametrize("format", SEEDS)
def test_mutated_files_end_in_our_errors_or_in_findings(tmp_path: Path, format: str):
    rng = random.Random(f"mutations of {format}")
    for number in range(N_CASES):
        content = mutate(rng.choice(SEEDS[format]), rng)
        path = put(tmp_path, format, content)
        for name in (format, AUTO):
            for skip_bad in (False, True):
                findings = Findings(skip_bad=skip_bad)
                begin = time.perf_counter()
                n_used = 0
                try:
                    for annotation in find_converter(path, name).read(path, findings, ReadOptions()):
                        if any(len(word) > TOO_SLOW_TO_SPLIT for word in annotation.text.split()):
                            continue
                        try:
                            check_annotation(NLP, annotation, findings, rng.choice(OFF_TOKENS))
                        except BertHeadsError as error:
                            findings.bad(error)
                        n_used += 1
                except BertHeadsError as error:
                    assert error.path is not None and error.code.startswith(("H1", "H540", "H407"))
                except Exception as error:
                    raise AssertionError(f"case {number}, {name}: {content!r}") from error
                else:
                    assert n_used or findings.counts or not findings.n_records[path], content
                assert time.perf_counter() - begin < MAX_SECONDS, content


def test_folder_of_results_is_the_old_or_the_new_one(tmp_path: Path):
    rng = random.Random("folders")
    output = tmp_path / "out"
    run(write(tmp_path / "good.jsonl", b'{"text": "x", "label": "A"}\n'), output, split="1,0,0")
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    for number in range(N_CASES // 2):
        format = list(SEEDS)[number % len(SEEDS)]
        content = mutate(rng.choice(SEEDS[format]), rng)
        if any(len(word) > TOO_SLOW_TO_SPLIT for word in content.split()):
            continue
        path = put(tmp_path / "in", format, content)
        try:
            run(path, output, split="1,0,0", skip_bad=rng.random() < 0.5, format=rng.choice((AUTO, format)))
        except BertHeadsError:
            assert {path.name: path.read_bytes() for path in output.iterdir()} == before
        else:
            before = {path.name: path.read_bytes() for path in output.iterdir()}
            assert set(before) == {"train.spacy", "dev.spacy", "test.spacy"}
            for data in before.values():
                list(DocBin().from_bytes(data).get_docs(NLP.vocab))


def test_every_reader_has_seeds_and_reads_them(tmp_path: Path):
    assert set(SEEDS) | {"hf-datasets"} == set(CONVERTERS)
    for format, seeds in SEEDS.items():
        for number, seed in enumerate(seeds):
            if format != "hf-datasets":
                path = put(tmp_path / f"{format}-{number}", format, seed)
                assert list(find_converter(path, AUTO).read(path, Findings(skip_bad=True), ReadOptions()))
                assert find_converter(path, AUTO).name == format
