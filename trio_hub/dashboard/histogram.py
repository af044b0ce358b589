"""How long things take: counts of values, by upper bounds that never change."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Histogram"]


class Histogram:
    """Counts values. One costs a bisection, an increment, an addition and a comparison.

    Args:
        bounds: upper bounds, ascending; a value belongs to the first that is not below it.
    """

    __slots__ = ("_bounds", "counts", "largest", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self.counts = [0] * (len(self._bounds) + 1)
        """By place in the bounds; the last are the values above all of them."""
        self.sum = 0.0
        self.largest = 0.0
        """The largest value that there was."""

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value
        if value > self.largest:
            self.largest = value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[float, int]]:
        """Each upper bound, infinity the last, and how many values were not above it."""
        total = 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), self.counts, strict=True):
            total += count
            buckets.append((bound, total))
        return buckets
