"""Annotation files -> a store of checked annotations."""

from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, TypeVar

from spacy.language import Language

from ..errors import BertHeadsError, NothingAnnotatedError
from .docs import OFF_TOKENS, check_annotation
from .findings import Findings
from .readers.formats import AUTO, ReadOptions, find_converter
from .readers.lines import read_head
from .readers.pipes import forget_pipe
from .store import TextStore

# spaCy's memory zones forget the words of this many texts together.
ZONE = 20_000

ItemT = TypeVar("ItemT")


def read_files(
    store: TextStore,
    nlp: Language,
    paths: Sequence[Path],
    *,
    role: int,
    format: str,
    options: ReadOptions,
    off_tokens: str,
    findings: Findings,
) -> List[Dict[str, Any]]:
    """Read files record by record.

    store (TextStore): Takes the annotations.
    nlp (Language): Tokenizes texts that come without tokens.
    paths (Sequence[Path]): The files.
    role (int): What they are for, as `store` keeps it.
    format (str): Key of CONVERTERS, or "auto" to find it for each file.
    options (ReadOptions): What the files do not say about themselves.
    off_tokens (str): What to do with spans not at token boundaries.
    findings (Findings): Takes bad records and decisions about good ones.
    RETURNS (List[Dict[str, Any]]): Of each file its path, its format, and how many records it has and gave.
    RAISES (BertHeadsError): H145 for an unknown `off_tokens`; H1xx for a bad file, and for a bad record unless those
        are skipped.
    """
    if off_tokens not in OFF_TOKENS:
        raise BertHeadsError("H145", option="--off-tokens", found=repr(off_tokens), expected=", ".join(OFF_TOKENS))
    if options.labels is not None:
        # Not every format has use for it, but a wrong name is a mistake in any case.
        read_head(options.labels)
    entries = []
    for path in paths:
        try:
            converter = find_converter(path, format)
            n_before, n_used = findings.n_records[path], 0
            with _assumption_told(converter.name if format == AUTO else None):
                for annotation in in_memory_zones(nlp, converter.read(path, findings, options)):
                    try:
                        checked = check_annotation(nlp, annotation, findings, off_tokens, overlaps=options.overlaps)
                    except BertHeadsError as error:
                        findings.bad(error)
                        continue
                    store.add(checked, role)
                    n_used += 1
                n_records = findings.n_records[path] - n_before
                if not n_used:
                    found = findings.describe(path)
                    findings.bad(NothingAnnotatedError("H117", path=path, found=found, n_records=n_records))
        finally:
            forget_pipe(path)
        entries.append({"path": str(path), "format": converter.name, "records": n_records, "used": n_used})
    return entries


@contextmanager
def _assumption_told(format: Optional[str]) -> Iterator[None]:
    """Name the format that was found by looking at a file, if an error follows."""
    try:
        yield
    except BertHeadsError as error:
        if format is not None:
            error.add(f"(The file was read as {format}; if it is another format, name it with --format.)")
        raise


def in_memory_zones(nlp: Language, items: Iterable[ItemT]) -> Iterator[ItemT]:
    """Have spaCy forget the words of finished texts. Docs must be finished, too, when the next item is requested.

    nlp (Language): Its vocabulary would otherwise grow with every new word.
    items (Iterable[ItemT]): What Docs are made of.
    YIELDS (ItemT): The same items.
    """
    iterator = iter(items)
    for first in iterator:
        with nlp.memory_zone():
            yield from chain((first,), islice(iterator, ZONE - 1))
