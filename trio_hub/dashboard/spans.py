"""Time series of the last hour and the last day, in rows of a fixed length in seconds, and of a fixed number."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

__all__ = ["DAY", "FOLDS", "HOUR", "Span"]

Fold: TypeAlias = Callable[[float, float, float], float]
"""Takes the value of a row, a new value, and the number of values with the new one. Returns the new value of the row.
"""


def _mean(row: float, value: float, count: float) -> float:
    return row + (value - row) / count


def _sum(row: float, value: float, count: float) -> float:
    return row + value


def _most(row: float, value: float, count: float) -> float:
    return max(row, value)


def _least(row: float, value: float, count: float) -> float:
    return min(row, value)


FOLDS: Mapping[str, Fold] = {
    "queued": _most,
    "waiting": _most,
    "running": _most,
    "submitted": _mean,
    "finished": _mean,
    "failed": _mean,
    "aborted": _mean,
    "engines": _least,
    "rss": _most,
    "lag": _most,
    "backlog": _most,
    "lost": _sum,
    "errors": _sum,
}
"""The series, and how the values of one row become one value.

A short burst is still seen in a row of minutes, since a row has the largest value of most series, and the smallest
number of engines. Rates are means, and losses and errors are sums.
"""
_START, _COUNT, _FIRST = 0, 1, 2
"""The places in a row: its time in Unix seconds, the number of its samples, and the value of the first series."""
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
        self._folds = tuple(FOLDS.values())

    @property
    def seconds(self) -> int:
        """The time that the series cover."""
        return self.step * self.size

    def note(self, now: float, values: Mapping[str, float]) -> None:
        """Add one sample to the row of the present time."""
        start = now - now % self.step
        rows = self._rows
        while rows and rows[-1][_START] > start:  # the clock was set back
            rows.pop()
        if not rows or rows[-1][_START] != start:
            rows.append(array("d", [start, 1.0, *(values[name] for name in FOLDS)]))
            return
        row = rows[-1]
        row[_COUNT] += 1.0
        for place, (name, fold) in enumerate(zip(FOLDS, self._folds, strict=True), _FIRST):
            row[place] = fold(row[place], values[name], row[_COUNT])

    def series(self, now: float) -> dict[str, list[float]]:
        """Return the values of all series by name, and ``t``, the time of each row; the oldest value first."""
        rows = [row for row in self._rows if row[_START] > now - self.seconds]
        names = ("t", *FOLDS)
        return {
            name: [row[place] for row in rows] for name, place in zip(names, (_START, *_places(FOLDS)), strict=True)
        }

    def total(self, name: str, now: float) -> float:
        """Return the sum of a series."""
        place = _FIRST + list(FOLDS).index(name)
        return sum(row[place] for row in self._rows if row[_START] > now - self.seconds)

    def rows(self) -> list[list[float]]:
        """Return the rows, for a later call of `restore`."""
        return [row.tolist() for row in self._rows]

    def restore(self, rows: Iterable[list[float]], now: float) -> None:
        """Take over the rows of an earlier hub. Rows of another length, or in the future, are ignored."""
        self._rows.clear()
        for row in rows:
            in_order = not self._rows or row[_START] > self._rows[-1][_START]
            if len(row) == _FIRST + len(FOLDS) and in_order and row[_START] <= now and row[_COUNT] >= 1:
                self._rows.append(array("d", row))


def _places(names: Iterable[str]) -> list[int]:
    return [place for place, _ in enumerate(names, _FIRST)]
