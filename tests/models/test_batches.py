"""Groups of windows against every way to group them, and rectangles against padding by hand."""

from typing import Iterator, List, Tuple

import numpy
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_bert_heads.layers.length_groups import group_by_length
from spacy_bert_heads.layers.special_tokens import SpecialTokens
from spacy_bert_heads.models.batches import WindowBatch
from spacy_bert_heads.models.windows import make_windowed_doc, tokenize

from ..making import make_texts, make_tokenizer


def cost(groups: List[List[int]], rectangle_cost: int) -> int:
    return sum(max(group) * len(group) + rectangle_cost for group in groups)


def ways_to_cut(lengths: List[int]) -> Iterator[List[List[int]]]:
    """All ways to cut a list into runs."""
    if not lengths:
        yield []
    for n in range(1, len(lengths) + 1):
        for rest in ways_to_cut(lengths[n:]):
            yield [lengths[:n], *rest]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.integers(0, 30))
def test_no_other_way_to_group_windows_costs_less(lengths: List[int], rectangle_cost: int) -> None:
    groups = group_by_length(numpy.array(lengths), 10**6, rectangle_cost)
    assert sorted(i for group in groups for i in group.tolist()) == list(range(len(lengths)))
    ours = cost([[lengths[i] for i in group] for group in groups], rectangle_cost)
    assert ours == min(cost(cut, rectangle_cost) for cut in ways_to_cut(sorted(lengths, reverse=True)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 100), st.integers(0, 500))
def test_groups_keep_to_the_budget_and_begin_with_the_longest(
    lengths: List[int], max_pieces: int, rectangle_cost: int
) -> None:
    groups = [group.tolist() for group in group_by_length(numpy.array(lengths, "int64"), max_pieces, rectangle_cost)]
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    longest = [max(lengths[i] for i in group) for group in groups]
    assert longest == sorted(longest, reverse=True)
    for group, length in zip(groups, longest):
        assert len(group) == 1 or len(group) * length <= max_pieces


@pytest.mark.parametrize("sizes", [(64, 16), (16, 4), (5, 1)])
def test_rectangles_hold_every_window_and_say_where_its_wordpieces_belong(sizes: Tuple[int, int]) -> None:
    tokenizer, special = make_tokenizer(), SpecialTokens([2], [3], 0)
    texts = [*make_texts(9), "", " ", "order " * 90]
    nlp = spacy.blank("en")
    docs = [nlp.make_doc(text) for text in texts]
    windowed = [make_windowed_doc(pieces, special, *sizes) for pieces in tokenize(tokenizer, docs)]
    batch = WindowBatch(windowed, special)
    expected = [  # window by window: its ids, and the first row of its Doc's part of the outputs
        (
            [2, *doc.pieces.ids[start:stop].tolist(), 3],
            sum(len(d.windows) * d.width for d in windowed[:i]) + k * doc.width,
        )
        for i, doc in enumerate(windowed)
        for k, (start, stop) in enumerate(doc.windows)
    ]
    assert batch.n_rows == sum(len(doc.windows) * doc.width for doc in windowed)
    seen = []
    for rectangle in batch.rectangles(200, 10):
        cells, rows = iter(rectangle.cells.tolist()), iter(rectangle.rows.tolist())
        for row, window in enumerate(rectangle.windows.tolist()):
            ids, first = expected[window]
            width = rectangle.ids.shape[1]
            assert rectangle.ids[row].tolist() == ids + [0] * (width - len(ids))
            assert rectangle.mask[row].tolist() == [1] * len(ids) + [0] * (width - len(ids))
            assert [next(cells) for _ in ids] == [row * width + k for k in range(len(ids))]
            assert [next(rows) for _ in ids] == [first + k for k in range(len(ids))]
            seen.append(window)
    assert sorted(seen) == list(range(len(expected)))
