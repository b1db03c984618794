"""Data sets of Hugging Face, as `datasets` writes them."""

from pathlib import Path

import pytest
import srsly

from spacy_bert_heads.errors import BertHeadsError

from .reading import chosen, covered, read, words, write

datasets = pytest.importorskip("datasets")
ListOf = getattr(datasets, "List", datasets.Sequence)
TAGS = datasets.ClassLabel(names=["O", "B-ORG", "I-ORG", "B-LOC"])
WAYS = ("folder", "parquet", "arrow")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def save(folder: Path, way: str, columns, **features) -> Path:
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)
    if way == "parquet":
        data.to_parquet(str(folder / "a.parquet"))
        return folder / "a.parquet"
    data.save_to_disk(str(folder / "a"))
    return folder / "a" if way == "folder" else next((folder / "a").glob("*.arrow"))


@pytest.mark.parametrize("way", WAYS)
def test_tokens_and_tags(tmp_path: Path, way: str):
    columns = {"tokens": [["Apple", "Inc", "here"], ["Paris"]], "ner_tags": [[1, 2, 0], [3]]}
    string = datasets.Value("string")
    path = save(tmp_path, way, columns, tokens=ListOf(string), ner_tags=ListOf(TAGS))
    (one, other), findings = read(path)
    assert (covered(one), covered(other)) == ([("Apple Inc", "ORG")], [("Paris", "LOC")])
    assert words(one) == ["Apple", "Inc", "here"] and one.complete
    assert findings.n_records[path] == 2 and not findings.counts


@pytest.mark.parametrize("way", WAYS)
def test_text_and_classes(tmp_path: Path, way: str):
    columns = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    path = save(
        tmp_path, way, columns, text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos", "x"])
    )
    (one, other), findings = read(path)
    assert one.cats == {"neg": 0.0, "pos": 1.0, "x": 0.0} and one.exclusive
    assert chosen(other) == ["neg"]
    # -1 is Hugging Face's word for no label.
    assert findings.counts == {"no_label": 1}


def test_lists_of_classes_and_scores_of_pairs(tmp_path: Path):
    names = ListOf(datasets.ClassLabel(names=["joy", "fear", "love"]))
    path = save(
        tmp_path / "m",
        "folder",
        {"text": ["a", "b"], "labels": [[0, 2], []]},
        text=datasets.Value("string"),
        labels=names,
    )
    (one, none), _ = read(path)
    assert chosen(one) == ["joy", "love"] and set(none.cats.values()) == {0.0}
    path = (
        save(tmp_path / "s", "parquet", {"sentence1": ["a"], "sentence2": ["b"], "score": [3.0]})
        if (tmp_path / "s").mkdir() is None
        else None
    )
    (pair,), _ = read(path)
    assert (pair.text, pair.second_start, pair.cats) == ("a b", 2, {"score": 3.0})


def test_tags_as_strings_and_other_columns(tmp_path: Path):
    path = save(tmp_path, "folder", {"w": [["Apple"]], "t": [["B-ORG"]], "tokens": [["x"]]})
    with pytest.raises(BertHeadsError):
        read(path)
    path = save(tmp_path / "b", "folder", {"tokens": [["Apple", "x"]], "t": [["B-ORG", "O"]]})
    assert covered(read(path, label_column="t")[0][0]) == [("Apple", "ORG")]


def test_splits_are_to_be_named(tmp_path: Path):
    data = datasets.Dataset.from_dict({"text": ["a"], "label": ["x"]})
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(BertHeadsError) as info:
        read(tmp_path / "d")
    assert (info.value.code, info.value.found) == ("H137", "train, test")
    assert len(read(tmp_path / "d" / "train")[0]) == 1


def test_broken_files_are_refused(tmp_path: Path):
    path = save(tmp_path, "parquet", {"text": ["a"], "label": ["x"]})
    whole = path.read_bytes()
    for content, code in [(whole[: len(whole) // 2], "H103"), (b"PAR1", "H103"), (b"\xff\xff\xff\xff\0", "H103")]:
        with pytest.raises(BertHeadsError) as info:
            read(write(tmp_path / "b.parquet", content))
        assert info.value.code == code
    folder = save(tmp_path, "folder", {"text": ["a"], "label": ["x"]})
    next(folder.glob("*.arrow")).unlink()
    with pytest.raises(BertHeadsError, match="H101"):
        read(folder)
    write(folder / "state.json", "{")
    with pytest.raises(BertHeadsError, match="H103"):
        read(folder)


def test_words_without_their_tags_are_named(tmp_path: Path):
    path = save(tmp_path, "folder", {"tokens": [["a", "b"], ["c"]], "ner_tags": [["O"], ["B-X"]]})
    with pytest.raises(BertHeadsError) as info:
        read(path)
    assert (info.value.code, info.value.line) == ("H136", 1)
    assert len(read(path, skip_bad=True)[0]) == 1


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save(tmp_path, "parquet", {"text": ["a"], "label": ["x"]})
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(BertHeadsError, match=r"spacy-bert-heads\[datasets\]"):
        read(path)


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", "..\\a.arrow", "C:a.arrow", "", "nul", 5])
def test_no_file_outside_the_folder_is_read(tmp_path: Path, name: object):
    path = save(tmp_path, "folder", {"text": ["a"], "label": ["x"]})
    next(path.glob("*.arrow")).rename(tmp_path / "secret.arrow")
    state = srsly.read_json(path / "state.json")
    srsly.write_json(path / "state.json", {**state, "_data_files": [{"filename": name}]})
    with pytest.raises(BertHeadsError, match="H103.*which is no file in it"):
        read(path)
