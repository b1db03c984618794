"""The formats of annotation files: what a reader is, which there are, and which one a file needs."""

import os
from pathlib import Path
from typing import Any, Dict, Iterator, Protocol, Sequence, Tuple

from ...errors import BertHeadsError, NothingAnnotatedError
from ..annotations import Annotation
from ..findings import Findings
from .brat import BratConverter
from .cluener import CluenerConverter
from .cmeee import CmeeeConverter
from .columns import looks_tagged, most_frequent_tags
from .conll import ColumnsConverter
from .doccano import DoccanoConverter
from .fasttext import FastTextConverter
from .hugging_face import DatasetsConverter
from .label_studio import LabelStudioConverter
from .labelled_lines import LinesConverter
from .lines import head_values, is_text, most, read_head
from .offsets import show
from .opennlp import OpenNlpConverter
from .options import AUTO, ReadOptions
from .prodigy import ProdigyConverter
from .spacy_files import DocBinConverter, SpacyJsonConverter
from .tables import TableConverter
from .token_lines import TokenLinesConverter
from .token_spans import TokenSpansConverter
from .triples import TriplesConverter


class Converter(Protocol):
    """Reads the files of one format.

    name (str): What the format is called in `--format`.
    suffixes (Tuple[str, ...]): Endings of its file names, for files whose content shows no format.
    """

    name: str
    suffixes: Tuple[str, ...]

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): The file or folder.
        head (bytes): The beginning of the file, unpacked, without a byte order mark. Empty for a folder.
        RETURNS (bool): Whether this is a file of the format.
        """
        ...

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): The file.
        findings (Findings): Takes bad records, the number of all records, and decisions about good ones.
        options (ReadOptions): What the file does not say about itself.
        YIELDS (Annotation): One for each record that says something about a text, with its place.
        """
        ...


# Every format there is. No file may satisfy `sniff` of two of them.
CONVERTERS: Dict[str, Converter] = {
    converter.name: converter
    for converter in (
        ProdigyConverter(),
        DoccanoConverter(),
        LabelStudioConverter(),
        CluenerConverter(),
        SpacyJsonConverter(),
        DocBinConverter(),
        DatasetsConverter(),
        ColumnsConverter(),
        TokenLinesConverter(),
        TokenSpansConverter(),
        BratConverter(),
        CmeeeConverter(),
        TriplesConverter(),
        FastTextConverter(),
        OpenNlpConverter(),
        LinesConverter(),
        TableConverter("csv"),
        TableConverter("tsv"),
    )
}


def find_converter(path: Path, format: str) -> Converter:
    """Choose the reader of a file.

    path (Path): The file.
    format (str): Key of CONVERTERS, or "auto" to look at the content, then at the name.
    RETURNS (Converter): The reader.
    RAISES (BertHeadsError): H101 to H103 if the file cannot be read; H117 if it is empty; H118 for an
        unknown format; H125 if no format fits; H143 if several do; H154 for
        tagged words whose tags are of no scheme.
    """
    if format != AUTO and format not in CONVERTERS:
        raise BertHeadsError("H118", found=repr(format), expected=", ".join([AUTO, *CONVERTERS]))
    head = b"" if os.path.isdir(path) else read_head(path)
    if format != AUTO:
        return CONVERTERS[format]
    fitting = [converter for converter in CONVERTERS.values() if converter.sniff(path, head)]
    if len(fitting) > 1:
        found = " or ".join(converter.name for converter in fitting)
        raise BertHeadsError("H143", path=path, found=found)
    if fitting:
        return fitting[0]
    if os.path.isdir(path):
        raise BertHeadsError("H102", path=path, found=path)
    values = head_values(head)
    if not values and is_text(head) and looks_tagged(head):
        raise BertHeadsError("H154", path=path, found=most_frequent_tags(head))
    # A broken or empty file shows no format; the reader that its name stands for says what is wrong with it.
    # Texts that say nothing else are tasks of Prodigy's that nobody has answered.
    for converter in CONVERTERS.values():
        if path.name.lower().endswith(converter.suffixes):
            if not values or (converter.name == "prodigy" and most(values, _is_bare_text)):
                return converter
    if not head:
        raise NothingAnnotatedError("H117", path=path, found="an empty file", n_records=0)
    found = _describe(values) if values else show(head[:40])
    raise BertHeadsError("H125", path=path, found=found, expected=", ".join(CONVERTERS))


def _is_bare_text(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str)


def _describe(values: Sequence[Any]) -> str:
    """What JSON values are, for a message."""
    first = values[0]
    if isinstance(first, dict):
        return f"JSON objects with the keys {show(list(first)[:20], 200)}"
    return f"JSON values such as {show(first)}"
