"""Histograms with fixed upper bounds, for durations."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Histogram"]


class Histogram:
    """Counts values. Each costs a bisection, an increment, an addition and a comparison.

    Args:
        bounds: The upper bounds, ascending. A value belongs to the first bound that is not below it.
    """

    __slots__ = ("_bounds", "counts", "largest", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self.counts = [0] * (len(self._bounds) + 1)
        """The number of values for each bound; last, the number of values above all bounds."""
        self.sum = 0.0
        self.largest = 0.0
        """The largest value so far; 0 if there was none."""

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value
        if value > self.largest:
            self.largest = value

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[float, int]]:
        """Return each upper bound, and infinity, with the number of values that are not above it."""
        total = 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), self.counts, strict=True):
            total += count
            buckets.append((bound, total))
        return buckets
