"""Time series of the last hour and the last day, in rows of a fixed length in seconds, and of a fixed number."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Literal

__all__ = ["DAY", "FOLDS", "HOUR", "Span"]

FOLDS: Mapping[str, Literal["most", "least", "mean", "sum"]] = {
    "queued": "most",
    "waiting": "most",
    "running": "most",
    "submitted": "mean",
    "finished": "mean",
    "failed": "mean",
    "aborted": "mean",
    "engines": "least",
    "rss": "most",
    "lag": "most",
    "backlog": "most",
    "lost": "sum",
    "errors": "sum",
}
"""The series, and how the values of one row become one value.

A short burst is still seen in a row of minutes, since a row has the largest value of most series, and the smallest
number of engines. Rates are means, and losses and errors are sums.
"""
_START, _COUNT, _FIRST = 0, 1, 2
"""The places in a row: its time in Unix seconds, the number of its samples, and the value of the first series."""
_PLACES = {name: place for place, name in enumerate(FOLDS, _FIRST)}
_MOST, _LEAST, _MEAN, _SUM = (
    tuple(_PLACES[name] for name in FOLDS if FOLDS[name] == fold) for fold in ("most", "least", "mean", "sum")
)
HOUR, DAY = (10, 360), (300, 288)
"""The seconds of a row, and the number of rows."""


class Span:
    """Series of the last hour or day. A time without samples has no row.

    Args:
        step: The length of a row in seconds.
        size: The number of rows to keep.
    """

    def __init__(self, step: int, size: int) -> None:
        self.step = step
        self.size = size
        self._rows: deque[array[float]] = deque(maxlen=size)
        self._totals: dict[str, tuple[float, float]] = {}
        """By the name of a series: when its total was computed, and the total without the last row."""

    @property
    def seconds(self) -> int:
        """The time that the series cover."""
        return self.step * self.size

    def note(self, now: float, values: Mapping[str, float]) -> None:
        """Add one sample to the row of the present time."""
        start = now - now % self.step
        sample = [start, 1.0, *(values[name] for name in FOLDS)]
        rows = self._rows
        while rows and rows[-1][_START] > start:  # the clock was set back
            rows.pop()
        if not rows or rows[-1][_START] != start:
            rows.append(array("d", sample))
            self._totals.clear()
            return
        row = rows[-1]
        row[_COUNT] += 1.0
        count = row[_COUNT]
        for place in _MOST:
            if sample[place] > row[place]:
                row[place] = sample[place]
        for place in _LEAST:
            if sample[place] < row[place]:
                row[place] = sample[place]
        for place in _MEAN:
            row[place] += (sample[place] - row[place]) / count
        for place in _SUM:
            row[place] += sample[place]

    def series(self, now: float) -> dict[str, list[float]]:
        """Return the values of all series by name, and ``t``, the time of each row; the oldest value first."""
        rows = [row for row in self._rows if row[_START] > now - self.seconds]
        places = {"t": _START} | _PLACES
        return {name: [row[place] for row in rows] for name, place in places.items()}

    def total(self, name: str, now: float) -> float:
        """Return the sum of a series. It costs little if it was asked for since the last row began."""
        if not self._rows or self._rows[-1][_START] <= now - self.seconds:
            return 0.0
        place = _PLACES[name]
        start = now - now % self.step
        when, before = self._totals.get(name, (-1.0, 0.0))
        if when != start:
            kept = islice(self._rows, len(self._rows) - 1)
            before = sum(row[place] for row in kept if row[_START] > now - self.seconds)
            self._totals[name] = start, before
        return before + self._rows[-1][place]

    def rows(self) -> list[list[float]]:
        """Return the rows, for a later call of `restore`."""
        return [row.tolist() for row in self._rows]

    def restore(self, rows: Iterable[list[float]], now: float) -> None:
        """Take over the rows of an earlier hub. Rows of another length, or in the future, are ignored."""
        self._rows.clear()
        self._totals.clear()
        for row in rows:
            in_order = not self._rows or row[_START] > self._rows[-1][_START]
            if len(row) == _FIRST + len(FOLDS) and in_order and row[_START] <= now and row[_COUNT] >= 1:
                self._rows.append(array("d", row))
