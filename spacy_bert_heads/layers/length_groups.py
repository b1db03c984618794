"""Sequences of like length together, so that they can be padded at little cost."""

from typing import List, Sequence, Tuple, Union

import numpy

from ..types import Ints


def group_by_length(lengths: Ints, max_size: int, group_cost: int) -> List[Ints]:
    """Groups for which items, padding and the number of groups cost least in all.

    lengths (Ints): Of each sequence. (n,).
    max_size (int): Items of a group at most, padding counted; a sequence longer than that goes alone.
    group_cost (int): What a group costs beyond its items, in items.
    RETURNS (List[Ints]): Numbers of the sequences in each group, longest first.
    """
    order = numpy.argsort(-lengths, kind="stable")
    longest, counts = numpy.unique(-lengths, return_counts=True)
    longest = -longest
    ends = ends_of(counts)
    # Those of one length stay together. best[j]: cost of all sequences of the j greatest lengths; for the group that
    # ends there, every first length i is tried
    best = numpy.zeros(len(longest) + 1)
    firsts = numpy.zeros(len(longest) + 1, dtype="int64")
    per_group = numpy.maximum(1, max_size // numpy.maximum(1, longest))
    for j in range(1, len(longest) + 1):
        sizes = ends[j] - ends[:j]
        n_groups = -(-sizes // per_group[:j])
        costs = best[:j] + longest[:j] * sizes + group_cost * n_groups
        firsts[j] = costs.argmin()
        best[j] = costs[firsts[j]]
    groups: List[Ints] = []
    j = len(longest)
    while j:
        i = int(firsts[j])
        group = order[ends[i] : ends[j]]
        cuts = range(0, len(group), int(per_group[i]))
        groups[:0] = [group[cut : cut + per_group[i]] for cut in cuts]
        j = i
    return groups


def ends_of(lengths: Union[Ints, List[int]]) -> Ints:
    """Where runs of these lengths begin when laid end to end, and where the last one ends. (n + 1,)."""
    return numpy.concatenate([numpy.zeros(1, dtype="int64"), numpy.cumsum(lengths, dtype="int64")])


def filled_up(n: int, steps: Sequence[Tuple[int, int]]) -> int:
    """Fill up to one of few sizes: oneDNN compiles a kernel for each, and keeps it.

    n (int): How many there are.
    steps (Sequence[Tuple[int, int]]): Up to so many are filled up to a multiple of this; ascending.
    RETURNS (int): At least n.
    """
    step = next(step for most, step in steps if n <= most)
    return -(-n // step) * step
