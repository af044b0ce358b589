"""The queue of tasks: round-robin over client sessions, and first-in-first-out within each session.

So a burst of 100,000 tasks from one client delays another client's next task by one task, not by 100,000.
A task that only some engines may run does not block the tasks behind it: each session has a *pool* of tasks for each
set of allowed engines, and only allowed engines take tasks from a pool.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Set
from operator import attrgetter
from typing import TypeAlias

from .task import Task

__all__ = ["FairQueue"]

# (targets or None for any, refused)
_PoolKey: TypeAlias = tuple[frozenset[bytes] | None, frozenset[bytes]]


class FairQueue:
    """The queued tasks. Pushing a task and taking a task cost O(1) in engines and in queued tasks.

    Pushing a task whose place is in front of other queued tasks costs O(log n) in the number of such tasks.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _SessionQueue] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Task]:
        for session in self._sessions.values():
            yield from session

    def lengths(self) -> dict[str, int]:
        """Return the number of queued tasks of each client session that has any."""
        return {name: session.length for name, session in self._sessions.items()}

    def push(self, task: Task) -> None:
        """Add a task at the end of its pool, or in front of the tasks with higher numbers that are queued already."""
        queue = self._sessions.get(task.session)
        if queue is None:
            queue = self._sessions[task.session] = _SessionQueue()
        queue.push(task)
        self._length += 1

    def take(self, ident: bytes) -> Task | None:
        """Remove and return the next task that the engine may run; None if there is none. Ends the session's turn."""
        for name, queue in self._sessions.items():
            task = queue.take(ident)
            if task is not None:
                self._length -= 1
                if queue.length:
                    self._sessions.move_to_end(name)
                else:
                    del self._sessions[name]
                return task
        return None

    def remove(self, task: Task) -> None:
        """Remove a queued task. Costs O(1) for a task at the front of its pool."""
        queue = self._sessions[task.session]
        queue.remove(task)
        self._length -= 1
        if not queue.length:
            del self._sessions[task.session]

    def remove_many(self, tasks: Iterable[Task]) -> None:
        """Remove queued tasks. Costs O(n) in the number of tasks that are queued in the same sessions."""
        gone: dict[str, list[Task]] = {}
        for task in tasks:
            gone.setdefault(task.session, []).append(task)
        for name, of_session in gone.items():
            queue = self._sessions[name]
            queue.remove_many(of_session)
            self._length -= len(of_session)
            if not queue.length:
                del self._sessions[name]

    def take_confined_to(self, ident: bytes, others: Set[bytes]) -> list[Task]:
        """Remove and return, oldest first, the tasks that only this engine may run. Called when the engine has gone.

        A task that any engine may run, and that no engine has refused, stays queued even if no engine remains.

        Args:
            ident: The engine that has gone.
            others: The engines that remain.
        """
        taken: list[Task] = []
        for name, queue in list(self._sessions.items()):
            taken += queue.take_confined_to(ident, others)
            if not queue.length:
                del self._sessions[name]
        self._length -= len(taken)
        taken.sort(key=lambda task: task.number)
        return taken


class _SessionQueue:
    """The tasks of one session: a pool of tasks for any engine, and a pool for each set of allowed engines.

    ``length`` is the number of tasks.
    """

    __slots__ = ("_anyone", "_by_engine", "_not_everyone", "_pools", "length")

    def __init__(self) -> None:
        self.length = 0
        self._anyone = _Pool()
        self._pools: dict[_PoolKey, _Pool] = {}
        self._by_engine: dict[bytes, dict[_PoolKey, _Pool]] = {}
        self._not_everyone: dict[_PoolKey, _Pool] = {}

    def __iter__(self) -> Iterator[Task]:
        yield from self._anyone
        for pool in self._pools.values():
            yield from pool

    def push(self, task: Task) -> None:
        if task.targets is None and not task.refused:
            pool = self._anyone
        else:
            key = (task.targets, task.refused)
            existing = self._pools.get(key)
            pool = self._open(key) if existing is None else existing
        pool.push(task)
        self.length += 1

    def take(self, ident: bytes) -> Task | None:
        # In most sessions, any engine may run any task.
        task = self._take_allowed(ident) if self._pools else self._anyone.pop()
        if task is not None:
            self.length -= 1
        return task

    def _take_allowed(self, ident: bytes) -> Task | None:
        best = self._anyone.first if self._anyone else None
        best_key: _PoolKey | None = None
        for pools in (self._by_engine.get(ident), self._not_everyone):
            for key, pool in pools.items() if pools else ():
                if ident not in key[1] and (best is None or pool.first.number < best.number):
                    best, best_key = pool.first, key
        if best is None:
            return None
        if best_key is None:
            return self._anyone.pop()
        pool = self._pools[best_key]
        task = pool.pop()
        if not pool:
            self._close(best_key)
        return task

    def remove(self, task: Task) -> None:
        if task.targets is None and not task.refused:
            self._anyone.remove(task)
        else:
            key = (task.targets, task.refused)
            pool = self._pools[key]
            pool.remove(task)
            if not pool:
                self._close(key)
        self.length -= 1

    def remove_many(self, tasks: list[Task]) -> None:
        gone = {task.number for task in tasks}
        self.length -= len(gone)
        self._anyone.remove_many(gone)
        for key, pool in list(self._pools.items()):
            pool.remove_many(gone)
            if not pool:
                self._close(key)

    def take_confined_to(self, ident: bytes, others: Set[bytes]) -> list[Task]:
        taken: list[Task] = []
        for key in [*self._by_engine.get(ident, ()), *self._not_everyone]:
            targets, refused = key
            if targets is None:
                confined = len(others) <= len(refused) and ident not in refused and others <= refused
            else:
                confined = others.isdisjoint(targets - refused)
            if confined:
                taken += self._pools[key]
                self._close(key)
        self.length -= len(taken)
        return taken

    def _open(self, key: _PoolKey) -> _Pool:
        pool = self._pools[key] = _Pool()
        targets, refused = key
        if targets is None:
            self._not_everyone[key] = pool
        else:
            for ident in targets - refused:
                self._by_engine.setdefault(ident, {})[key] = pool
        return pool

    def _close(self, key: _PoolKey) -> None:
        del self._pools[key]
        targets, refused = key
        if targets is None:
            del self._not_everyone[key]
        else:
            for ident in targets - refused:
                pools = self._by_engine[ident]
                del pools[key]
                if not pools:
                    del self._by_engine[ident]


class _Pool:
    """Tasks for the same engines, ordered by number.

    Most tasks are pushed in the order of their numbers. The others, which waited for something else first, are kept in
    a heap, since there may be thousands of them.
    """

    __slots__ = ("_in_order", "_late")

    def __init__(self) -> None:
        self._in_order: deque[Task] = deque()
        self._late: list[tuple[int, Task]] = []

    def __len__(self) -> int:
        return len(self._in_order) + len(self._late)

    def __bool__(self) -> bool:
        return bool(self._in_order or self._late)

    def __iter__(self) -> Iterator[Task]:
        if not self._late:
            return iter(self._in_order)
        return iter(sorted([*self._in_order, *(task for _, task in self._late)], key=attrgetter("number")))

    @property
    def first(self) -> Task:
        if self._late and (not self._in_order or self._late[0][0] < self._in_order[0].number):
            return self._late[0][1]
        return self._in_order[0]

    def push(self, task: Task) -> None:
        if not self._in_order or self._in_order[-1].number < task.number:
            self._in_order.append(task)
        else:
            heapq.heappush(self._late, (task.number, task))

    def pop(self) -> Task | None:
        """Remove and return the first task; None if there is none."""
        if not self._late:
            return self._in_order.popleft() if self._in_order else None
        if not self._in_order or self._late[0][0] < self._in_order[0].number:
            return heapq.heappop(self._late)[1]
        return self._in_order.popleft()

    def remove(self, task: Task) -> None:
        entry = (task.number, task)
        if self._late and entry in self._late:
            self._late.remove(entry)
            heapq.heapify(self._late)
        else:
            self._in_order.remove(task)

    def remove_many(self, numbers: Set[int]) -> None:
        self._in_order = deque(task for task in self._in_order if task.number not in numbers)
        self._late = [entry for entry in self._late if entry[0] not in numbers]
        heapq.heapify(self._late)
