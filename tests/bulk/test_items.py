"""Records in, from every kind of file, in order, and what is wrong with them."""

import gzip
import json
import os
from pathlib import Path
from typing import Any, List

import pytest
import spacy
from spacy.tokens import Doc, DocBin

from spacy_bert_heads.bulk.items import Item, count_items, find_sources, plain, read_items
from spacy_bert_heads.bulk.shards import cut
from spacy_bert_heads.corpus.readers import pipes
from spacy_bert_heads.errors import BertHeadsError

pyarrow = pytest.importorskip("pyarrow")

RECORDS = [{"text": f"text {n} é 中", "id": n, "meta": {"source": ["a", None]}} for n in range(5)]


def read(*inputs: Any, text_column: Any = None, **settings: Any) -> List[Item]:
    return list(read_items(find_sources(inputs, **settings), text_column))


def good(items: List[Item]) -> List[Any]:
    return [item.record for item in items if item.error is None]


def codes(items: List[Item]) -> List[Any]:
    return [(item.where.line, item.error.code) for item in items if item.error is not None]


def write_lines(path: Path) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS), encoding="utf8")
    return path


def pack(path: Path, ending: str) -> Path:
    packed = path.with_name(path.name + ending)
    if ending == ".gz":
        packed.write_bytes(gzip.compress(path.read_bytes()))
    else:
        with pyarrow.CompressedOutputStream(str(packed), "zstd") as stream:
            stream.write(path.read_bytes())
    path.unlink()
    return packed


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_json_lines_keep_all_keys_whatever_they_are_packed_in(tmp_path: Path, ending: str) -> None:
    path = write_lines(tmp_path / "a.jsonl")
    items = read(pack(path, ending) if ending else path)
    assert good(items) == RECORDS
    assert [item.where.line for item in items] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path, ending: str) -> None:
    path = pack(write_lines(tmp_path / "a.jsonl"), ending)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(BertHeadsError) as info:
        read(path)
    assert info.value.code == "H103"


def test_columns_of_parquet_and_arrow_become_keys(tmp_path: Path) -> None:
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist(RECORDS)
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    with pyarrow.ipc.new_file(str(tmp_path / "b.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pyarrow.ipc.new_stream(str(tmp_path / "c.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "b.arrow", "c.arrow"):
        assert good(read(tmp_path / name)) == RECORDS
        assert count_items(find_sources([tmp_path / name])) == 5


def test_a_parquet_file_without_the_column_names_those_that_it_has(tmp_path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"b": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(BertHeadsError) as info:
        read(tmp_path / "a.parquet")
    assert info.value.code == "H643" and "only: 'b', 'n'" in str(info.value)
    with pytest.raises(BertHeadsError) as info:
        read(tmp_path / "a.parquet", text_column="texts")
    assert info.value.code == "H643"
    assert good(read(tmp_path / "a.parquet", text_column="b")) == [{"text": "a", "n": 1}]


def test_text_of_parquet_that_is_no_utf8_or_null_is_rejected_alone(tmp_path: Path) -> None:
    from pyarrow import parquet

    raw = pyarrow.array([b"good", b"\xff\xfe", None, b"fine"], pyarrow.binary())
    array = pyarrow.Array.from_buffers(pyarrow.string(), 4, raw.buffers())
    parquet.write_table(pyarrow.table({"text": array}), tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet")
    assert good(items) == [{"text": "good"}, {"text": "fine"}]
    assert codes(items) == [(2, "H644"), (3, "H644")]


def test_tables_and_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"a, ""b""\nc"\n2,d\n3\n', encoding="utf8")
    (tmp_path / "b.tsv").write_text("id\tsentence\n1\ta b\n", encoding="utf8")
    (tmp_path / "c.txt").write_text("one\n\n  \ntwo\r\n", encoding="utf8")
    items = read(tmp_path / "a.csv")
    assert good(items) == [{"id": "1", "text": 'a, "b"\nc'}, {"id": "2", "text": "d"}]
    assert codes(items) == [(5, "H130")]
    assert good(read(tmp_path / "b.tsv")) == [{"text": "a b", "id": "1"}]
    assert good(read(tmp_path / "c.txt")) == [{"text": "one"}, {"text": "two"}]


def test_docs_keep_tokens_and_lose_annotation(tmp_path: Path) -> None:
    doc = Doc(spacy.blank("en").vocab, words=["op", "ened", "."], spaces=[False, True, False])
    doc.cats = {"A": 1.0}
    doc.user_data["id"] = 7
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "a.spacy")
    (item,) = read(tmp_path / "a.spacy")
    assert item.record == {"id": 7, "text": "opened ."}
    assert (item.words, item.spaces) == (["op", "ened", "."], [False, True, False])


def test_bad_records_are_told_apart_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good", "id": 1}',
        b'{"text": "half',
        b'{"text": "\xff\xfe"}',
        b'{"text": "half a pair \\ud83d"}',
        b'{"id": 2}',
        b'{"text": 3}',
        b'{"text": null}',
        b"[1, 2]",
        b'{"text": "fine", "id": 3}',
        b'{"text": "cut of',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    items = read(tmp_path / "a.jsonl")
    assert [record["id"] for record in good(items)] == [1, 3]
    expected = ["H105", "H104", "H105", "H644", "H644", "H644", "H106", "H105"]
    assert codes(items) == list(zip([2, 3, 4, 5, 6, 7, 8, 10], expected))
    # In the order of the file
    assert [item.where.line for item in items] == list(range(1, 11))


def test_another_key_of_the_text_and_what_it_hides(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "b", "text": 1}\n{"text": "only"}\n', encoding="utf8")
    items = read(tmp_path / "a.jsonl", text_column="body")
    assert good(items) == [{"text": "b", "_input": {"text": 1}}]
    assert codes(items) == [(2, "H644")]


def test_folders_patterns_and_results_of_another_run(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "deeper").mkdir(parents=True)
    (folder / "b.txt").write_text("b\n")
    (folder / "a.txt").write_text("a\n")
    (folder / "deeper" / "c.txt").write_text("c\n")
    (folder / "README.md").write_text("no text\n")
    (folder / "out").mkdir()
    (folder / "out" / "part-000000.jsonl").write_text('{"text": "out"}\n')
    (folder / "out" / "manifest.jsonl").write_text('{"bert-heads apply": 1}\n')
    (folder / "out" / "rejected.jsonl").write_text('{"text": "rejected"}\n')

    def names(*inputs: Any, **settings: Any) -> List[str]:
        return [record["text"] for record in good(read(*inputs, **settings))]

    assert names(folder) == ["a", "b", "c", "out"]
    assert names(folder, output=folder / "out") == ["a", "b", "c"]
    assert names(folder / "b.txt", folder / "a.txt") == ["b", "a"]
    assert names(str(folder / "*.txt")) == ["a", "b"]
    assert names(str(folder / "**" / "*.txt")) == ["a", "b", "c"]


def test_what_is_not_there_or_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.docx").write_bytes(b"PK")
    for path, code in (("none.jsonl", "H101"), ("*.none", "H101"), ("empty", "H129"), ("a.docx", "H642")):
        with pytest.raises(BertHeadsError) as info:
            read(tmp_path / path)
        assert info.value.code == code
    with pytest.raises(BertHeadsError) as info:
        read(tmp_path / "a.docx", kind="word")
    assert info.value.code == "H145"


def test_a_pipe_is_known_by_its_beginning(tmp_path: Path) -> None:
    for content, expected in ((b'{"text": "a"}\n', "a"), (b"plain words\n", "plain words")):
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        assert good(read(f"/dev/fd/{reader}")) == [{"text": expected}]
        os.close(reader)
    assert not pipes._COPIES


def test_counts_for_the_progress_bar(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl")
    assert count_items(find_sources([path])) == 5
    path.write_bytes(path.read_bytes()[:-1])
    assert count_items(find_sources([path])) == 5
    assert count_items(find_sources([pack(path, ".zst")])) == 5


def test_plain_values() -> None:
    from datetime import date
    from decimal import Decimal

    value = {"a": [float("nan"), 1.5, (1, 2)], "b": date(2026, 1, 2), "c": Decimal("1.50"), 3: b"x\xff"}
    assert plain(value) == {"a": [None, 1.5, [1, 2]], "b": "2026-01-02", "c": "1.50", "3": "x\\xff"}


def test_shards_are_cut_alike_and_their_digest_knows_the_content_not_the_place(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl")
    with path.open("a") as stream:
        stream.write('{"id": 9}\n')
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(path.read_bytes())
    first, second = (list(cut(read(one), 4)) for one in (path, moved))
    assert [shard.digest for shard in first] == [shard.digest for shard in second]
    assert [(s.number, s.first, s.n_items, len(s.items), len(s.rejected)) for s in first] == [
        (0, 0, 4, 4, 0),
        (1, 4, 2, 1, 1),
    ]
    moved.write_text(moved.read_text().replace("text 3", "text 7"))
    changed = list(cut(read(moved), 4))
    assert changed[0].digest != first[0].digest and changed[1].digest == first[1].digest


def test_a_shard_of_long_texts_ends_earlier() -> None:
    from spacy_bert_heads.bulk.items import make_item
    from spacy_bert_heads.corpus.findings import Where

    items = (make_item(Where(Path("a"), n), {"text": "x" * 1_000_000}, "text") for n in range(10))
    assert [shard.n_items for shard in cut(items, 1000)] == [4, 4, 2]
