"""What the columns of a file of tagged words are, and which lines of it are no words."""

import json
from collections import Counter
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_bert_heads.corpus.readers.tag_styles import PLAIN, STYLES, find_style
from spacy_bert_heads.errors import BertHeadsError

from .helpers import run
from .reading import chosen, covered, read, words, write

# Two sentences, whose entities are known however they are written.
SENTENCES = [[("Anna", "B-PER"), ("Lee", "I-PER"), ("ran", "O")], [("In", "O"), ("Oslo", "B-LOC"), (".", "O")]]
ENTITIES = [[("Anna Lee", "PER")], [("Oslo", "LOC")]]


def make_columns(rename=lambda tag: tag, part: str = "\t", sentences=SENTENCES) -> str:
    rows = ("".join(f"{word}{part}{rename(tag)}\n" for word, tag in sentence) for sentence in sentences)
    return "\n".join(rows)


def found(path: Path, *args, **options):
    annotations, findings = read(path, *args, **options)
    return [covered(annotation) for annotation in annotations], findings.counts


@pytest.mark.parametrize("part", ["\t", " "])
@pytest.mark.parametrize(
    "rename",
    [
        lambda tag: tag.replace("-", "_"),
        lambda tag: tag.replace("-", "."),
        lambda tag: "-".join(reversed(tag.split("-"))),
        lambda tag: "_".join(reversed(tag.split("-"))),
        lambda tag: tag[:1].lower() + tag[1:],
        lambda tag: tag.split("-")[-1],
    ],
)
def test_tags_of_every_style_are_read_as_tags_and_that_is_said(tmp_path: Path, part: str, rename):
    path = write(tmp_path / "a.tsv", make_columns(rename, part))
    assert found(path) == (ENTITIES, {"tag_style": 1})


def test_letters_alone_get_a_label_that_says_so(tmp_path: Path):
    path = write(tmp_path / "a.tsv", make_columns(lambda tag: tag[:1]))
    expected = [[(text, "ENTITY") for text, _ in ents] for ents in ENTITIES]
    assert found(path) == (expected, {"tag_style": 1})


@given(st.sampled_from(["BIO", "BILUO"]), st.lists(st.sampled_from(["PER", "B", "x-y", "LOC_2"]), min_size=1))
@settings(deadline=None)
def test_a_style_is_recognised_by_what_it_writes(letters: str, labels):
    tags = [f"{letter}-{label}" for letter in letters if letter != "O" for label in labels] + ["O"] * len(letters)
    assert find_style(Counter(tags)) == PLAIN
    for style, write_tag in zip(STYLES[1:4], ("{0}|{1}", "{1}_{0}", "{2}_{1}")):
        written = {tag: "O" if tag == "O" else write_tag.format(tag[0], tag[2:], tag[0].lower()) for tag in tags}
        assert {style.rename(new): tag for tag, new in written.items()} == {tag: tag for tag in tags}


def test_tagged_words_of_no_known_style_are_never_texts(tmp_path: Path):
    content = "a\tX1\nb\tY2\nc\tZ3\n\nd\tX1\ne\tY2\n\nf\tZ3\ng\tX1\n"
    for name in ("a.tsv", "a.txt", "a.conll"):
        with pytest.raises(BertHeadsError, match="--format") as info:
            read(write(tmp_path / name, content))
        assert info.value.code == "H154"
    assert len(read(tmp_path / "a.tsv", "labelled-lines")[0]) == 7


def test_labels_alone_without_blank_lines_are_asked_about(tmp_path: Path):
    path = write(tmp_path / "a.tsv", make_columns(lambda tag: tag.split("-")[-1]).replace("\n\n", "\n"))
    with pytest.raises(BertHeadsError) as info:
        read(path)
    assert info.value.code == "H154"
    assert found(path, "conll") == ([ENTITIES[0] + ENTITIES[1]], {"tag_style": 1})


def test_texts_of_one_word_without_groups_are_texts(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "good\tPOS\nbad\tNEG\nfine\tPOS\n")
    assert [chosen(annotation) for annotation in read(path)[0]] == [["POS"], ["NEG"], ["POS"]]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("part", ["\t", " "])
def test_column_that_counts_is_no_column_of_words(tmp_path: Path, first: int, part: str):
    rows = ("".join(f"{i}{part}{w}{part}{t}\n" for i, (w, t) in enumerate(s, first)) for s in SENTENCES)
    path = write(tmp_path / "a.tsv", "\n".join(rows))
    assert found(path) == (ENTITIES, {"index_column": 1})
    # Who says that the numbers are the words is believed.
    assert read(path, "conll", text_column="1")[0][0].text == " ".join(str(i) for i in range(first, first + 3))


def test_numbers_with_nothing_but_their_part_of_speech_are_words(tmp_path: Path):
    path = write(tmp_path / "a.conll", "1 CD O\n2 CD O\n\n3 CD O\n4 CD B-X\n")
    assert [annotation.text for annotation in read(path)[0]] == ["1 2", "3 4"]


@pytest.mark.parametrize("part", ["\t", " "])
@pytest.mark.parametrize(
    "number",
    [
        lambda s, i, before: f"{before + i}",
        lambda s, i, before: f"{s}-{i}",
        lambda s, i, before: f"{s}.{i}",
        lambda s, i, before: f"w{i}",
        lambda s, i, before: f"{s}",
        lambda s, i, before: f"{s}\t{i}",
        lambda s, i, before: f"doc{s}\t{s}\t{before + i}",
    ],
)
def test_columns_that_number_in_other_ways_are_no_words_either(tmp_path: Path, number, part: str):
    rows = []
    for s, sentence in enumerate(SENTENCES, 1):
        before = sum(map(len, SENTENCES[: s - 1]))
        numbers = [number(s, i, before).replace("\t", part) for i in range(1, len(sentence) + 1)]
        rows.append("".join(f"{n}{part}{w}{part}{t}\n" for n, (w, t) in zip(numbers, sentence)))
    assert found(write(tmp_path / "a.tsv", "\n".join(rows))) == (ENTITIES, {"index_column": 1})


@pytest.mark.parametrize("wrong", ["PER", "tag", "B", "0", "-PER"])
def test_few_wrong_tags_do_not_make_labels_of_all_others(tmp_path: Path, wrong: str):
    path = write(tmp_path / "a.conll", make_columns(sentences=[*SENTENCES * 30, [("Bo", wrong), ("ran", "O")]]))
    annotations, findings = read(path, "conll", skip_bad=True)
    assert [covered(annotation) for annotation in annotations] == ENTITIES * 30
    assert findings.counts == {"H132": 1}
    few = write(tmp_path / "b.conll", make_columns(sentences=[*SENTENCES, [("Bo", wrong), ("ran", "O")]]))
    with pytest.raises(BertHeadsError) as info:
        read(few, "conll")
    assert info.value.code == "H132"


@pytest.mark.parametrize("wrong", ["S-PER", "E-PER", "U-PER", "L-PER"])
def test_few_tags_of_a_closed_scheme_do_not_break_the_entities_of_bio(tmp_path: Path, wrong: str):
    path = write(tmp_path / "a.conll", make_columns(sentences=[*SENTENCES * 5, [("Bo", wrong), ("ran", "O")]]))
    annotations, findings = read(path, skip_bad=True)
    assert [covered(annotation) for annotation in annotations] == ENTITIES * 5
    assert findings.counts == {"H132": 1}


def test_last_column_without_entities_is_asked_about_where_others_have_some(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "Uni\tB-ORG\tO\nKiel\tI-ORG\tO\n")
    with pytest.raises(BertHeadsError, match="column 3.*in 2.*--label-column") as info:
        read(path, "conll")
    assert info.value.code == "H134"
    assert found(path, "conll", label_column="2") == ([[("Uni Kiel", "ORG")]], {})
    assert found(path, "conll", label_column="3") == ([[]], {})


@pytest.mark.parametrize("column", ["3", "-3"])
def test_column_behind_the_last_one_is_refused(tmp_path: Path, column: str):
    path = write(tmp_path / "a.conll", make_columns())
    for options in ({"label_column": column}, {"text_column": column}):
        with pytest.raises(BertHeadsError, match="column 3.*up to 2") as info:
            read(path, "conll", skip_bad=True, **options)
        assert info.value.code == "H145"


def test_one_of_two_tag_columns_is_chosen_and_the_other_named(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "Uni\tB-ORG\tO\nKiel\tI-ORG\tB-LOC\n")
    annotations, findings = read(path)
    assert covered(annotations[0]) == [("Kiel", "LOC")]
    assert [case.detail for case in findings.cases["tag_columns"]] == ["column 3, not 2"]
    for column in ("2", "-2"):
        assert found(path, label_column=column) == ([[("Uni Kiel", "ORG")]], {})


COMMENTS = ["# x", "#", "# a b c", "#\ttext", "# text = Oslo B-LOC is", "# O\tx y"]


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize("at", [0, 1, 4, 7])
@pytest.mark.parametrize("part", ["\t", " "])
def test_comments_anywhere_are_counted_and_left_out(tmp_path: Path, comment: str, at: int, part: str):
    if part == " " and comment.endswith("is") and at == 7:
        comment = "# 1"
    lines = make_columns(part=part).split("\n")
    path = write(tmp_path / "a.conll", "\n".join([*lines[:at], comment, *lines[at:]]))
    assert found(path) == (ENTITIES, {"comment_lines": 1})


@pytest.mark.parametrize("word", ["#", "#topic"])
def test_number_sign_with_a_tag_is_a_word(tmp_path: Path, word: str):
    path = write(tmp_path / "a.conll", f"{word}\tB-X\n{word}\tO\n\n# note\n{word}\tO\nb\tO\n")
    annotations, findings = read(path)
    assert [words(annotation) for annotation in annotations] == [[word, word], [word, "b"]]
    assert findings.counts == {"comment_lines": 1}


HIPE = (
    "TOKEN\tNE-COARSE-LIT\tNE-FINE-LIT\tMISC\n# id = x\nAnna\tB-pers\tB-pers.ind\tNoSpaceAfter\n.\tO\tO\t_\n\n"
    "TOKEN\tNE-COARSE-LIT\tNE-FINE-LIT\tMISC\n# id = y\nOslo\tB-loc\tO\t_\n"
)


def test_header_names_the_columns_and_is_skipped_wherever_it_stands(tmp_path: Path):
    path = write(tmp_path / "a.tsv", HIPE)
    expected = [[("Anna", "pers")], [("Oslo", "loc")]]
    assert found(path) == (expected, {"header_lines": 2, "comment_lines": 2, "tag_columns": 1})
    for column in ("NE-COARSE-LIT", "2"):
        assert found(path, label_column=column)[0] == expected
    assert found(path, label_column="NE-FINE-LIT")[0] == [[("Anna", "pers.ind")], []]
    with pytest.raises(BertHeadsError, match="NE-FINE-LIT") as info:
        read(path, "conll", label_column="NE-FINE")
    assert info.value.code == "H145"


def test_conllu_and_its_named_columns(tmp_path: Path):
    ids = [("1-2", "im", "_"), ("1", "in", "O"), ("2", "dem", "O"), ("3", "Oslo", "B-LOC"), ("3.1", "x", "_")]
    rows = [f"{i}\t{word}\t_\t_\t_\t_\t_\t_\t{tag}\t_\n" for i, word, tag in ids]
    path = write(tmp_path / "a.conllu", "# text = im Oslo\n" + "".join(rows))
    expected = {"comment_lines": 1, "range_lines": 2, "index_column": 1}
    assert found(path) == found(path, label_column="DEPS") == ([[("Oslo", "LOC")]], expected)
    named = "# global.columns = ID FORM X:NE MISC\n# x\n1\tOslo\tB-LOC\t_\n2\tran\tO\t_\n"
    path = write(tmp_path / "a.conllup", named)
    assert found(path, label_column="X:NE")[0] == [[("Oslo", "LOC")]]


def test_what_all_words_have_in_common_is_taken_off(tmp_path: Path):
    path = write(tmp_path / "a.conll", "be-x:Anna B-PER\nbe-x:Lee I-PER\nbe-x:en:x O\n\nbe-x:: O\nbe-x:runs O\n")
    annotations, findings = read(path)
    assert [words(annotation) for annotation in annotations] == [["Anna", "Lee", "en:x"], [":", "runs"]]
    assert findings.counts == {"word_affixes": 1}
    # Numbers are no words with their position behind them, unless those of the others are.
    path = write(tmp_path / "b.conll", "10 O\n20 O\n30 B-X\n\n好0 O\n")
    assert not read(path)[1].counts
    path = write(tmp_path / "b.conll", "科0 O\n技1 O\n10 B-X\n\n好0 O\n")
    assert read(path)[0][0].text == "科技1"
    path = write(tmp_path / "c.conll", "科0 O\n技1 O\n北0 B-X\n京1 I-X\n\n好0 O\n")
    annotations, findings = read(path)
    assert [annotation.text for annotation in annotations] == ["科技北京", "好"]
    path = write(tmp_path / "d.conll", "en:Anna B-PER\nLee I-PER\nen:x O\n")
    assert words(read(path)[0][0]) == ["en:Anna", "Lee", "en:x"]


def test_very_long_sentence_is_told(tmp_path: Path):
    path = write(tmp_path / "a.conll", "a\tO\n" * 1000)
    assert not read(path)[1].counts
    path = write(tmp_path / "b.conll", "a\tB-X\n" * 28_012)
    annotations, findings = read(path)
    assert len(annotations) == 1 and findings.counts == {"long_sentence": 1}
    assert findings.cases["long_sentence"][0].detail == "28,012 words"


# Format, a good line, bad ones, and what parts them.
LINES = [
    ("labelled-lines", b"some text {n}\t{label}", [b"one cell", b"a\tb\tc", b"\xff\tx", b"\tx"], b""),
    ("labelled-lines", b"{n} some text {i}", [b"{", b"NUM:date", b"[broken", b"\xff\xfa", b"x y z"], b""),
    ("labelled-lines", b"NUM:x{label} text {i}", [b"NUM:date", b"word word", b"1234567 x"], b""),
    ("csv", b"text {n},{label}", [b"a", b"a,b,c", b'"open,x', b'"a"b,x', b"\xff,x", b",x"], b""),
    ("tsv", b"text {n}\t{label}", [b"a", b"a\tb\tc", b"\xff\tx", b"\tx"], b""),
    ("fasttext", b"__label__{label} text", [b"__label__x", b"\xff"], b""),
    ("conll", b"word{n}\tB-{label}", [b"word", b"a\tb\tc", b"a\tQ-X", b"\xff\tO", b"a\tX"], b"\n"),
    ("spacy-json", b'{"text": "a {n}", "cats": {"{label}": 1}}', [b"{", b"[]", b'{"text": 1}', b"\xff", b"x"], b""),
    ("prodigy", b'{"text": "a {n}", "label": "{label}"}', [b"{", b"[]", b'{"text": 1}', b"\xff", b"x"], b""),
    ("doccano", b'{"text": "a {n}", "label": ["{label}"]}', [b"{", b"[]", b'{"text": 1}', b"\xff", b"x"], b""),
    ("cluener", b'{"text": "a", "label": {"{label}": {"a": [[0, 0]]}}}', [b"{", b"[]", b'{"text": 1}', b"\xff"], b""),
    ("label-studio", b'{"data": {"text": "a"}, "annotations": [{}]}', [b"{", b"1", b"x", b'{"a": 1}'], b""),
    ("token-lines", b'{"tokens": ["a"], "tags": ["B-{label}"]}', [b"{", b"[]", b'{"tokens": 1}', b"\xff", b"x"], b""),
]


@pytest.mark.parametrize("format, good, bad, gap", LINES)
@pytest.mark.parametrize("place", [0, 7, 30])
def test_reading_goes_on_behind_a_bad_line_of_every_format(tmp_path: Path, format: str, good, bad, gap, place: int):
    fills = [{b"{n}": b"%d" % (n % 5), b"{i}": b"%d" % n, b"{label}": b"xy"[n % 2 : n % 2 + 1]} for n in range(30)]
    lines = [reduce(lambda line, mark: line.replace(mark, fill[mark]), fill, good) for fill in fills]
    for wrong in bad:
        head = [b"text" + good[8:9] + b"label"] if format in ("csv", "tsv") else []
        content = [*head, *lines[:place], wrong, *lines[place:]]
        path = write(tmp_path / "a", b"".join(line + b"\n" + gap for line in content))
        annotations, findings = read(path, format, skip_bad=True)
        n_bad = sum(n for kind, n in findings.counts.items() if kind.startswith("H"))
        expected = 0 if format == "label-studio" else 30
        assert (len(annotations), n_bad) == (expected, 1), wrong
        if format == "label-studio":
            assert findings.counts["no_annotation"] == 30


def test_first_line_does_not_decide_for_all_others(tmp_path: Path):
    good = "".join(f"text {n}\t{'ab'[n % 2]}\n" for n in range(59))
    annotations, findings = read(write(tmp_path / "a.tsv", "one cell\n" + good), skip_bad=True)
    assert len(annotations) == 59 and findings.counts == {"H130": 1}
    good = "".join(f"word{n}\tB-X\n\n" for n in range(59))
    annotations, findings = read(write(tmp_path / "a.conll", "word\n\n" + good), skip_bad=True)
    assert len(annotations) == 59 and findings.counts == {"H130": 1}
    with pytest.raises(BertHeadsError) as info:
        run(tmp_path / "a.conll", tmp_path / "out")
    assert (info.value.code, info.value.line) == ("H130", 1)


@pytest.mark.parametrize("record", [{"foo": 1, "bar": [2]}, {"content": "a", "annotation": []}])
def test_json_of_other_tools_is_named_by_its_keys(tmp_path: Path, record):
    for name in ("a.json", "a.jsonl", "a.txt"):
        with pytest.raises(BertHeadsError) as info:
            read(write(tmp_path / name, json.dumps(record) + "\n"))
        assert info.value.code == "H125"
        assert all(repr(key) in str(info.value) for key in record)
