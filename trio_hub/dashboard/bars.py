"""When which engine ran what: the last tasks that have ended, in columns of a fixed size, and those that run."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

__all__ = ["KINDS", "STATUSES", "Bar", "Bars"]

KINDS = ("task", "mux", "broadcast")
STATUSES = ("ok", "error", "aborted", "running")
RUNNING = 3
SIZE = 100_000
"""Ended tasks that are kept: some 20 MB."""


class Bar(NamedTuple):
    """One task on one engine, as the pages draw it. The three in the middle are places in tables."""

    seq: int
    row: int
    start: float
    end: float | None
    kind: str
    status: str
    label: int
    msg_id: str


# What runs: its seq, row, start, and the places of its kind and label. A plain tuple, since each task makes one.
_Running: TypeAlias = tuple[int, int, float, int, int]


class Bars:
    """A ring of what has ended, and what runs, by msg_id.

    Every change has the next number (``seq``): a task that starts, and one that ends. A row below 0 stands for no
    engine; such a bar is not kept.
    """

    def __init__(self, size: int = SIZE) -> None:
        self.seq = 0
        """That of the last change."""
        self.running: dict[str, _Running] = {}
        self.ended = 0
        """How many bars have ended, those included that are not kept any more."""
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
        """A task begins. It must not be running."""
        self.seq += 1
        self.running[msg_id] = (self.seq, row, now, kind, label)

    def end(self, msg_id: str, now: float, status: int) -> _Running | None:
        """A task has ended: what is known of its beginning, if anything is."""
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
        """The number, among all bars that have ended, of the first that is kept and is newer than that."""
        low, high = self.ended - len(self), self.ended
        while low < high:
            middle = (low + high) // 2
            if self._seqs[middle % self._size] > seq:
                high = middle
            else:
                low = middle + 1
        return low

    def bar(self, number: int) -> Bar:
        """One that has ended, by its number among all of them. It must still be kept."""
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
        """Those that have ended, from one number to before another; all of them must still be kept."""
        start, stop = first % self._size, end % self._size
        if first >= end:
            return []
        if start < stop:
            return self._columns(start, stop)
        return self._columns(start, self._size) + self._columns(0, stop)

    def _columns(self, start: int, stop: int) -> list[Bar]:
        # column by column, since a message may have a thousand
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
        """The row of one that has ended, by its number among all of them. It must still be kept."""
        return self._rows[number % self._size]

    def label_of(self, msg_id: str) -> int | None:
        """The label of a task that has ended, as long as it is kept."""
        place = self._places.get(msg_id)
        return None if place is None else self._labels[place]

    def running_after(self, seq: int, limit: int) -> list[Bar]:
        """Those that run and have begun after that, the oldest first; if they are more than `limit`, the newest."""
        found: list[Bar] = []
        for msg_id, running in reversed(self.running.items()):
            if running[0] <= seq or len(found) >= limit:
                break
            if running[1] >= 0:
                found.append(_bar_of(msg_id, running))
        found.reverse()
        return found

    def of(self, msg_id: str) -> Iterator[Bar]:
        """All that is kept of one task: it may have been tried several times. Looks through the whole ring."""
        if msg_id in self._places:
            for number in range(self.ended - len(self), self.ended):
                if self._msg_ids[number % self._size] == msg_id:
                    yield self.bar(number)
        if msg_id in self.running and self.running[msg_id][1] >= 0:
            yield _bar_of(msg_id, self.running[msg_id])


def _bar_of(msg_id: str, running: _Running) -> Bar:
    seq, row, start, kind, label = running
    return Bar(seq, row, start, None, KINDS[kind], STATUSES[RUNNING], label, msg_id)
