"""`bert-heads vocab`: a vocabulary from a whole corpus."""

from pathlib import Path

import spacy
from spacy.tokens import DocBin
from tokenizers import Tokenizer
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.layers.wordpiece import bert_tokenizer
from spacy_bert_heads.training.vocabulary import read_texts

TEXTS = ["where is the parcel", "the parcel is late", "Übermorgen"]


def run(*arguments: str) -> "tuple[int, str]":
    result = CliRunner().invoke(app, ["vocab", *arguments])
    return result.exit_code, result.output


def make_corpus(path: Path) -> Path:
    nlp = spacy.blank("en")
    DocBin(docs=[nlp.make_doc(text) for text in TEXTS]).to_disk(path)
    return path


def test_vocabulary_is_one_that_an_encoder_from_scratch_takes(tmp_path: Path) -> None:
    corpus, output = make_corpus(tmp_path / "train.spacy"), tmp_path / "deep" / "vocab.json"
    status, shown = run(str(corpus), str(output), "--size", "60")
    assert status == 0, shown
    learned = Tokenizer.from_file(str(output))
    assert f"{learned.get_vocab_size()} wordpieces learned from 3 texts" in shown
    assert learned.get_vocab_size() <= 60
    tokenizer = bert_tokenizer([], vocab=output, vocab_size=0, lowercase=True, max_length=32)
    assert "[UNK]" not in tokenizer.tokenize("the PARCEL ubermorgen")
    assert [path.name for path in output.parent.iterdir()] == ["vocab.json"]


def test_cased_keeps_upper_case_apart(tmp_path: Path) -> None:
    output = tmp_path / "vocab.json"
    assert run(str(make_corpus(tmp_path / "train.spacy")), str(output), "--cased")[0] == 0
    assert "Ü" in Tokenizer.from_file(str(output)).get_vocab()


def test_folders_and_jsonl_are_read(tmp_path: Path) -> None:
    make_corpus(tmp_path / "a.spacy")
    (tmp_path / "b.jsonl").write_text('{"text": "one more"}\n\n')
    assert list(read_texts(tmp_path)) == [*TEXTS, "one more"]


def test_mistakes_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    output = tmp_path / "vocab.json"
    (tmp_path / "broken.spacy").write_bytes(b"not a DocBin")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "folder").mkdir()
    for name, code in [
        ("missing.spacy", "H101"),
        ("folder", "H101"),
        ("broken.spacy", "H315"),
        ("broken.jsonl", "H107"),
        ("empty.jsonl", "H207"),
    ]:
        status, shown = run(str(tmp_path / name), str(output))
        assert status == 1 and f"[{code}]" in shown, (name, shown)
    assert not output.exists()
