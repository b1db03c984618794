"""Lines of a text and its label -> annotations."""

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Iterator, Sequence, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation
from ..findings import Findings, Where
from .columns import looks_tagged
from .conll import ColumnsConverter
from .lines import head_lines, is_text, read_head, read_lines
from .offsets import show
from .options import ReadOptions
from .rows import (
    MOST,
    N_SAMPLE,
    Roles,
    Row,
    annotate_rows,
    count_columns,
    find_names,
    is_well_quoted,
    make_up_names,
    only_cells,
    resolve_columns,
    sample_rows,
)

FIRST_WORD = re.compile(rb"(\d{1,4}|[A-Za-z_]+:[A-Za-z_]+) +\S")
LABEL_NUMBERS = re.compile(r"\d+(?:,\d+)*")


class LinesConverter:
    """Reads lines of a text and its label: parted by a tab, or the label first and a space behind it (TREC)."""

    name = "labelled-lines"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether nearly all lines have one tab; or two with numbers of labels between them (GoEmotions);
            or begin with a number or a label such as NUM:date, and some of them with the same one.
        """
        lines = [line for line in head_lines(head)[:N_SAMPLE] if line.strip()]
        if not lines or not is_text(head) or head[:1] in (b"{", b"[") or ColumnsConverter().sniff(path, head):
            return False
        if looks_tagged(head):
            return False
        n_tabs, n_alike = Counter(line.rstrip(b"\r\n").count(b"\t") for line in lines).most_common(1)[0]
        if n_tabs in (1, 2) and n_alike >= MOST * len(lines):
            rows = sample_rows(head, "\t")
            if find_names(rows, ReadOptions()) is not None:
                return False
            numbered = [bool(LABEL_NUMBERS.fullmatch(row[1])) for row in rows if len(row) == 3]
            return n_tabs == 1 or sum(numbered) >= MOST * len(numbered)
        return _begins_with_label(lines, MOST)

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
            has_tabs = 2 * sum(b"\t" in line for line in lines) > len(lines)
            delimiter = " " if not has_tabs and _begins_with_label(lines, 0.5) else "\t"
        label_first = delimiter == " "
        # Where labels are known by their looks, a line that begins otherwise is no record.
        is_checked = label_first and options.column_delimiter is None

        def read_rows(found: Findings, progress: bool) -> Iterator[Row]:
            for where, line in read_lines(path, found, progress=progress):
                if is_checked and not FIRST_WORD.match(line.encode("utf8")):
                    expected = "a number or a label such as NUM:date, a space and a text"
                    found.bad(where.error("H136", show(line), expected=expected))
                elif label_first:
                    yield where, line.split(None, 1)
                elif '"' in line:
                    yield where, [_unquote(cell, where, found) for cell in line.split(delimiter)]
                else:
                    yield where, line.split(delimiter)

        sample = list(itertools.islice(only_cells(read_rows(Findings(skip_bad=True), False)), N_SAMPLE))
        if not sample:
            # Whatever is wrong with the lines is said here.
            list(read_rows(findings, False))
            return
        n_columns = count_columns(sample)
        roles = _lines_roles([row for row in sample if len(row) == n_columns], label_first, options, path)
        yield from annotate_rows(read_rows, n_columns, roles, options, findings, path)


def _lines_roles(sample: Sequence[Sequence[str]], label_first: bool, options: ReadOptions, path: Path) -> Roles:
    n_columns = len(sample[0])
    if n_columns < 2:
        raise BertHeadsError("H134", path=path, role="label", found="1 column")
    text = resolve_columns(options.text_column, None, n_columns, path, "text")
    labels = resolve_columns(options.label_column, None, n_columns, path, "label")
    if not labels:
        labels = [0 if label_first else 1]
        n_texts, n_labels = (len({row[index] for row in sample}) for index in (1 - labels[0], labels[0]))
        if n_labels > n_texts:
            found = f"more different labels than texts in column {labels[0] + 1}"
            raise BertHeadsError("H134", path=path, role="label", found=found)
    text = text or [next(index for index in range(n_columns) if index not in labels)]
    return Roles(text, labels, make_up_names(labels), len(labels) > 1)


def _unquote(cell: str, where: Where, findings: Findings) -> str:
    if not is_well_quoted(cell):
        return cell
    findings.note("unquoted", where)
    return cell[1:-1].replace('""', '"')


def _begins_with_label(lines: Sequence[bytes], share: float) -> bool:
    labels = [match.group(1) for match in map(FIRST_WORD.match, lines) if match]
    is_enough = bool(lines) and len(labels) >= share * len(lines)
    return is_enough and (len(set(labels)) < len(labels) or len(labels) == 1)
