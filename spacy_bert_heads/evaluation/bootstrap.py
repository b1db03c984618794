"""How far a score could move with other texts of the same kind: bootstrap intervals over texts."""

from typing import Iterator, List, NamedTuple, Optional, Tuple

import numpy

N_SAMPLES = 1000
SEED = 0
LEVEL = 95
# Drawn texts that are in memory at once
MAX_CELLS = 4_000_000

Interval = Tuple[float, float]


class Cells(NamedTuple):
    """What each text adds to each of many sums, without the zeros: of thousands of labels a text has few.

    n_texts (int): How many texts there are.
    n_sums (int): How many sums.
    texts (numpy.ndarray): Which text. Int, (n_cells,).
    sums (numpy.ndarray): Which sum it adds to. Int, (n_cells,).
    values (numpy.ndarray): What it adds. Float, (n_cells,).
    """

    n_texts: int
    n_sums: int
    texts: numpy.ndarray
    sums: numpy.ndarray
    values: numpy.ndarray

    @classmethod
    def from_table(cls, table: numpy.ndarray) -> "Cells":
        """RETURNS (Cells): Of a table with all zeros. Float, (n_texts, n_sums)."""
        texts, sums = table.nonzero()
        n_texts, n_sums = table.shape
        return cls(n_texts, n_sums, texts, sums, table[texts, sums].astype("float32"))

    def total(self) -> numpy.ndarray:
        """RETURNS (numpy.ndarray): The sums over all texts. Float, (n_sums,)."""
        return numpy.bincount(self.sums, self.values, minlength=self.n_sums).astype("float64")


def resample_sums(values: numpy.ndarray, n_samples: int = N_SAMPLES, seed: int = SEED) -> numpy.ndarray:
    """Sums over texts drawn with replacement, as many as there are. The same seed draws the same texts.

    values (numpy.ndarray): What each text adds to a sum. Float, (n_texts, ...).
    n_samples (int): How often to draw.
    seed (int): Seed of the draws.
    RETURNS (numpy.ndarray): A sum for each draw. Float, (n_samples, ...).

    SOURCE: Efron and Tibshirani (1993), An Introduction to the Bootstrap.
    """
    n_texts = len(values)
    sums = numpy.zeros((n_samples, *values.shape[1:]))
    if not values.size:
        return sums
    flat = values.reshape(n_texts, -1)
    for first, times in _draw(n_texts, n_texts, n_samples, seed):
        sums[first : first + len(times)] = (times.astype(flat.dtype) @ flat).reshape(-1, *values.shape[1:])
    return sums


def resample_cells(cells: Cells, n_samples: int = N_SAMPLES, seed: int = SEED) -> numpy.ndarray:
    """As resample_sums, with the same draws.

    cells (Cells): What each text adds to a sum.
    n_samples (int): How often to draw.
    seed (int): Seed of the draws.
    RETURNS (numpy.ndarray): Float32, (n_samples, n_sums).
    """
    drawn = numpy.zeros((n_samples, cells.n_sums), dtype="float32")
    if not len(cells.texts):
        return drawn
    order = numpy.argsort(cells.sums, kind="stable")
    texts, values = cells.texts[order], cells.values[order].astype("float32")
    used, starts = numpy.unique(cells.sums[order], return_index=True)
    for first, times in _draw(cells.n_texts, max(cells.n_texts, len(texts)), n_samples, seed):
        added = numpy.take(times.astype("float32"), texts, axis=1)
        added *= values
        drawn[first : first + len(times), used] = numpy.add.reduceat(added, starts, axis=1)
    return drawn


def _draw(n_texts: int, width: int, n_samples: int, seed: int) -> Iterator[Tuple[int, numpy.ndarray]]:
    """How often each text is drawn, for as many draws at once as keep a table of this width small."""
    random_state = numpy.random.default_rng(seed)
    step = max(1, MAX_CELLS // width)
    for first in range(0, n_samples, step):
        count = min(step, n_samples - first)
        drawn = random_state.integers(0, n_texts, size=(count, n_texts))
        drawn += n_texts * numpy.arange(count)[:, None]
        yield first, numpy.bincount(drawn.ravel(), minlength=count * n_texts).reshape(count, n_texts)


def intervals(samples: numpy.ndarray) -> List[Optional[Interval]]:
    """The middle 95 % of the draws.

    samples (numpy.ndarray): Scores, NaN where a draw has none. Float, (n_samples, n_scores).
    RETURNS (List[Optional[Interval]]): Low and high border of each score; None if no draw has it.
    """
    tail = (100 - LEVEL) / 2
    limits = (tail, 100 - tail)
    missing = numpy.isnan(samples)
    found: List[Optional[Interval]] = [None] * samples.shape[1]
    whole = numpy.flatnonzero(~missing.any(0)) if len(samples) else numpy.zeros(0, dtype="int64")
    if len(whole):
        low, high = numpy.percentile(samples[:, whole], limits, axis=0)
        for column, *borders in zip(whole.tolist(), low.tolist(), high.tolist()):
            found[column] = (borders[0], borders[1])
    for column in numpy.flatnonzero(missing.any(0) & ~missing.all(0)).tolist():
        there = samples[~missing[:, column], column]
        found[column] = (*map(float, numpy.percentile(there, limits)),)  # type: ignore[assignment]
    return found


def mean_interval(values: numpy.ndarray) -> Optional[Interval]:
    """RETURNS (Optional[Interval]): Of the mean of one value per text. Float, (n_texts,). None without texts."""
    if not len(values):
        return None
    return intervals(resample_sums(values.astype("float64"))[:, None] / len(values))[0]
