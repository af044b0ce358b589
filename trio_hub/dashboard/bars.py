"""The bars of the task stream: the tasks that ended last, in arrays of a fixed size, and the running tasks."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

__all__ = ["KINDS", "STATUSES", "Bar", "Bars"]

KINDS = ("task", "mux", "broadcast")
STATUSES = ("ok", "failed", "aborted", "running")
RUNNING = 3
SIZE = 100_000
"""The number of ended tasks to keep. They take about 20 MB."""


class Bar(NamedTuple):
    """One task on one engine, as the pages draw it.

    - ``seq``: the number of the last change of this bar;
    - ``row``: the number of the engine among all engines that were ever seen;
    - ``start``, ``end``: Unix seconds; ``end`` is None while the task runs;
    - ``label``: the number of the label, see `trio_hub.dashboard.progress.Progress`.
    """

    seq: int
    row: int
    start: float
    end: float | None
    kind: str
    status: str
    label: int
    msg_id: str


# A running task: seq, row, start, number of its kind, number of its label. A plain tuple, since every task creates one.
_Running: TypeAlias = tuple[int, int, float, int, int]


class Bars:
    """The bars of ended tasks, in a ring, and of running tasks, by msg_id.

    Each start and each end of a task is a change, and gets the next number (``seq``). A row below 0 means that the task
    has no engine; its bar is not kept.
    """

    def __init__(self, size: int = SIZE) -> None:
        self.seq = 0
        """The number of the last change."""
        self.running: dict[str, _Running] = {}
        self.ended = 0
        """The number of bars that have ended, including those that are no longer kept."""
        self._size = size
        self._seqs = array("q", bytes(8 * size))
        self._rows = array("l", bytes(array("l").itemsize * size))
        self._starts = array("d", bytes(8 * size))
        self._ends = array("d", bytes(8 * size))
        self._labels = array("h", bytes(2 * size))
        self._kinds = bytearray(size)
        self._statuses = bytearray(size)
        self._msg_ids = [""] * size
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return min(self.ended, self._size)

    def start(self, msg_id: str, row: int, now: float, kind: int, label: int) -> None:
        """Add a running task. It must not be running already."""
        self.seq += 1
        self.running[msg_id] = (self.seq, row, now, kind, label)

    def end(self, msg_id: str, now: float, status: int) -> _Running | None:
        """End a task. Return the entry of the running task, or None if the task was not running."""
        running = self.running.pop(msg_id, None)
        if running is None:
            return None
        _, row, start, kind, label = running
        self.seq += 1
        if row >= 0:
            place = self.ended % self._size
            self.ended += 1
            self._seqs[place] = self.seq
            self._rows[place] = row
            self._starts[place] = start
            self._ends[place] = now
            self._labels[place] = label
            self._kinds[place] = kind
            self._statuses[place] = status
            if self.ended > self._size:
                overwritten = self._msg_ids[place]
                if self._places.get(overwritten) == place:
                    del self._places[overwritten]
            self._msg_ids[place] = msg_id
            self._places[msg_id] = place
        return running

    def first_after(self, seq: int) -> int:
        """Return the number of the first kept bar with a change after `seq`. Ended bars are numbered from 0."""
        low, high = self.ended - len(self), self.ended
        while low < high:
            middle = (low + high) // 2
            if self._seqs[middle % self._size] > seq:
                high = middle
            else:
                low = middle + 1
        return low

    def bar(self, number: int) -> Bar:
        """Return an ended bar by its number. The bar must still be kept."""
        place = number % self._size
        return Bar(
            self._seqs[place],
            self._rows[place],
            self._starts[place],
            self._ends[place],
            KINDS[self._kinds[place]],
            STATUSES[self._statuses[place]],
            self._labels[place],
            self._msg_ids[place],
        )

    def between(self, first: int, end: int) -> list[Bar]:
        """Return the ended bars with numbers from `first` to before `end`. All of them must still be kept."""
        start, stop = first % self._size, end % self._size
        if first >= end:
            return []
        if start < stop:
            return self._columns(start, stop)
        return self._columns(start, self._size) + self._columns(0, stop)

    def _columns(self, start: int, stop: int) -> list[Bar]:
        # column by column, which is faster, since a message may have a thousand bars
        return list(
            map(
                Bar,
                self._seqs[start:stop],
                self._rows[start:stop],
                self._starts[start:stop],
                self._ends[start:stop],
                map(KINDS.__getitem__, self._kinds[start:stop]),
                map(STATUSES.__getitem__, self._statuses[start:stop]),
                self._labels[start:stop],
                self._msg_ids[start:stop],
            )
        )

    def row_of(self, number: int) -> int:
        """Return the row of an ended bar by its number. The bar must still be kept."""
        return self._rows[number % self._size]

    def label_of(self, msg_id: str) -> int | None:
        """Return the number of the label of an ended task; None if its bar is not kept."""
        place = self._places.get(msg_id)
        return None if place is None else self._labels[place]

    def running_after(self, seq: int, limit: int) -> list[Bar]:
        """Return the running bars that started after `seq`, the oldest first; only the newest `limit` of them."""
        found: list[Bar] = []
        for msg_id, running in reversed(self.running.items()):
            if running[0] <= seq or len(found) >= limit:
                break
            if running[1] >= 0:
                found.append(_bar_of(msg_id, running))
        found.reverse()
        return found

    def of(self, msg_id: str) -> Iterator[Bar]:
        """Yield all kept bars of a task, which has several if it was retried. Searches the whole ring."""
        if msg_id in self._places:
            for number in range(self.ended - len(self), self.ended):
                if self._msg_ids[number % self._size] == msg_id:
                    yield self.bar(number)
        if msg_id in self.running and self.running[msg_id][1] >= 0:
            yield _bar_of(msg_id, self.running[msg_id])


def _bar_of(msg_id: str, running: _Running) -> Bar:
    seq, row, start, kind, label = running
    return Bar(seq, row, start, None, KINDS[kind], STATUSES[RUNNING], label, msg_id)
