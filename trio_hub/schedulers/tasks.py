"""The task scheduler: it chooses the engine for each task, and decides what happens to the tasks of a lost engine.

`TaskScheduler` is told what happened (`submit`, `result`, `add_engine`, …), and calls the methods of `SchedulerHost` to
have its decisions carried out. It reads no bytes, sends nothing, and has no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random

from ..errors import HubError, TaskTimeout
from .dependencies import Outcome
from .dependents import Dependents
from .endings import NOT_BEGUN, Endings
from .explaining import Reason, reasons
from .host import SchedulerHost
from .placement import AT_A_TIME, Placement
from .repetition import Repetition, after_failure, pause_after
from .rules import NO_RULES, Needs
from .task import SentBy, Task, TaskState, Worker, WorkerState

__all__ = ["AT_A_TIME", "NOT_BEGUN", "SchedulerHost", "TaskScheduler"]


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
        self._host = host
        self.tasks: dict[str, Task] = {}
        """All tasks that are waiting, paused, queued or running, by msg_id."""
        self.placement = placement = Placement(host, rng, hwm=hwm, scheme=scheme, fail=self._fail)
        self.dependencies = dependencies = Dependents(host, self.tasks, self._advance, self._fail)
        self._endings = Endings(host, self.tasks, placement, dependencies)
        self._repetition = Repetition(host, placement, dependencies, self._endings)
        self.patience_over = self._repetition.patience_over
        self.queue = placement.queue
        self.workers = placement.workers
        """The engines that may get tasks, by identity."""
        self.with_room = placement.with_room
        self.timers = placement.timers
        self.hwm = placement.hwm
        self.dependents = self.dependencies.by_request
        """The tasks that depend on a request that has not ended, by the request's msg_id and then by their own."""
        self.submissions = 0

    def _fail(self, task: Task, error: HubError) -> None:
        self._endings.fail(task, None, error)

    def _advance(self, task: Task) -> None:
        self._repetition.advance(task)

    @property
    def running(self) -> int:
        """The number of running tasks."""
        return self.placement.running

    # Engines

    def add_engine(self, ident: bytes, state: WorkerState = WorkerState.USABLE, offers: Needs = ()) -> Worker:
        """Add an engine with its tags and amounts, and give it work. An expected engine gets work at `engine_back`."""
        return self.placement.add(ident, state, offers)

    def engine_back(self, worker: Worker) -> None:
        """Give work to an engine that was expected, and is back."""
        worker.state = WorkerState.USABLE
        self.placement.changed(worker)

    def set_offers(self, worker: Worker, offers: Needs) -> None:
        """Replace the tags and amounts of an engine. Its running tasks go on, whatever they need."""
        self.placement.set_offers(worker, offers)

    def drain(self, worker: Worker) -> None:
        """Give an engine no new tasks. Its running tasks go on."""
        worker.draining = True
        self.placement.changed(worker)

    def undrain(self, worker: Worker) -> None:
        """Give tasks to an engine again that was drained."""
        worker.draining = False
        self.placement.changed(worker)

    def hold(self, worker: Worker) -> None:
        """Give an engine no new tasks for a moment, until each `hold` is followed by a `release`."""
        worker.holds += 1
        self.placement.changed(worker)

    def release(self, worker: Worker) -> None:
        """End a `hold`."""
        worker.holds -= 1
        self.placement.changed(worker)

    def remove_engine(self, worker: Worker) -> None:
        """Give a lost engine no more tasks. It may still answer its running tasks until `settle`.

        Queued tasks that only this engine could have run fail at once, or go to engines on which they failed before.
        """
        if worker.state is WorkerState.LOST:
            return
        confined = self.placement.remove(worker)
        with self.dependencies.told_later():  # these may depend on each other: first place them all
            for task in confined:
                self.placement.place(task)
        self.placement.feed_unreserved()

    def settle(self, worker: Worker, error_of: Callable[[str], HubError] | None = None) -> None:
        """Run the unanswered tasks of a lost engine elsewhere if they have retries left, else fail them.

        Call this when the engine's grace is over. ``error_of`` returns the error for a task that fails, by its msg_id.
        """
        for task in list(worker.running.values()):
            self.placement.take_back(task)
            self._repetition.engine_lost(task, worker, error_of)

    # Tasks

    def submit(self, task: Task) -> bool:
        """Run, queue or fail a new task. Return False, and do nothing, if a task with its msg_id is unfinished."""
        if task.msg_id in self.tasks:
            return False
        self._begin(task)
        if task.after is None and task.follow is None and not task.pause_left:
            self.placement.place(task)
        else:
            self._repetition.begin(task)
        return True

    def inherit(self, task: Task, worker: Worker) -> bool:
        """Add a task that an earlier hub has sent to an engine. Return False if another task has its msg_id."""
        if task.msg_id in self.tasks:
            return False
        self._begin(task)
        task.sent_by = SentBy.EARLIER_HUB
        self.placement.put_on(task, worker)
        return True

    def _begin(self, task: Task) -> None:
        self.submissions += 1
        task.number = self.submissions
        self.tasks[task.msg_id] = task
        if task.rules is not NO_RULES:
            self.placement.matching.begin(task)

    def adopt(self, task: Task, worker: Worker) -> None:
        """Note that a task runs on this engine, since an earlier hub has sent it there, whatever its state is here."""
        elsewhere = task.worker
        if elsewhere is not None:
            self.placement.take_back(task)
        elif task.state is TaskState.QUEUED:
            self.placement.unqueue(task)
        self.timers.stop(task)
        self.placement.put_on(task, worker)
        if elsewhere is not None:
            self.placement.feed(elsewhere)

    def run_again(self, task: Task) -> None:
        """Run a task once more, on the same or another engine, since its result was lost. That does not count."""
        worker = task.worker
        assert worker is not None
        self.placement.take_back(task)
        task.attempts -= 1
        self._repetition.place_anew(task)
        self.placement.feed(worker)

    def take_away(self, task: Task) -> None:
        """Place a running task anew, since its attempt was interrupted, or its engine drained to the deadline.

        The attempt does not count. Queued tasks come first on the engine, and the task may go there again.
        """
        worker = task.worker
        assert worker is not None
        self.placement.take_back(task)
        task.attempts -= 1
        self.placement.feed(worker)
        self._repetition.place_anew(task)

    def running_on(self, ident: bytes, msg_id: str) -> Task | None:
        """Return the task with this msg_id if the engine with this identity has it and has not answered it."""
        task = self.tasks.get(msg_id)
        return task if task is not None and task.worker is not None and task.worker.ident == ident else None

    def result(
        self, task: Task, *, ok: bool, aborted: bool = False, dependencies_met: bool = True, ename: str = ""
    ) -> bool:
        """Handle an engine's answer to a task that is `running_on` it. Return whether the client is to get the answer.

        If not, the task goes to another engine: because its functional dependency was not met here, or because it
        failed, was not aborted, and is to be repeated.

        Args:
            task: the task.
            ok, aborted, dependencies_met: what the answer says.
            ename: the name of the exception. It is used only if the task has `TaskRules.retry_on`.
        """
        worker = task.worker
        assert worker is not None
        ident = worker.ident
        self.placement.take_off(task, worker)
        pause = 0.0
        final = ok or aborted or (dependencies_met and not after_failure(task, ename))
        if final:
            self._endings.forget(task)
        else:
            task.refused |= {ident}
            if dependencies_met:
                pause = pause_after(task)
            else:
                task.unmet |= {ident}
                task.attempts -= 1
        # Queued tasks come first: otherwise a chain of dependent tasks would keep the engine to itself.
        self.placement.feed(worker)
        if final:
            self.dependencies.ended(task.msg_id, worker.succeeded if ok else worker.failed)
        else:
            self._repetition.place_anew(task, pause)
        return final

    def abandon(self, task: Task, error: HubError) -> None:
        """Give up a task, in whatever state it is, and answer it with the error."""
        self._endings.abandon(task, error)

    def abandon_unsent(self, task: Task, error: HubError) -> None:
        """Give up a task that cannot be sent to its engine, and give the engine other work."""
        worker = task.worker
        self._endings.abandon(task, error)
        if worker is not None:
            self.placement.feed(worker)

    def abandon_all(self, error: HubError) -> None:
        """Give up all tasks. No task is run because a task on which it depends has ended in this way."""
        self.dependents.clear()
        for task in list(self.tasks.values()):
            self._endings.abandon(task, error)

    def abort(self, msg_ids: Iterable[str]) -> list[str]:
        """Abort tasks, and return the msg_ids of those that no engine has.

        Tasks that depend on an aborted task treat it as failed. A task that an engine has goes on there, and is not
        sent to another engine.
        """
        return self._endings.abort(msg_ids)

    def timed_out(self, task: Task) -> None:
        """Fail a task that has waited for longer than its timeout."""
        if task.worker is None and task.state is not TaskState.DONE:
            self._endings.abandon(task, TaskTimeout(f"the task has waited for longer than {task.timeout} s"))

    def pause_over(self, task: Task) -> None:
        """Place a task whose pause is over."""
        if task.state is TaskState.PAUSED:
            self._repetition.pause_over(task)

    def explain(self, task: Task) -> list[Reason]:
        """Return what a task waits for, and for each engine whether it could run the task now and, if not, why."""
        return reasons(task, self.placement, self._host)

    def outcomes_known(self, task: Task, outcomes: Mapping[str, Outcome]) -> None:
        """Handle the store's answer about a task's dependencies. Requests that it does not know never existed."""
        self.dependencies.outcomes_known(task, outcomes)

    def ended(self, msg_id: str, outcome: Outcome) -> None:
        """Note that a request has ended, and tell the tasks that depend on it."""
        self.dependencies.ended(msg_id, outcome)
