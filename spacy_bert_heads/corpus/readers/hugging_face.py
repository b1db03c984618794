"""Hugging Face datasets -> annotations: folders of `save_to_disk`, and parquet and arrow files. Needs `datasets`."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ...errors import BertHeadsError
from ...files import is_plain_name
from ..annotations import Annotation
from ..findings import Findings, Where
from .labels import LabelNames
from .lines import open_file
from .offsets import show
from .options import AUTO, ReadOptions
from .pipes import find_file
from .rows import Row, annotate_rows, find_roles
from .token_lines import TAG_KEYS, WORD_KEYS, TokenRow, annotate_tokens

BATCH_SIZE = 1000
# How the files begin: parquet, arrow's file format, and its stream format, which `save_to_disk` writes.
MAGIC = {b"PAR1": "parquet", b"ARRO": "file", b"\xff\xff\xff\xff": "stream"}


class DatasetsConverter:
    """Reads `tokens` with `ner_tags`, or texts with labels or numbers; names of classes are used."""

    name = "hf-datasets"
    suffixes: Tuple[str, ...] = (".parquet", ".arrow")

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): A folder, or a file.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether `save_to_disk` wrote the folder, or the file is parquet or arrow.
        """
        if os.path.isdir(path):
            return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
        return head[:4] in MAGIC

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a data set.

        path (Path): The folder or file. It is read twice where labels or the tag scheme are to be found in it.
        findings (Findings): Takes bad rows, and decisions about good ones.
        options (ReadOptions): Columns, and what the label column holds.
        YIELDS (Annotation): One for each row with labels; its "line" is its number.
        RAISES (BertHeadsError): H103 for what cannot be read; H134 if it is not clear what the columns are; H137 for a
            folder of several splits; H407 if the package is missing.
        """
        try:
            table = _Table(path)
            words = next((name for name in WORD_KEYS if table.is_list(name)), None)
            tags = options.label_column or next((name for name in TAG_KEYS if table.is_list(name)), None)
            if words is not None and options.text_column in (None, words) and tags is not None and table.is_list(tags):
                yield from _read_sentences(table, words, tags, options, findings)
            else:
                yield from _read_texts(table, options, findings)
        except OSError as error:  # arrow's own errors are OSError or ValueError
            raise BertHeadsError("H103", path=path, found=error) from error


class _Table:
    """Columns of a data set, and its rows in batches."""

    def __init__(self, path: Path) -> None:
        try:
            import datasets
            import pyarrow
        except ImportError as error:
            raise BertHeadsError("H407", path=path) from error
        self.path = path
        self.files = data_files(path)
        try:
            self.features: Dict[str, Any] = datasets.Features.from_arrow_schema(open_arrow(self.files[0])[0])
        except pyarrow.ArrowInvalid as error:
            raise BertHeadsError("H103", path=self.files[0], found=error) from error
        self.names = list(self.features)

    def is_list(self, name: str) -> bool:
        """RETURNS (bool): Whether there is such a column and it holds lists."""
        feature = self.features.get(name)
        return isinstance(feature, list) or getattr(feature, "feature", None) is not None

    def class_names(self, name: str) -> Optional[List[str]]:
        """RETURNS (Optional[List[str]]): Names of the classes in a column or in its lists; None if it has none."""
        feature = self.features[name]
        inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
        return getattr(inner, "names", None)

    def is_float(self, name: str) -> bool:
        """RETURNS (bool): Whether a column holds numbers with decimals."""
        return str(getattr(self.features[name], "dtype", "")).startswith("float")

    def rows(self, columns: Sequence[str]) -> Iterator[Tuple[Where, List[Any]]]:
        """YIELDS (Tuple[Where, List[Any]]): Number of each row, and its values in some columns."""
        import pyarrow

        number = 0
        for file in self.files:
            try:
                for batch in open_arrow(file)[1]:
                    for row in zip(*(batch.column(name).to_pylist() for name in columns)):
                        number += 1
                        yield Where(self.path, number), list(row)
            except pyarrow.ArrowInvalid as error:
                raise BertHeadsError("H103", path=file, found=error) from error


def data_files(path: Path) -> List[Path]:
    """The files of a data set.

    path (Path): A folder that `save_to_disk` wrote, or one file.
    RETURNS (List[Path]): Its files, in order.
    RAISES (BertHeadsError): H101 to H103 for what is missing or broken; H137 for a folder of several splits.
    """
    if not os.path.isdir(path):
        open_file(path).close()
        return [find_file(path)]
    try:
        if (path / "dataset_dict.json").is_file():
            splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf8"))["splits"]
            raise BertHeadsError("H137", path=path, found=", ".join(splits))
        state = json.loads((path / "state.json").read_text(encoding="utf8"))
        names = [entry["filename"] for entry in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, BertHeadsError):
            raise
        raise BertHeadsError("H103", path=path, found=f"its state.json is broken ({error})") from error
    strange = next((name for name in names if not is_plain_name(name)), None)
    if strange is not None:
        raise BertHeadsError("H103", path=path, found=f"its state.json names {show(strange)}, which is no file in it")
    files = [path / name for name in names]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None or not files:
        raise BertHeadsError("H101", path=missing or path, found=missing)
    return files


def open_arrow(file: Path) -> Tuple[Any, Iterator[Any]]:
    """Open a file of columns.

    file (Path): A Parquet file, or one of either of Arrow's formats.
    RETURNS (Tuple[Any, Iterator[Any]]): Its schema, and its batches of rows.
    RAISES (BertHeadsError): H410 if pyarrow is missing. pyarrow's own errors are OSErrors and ValueErrors.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise BertHeadsError("H410", path=file, found="pyarrow", extra="arrow") from error

    with file.open("rb") as stream:
        kind = MAGIC.get(stream.read(4))
    if kind == "parquet":
        table = parquet.ParquetFile(file)
        return table.schema_arrow, table.iter_batches(batch_size=BATCH_SIZE)
    source = pyarrow.memory_map(str(file))
    if kind == "file":
        reader = pyarrow.ipc.open_file(source)
        return reader.schema, (reader.get_batch(index) for index in range(reader.num_record_batches))
    stream_reader = pyarrow.ipc.open_stream(source)
    return stream_reader.schema, iter(stream_reader)


def _read_sentences(
    table: _Table, words: str, tags: str, options: ReadOptions, findings: Findings
) -> Iterator[Annotation]:
    classes = table.class_names(tags)
    names = LabelNames(options.labels)

    def read_rows(found: Findings) -> Iterator[TokenRow]:
        for where, (tokens, values) in table.rows([words, tags]):
            found.n_records[table.path] += 1
            yield where, tokens, values

    def name_tag(value: Any, where: Where, found: Findings) -> str:
        return _tag_name(value, classes, names, where, found)

    yield from annotate_tokens(read_rows, name_tag, options, table.path, repr(tags), findings)


def _tag_name(value: Any, classes: Optional[Sequence[str]], names: LabelNames, where: Where, found: Findings) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and classes is not None and 0 <= value < len(classes):
        return classes[value]
    return names.get(str(value), where, found)


def _read_texts(table: _Table, options: ReadOptions, findings: Findings) -> Iterator[Annotation]:
    columns = [name for name in table.names if not isinstance(table.features[name], dict)]
    names = {name: table.class_names(name) for name in columns}

    def read_rows(found: Findings, progress: bool) -> Iterator[Row]:
        for where, values in table.rows(columns):
            found.n_records[table.path] += 1
            yield where, [_to_cell(value, names[name]) for name, value in zip(columns, values)]

    sample = [row for _, row in itertools.islice(read_rows(Findings(skip_bad=True), False), BATCH_SIZE)]
    if not sample:
        return
    roles = find_roles(columns, sample, options, table.path)
    label = columns[roles.labels[0]]
    known: Sequence[str] = ()
    if options.kind == AUTO and not roles.has_numbers:
        if table.is_list(label):
            options = replace(options, kind="multi")
        elif table.is_float(label):
            options = replace(options, kind="score")
        elif names[label] is not None:
            options = replace(options, kind="single")
        known = names[label] or ()
    yield from annotate_rows(read_rows, len(columns), roles, options, findings, table.path, known)


def _to_cell(value: Any, names: Optional[Sequence[str]]) -> str:
    """A value as the cell of a table; a class that is no class, as -1 of unlabelled data, is an empty cell."""
    if value is None:
        return ""
    if isinstance(value, list):
        return json.dumps([_to_cell(item, names) for item in value], ensure_ascii=False)
    if names is not None and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else ""
    return str(value)
