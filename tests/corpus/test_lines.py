"""Lines out of files of all kinds."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.readers import lines as lines_module
from spacy_bert_heads.corpus.readers.lines import read_head, read_json_objects, read_json_values, read_lines
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


@pytest.mark.parametrize("content", [b"a\rb", b"a\rb\r", b"\xef\xbb\xbfa\rb\r\r"])
def test_lines_that_end_in_carriage_returns_are_not_read_as_one(tmp_path: Path, content: bytes):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(BertHeadsError, match=r"\[H155\]"):
        get_lines(path)
    path.write_bytes(content.replace(b"\r", b"\n"))
    assert [line for _, line in get_lines(path)[0]] == ["a", "b"]


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
    [
        b'{"text": "\\ud83d"}',
        b'{"a": 1, "a": 2}',
        b'{"a": [{"b": 1, "c": 2, "b": 1}]}',
        b"[" * 100_000,
        b'{"text": ' + b"1" * 5000 + b"}",
        b'{"text": "a"',
        b"{'a': 1}",
    ],
)
def test_what_is_no_json_text_is_refused_without_a_crash(tmp_path: Path, line: bytes):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\\ud83d\\ude00"}\n' + line + b"\n")
    with pytest.raises(BertHeadsError) as info:
        list(read_json_objects(path, Findings(skip_bad=False)))
    assert (info.value.code, info.value.line) == ("H105", 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(blacklist_categories=("Cs",)), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=5), st.sampled_from([None, 1]), st.booleans(), st.booleans())
@settings(deadline=None)
def test_json_values_of_arrays_and_lines_come_as_json_has_them(tmp_path_factory, values, indent, as_array, pretty):
    shown = [json.dumps(value, indent=indent, ensure_ascii=pretty) for value in values]
    text = "[\n" + ",\n".join(shown) + "\n]\n" if as_array else "\n".join(shown)
    if not as_array and text.startswith("["):
        text = "0\n" + text
        shown = ["0", *shown]
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_bytes(text.encode("utf8"))
    findings = Findings(skip_bad=False)
    found = list(read_json_values(path, findings))
    assert [value for _, value in found] == [json.loads(value) for value in shown]
    lines = [text.count("\n", 0, sum(map(len, shown[:i])) + i * (2 if as_array else 1)) + 1 for i in range(len(shown))]
    assert [where.record for where, _ in found] == list(range(1, len(shown) + 1))
    assert [where.line for where, _ in found] == ([line + 1 for line in lines] if as_array else lines)
    assert findings.n_records[path] == len(shown)


def test_utf16_and_nul_are_named(tmp_path: Path):
    path = tmp_path / "a.txt"
    for encoding in ("utf-16", "utf-32"):
        path.write_bytes("a\tb\n".encode(encoding))
        for reader in (read_head, lambda path: list(read_lines(path, Findings(skip_bad=True)))):
            with pytest.raises(BertHeadsError) as info:
                reader(path)
            assert info.value.code == "H140"
    path.write_bytes(b"good\nb\0d\n")
    with pytest.raises(BertHeadsError) as info:
        get_lines(path)
    assert (info.value.code, info.value.line) == ("H139", 2)


def test_endless_line_takes_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n" + b"x" * 5000)
    with pytest.raises(BertHeadsError) as info:
        get_lines(path, skip_bad=True)
    assert (info.value.code, info.value.line) == ("H139", 2)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_json_values_do_not_depend_on_how_much_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
):
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", size)
    path = tmp_path / "a.json"
    content = '[{"a": "é🍿\\n"},\n 12345, [1,\n 2.5e3], "x"]'
    path.write_bytes(b"\xef\xbb\xbf" * (size > 3) + content.encode("utf8"))
    found = list(read_json_values(path, Findings(skip_bad=False)))
    assert [value for _, value in found] == json.loads(content)
    assert [(where.line, where.record) for where, _ in found] == [(1, 1), (2, 2), (2, 3), (3, 4)]
    path.write_bytes(b'["a",\n"b\xf0"]')
    with pytest.raises(BertHeadsError) as info:
        list(read_json_values(path, Findings(skip_bad=True)))
    assert (info.value.code, info.value.line) == ("H146", 2)
