"""What the page about annotation formats says, tried with the commands."""

import re
from pathlib import Path
from typing import Dict, List, Sequence, Set

import pytest
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app

from .pages import BLOCK, DOCS

PAGE = (DOCS / "reference" / "formats.md").read_text(encoding="utf8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S))


def rows(section: str, number: int = 0) -> List[List[str]]:
    """The cells of a table of a section, its head left out."""
    table = re.findall(r"(?:^\|.+\|\n)+", SECTIONS[section], flags=re.M)[number]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]


def examples(section: str, language: str) -> str:
    return next(content for found, _, content in BLOCK.findall(SECTIONS[section]) if found == language)


def convert(*paths: Path, options: Sequence[str] = ()) -> Dict[str, Doc]:
    """The Docs of files, by their texts."""
    output = paths[0].parent / f"{paths[0].name}-corpus"
    result = CliRunner().invoke(app, ["convert", *map(str, paths), str(output), "--split", "1,0,0", *options])
    assert result.exit_code == 0, result.output
    return {doc.text: doc for doc in DocBin(store_user_data=True).from_disk(output / "train.spacy").get_docs(Vocab())}


def ents(doc: Doc) -> List[str]:
    return [f"{ent.text}/{ent.label_}" for ent in doc.ents]


def names(code: str, *command: str) -> Set[str]:
    """The formats that a command names when it is asked for another."""
    result = CliRunner().invoke(app, list(command))
    assert code in result.output, result.output
    return set(re.findall(r"[\w-]+", re.split(r"one of:?", result.output)[1].split(".")[0])) - {"auto"}


def test_the_tables_name_the_formats_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "answer": "accept"}\n')
    DocBin().to_disk(tmp_path / "a.spacy")
    table = rows("At a glance")
    reads = {name for row in table for name in re.findall(r"`([\w-]+)`", row[0])}
    writes = {name for row in table if row[2] == "yes" for name in re.findall(r"`([\w-]+)`", row[0])}
    assert reads == names("H118", "convert", str(tmp_path / "a.jsonl"), str(tmp_path / "out"), "--format", "none")
    assert writes == names("H167", "export", str(tmp_path / "a.spacy"), str(tmp_path / "out"), "--format", "none")


def test_prodigys_examples_become_what_the_page_says(tmp_path: Path) -> None:
    path = tmp_path / "prodigy.jsonl"
    lines = examples("Prodigy", "json").splitlines()
    path.write_text(lines[0] + "\n" + lines[3] + "\n", encoding="utf8")
    docs = convert(path)
    assert ents(docs["Apple opened in Paris."]) == ["Apple/ORG"]
    assert docs["Apple opened in Paris."][1].ent_iob_ == "O"
    assert docs["Great."].cats == {"POS": 1.0, "NEG": 0.0} and docs["Great."].user_data["exclusive"] is True
    path.write_text(lines[1] + "\n" + lines[2] + "\n", encoding="utf8")
    docs = convert(path)
    rejected = docs["Apple opened in Paris."].spans["incorrect_spans"]
    assert [(span.text, span.label_) for span in rejected] == [("Paris", "ORG")]
    assert not docs["Apple opened in Paris."].has_annotation("ENT_IOB")
    assert docs["Great."].cats == {"POSITIVE": 1.0}


def test_doccanos_examples_become_what_the_page_says(tmp_path: Path) -> None:
    path = tmp_path / "doccano.jsonl"
    lines = examples("doccano", "json").splitlines()
    for line, text, expected, cats in (
        (lines[0], "Apple opened in Paris.", ["Apple/ORG"], {}),
        (lines[1], "Apple opened in Paris.", ["Apple/ORG"], {}),
        (lines[2], "Great.", [], {"POS": 1.0}),
        (lines[3], "Fly to Paris", ["Paris/CITY"], {"flight": 1.0}),
    ):
        path.write_text(line + "\n", encoding="utf8")
        doc = convert(path)[text]
        assert ents(doc) == expected and doc.cats == cats


def test_spacy_jsons_and_clueners_examples_become_what_the_page_says(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(examples("spaCy JSON", "json"), encoding="utf8")
    doc = convert(path)["Apple opened in Paris."]
    assert ents(doc) == ["Apple/ORG"] and doc.cats == {"NEWS": 1.0}
    (example,) = re.findall(r"`(\{.*?\})`", SECTIONS["CLUENER"])
    path.write_text(example.replace("…", "彭小军来了") + "\n", encoding="utf8")
    assert ents(convert(path, options=["--lang", "zh"])["彭小军来了"]) == ["彭小军/name"]
    (example,) = re.findall(r"`(\{.*?\})`", SECTIONS["CMeEE"])
    path.write_text(example.replace("…", "房室结消融") + "\n", encoding="utf8")
    assert ents(convert(path, options=["--lang", "zh"])["房室结消融"]) == ["房室结/bod"]


def test_examples_of_words_and_marks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(examples("Token lines", "json"), encoding="utf8")
    assert ents(convert(path)["Anna left Paris"]) == ["Anna/PER", "Paris/LOC"]
    path.write_text(examples("Token spans", "json"), encoding="utf8")
    (doc,) = convert(path, options=["--spans-key", "sc"]).values()
    assert [f"{span.text}/{span.label_}" for span in doc.spans["sc"]] == ["Bank of New York/ORG", "New York/CITY"]
    path = tmp_path / "opennlp.txt"
    path.write_text(examples("OpenNLP", "text"), encoding="utf8")
    (doc,) = convert(path).values()
    assert ents(doc) == ["Anna Lee/person", "Paris/place"]
    path = tmp_path / "fasttext.txt"
    path.write_text(examples("fastText", "text"), encoding="utf8")
    docs = convert(path)
    assert docs["The match ended in a draw."].cats == {"politics": 0.0, "sports": 1.0}
    assert docs["The minister kicked off."].cats == {"politics": 1.0, "sports": 1.0}


@pytest.mark.parametrize("scheme, tags", [(row[0].strip("`"), row[1]) for row in rows("CoNLL")])
def test_schemes_are_found_and_read(tmp_path: Path, scheme: str, tags: str) -> None:
    single = {"bio": "B-X", "iob1": "I-X", "biluo": "U-X", "bioes": "S-X", "bmes": "S-X"}[scheme]
    longer = {"bio": "B I I", "iob1": "I I I", "biluo": "B I L", "bioes": "B I E", "bmes": "B M E"}[scheme].split()
    assert all(f"{tag[0]}-" in tags for tag in [single, *longer])
    lines = [f"a {single}", "b O", *(f"{word} {tag}-Y" for word, tag in zip("cde", longer))]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n\n", encoding="utf8")
    assert ents(convert(tmp_path / "a.txt")["a b c d e"]) == ["a/X", "c d e/Y"]
    assert ents(convert(tmp_path / "a.txt", options=["--scheme", scheme])["a b c d e"]) == ["a/X", "c d e/Y"]


def test_columns_are_found_by_the_names_in_the_table(tmp_path: Path) -> None:
    columns = {row[0]: re.findall(r"`([^`]+)`", row[1]) for row in rows("CSV and TSV")}
    tables = [(text, "label") for text in columns["text"]] + [("body", label) for label in columns["label"]]
    paths = [tmp_path / f"{number}.csv" for number in range(len(tables))]
    for path, (text, label) in zip(paths, tables):
        path.write_text(f"{text},{label}\nbody of {path.stem},A\nanother,B\n", encoding="utf8")
    docs = convert(*paths)
    for path, names_of_columns in zip(paths, tables):
        assert docs[f"body of {path.stem}"].cats == {"A": 1.0, "B": 0.0}, names_of_columns
    path = tmp_path / "pairs.csv"
    pairs = [name for name in columns["pair of sentences"] if not name.startswith("_")]
    path.write_text(f"{pairs[-2]},{pairs[-1]},score\nfirst,second,0.5\none,two,1.5\n", encoding="utf8")
    assert convert(path)["first second"].cats == {"score": 0.5}


OFF_TOKENS = [row[0].split("`")[1] for row in rows("What all formats have in common", 1)]


@pytest.mark.parametrize("off_tokens", OFF_TOKENS)
def test_spans_off_token_boundaries_are_settled_as_the_page_says(tmp_path: Path, off_tokens: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Paris rocks", "entities": [[0, 3, "X"]]}\n', encoding="utf8")
    command = ["convert", str(path), str(tmp_path / "out"), "--split", "1,0,0", "--off-tokens", off_tokens]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code == 1) == (off_tokens == "error")
    if off_tokens != "error":
        doc = convert(path, options=["--off-tokens", off_tokens])["Paris rocks"]
        expected = {"drop": [], "expand": ["Paris/X"], "split": ["Par/X"]}[off_tokens]
        assert ents(doc) == expected and (off_tokens != "drop" or doc[0].ent_iob == 0)
