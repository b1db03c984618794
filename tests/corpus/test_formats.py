"""Which format a file has, and what every reader does with files that are none."""

import gzip
import zlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.inputs import list_inputs
from spacy_bert_heads.corpus.readers.formats import AUTO, CONVERTERS, ReadOptions, find_converter
from spacy_bert_heads.errors import BertHeadsError

from .reading import read, write

# Format, and the beginning of a file that is of it and of no other.
FILES = [
    ("prodigy", '{"text": "a", "spans": [], "answer": "accept"}\n'),
    ("prodigy", '{"text": "a", "label": "X"}\n'),
    ("prodigy", '{"text": "a", "spans": [], "relations": []}\n'),
    ("doccano", '{"text": "a", "label": ["X"]}\n'),
    ("doccano", '{"data": "a", "label": [[0, 1, "X"]]}\n'),
    ("doccano", '{"text": "a", "entities": [[0, 1, "X"]], "cats": ["Y"]}\n'),
    ("doccano", '{"text": "a", "annotations": [{"label": 1, "user": 1}]}\n'),
    ("label-studio", '[{"data": {"text": "a"}, "annotations": []}]'),
    ("label-studio", '{"data": {"text": "a"}, "annotations": []}\n'),
    ("label-studio", '[{"text": "a", "id": 1, "cat": "X", "annotation_id": 1, "lead_time": 2}]'),
    ("cluener", '{"text": "a", "label": {"X": {"a": [[0, 0]]}}}\n'),
    ("cluener", '{"id": 1, "text": "a"}\n'),
    ("spacy-json", '{"text": "a", "entities": [[0, 1, "X"]]}\n'),
    ("spacy-json", '{"text": "a", "cats": {"X": 1.0}}\n'),
    ("spacy-json", '{"text": "a", "ents": [], "tokens": [], "spans": {}}\n'),
    ("spacy-json", '[["a", {"entities": []}]]'),
    ("spacy-json", '{"classes": ["X"], "annotations": [null, ["a", {"entities": [[0, 1, "X"]]}]]}'),
    ("spacy-json", '[{"id": 0, "paragraphs": [{"sentences": [{"tokens": [{"orth": "a", "ner": "O"}]}]}]}]'),
    ("token-lines", '{"id": "0", "tokens": ["a", "b"], "ner_tags": ["B-X", "O"]}\n'),
    ("token-lines", '{"text": "a b", "words": ["a", "b"], "labels": ["B-X", "O"]}\n'),
    ("token-lines", '[{"tokens": ["a", "b"], "tags": [1, 0]}]'),
    ("fasttext", "__label__a some text\n__label__b __label__a more\n"),
    ("opennlp", "<START:X> a <END> b .\nc d\n"),
    ("conll", "a\tB-X\nb\tI-X\n"),
    ("conll", "a\tO\nb\tPLACE\n\nc\tO\nd\tPLACE\n"),
    ("conll", "a\tO\nb\tB_X\n\nc\tO\nd\tO\n"),
    ("conll", "a o\nb b-x\n\nc o\nd o\n"),
    ("conll", "a\tO\nb\tX-B\nc\tX-I\n\nc\tO\nd\tO\n"),
    ("conll", "a\tO\nb\tB\n\nc\tO\nd\tO\n"),
    ("conll", "TOKEN\tNE-COARSE-LIT\tMISC\n# id = 1\na\tB-X\t_\n"),
    ("conll", "# a b = c\n1\ta\tB-X\t_\n2\tb\tO\tx\n"),
    ("conll", "-DOCSTART- -X- O\na NN _ U-X\n\nb NN _ O\n"),
    ("labelled-lines", "a b\tX\nc\tY\n"),
    ("labelled-lines", "a b\t1,2\tid1\nc\t1\tid2\n"),
    ("labelled-lines", "0 a b\n1 c\n0 d\n"),
    ("csv", "text,label\na,X\n"),
    ("csv", "one a,two b,4.5\nc,d,1.0\n"),
    ("csv", "sentence;category\na;X\n"),
    ("tsv", "text\tlabel\na\tX\n"),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name, content", FILES)
def test_content_alone_shows_the_format(tmp_path: Path, name: str, content: str, packed: bool):
    data = content.encode("utf8")
    path = write(tmp_path / "a", gzip.compress(data) if packed else data)
    assert find_converter(path, AUTO).name == name
    # A byte order mark and other ends of lines change nothing.
    path = write(tmp_path / "b", b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    assert find_converter(path, AUTO).name == name


@pytest.mark.parametrize(
    "records",
    [
        ['{"text": "a b", "label": [[0, 1, "X"]]}', '{"text": "b", "label": []}'],
        ['{"text": "a b", "label": ["X"]}', '{"text": "b", "label": ["Y"]}'],
        ['{"text": "a b", "label": {"X": {"a": [[0, 0]]}}}', '{"text": "b", "label": {}}'],
    ],
)
def test_array_of_records_says_what_its_lines_say(tmp_path: Path, records):
    lines, _ = read(write(tmp_path / "a.jsonl", "\n".join(records)))
    array, findings = read(write(tmp_path / "a.json", f"[{', '.join(records)}]"))
    assert [(one.text, one.ents, one.cats) for one in array] == [(one.text, one.ents, one.cats) for one in lines]
    assert len(array) == findings.n_records[tmp_path / "a.json"] == 2


def test_link_to_itself_in_a_folder_is_passed_over(tmp_path: Path):
    (tmp_path / "a.jsonl").symlink_to("a.jsonl")
    write(tmp_path / "b.jsonl", '{"text": "a", "label": "X"}\n')
    assert list_inputs([tmp_path]) == [tmp_path / "b.jsonl"]
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(BertHeadsError) as info:
        list_inputs([tmp_path])
    assert info.value.code == "H129"


def test_empty_file_is_said_to_be_empty(tmp_path: Path):
    with pytest.raises(BertHeadsError) as info:
        find_converter(write(tmp_path / "a", ""), AUTO)
    assert (info.value.code, info.value.found) == ("H117", "an empty file")


@pytest.mark.parametrize(
    "content",
    ["Just words.\nAnd more of them, here.\n", "1. one\n2. two\n", "{}", "[1, 2]", "null\n", "a\nb\n", "\n\n", "[]"],
)
def test_what_is_no_format_is_not_guessed(tmp_path: Path, content: str):
    with pytest.raises(BertHeadsError) as info:
        find_converter(write(tmp_path / "a", content), AUTO)
    assert info.value.code == "H125"
    assert all(name in str(info.value) for name in CONVERTERS)


def test_file_of_two_formats_asks_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a", "a\tB-X\n")
    monkeypatch.setattr(CONVERTERS["csv"], "sniff", lambda path, head: True)
    with pytest.raises(BertHeadsError) as info:
        find_converter(path, AUTO)
    assert (info.value.code, info.value.found) == ("H143", "conll or csv")
    assert find_converter(path, "conll").name == "conll"


NASTY = {
    "empty": b"",
    "only a byte order mark": b"\xef\xbb\xbf\n",
    "zeros": b"\0" * 3000,
    "UTF-16": "a\tb\n".encode("utf-16"),
    "open brace": b"{",
    "open bracket": b'[{"data": {"text": "a"}, "annotations": []}',
    "deep": b"[" * 100_000,
    "open quote": b'text,label\n"a,b\nc,d\n',
    "cut gzip": gzip.compress(bytes(range(256)) * 9)[:-20],
    "no gzip": b"\x1f\x8bnothing",
    "no DocBin": zlib.compress(b"version attrs"),
    "no parquet": b"PAR1",
    "no arrow": b"ARROW1\0\0",
    "half a pair": b'{"text": "\\ud83d", "label": ["x"]}\n',
    "twice a key": b'{"text": "a", "text": "b", "cats": {"x": 1}}\n',
    "one line": b"x" * 2_000_000,
    "white space": b" \t \n\t\t\n",
    "no words": b"\tO\nA\tB-X\n",
    "latin": "text,label\nn\xe9,x\n".encode("latin1"),
    "carriage returns": b"a\tb\rc\td\r",
    "header": b"text\tlabel\n",
}


# Hugging Face datasets are read with an extra
NAMED = ("H1",) if find_spec("datasets") else ("H1", "H407")
READABLE = [AUTO, *(name for name in CONVERTERS if name != "hf-datasets" or find_spec("datasets"))]


@pytest.mark.parametrize("name", NASTY)
def test_broken_files_end_in_a_named_error_or_in_findings(tmp_path: Path, name: str):
    path = write(tmp_path / "a.x", NASTY[name])
    for format in READABLE:
        for skip_bad in (False, True):
            findings = Findings(skip_bad=skip_bad)
            try:
                converter = find_converter(path, format)
                found = list(converter.read(path, findings, ReadOptions()))
            except BertHeadsError as error:
                assert error.path is not None and error.code.startswith(NAMED)
            else:
                assert found or findings.counts or not findings.n_records[path]


@pytest.mark.parametrize("format", READABLE)
def test_folder_and_missing_file_are_refused(tmp_path: Path, format: str):
    for path, codes in ((tmp_path, {"H101", "H102", "H103"}), (tmp_path / "none", {"H101"})):
        with pytest.raises(BertHeadsError) as info:
            read(path, format)
        assert info.value.code in codes
