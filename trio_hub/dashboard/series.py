"""Numbers of the last minutes, one of each a second, in rings of a fixed size; and what may be read off them."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from .histogram import Histogram

__all__ = ["LastMinute", "Series", "percentile"]

SECONDS = 300
"""How long the series are."""
WINDOW = 60
"""Seconds of which percentiles tell."""


class Series:
    """Several numbers, noted together, as often as somebody says.

    Args:
        names: of the numbers.
        size: how many notes are kept.
    """

    def __init__(self, names: Iterable[str], size: int = SECONDS) -> None:
        self._size = size
        self._columns = {name: array("d", bytes(8 * size)) for name in names}
        self._noted = 0

    def __len__(self) -> int:
        return min(self._noted, self._size)

    def note(self, values: Mapping[str, float]) -> None:
        """Note a value of each."""
        place = self._noted % self._size
        for name, column in self._columns.items():
            column[place] = values[name]
        self._noted += 1

    def all(self) -> dict[str, list[float]]:
        """What is kept, by name, the oldest first."""
        if self._noted <= self._size:
            return {name: column[: self._noted].tolist() for name, column in self._columns.items()}
        place = self._noted % self._size
        return {name: (column[place:] + column[:place]).tolist() for name, column in self._columns.items()}


class LastMinute:
    """What histograms have counted lately, all of which have the same bounds: they themselves never forget."""

    def __init__(self, bounds: Sequence[float], window: int = WINDOW) -> None:
        self._bounds = tuple(bounds)
        self._past: deque[list[int]] = deque([[0] * (len(self._bounds) + 1)], maxlen=window + 1)
        self._largest = 0.0

    def note(self, histograms: Iterable[Histogram]) -> None:
        """Note how far they have counted; once a second."""
        histograms = list(histograms)
        counts = [histogram.counts for histogram in histograms]
        self._largest = max((histogram.largest for histogram in histograms), default=0.0)
        self._past.append([sum(column) for column in zip(*counts, strict=True)] or self._past[0])

    def summary(self) -> dict[str, float] | None:
        """``p50``, ``p95``, ``p99`` in seconds, and ``count``; None if there was nothing.

        Bounds may be minutes apart, so what they say is not more than the longest that there ever was.
        """
        counts = [now - then for now, then in zip(self._past[-1], self._past[0], strict=True)]
        total = sum(counts)
        if not total:
            return None
        parts = {f"p{part}": min(self._largest, percentile(self._bounds, counts, part / 100)) for part in (50, 95, 99)}
        return parts | {"count": total}


def percentile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float:
    """The value that this part of all are not above, as far as bounds tell: evenly spread between two of them.

    Args:
        bounds: upper bounds, ascending.
        counts: of values up to each bound and above the one before; the last, of those above all. At least one.
        part: between 0 and 1.
    """
    wanted = part * sum(counts)
    below = 0
    lower = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below += count
        lower = bound
    return lower
