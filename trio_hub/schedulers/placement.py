"""Placement: the engines and their loads, the queue, and which engine gets which task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from ..errors import ConfigError, HubError, ImpossibleDependency
from .fairqueue import FairQueue
from .host import SchedulerHost
from .matching import Matching
from .rules import Needs
from .schemes import SCHEMES
from .task import Task, TaskState, Worker, WorkerState
from .timers import Timers

__all__ = ["AT_A_TIME", "Placement"]

AT_A_TIME = 500
"""The maximum number of tasks that the scheduler sends or answers before other work has its turn."""

# Globals for code that runs for each task: looking up a member of an enum takes five times as long as a global.
_RUNNING, _QUEUED = TaskState.RUNNING, TaskState.QUEUED


class Placement:
    """Gives tasks without unmet dependencies to engines, or queues them.

    Args:
        host: sends tasks to engines.
        rng, hwm, scheme: as of `TaskScheduler`.
        fail: fails a task that has no engine.

    Raises:
        ConfigError: the scheme is unknown, or hwm is negative.
    """

    def __init__(
        self, host: SchedulerHost, rng: Random, *, hwm: int, scheme: str, fail: Callable[[Task, HubError], None]
    ) -> None:
        if scheme not in SCHEMES:
            raise ConfigError(f"scheme {scheme!r} is not known: use one of {', '.join(sorted(SCHEMES))}")
        if hwm < 0:
            raise ConfigError(f"hwm must not be negative (0 is unlimited), got {hwm}")
        self._host = host
        self._fail = fail
        self.with_room = SCHEMES[scheme](rng)
        """The engines that get the next task at once, if they meet its needs."""
        self.hwm = hwm if self.with_room.bounded else 0
        self.matching = Matching(self.with_room, partial(SCHEMES[scheme], rng), host.seconds_left)
        self._plain = self.matching.plain
        self.queue = FairQueue(self.matching)
        self.workers: dict[bytes, Worker] = {}
        """The engines that may get tasks, by identity."""
        self.running = 0
        """The number of running tasks."""
        self.timers = Timers(host)
        self.assignments = 0
        """The number of attempts at tasks that were sent to engines."""

    # Engines

    def add(self, ident: bytes, state: WorkerState, offers: Needs) -> Worker:
        """Add an engine, and give it work if it is usable."""
        worker = self.workers[ident] = Worker(ident, state, offers)
        self.matching.join(worker)
        self.feed(worker)
        return worker

    def set_offers(self, worker: Worker, offers: Needs) -> None:
        """Replace the tags and amounts of an engine."""
        worker.offers = offers
        if worker.state is not WorkerState.LOST:
            self.matching.leave(worker)
            self.matching.join(worker)
        self.changed(worker)

    def changed(self, worker: Worker) -> None:
        """Find out anew whether an engine takes tasks, after a change of the engine. Give it tasks if it does."""
        worker.update()
        if worker.state is not WorkerState.LOST:
            self.feed(worker)

    def remove(self, worker: Worker) -> list[Task]:
        """Remove an engine that is lost. Return the queued tasks that only this engine could have run, unqueued."""
        worker.state = WorkerState.LOST
        worker.update()
        del self.workers[worker.ident]
        self.with_room.discard(worker)
        self.matching.leave(worker)
        return self.queue.take_confined_to(worker.ident, self.workers.keys())

    def feed(self, worker: Worker) -> None:
        """Give queued tasks to a worker that may have room, `AT_A_TIME` at a time, so that other work has its turn.

        New tasks are queued behind these tasks, until the worker has got all queued tasks for which it has room.
        """
        if not worker.takes_tasks:
            self.update_room(worker)
            return
        if worker.feeding:
            return
        worker.reserved = False
        queue, ident, running = self.queue, worker.ident, worker.running
        left = AT_A_TIME
        while not self.hwm or len(running) < self.hwm:
            task = queue.take(ident, worker)
            if task is None:
                self.update_room(worker)
                break
            self._assign(task, worker)
            left -= 1
            if not left:
                worker.feeding = len(queue) > 0
                self.update_room(worker)
                if worker.feeding:
                    self._host.soon(partial(self._feed_on, worker))
                break
        if queue.unreserved:
            self.feed_unreserved()

    def _feed_on(self, worker: Worker) -> None:
        worker.feeding = False
        self.update_room(worker)
        self.feed(worker)

    def feed_unreserved(self) -> None:
        """Give work to engines that were reserved for tasks that are not queued any more, when other work is done."""
        unreserved, self.queue.unreserved = self.queue.unreserved, []
        for worker in unreserved:
            worker.reserved = False
            self._host.soon(partial(self.changed, worker))

    # Tasks

    def place(self, task: Task) -> None:
        """Run, queue or fail a task that has no engine. A task that may follow another request yet goes on waiting."""
        if task.targets is None and not task.refused and task.follow is None:
            # any engine may run it that meets its needs, as most tasks
            worker = self.with_room.choose(task) if task.demand is None else self.matching.choose(task)
        else:
            self.restrict_to_followed(task)
            self.forgive(task)
            if self.has_no_target(task):
                if may_follow_another(task):
                    task.state = TaskState.WAITING
                    self.timers.start(task)
                else:
                    self._fail(task, _no_target_left())
                return
            worker = self._choose(task)
        if worker is None:
            task.state = _QUEUED
            self.queue.push(task)
            if task.timeout:
                self.timers.start(task)
            if self.timers.patience and (task.demand is not None or task.unmet):
                self.timers.wait_patiently(task, is_hopeless=self.unmet(task) is not None)
        else:
            if task.demand is not None:
                self.queue.passed_by()
            self._assign(task, worker)

    def unqueue(self, task: Task) -> None:
        """Remove a queued task."""
        self.queue.remove(task)
        if self.queue.unreserved:
            self.feed_unreserved()

    def put_on(self, task: Task, worker: Worker) -> None:
        """Note that an engine has a task."""
        task.state = _RUNNING
        task.worker = worker
        self.running += 1
        worker.running[task.msg_id] = task
        if task.demand is not None:
            if worker.shelf is not None:
                self.matching.discard(worker)
            self.matching.occupy(worker, task.demand)
        self.update_room(worker)

    def take_back(self, task: Task) -> None:
        """Note that an engine does not have a task any more, whether or not it gets other tasks now."""
        worker = task.worker
        assert worker is not None
        self.take_off(task, worker)
        worker.reserved = False
        self.update_room(worker)

    def take_off(self, task: Task, worker: Worker) -> None:
        """Remove a task from its worker. The caller then has to `feed` the worker, or to update its room."""
        del worker.running[task.msg_id]
        task.worker = None
        self.running -= 1
        if task.demand is not None:
            if worker.shelf is not None:
                self.matching.discard(worker)
            self.matching.occupy(worker, task.demand, False)

    def update_room(self, worker: Worker) -> None:
        """Find out anew whether an engine has room."""
        self.with_room.discard(worker)
        if worker.shelf is not None:
            self.matching.discard(worker)
        if (
            worker.takes_tasks
            and not worker.feeding
            and not worker.reserved
            and (not self.hwm or len(worker.running) < self.hwm)
        ):
            self.with_room.add(worker)
            if worker.kind is not self._plain:
                self.matching.add(worker)

    def _assign(self, task: Task, worker: Worker) -> None:
        self.assignments += 1
        task.attempts += 1
        worker.last_used = self.assignments
        if task.timer is not None or task.patience is not None:
            self.timers.stop(task)
        self.put_on(task, worker)
        self._host.task_assigned(task, worker)

    def _choose(self, task: Task) -> Worker | None:
        if task.targets is None:
            return self.with_room.choose(task) if task.demand is None else self.matching.choose(task)
        # Sorted: the order of a set of bytes differs between processes, and choices must not.
        targets = (self.workers.get(ident) for ident in sorted(task.targets - task.refused))
        with_room = [worker for worker in targets if worker is not None and worker in self.with_room]
        if task.demand is not None:
            with_room = [worker for worker in with_room if self.matching.fits(worker, task.demand)]
        return self.with_room.choose_among(with_room) if with_room else None

    # Which engines may run a task

    def followed(self, task: Task) -> frozenset[bytes] | None:
        """Return the engines on which a task may run because of what it follows, and of its targets; None for all."""
        if task.follow is None:
            return task.asked_targets
        followed = frozenset(task.follow.engines)
        return followed if task.asked_targets is None else followed & task.asked_targets

    def restrict_to_followed(self, task: Task) -> None:
        """Find out anew on which engines a task may run: further requests that it follows may have ended."""
        if task.follow is not None:
            task.targets = self.followed(task)

    def forgive(self, task: Task) -> None:
        """Let a task run again where it has failed, if it has failed on all engines: any engine is better than none."""
        if task.refused != task.unmet and not task.timeout and not _somebody_accepts(task, self):
            task.refused = task.unmet

    def unmet(self, task: Task) -> str | None:
        """Return why no engine can run the task, even an idle one: ``needs`` or ``dependency``. None if an engine can.

        ``needs``: no engine has what the task needs. ``dependency``: no engine meets its functional dependency. An
        engine that a pool could bring counts as well.
        """
        if not self.workers:
            return None  # the next engine may be able to run it
        if self.nobody_meets(task):
            return None if self._host.pools_for(task) else "needs"
        if task.unmet and all(ident in task.unmet for ident in self.workers):
            return "dependency"
        return None

    def nobody_meets(self, task: Task) -> bool:
        """Return whether no engine has what a task needs."""
        return task.demand is not None and not self.matching.somebody_meets(task.demand, task.unmet, task.targets)

    def has_no_target(self, task: Task) -> bool:
        """Return whether a task has targets, and all of them are gone or have refused it."""
        return task.targets is not None and self.workers.keys().isdisjoint(task.targets - task.refused)


def _somebody_accepts(task: Task, placement: Placement) -> bool:
    workers = placement.workers
    if task.demand is not None:
        return placement.matching.somebody_meets(task.demand, task.refused, task.targets)
    if task.targets is None:
        return len(workers) > len(task.refused) or any(map(task.accepts, workers))
    return any(task.accepts(ident) for ident in task.targets if ident in workers)


def may_follow_another(task: Task) -> bool:
    """Return whether a request has not ended that the task follows."""
    return task.follow is not None and bool(task.follow.open)


def _no_target_left() -> ImpossibleDependency:
    return ImpossibleDependency(
        "no engine is left that may run this task: the engines are gone, or did not meet the task's dependencies"
    )
