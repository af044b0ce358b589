"""Lines of queued tasks: the order in which the tasks for the same engines are taken.

All tasks of a `Line` may run on the same engines. A line has one `Level` for each priority. A level has one pool of
tasks for each client session. Sessions take turns (stride scheduling): each session has a *pass*, the session with the
smallest pass is next, and each task that is taken adds 1 / weight to the pass of its session. With equal weights this
is round robin. The sessions have the same passes in all lines, see `Turns`.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Set
from operator import attrgetter
from typing import TypeAlias

from .matching import Demand
from .task import Task, Worker

__all__ = ["Level", "Line", "LineKey", "Turns"]

GOLDEN = 0.6180339887498949
"""The golden ratio less 1. The fractional parts of its multiples are spread evenly, and repeat no pattern."""

LineKey: TypeAlias = tuple[frozenset[bytes] | None, frozenset[bytes], Demand | None]
"""The targets (None for any engine), the engines that have refused, and the demand of the tasks of a line."""


class _Turn:
    """The place of one session among the sessions that have queued tasks of one priority."""

    __slots__ = ("pass_", "queued", "ticket")

    def __init__(self, turns: Turns, weight: float) -> None:
        self.pass_ = turns.now + 1 / weight
        turns.tickets = self.ticket = turns.tickets + 1
        self.queued = 0


class Turns:
    """The passes of the sessions that have queued tasks of one priority, in whatever lines.

    A session that joins gets the pass that it would have if it had just been served. A session that has waited because
    no engine could run its tasks is not compensated for that: its next pass counts from now.
    """

    __slots__ = ("levels", "now", "sessions", "tickets")

    def __init__(self) -> None:
        self.now = 0.0
        """The largest pass that was served."""
        self.sessions: dict[str, _Turn] = {}
        self.tickets = 0
        """Tickets order the sessions that have the same pass by when they got it. No two sessions have the same."""
        self.levels = 0
        """The number of levels that use these turns."""

    def left(self, session: str, tasks: int) -> None:
        """Note that tasks of a session were removed, without a turn."""
        turn = self.sessions[session]
        turn.queued -= tasks
        if not turn.queued:
            del self.sessions[session]


class Level:
    """The tasks of one priority in one line."""

    __slots__ = ("_heap", "_removed", "line", "pools", "priority", "served", "turns")

    def __init__(self, line: Line, priority: int, turns: Turns, served: int) -> None:
        self.line = line
        self.priority = priority
        self.turns = turns
        self.served = served
        """The number of tasks that had been taken from the queue when a task was last taken from this level."""
        self.pools: dict[str, _Pool] = {}
        self._heap: list[tuple[float, int, str]] = []
        """Pass, ticket and name of each session that has tasks here. Passes grow: an old entry comes too early, and is
        then replaced."""
        self._removed: set[str] = set()
        """The sessions in the heap whose tasks here were all removed, without a turn."""

    def __iter__(self) -> Iterator[Task]:
        for pool in self.pools.values():
            yield from pool

    @property
    def queued(self) -> int:
        """The number of tasks. To count them takes time in proportion to the number of sessions."""
        return sum(pool.queued for pool in self.pools.values())

    def sample(self, parts: int) -> list[Task]:
        """Return one task of each of so many equal parts of the queue, which has one session after the other.

        If there are at most twice as many tasks as parts, return all tasks.
        """
        sample, before = [], 0
        pools = iter(self.pools.values())
        pool = next(pools, None)
        for place in _places(self.queued, parts):
            while pool is not None and place - before >= pool.queued:
                before += pool.queued
                pool = next(pools, None)
            assert pool is not None
            sample.append(pool.at(place - before))
        return sample

    def push(self, task: Task) -> None:
        name = task.session
        sessions = self.turns.sessions
        if name not in sessions:
            sessions[name] = _Turn(self.turns, task.rules.weight)
        turn = sessions[name]
        turn.queued += 1
        if name not in self.pools:
            self.pools[name] = _Pool()
            if name in self._removed:
                self._removed.discard(name)
            else:
                heapq.heappush(self._heap, (turn.pass_, turn.ticket, name))
        self.pools[name].push(task)

    def rank(self) -> tuple[int, float, int, int]:
        """Return what the next task is compared by with the next tasks of other levels: the least is first."""
        pass_, ticket, name = self._next_turn()
        return -self.priority, pass_, ticket, self.pools[name].first.number

    def take(self) -> Task:
        """Remove and return the next task, and end its session's turn."""
        turns = self.turns
        _, ticket, name = self._heap[0]
        if name not in self.pools or turns.sessions[name].ticket != ticket:  # an old entry, which is rare
            name = self._next_turn()[2]
        turn = turns.sessions[name]
        pool = self.pools[name]
        task = pool.pop()
        if turn.pass_ > turns.now:
            turns.now = turn.pass_
        turn.pass_ = turns.now + 1 / task.rules.weight
        turns.tickets = turn.ticket = turns.tickets + 1
        turn.queued -= 1
        if not turn.queued:
            del turns.sessions[name]
        if pool.in_order or pool.late:
            heapq.heapreplace(self._heap, (turn.pass_, turn.ticket, name))
        else:
            heapq.heappop(self._heap)
            del self.pools[name]
        return task

    def remove(self, task: Task) -> None:
        self._left(task.session, self.pools[task.session].remove(task))

    def remove_many(self, session: str, numbers: Set[int]) -> None:
        self._left(session, self.pools[session].remove_many(numbers))

    def clear(self) -> list[Task]:
        """Remove and return all tasks."""
        tasks: list[Task] = []
        for name, pool in list(self.pools.items()):
            tasks += pool
            self._left(name, pool.remove_many({task.number for task in pool}))
        return tasks

    def _left(self, session: str, tasks: int) -> None:
        pool = self.pools[session]
        if not pool.in_order and not pool.late:
            del self.pools[session]
            self._removed.add(session)
        self.turns.left(session, tasks)

    def _next_turn(self) -> tuple[float, int, str]:
        heap = self._heap
        while True:
            entry = heap[0]
            name = entry[2]
            if name not in self.pools:
                heapq.heappop(heap)
                self._removed.discard(name)
                continue
            turn = self.turns.sessions[name]
            if turn.ticket == entry[1]:
                return entry
            heapq.heapreplace(heap, (turn.pass_, turn.ticket, name))


def _places(total: int, parts: int) -> Iterable[int]:
    """Return one place of each of so many equal parts of the places below a total, in order; all if these are few.

    The places are irregular within the parts, since clients may submit tasks of several kinds in turn.
    """
    if total <= 2 * parts:
        return range(total)
    return (int((part + part * GOLDEN % 1.0) * total / parts) for part in range(parts))


class Line:
    """The queued tasks that may run on the same engines, in one level for each priority."""

    __slots__ = ("_priorities", "best", "demand", "key", "levels", "refused", "reserved", "served", "targets")

    def __init__(self, key: LineKey, served: int) -> None:
        self.key = key
        self.targets, self.refused, self.demand = key
        self.levels: OrderedDict[int, Level] = OrderedDict()
        """The levels, by priority: the level from which no task was taken for the longest time is first."""
        self._priorities: list[int] = []
        self.best: Level | None = None
        """The level with the highest priority."""
        self.served = served
        """The number of tasks that had been taken from the queue when a task was last taken from this line."""
        self.reserved: Worker | None = None
        """The engine that gets no other tasks until it has enough free for the next task of this line."""

    def __iter__(self) -> Iterator[Task]:
        for priority in reversed(self._priorities):
            yield from self.levels[priority]

    def open(self, priority: int, turns: Turns, served: int) -> Level:
        """Return a new level."""
        turns.levels += 1
        level = self.levels[priority] = Level(self, priority, turns, served)
        insort(self._priorities, priority)
        self.best = self.levels[self._priorities[-1]]
        return level

    def close(self, level: Level) -> None:
        """Remove a level that has no tasks any more."""
        level.turns.levels -= 1
        del self.levels[level.priority]
        self._priorities.remove(level.priority)
        self.best = self.levels[self._priorities[-1]] if self._priorities else None


class _Pool:
    """Tasks of one session for the same engines and with the same priority, ordered by number.

    Most tasks are pushed in the order of their numbers. The others, which waited for something else first, are kept in
    a heap, since there may be thousands of them.
    """

    __slots__ = ("in_order", "late")

    def __init__(self) -> None:
        self.in_order: deque[Task] = deque()
        self.late: list[tuple[int, Task]] = []

    def __iter__(self) -> Iterator[Task]:
        if not self.late:
            return iter(self.in_order)
        return iter(sorted([*self.in_order, *(task for _, task in self.late)], key=attrgetter("number")))

    @property
    def queued(self) -> int:
        return len(self.in_order) + len(self.late)

    def at(self, place: int) -> Task:
        """Return the task at a place; the tasks that did not come in their order have the last places here."""
        in_order = self.in_order
        return in_order[place] if place < len(in_order) else self.late[place - len(in_order)][1]

    @property
    def first(self) -> Task:
        if self.late and (not self.in_order or self.late[0][0] < self.in_order[0].number):
            return self.late[0][1]
        return self.in_order[0]

    def push(self, task: Task) -> None:
        if not self.in_order or self.in_order[-1].number < task.number:
            self.in_order.append(task)
        else:
            heapq.heappush(self.late, (task.number, task))

    def pop(self) -> Task:
        """Remove and return the first task."""
        if self.late and (not self.in_order or self.late[0][0] < self.in_order[0].number):
            return heapq.heappop(self.late)[1]
        return self.in_order.popleft()

    def remove(self, task: Task) -> int:
        """Remove a task. Costs O(1) for the first task. Return 1, the number of removed tasks."""
        entry = (task.number, task)
        if self.late and entry in self.late:
            self.late.remove(entry)
            heapq.heapify(self.late)
        else:
            self.in_order.remove(task)
        return 1

    def remove_many(self, numbers: Set[int]) -> int:
        """Remove the tasks with these numbers. Return how many they were."""
        before = len(self.in_order) + len(self.late)
        self.in_order = deque(task for task in self.in_order if task.number not in numbers)
        self.late = [entry for entry in self.late if entry[0] not in numbers]
        heapq.heapify(self.late)
        return before - len(self.in_order) - len(self.late)
