"""Texts that nobody has annotated yet, and those that somebody has: what is to be asked about, and what is not."""

from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

from spacy.language import Language

from ..corpus.docs import check_words
from ..corpus.findings import Findings
from ..corpus.readers.formats import AUTO, find_converter
from ..corpus.readers.lines import read_json_objects, read_lines
from ..corpus.readers.options import ReadOptions
from ..corpus.readers.prodigy import ProdigyConverter
from ..errors import BertHeadsError
from .hashes import input_hash

ENDINGS = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz")

Record = Dict[str, Any]


def check_raw(source: Path) -> None:
    """RAISES (BertHeadsError): H166 for a file whose ending is not one of raw texts."""
    if not source.name.endswith(ENDINGS):
        raise BertHeadsError("H166", path=source, found=source.suffix or "no ending")


def read_raw_texts(source: Path, nlp: Language, findings: Findings) -> Iterator[Tuple[str, Record]]:
    """Stream texts, with the records that they are in.

    source (Path): A `.jsonl` file whose lines have a "text", or a `.txt` file of one text a line; plain or gzipped.
    nlp (Language): Whose tokenizer is to read them.
    findings (Findings): Takes bad records.
    YIELDS (Tuple[str, Dict[str, Any]]): Text and record.
    RAISES (BertHeadsError): H101 to H107, H138 to H140 or H147 for a bad file or record.
    """
    if source.name.endswith((".txt", ".txt.gz")):
        records = ((where, {"text": line}) for where, line in read_lines(source, findings, progress=False))
    else:
        records = read_json_objects(source, findings, progress=False)  # type: ignore[assignment]
    for where, record in records:
        text = record.get("text")
        if not isinstance(text, str):
            findings.bad(where.error("H107", repr(text) if "text" in record else "no such key"))
        elif len(text) > nlp.max_length:
            findings.bad(where.error("H138", f"{len(text):,}", limit=nlp.max_length))
        else:
            try:
                check_words(nlp, text, where)
            except BertHeadsError as error:
                findings.bad(error)
            else:
                yield text, record


def is_readable(nlp: Language, text: str) -> bool:
    """RETURNS (bool): Whether there is something to read in a text, and a pipeline's tokenizer can do it in time."""
    try:
        check_words(nlp, text)
    except BertHeadsError:
        return False
    return bool(text.strip()) and len(text) <= nlp.max_length


def read_annotated(path: Path, spans_key: Optional[str] = None) -> Iterator[Tuple[str, Optional[int]]]:
    """Stream the texts of a file of annotations; of one of Prodigy's all of them, whatever the answer.

    path (Path): In any format that `convert` reads.
    spans_key (Optional[str]): Where spans that may overlap are in the Docs of a corpus.
    YIELDS (Tuple[str, Optional[int]]): Text, and, if an annotator has edited it, the input hash of the raw one.
    RAISES (BertHeadsError): H101 to H107 for a bad file.
    """
    for text, stored in _read_hashes(path, spans_key):
        yield text, None if stored is None or stored == input_hash(text) else stored


def _read_hashes(path: Path, spans_key: Optional[str]) -> Iterator[Tuple[str, Optional[int]]]:
    """Texts, and the input hashes that the file gives them."""
    converter = find_converter(path, AUTO)
    if isinstance(converter, ProdigyConverter):
        # Not its reader, which passes over tasks that were ignored
        for where, record in read_json_objects(path, Findings(skip_bad=False)):
            text, stored = record.get("text"), record.get("_input_hash")
            if not isinstance(text, str):
                raise where.error("H107", repr(text))
            yield text, stored if isinstance(stored, int) else None
    else:
        for annotation in converter.read(path, Findings(skip_bad=True), ReadOptions(spans_key=spans_key)):
            yield annotation.text, annotation.input_hash
