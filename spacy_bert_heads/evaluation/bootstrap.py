"""How far a score could move with other texts of the same kind: bootstrap intervals over texts."""

from typing import List, Optional, Tuple

import numpy

N_SAMPLES = 1000
SEED = 0
LEVEL = 95
# Drawn texts that are in memory at once
MAX_CELLS = 4_000_000

Interval = Tuple[float, float]


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
    random_state = numpy.random.default_rng(seed)
    step = max(1, MAX_CELLS // n_texts)
    for first in range(0, n_samples, step):
        count = min(step, n_samples - first)
        drawn = random_state.integers(0, n_texts, size=(count, n_texts))
        drawn += n_texts * numpy.arange(count)[:, None]
        times = numpy.bincount(drawn.ravel(), minlength=count * n_texts).reshape(count, n_texts)
        sums[first : first + count] = (times.astype(flat.dtype) @ flat).reshape(count, *values.shape[1:])
    return sums


def intervals(samples: numpy.ndarray) -> List[Optional[Interval]]:
    """The middle 95 % of the draws.

    samples (numpy.ndarray): Scores, NaN where a draw has none. Float, (n_samples, n_scores).
    RETURNS (List[Optional[Interval]]): Low and high border of each score; None if no draw has it.
    """
    tail = (100 - LEVEL) / 2
    found: List[Optional[Interval]] = []
    for column in samples.T:
        there = column[~numpy.isnan(column)]
        found.append((*map(float, numpy.percentile(there, (tail, 100 - tail))),) if len(there) else None)  # type: ignore[arg-type]
    return found


def mean_interval(values: numpy.ndarray) -> Optional[Interval]:
    """RETURNS (Optional[Interval]): Of the mean of one value per text. Float, (n_texts,). None without texts."""
    if not len(values):
        return None
    return intervals(resample_sums(values.astype("float64"))[:, None] / len(values))[0]
