"""Folders of `seq.in`, `seq.out` and `label` (words, slots and intents, as of SNIPS and ATIS) -> annotations."""

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation
from ..findings import Findings, Where
from .conll import Sentence, annotate, needs_spaces
from .labels import LabelColumn
from .lines import decode, iter_lines, read_head
from .options import AUTO, ReadOptions
from .tag_spans import SCHEME_NAMES, find_scheme

WORDS, TAGS, LABELS = "seq.in", "seq.out", "label"


class TriplesConverter:
    """Reads a folder of three files with a line for each text: its words, their tags, and its label. The file of
    labels may be missing. The name of the file of words stands for the folder as well."""

    name = "triples"
    suffixes: Tuple[str, ...] = (WORDS,)

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by the names of the files.

        path (Path): A folder, or the file of words in it.
        head (bytes): Not looked at.
        RETURNS (bool): Whether the files of words and tags are there.
        """
        folder = _folder(path)
        return path.name == WORDS or (os.path.isdir(path) and (folder / WORDS).is_file() and (folder / TAGS).is_file())

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a folder.

        path (Path): The folder, or the file of words in it. All are read twice.
        findings (Findings): Takes bad lines, and decisions about good ones. Records count for `path`.
        options (ReadOptions): Scheme, label file, and the language, by which words are joined.
        YIELDS (Annotation): One for each line.
        RAISES (BertHeadsError): H101 if a file is missing; H132 for tags of no scheme; H142 for files that do not fit
            together.
        """
        folder = _folder(path)
        scheme = options.scheme
        if scheme == AUTO:
            scheme = find_scheme(_decode_tags(folder / TAGS))
            if scheme not in SCHEME_NAMES:
                raise BertHeadsError("H132", path=folder / TAGS, found=repr(scheme), column="'tags'")
        has_labels = (folder / LABELS).is_file()
        column: Optional[LabelColumn] = None
        if has_labels:
            cells = (raw.decode("utf8", "replace").strip() for _, raw in iter_lines(folder / LABELS, progress=False))
            column = LabelColumn(filter(None, cells), replace(options, kind="single"), folder / LABELS, "label")
        cats: Dict[Where, Dict[str, float]] = {}
        sentences = _read_sentences(folder, path, column, cats, findings)
        with_spaces = needs_spaces(read_head(folder / WORDS), options)
        for annotation in annotate(sentences, scheme, with_spaces, findings):
            # `annotate` may leave sentences out; their categories go as well.
            found = cats.pop(annotation.where, {})
            cats.clear()
            yield replace(annotation, cats=found, exclusive=bool(found))


def _read_sentences(
    folder: Path,
    path: Path,
    column: Optional[LabelColumn],
    cats: Dict[Where, Dict[str, float]],
    findings: Findings,
) -> Iterator[Sentence]:
    files = [folder / WORDS, folder / TAGS, *([folder / LABELS] if column is not None else [])]
    streams = [iter_lines(file, progress=file is files[0]) for file in files]
    for number, rows in enumerate(itertools.zip_longest(*streams), 1):
        ended = [file.name for file, row in zip(files, rows) if row is None]
        if ended:
            where = Where(next(file for file, row in zip(files, rows) if row is not None), number)
            expected = f"the end of the file, as {' and '.join(ended)} end after line {number - 1}"
            findings.bad(where.error("H142", "another line", expected=expected))
            return
        if not any(raw.strip() for _, raw in rows):
            continue
        findings.n_records[path] += 1
        where = Where(files[0], number)
        try:
            lines = [decode(raw, Where(file, number)) for file, (_, raw) in zip(files, rows)]
            words, tags = (_split(rows[index][1]) for index in (0, 1))
            if len(words) != len(tags) or not words:
                raise Where(files[1], number).error("H142", f"{len(tags)}", expected=f"tags for {len(words)} words")
            if column is not None:
                label = lines[2].strip()
                if not label:
                    raise Where(files[2], number).error("H142", "a blank line", expected="a label")
                cats[where] = column.read(label, where, findings)
        except BertHeadsError as error:
            findings.bad(error)
            continue
        yield Sentence(where, words, tags)


def _decode_tags(path: Path) -> Iterator[List[str]]:
    for _, raw in iter_lines(path, progress=False):
        yield raw.decode("utf8", "replace").split()


def _split(raw: bytes) -> List[str]:
    # Bytes are split at ASCII white space only: a no-break space is part of a word.
    return raw.decode("utf8").split() if raw.isascii() else [word.decode("utf8") for word in raw.split()]


def _folder(path: Path) -> Path:
    return path if os.path.isdir(path) else path.parent
