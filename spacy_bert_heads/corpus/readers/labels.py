"""Labels of whole texts, as cells of a table or values in a record have them -> categories."""

import ast
import itertools
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Set

from ...errors import BertHeadsError, TooManyLabelsError
from ..findings import Findings, Where
from .lines import read_lines
from .options import AUTO, ReadOptions

# A column of so many different values is none of labels.
MAX_LABELS = 10_000
# Different combinations of labels that are looked at to find the labels.
MAX_CELLS = 100_000
# What may stand between the labels of a text. The comma is often part of one.
COMMA = DEFAULT_SEPARATOR = ","
SEPARATORS = "|;" + COMMA
NUMBER_LIST = re.compile(r"\d+(?:,\d+)*")
BOOLEANS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


class LabelNames:
    """Names of labels that are given as numbers, and all names there are, out of the file for --labels.

    A line holds a name, and its number is the number of the line counted from 0; or number, tab and name.

    path (Optional[Path]): The file. None leaves labels as they are.
    RAISES (BertHeadsError): H101 to H104 if it cannot be read; H141 if it is empty or a label is there twice.
    """

    def __init__(self, path: Optional[Path]) -> None:
        self.path = path
        self.names: List[str] = []
        self.by_number: Dict[str, str] = {}
        if path is None:
            return
        lines = list(read_lines(path, Findings(skip_bad=False), progress=False))
        cells = [line.split("\t") for _, line in lines]
        is_numbered = all(len(row) == 2 and row[0].isdigit() for row in cells)
        for index, (where, line) in enumerate(lines):
            number, name = (cells[index][0], cells[index][1]) if is_numbered else (str(index), line.strip())
            if not is_numbered and where.line != index + 1:
                raise where.error("H141", "a blank line before it, which would shift the numbers")
            if name in self.names or number in self.by_number:
                raise where.error("H141", f"{line!r} again")
            self.names.append(name)
            self.by_number[number] = name
        if not lines:
            raise BertHeadsError("H141", path=path, found="no label")

    def get(self, value: str, where: Where, findings: Findings) -> str:
        """Find the name of a label.

        value (str): A name or a number.
        where (Where): Place of the record.
        findings (Findings): Takes numbers without a name.
        RETURNS (str): The name. A number that has none is its own name.
        RAISES (BertHeadsError): H131 for a label that is not in the file.
        """
        if self.path is None:
            if value.isdigit():
                findings.note("numbered_labels", where, value)
            return value
        if value in self.names:
            return value
        if value not in self.by_number:
            raise where.error("H131", repr(value), labels=self.path, n_labels=len(self.names))
        return self.by_number[value]


class LabelColumn:
    """What one column of labels holds, known from all its different cells.

    cells (Iterable[str]): The cells of the whole file.
    options (ReadOptions): Kind, label file and separator.
    path (Path): The file.
    name (str): What the column is called, for a number to be predicted.
    known (Sequence[str]): All labels, if the file says what they are.
    RAISES (BertHeadsError): H133 for too many different labels; H141 for a broken label file.
    """

    def __init__(
        self, cells: Iterable[str], options: ReadOptions, path: Path, name: str, known: Sequence[str] = ()
    ) -> None:
        self.separator = options.label_separator
        self.name = name
        self.names = LabelNames(options.labels)
        self.kind = options.kind
        distinct: Set[str] = set()
        if self.kind == AUTO or (self.kind != "score" and options.labels is None and not known):
            for cell in cells:
                distinct.add(cell)
                if len(distinct) > MAX_CELLS:
                    break
        self.is_found, self.is_split = self.kind == AUTO, False
        if self.is_found:
            self.kind = _find_kind(distinct)
            found = _find_separator(distinct, options.label_separator) if self.kind == "single" else None
            if found is not None and not any(found in name for name in self.names.names or known):
                self.kind, self.separator, self.is_split = "multi", found, True
        labels: Set[str] = set()
        if self.kind != "score":
            labels.update(self.names.names or known)
            if not labels:
                for cell in distinct:
                    labels.update(self._split(cell))
                    if len(labels) > MAX_LABELS or len(distinct) > MAX_CELLS:
                        raise TooManyLabelsError("H133", path=path, n_labels=MAX_LABELS)
        self.none_hold = dict.fromkeys(sorted(labels), 0.0)

    def read(self, cell: str, where: Where, findings: Findings) -> Dict[str, float]:
        """Read a cell.

        cell (str): The cell, not empty.
        where (Where): Place of the record.
        findings (Findings): Takes labels without a name, and such that hold a separator.
        RETURNS (Dict[str, float]): The categories.
        RAISES (BertHeadsError): H131 for a label that is not in the label file; H135 for no number.
        """
        if self.kind == "score":
            return {self.name: read_number(cell, self.name, where)}
        chosen = [self.names.get(value, where, findings) for value in self._split(cell)]
        if self.is_found and self.kind == "single" and any(mark in cell for mark in self.separator + SEPARATORS):
            findings.note("separator_in_label", where, repr(cell))
        if self.is_split and self.separator in cell:
            findings.note("labels_split", where, repr(cell))
        return {**self.none_hold, **dict.fromkeys(chosen, 1.0)}

    @property
    def is_exclusive(self) -> bool:
        """RETURNS (bool): Whether each text has exactly one of the labels."""
        return self.kind == "single"

    def _split(self, cell: str) -> List[str]:
        if self.kind == "single":
            return [cell]
        listed = read_list(cell)
        values = cell.split(self.separator) if listed is None else listed
        return [value.strip() for value in values if value.strip()]


def read_list(cell: str) -> Optional[List[str]]:
    """RETURNS (Optional[List[str]]): The strings of a list written as in JSON or Python; None if it is none."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    for load in (json.loads, ast.literal_eval):
        try:
            value = load(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and all(isinstance(item, (str, int)) for item in value):
            return [str(item) for item in value]
    return None


def read_number(cell: str, name: str, where: Where) -> float:
    """Read a number to be predicted.

    cell (str): The cell.
    name (str): What is predicted.
    where (Where): Place of the record.
    RETURNS (float): The number; 1 and 0 for true and false.
    RAISES (BertHeadsError): H135 if it is no number, infinite or NaN.
    """
    try:
        value = BOOLEANS[cell.lower()] if cell.lower() in BOOLEANS else float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise where.error("H135", repr(cell), label=name)
    return value


def _find_kind(cells: Set[str]) -> str:
    if any(read_list(cell) is not None for cell in cells):
        return "multi"
    if cells and all(NUMBER_LIST.fullmatch(cell) for cell in cells) and any("," in cell for cell in cells):
        return "multi"
    if cells and all(map(is_number, cells)) and not all(_is_whole(cell) for cell in cells):
        return "score"
    return "single"


def _find_separator(cells: Set[str], given: str) -> Optional[str]:
    """What stands between labels: what the user says, or what parts labels all of which occur elsewhere. Those that a
    comma parts all occur alone.
    """
    if given != DEFAULT_SEPARATOR:
        return given if any(given in cell for cell in cells) else None
    alone = {cell.strip() for cell in cells}
    for separator in SEPARATORS:
        parts = [{part.strip() for part in cell.split(separator)} - {""} for cell in cells]
        counts = Counter(itertools.chain.from_iterable(parts))
        joined = [names for cell, names in zip(cells, parts) if separator in cell]
        enough = alone if separator == COMMA else {name for name, count in counts.items() if count > 1}
        if joined and all(names <= enough for names in joined):
            return separator
    return None


def is_number(cell: str) -> bool:
    """RETURNS (bool): Whether the cell is a number, be it infinite or NaN."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_whole(cell: str) -> bool:
    return cell.lstrip("+-").isdigit() or not math.isfinite(float(cell))
