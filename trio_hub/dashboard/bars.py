"""The bars of the task stream: the tasks that ended last, in arrays of a fixed size, and the running tasks."""

from __future__ import annotations

from array import array
from itertools import islice
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
        # Chains of ended bars, so that no reader has to search the ring: the number of the last bar of each task and of
        # each row, and for each bar the number of the bar before it in its chain. A chain ends at the first number that
        # is no longer kept.
        self._last_of_task: dict[str, int] = {}
        self._last_of_row: dict[int, int] = {}
        self._before_in_task = array("q", bytes(8 * size))
        self._before_in_row = array("q", bytes(8 * size))
        # The msg_ids of the running tasks of each row, in the order of their starts.
        self._running_in: dict[int, dict[str, None]] = {}

    def __len__(self) -> int:
        return min(self.ended, self._size)

    def start(self, msg_id: str, row: int, now: float, kind: int, label: int) -> None:
        """Add a running task. If it is running already, this start replaces the earlier one."""
        self.seq += 1
        before = self.running.pop(msg_id, None)
        if before is not None:  # a msg_id that a client has used twice
            self._leave(before[1], msg_id)
        self.running[msg_id] = (self.seq, row, now, kind, label)
        mine = self._running_in.get(row)
        if mine is None:
            mine = self._running_in[row] = {}
        mine[msg_id] = None

    def end(self, msg_id: str, now: float, status: int) -> _Running | None:
        """End a task. Return the entry of the running task, or None if the task was not running."""
        running = self.running.pop(msg_id, None)
        if running is None:
            return None
        _, row, start, kind, label = running
        self.seq += 1
        self._leave(row, msg_id)
        if row >= 0:
            number = self.ended
            place = number % self._size
            self.ended += 1
            if number >= self._size:
                self._forget(number - self._size)
            self._seqs[place] = self.seq
            self._rows[place] = row
            self._starts[place] = start
            self._ends[place] = now
            self._labels[place] = label
            self._kinds[place] = kind
            self._statuses[place] = status
            self._msg_ids[place] = msg_id
            self._before_in_task[place] = self._last_of_task.get(msg_id, -1)
            self._before_in_row[place] = self._last_of_row.get(row, -1)
            self._last_of_task[msg_id] = self._last_of_row[row] = number
        return running

    def _leave(self, row: int, msg_id: str) -> None:
        mine = self._running_in[row]
        del mine[msg_id]
        if not mine:
            del self._running_in[row]

    def _forget(self, number: int) -> None:
        """Forget the chains whose last bar is overwritten."""
        place = number % self._size
        msg_id, row = self._msg_ids[place], self._rows[place]
        if self._last_of_task[msg_id] == number:
            del self._last_of_task[msg_id]
        if self._last_of_row[row] == number:
            del self._last_of_row[row]

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

    def label_of(self, msg_id: str) -> int | None:
        """Return the number of the label of an ended task; None if its bar is not kept."""
        number = self._last_of_task.get(msg_id)
        return None if number is None else self._labels[number % self._size]

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

    def of(self, msg_id: str) -> list[Bar]:
        """Return all kept bars of a task, the oldest first. A task that was retried has several bars."""
        found = self._chain(self._last_of_task.get(msg_id, -1), self._before_in_task, self._size)
        if msg_id in self.running and self.running[msg_id][1] >= 0:
            found.append(_bar_of(msg_id, self.running[msg_id]))
        return found

    def of_row(self, row: int, limit: int) -> list[Bar]:
        """Return the newest `limit` bars of a row: first the ended bars, by their ends, then the running bars."""
        running = list(islice(reversed(self._running_in.get(row, {})), limit))
        found = self._chain(self._last_of_row.get(row, -1), self._before_in_row, limit - len(running))
        found += [_bar_of(msg_id, self.running[msg_id]) for msg_id in reversed(running)]
        return found

    def _chain(self, number: int, before: array[int], limit: int) -> list[Bar]:
        """Return the newest `limit` ended bars of a chain, the oldest first.

        `number` is the number of the last bar of the chain. `before` has the chain's links.
        """
        oldest = self.ended - len(self)
        found: list[Bar] = []
        while number >= oldest and len(found) < limit:
            found.append(self.bar(number))
            number = before[number % self._size]
        found.reverse()
        return found

    def first_running_in(self, row: int) -> str | None:
        """Return the msg_id of the task that has run for the longest time in a row; None if no task runs there."""
        return next(iter(self._running_in.get(row, ())), None)

    def running_before(self, msg_id: str) -> int:
        """Return how many tasks run in the row of a running task and started before it."""
        mine = self._running_in[self.running[msg_id][1]]
        return next(place for place, other in enumerate(mine) if other == msg_id)


def _bar_of(msg_id: str, running: _Running) -> Bar:
    seq, row, start, kind, label = running
    return Bar(seq, row, start, None, KINDS[kind], STATUSES[RUNNING], label, msg_id)
