"""Tables -> annotations: CSV and TSV with named columns, and lines of a text and its label."""

import csv
import itertools
import re
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation
from ..findings import Findings, Where
from .conll import ColumnsConverter
from .labels import LabelColumn, is_number, read_number
from .lines import decode, head_lines, is_text, iter_lines, read_head, read_lines
from .options import ReadOptions

Row = Tuple[Where, List[str]]
# Reads the rows of a file from its beginning: what is found on the way, and whether to show a progress bar.
ReadRows = Callable[[Findings, bool], Iterator[Row]]

# What columns are called in the data sets that people share, compared in lower case.
TEXT_NAMES = (
    "text sentence content review title question body message comment utterance query document tweet abstract "
    "文本 内容 标题 句子 text_a sentence1"
).split()
PAIR_NAMES = [
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("s1", "s2"),
]
LABEL_NAMES = (
    "label labels category categories class classes target intent sentiment topic emotion emotions tags score "
    "similarity similarity_score is_duplicate stars rating 标签 类别"
).split()
FLAGS = {"0", "1", "0.0", "1.0", "true", "false", ""}
FIRST_WORD = re.compile(rb"(\d{1,4}|[A-Za-z_]+:[A-Za-z_]+) +\S")
LABEL_NUMBERS = re.compile(r"\d+(?:,\d+)*")
# Rows that are looked at to find out what the columns are.
N_SAMPLE = 1000
# The longest cell; a quote that is never closed ends here.
MAX_CELL = 1 << 24


class Roles(NamedTuple):
    """What the columns are.

    text (List[int]): The column of the text, or two of a pair.
    labels (List[int]): Columns of labels.
    names (List[str]): What the columns of labels are called.
    has_numbers (bool): Whether each column of labels stands for one label and holds a number.
    """

    text: List[int]
    labels: List[int]
    names: List[str]
    has_numbers: bool


class _Unquoted(csv.excel):
    """Tables in which a quote is a character like others."""

    quoting = csv.QUOTE_NONE


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
        RETURNS (bool): Whether all rows have the same number of columns, and the columns have known names or the
            last one numbers.
        """
        if head[:1] in (b"{", b"[", b"") or not is_text(head) or ColumnsConverter().sniff(path, head):
            return False
        delimiter = find_delimiter(head)
        if (delimiter == "\t") != (self.name == "tsv") or delimiter is None:
            return False
        rows = _sample(head, delimiter)
        if find_names(rows, ReadOptions()) is not None:
            return True
        if LinesConverter().sniff(path, head):
            return False
        has_numbers = len(rows) > 1 and all(is_number(row[-1]) for row in rows)
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
        is_quoted = delimiter != "\t" or _is_quoted(head)
        first = _read_csv(path, delimiter, is_quoted, Findings(skip_bad=True), False)
        sample = list(itertools.islice(_only_rows(first), N_SAMPLE))
        if not sample:
            # Whatever is wrong with the rows is said here.
            list(_read_csv(path, delimiter, is_quoted, findings, False))
            return
        names = find_names(sample, options)
        roles = find_roles(names, sample[0 if names is None else 1 :] or sample, options, path)

        def read_rows(found: Findings, progress: bool) -> Iterator[Row]:
            rows = _read_csv(path, delimiter, is_quoted, found, progress)
            if names is not None:
                next(rows, None)
                found.n_records[path] -= 1
            yield from rows

        yield from annotate_rows(read_rows, len(sample[0]), roles, options, findings, path)


class LinesConverter:
    """Reads lines of a text and its label: parted by a tab, or the label first and a space behind it (TREC)."""

    name = "labelled-lines"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether all lines have one tab; or two with numbers of labels between them (GoEmotions); or
            begin with a number or a label such as NUM:date, and some of them with the same one.
        """
        lines = [line for line in head_lines(head)[:N_SAMPLE] if line.strip()]
        if not lines or not is_text(head) or head[:1] in (b"{", b"[") or ColumnsConverter().sniff(path, head):
            return False
        n_tabs = {line.rstrip(b"\r\n").count(b"\t") for line in lines}
        if n_tabs in ({1}, {2}):
            rows = _sample(head, "\t")
            if find_names(rows, ReadOptions()) is not None:
                return False
            return n_tabs == {1} or all(LABEL_NUMBERS.fullmatch(row[1]) for row in rows if len(row) == 3)
        return _begins_with_label(lines)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A text file, plain or gzipped. It is read twice where the labels are to be found in it.
        findings (Findings): Takes bad lines, and decisions about good ones.
        options (ReadOptions): Columns, delimiter, and what the label column holds.
        YIELDS (Annotation): One for each line with a label.
        RAISES (BertHeadsError): H130 for a line with other columns; H134 if it is not clear which is the label.
        """
        lines = [line for line in head_lines(read_head(path))[:N_SAMPLE] if line.strip()]
        delimiter = options.column_delimiter
        if delimiter is None:
            delimiter = " " if not any(b"\t" in line for line in lines) and _begins_with_label(lines) else "\t"
        label_first = delimiter == " "

        def read_rows(found: Findings, progress: bool) -> Iterator[Row]:
            for where, line in read_lines(path, found, progress=progress):
                if label_first:
                    yield where, line.split(None, 1)
                elif '"' in line:
                    yield where, [_unquote(cell, where, found) for cell in line.split(delimiter)]
                else:
                    yield where, line.split(delimiter)

        sample = list(itertools.islice(_only_rows(read_rows(Findings(skip_bad=True), False)), N_SAMPLE))
        if not sample:
            # Whatever is wrong with the lines is said here.
            list(read_rows(findings, False))
            return
        n_columns = len(sample[0])
        roles = _lines_roles([row for row in sample if len(row) == n_columns], label_first, options, path)
        yield from annotate_rows(read_rows, n_columns, roles, options, findings, path)


def annotate_rows(
    read_rows: ReadRows,
    n_columns: int,
    roles: Roles,
    options: ReadOptions,
    findings: Findings,
    path: Path,
    known: Sequence[str] = (),
) -> Iterator[Annotation]:
    """Make annotations of rows.

    read_rows (ReadRows): Reads the rows from the beginning.
    n_columns (int): Columns of each row.
    roles (Roles): What the columns are.
    options (ReadOptions): What the label column holds.
    findings (Findings): Takes bad rows, and decisions about good ones.
    path (Path): The file.
    known (Sequence[str]): All labels, if the file says what they are.
    YIELDS (Annotation): One for each row with a label.
    """
    column: Optional[LabelColumn] = None
    if not roles.has_numbers:
        index = roles.labels[0]
        rows = _only_rows(read_rows(Findings(skip_bad=True), False))
        cells = (row[index].strip() for row in rows if len(row) == n_columns)
        column = LabelColumn(filter(None, cells), options, path, roles.names[0], known)
    first_line = 0
    for where, row in read_rows(findings, True):
        first_line = first_line or where.line
        try:
            if len(row) != n_columns:
                found = repr("\t".join(row)[:80])
                raise where.error("H130", found, expected=n_columns, first=first_line, n_columns=len(row))
            annotation = _annotate_row(row, where, roles, column, options, findings)
        except BertHeadsError as error:
            findings.bad(error)
            continue
        if annotation.is_empty:
            findings.note("no_label", where)
        else:
            yield annotation


def _annotate_row(
    row: Sequence[str],
    where: Where,
    roles: Roles,
    column: Optional[LabelColumn],
    options: ReadOptions,
    findings: Findings,
) -> Annotation:
    texts = [row[index] for index in roles.text]
    if not all(text.strip() for text in texts):
        raise where.error("H107", "an empty cell")
    second_start = len(texts[0]) + len(options.pair_separator) if len(texts) > 1 else None
    cells = [row[index].strip() for index in roles.labels]
    if column is None:
        cats = {name: read_number(cell, name, where) for name, cell in zip(roles.names, cells) if cell}
    else:
        cats = column.read(cells[0], where, findings) if cells[0] else {}
    return Annotation(
        options.pair_separator.join(texts),
        where,
        cats=cats,
        exclusive=column is not None and column.is_exclusive,
        second_start=second_start,
    )


def find_names(rows: Sequence[Sequence[str]], options: ReadOptions) -> Optional[List[str]]:
    """Decide whether the first row names the columns.

    rows (Sequence[Sequence[str]]): The first rows.
    options (ReadOptions): Whether it does, or the names of columns.
    RETURNS (Optional[List[str]]): The names; None if the first row is data.
    """
    if options.header is not None or not rows:
        return [cell.strip() for cell in rows[0]] if options.header and rows else None
    names = [cell.strip() for cell in rows[0]]
    wanted = [name for spec in (options.text_column, options.label_column) if spec for name in spec.split(",")]
    asked = [name.strip() for name in wanted if not _is_column_number(name)]
    if asked:
        return names if all(name in names for name in asked) else None
    lowered = [name.lower() for name in names]
    is_known = any(name in TEXT_NAMES for name in lowered) or any(
        one in lowered and other in lowered for one, other in PAIR_NAMES
    )
    return names if is_known and len(set(names)) == len(names) else None


def find_roles(
    names: Optional[Sequence[str]], sample: Sequence[Sequence[str]], options: ReadOptions, path: Path
) -> Roles:
    """Find the columns of the text and of the label.

    names (Optional[Sequence[str]]): What the columns are called, if they have names.
    sample (Sequence[Sequence[str]]): The first rows.
    options (ReadOptions): The columns, if they were given.
    path (Path): The file.
    RETURNS (Roles): The columns.
    RAISES (BertHeadsError): H134 if they cannot be found.
    """
    n_columns = len(sample[0])
    lowered = [name.lower() for name in names or []]
    text = _resolve(options.text_column, names, n_columns, path, "text")
    labels = _resolve(options.label_column, names, n_columns, path, "label")
    if not labels and names is not None:
        labels = [lowered.index(name) for name in LABEL_NAMES if name in lowered][:1]
    if not labels and names is None:
        is_score = all(is_number(row[-1]) for row in sample) and not all(row[-1].isdigit() for row in sample)
        labels = [n_columns - 1] if is_score and n_columns in (2, 3) else []
    if not text and names is not None:
        pairs = [pair for pair in PAIR_NAMES if pair[0] in lowered and pair[1] in lowered]
        known = [lowered.index(name) for name in TEXT_NAMES if name in lowered]
        text = [lowered.index(name) for name in pairs[0]] if pairs else [i for i in known if i not in labels][:1]
    if not text and names is None and labels and n_columns - len(labels) in (1, 2):
        text = [index for index in range(n_columns) if index not in labels]
    has_numbers = len(labels) > 1
    if not labels and text and names is not None:
        has_numbers = True
        # A column of its own for each label.
        whole_rows = [row for row in sample if len(row) == n_columns]
        labels = [
            index
            for index in range(n_columns)
            if index not in text
            and any(row[index].strip() for row in whole_rows)
            and all(row[index].strip().lower() in FLAGS for row in whole_rows)
        ]
    for role, columns in (("text", text), ("label", labels)):
        if not columns:
            found = f"columns {', '.join(names)}" if names is not None else f"{n_columns} columns without names"
            raise BertHeadsError("H134", path=path, role=role, found=found)
    if names is not None:
        return Roles(text, labels, [names[index] for index in labels], has_numbers)
    return Roles(text, labels, _made_up_names(labels), has_numbers)


def _made_up_names(labels: Sequence[int]) -> List[str]:
    return ["score"] if len(labels) == 1 else [f"column_{index + 1}" for index in labels]


def _resolve(spec: Optional[str], names: Optional[Sequence[str]], n_columns: int, path: Path, role: str) -> List[int]:
    if spec is None:
        return []
    columns = []
    for part in [spec] if names is not None and spec in names else spec.split(","):
        part = part.strip()
        if names is not None and part in names:
            columns.append(names.index(part))
            continue
        number = int(part) if _is_column_number(part) else 0
        index = number - 1 if number > 0 else n_columns + number
        if not number or not 0 <= index < n_columns:
            there = f"columns {', '.join(names)}" if names is not None else f"{n_columns} columns without names"
            raise BertHeadsError("H134", path=path, role=role, found=f"no column {part!r} among {there}")
        columns.append(index)
    return columns


def _is_column_number(part: str) -> bool:
    return bool(re.fullmatch(r"\s*-?\d+\s*", part))


def _lines_roles(sample: Sequence[Sequence[str]], label_first: bool, options: ReadOptions, path: Path) -> Roles:
    n_columns = len(sample[0])
    if n_columns < 2:
        raise BertHeadsError("H134", path=path, role="label", found="1 column")
    text = _resolve(options.text_column, None, n_columns, path, "text")
    labels = _resolve(options.label_column, None, n_columns, path, "label")
    if not labels:
        labels = [0 if label_first else 1]
        n_texts, n_labels = (len({row[index] for row in sample}) for index in (1 - labels[0], labels[0]))
        if n_labels > n_texts:
            found = f"more different labels than texts in column {labels[0] + 1}"
            raise BertHeadsError("H134", path=path, role="label", found=found)
    text = text or [next(index for index in range(n_columns) if index not in labels)]
    return Roles(text, labels, _made_up_names(labels), len(labels) > 1)


def find_delimiter(head: bytes) -> Optional[str]:
    """RETURNS (Optional[str]): The tab, comma or semicolon that gives all rows the same number of columns."""
    lines = [line for line in head_lines(head)[:N_SAMPLE] if line.strip()]
    if lines and all(b"\t" in line for line in lines):
        return "\t"
    for delimiter in ",;\t":
        rows = _sample(head, delimiter)
        if rows and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return delimiter
    return None


def _sample(head: bytes, delimiter: str) -> List[List[str]]:
    lines = (line.decode("utf8", "replace").rstrip("\r") + "\n" for line in head_lines(head))
    dialect = csv.excel if delimiter != "\t" or _is_quoted(head) else _Unquoted
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    rows: List[List[str]] = []
    try:
        for row in csv.reader((line.replace("\0", "") for line in lines), dialect, delimiter=delimiter):
            if any(row):
                rows.append(row)
            if len(rows) == N_SAMPLE:
                break
    except csv.Error:
        pass
    return rows


def _is_quoted(head: bytes) -> bool:
    """Whether quotes in a table of tabs are those of CSV: none stands where CSV would double it."""
    cells = (cell.strip(b"\r") for line in head_lines(head) if b'"' in line for cell in line.split(b"\t"))
    return all(_is_well_quoted(cell.decode("utf8", "replace")) for cell in cells if b'"' in cell)


def _is_well_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


def _unquote(cell: str, where: Where, findings: Findings) -> str:
    if not _is_well_quoted(cell):
        return cell
    findings.note("unquoted", where)
    return cell[1:-1].replace('""', '"')


def _begins_with_label(lines: Sequence[bytes]) -> bool:
    matches = [FIRST_WORD.match(line) for line in lines]
    labels = {match.group(1) for match in matches if match}
    return bool(lines) and all(matches) and (len(labels) < len(lines) or len(lines) == 1)


def _only_rows(rows: Iterator[Row]) -> Iterator[List[str]]:
    return (row for _, row in rows)


def _read_csv(path: Path, delimiter: str, is_quoted: bool, findings: Findings, progress: bool) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    last_line = 0

    def read_text() -> Iterator[str]:
        nonlocal last_line
        for number, raw in iter_lines(path, progress=progress):
            last_line = number
            try:
                text = decode(raw, Where(path, number))
            except BertHeadsError as error:
                findings.n_records[path] += 1
                findings.bad(error)
                continue
            yield text + "\n"

    dialect = csv.excel if is_quoted else _Unquoted
    reader = csv.reader(read_text(), dialect, delimiter=delimiter, strict=True)
    while True:
        where = Where(path, last_line + 1)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            findings.n_records[path] += 1
            expected = "columns quoted as in CSV, with quotes that are closed"
            findings.bad(where.error("H136", f"{error} by line {last_line}", expected=expected))
            continue
        if any(cell.strip() for cell in row):
            findings.n_records[path] += 1
            yield where, row
