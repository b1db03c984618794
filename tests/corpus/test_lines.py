"""Lines out of files of all kinds."""

import gzip
from pathlib import Path

import pytest

from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.lines import read_head, read_json_objects, read_lines
from spacy_bert_heads.errors import BertHeadsError


def get_lines(path: Path, skip_bad: bool = False):
    findings = Findings(skip_bad=skip_bad)
    return [(where.line, line) for where, line in read_lines(path, findings)], findings


def test_only_newlines_end_a_line(tmp_path: Path):
    path = tmp_path / "a.txt"
    text = "a\u0085b\u2028c\x0bd\x1ce\rf"
    path.write_bytes(f"{text}\nnext\r\n\n \r\nlast".encode())
    lines, findings = get_lines(path)
    assert lines == [(1, text), (2, "next"), (5, "last")]
    assert findings.n_records[path] == 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "packed-without-its-suffix"])
def test_byte_order_mark_and_gzip_make_no_difference(tmp_path: Path, name: str):
    content = b'\xef\xbb\xbf{"text": "\xc3\xa9"}\r\n{"text": "b"}\r\n'
    path = tmp_path / name
    path.write_bytes(content if name == "a.jsonl" else gzip.compress(content))
    values = [(where.line, value) for where, value in read_json_objects(path, Findings(skip_bad=False))]
    assert values == [(1, {"text": "é"}), (2, {"text": "b"})]
    assert read_head(path).startswith(b"{")


def test_bad_bytes_are_named_and_can_be_skipped(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nb\xf0d\ngood\n")
    with pytest.raises(BertHeadsError) as info:
        get_lines(path)
    assert (info.value.code, info.value.line, info.value.found) == ("H104", 2, "0xF0")
    lines, findings = get_lines(path, skip_bad=True)
    assert [number for number, _ in lines] == [1, 3]
    assert findings.counts == {"H104": 1}


def test_file_cut_off_in_the_middle_is_named(tmp_path: Path):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(100_000)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BertHeadsError) as info:
        get_lines(path)
    assert (info.value.code, info.value.path) == ("H103", path)


@pytest.mark.parametrize(
    "line",
    [b'{"text": "\\ud83d"}', b"[" * 100_000, b'{"text": ' + b"1" * 5000 + b"}", b'{"text": "a"', b"{'a': 1}"],
)
def test_what_is_no_json_text_is_refused_without_a_crash(tmp_path: Path, line: bytes):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\\ud83d\\ude00"}\n' + line + b"\n")
    with pytest.raises(BertHeadsError) as info:
        list(read_json_objects(path, Findings(skip_bad=False)))
    assert (info.value.code, info.value.line) == ("H105", 2)
