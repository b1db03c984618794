"""WordPiece vocabularies from whole corpora, however large."""

from pathlib import Path
from typing import Iterator, NamedTuple

from spacy.vocab import Vocab

from ..corpus.doc_bins import read_docs
from ..corpus.findings import Findings
from ..corpus.readers.lines import read_json_objects, read_lines
from ..errors import BertHeadsError
from ..files import check_not_read, write_files
from ..layers.wordpiece import learn_wordpieces


class Learned(NamedTuple):
    """How many entries a vocabulary has, and from how many texts it was learned."""

    entries: int
    texts: int


def learn_vocabulary(corpus: Path, output: Path, *, size: int, lowercase: bool) -> Learned:
    """Learn a vocabulary and write it in the format of `tokenizers`.

    corpus (Path): A `.spacy` file, a `.jsonl` file whose lines have a "text", a `.txt` file with a text on each
        line, or a folder of `.spacy` and `.jsonl` files. One `.spacy` file at a time is in memory; others are read
        line by line.
    output (Path): Where to write it.
    size (int): Entries at most, special tokens counted.
    lowercase (bool): Whether to lower-case and strip accents; as in BertFromScratch.v1.
    RETURNS (Learned): Sizes.
    RAISES (BertHeadsError): H101 if there is no such file; H105 to H107 for a bad line; H207 if there is no text;
        H315 for a file that spaCy cannot read; H123 if it would be replaced.
    """
    check_not_read(output, [corpus])
    texts = _Counted(read_texts(corpus))
    tokenizer = learn_wordpieces(texts, vocab_size=size, lowercase=lowercase)
    write_files({output: tokenizer.to_str(pretty=True).encode("utf8")})
    return Learned(tokenizer.get_vocab_size(), texts.count)


class _Counted:
    def __init__(self, texts: Iterator[str]) -> None:
        self.texts = texts
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.count += 1
            yield text


def read_texts(corpus: Path) -> Iterator[str]:
    """YIELDS (str): The texts of a corpus; see learn_vocabulary."""
    if not corpus.exists():
        raise BertHeadsError("H101", path=corpus)
    files = [corpus]
    if corpus.is_dir():
        files = sorted(path for path in corpus.rglob("*") if path.suffix in (".spacy", ".jsonl"))
        if not files:
            raise BertHeadsError("H101", path=corpus)
    for path in files:
        if path.suffix == ".txt":
            yield from (line for _, line in read_lines(path, Findings(skip_bad=False)))
        else:
            yield from _read_jsonl(path) if path.suffix == ".jsonl" else _read_spacy(path)


def _read_spacy(path: Path) -> Iterator[str]:
    return (doc.text for doc in read_docs(path, Vocab()))


def _read_jsonl(path: Path) -> Iterator[str]:
    for where, record in read_json_objects(path, Findings(skip_bad=False)):
        text = record.get("text")
        if not isinstance(text, str):
            raise where.error("H107", repr(text))
        yield text
