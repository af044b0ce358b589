"""A scheduler whose decisions are recorded, and tasks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Any

from trio_hub.errors import HubError
from trio_hub.schedulers.rules import NO_RULES, Needs, TaskRules
from trio_hub.schedulers.task import Task, Worker
from trio_hub.schedulers.tasks import TaskScheduler
from trio_hub.wire.messages import TaskMetadata


def make_task(msg_id: str, session: str = "client", rules: TaskRules = NO_RULES, **metadata: Any) -> Task:
    return Task(msg_id, [b"client"], [], session=session, metadata=TaskMetadata(**metadata), rules=rules)


class FakeTimer:
    def __init__(self, task: Task, seconds: float) -> None:
        self.task = task
        self.seconds = seconds
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Oracle:
    """The part of a delivery that knows of other requests and of time."""

    def __init__(self) -> None:
        self.pending: set[str] = set()
        """The msg_ids of unfinished requests that the scheduler does not have."""
        self.asked: list[tuple[Task, list[str]]] = []
        self.timers: list[FakeTimer] = []
        self.pauses: list[FakeTimer] = []
        self.patiences: list[FakeTimer] = []
        self.left: dict[bytes, float] = {}
        """How long each engine will still be there, in seconds, where this is known."""
        self.pools: Sequence[str] = ()
        """The names of the pools that could bring an engine for each task without targets."""
        self.calls: list[Callable[[], None]] = []
        """The calls that the scheduler has asked for (`soon`)."""

    def is_pending(self, msg_id: str) -> bool:
        return msg_id in self.pending

    def ask_outcomes(self, task: Task, msg_ids: list[str]) -> None:
        self.asked.append((task, msg_ids))

    def soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def take_turns(self) -> int:
        """Make all these calls, and the calls that they ask for. Return their number."""
        turns = 0
        while self.calls:
            self.calls.pop(0)()
            turns += 1
        return turns

    def start_timer(self, task: Task, seconds: float) -> FakeTimer:
        self.timers.append(FakeTimer(task, seconds))
        return self.timers[-1]

    def start_pause(self, task: Task, seconds: float) -> FakeTimer:
        self.pauses.append(FakeTimer(task, seconds))
        return self.pauses[-1]

    def start_patience(self, task: Task, seconds: float) -> FakeTimer:
        self.patiences.append(FakeTimer(task, seconds))
        return self.patiences[-1]

    def seconds_left(self, worker: Worker) -> float:
        return self.left.get(worker.ident, inf)

    def pools_for(self, task: Task) -> Sequence[str]:
        return self.pools if task.targets is None and not task.unmet else ()


class Recorder(Oracle):
    """Records the scheduler's decisions, as ``(msg_id, identity)`` and ``(msg_id, identity, error's name)``."""

    def __init__(self) -> None:
        super().__init__()
        self.assigned: list[tuple[str, str]] = []
        self.failed: list[tuple[str, str | None, str]] = []
        self.queued_again: list[str] = []

    def task_queued_again(self, task: Task) -> None:
        self.queued_again.append(task.msg_id)

    def task_assigned(self, task: Task, worker: Worker) -> None:
        self.assigned.append((task.msg_id, worker.ident.decode()))

    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        self.failed.append((task.msg_id, worker.ident.decode() if worker else None, type(error).__name__))


class Bench:
    """A scheduler with engines that are called by one letter each."""

    def __init__(self, engines: str = "", *, hwm: int = 1, scheme: str = "leastload", seed: int = 1) -> None:
        self.recorder = Recorder()
        self.scheduler = TaskScheduler(self.recorder, Random(seed), hwm=hwm, scheme=scheme)
        self.workers: dict[str, Worker] = {}
        for name in engines:
            self.add(name)

    def add(self, name: str, offers: Needs = ()) -> Worker:
        worker = self.workers[name] = self.scheduler.add_engine(name.encode(), offers=offers)
        return worker

    def remove(self, name: str) -> None:
        self.scheduler.remove_engine(self.workers[name])

    def settle(self, name: str) -> None:
        self.scheduler.settle(self.workers[name])

    def submit(self, msg_id: str, session: str = "client", **metadata: Any) -> Task:
        task = make_task(msg_id, session, **metadata)
        assert self.scheduler.submit(task)
        return task

    def answer(self, name: str, msg_id: str, *, ok: bool = True, met: bool = True) -> bool:
        task = self.scheduler.running_on(name.encode(), msg_id)
        assert task is not None, f"{msg_id} does not run on {name}"
        return self.scheduler.result(task, ok=ok, dependencies_met=met)

    def where(self) -> dict[str, str]:
        """Return the engine of each running task."""
        tasks = self.scheduler.tasks.values()
        return {task.msg_id: task.worker.ident.decode() for task in tasks if task.worker is not None}

    def queued(self) -> list[str]:
        return [task.msg_id for task in self.scheduler.queue]

    @property
    def assigned(self) -> list[tuple[str, str]]:
        """Return the assignments since the last call."""
        assigned, self.recorder.assigned = self.recorder.assigned, []
        return assigned

    @property
    def failed(self) -> list[tuple[str, str | None, str]]:
        """Return the failures since the last call."""
        failed, self.recorder.failed = self.recorder.failed, []
        return failed
