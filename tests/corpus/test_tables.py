"""CSV and TSV with named columns, and lines of a text and its label."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_bert_heads.corpus.readers.formats import find_converter
from spacy_bert_heads.errors import BertHeadsError

from .reading import chosen, read, write

CELL = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), min_size=1, max_size=8)


@given(st.lists(st.tuples(CELL, st.sampled_from(["a", "b", "c d"])), min_size=1, max_size=6), st.sampled_from(",;"))
@settings(deadline=None, max_examples=60)
def test_what_the_csv_module_writes_comes_back(tmp_path_factory, rows, delimiter: str):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerows([("text", "label"), *rows])
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", stream.getvalue())
    annotations, findings = read(path, "csv", skip_bad=True)
    kept = [(text, [label]) for text, label in rows if text.strip()]
    assert [(annotation.text, chosen(annotation)) for annotation in annotations] == kept
    assert findings.counts["H107"] == len(rows) - len(kept)
    assert findings.n_records[path] == len(rows)


def test_every_label_of_the_file_is_known_of_every_text(tmp_path: Path):
    path = write(tmp_path / "a.csv", "id,text,label\r\n1,Good,POS\r\n2,Bad,NEG\r\n")
    (good, bad), _ = read(path)
    assert (good.cats, good.exclusive) == ({"NEG": 0.0, "POS": 1.0}, True)
    assert bad.cats == {"NEG": 1.0, "POS": 0.0}
    assert (good.where.line, bad.where.line) == (2, 3)
    labels = write(tmp_path / "labels.txt", "POS\nNEG\nMIX")
    assert read(path, labels=labels)[0][0].cats == {"MIX": 0.0, "NEG": 0.0, "POS": 1.0}


@pytest.mark.parametrize("cells", [("a,b", "b", ""), ('["a", "b"]', "['b']", ""), ("a|b", "b", ""), ("0,1", "1", "")])
def test_lists_of_labels(tmp_path: Path, cells):
    stream = io.StringIO()
    csv.writer(stream).writerows([("text", "labels"), *zip("xyz", cells)])
    path = write(tmp_path / "a.csv", stream.getvalue())
    separator = "|" if "|" in cells[0] else ","
    settings = {"labels": write(tmp_path / "labels.txt", "a\nb\nc\n"), "label_separator": separator, "kind": "multi"}
    (both, one), findings = read(path, **settings)
    assert both.cats == {"a": 1.0, "b": 1.0, "c": 0.0} and not both.exclusive
    assert one.cats == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert findings.counts == {"no_label": 1}


def test_kind_of_a_column_is_found_where_it_is_plain(tmp_path: Path):
    lists = write(tmp_path / "a.csv", 'text,label\nx,"[""a"", ""b""]"\ny,[]\n')
    (both, none), _ = read(lists)
    assert both.cats == {"a": 1.0, "b": 1.0} and none.cats == {"a": 0.0, "b": 0.0}
    scores = write(tmp_path / "b.csv", "text,score\nx,4.5\ny,-1\n")
    assert [annotation.cats for annotation in read(scores)[0]] == [{"score": 4.5}, {"score": -1.0}]
    # A label may hold the separator: it is one label, and that is said.
    commas = write(tmp_path / "c.csv", 'text,label\nx,"Food, Drinks"\ny,Toys\n')
    (one, _), findings = read(commas)
    assert chosen(one) == ["Food, Drinks"] and one.exclusive
    assert findings.counts == {"separator_in_label": 1}
    numbers = write(tmp_path / "d.csv", "text,label\nx,0\ny,1\n")
    (one, _), findings = read(numbers)
    assert one.cats == {"0": 1.0, "1": 0.0} and findings.counts == {"numbered_labels": 2}
    assert read(numbers, kind="score")[0][1].cats == {"label": 1.0}


def test_a_column_for_each_label(tmp_path: Path):
    path = write(tmp_path / "a.csv", "id,comment,toxic,insult\n10,x,1,0\n11,y,0,\n")
    (one, other), _ = read(path)
    assert (one.cats, other.cats) == ({"toxic": 1.0, "insult": 0.0}, {"toxic": 0.0})
    path = write(tmp_path / "b.csv", "t,joy,anger\nx,0.5,True\n")
    (annotation,), _ = read(path, text_column="t", label_column="joy,anger")
    assert annotation.cats == {"joy": 0.5, "anger": 1.0}


@pytest.mark.parametrize(
    "head, settings",
    [("sentence1,sentence2,score\n", {}), ("", {}), ("q,a,n\n", {"text_column": "q,a", "label_column": "n"})],
)
def test_pairs_are_joined_and_remember_where_the_second_begins(tmp_path: Path, head: str, settings):
    path = write(tmp_path / "a.csv", head + '"One, two",Three,2.5\nFour,Five,3\n')
    for separator in (" ", " [SEP] "):
        annotations, _ = read(path, pair_separator=separator, **settings)
        first = annotations[0]
        assert first.text == f"One, two{separator}Three"
        assert first.text[first.second_start :] == "Three"
        assert list(first.cats.values()) == [2.5]


@pytest.mark.parametrize("value", ["NaN", "inf", "high", "1,5"])
def test_what_is_no_number_is_refused(tmp_path: Path, value: str):
    path = write(tmp_path / "a.csv", f'text,score\nx,1.5\ny,"{value}"\n')
    with pytest.raises(BertHeadsError) as info:
        read(path, kind="score")
    assert (info.value.code, info.value.line) == ("H135", 3)
    annotations, findings = read(path, kind="score", skip_bad=True)
    assert len(annotations) == 1 and findings.counts == {"H135": 1}


def test_nan_among_numbers_is_not_a_label(tmp_path: Path):
    with pytest.raises(BertHeadsError) as info:
        read(write(tmp_path / "a.csv", "text,score\nx,1.5\ny,nan\n"))
    assert info.value.code == "H135"


@pytest.mark.parametrize(
    "content, code, line",
    [
        ("text,label\na,x\nb\n", "H130", 3),
        ("text,label\na,x,y\n", "H130", 2),
        ('text,label\na,x\n"b,y\nc,z\n', "H136", 3),
        ('text,label\na,x\n"b"c,y\n', "H136", 3),
        ("text,label\n,x\n", "H107", 2),
        ("text,label\na,x\nb\0,y\n", "H139", 3),
        ("a,b,c\nd,e,f\n", "H134", None),
        ("text,b,c\nd,e,f\n", "H134", None),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, content: str, code: str, line):
    with pytest.raises(BertHeadsError) as info:
        read(write(tmp_path / "a.csv", content), "csv")
    assert (info.value.code, info.value.line) == (code, line)


def test_columns_by_name_number_and_header(tmp_path: Path):
    path = write(tmp_path / "a.csv", "a,b,c\nd,e,f\n")
    for options in (
        {"text_column": "b", "label_column": "c"},
        {"text_column": "2", "label_column": "-1", "header": True},
    ):
        (annotation,), _ = read(path, **options)
        assert (annotation.text, chosen(annotation)) == ("e", ["f"])
    assert len(read(path, text_column="2", label_column="3", header=False)[0]) == 2
    for wrong in ("z", "0", "4", "-4"):
        with pytest.raises(BertHeadsError) as info:
            read(path, text_column=wrong, label_column="a")
        assert info.value.code == "H134"


def test_too_many_labels_are_none(tmp_path: Path):
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(f"a,l{i}\n" for i in range(10_001)))
    with pytest.raises(BertHeadsError) as info:
        read(path)
    assert info.value.code == "H133"


def test_lines_of_text_and_label(tmp_path: Path):
    path = write(tmp_path / "a.txt", '词汇 one\t0\r\n"two" 2\t1\n"say ""x"""\t0\n')
    labels = write(tmp_path / "labels.txt", "finance\nrealty")
    annotations, findings = read(path, labels=labels)
    assert [a.text for a in annotations] == ["词汇 one", '"two" 2', 'say "x"']
    assert [chosen(a) for a in annotations] == [["finance"], ["realty"], ["finance"]]
    assert findings.counts == {"unquoted": 1}
    assert read(path)[1].counts == {"unquoted": 1, "numbered_labels": 3}


def test_lines_of_text_numbers_and_id(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "one\t0\tx1\ntwo\t0,2\tx2\n")
    labels = write(tmp_path / "labels.txt", "joy\nfear\nlove\n")
    (one, two), _ = read(path, labels=labels)
    assert (chosen(one), chosen(two)) == (["joy"], ["joy", "love"])
    assert two.cats == {"joy": 1.0, "fear": 0.0, "love": 1.0} and not two.exclusive
    assert find_converter(path, "auto").name == "labelled-lines"


@pytest.mark.parametrize(
    "lines", ["5 How far ?\n4 What ?\n5 Who ?\n", "NUM:dist How far ?\nHUM:ind What ?\nNUM:dist Who ?\n"]
)
def test_lines_of_label_and_text(tmp_path: Path, lines: str):
    annotations, _ = read(write(tmp_path / "a", lines))
    assert [a.text for a in annotations] == ["How far ?", "What ?", "Who ?"]
    assert chosen(annotations[0]) == chosen(annotations[2]) == [lines.split()[0]]


@pytest.mark.parametrize(
    "content, code, line",
    [
        ("a\tx\nb\n", "H130", 2),
        ("a\tx\nb\ty\tz\n", "H130", 2),
        ("a\tx\n\tx\n", "H107", 2),
        ("a\tone\na\ttwo\n", "H134", None),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, content: str, code: str, line):
    with pytest.raises(BertHeadsError) as info:
        read(write(tmp_path / "a.txt", content), "labelled-lines")
    assert (info.value.code, info.value.line) == (code, line)


def test_label_before_the_text_is_asked_for_and_can_be_given(tmp_path: Path):
    path = write(tmp_path / "a.txt", "ham\tGo\nspam\tWin\nham\tOk\n")
    with pytest.raises(BertHeadsError, match="--label-column"):
        read(path)
    assert [chosen(a) for a in read(path, label_column="1")[0]] == [["ham"], ["spam"], ["ham"]]


@pytest.mark.parametrize(
    "content, code",
    [("a\nb\na\n", "H141"), ("\n", "H141"), ("a\n\nb\n", "H141"), ("a\n", "H131")],
)
def test_label_files_are_checked(tmp_path: Path, content: str, code: str):
    path = write(tmp_path / "a.txt", "one\t0\ntwo\t1\none\t1\n")
    with pytest.raises(BertHeadsError) as info:
        read(path, labels=write(tmp_path / "labels.txt", content))
    assert info.value.code == code


def test_label_files_may_give_the_numbers(tmp_path: Path):
    path = write(tmp_path / "a.txt", "one\t12\ntwo\t7\none\t12\n")
    annotations, _ = read(path, labels=write(tmp_path / "labels.txt", "12\tLOC\n7\tPER\n"))
    assert [chosen(a) for a in annotations] == [["LOC"], ["PER"], ["LOC"]]


def test_quotes_in_a_table_of_tabs_are_characters_unless_all_are_those_of_csv(tmp_path: Path):
    plain = write(tmp_path / "a.tsv", 'text\tlabel\n"x" is 5" long\ta\nsay "y\tb\n')
    assert [a.text for a in read(plain)[0]] == ['"x" is 5" long', 'say "y']
    quoted = write(tmp_path / "b.tsv", 'text\tlabel\n"x ""y"""\ta\nz\tb\n')
    assert [a.text for a in read(quoted)[0]] == ['x "y"', "z"]


def test_json_lists_survive_whatever_they_hold(tmp_path: Path):
    names = ["a,b", 'c"d', "e]"]
    stream = io.StringIO()
    csv.writer(stream).writerows([("text", "label"), ("x", json.dumps(names)), ("y", "[]")])
    (annotation, _), _ = read(write(tmp_path / "a.csv", stream.getvalue()))
    assert chosen(annotation) == sorted(names)
