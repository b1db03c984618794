"""Which of a stream of scored texts to give out: the best, different ones among them, and some at random.

Memory holds a few numbers for each text that may still be chosen. What is to be written for it, and which texts were
there before, is on disk.
"""

import heapq
import json
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy

from ..corpus.store import disk_errors, hash_text, open_nameless
from ..errors import BertHeadsError
from .strategies import random_number

# So many times the texts that are asked for are put into clusters.
OVERSELECT = 10
KMEANS_BATCH = 4096

TABLES = """
CREATE TABLE texts (hash INTEGER PRIMARY KEY, role INTEGER);
CREATE TABLE candidates (number INTEGER PRIMARY KEY, score REAL, vector BLOB, tasks TEXT);
BEGIN;
"""
INDEX = "CREATE INDEX by_score ON candidates (score DESC, number)"
IN_ORDER = "SELECT number FROM candidates ORDER BY score DESC, number"


class TopK:
    """The numbers with the highest scores of a stream; of equal scores the earlier ones.

    size (int): How many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: List[Tuple[float, int]] = []

    def add(self, score: float, number: int) -> Optional[int]:
        """Take a number if there is a place for it.

        score (float): Its score.
        number (int): Higher than all before it.
        RETURNS (Optional[int]): The number that is out: this one, or one that had a place. None if there is still
            room.
        """
        entry = (score, -number)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, entry)
            return None
        return -heapq.heappushpop(self._heap, entry)[1] if self.size else number

    def in_order(self) -> List[int]:
        """RETURNS (List[int]): The numbers, highest score first."""
        return [-number for _, number in sorted(self._heap, reverse=True)]


class Chosen(NamedTuple):
    """A text that is given out.

    score (float): Its score.
    is_random (bool): Whether it was drawn, whatever its score.
    tasks (List[Dict[str, Any]]): What is to be asked about it.
    """

    score: float
    is_random: bool
    tasks: List[Dict[str, Any]]


class Selection:
    """Takes a stream of scored texts and gives the chosen ones, best first.

    Drawn texts are an even sample of the whole stream, those with high scores among them: each text draws a number,
    and the highest ones win, which is reservoir sampling that draws the same texts again from the same stream. They
    are spread evenly among the others.

    limit (Optional[int]): How many texts. None: all of them.
    diverse (bool): Choose different ones: of OVERSELECT times as many texts, the best of each of `limit` clusters.
    random_share (float): So much of the limit is drawn.
    seed (int): For clusters and draws.
    RAISES (BertHeadsError): H504 for settings that make no sense; H410 if there is no scikit-learn to be diverse with.

    SOURCE: Zhdanov (2019), Diverse mini-batch Active Learning, for clusters among the highest scores.
    """

    def __init__(
        self, limit: Optional[int], *, diverse: bool = False, random_share: float = 0.0, seed: int = 0
    ) -> None:
        if limit is not None and limit < 1:
            raise BertHeadsError("H504", name="--limit", found=limit, expected="1 or more")
        if not 0.0 <= random_share <= 1.0:
            raise BertHeadsError("H504", name="--random-share", found=random_share, expected="0 to 1")
        if limit is None and (diverse or random_share):
            name = "--diverse" if diverse else "--random-share"
            raise BertHeadsError("H504", name=name, found="on", expected="a --limit beside it")
        if diverse:
            import_clusters()
        self.limit = limit
        self.diverse = diverse
        self.seed = seed
        n_drawn = round((limit or 0) * random_share)
        self._n_best = (limit or 0) - n_drawn
        # With as many as may be drawn, so that those can be left out of the best
        self._best = TopK(self._n_best * (OVERSELECT if diverse else 1) + n_drawn)
        self._drawn = TopK(n_drawn)
        self._n_places: Dict[int, int] = {}
        self._database = open_nameless()
        self._database.executescript(TABLES)

    def note_text(self, text: str, role: int) -> Optional[int]:
        """Remember a text.

        text (str): The text.
        role (int): What it is.
        RETURNS (Optional[int]): The role it had before; None if it is new.
        RAISES (BertHeadsError): H160 if the disk is full.
        """
        key = hash_text(text)
        with disk_errors():
            known = self._database.execute("SELECT role FROM texts WHERE hash = ?", (key,)).fetchone()
            if known is not None:
                return int(known[0])
            self._database.execute("INSERT INTO texts VALUES (?, ?)", (key, role))
        return None

    def add(
        self, number: int, text: str, score: float, tasks: List[Dict[str, Any]], vector: Optional[numpy.ndarray] = None
    ) -> None:
        """Consider a text.

        number (int): Higher than all before it.
        text (str): The text.
        score (float): How much it is worth.
        tasks (List[Dict[str, Any]]): What would be asked about it.
        vector (Optional[numpy.ndarray]): By which to tell whether texts are alike. Float32, (width,).
        RAISES (BertHeadsError): H160 if the disk is full.
        """
        if self.limit is not None:
            self._n_places[number] = 2
            out = [self._best.add(score, number), self._drawn.add(random_number(text, self.seed), number)]
            for loser in out:
                if loser is not None:
                    self._lose_place(loser)
            if number not in self._n_places:
                return
        row = (number, score, None if vector is None else vector.tobytes(), json.dumps(tasks, ensure_ascii=False))
        with disk_errors():
            self._database.execute("INSERT INTO candidates VALUES (?, ?, ?, ?)", row)

    def chosen(self) -> Iterator[Chosen]:
        """YIELDS (Chosen): The texts that are given out."""
        if self.limit is None:
            with disk_errors():
                self._database.execute(INDEX)
                for (number,) in self._database.execute(IN_ORDER):
                    yield self._read(number, is_random=False)
            return
        drawn = self._drawn.in_order()
        is_drawn = set(drawn)
        best = [number for number in self._best.in_order() if number not in is_drawn]
        if self.diverse and len(best) > self._n_best:
            best = [best[i] for i in choose_diverse(self._vectors(best), self._n_best, self.seed)]
        for number in spread(best[: self._n_best], drawn):
            yield self._read(number, is_random=number in is_drawn)

    def close(self) -> None:
        """Give the disk space back."""
        self._database.close()

    def _lose_place(self, number: int) -> None:
        self._n_places[number] -= 1
        if not self._n_places[number]:
            del self._n_places[number]
            with disk_errors():
                self._database.execute("DELETE FROM candidates WHERE number = ?", (number,))

    def _read(self, number: int, *, is_random: bool) -> Chosen:
        query = "SELECT score, tasks FROM candidates WHERE number = ?"
        with disk_errors():
            score, tasks = self._database.execute(query, (number,)).fetchone()
        return Chosen(score, is_random, json.loads(tasks))

    def _vectors(self, numbers: Sequence[int]) -> numpy.ndarray:
        query = "SELECT vector FROM candidates WHERE number = ?"
        with disk_errors():
            rows = [self._database.execute(query, (number,)).fetchone()[0] for number in numbers]
        return numpy.stack([numpy.frombuffer(row, dtype="float32") for row in rows])


def choose_diverse(vectors: numpy.ndarray, n: int, seed: int) -> List[int]:
    """Put vectors into n clusters by k-means and take the first of each.

    vectors (numpy.ndarray): Best first. Float, (n_vectors, width).
    n (int): How many to choose, fewer than there are.
    seed (int): For the first centres.
    RETURNS (List[int]): Rows in rising order. Where there are fewer clusters than n, as among equal vectors, the
        first of the others too.
    RAISES (BertHeadsError): H410 if scikit-learn is not installed.
    """
    n_clusters = min(n, len(numpy.unique(vectors, axis=0)))
    if not n_clusters:
        return []
    kmeans = import_clusters().MiniBatchKMeans(n_clusters, random_state=seed, batch_size=KMEANS_BATCH, n_init=1)
    _, firsts = numpy.unique(kmeans.fit_predict(vectors), return_index=True)
    taken: Set[int] = set(firsts.tolist())
    others = (row for row in range(len(vectors)) if row not in taken)
    return sorted([*taken, *(next(others) for _ in range(n - len(taken)))])


def spread(first: Sequence[int], second: Sequence[int]) -> List[int]:
    """RETURNS (List[int]): Both lists as one, each in its order and evenly spread."""
    places = [((i + 0.5) / len(numbers), number) for numbers in (first, second) for i, number in enumerate(numbers)]
    return [number for _, number in sorted(places, key=lambda place: place[0])]


def import_clusters() -> Any:
    """RETURNS (Any): sklearn.cluster. RAISES (BertHeadsError): H410 if there is none."""
    try:
        import sklearn.cluster
    except ImportError as error:
        raise BertHeadsError("H410", found="scikit-learn", extra="diverse") from error
    return sklearn.cluster
