"""The load-balanced task queue: which task goes to which engine, and what an engine's death does to it.

`TaskScheduler` is told what happened (`submit`, `result`, `add_engine`, …) and says what to do through the
methods of `SchedulerHost`. It reads no bytes, sends nothing, and knows no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random
from typing import Protocol

from ..errors import (
    ConfigError,
    EngineError,
    HubError,
    ImpossibleDependency,
    InvalidDependency,
    TaskAborted,
    TaskTimeout,
)
from .dependencies import Outcome, Outcomes
from .fairqueue import FairQueue
from .schemes import SCHEMES
from .task import SentBy, Task, TaskState, Timer, Worker, WorkerState

__all__ = ["AT_A_TIME", "NOT_BEGUN", "SchedulerHost", "TaskScheduler"]

AT_A_TIME = 500
"""Tasks that the scheduler sends or answers in one go, at most."""
NOT_BEGUN = "it was aborted before it began"


class SchedulerHost(Protocol):
    """What the scheduler asks of those around it."""

    def task_assigned(self, task: Task, worker: Worker) -> None:
        """Send the task to the engine."""

    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        """Answer the task with an error; the scheduler has forgotten it."""

    def task_queued_again(self, task: Task) -> None:
        """Note that a task that had an engine waits for another: it is in the queue, or waits for a dependency."""

    def is_pending(self, msg_id: str) -> bool:
        """Whether a request that is not the scheduler's will be told to `TaskScheduler.ended` when it ends."""

    def ask_outcomes(self, task: Task, msg_ids: list[str]) -> None:
        """Find out how these requests ended, long ago, and tell `TaskScheduler.outcomes_known`."""

    def soon(self, call: Callable[[], None]) -> None:
        """Make the call after all others have had their turn."""

    def start_timer(self, task: Task, seconds: float) -> Timer:
        """Call `TaskScheduler.timed_out` after that time, unless the timer is cancelled before."""


class TaskScheduler:
    """Assigns tasks to engines.

    Args:
        host: carries out what is decided.
        rng: chance, for the schemes that need it.
        hwm: how many tasks may be outstanding on one engine (high water mark); 0 is unlimited, and so is a scheme
            that is not `bounded`, whatever this says.
        scheme: name of the scheme that chooses among engines with room, one of `SCHEMES`.

    Raises:
        ConfigError: for a scheme or hwm that is not one.
    """

    def __init__(self, host: SchedulerHost, rng: Random, *, hwm: int = 1, scheme: str = "leastload") -> None:
        if scheme not in SCHEMES:
            raise ConfigError(f"scheme {scheme!r} is not known: use one of {', '.join(sorted(SCHEMES))}")
        if hwm < 0:
            raise ConfigError(f"hwm must not be negative (0 is unlimited), got {hwm}")
        self._host = host
        self.with_room = SCHEMES[scheme](rng)
        self.hwm = hwm if self.with_room.bounded else 0
        self.queue = FairQueue()
        self.tasks: dict[str, Task] = {}
        """Every task that is waiting, queued or running, by msg_id."""
        self.workers: dict[bytes, Worker] = {}
        """The engines that may get tasks, by identity."""
        self.running = 0
        """How many of them are running."""
        self.dependents: dict[str, dict[str, Task]] = {}
        """The tasks that depend on a request that has not ended yet: by its msg_id, then by theirs."""
        self.outcomes = Outcomes()
        self._news: deque[tuple[str, Outcome]] = deque()
        self._telling = False
        self._submissions = 0
        self._assignments = 0

    # Engines

    def add_engine(self, ident: bytes, state: WorkerState = WorkerState.USABLE) -> Worker:
        """Add an engine that has come, and give it work; to an expected engine not before `engine_back`."""
        worker = self.workers[ident] = Worker(ident, state)
        self._feed(worker)
        return worker

    def engine_back(self, worker: Worker) -> None:
        """Give work to an engine that was expected."""
        worker.state = WorkerState.USABLE
        self._feed(worker)

    def remove_engine(self, worker: Worker) -> None:
        """An engine is lost: it gets nothing more, and what it runs may still be answered until `settle`.

        Queued tasks that only this engine could have run fail at once, or are given to engines that have failed
        them before.
        """
        if worker.state is WorkerState.LOST:
            return
        worker.state = WorkerState.LOST
        del self.workers[worker.ident]
        self.with_room.discard(worker)
        self._telling = True  # who depends on one of these may be another of them: it must have its place first
        try:
            for task in self.queue.take_confined_to(worker.ident, self.workers.keys()):
                self._place(task)
        finally:
            self._telling = False
        self._tell_news()

    def settle(self, worker: Worker, error_of: Callable[[str], HubError] | None = None) -> None:
        """The grace of a lost engine is over: run what it left elsewhere if it has retries, else fail it.

        ``error_of`` gives the error of a task that fails, by its msg_id.
        """
        for task in list(worker.running.values()):
            self._take_back(task)
            if task.retries > 0 and not task.aborted and self._can_run_elsewhere(task):
                task.retries -= 1
                self._place_anew(task)
            else:
                uuid = worker.ident.decode("utf-8", "replace")
                died = EngineError(f"Engine {uuid} died while running task {task.msg_id}")
                self._fail(task, worker, died if error_of is None else error_of(task.msg_id))

    def _can_run_elsewhere(self, task: Task) -> bool:
        if self._must_ask_anew(task):
            return True
        self._restrict_to_followed(task)
        self._forgive(task)
        return self._may_follow_another(task) or not self._has_no_target(task)

    # Tasks

    def submit(self, task: Task) -> bool:
        """A task has come: run it, queue it, or fail it. False if one of this msg_id is unfinished."""
        if task.msg_id in self.tasks:
            return False
        self._submissions += 1
        task.number = self._submissions
        self.tasks[task.msg_id] = task
        if task.after is None and task.follow is None:
            self._place(task)
        else:
            self._look_up_dependencies(task)
        return True

    def inherit(self, task: Task, worker: Worker) -> bool:
        """A task is known that an earlier hub has sent to an engine. False if one of this msg_id is unfinished."""
        if task.msg_id in self.tasks:
            return False
        self._submissions += 1
        task.number = self._submissions
        task.sent_by = SentBy.EARLIER_HUB
        self.tasks[task.msg_id] = task
        self._put_on(task, worker)
        return True

    def adopt(self, task: Task, worker: Worker) -> None:
        """A task turns out to have run on this engine, wherever it is now: an earlier hub had sent it there."""
        elsewhere = task.worker
        if elsewhere is not None:
            self._take_back(task)
        elif task.state is TaskState.QUEUED:
            self.queue.remove(task)
        self._stop_timer(task)
        self._put_on(task, worker)
        if elsewhere is not None:
            self._feed(elsewhere)

    def run_again(self, task: Task) -> None:
        """What became of a task on its engine cannot be known any more: run it once more, there or elsewhere."""
        worker = task.worker
        assert worker is not None
        self._take_back(task)
        self._place_anew(task)
        self._feed(worker)

    def running_on(self, ident: bytes, msg_id: str) -> Task | None:
        """The task, if it is one that the engine of this identity has been given and not yet answered."""
        task = self.tasks.get(msg_id)
        return task if task is not None and task.worker is not None and task.worker.ident == ident else None

    def result(self, task: Task, *, ok: bool, aborted: bool = False, dependencies_met: bool = True) -> bool:
        """An engine has answered a task that is `running_on` it. Whether the answer is the client's to have.

        It is not if the task goes to another engine: because the functional dependency was not met here, or
        because it failed, was not aborted, and has retries left.
        """
        worker = task.worker
        assert worker is not None
        ident = worker.ident
        self._take_off(task, worker)
        final = ok or aborted or (dependencies_met and (task.retries <= 0 or task.aborted))
        if final:
            self._forget(task)
        else:
            task.refused |= {ident}
            if dependencies_met:
                task.retries -= 1
            else:
                task.unmet |= {ident}
        # The queued tasks come first: else a chain of tasks, each after the one before, would keep the engine.
        self._feed(worker)
        if final:
            self.ended(task.msg_id, Outcome(ok, ident))
        else:
            self._place_anew(task)
        return final

    def abandon(self, task: Task, error: HubError) -> None:
        """Give a task up, wherever it is, and answer it with the error."""
        worker = task.worker
        if worker is not None:
            self._take_back(task)
        elif task.state is TaskState.QUEUED:
            self.queue.remove(task)
        self._fail(task, worker, error)

    def abandon_unsent(self, task: Task, error: HubError) -> None:
        """Give a task up that cannot be sent to its engine, which may have another."""
        worker = task.worker
        self.abandon(task, error)
        if worker is not None:
            self._feed(worker)

    def abort(self, msg_ids: Iterable[str]) -> list[str]:
        """Abort tasks, and return the msg_ids of those that no engine has.

        To their dependents, aborted tasks have failed. A task that an engine has goes on there, but never elsewhere.
        """
        found = [task for msg_id in dict.fromkeys(msg_ids) if (task := self.tasks.get(msg_id)) is not None]
        left = [task for task in found if task.worker is None and not task.aborted]
        self.queue.remove_many(task for task in left if task.state is TaskState.QUEUED)
        for task in found:
            task.aborted = True
            if task.worker is None:
                task.state = TaskState.WAITING  # until it is answered
        self._answer_aborted(deque(left))
        return [task.msg_id for task in left]

    def _answer_aborted(self, tasks: deque[Task]) -> None:
        """Answer aborted tasks, which no engine has: some at a time, between which everybody else has a turn."""
        telling, self._telling = self._telling, True  # a dependent may be aborted, too, and is then answered as such
        try:
            for _ in range(min(len(tasks), AT_A_TIME)):
                task = tasks.popleft()
                if task.worker is None and task.state is not TaskState.DONE:
                    self._fail(task, None, TaskAborted(NOT_BEGUN))
        finally:
            self._telling = telling
        if not telling:
            self._tell_news()
        if tasks:
            self._host.soon(partial(self._answer_aborted, tasks))

    def abandon_all(self, error: HubError) -> None:
        """Give all tasks up. None is run because another has ended so."""
        self.dependents.clear()
        for task in list(self.tasks.values()):
            self.abandon(task, error)

    def timed_out(self, task: Task) -> None:
        """The time is up in which the task may wait."""
        if task.worker is None and task.state is not TaskState.DONE:
            self.abandon(task, TaskTimeout(f"the task has waited for longer than {task.timeout} s"))

    # Dependencies

    def outcomes_known(self, task: Task, outcomes: Mapping[str, Outcome]) -> None:
        """What the store knows of the requests that were asked for; those it does not know never existed."""
        if task.state is not TaskState.WAITING:
            return
        missing = task.unknown - outcomes.keys()
        task.unknown = frozenset()
        if missing:
            self._fail(task, None, InvalidDependency(f"there is no task {min(missing)}, on which it depends"))
            return
        for msg_id, outcome in outcomes.items():
            self._tell(task, msg_id, outcome)
        self._advance(task)

    def ended(self, msg_id: str, outcome: Outcome) -> None:
        """A request has ended: see who depended on it.

        A failure may fail others in turn, and so on, at any depth: these are told one after the other, not from
        within each other.
        """
        self.outcomes.remember(msg_id, outcome)
        if msg_id not in self.dependents:
            return
        self._news.append((msg_id, outcome))
        if not self._telling:
            self._tell_news()

    def _tell_news(self) -> None:
        self._telling = True
        try:
            while self._news:
                msg_id, outcome = self._news.popleft()
                for task in self.dependents.pop(msg_id, {}).values():
                    self._tell(task, msg_id, outcome)
                    self._advance(task)
        finally:
            self._telling = False

    def _look_up_dependencies(self, task: Task) -> None:
        task.state = TaskState.WAITING
        depends_on = task.depends_on
        if task.msg_id in depends_on:
            self._fail(task, None, InvalidDependency("the task depends on itself"))
            return
        unknown = []
        for msg_id in depends_on:
            if msg_id in self.tasks or self._host.is_pending(msg_id):
                self.dependents.setdefault(msg_id, {})[task.msg_id] = task
            elif (outcome := self.outcomes.get(msg_id)) is not None:
                self._tell(task, msg_id, outcome)
            else:
                unknown.append(msg_id)
        if unknown:
            task.unknown = frozenset(unknown)
            self._host.ask_outcomes(task, sorted(unknown))
        self._advance(task)

    def _tell(self, task: Task, msg_id: str, outcome: Outcome) -> None:
        for condition in (task.after, task.follow):
            if condition is not None and msg_id in condition.open:
                condition.ended(msg_id, outcome)

    def _advance(self, task: Task) -> None:
        """See how far a task has come with its dependencies."""
        if task.aborted:
            return  # it is answered by `_answer_aborted`, or by its engine
        after, follow = task.after, task.follow
        if task.state is TaskState.WAITING:
            if (after and after.impossible) or (follow and (follow.impossible or follow.torn)):
                self._fail(task, None, ImpossibleDependency("what the task depends on can never be met any more"))
            elif task.unknown or (after and not after.met) or (follow and not follow.met):
                self._start_timer(task)
            else:
                self._place(task)
        elif task.state is TaskState.QUEUED and task.targets != self._followed(task):
            # one more of those it may follow has ended, perhaps where there is room
            self.queue.remove(task)
            self._place(task)

    def _followed(self, task: Task) -> frozenset[bytes] | None:
        if task.follow is None:
            return task.asked_targets
        followed = frozenset(task.follow.engines)
        return followed if task.asked_targets is None else followed & task.asked_targets

    def _restrict_to_followed(self, task: Task) -> None:
        if task.follow is not None:  # and it may be that another of them has ended since it was placed last
            task.targets = self._followed(task)

    def _may_follow_another(self, task: Task) -> bool:
        return task.follow is not None and bool(task.follow.open)

    def _start_timer(self, task: Task) -> None:
        if task.timeout and task.timer is None:
            left = max(task.timeout - task.waited, 0.001) if task.waited else task.timeout
            task.timer = self._host.start_timer(task, left)

    def _stop_timer(self, task: Task) -> None:
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None

    # Assignment

    def _must_ask_anew(self, task: Task) -> bool:
        # An earlier hub has found that the task may run; which engines it may follow is not known here.
        return task.sent_by is SentBy.EARLIER_HUB and (task.after is not None or task.follow is not None)

    def _place_anew(self, task: Task) -> None:
        """Place a task that has had an engine."""
        must_ask_anew = self._must_ask_anew(task)
        if task.sent_by is SentBy.EARLIER_HUB:
            task.sent_by = SentBy.PERHAPS_EARLIER_HUB
        task.waited = 0.0  # the wait begins anew
        if task.aborted:
            self._fail(task, None, TaskAborted(NOT_BEGUN))
        elif must_ask_anew:
            self._look_up_dependencies(task)
        else:
            self._place(task)
        if task.worker is None and task.state is not TaskState.DONE:
            self._host.task_queued_again(task)

    def _place(self, task: Task) -> None:
        """Run a task that has no engine, or queue it, or fail it."""
        if task.targets is None and not task.refused and task.follow is None:
            worker = self.with_room.choose(task)  # as for most tasks: any engine will do
        else:
            self._restrict_to_followed(task)
            self._forgive(task)
            if self._has_no_target(task):
                if self._may_follow_another(task):
                    task.state = TaskState.WAITING
                    self._start_timer(task)
                else:
                    self._fail(task, None, _no_target_left())
                return
            worker = self._choose(task)
        if worker is None:
            task.state = TaskState.QUEUED
            self.queue.push(task)
            self._start_timer(task)
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
        """Give queued tasks to a worker that may have room: some at a time, between which everybody else has a turn.

        Until the worker has got all queued tasks for which it has room, new tasks are queued behind them.
        """
        if worker.state is not WorkerState.USABLE:
            self._update_room(worker)
            return
        if worker.feeding:
            return
        left = AT_A_TIME
        while not self.hwm or len(worker.running) < self.hwm:
            task = self.queue.take(worker.ident)
            if task is None:
                self._update_room(worker)
                return
            self._assign(task, worker)
            left -= 1
            if not left:
                worker.feeding = len(self.queue) > 0
                self._update_room(worker)
                if worker.feeding:
                    self._host.soon(partial(self._feed_on, worker))
                return

    def _feed_on(self, worker: Worker) -> None:
        worker.feeding = False
        self._update_room(worker)
        self._feed(worker)

    def _assign(self, task: Task, worker: Worker) -> None:
        self._assignments += 1
        worker.last_used = self._assignments
        if task.timer is not None:
            self._stop_timer(task)
        self._put_on(task, worker)
        self._host.task_assigned(task, worker)

    def _put_on(self, task: Task, worker: Worker) -> None:
        task.state = TaskState.RUNNING
        task.worker = worker
        self.running += 1
        worker.running[task.msg_id] = task
        self._update_room(worker)

    def _take_back(self, task: Task) -> None:
        worker = task.worker
        assert worker is not None
        self._take_off(task, worker)
        self._update_room(worker)

    def _take_off(self, task: Task, worker: Worker) -> None:
        """Whoever calls this sees to it that the worker's room is updated."""
        del worker.running[task.msg_id]
        task.worker = None
        self.running -= 1

    def _update_room(self, worker: Worker) -> None:
        self.with_room.discard(worker)
        if (
            worker.state is WorkerState.USABLE
            and not worker.feeding
            and (not self.hwm or len(worker.running) < self.hwm)
        ):
            self.with_room.add(worker)

    def _forgive(self, task: Task) -> None:
        # If all have failed it once, and it asked to be tried again: better on any than never.
        if task.refused != task.unmet and not task.timeout and not self._somebody_accepts(task):
            task.refused = task.unmet

    def _has_no_target(self, task: Task) -> bool:
        return task.targets is not None and self.workers.keys().isdisjoint(task.targets - task.refused)

    def _somebody_accepts(self, task: Task) -> bool:
        if task.targets is None:
            return len(self.workers) > len(task.refused) or any(map(task.accepts, self.workers))
        return any(task.accepts(ident) for ident in task.targets if ident in self.workers)

    def _fail(self, task: Task, worker: Worker | None, error: HubError) -> None:
        self._forget(task)
        self._host.task_failed(task, worker, error)
        self.ended(task.msg_id, Outcome(False, worker.ident if worker is not None else None))

    def _forget(self, task: Task) -> None:
        task.state = TaskState.DONE
        del self.tasks[task.msg_id]
        self._stop_timer(task)
        if task.after is not None or task.follow is not None:
            for msg_id in task.depends_on:
                dependents = self.dependents.get(msg_id)
                if dependents is not None:
                    dependents.pop(task.msg_id, None)
                    if not dependents:
                        del self.dependents[msg_id]


def _no_target_left() -> ImpossibleDependency:
    return ImpossibleDependency(
        "none of the engines that this task may run on is left: they are gone, or did not meet its dependencies"
    )
