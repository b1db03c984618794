"""Files of texts -> items, in order: each a record, or what is wrong with one."""

import glob
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from spacy.vocab import Vocab

from ..corpus.doc_bins import read_doc_bins
from ..corpus.findings import Findings, Where
from ..corpus.inputs import list_inputs
from ..corpus.readers.hugging_face import MAGIC, data_files, open_arrow
from ..corpus.readers.lines import open_file, read_head, read_json_objects, read_lines
from ..corpus.readers.offsets import show
from ..corpus.readers.pipes import forget_pipe
from ..corpus.readers.rows import TEXT_NAMES, find_delimiter, has_csv_quotes, sample_rows
from ..corpus.readers.tables import read_csv
from ..errors import BertHeadsError
from .layout import MANIFEST, PREFIX, is_manifest

AUTO = "auto"
# What an input may be, and the endings by which it is known. Any of them may be packed.
KINDS: Dict[str, Tuple[str, ...]] = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather"),
    "text": (".txt",),
    "spacy": (".spacy",),
}
PACKED = (".gz", ".zst", ".zstd")
TEXT = "text"
SURROGATES = re.compile("[\ud800-\udfff]")
STDIN = Path("/dev/stdin")


class Item(NamedTuple):
    """A record of the input, or a bad one.

    where (Where): Its place.
    record (Dict[str, Any]): Its keys, as JSON has them, with the text under "text". Empty if it is bad.
    words (Optional[List[str]]): Tokens of a Doc that had been tokenized.
    spaces (Optional[List[bool]]): Whether a space is behind each of them.
    error (Optional[BertHeadsError]): What is wrong with it.
    """

    where: Where
    record: Dict[str, Any]
    words: Optional[List[str]] = None
    spaces: Optional[List[bool]] = None
    error: Optional[BertHeadsError] = None


class Source(NamedTuple):
    """A file to be read.

    path (Path): The file, or a folder that `datasets` wrote.
    kind (str): Key of KINDS.
    """

    path: Path
    kind: str


def find_sources(
    inputs: Sequence[Union[str, Path]], *, kind: str = AUTO, output: Optional[Path] = None
) -> List[Source]:
    """Find the files that inputs stand for, in the order in which they are read.

    inputs (Sequence[Union[str, Path]]): Files; folders, whose files are read in the order of their names; patterns
        such as "texts/*.jsonl.gz"; "-" for what comes through stdin.
    kind (str): Key of KINDS, or "auto" to go by the ending of each file, and by its beginning if it has none.
    output (Optional[Path]): Folder of the results, which is not read even if it is in one of the folders.
    RETURNS (List[Source]): At least one.
    RAISES (BertHeadsError): H101 for what is not there; H129 for a folder of nothing; H145 for an unknown kind; H642
        for a file of no known kind.
    """
    if kind not in (AUTO, *KINDS):
        raise BertHeadsError("H145", option="--input-format", found=repr(kind), expected=", ".join((AUTO, *KINDS)))
    ignore = [] if output is None else [output]
    sources = []
    for name in inputs:
        path = STDIN if str(name) == "-" else Path(name)
        paths = [path]
        if not path.exists() and glob.has_magic(str(name)):
            paths = [Path(found) for found in sorted(glob.glob(str(name), recursive=True))] or [path]
        for found in paths:
            if not found.exists():
                raise BertHeadsError("H101", path=found, found=found)
            for file in _list(found, ignore):
                sources.append(Source(file, _find_kind(file) if kind == AUTO else kind))
    return sources


def read_items(sources: Iterable[Source], text_column: Optional[str] = None) -> Iterator[Item]:
    """Stream the records of files, good and bad, in order.

    sources (Iterable[Source]): The files.
    text_column (Optional[str]): Key or column of the text. By default it is "text"; in tables without such a column,
        the first with a name that is known for texts.
    YIELDS (Item): One for each record. A line of white space is none.
    RAISES (BertHeadsError): H101 to H103, H140, H155 or H315 for a file that cannot be read at all, H643 for one
        without the column.
    """
    for source in sources:
        yield from READERS[source.kind](source.path, text_column)
        forget_pipe(source.path)


def count_items(sources: Iterable[Source]) -> int:
    """Count records without looking into them, for a progress bar.

    sources (Iterable[Source]): The files.
    RETURNS (int): About how many there are: lines of text, rows of tables. 0 where it cannot be said beforehand.
    """
    total = 0
    for path, kind in sources:
        if kind == "spacy" or path == STDIN:
            return 0
        if kind in ("parquet", "arrow"):
            total += sum(_count_rows(file) for file in data_files(path))
            continue
        with open_file(path) as stream:
            lines, last = 0, b"\n"
            while chunk := stream.read(1 << 20):
                lines += chunk.count(b"\n")
                last = chunk[-1:]
        total += lines + (last != b"\n") - (kind in ("csv", "tsv"))
    return total


def plain(value: Any) -> Any:
    """RETURNS (Any): A value as JSON can hold it: numbers that are not finite as None, dates and what else there is as
    text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf8", "backslashreplace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class _Collected(Findings):
    """Findings that hand bad records on, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__(skip_bad=True)
        self.errors: List[BertHeadsError] = []

    def bad(self, error: BertHeadsError) -> None:
        self.errors.append(error)

    def take(self) -> Iterator[Item]:
        for error in self.errors:
            yield Item(Where(Path(error.path or ""), error.line or 0, error.record), {}, error=error)
        self.errors.clear()
        self.n_records: "Counter[Path]" = Counter()


def _read_jsonl(path: Path, text_column: Optional[str]) -> Iterator[Item]:
    found = _Collected()
    for where, record in read_json_objects(path, found, progress=False, arrays=True):
        yield from found.take()
        yield make_item(where, record, text_column or TEXT)
    yield from found.take()


def _read_text(path: Path, text_column: Optional[str]) -> Iterator[Item]:
    found = _Collected()
    for where, line in read_lines(path, found, progress=False):
        yield from found.take()
        yield Item(where, {TEXT: line})
    yield from found.take()


def _read_table(path: Path, text_column: Optional[str]) -> Iterator[Item]:
    head = read_head(path)
    is_tsv = path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(KINDS["tsv"])
    delimiter = find_delimiter(head) or ("\t" if is_tsv else ",")
    found = _Collected()
    rows = read_csv(path, delimiter, delimiter != "\t" or has_csv_quotes(head), found, False)
    names = _distinct(name.strip() for name in (sample_rows(head, delimiter) or [[]])[0])
    column = _find_column(names, text_column, path) if names else TEXT
    next(rows, None)
    for where, row in rows:
        yield from found.take()
        if len(row) != len(names):
            shown = repr(delimiter.join(row)[:80])
            error = where.error("H130", shown, expected=len(names), first=1, n_columns=len(row))
            yield Item(where, {}, error=error)
        else:
            yield make_item(where, dict(zip(names, row)), column)
    yield from found.take()


def _read_arrow(path: Path, text_column: Optional[str]) -> Iterator[Item]:
    number = 0
    for file in data_files(path):
        try:
            schema, batches = open_arrow(file)
            column = _find_column(schema.names, text_column, file)
            for batch in batches:
                values = [_to_values(batch.column(index)) for index in range(len(schema.names))]
                for row in zip(*values):
                    number += 1
                    record = dict(zip(schema.names, map(plain, row)))
                    yield make_item(Where(path, number), record, column)
        except (OSError, ValueError) as error:  # what arrow says of broken files
            if isinstance(error, BertHeadsError):
                raise
            raise BertHeadsError("H103", path=file, found=error) from error


def _read_docs(path: Path, text_column: Optional[str]) -> Iterator[Item]:
    number = 0
    for doc_bin in read_doc_bins(path):
        for doc in doc_bin.get_docs(Vocab()):
            number += 1
            others = {key: plain(value) for key, value in doc.user_data.items() if isinstance(key, str)}
            record = {**others.pop("record", {}), **others, TEXT: doc.text}
            spaces = [bool(token.whitespace_) for token in doc]
            yield Item(Where(path, number), record, [token.text for token in doc], spaces)


READERS: Dict[str, Callable[[Path, Optional[str]], Iterator[Item]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_table,
    "tsv": _read_table,
    "parquet": _read_arrow,
    "arrow": _read_arrow,
    "text": _read_text,
    "spacy": _read_docs,
}


def make_item(where: Where, record: Dict[str, Any], column: str) -> Item:
    """Look for the text of a record.

    where (Where): Its place.
    record (Dict[str, Any]): Its keys.
    column (str): The key of its text, which goes under "text"; what was there before is kept under "_input".
    RETURNS (Item): It is bad (H644) if the text is no string, or one that is no Unicode.
    """
    text = record.get(column)
    if not isinstance(text, str):
        found = show(text) if column in record else "no such key"
        return Item(where, {}, error=where.error("H644", found, key=column))
    if not text.isascii() and SURROGATES.search(text):
        return Item(where, {}, error=where.error("H644", "half of a surrogate pair in it", key=column))
    if column != TEXT:
        others = {key: value for key, value in record.items() if key != column}
        if TEXT in others:
            others["_input"] = {TEXT: others.pop(TEXT)}
        record = {TEXT: text, **others}
    return Item(where, record)


def _distinct(names: Iterable[str]) -> List[str]:
    """Column names, each once, so that no column replaces another."""
    found: List[str] = []
    for name in names:
        number = 2
        unique = name
        while unique in found:
            unique, number = f"{name}_{number}", number + 1
        found.append(unique)
    return found


def _find_column(names: Sequence[str], text_column: Optional[str], path: Path) -> str:
    known = [text_column] if text_column is not None else [name for name in names if name.lower() in TEXT_NAMES]
    if text_column is None and TEXT in names:
        return TEXT
    if not known or known[0] not in names:
        shown = ", ".join(show(name, 20) for name in names) or "none"
        raise BertHeadsError("H643", path=path, found=shown, key=text_column or TEXT)
    return known[0]


def _to_values(column: Any) -> List[Any]:
    """The values of a column; text that is not UTF-8 as bytes, which is no text."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        pass
    values = []
    for value in column:
        try:
            values.append(value.as_py())
        except UnicodeDecodeError:
            values.append(0xFFFD)  # a number is no text, so the record is bad
    return values


def _count_rows(file: Path) -> int:
    import pyarrow
    from pyarrow import parquet

    with file.open("rb") as stream:
        kind = MAGIC.get(stream.read(4))
    if kind == "parquet":
        return int(parquet.ParquetFile(file).metadata.num_rows)
    try:
        return sum(batch.num_rows for batch in open_arrow(file)[1])
    except pyarrow.ArrowInvalid:
        return 0


def _list(path: Path, ignore: Sequence[Path]) -> Iterator[Path]:
    """The files of a folder. Of the results of another run, the shards."""
    for file in list_inputs([path], ignore=ignore):
        manifest = file.parent / MANIFEST
        if path.is_dir() and not file.name.startswith(PREFIX) and is_manifest(manifest):
            continue
        yield file


def _find_kind(path: Path) -> str:
    name = path.name.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    for kind, endings in KINDS.items():
        if name.endswith(endings):
            return kind
    if path.is_dir():
        return "arrow"
    if path.suffix and path.is_file():
        raise BertHeadsError("H642", path=path, found=path.suffix, expected=", ".join(sum(KINDS.values(), ())))
    head = read_head(path)
    if head[:4] in MAGIC:
        return "arrow"
    return "jsonl" if head.lstrip()[:1] in (b"{", b"[") else "text"
