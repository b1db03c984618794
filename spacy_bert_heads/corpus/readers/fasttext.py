"""Lines as fastText learns from them -> annotations: labels that begin with `__label__`, and a text."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Iterator, List, Tuple

from ..annotations import Annotation
from ..findings import Findings
from .lines import head_lines, read_lines
from .options import AUTO, ReadOptions
from .rows import Roles, Row, annotate_rows

PREFIX = "__label__"
# The share of lines that have to begin with a label.
MOST = 0.9


class FastTextConverter:
    """Reads `__label__sports the text` and `__label__a __label__b the text`."""

    name = "fasttext"
    suffixes: Tuple[str, ...] = (".ft", ".fasttext")

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether nearly all lines begin with such a label.
        """
        lines = [line for line in head_lines(head) if line.strip()]
        n_labelled = sum(line.startswith(PREFIX.encode()) for line in lines)
        return bool(lines) and n_labelled >= MOST * len(lines)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A text file, plain or gzipped. It is read three times.
        findings (Findings): Takes bad lines, and lines without a label.
        options (ReadOptions): What the labels are.
        YIELDS (Annotation): One for each line with a label.
        """
        is_multi = options.kind == "multi"
        if options.kind == AUTO:
            passed = read_lines(path, Findings(skip_bad=True), progress=False)
            is_multi = any(len(_split(line)[0]) > 1 for _, line in passed)

        def read_rows(found: Findings, progress: bool) -> Iterator[Row]:
            for where, line in read_lines(path, found, progress=progress):
                labels, text = _split(line)
                # As a cell of a table has several labels, or one
                cell = json.dumps(labels, ensure_ascii=False) if is_multi and labels else " ".join(labels)
                yield where, [cell, text]

        options = replace(options, kind="multi" if is_multi else "single")
        roles = Roles(text=[1], labels=[0], names=["label"], has_numbers=False)
        yield from annotate_rows(read_rows, 2, roles, options, findings, path)


def _split(line: str) -> Tuple[List[str], str]:
    """Labels, which stand before the text, and the text."""
    labels = []
    rest = line.strip()
    while rest.startswith(PREFIX):
        label, _, rest = rest.partition(" ") if "\t" not in rest.split(" ", 1)[0] else rest.partition("\t")
        labels.append(label[len(PREFIX) :])
        rest = rest.lstrip()
    return [label for label in labels if label], rest
