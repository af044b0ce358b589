"""The load-balanced task queue: which task goes to which engine, and what an engine's death does to it.

`TaskScheduler` is told what happened (`submit`, `result`, `add_engine`, …) and says what to do through the
two methods of `Delivery`. It reads no bytes, sends nothing, and knows no clock.
"""

from __future__ import annotations

from random import Random
from typing import Protocol

from ..errors import ConfigError, EngineError, HubError, ImpossibleDependency
from .fairqueue import FairQueue
from .schemes import SCHEMES
from .task import Task, TaskState, Worker

__all__ = ["Delivery", "TaskScheduler"]


class Delivery(Protocol):
    """What the scheduler asks of those around it."""

    def task_assigned(self, task: Task, worker: Worker) -> None:
        """Send the task to the engine."""

    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        """Answer the task with an error; the scheduler has forgotten it."""


class TaskScheduler:
    """Assigns tasks to engines.

    Args:
        delivery: who carries out what is decided.
        rng: chance, for the schemes that need it.
        hwm: how many tasks may be outstanding on one engine (high water mark); 0 is unlimited.
        scheme: name of the scheme that chooses among engines with room, one of `SCHEMES`.

    Raises:
        ConfigError: for a scheme or hwm that is not one.
    """

    def __init__(self, delivery: Delivery, rng: Random, *, hwm: int = 1, scheme: str = "leastload") -> None:
        if scheme not in SCHEMES:
            raise ConfigError(f"scheme {scheme!r} is not known: use one of {', '.join(sorted(SCHEMES))}")
        if hwm < 0:
            raise ConfigError(f"hwm must not be negative (0 is unlimited), got {hwm}")
        self._delivery = delivery
        self.hwm = hwm
        self.with_room = SCHEMES[scheme](rng)
        self.queue = FairQueue()
        self.tasks: dict[str, Task] = {}
        """Every task that is queued or running, by msg_id."""
        self.workers: dict[bytes, Worker] = {}
        """The engines that may get tasks, by identity."""
        self._submissions = 0
        self._assignments = 0

    # Engines

    def add_engine(self, ident: bytes) -> Worker:
        """An engine has come: give it work."""
        worker = self.workers[ident] = Worker(ident)
        self._feed(worker)
        return worker

    def remove_engine(self, worker: Worker) -> None:
        """An engine is lost: it gets nothing more, and what it runs may still be answered until `settle`.

        Queued tasks that only this engine could have run fail at once, or are given to engines that have failed
        them before.
        """
        if worker.lost:
            return
        worker.lost = True
        del self.workers[worker.ident]
        self.with_room.discard(worker)
        for task in self.queue.take_confined_to(worker.ident, self.workers.keys()):
            self._place(task)

    def settle(self, worker: Worker) -> None:
        """The grace of a lost engine is over: run what it left elsewhere if it has retries, else fail it."""
        for task in list(worker.running.values()):
            self._take_back(task)
            self._forgive(task)
            if task.retries > 0 and not self._has_no_target(task):
                task.retries -= 1
                self._place(task)
            else:
                uuid = worker.ident.decode("utf-8", "replace")
                self._fail(task, worker, EngineError(f"Engine {uuid} died while running task {task.msg_id}"))

    # Tasks

    def submit(self, task: Task) -> bool:
        """A task has come: run it, queue it, or fail it. False if one of this msg_id is unfinished."""
        if task.msg_id in self.tasks:
            return False
        self._submissions += 1
        task.number = self._submissions
        self.tasks[task.msg_id] = task
        self._place(task)
        return True

    def running_on(self, ident: bytes, msg_id: str) -> Task | None:
        """The task, if it is one that the engine of this identity has been given and not yet answered."""
        task = self.tasks.get(msg_id)
        return task if task is not None and task.worker is not None and task.worker.ident == ident else None

    def result(self, task: Task, *, ok: bool, dependencies_met: bool = True) -> bool:
        """An engine has answered a task that is `running_on` it. Whether the answer is the client's to have.

        It is not if the task goes to another engine: because the functional dependency was not met here, or
        because it failed and has retries left.
        """
        worker = task.worker
        assert worker is not None
        ident = worker.ident
        self._take_back(task)
        final = ok or (dependencies_met and task.retries <= 0)
        if final:
            self._forget(task)
        else:
            task.refused |= {ident}
            if dependencies_met:
                task.retries -= 1
            else:
                task.unmet |= {ident}
            self._place(task)
        if not worker.lost:
            self._feed(worker)
        return final

    def abandon(self, task: Task, error: HubError) -> None:
        """Give a task up, wherever it is, and answer it with the error."""
        worker = task.worker
        if worker is None:
            self.queue.remove(task)
        else:
            self._take_back(task)
        self._fail(task, worker, error)

    def _place(self, task: Task) -> None:
        """Run a task that has no engine, or queue it, or fail it."""
        self._forgive(task)
        if self._has_no_target(task):
            self._fail(task, None, _no_target_left())
            return
        worker = self._choose(task)
        if worker is None:
            task.state = TaskState.QUEUED
            self.queue.push(task)
        else:
            self._assign(task, worker)

    def _choose(self, task: Task) -> Worker | None:
        if task.targets is None:
            return self.with_room.choose(task)
        # sorted, since the order of a set of bytes differs from one process to the next, and no choice should
        targets = (self.workers.get(ident) for ident in sorted(task.targets - task.refused))
        with_room = [worker for worker in targets if worker is not None and worker in self.with_room]
        return self.with_room.choose_among(with_room) if with_room else None

    def _feed(self, worker: Worker) -> None:
        """Give queued tasks to a worker that may have room."""
        while not self.hwm or worker.load < self.hwm:
            task = self.queue.take(worker.ident)
            if task is None:
                self._update_room(worker)
                return
            self._assign(task, worker)

    def _assign(self, task: Task, worker: Worker) -> None:
        self._assignments += 1
        worker.last_used = self._assignments
        task.state = TaskState.RUNNING
        task.worker = worker
        worker.running[task.msg_id] = task
        self._update_room(worker)
        self._delivery.task_assigned(task, worker)

    def _take_back(self, task: Task) -> None:
        worker = task.worker
        assert worker is not None
        del worker.running[task.msg_id]
        task.worker = None
        self._update_room(worker)

    def _update_room(self, worker: Worker) -> None:
        self.with_room.discard(worker)
        if not worker.lost and (not self.hwm or worker.load < self.hwm):
            self.with_room.add(worker)

    def _forgive(self, task: Task) -> None:
        # If all have failed it once, and it asked to be tried again: better on any than never.
        if task.refused != task.unmet and not task.metadata.timeout and not self._somebody_accepts(task):
            task.refused = task.unmet

    def _has_no_target(self, task: Task) -> bool:
        return task.targets is not None and self.workers.keys().isdisjoint(task.targets - task.refused)

    def _somebody_accepts(self, task: Task) -> bool:
        if task.targets is None:
            return len(self.workers) > len(task.refused) or any(map(task.accepts, self.workers))
        return any(task.accepts(ident) for ident in task.targets if ident in self.workers)

    def _fail(self, task: Task, worker: Worker | None, error: HubError) -> None:
        self._forget(task)
        self._delivery.task_failed(task, worker, error)

    def _forget(self, task: Task) -> None:
        task.state = TaskState.DONE
        del self.tasks[task.msg_id]


def _no_target_left() -> ImpossibleDependency:
    return ImpossibleDependency(
        "none of the engines that this task may run on is left: they are gone, or did not meet its dependencies"
    )
