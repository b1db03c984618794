"""Bounded selection against sorting everything; clusters; even draws."""

import random
from typing import Any, Dict, List, Optional, Tuple

import numpy
import pytest

from spacy_bert_heads.annotation import selection as module
from spacy_bert_heads.annotation.selection import (
    OVERSELECT,
    Selection,
    TopK,
    choose_diverse,
    choose_typical,
    spread,
)
from spacy_bert_heads.errors import BertHeadsError

Row = Tuple[str, float]


def make_rows(n: int, seed: int = 0) -> List[Row]:
    """Texts with scores, many of which are equal."""
    chooser = random.Random(seed)
    return [(f"text {i}", chooser.randint(0, n // 4) / 7) for i in range(n)]


def select(rows: List[Row], limit: Optional[int], vectors: Optional[numpy.ndarray] = None, **settings: Any) -> Any:
    selection = Selection(limit, **settings)
    for number, (text, score) in enumerate(rows):
        vector = None if vectors is None else vectors[number].astype("float32")
        selection.add(number, text, score, [{"text": text}], vector)
    return [(chosen.tasks[0]["text"], chosen.score, chosen.way) for chosen in selection.chosen()]


def sorted_rows(rows: List[Row]) -> List[Row]:
    return sorted(rows, key=lambda row: -row[1])  # stable: of equal scores the earlier ones


@pytest.mark.parametrize("size", [0, 1, 7, 100, 200])
def test_top_k_are_the_first_of_all_sorted(size: int) -> None:
    rows = make_rows(100)
    top, out = TopK(size), []
    for number, (_, score) in enumerate(rows):
        loser = top.add(score, number)
        out += [] if loser is None else [loser]
    expected = [rows.index(row) for row in sorted_rows(rows)]
    assert top.in_order() == expected[:size]
    assert sorted(out) == sorted(expected[size:])


@pytest.mark.parametrize("limit", [None, 1, 10, 1000])
def test_selection_is_the_beginning_of_all_sorted(limit: Optional[int]) -> None:
    rows = make_rows(300)
    assert select(rows, limit) == [(*row, None) for row in sorted_rows(rows)[:limit]]


def test_no_more_is_kept_than_may_be_chosen() -> None:
    selection = Selection(10, random_share=0.2)
    for number, (text, score) in enumerate(make_rows(500)):
        selection.add(number, text, score, [])
        (kept,) = selection._database.execute("SELECT COUNT(*) FROM candidates").fetchone()
        assert kept <= 12 and kept == len(selection._n_places)


def test_drawn_texts_are_marked_and_the_others_are_the_best_without_them() -> None:
    rows = make_rows(300)
    found = select(rows, 20, random_share=0.25)
    drawn = [(text, score) for text, score, way in found if way]
    best = [(text, score) for text, score, way in found if not way]
    assert len(drawn) == 5 and len(best) == 15 and not set(drawn) & set(best)
    assert best == [row for row in sorted_rows(rows) if row not in drawn][:15]
    assert found == select(rows, 20, random_share=0.25) != select(rows, 20, random_share=0.25, seed=1)
    places = [i for i, (_, _, way) in enumerate(found) if way]
    assert places[0] < 5 and places[-1] >= 15  # spread over the whole file


def test_draws_are_even_whatever_the_scores() -> None:
    rows = make_rows(40)
    counts: Dict[str, int] = {}
    for seed in range(300):
        for text, _, _ in select(rows, 4, random_share=1.0, seed=seed):
            counts[text] = counts.get(text, 0) + 1
    assert len(counts) == 40 and sum(counts.values()) == 1200
    assert min(counts.values()) > 12 and max(counts.values()) < 52  # 30 on average, deviation 5


def test_diverse_texts_are_the_best_of_each_cluster() -> None:
    chooser = numpy.random.RandomState(0)
    clusters = numpy.arange(60) % 4
    vectors = numpy.eye(4)[clusters] + 0.01 * chooser.normal(size=(60, 4))
    rows = make_rows(60)
    expected = [next(row for row in sorted_rows(rows) if clusters[rows.index(row)] == k) for k in range(4)]
    found = select(rows, 4, vectors, diverse=True)
    pool = sorted_rows(rows)[: 4 * OVERSELECT]
    assert set(expected) <= set(pool)
    assert [(text, score) for text, score, _ in found] == [row for row in pool if row in expected]
    assert found == select(rows, 4, vectors, diverse=True)


def make_clusters(sizes: List[int], seed: int = 0) -> numpy.ndarray:
    """Clusters that are far from each other, their vectors spread around their centres."""
    generator = numpy.random.default_rng(seed)
    rows = [100.0 * number + generator.normal(size=(size, 5)) for number, size in enumerate(sizes)]
    return numpy.concatenate(rows)


def most_central(vectors: numpy.ndarray, first: int, last: int) -> int:
    """That of some rows with the least mean distance to the others, at most 20 of them."""

    def distance(row: int) -> float:
        others = [float(numpy.linalg.norm(vectors[row] - vectors[o])) for o in range(first, last) if o != row]
        return sum(sorted(others)[:20]) / len(others[:20])

    return min(range(first, last), key=distance)


def test_of_each_cluster_the_text_nearest_to_its_neighbours_largest_cluster_first() -> None:
    vectors = make_clusters([7, 40, 25])
    expected = [most_central(vectors, *rows) for rows in ((7, 47), (47, 72), (0, 7))]
    assert choose_typical(vectors, 3) == expected


def test_clusters_of_annotated_texts_come_last_those_with_most_of_them_last_of_all() -> None:
    vectors = make_clusters([30, 20, 10, 5])
    central = [most_central(vectors, *rows) for rows in ((0, 30), (30, 50), (50, 60), (60, 65))]
    covered = numpy.concatenate([vectors[[0, 1]] + 0.1, vectors[[50]] + 0.1])  # two in the first, one in the third
    assert choose_typical(vectors, 1, covered=covered) == [central[1]]
    covered = covered[[0, 2]]
    assert choose_typical(vectors, 2, covered=covered) == [central[1], central[3]]
    # Fewer clusters than texts that are wanted: the rest are the most typical of those that are left
    assert len(set(choose_typical(vectors, 8, covered=covered))) == 8
    assert choose_typical(vectors, 3, covered=numpy.zeros((0, 5))) == choose_typical(vectors, 3)


def test_all_are_chosen_where_there_are_not_more_and_equal_ones_count_once_first() -> None:
    vectors = make_clusters([4])
    assert choose_typical(vectors, 9) == choose_typical(vectors, 9, covered=vectors) == [0, 1, 2, 3]
    same = numpy.zeros((6, 3))
    same[3:] = 1.0
    chosen = choose_typical(same, 4)
    assert len(set(chosen)) == 4 and {row // 3 for row in chosen[:2]} == {0, 1}


def test_typical_texts_beside_the_best_and_drawn_ones() -> None:
    rows, vectors = make_rows(60), make_clusters([30, 20, 10])
    found = select(rows, 10, vectors, typical_share=1 / 3, random_share=0.1)
    by_way = {way: [text for text, _, its in found if its == way] for way in ("typical", "random", None)}
    assert [len(by_way[way]) for way in ("typical", "random", None)] == [3, 1, 6] and len(set(found)) == 10
    left = [number for number, (text, _) in enumerate(rows) if text not in by_way["random"]]
    typical = [rows[left[row]][0] for row in choose_typical(vectors[left].astype("float32"), 3)]
    assert by_way["typical"] == typical
    rest = [text for text, _ in sorted_rows(rows) if text not in [*typical, *by_way["random"]]]
    assert by_way[None] == rest[:6]
    assert found == select(rows, 10, vectors, typical_share=1 / 3, random_share=0.1)


@pytest.mark.parametrize("n", [0, 1, 5, 9])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_small_pool_is_given_out_whole(n: int, share: float) -> None:
    found = select(make_rows(n), 9, make_clusters([9])[:n], typical_share=share, random_share=0.2)
    assert sorted(text for text, _, _ in found) == sorted(f"text {i}" for i in range(n))


def test_of_a_long_stream_an_even_sample_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TEXTS", 15)
    selection = Selection(4, typical_share=0.5)
    for number, (text, score) in enumerate(make_rows(300)):
        selection.add(number, text, score, [{"text": text}], numpy.full(3, score, dtype="float32"))
        (kept,) = selection._database.execute("SELECT COUNT(*) FROM candidates").fetchone()
        assert kept <= 15 + 4
    assert [chosen.way for chosen in selection.chosen()].count("typical") == 2
    # Of more than are compared, the best take the places
    found = select(make_rows(300), 100, numpy.zeros((300, 3)), typical_share=0.5)
    assert len(set(found)) == 100 and [way for _, _, way in found].count("typical") == 15


def test_equal_vectors_are_filled_up_with_the_best() -> None:
    vectors = numpy.array([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 6)
    assert choose_diverse(vectors, 5, seed=0) == [0, 1, 2, 3, 6]
    assert choose_diverse(vectors, 0, seed=0) == []
    rows = make_rows(12)
    assert len(select(rows, 12, vectors, diverse=True)) == len(select(rows, 40, vectors, diverse=True)) == 12


def test_texts_are_known_by_their_first_role() -> None:
    selection = Selection(None)
    assert [selection.note_text(text, role) for text, role in [("a", 0), ("b", 1), ("a", 1), ("b", 0)]] == [
        *(None, None, 0, 1)
    ]


def test_spread() -> None:
    assert spread([1, 2, 3, 4], [8, 9]) == [1, 8, 2, 3, 9, 4]
    assert spread([], [8, 9]) == [8, 9] and spread([1], []) == [1]


@pytest.mark.parametrize(
    "limit, settings, name",
    [
        (0, {}, "--limit"),
        (5, {"random_share": 1.1}, "--random-share"),
        (5, {"random_share": float("nan")}, "--random-share"),
        (None, {"random_share": 0.1}, "--random-share"),
        (None, {"diverse": True}, "--diverse"),
    ],
)
def test_settings_that_make_no_sense(limit: Optional[int], settings: Dict[str, Any], name: str) -> None:
    with pytest.raises(BertHeadsError, match=name) as error:
        Selection(limit, **settings)
    assert error.value.code == "H504"
