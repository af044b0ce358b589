"""The task scheduler: it chooses the engine for each task, and decides what happens to the tasks of a lost engine.

`TaskScheduler` is told what happened (`submit`, `result`, `add_engine`, …), and calls the methods of `SchedulerHost` to
have its decisions carried out. It reads no bytes, sends nothing, and has no clock.
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
"""The maximum number of tasks that the scheduler sends or answers before other work has its turn."""
NOT_BEGUN = "it was aborted before it began"

# Globals for code that runs for each task: looking up a member of an enum takes five times as long as a global.
_QUEUED, _RUNNING, _DONE = TaskState.QUEUED, TaskState.RUNNING, TaskState.DONE
_USABLE = WorkerState.USABLE


class SchedulerHost(Protocol):
    """The interface by which the scheduler has its decisions carried out."""

    def task_assigned(self, task: Task, worker: Worker) -> None:
        """Send the task to the engine."""

    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        """Answer the task with an error. The scheduler has forgotten the task."""

    def task_queued_again(self, task: Task) -> None:
        """Note that a task has no engine any more: it is in the queue again, or waits for a dependency."""

    def is_pending(self, msg_id: str) -> bool:
        """Return whether a request of any queue is pending, so that `TaskScheduler.ended` will be called for it."""

    def ask_outcomes(self, task: Task, msg_ids: list[str]) -> None:
        """Look up in the store how these requests ended, and call `TaskScheduler.outcomes_known`."""

    def soon(self, call: Callable[[], None]) -> None:
        """Make the call later, after other work has had its turn."""

    def start_timer(self, task: Task, seconds: float) -> Timer:
        """Call `TaskScheduler.timed_out` after this time, unless the timer is cancelled before."""


class TaskScheduler:
    """Assigns tasks to engines.

    Args:
        host: carries out the scheduler's decisions.
        rng: random numbers, for the schemes that need them.
        hwm: the maximum number of outstanding tasks per engine (high water mark); 0 means no limit. A scheme that is
            not `bounded` has no limit, whatever the value.
        scheme: the name of the scheme that chooses among the engines with room, one of `SCHEMES`.

    Raises:
        ConfigError: the scheme is unknown, or hwm is negative.
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
        """All tasks that are waiting, queued or running, by msg_id."""
        self.workers: dict[bytes, Worker] = {}
        """The engines that may get tasks, by identity."""
        self.running = 0
        """The number of running tasks."""
        self.dependents: dict[str, dict[str, Task]] = {}
        """The tasks that depend on a request that has not ended, by the request's msg_id and then by their own."""
        self.outcomes = Outcomes()
        self._news: deque[tuple[str, Outcome]] = deque()
        self._telling = False
        self._submissions = 0
        self._assignments = 0

    # Engines

    def add_engine(self, ident: bytes, state: WorkerState = WorkerState.USABLE) -> Worker:
        """Add an engine, and give it work. An expected engine gets work only after `engine_back`."""
        worker = self.workers[ident] = Worker(ident, state)
        self._feed(worker)
        return worker

    def engine_back(self, worker: Worker) -> None:
        """Give work to an engine that was expected, and is back."""
        worker.state = WorkerState.USABLE
        self._feed(worker)

    def remove_engine(self, worker: Worker) -> None:
        """Give a lost engine no more tasks. It may still answer its running tasks until `settle`.

        Queued tasks that only this engine could have run fail at once, or go to engines on which they failed before.
        """
        if worker.state is WorkerState.LOST:
            return
        worker.state = WorkerState.LOST
        del self.workers[worker.ident]
        self.with_room.discard(worker)
        self._telling = True  # these may depend on each other: first place them all
        try:
            for task in self.queue.take_confined_to(worker.ident, self.workers.keys()):
                self._place(task)
        finally:
            self._telling = False
        self._tell_news()

    def settle(self, worker: Worker, error_of: Callable[[str], HubError] | None = None) -> None:
        """Run the unanswered tasks of a lost engine elsewhere if they have retries left, else fail them.

        Call this when the engine's grace is over. ``error_of`` returns the error for a task that fails, by its msg_id.
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
        """Run, queue or fail a new task. Return False, and do nothing, if a task with its msg_id is unfinished."""
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
        """Add a task that an earlier hub has sent to an engine. Return False if another task has its msg_id."""
        if task.msg_id in self.tasks:
            return False
        self._submissions += 1
        task.number = self._submissions
        task.sent_by = SentBy.EARLIER_HUB
        self.tasks[task.msg_id] = task
        self._put_on(task, worker)
        return True

    def adopt(self, task: Task, worker: Worker) -> None:
        """Note that a task runs on this engine, since an earlier hub has sent it there, whatever its state is here."""
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
        """Run a task once more, on the same or another engine, since its result was lost."""
        worker = task.worker
        assert worker is not None
        self._take_back(task)
        self._place_anew(task)
        self._feed(worker)

    def running_on(self, ident: bytes, msg_id: str) -> Task | None:
        """Return the task with this msg_id if the engine with this identity has it and has not answered it."""
        task = self.tasks.get(msg_id)
        return task if task is not None and task.worker is not None and task.worker.ident == ident else None

    def result(self, task: Task, *, ok: bool, aborted: bool = False, dependencies_met: bool = True) -> bool:
        """Handle an engine's answer to a task that is `running_on` it. Return whether the client is to get the answer.

        If not, the task goes to another engine: because its functional dependency was not met here, or because it
        failed, was not aborted, and has retries left.
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
        # Queued tasks come first: otherwise a chain of dependent tasks would keep the engine to itself.
        self._feed(worker)
        if final:
            self.ended(task.msg_id, worker.succeeded if ok else worker.failed)
        else:
            self._place_anew(task)
        return final

    def abandon(self, task: Task, error: HubError) -> None:
        """Give up a task, in whatever state it is, and answer it with the error."""
        worker = task.worker
        if worker is not None:
            self._take_back(task)
        elif task.state is TaskState.QUEUED:
            self.queue.remove(task)
        self._fail(task, worker, error)

    def abandon_unsent(self, task: Task, error: HubError) -> None:
        """Give up a task that cannot be sent to its engine, and give the engine other work."""
        worker = task.worker
        self.abandon(task, error)
        if worker is not None:
            self._feed(worker)

    def abort(self, msg_ids: Iterable[str]) -> list[str]:
        """Abort tasks, and return the msg_ids of those that no engine has.

        Tasks that depend on an aborted task treat it as failed. A task that an engine has goes on there, and is not
        sent to another engine.
        """
        found = [task for msg_id in dict.fromkeys(msg_ids) if (task := self.tasks.get(msg_id)) is not None]
        left = [task for task in found if task.worker is None and not task.aborted]
        self.queue.remove_many(task for task in left if task.state is TaskState.QUEUED)
        for task in found:
            task.aborted = True
            if task.worker is None:
                task.state = TaskState.WAITING  # until the hub answers it
        self._answer_aborted(deque(left))
        return [task.msg_id for task in left]

    def _answer_aborted(self, tasks: deque[Task]) -> None:
        """Answer aborted tasks that no engine has, `AT_A_TIME` at a time, so that other work has its turn."""
        telling, self._telling = self._telling, True  # a dependent task may be aborted, too, and gets that answer
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
        """Give up all tasks. No task is run because a task on which it depends has ended in this way."""
        self.dependents.clear()
        for task in list(self.tasks.values()):
            self.abandon(task, error)

    def timed_out(self, task: Task) -> None:
        """Fail a task that has waited for longer than its timeout."""
        if task.worker is None and task.state is not TaskState.DONE:
            self.abandon(task, TaskTimeout(f"the task has waited for longer than {task.timeout} s"))

    # Dependencies

    def outcomes_known(self, task: Task, outcomes: Mapping[str, Outcome]) -> None:
        """Handle the store's answer about a task's dependencies. Requests that it does not know never existed."""
        if task.state is not TaskState.WAITING:
            return
        missing = task.unknown - outcomes.keys()
        task.unknown = frozenset()
        if missing:
            self._fail(task, None, InvalidDependency(f"the task depends on {min(missing)}, which does not exist"))
            return
        for msg_id, outcome in outcomes.items():
            self._tell(task, msg_id, outcome)
        self._advance(task)

    def ended(self, msg_id: str, outcome: Outcome) -> None:
        """Note that a request has ended, and tell the tasks that depend on it.

        A failure may make further tasks fail, at any depth. So the outcomes are queued and told one after the other,
        without recursion.
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
        for dependency in (task.after, task.follow):
            if dependency is not None and msg_id in dependency.open:
                dependency.ended(msg_id, outcome)

    def _advance(self, task: Task) -> None:
        """Fail, place or keep a task, according to the state of its dependencies."""
        if task.aborted:
            return  # `_answer_aborted`, or the task's engine, answers it
        after, follow = task.after, task.follow
        if task.state is TaskState.WAITING:
            if (after and after.impossible) or (follow and (follow.impossible or follow.torn)):
                self._fail(task, None, ImpossibleDependency("the dependencies of the task can never be met any more"))
            elif task.unknown or (after and not after.met) or (follow and not follow.met):
                self._start_timer(task)
            else:
                self._place(task)
        elif task.state is TaskState.QUEUED and task.targets != self._followed(task):
            # one more request that it may follow has ended, perhaps on an engine with room
            self.queue.remove(task)
            self._place(task)

    def _followed(self, task: Task) -> frozenset[bytes] | None:
        if task.follow is None:
            return task.asked_targets
        followed = frozenset(task.follow.engines)
        return followed if task.asked_targets is None else followed & task.asked_targets

    def _restrict_to_followed(self, task: Task) -> None:
        if task.follow is not None:  # further requests that it follows may have ended since it was placed last
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
        # An earlier hub found that the task may run. This hub does not know which engines the task may follow.
        return task.sent_by is SentBy.EARLIER_HUB and (task.after is not None or task.follow is not None)

    def _place_anew(self, task: Task) -> None:
        """Place a task that had an engine before."""
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
        """Run, queue or fail a task that has no engine."""
        if task.targets is None and not task.refused and task.follow is None:
            worker = self.with_room.choose(task)  # any engine may run it, as most tasks
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
            task.state = _QUEUED
            self.queue.push(task)
            if task.timeout:
                self._start_timer(task)
        else:
            self._assign(task, worker)

    def _choose(self, task: Task) -> Worker | None:
        if task.targets is None:
            return self.with_room.choose(task)
        # Sorted: the order of a set of bytes differs between processes, and choices must not.
        targets = (self.workers.get(ident) for ident in sorted(task.targets - task.refused))
        with_room = [worker for worker in targets if worker is not None and worker in self.with_room]
        return self.with_room.choose_among(with_room) if with_room else None

    def _feed(self, worker: Worker) -> None:
        """Give queued tasks to a worker that may have room, `AT_A_TIME` at a time, so that other work has its turn.

        New tasks are queued behind these tasks, until the worker has got all queued tasks for which it has room.
        """
        if worker.state is not _USABLE:
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
        task.state = _RUNNING
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
        """Remove a task from its worker. The caller then has to update the worker's room."""
        del worker.running[task.msg_id]
        task.worker = None
        self.running -= 1

    def _update_room(self, worker: Worker) -> None:
        self.with_room.discard(worker)
        if worker.state is _USABLE and not worker.feeding and (not self.hwm or len(worker.running) < self.hwm):
            self.with_room.add(worker)

    def _forgive(self, task: Task) -> None:
        # If the task has failed on all engines and may be retried, any engine is better than none.
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
        task.state = _DONE
        del self.tasks[task.msg_id]
        if task.timer is not None:
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
        "no engine is left that may run this task: the engines are gone, or did not meet the task's dependencies"
    )
