"""Time series of the last minutes, with one value per second, in rings of a fixed size; rates and percentiles."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

from .histogram import Histogram

__all__ = ["SECONDS", "LastMinute", "Rates", "Series", "percentile"]

SECONDS = 300
"""The length of the series in seconds."""
WINDOW = 60
"""The seconds that percentiles cover."""


class Series:
    """Several time series, to which values are added together.

    Args:
        names: The names of the series.
        size: The number of values to keep of each.
    """

    def __init__(self, names: Iterable[str], size: int = SECONDS) -> None:
        self._size = size
        self._columns = {name: array("d", bytes(8 * size)) for name in names}
        self._noted = 0

    def __len__(self) -> int:
        return min(self._noted, self._size)

    def note(self, values: Mapping[str, float]) -> None:
        """Add one value to each series."""
        place = self._noted % self._size
        for name, column in self._columns.items():
            column[place] = values[name]
        self._noted += 1

    def all(self) -> dict[str, list[float]]:
        """Return the values of all series by name, the oldest first."""
        if self._noted <= self._size:
            return {name: column[: self._noted].tolist() for name, column in self._columns.items()}
        place = self._noted % self._size
        return {name: (column[place:] + column[:place]).tolist() for name, column in self._columns.items()}


class Rates:
    """How fast counters grow, over the last seconds. `note` must be called every few seconds, at most once a second.

    Args:
        windows: The lengths of time, in seconds, that rates cover.
    """

    def __init__(self, windows: Sequence[int]) -> None:
        self._windows = tuple(windows)
        self._past: deque[tuple[float, Mapping[str, int]]] = deque(maxlen=max(windows) + 1)

    def note(self, now: float, counts: Mapping[str, int]) -> None:
        """Note the present counts. `now` is a time in seconds that never goes back."""
        self._past.append((now, counts))

    def over(self, seconds: float) -> dict[str, float]:
        """Return by how much each counter has grown per second, over this time or the time since the first note."""
        now, counts = self._past[-1]
        begin, before = self._past[0]
        for then, at in reversed(self._past):
            begin, before = then, at
            if now - then >= seconds * 0.99:
                break
        passed = now - begin
        return {name: (count - before[name]) / passed if passed > 0 else 0.0 for name, count in counts.items()}

    def all(self) -> dict[str, dict[str, float]]:
        """Return the rates over each window, by its length in seconds."""
        return {str(window): self.over(window) for window in self._windows}


class LastMinute:
    """The values that histograms with equal bounds have counted during the last minute."""

    def __init__(self, bounds: Sequence[float], window: int = WINDOW) -> None:
        self._bounds = tuple(bounds)
        self._past: deque[list[int]] = deque([[0] * (len(self._bounds) + 1)], maxlen=window + 1)
        self._largest = 0.0

    def note(self, histograms: Iterable[Histogram], seconds: int = 1) -> None:
        """Note the present counts of the histograms. `seconds` is the number of seconds since the last call."""
        histograms = list(histograms)
        counts = [histogram.counts for histogram in histograms]
        self._largest = max((histogram.largest for histogram in histograms), default=0.0)
        present = [sum(column) for column in zip(*counts, strict=True)] or self._past[0]
        self._past.extend(repeat(present, seconds))

    def summary(self) -> dict[str, float] | None:
        """Return ``p50``, ``p95``, ``p99`` in seconds, and ``count``; None if there were no values.

        Percentiles are at most the largest value so far, since neighbouring bounds may be minutes apart.
        """
        counts = [now - then for now, then in zip(self._past[-1], self._past[0], strict=True)]
        total = sum(counts)
        if not total:
            return None
        parts = {f"p{part}": min(self._largest, percentile(self._bounds, counts, part / 100)) for part in (50, 95, 99)}
        return parts | {"count": total}


def percentile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float:
    """Return an estimate of a percentile. Values are assumed to be evenly distributed between two bounds.

    Args:
        bounds: The upper bounds, ascending.
        counts: The number of values between each bound and the one before; last, of values above all bounds. There
            must be at least one value.
        part: The part of all values that are not above the percentile, between 0 and 1.
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
