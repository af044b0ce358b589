"""Schemes: the rules by which the scheduler chooses an engine for a task among the engines with room.

A scheme holds only the workers that have room. Each of its methods costs at most O(log engines); for a task that *r*
engines have refused, O(r log engines) more. The names and rules are those of IPython Parallel's TaskScheduler:
https://ipyparallel.readthedocs.io/en/latest/tutorial/task.html#schedulers
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random
from typing import ClassVar, Protocol

from .task import Task, Worker

__all__ = ["SCHEMES", "Scheme"]


class Scheme(ABC):
    """The workers with room, and the rule by which one of them is chosen."""

    bounded: ClassVar[bool] = True
    """Whether `hwm` limits the tasks of an engine. If not, each engine always has room."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    @abstractmethod
    def add(self, worker: Worker) -> None:
        """Add a worker that has room, with its present load."""

    @abstractmethod
    def discard(self, worker: Worker) -> None:
        """Remove a worker that is full, has gone, or is about to change its load. An unknown worker is ignored."""

    @abstractmethod
    def __contains__(self, worker: object) -> bool: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def choose(self, task: Task, refuses: Callable[[Worker], bool] | None = None) -> Worker | None:
        """Choose a worker for a task without targets. Return None if no worker with room may run the task.

        Args:
            task: The task.
            refuses: Whether a worker may not run the task, for a reason that the task does not know.
        """

    @abstractmethod
    def choose_over(
        self, schemes: Sequence[Scheme], task: Task, refuses: Callable[[Worker], bool] | None = None
    ) -> Worker | None:
        """Choose a worker as `choose` does, from the workers of several schemes of this class."""

    @abstractmethod
    def choose_among(self, workers: list[Worker]) -> Worker:
        """Choose one of these workers for a task with targets. All of them have room."""


class _Workers(Protocol):
    """Workers, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Worker: ...


class _Joined:
    """The workers of several lists, by index, without a copy."""

    def __init__(self, lists: list[list[Worker]]) -> None:
        self._lists = lists
        self._ends = list(accumulate(map(len, lists)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int, /) -> Worker:
        place = bisect_right(self._ends, index)
        return self._lists[place][index - self._ends[place]]


class _Heap(Scheme):
    """Chooses the worker with the smallest key. Heap entries of removed workers are skipped when they reach the top."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._heap: list[tuple[int, int, int, Worker]] = []
        self._ticket_of: dict[Worker, int] = {}
        self._tickets = 0

    @abstractmethod
    def key(self, worker: Worker) -> int:
        """Return the number by which workers are compared first. Workers with equal keys are compared by last use."""

    def add(self, worker: Worker) -> None:
        self._tickets = ticket = self._tickets + 1
        self._ticket_of[worker] = ticket
        heapq.heappush(self._heap, (self.key(worker), worker.last_used, ticket, worker))
        if len(self._heap) > 64 + 2 * len(self._ticket_of):
            self._heap = [entry for entry in self._heap if self._ticket_of.get(entry[3]) == entry[2]]
            heapq.heapify(self._heap)

    def discard(self, worker: Worker) -> None:
        self._ticket_of.pop(worker, None)

    def __contains__(self, worker: object) -> bool:
        return worker in self._ticket_of

    def __len__(self) -> int:
        return len(self._ticket_of)

    def choose(self, task: Task, refuses: Callable[[Worker], bool] | None = None) -> Worker | None:
        passed_over = []
        chosen = None
        while self._heap:
            entry = self._heap[0]
            worker = entry[3]
            if self._ticket_of.get(worker) != entry[2]:
                heapq.heappop(self._heap)
            elif task.accepts(worker.ident) and (refuses is None or not refuses(worker)):
                chosen = worker
                break
            else:
                passed_over.append(heapq.heappop(self._heap))
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return chosen

    def choose_over(
        self, schemes: Sequence[Scheme], task: Task, refuses: Callable[[Worker], bool] | None = None
    ) -> Worker | None:
        chosen = [worker for scheme in schemes if (worker := scheme.choose(task, refuses)) is not None]
        return self.choose_among(chosen) if chosen else None

    def choose_among(self, workers: list[Worker]) -> Worker:
        return min(workers, key=lambda worker: (self.key(worker), worker.last_used))


class LeastLoad(_Heap):
    """Chooses the worker with the lowest load; among equals, the least recently used one."""

    def key(self, worker: Worker) -> int:
        return len(worker.running)


class LRU(_Heap):
    """Chooses the least recently used worker, whatever its load."""

    def key(self, worker: Worker) -> int:
        return 0


class Pure(LRU):
    """Chooses each worker in turn, whatever its outstanding tasks, as a ZeroMQ DEALER socket does."""

    bounded = False


class PlainRandom(Scheme):
    """Chooses a random worker. All workers have the same chance."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._workers: list[Worker] = []
        self._index_of: dict[Worker, int] = {}

    def add(self, worker: Worker) -> None:
        if worker not in self._index_of:
            self._index_of[worker] = len(self._workers)
            self._workers.append(worker)

    def discard(self, worker: Worker) -> None:
        index = self._index_of.pop(worker, None)
        if index is not None:
            last = self._workers.pop()
            if last is not worker:
                self._workers[index] = last
                self._index_of[last] = index

    def __contains__(self, worker: object) -> bool:
        return worker in self._index_of

    def __len__(self) -> int:
        return len(self._workers)

    def choose(self, task: Task, refuses: Callable[[Worker], bool] | None = None) -> Worker | None:
        return self._choose(self._workers, task, refuses) if self._workers else None

    def choose_over(
        self, schemes: Sequence[Scheme], task: Task, refuses: Callable[[Worker], bool] | None = None
    ) -> Worker | None:
        joined = _Joined([scheme.workers for scheme in schemes if isinstance(scheme, PlainRandom)])
        return self._choose(joined, task, refuses)

    def choose_among(self, workers: list[Worker]) -> Worker:
        return self._pick(workers)

    @property
    def workers(self) -> list[Worker]:
        return self._workers

    def _choose(self, workers: _Workers, task: Task, refuses: Callable[[Worker], bool] | None) -> Worker | None:
        for _ in range(16):  # few engines refuse a task, so this usually finds another; if not, all are checked
            worker = self._pick(workers)
            if task.accepts(worker.ident) and (refuses is None or not refuses(worker)):
                return worker
        every = [workers[index] for index in range(len(workers))]
        accepting = [one for one in every if task.accepts(one.ident) and (refuses is None or not refuses(one))]
        return self._pick(accepting) if accepting else None

    def _pick(self, workers: _Workers) -> Worker:
        return workers[self._index(workers)]

    def _index(self, workers: _Workers) -> int:
        return int(self._rng.random() * len(workers))


class TwoBin(PlainRandom):
    """Picks two workers at random, and chooses the less recently used one."""

    def _pick(self, workers: _Workers) -> Worker:
        one, other = workers[self._index(workers)], workers[self._index(workers)]
        return one if one.last_used <= other.last_used else other


class Weighted(PlainRandom):
    """Picks two workers at random, weighted by 1 / (load + 1), and chooses the one with the lower load."""

    def _pick(self, workers: _Workers) -> Worker:
        one, other = self._sample(workers), self._sample(workers)
        return one if one.load <= other.load else other

    def _sample(self, workers: _Workers) -> Worker:
        # Rejection sampling: a worker with load n is accepted with probability 1/(n + 1), an idle one always. If all
        # workers are heavily loaded, their weights hardly differ, so giving up after 16 tries makes no difference.
        for _ in range(16):
            worker = workers[self._index(workers)]
            if self._rng.random() * (worker.load + 1) < 1:
                break
        return worker


SCHEMES: dict[str, type[Scheme]] = {
    "leastload": LeastLoad,
    "lru": LRU,
    "plainrandom": PlainRandom,
    "pure": Pure,
    "twobin": TwoBin,
    "weighted": Weighted,
}
