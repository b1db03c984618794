"""`.spacy` files: written one or several to a corpus, read one after the other."""

import zlib
from pathlib import Path
from typing import Iterator, List

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from srsly.msgpack import Packer

from ..errors import BertHeadsError
from ..files import Staging, make_folder, write_errors, write_new

# A `.spacy` file holds at most this many Docs and about as many tokens; beyond, it is a folder of such files.
# spaCy reads one file at a time, so this is also what training has in memory of a streamed corpus.
SHARD_DOCS = 50_000
SHARD_TOKENS = 1_000_000
# What a `.spacy` file of ours holds of each token, beside its word and the space behind it.
ATTRIBUTES = ("ENT_IOB", "ENT_TYPE")
# Bytes that tell a `.spacy` file, which is packed by zlib, from others.
HEAD = 1024


class DocWriter:
    """Writes Docs to a `.spacy` file, or to a folder `NAME.spacy` of several when there are many.

    The same path works for spaCy either way. Of the Docs it keeps what an Annotation can say: words and spaces,
    entities, categories, span groups and user data.

    staging (Staging): Takes the file.
    path (Path): The file, which ends in `.spacy`.
    """

    def __init__(self, staging: Staging, path: Path) -> None:
        self.path = path
        self.n_shards = 0
        self._temporary = staging.reserve(path)
        # `DocBin.add` would pack user data by a function that looks for extensions among all installed packages, each
        # time anew: 0.2 ms for each Doc, which is most of the time of a conversion.
        self._pack = Packer(use_bin_type=True).pack
        self._start_shard()

    def add(self, doc: Doc) -> None:
        """Write a Doc.

        doc (Doc): The Doc. It can be released afterwards.
        RAISES (BertHeadsError): H123 if a full file cannot be written.
        """
        if len(self._shard) >= SHARD_DOCS or self._n_tokens >= SHARD_TOKENS:
            self._write_shard()
        self._shard.add(doc)
        self._shard.user_data.append(self._pack(doc.user_data))
        self._n_tokens += len(doc)

    def close(self) -> None:
        """Write what is left.

        RAISES (BertHeadsError): H123 if it cannot be written.
        """
        if self.n_shards:
            self._write_shard()
        else:
            self._write_to(self._temporary)

    def _write_shard(self) -> None:
        with write_errors(self.path):
            make_folder(self._temporary, self.path)
        self._write_to(self._temporary / f"{self.n_shards:03}.spacy")
        self.n_shards += 1
        self._start_shard()

    def _write_to(self, temporary: Path) -> None:
        self._shard.store_user_data = True
        write_new(temporary, self._shard.to_bytes(), self.path)

    def _start_shard(self) -> None:
        self._shard = DocBin(attrs=ATTRIBUTES)
        self._n_tokens = 0


def read_doc_bins(path: Path) -> Iterator[DocBin]:
    """Read annotated texts, one file at a time.

    path (Path): A `.spacy` file, or a folder of them.
    YIELDS (DocBin): One for each file.
    RAISES (BertHeadsError): H101 if there is nothing, H315 if it cannot be read.
    """
    for file in _find_files(path):
        try:
            doc_bin = DocBin().from_disk(file)
        except Exception as error:  # zlib, msgpack and numpy each have their own
            raise BertHeadsError("H315", path=file, found=f"{type(error).__name__}: {error}") from error
        yield doc_bin


def read_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """YIELDS (Doc): The annotated texts themselves; see read_doc_bins."""
    for doc_bin in read_doc_bins(path):
        yield from doc_bin.get_docs(vocab)


def check_doc_bins(path: Path) -> None:
    """See that there are annotated texts, by the beginning of each file.

    path (Path): A `.spacy` file, or a folder of them.
    RAISES (BertHeadsError): H101 if there is nothing, H315 if a file is of another kind.
    """
    for file in _find_files(path):
        try:
            with file.open("rb") as stream:
                begun = zlib.decompressobj().decompress(stream.read(HEAD))
        except zlib.error as error:
            raise BertHeadsError("H315", path=file, found=f"zlib: {error}") from error
        if not begun:
            raise BertHeadsError("H315", path=file, found="an empty file")


def _find_files(path: Path) -> List[Path]:
    files = sorted(path.rglob("*.spacy")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise BertHeadsError("H101", path=path)
    return files
