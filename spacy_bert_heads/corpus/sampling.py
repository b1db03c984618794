"""An even sample of a stream of unknown length."""

import random
from typing import Generic, List, TypeVar

T = TypeVar("T")


class EvenSample(Generic[T]):
    """Keeps so many things of a stream that each had the same chance.

    size (int): How many at most.
    seed (int): For the draws.

    kept (List[T]): The sample.
    seen (int): Things that were offered.

    SOURCE: Vitter (1985), Random Sampling with a Reservoir, algorithm R.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.kept: List[T] = []
        self.seen = 0
        self._draw = random.Random(seed)

    def offer(self, thing: T) -> None:
        """Take the next thing of the stream, in place of another one if need be, or let it pass."""
        self.seen += 1
        place = self.seen - 1 if self.seen <= self.size else self._draw.randrange(self.seen)
        if place < self.size:
            self.kept[place : place + 1] = [thing]
