"""Tables -> annotations: CSV and TSV with named columns."""

import csv
import itertools
from collections import deque
from pathlib import Path
from typing import Iterator, List, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation
from ..findings import Findings, Where
from .columns import looks_tagged
from .conll import ColumnsConverter
from .labelled_lines import LinesConverter
from .labels import is_number
from .lines import decode, is_text, iter_lines, read_head
from .options import ReadOptions
from .rows import (
    MAX_CELL,
    MOST,
    N_SAMPLE,
    Row,
    Unquoted,
    annotate_rows,
    count_columns,
    find_delimiter,
    find_names,
    find_roles,
    has_csv_quotes,
    only_cells,
    sample_rows,
)


class TableConverter:
    """Reads a table whose columns have names, or whose columns are known otherwise, quoted as in CSV.

    name (str): "csv" or "tsv".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.suffixes: Tuple[str, ...] = (f".{name}", f".{name}.gz")

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): With the ending of this format, columns need not have names.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether nearly all rows have the same number of columns, and the columns have known names or
            the last one numbers.
        """
        if head[:1] in (b"{", b"[", b"") or not is_text(head) or ColumnsConverter().sniff(path, head):
            return False
        delimiter = find_delimiter(head)
        if (delimiter == "\t") != (self.name == "tsv") or delimiter is None:
            return False
        rows = sample_rows(head, delimiter)
        if find_names(rows, ReadOptions()) is not None:
            return True
        if LinesConverter().sniff(path, head) or looks_tagged(head):
            return False
        has_numbers = len(rows) > 1 and sum(is_number(row[-1]) for row in rows) >= MOST * len(rows)
        return has_numbers or path.name.lower().endswith(self.suffixes)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A text file, plain or gzipped. It is read twice where the labels are to be found in it.
        findings (Findings): Takes bad rows, and decisions about good ones.
        options (ReadOptions): Columns, delimiter, and what the label column holds.
        YIELDS (Annotation): One for each row with a label.
        RAISES (BertHeadsError): H130 for a row with other columns; H134 if it is not clear what the columns are.
        """
        head = read_head(path)
        delimiter = options.column_delimiter or find_delimiter(head) or ("\t" if self.name == "tsv" else ",")
        is_quoted = delimiter != "\t" or has_csv_quotes(head)
        first = read_csv(path, delimiter, is_quoted, Findings(skip_bad=True), False)
        sample = list(itertools.islice(only_cells(first), N_SAMPLE))
        if not sample:
            # Whatever is wrong with the rows is said here.
            list(read_csv(path, delimiter, is_quoted, findings, False))
            return
        names = find_names(sample, options)
        roles = find_roles(names, sample[0 if names is None else 1 :] or sample, options, path)

        def read_rows(found: Findings, progress: bool) -> Iterator[Row]:
            rows = read_csv(path, delimiter, is_quoted, found, progress)
            if names is not None:
                next(rows, None)
                found.n_records[path] -= 1
            yield from rows

        n_columns = count_columns(sample) if names is None else len(names)
        yield from annotate_rows(read_rows, n_columns, roles, options, findings, path)


def read_csv(path: Path, delimiter: str, is_quoted: bool, findings: Findings, progress: bool) -> Iterator[Row]:
    """Stream the rows of a table that are not blank.

    path (Path): A text file, plain or packed.
    delimiter (str): What separates the cells.
    is_quoted (bool): Whether cells may be in quotes, as in CSV.
    findings (Findings): Takes rows that are broken, and counts all of them.
    progress (bool): Whether to show a progress bar.
    YIELDS (Row): The place of a row, and its cells.
    RAISES (BertHeadsError): As in `lines.iter_lines`; H104, H136 or H139 for a row.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    source = _Lines(path, findings, progress)
    dialect = csv.excel if is_quoted else Unquoted
    while True:
        reader = csv.reader(source, dialect, delimiter=delimiter, strict=True)
        where = source.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            findings.n_records[path] += 1
            expected = "columns quoted as in CSV, with quotes that are closed"
            findings.bad(where.error("H136", f"{error} by line {source.last_line}", expected=expected))
            # A quote that is not closed takes no line but its own with it.
            source.give_back()
            continue
        if any(cell.strip() for cell in row):
            findings.n_records[path] += 1
            yield where, row


class _Lines:
    """Lines for the csv module, which can be given back but for the first line of a row."""

    def __init__(self, path: Path, findings: Findings, progress: bool) -> None:
        self.path = path
        self.findings = findings
        self.lines = iter_lines(path, progress=progress)
        self.last_line = 0
        self.row: List[Tuple[int, str]] = []
        self.waiting: "deque[Tuple[int, str]]" = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, text = self.waiting.popleft() if self.waiting else self._read()
        self.last_line = number
        self.row.append((number, text))
        return text

    def begin_row(self) -> Where:
        """RETURNS (Where): The line behind the last one that was taken."""
        self.row = []
        return Where(self.path, self.waiting[0][0] if self.waiting else self.last_line + 1)

    def give_back(self) -> None:
        self.waiting.extendleft(reversed(self.row[1:]))
        self.last_line = self.row[0][0] if self.row else self.last_line

    def _read(self) -> Tuple[int, str]:
        for number, raw in self.lines:
            try:
                return number, decode(raw, Where(self.path, number)) + "\n"
            except BertHeadsError as error:
                self.last_line = number
                self.findings.n_records[self.path] += 1
                self.findings.bad(error)
        raise StopIteration
