"""Texts on disk, in order; files that are folders when they are large; what a broken run leaves."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Corpus

from spacy_bert_heads.corpus import doc_bins as writing
from spacy_bert_heads.corpus import reading, store
from spacy_bert_heads.corpus.annotations import Annotation, CharSpan
from spacy_bert_heads.corpus.doc_bins import DocWriter
from spacy_bert_heads.corpus.findings import Where
from spacy_bert_heads.corpus.store import TextStore
from spacy_bert_heads.corpus.writers.export import export
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.files import Staging, check_writable, write_files

from .helpers import ALL_TRAIN, load_docs, run, write_jsonl

FILES = (Path("a.jsonl"), Path("b.jsonl"))


@given(st.lists(st.tuples(st.sampled_from("abcdeABC"), st.integers(0, 2)), max_size=30))
@settings(deadline=None)
def test_texts_come_back_grouped_in_the_order_of_their_first_record(records):
    kept = TextStore(3)
    expected = {role: {} for role in range(3)}
    for line, (text, role) in enumerate(records):
        where = Where(FILES[line % 2], line)
        annotation = Annotation(text, where, ents=[CharSpan(0, 1, "A")], cats={"B": 0.5}, tokens=[(0, 1)])
        kept.add(annotation, role)
        expected[role].setdefault(text, []).append(annotation)
    for role in range(3):
        found = list(kept.texts(role))
        assert [text.records for text in found] == list(expected[role].values())
        assert kept.count(role) == len(expected[role])
        for text in found:
            # Brute force over all records of the roles before; case does not count.
            same = [
                (before, annotation.where.line, annotation.where)
                for before in range(role)
                for versions in expected[before].values()
                for annotation in versions
                if annotation.text.lower() == text.records[0].text.lower()
            ]
            assert text.elsewhere == (min(same)[2] if same else None)


def test_equal_numbers_do_not_mix_texts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "hash_text", lambda text: 7)
    kept = TextStore()
    for text in ("one", "two", "one"):
        kept.add(Annotation(text, Where(FILES[0], 1), cats={"A": 1.0}))
    assert [[record.text for record in text.records] for text in kept.texts()] == [["one", "one"], ["two"]]


def test_store_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    kept = TextStore()
    for number in range(3000):
        kept.add(Annotation(f"{number} " * 20, Where(FILES[0], number), cats={"A": 1.0}))
    assert sum(1 for _ in kept.texts()) == 3000
    assert list(tmp_path.iterdir()) == []


def make_docs(n: int):
    nlp = spacy.blank("en")
    rng = random.Random(0)
    for number in range(n):
        doc = nlp.make_doc(" ".join(rng.choice(["Apple", "opened", "in", "Paris", ".", " "]) for _ in range(8)))
        doc.set_ents([Span(doc, 0, 1, "ORG")], default=rng.choice(["outside", "missing"]))
        doc.cats = {"A": rng.random(), "B": 0.0}
        if number % 3 == 0:
            doc.spans["incorrect_spans"] = [Span(doc, 1, 2, f"L{number}")]
            doc.user_data["second_start"] = number
        yield doc


def describe(doc: Doc):
    spans = [(span.start, span.end, span.label_) for span in doc.spans.get("incorrect_spans", ())]
    tokens = [(token.text, token.whitespace_, token.ent_iob, token.ent_type_) for token in doc]
    return tokens, spans, doc.cats, doc.user_data, doc.has_unknown_spaces


def write_docs(path: Path, docs) -> int:
    with Staging() as staging:
        writer = DocWriter(staging, path)
        for doc in docs:
            writer.add(doc)
        writer.close()
        staging.commit()
    return writer.n_shards


def test_file_holds_what_spacys_own_docbin_would(tmp_path: Path):
    docs = [*make_docs(20), Doc(spacy.blank("en").vocab, words=["no", "spaces"]), spacy.blank("en")("")]
    assert write_docs(tmp_path / "ours.spacy", docs) == 0
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "theirs.spacy")
    ours, theirs = (load_docs(tmp_path / f"{name}.spacy") for name in ("ours", "theirs"))
    assert [describe(doc) for doc in ours] == [describe(doc) for doc in theirs] == [describe(doc) for doc in docs]
    write_docs(tmp_path / "none.spacy", [])
    assert load_docs(tmp_path / "none.spacy") == []


@pytest.mark.parametrize("limit, value", [("SHARD_DOCS", 7), ("SHARD_TOKENS", 50)])
def test_many_docs_are_a_folder_that_spacy_reads_under_the_same_path(tmp_path: Path, monkeypatch, limit, value):
    monkeypatch.setattr(writing, limit, value)
    docs = list(make_docs(20))
    path = tmp_path / "train.spacy"
    assert write_docs(path, docs) == len(list(path.iterdir())) == 3
    nlp = spacy.blank("en")
    assert [example.text for example in Corpus(path)(nlp)] == [doc.text for doc in docs]
    # Back to a file, and to a folder again.
    assert write_docs(path, docs[:3]) == 0 and path.is_file()
    assert write_docs(path, docs) == 3 and path.is_dir()
    assert os.listdir(tmp_path) == ["train.spacy"]


def test_folder_of_something_else_is_not_replaced(tmp_path: Path):
    path = tmp_path / "train.spacy"
    path.mkdir()
    (path / "000.spacy").write_bytes(b"")
    (path / "notes.txt").write_text("mine", encoding="utf8")
    with pytest.raises(BertHeadsError) as info:
        write_docs(path, make_docs(1))
    assert info.value.code == "H123"
    assert sorted(os.listdir(path)) == ["000.spacy", "notes.txt"]


def test_what_was_moved_aside_comes_back_when_the_move_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "SHARD_DOCS", 2)
    path = tmp_path / "train.spacy"
    write_docs(path, make_docs(5))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    moves = []

    def replace(source, target, os_replace=os.replace):
        moves.append(target)
        if len(moves) == 2:
            raise KeyboardInterrupt
        os_replace(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_docs(path, make_docs(1))
    assert os.listdir(tmp_path) == ["train.spacy"]
    assert before == {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="needs to know which processes live")
def test_leftovers_of_killed_processes_are_removed_and_those_of_living_ones_stay(tmp_path: Path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".train.spacy.{dead.pid}.0123456789ab.tmp").mkdir()
    (tmp_path / f".dev.spacy.{dead.pid}.0123456789ab.tmp").write_bytes(b"half")
    (tmp_path / f".only.spacy.{dead.pid}.0123456789ab.old").write_bytes(b"whole")
    living = tmp_path / f".test.spacy.{os.getppid()}.0123456789ab.tmp"
    living.write_bytes(b"half")
    write_files({tmp_path / "new.json": b"{}"})
    assert sorted(os.listdir(tmp_path)) == sorted([living.name, "new.json", "only.spacy"])


KILLED = """
import signal, sys, time
from pathlib import Path
from spacy_bert_heads.corpus import convert as module
from spacy_bert_heads.corpus.doc_bins import DocWriter
# A test run in the background of a shell ignores the signal, and so would this process
signal.signal(signal.SIGINT, signal.default_int_handler)
close = DocWriter.close
def slow_close(self):
    close(self)
    print("closed", flush=True)
    time.sleep(60)
DocWriter.close = slow_close
module.convert([Path(sys.argv[1])], Path(sys.argv[2]), seed=1)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_conversion_leaves_the_old_files(tmp_path: Path, number: int):
    source = write_jsonl(tmp_path / "in.jsonl", *({"text": f"text {i}", "label": "A"} for i in range(40)))
    out = tmp_path / "out"
    run(source, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    command = [sys.executable, "-c", KILLED, str(source), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None and process.stdout.readline() == "closed\n"
    process.send_signal(number)
    process.wait()
    left = {file.name: file.read_bytes() for file in out.iterdir() if not file.name.startswith(".")}
    assert left == before
    if number == signal.SIGINT:
        assert len(list(out.iterdir())) == 3
    run(source, out)
    assert sorted(os.listdir(out)) == sorted(before)


def test_large_file_has_the_docs_that_its_parts_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Many batches, zones and shards come to the same as one of each."""
    records = [{"text": f"Apple {i % 70}.", "label": f"L{i % 5}"} for i in range(200)]
    source = write_jsonl(tmp_path / "in.jsonl", *records)
    run(source, tmp_path / "whole")
    for module, name in ((store, "BATCH"), (reading, "ZONE"), (writing, "SHARD_DOCS")):
        monkeypatch.setattr(module, name, 3)
    report = run(source, tmp_path / "parts")
    assert report.shards["train"] > 3 and "--paths.train" in report.to_text()
    for name in ("train", "dev", "test"):
        (whole,) = [tmp_path / "whole" / f"{name}.spacy"]
        parts = tmp_path / "parts" / f"{name}.spacy"
        docs = [doc for path in (sorted(parts.iterdir()) if parts.is_dir() else [parts]) for doc in load_docs(path)]
        assert [describe(doc) for doc in docs] == [describe(doc) for doc in load_docs(whole)]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_refused_before_anything_is_read(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(BertHeadsError) as info:
        check_writable(tmp_path / "new" / "out")
    tmp_path.chmod(0o700)
    assert info.value.code == "H123"


@pytest.mark.parametrize("options", [{}, {"dev": "same"}, {"test": "same"}])
def test_file_that_is_given_twice_is_refused(tmp_path: Path, options):
    source = write_jsonl(tmp_path / "in.jsonl", {"text": "one", "label": "A"})
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    inputs = [source] if options else [source, link]
    with pytest.raises(BertHeadsError) as info:
        run(inputs, tmp_path / "out", **dict.fromkeys(options, link))
    assert info.value.code == "H161"
    assert not (tmp_path / "out").exists()


def test_full_disk_for_the_records_is_a_message(tmp_path: Path):
    kept = TextStore()
    kept._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(BertHeadsError) as info:
        for number in range(5000):
            kept.add(Annotation("word " * 50 + str(number), Where(FILES[0], number), cats={"A": 1.0}))
    assert info.value.code == "H160"


def test_report_warns_of_labels_that_a_split_lacks(tmp_path: Path):
    records = [{"text": f"text {i}", "label": "COMMON"} for i in range(60)]
    records += [{"text": f"rare {i}", "label": "RARE"} for i in range(1)]
    report = run(write_jsonl(tmp_path / "in.jsonl", *records), tmp_path / "out")
    warnings = report.to_dict()["warnings"]
    lacking = [name for name, counts in report.splits.items() if not counts.cats["RARE"]]
    assert len(lacking) == 2 and len(warnings) == 2
    assert all(f"no text in {name} for category label 'RARE'" in text for name, text in zip(lacking, warnings))
    assert run(tmp_path / "in.jsonl", tmp_path / "out", split=ALL_TRAIN).to_dict()["warnings"] == [
        "no texts in dev and test. Add more data, or pass another --split."
    ]


def test_scores_and_wordpieces_are_reported(tmp_path: Path, bert_folder: str):
    from transformers import AutoTokenizer

    lines = [f"{'word ' * i}one,{i / 2}" for i in range(1, 30)]
    path = tmp_path / "in.csv"
    path.write_text("text,score\n" + "\n".join(lines) + "\n", encoding="utf8")
    options = {"text_column": "text", "label_column": "score", "kind": "score"}
    report = run(path, tmp_path / "out", split=ALL_TRAIN, encoder=bert_folder, **options)
    train = report.to_dict()["splits"]["train"]
    ((label, scores),) = train["scores"].items()
    assert scores == {"n": 29, "mean": pytest.approx(7.5), "lowest": 0.5, "highest": 14.5}
    assert f"score {label}, mean (range)" in report.to_text()
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    lengths = sorted(len(tokenizer(f"{'word ' * i}one")["input_ids"]) for i in range(1, 30))
    assert train["wordpieces"]["longest"] == lengths[-1]
    assert train["wordpieces"]["middle"] == lengths[14]
    assert train["wordpieces"]["over"] == sum(length > report.limit for length in lengths)


def test_what_is_read_is_not_written_over(tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", {"text": "one", "label": "A"})
    run(source, tmp_path, split=ALL_TRAIN)
    corpus = tmp_path / "train.spacy"
    before = corpus.read_bytes()
    for call in (
        lambda: run(corpus, tmp_path),
        lambda: run(source, tmp_path / "out", dev=corpus, report_path=source),
        lambda: export(corpus, corpus, format="prodigy"),
    ):
        with pytest.raises(BertHeadsError) as info:
            call()
        assert info.value.code == "H123" and "to be read" in str(info.value)
    assert corpus.read_bytes() == before
