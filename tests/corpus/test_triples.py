"""Folders of seq.in, seq.out and label."""

from pathlib import Path

import pytest

from spacy_bert_heads.errors import BertHeadsError

from .reading import chosen, covered, read, words, write

FILES = {"seq.in": "add  it to my list \nplay x\n", "seq.out": "O O O O B-list \nO B-song \n", "label": "Add\nPlay\n"}


def make_folder(folder: Path, **changes) -> Path:
    for name, content in {**FILES, **{key.replace("_", "."): value for key, value in changes.items()}}.items():
        if content is not None:
            write(folder / name, content)
    return folder


@pytest.mark.parametrize("by_file", [True, False])
def test_slots_and_intents_of_a_line_are_one_annotation(tmp_path: Path, by_file: bool):
    folder = make_folder(tmp_path)
    path = folder / "seq.in" if by_file else folder
    (add, play), findings = read(path)
    assert (add.text, covered(add), chosen(add)) == ("add it to my list", [("list", "list")], ["Add"])
    assert play.cats == {"Add": 0.0, "Play": 1.0} and play.exclusive and play.complete
    assert words(play) == ["play", "x"] and play.where.line == 2
    assert findings.n_records[path] == 2 and not findings.counts


def test_intents_may_be_missing(tmp_path: Path):
    (add, _), _ = read(make_folder(tmp_path, label=None))
    assert add.cats == {} and covered(add) == [("list", "list")]


@pytest.mark.parametrize(
    "changes, code, line",
    [
        ({"seq_out": "O O O O\nO B-song\n"}, "H142", 1),
        ({"seq_out": "O O O O B-list\n"}, "H142", 2),
        ({"label": "Add\nPlay\nPlay\n"}, "H142", 3),
        ({"label": "Add\n\n"}, "H142", 2),
        ({"seq_in": b"add it to my \xf0\nplay x\n"}, "H104", 1),
        ({"seq_out": "O O O O B-list\nO song\n"}, "H132", None),
    ],
)
def test_files_that_do_not_fit_together_are_named(tmp_path: Path, changes, code: str, line):
    with pytest.raises(BertHeadsError) as info:
        read(make_folder(tmp_path, **changes))
    assert (info.value.code, info.value.line) == (code, line)


def test_bad_lines_can_be_left_out_and_keep_the_others_together(tmp_path: Path):
    folder = make_folder(tmp_path, seq_out="O O\nO B-song\n")
    (play,), findings = read(folder, skip_bad=True)
    assert (play.text, chosen(play)) == ("play x", ["Play"])
    assert findings.counts == {"H142": 1}


def test_missing_tags_are_named(tmp_path: Path):
    with pytest.raises(BertHeadsError) as info:
        read(make_folder(tmp_path, seq_out=None) / "seq.in")
    assert (info.value.code, Path(info.value.path).name) == ("H101", "seq.out")
