"""Windows of like length in rectangles, and where each of their wordpieces lies in the outputs of the Docs."""

from dataclasses import dataclass
from typing import Dict, List

import numpy

from ..layers.length_groups import ends_of, group_by_length
from ..layers.special_tokens import SpecialTokens
from ..types import Ints
from .windows import WindowedDoc

# What one more rectangle costs, in wordpieces that the encoder could read in the same time: less than this much
# padding is left as it is. Measured with MiniLM-L6 on a CPU; a GPU idles while small rectangles are launched.
RECTANGLE_COST: Dict[str, int] = {"cpu": 64, "cuda": 4096}


@dataclass(frozen=True)
class Rectangle:
    """Windows that go through the encoder together.

    ids (Ints): Wordpieces, padded on the right. Int64, (n_windows, n_pieces).
    mask (Ints): 1 for wordpieces, 0 for padding. Int64, (n_windows, n_pieces).
    windows (Ints): Numbers of the windows among all windows of the batch. (n_windows,).
    cells (Ints): Where its wordpieces are in the rectangle, row by row. (n_wordpieces,).
    rows (Ints): Where the same wordpieces are in the outputs of the Docs laid end to end. (n_wordpieces,).
    types (Ints): Token types. Int64, (n_windows, n_pieces), or (0, 0) if the encoder is told none.
    """

    ids: Ints
    mask: Ints
    windows: Ints
    cells: Ints
    rows: Ints
    types: Ints


class WindowBatch:
    """The windows of a batch of Docs, end to end, and the layout of the outputs.

    Outputs are rows, one for each wordpiece: a Doc's windows follow each other, each as wide as its longest one.

    docs (List[WindowedDoc]): The Docs.
    special (SpecialTokens): What goes around each window.
    token_types (bool): Whether the encoder tells token types apart. They are passed on where there is a pair.
    """

    def __init__(self, docs: List[WindowedDoc], special: SpecialTokens, token_types: bool = False) -> None:
        self.docs = docs
        self.token_types = token_types and any(doc.pair is not None for doc in docs)
        self.pad = special.pad
        n_windows = numpy.array([len(doc.windows) for doc in docs], dtype="int64")
        widths = numpy.array([doc.width for doc in docs], dtype="int64")
        # First window and first row of each Doc, and one past the last
        self.doc_windows = ends_of(n_windows)
        self.doc_rows = ends_of(n_windows * widths)
        parts = [numpy.array([*special.prefix, *special.suffix])]
        prefix, suffix = parts[0][: len(special.prefix)], parts[0][len(special.prefix) :]
        types = [numpy.zeros(len(special), dtype="int64")]
        lengths = []
        for doc in docs:
            for start, stop in doc.windows:
                length = stop - start + len(special)
                if doc.pair is None:
                    parts += (prefix, doc.pieces.ids[start:stop], suffix)
                    types.append(numpy.zeros(length if self.token_types else 0, dtype="int64"))
                else:
                    ids_of_pair, types_of_pair = doc.inputs((start, stop))
                    length = len(ids_of_pair)
                    parts.append(numpy.array(ids_of_pair, dtype="int64"))
                    types.append(numpy.array(types_of_pair, dtype="int64"))
                lengths.append(length)
        # The first part makes them whole numbers when there is no Doc; nothing refers to it
        self.ids = numpy.concatenate(parts)
        self.types = numpy.concatenate(types)
        self.lengths = numpy.array(lengths, dtype="int64")
        self.starts = len(special) + ends_of(self.lengths)[:-1]
        within = numpy.arange(len(self.lengths)) - numpy.repeat(self.doc_windows[:-1], n_windows)
        self.rows = numpy.repeat(self.doc_rows[:-1], n_windows) + within * numpy.repeat(widths, n_windows)

    @property
    def n_rows(self) -> int:
        """RETURNS (int): Rows of the outputs of all Docs."""
        return int(self.doc_rows[-1])

    def rectangles(self, max_pieces: int, rectangle_cost: int) -> List[Rectangle]:
        """All windows; see group_by_length."""
        return [self._rectangle(windows) for windows in group_by_length(self.lengths, max_pieces, rectangle_cost)]

    def _rectangle(self, windows: Ints) -> Rectangle:
        lengths = self.lengths[windows, None]
        columns = numpy.arange(lengths.max())
        inside = columns < lengths
        places = numpy.minimum(self.starts[windows, None] + columns, len(self.ids) - 1)
        return Rectangle(
            ids=numpy.where(inside, self.ids[places], self.pad),
            mask=inside.astype("int64"),
            windows=windows,
            cells=numpy.flatnonzero(inside),
            rows=(self.rows[windows, None] + columns)[inside],
            types=numpy.where(inside, self.types[places], 0) if self.token_types else numpy.zeros((0, 0), "int64"),
        )
