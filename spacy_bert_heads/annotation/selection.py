"""Which of a stream of scored texts to give out: the best, different ones among them, typical ones, some at random.

Memory holds a few numbers for each text that may still be chosen. What is to be written for it, and which texts were
there before, is on disk.
"""

import heapq
import json
from importlib.util import find_spec
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy

from ..corpus.store import disk_errors, hash_text, open_nameless
from ..errors import BertHeadsError
from .strategies import RANDOM, TYPICAL, random_number

# So many times the texts that are asked for are put into clusters.
OVERSELECT = 10
KMEANS_BATCH = 4096
# Texts that are compared at most to find typical ones, neighbours whose distance says how typical a text is, clusters
# at most, and up to which number clusters are those of all texts at once
MOST_TEXTS = 20_000
NEIGHBOURS = 20
MOST_CLUSTERS = 500
WHOLE_CLUSTERS = 100

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
    way (Optional[str]): TYPICAL or RANDOM for a text that is chosen whatever its score. None: for its score.
    tasks (List[Dict[str, Any]]): What is to be asked about it.
    """

    score: float
    way: Optional[str]
    tasks: List[Dict[str, Any]]


class Selection:
    """Takes a stream of scored texts and gives the chosen ones, best first.

    Drawn texts are an even sample of the whole stream, those with high scores among them: each text draws a number,
    and the highest ones win, which is reservoir sampling that draws the same texts again from the same stream. They
    are spread evenly among the others. So are typical texts, which are chosen by their vectors from such a sample.

    limit (Optional[int]): How many texts. None: all of them.
    diverse (bool): Choose different ones: of OVERSELECT times as many texts, the best of each of `limit` clusters.
    random_share (float): So much of the limit is drawn.
    typical_share (float): So much of the rest are typical texts; see choose_typical.
    seed (int): For clusters and draws.
    RAISES (BertHeadsError): H504 for settings that make no sense; H410 if there is no scikit-learn to be diverse with.

    SOURCE: Zhdanov (2019), Diverse mini-batch Active Learning, for clusters among the highest scores.
    """

    def __init__(
        self,
        limit: Optional[int],
        *,
        diverse: bool = False,
        random_share: float = 0.0,
        typical_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        check_selection(limit, diverse=diverse, random_share=random_share)
        if typical_share:
            import_clusters()
        self.limit = limit
        self.diverse = diverse
        self.seed = seed
        self._n_drawn = round((limit or 0) * random_share)
        self._n_typical = round(((limit or 0) - self._n_drawn) * typical_share)
        self._n_best = (limit or 0) - self._n_drawn - self._n_typical
        self._covered: Optional[numpy.ndarray] = None
        # With as many as may be chosen otherwise, so that those can be left out of the best
        self._best = TopK(self._n_best * (OVERSELECT if diverse else 1) + self._n_drawn + self._n_typical)
        self._sample = TopK(self._n_drawn + (MOST_TEXTS if self._n_typical else 0))
        self._n_places: Dict[int, int] = {}
        self._database = open_nameless()
        self._database.executescript(TABLES)

    @property
    def compares(self) -> bool:
        """RETURNS (bool): Whether it looks at the vectors of texts."""
        return self.diverse or self.chooses_typical

    @property
    def chooses_typical(self) -> bool:
        """RETURNS (bool): Whether there are typical texts among those that it gives out."""
        return self._n_typical > 0

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

    def cover(self, vectors: numpy.ndarray) -> None:
        """Say what is annotated: clusters of these texts need no typical one.

        vectors (numpy.ndarray): Of annotated texts. Float32, (n_texts, width).
        """
        self._covered = vectors

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
            out = [self._best.add(score, number), self._sample.add(random_number(text, self.seed), number)]
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
                    yield self._read(number, None)
            return
        sample = self._sample.in_order()
        drawn, others = sample[: self._n_drawn], sorted(sample[self._n_drawn :])
        typical: List[int] = []
        if self._n_typical and others:
            rows = choose_typical(self._vectors(others), self._n_typical, self.seed, self._covered)
            typical = [others[row] for row in rows]
        ways = {**dict.fromkeys(typical, TYPICAL), **dict.fromkeys(drawn, RANDOM)}
        best = [number for number in self._best.in_order() if number not in ways]
        # More of them if there are fewer typical texts than were wanted
        n_best = self._n_best + self._n_typical - len(typical)
        if self.diverse and len(best) > n_best:
            best = [best[i] for i in choose_diverse(self._vectors(best), n_best, self.seed)]
        for number in spread(spread(best[:n_best], typical), drawn):
            yield self._read(number, ways.get(number))

    def close(self) -> None:
        """Give the disk space back."""
        self._database.close()

    def _lose_place(self, number: int) -> None:
        self._n_places[number] -= 1
        if not self._n_places[number]:
            del self._n_places[number]
            with disk_errors():
                self._database.execute("DELETE FROM candidates WHERE number = ?", (number,))

    def _read(self, number: int, way: Optional[str]) -> Chosen:
        query = "SELECT score, tasks FROM candidates WHERE number = ?"
        with disk_errors():
            score, tasks = self._database.execute(query, (number,)).fetchone()
        return Chosen(score, way, json.loads(tasks))

    def _vectors(self, numbers: Sequence[int]) -> numpy.ndarray:
        query = "SELECT vector FROM candidates WHERE number = ?"
        with disk_errors():
            rows = [self._database.execute(query, (number,)).fetchone()[0] for number in numbers]
        return numpy.stack([numpy.frombuffer(row, dtype="float32") for row in rows])


def check_selection(limit: Optional[int], *, diverse: bool, random_share: float) -> None:
    """RAISES (BertHeadsError): As Selection, for its settings."""
    if limit is not None and limit < 1:
        raise BertHeadsError("H504", name="--limit", found=limit, expected="1 or more")
    if not 0.0 <= random_share <= 1.0:
        raise BertHeadsError("H504", name="--random-share", found=random_share, expected="0 to 1")
    if limit is None and (diverse or random_share):
        name = "--diverse" if diverse else "--random-share"
        raise BertHeadsError("H504", name=name, found="on", expected="a --limit beside it")
    if diverse:
        import_clusters()


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


def choose_typical(
    vectors: numpy.ndarray, size: int, seed: int = 0, covered: Optional[numpy.ndarray] = None
) -> List[int]:
    """Of each of `size` clusters the most typical text: that with the least mean distance to its neighbours there.

    vectors (numpy.ndarray): Of the texts. Float, (n_texts, width).
    size (int): How many texts.
    seed (int): For the clusters.
    covered (Optional[numpy.ndarray]): Vectors of texts that are annotated. There are as many clusters more, and those
        without annotated texts come first. Float, (n_covered, width).
    RETURNS (List[int]): Numbers of texts, that of the largest cluster first. Where there are fewer clusters than texts
        to choose, the second ones of all clusters follow, and so on. All texts if there are not more.
    RAISES (BertHeadsError): H410 without scikit-learn.

    SOURCE: Hacohen, Dekel and Weinshall (2022), Active Learning on a Budget: Opposite Strategies Suit High and Low
        Budgets, TypiClust. Its typicality is the inverse of this distance, and 500 clusters its limit.
    """
    cluster = import_clusters()
    if size >= len(vectors):
        return list(range(len(vectors)))
    n_covered = 0 if covered is None else len(covered)
    everything = numpy.concatenate([vectors, covered]) if covered is not None and n_covered else vectors
    # Of fewer different texts than clusters some clusters stay empty
    n_clusters = min(size + n_covered, MOST_CLUSTERS, len(numpy.unique(everything, axis=0)))
    if n_clusters > WHOLE_CLUSTERS:
        kmeans = cluster.MiniBatchKMeans(n_clusters, random_state=seed, batch_size=KMEANS_BATCH, n_init=1)
    else:
        kmeans = cluster.KMeans(n_clusters, random_state=seed, n_init=1)
    found = kmeans.fit_predict(everything)
    clusters, known = found[: len(vectors)], numpy.bincount(found[len(vectors) :], minlength=n_clusters)
    order = []
    for number in numpy.unique(clusters):
        rows = numpy.flatnonzero(clusters == number)
        nearest = rows[numpy.argsort(_neighbour_distances(vectors[rows]), kind="stable")]
        order += [(rank, int(known[number]), -len(rows), int(number), int(row)) for rank, row in enumerate(nearest)]
    return [row for *_, row in sorted(order)[:size]]


def _neighbour_distances(vectors: numpy.ndarray) -> numpy.ndarray:
    """Mean distance of each vector to its nearest neighbours. Float64, (n,)."""
    from sklearn.neighbors import NearestNeighbors

    n = min(NEIGHBOURS, len(vectors) - 1)
    if n < 1:
        return numpy.zeros(len(vectors))
    # Without an argument no vector is its own neighbour
    found, _ = NearestNeighbors(n_neighbors=n).fit(vectors).kneighbors()
    return numpy.asarray(found.mean(axis=1))


def spread(first: Sequence[int], second: Sequence[int]) -> List[int]:
    """RETURNS (List[int]): Both lists as one, each in its order and evenly spread."""
    places = [((i + 0.5) / len(numbers), number) for numbers in (first, second) for i, number in enumerate(numbers)]
    return [number for _, number in sorted(places, key=lambda place: place[0])]


def can_cluster() -> bool:
    """RETURNS (bool): Whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def import_clusters() -> Any:
    """RETURNS (Any): sklearn.cluster. RAISES (BertHeadsError): H410 if there is none."""
    try:
        import sklearn.cluster
    except ImportError as error:
        raise BertHeadsError("H410", found="scikit-learn", extra="diverse") from error
    return sklearn.cluster
