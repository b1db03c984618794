"""Rows of cells -> annotations: which columns hold the text and the labels, and what becomes of each row."""

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation
from ..findings import Findings, Where
from .labels import LabelColumn, is_number, read_number
from .lines import head_lines
from .offsets import show
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
# Rows that are looked at to find out what the columns are.
N_SAMPLE = 1000
# The share of them that has to look alike. The others are bad records.
MOST = 0.9
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


class Unquoted(csv.excel):
    """Tables in which a quote is a character like others."""

    quoting = csv.QUOTE_NONE


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
        rows = only_cells(read_rows(Findings(skip_bad=True), False))
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
    n_columns = count_columns(sample)
    sample = [row for row in sample if len(row) == n_columns]
    lowered = [name.lower() for name in names or []]
    text = resolve_columns(options.text_column, names, n_columns, path, "text")
    labels = resolve_columns(options.label_column, names, n_columns, path, "label")
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
        labels = [
            index
            for index in range(n_columns)
            if index not in text
            and any(row[index].strip() for row in sample)
            and all(row[index].strip().lower() in FLAGS for row in sample)
        ]
    for role, columns in (("text", text), ("label", labels)):
        if not columns:
            first = ", ".join(show(cell, 20) for cell in sample[0]) if sample else "nothing"
            found = f"columns {', '.join(names)}" if names is not None else f"no known names among {first}"
            raise BertHeadsError("H134", path=path, role=role, found=found)
    if names is not None:
        return Roles(text, labels, [names[index] for index in labels], has_numbers)
    return Roles(text, labels, make_up_names(labels), has_numbers)


def make_up_names(labels: Sequence[int]) -> List[str]:
    """RETURNS (List[str]): Names for columns of labels that have none."""
    return ["score"] if len(labels) == 1 else [f"column_{index + 1}" for index in labels]


def resolve_columns(
    spec: Optional[str], names: Optional[Sequence[str]], n_columns: int, path: Path, role: str
) -> List[int]:
    """Find the columns that were asked for.

    spec (Optional[str]): Names or numbers with commas between them; None for none.
    names (Optional[Sequence[str]]): What the columns are called, if they have names.
    n_columns (int): How many there are.
    path (Path): The file.
    role (str): What the columns are, for messages.
    RETURNS (List[int]): Their indices.
    RAISES (BertHeadsError): H134 for a column that is not there.
    """
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
            there = f"columns {', '.join(names)}" if names is not None else f"{n_columns} columns without known names"
            raise BertHeadsError("H134", path=path, role=role, found=f"no column {part!r} among {there}")
        columns.append(index)
    return columns


def _is_column_number(part: str) -> bool:
    return bool(re.fullmatch(r"\s*-?\d+\s*", part))


def find_delimiter(head: bytes) -> Optional[str]:
    """RETURNS (Optional[str]): The tab, comma or semicolon that gives nearly all rows the same number of columns."""
    lines = [line for line in head_lines(head)[:N_SAMPLE] if line.strip()]
    if lines and sum(b"\t" in line for line in lines) >= MOST * len(lines):
        return "\t"
    shares = {}
    for delimiter in ",;\t":
        rows = sample_rows(head, delimiter)
        n_columns = count_columns(rows)
        shares[delimiter] = sum(len(row) == n_columns for row in rows) / len(rows) if n_columns > 1 else 0.0
    best = max(shares, key=lambda delimiter: shares[delimiter])
    return best if shares[best] >= MOST else None


def count_columns(rows: Sequence[Sequence[str]]) -> int:
    """RETURNS (int): How many columns most rows have. 0 if there is no row."""
    counts = Counter(map(len, rows))
    return counts.most_common(1)[0][0] if counts else 0


def sample_rows(head: bytes, delimiter: str) -> List[List[str]]:
    """RETURNS (List[List[str]]): The rows in the beginning of a file."""
    lines = (line.decode("utf8", "replace").rstrip("\r") + "\n" for line in head_lines(head))
    dialect = csv.excel if delimiter != "\t" or has_csv_quotes(head) else Unquoted
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


def has_csv_quotes(head: bytes) -> bool:
    """Whether quotes in a table of tabs are those of CSV: none stands where CSV would double it."""
    cells = (cell.strip(b"\r") for line in head_lines(head) if b'"' in line for cell in line.split(b"\t"))
    return all(is_well_quoted(cell.decode("utf8", "replace")) for cell in cells if b'"' in cell)


def is_well_quoted(cell: str) -> bool:
    """RETURNS (bool): Whether a cell is in quotes as CSV has them."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


def only_cells(rows: Iterator[Row]) -> Iterator[List[str]]:
    """RETURNS (Iterator[List[str]]): Rows without their places."""
    return (row for _, row in rows)
