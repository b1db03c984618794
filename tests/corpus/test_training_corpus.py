"""`spacy_bert_heads.Corpus.v1`: annotation files straight into training."""

from pathlib import Path

import pytest
import spacy
from spacy.training import Corpus
from spacy.util import load_config_from_str, registry

from spacy_bert_heads.corpus.splits import SPLITS
from spacy_bert_heads.corpus.training_corpus import build_corpus_v1
from spacy_bert_heads.errors import BertHeadsError

from .helpers import ALL_TRAIN, make_choice, make_span, run, write_jsonl


@pytest.fixture
def source(tmp_path: Path) -> Path:
    records = [make_choice("POS", text=f"Apple {i}", spans=[make_span(0, 5)]) for i in range(40)]
    records += [{"text": f"Apple {i}", "label": "NEWS"} for i in range(20)]
    return write_jsonl(tmp_path / "in.jsonl", *records)


def examples(corpus, nlp=None):
    return [example.to_dict() for example in corpus(nlp or spacy.blank("en"))]


def test_gives_what_spacys_reader_gives_of_converted_files(tmp_path: Path, source: Path):
    run(source, tmp_path / "all", split=ALL_TRAIN)
    assert examples(build_corpus_v1(source)) == examples(Corpus(tmp_path / "all" / "train.spacy"))
    run(source, tmp_path / "parts", seed=3)
    for name in SPLITS:
        ours = examples(build_corpus_v1(source, split=name, seed=3))
        assert ours == examples(Corpus(tmp_path / "parts" / f"{name}.spacy"))


def test_each_call_gives_the_same_and_another_tokenizer_other_tokens(source: Path):
    corpus = build_corpus_v1(source)
    nlp = spacy.blank("en")
    assert examples(corpus, nlp) == examples(corpus, nlp)
    # An epoch that is not read to its end does not shorten the next.
    next(iter(corpus(nlp)))
    assert len(examples(corpus, nlp)) == 40
    other = spacy.blank("en")
    other.tokenizer = spacy.util.registry.tokenizers.get("spacy.Tokenizer.v1")()(other)
    other.tokenizer.suffix_search = None
    assert len(examples(corpus, other)) == 40


def test_limit_length_and_augmenter_are_as_in_spacys_reader(tmp_path: Path, source: Path):
    assert len(examples(build_corpus_v1(source, limit=3))) == 3
    run(source, tmp_path / "all", split=ALL_TRAIN)
    theirs = Corpus(tmp_path / "all" / "train.spacy", max_length=3)
    assert examples(build_corpus_v1(source, max_length=3)) == examples(theirs)
    twice = build_corpus_v1(source, augmenter=lambda nlp, example: [example, example])
    assert len(examples(twice)) == 80


CONFIG = """
[train]
@readers = "spacy_bert_heads.Corpus.v1"
path = {path}
split = "train"
header = true
"""


def test_is_made_by_a_config(source: Path):
    config = load_config_from_str(CONFIG.format(path=f'"{source}"'))
    corpus = registry.resolve(config)["train"]
    assert 20 < len(examples(corpus)) < 40
    config = load_config_from_str(CONFIG.format(path=f'["{source}"]'))
    assert examples(registry.resolve(config)["train"]) == examples(corpus)


def test_mistakes_have_a_message(tmp_path: Path, source: Path):
    with source.open("a", encoding="utf8") as stream:
        stream.write("{broken\n")
    nlp = spacy.blank("en")
    with pytest.raises(BertHeadsError) as info:
        list(build_corpus_v1(source)(nlp))
    assert (info.value.code, info.value.path, info.value.line) == ("H105", source, 61)
    assert len(list(build_corpus_v1(source, skip_bad=True)(nlp))) == 40
    for code, settings in (
        ("H162", {"path": source, "skip_bad": True, "max_length": 1}),
        ("H101", {"path": tmp_path / "none.jsonl"}),
        ("H118", {"path": source, "format": "klingon"}),
    ):
        with pytest.raises(BertHeadsError) as info:
            list(build_corpus_v1(**settings)(nlp))
        assert info.value.code == code
    for code, settings in (("H163", {"path": None}), ("H164", {"path": source, "split": "training"})):
        with pytest.raises(BertHeadsError) as info:
            build_corpus_v1(**settings)
        assert info.value.code == code


def test_decisions_are_logged_once(source: Path, caplog: pytest.LogCaptureFixture):
    corpus = build_corpus_v1(source)
    nlp = spacy.blank("en")
    with caplog.at_level("INFO", logger="spacy.bert_heads.corpus"):
        for _ in range(2):
            list(corpus(nlp))
    assert sum("merged with an earlier record" in message for message in caplog.messages) == 1
