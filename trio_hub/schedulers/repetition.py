"""Repetition: whether a task gets another attempt after a failure or the loss of its engine, and when and where."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import EngineError, HubError, ImpossibleDependency, TaskAborted
from .dependents import Dependents
from .endings import NOT_BEGUN, Endings
from .explaining import why_hopeless
from .host import SchedulerHost
from .placement import Placement, may_follow_another
from .rules import ANY_FAILURE, DEATH, MAX_SECONDS, TaskRules
from .task import SentBy, Task, TaskState, Worker

__all__ = ["Repetition", "after_failure", "pause_after", "pause_after_attempt"]


class Repetition:
    """Places tasks when what they wait for has come: a request on which they depend, or the end of a pause.

    Args:
        host: starts timers, and notes which tasks have no engine any more.
        placement: the engines and the queue.
        dependencies: the tasks that depend on others.
        endings: ends tasks.
    """

    def __init__(
        self,
        host: SchedulerHost,
        placement: Placement,
        dependencies: Dependents,
        endings: Endings,
    ) -> None:
        self._host = host
        self._placement = placement
        self._dependencies = dependencies
        self._endings = endings

    def begin(self, task: Task) -> None:
        """Place a new task, after the rest of its pause if an earlier hub has begun one, and after its dependencies."""
        if task.pause_left:
            self._placement.timers.pause(task, task.pause_left)
        elif task.after is None and task.follow is None:
            self._placement.place(task)
        else:
            self._dependencies.look_up(task)

    def pause_over(self, task: Task) -> None:
        """Place a task whose pause is over."""
        self._placement.timers.end_pause(task)
        if task.pause_left:  # this hub does not know the dependencies yet
            task.pause_left = 0.0
            self.begin(task)
        else:
            self.go_on(task)

    def patience_over(self, task: Task) -> None:
        """Fail a queued task that no engine could run, now and when its timer was started. Else start the timer anew.

        So a task fails at the earliest after this time, and at the latest after twice this time, without an engine.
        """
        task.patience = None
        if task.state is not TaskState.QUEUED:
            return
        timers = self._placement.timers
        why = why_hopeless(task, self._placement)
        if why is not None and task.is_hopeless:
            error = f"no engine could run the task for {timers.patience:g} s (setting unmet_timeout): the task {why}"
            self._endings.abandon(task, ImpossibleDependency(error))
        else:
            timers.wait_patiently(task, is_hopeless=why is not None)

    def advance(self, task: Task) -> None:
        """Fail, place or keep a task, according to the state of its dependencies."""
        if task.aborted:
            return  # `_answer_aborted`, or the task's engine, answers it
        after, follow = task.after, task.follow
        if task.state is TaskState.WAITING:
            if (after and after.impossible) or (follow and (follow.impossible or follow.torn)):
                self._endings.fail(
                    task, None, ImpossibleDependency("the dependencies of the task can never be met any more")
                )
            elif task.unknown or (after and not after.met) or (follow and not follow.met):
                self._placement.timers.start(task)
            else:
                self._placement.place(task)
        elif task.state is TaskState.QUEUED and task.targets != self._placement.followed(task):
            # one more request that it may follow has ended, perhaps on an engine with room
            self._placement.unqueue(task)
            self._placement.place(task)

    def engine_lost(self, task: Task, worker: Worker, error_of: Callable[[str], HubError] | None) -> None:
        """Place a task anew that was lost with its engine, or fail it.

        Args:
            task: the task. It has no engine any more.
            worker: the engine.
            error_of: returns the error for a task that fails, by its msg_id.
        """
        task.deaths = (*task.deaths, worker.ident)
        repeated = _repeated_after_death(task) and self._can_run_elsewhere(task)
        if repeated and len(task.deaths) < task.rules.max_deaths:
            self.place_anew(task, pause_after(task))
            return
        uuid = worker.ident.decode("utf-8", "replace")
        died = EngineError(f"Engine {uuid} died while running task {task.msg_id}")
        error = died if error_of is None else error_of(task.msg_id)
        self._endings.fail(task, worker, _story_of_deaths(task, error) if repeated else error)

    def _can_run_elsewhere(self, task: Task) -> bool:
        if self._must_ask_anew(task):
            return True
        placement = self._placement
        placement.restrict_to_followed(task)
        placement.forgive(task)
        return may_follow_another(task) or not placement.has_no_target(task)

    def _must_ask_anew(self, task: Task) -> bool:
        # An earlier hub found that the task may run. This hub does not know which engines the task may follow.
        return task.sent_by is SentBy.EARLIER_HUB and (task.after is not None or task.follow is not None)

    def place_anew(self, task: Task, pause: float = 0.0) -> None:
        """Place a task that had an engine before, perhaps after a pause of this many seconds."""
        task.waited = 0.0  # the wait begins anew
        if task.aborted:
            self._endings.fail(task, None, TaskAborted(NOT_BEGUN))
        elif pause:
            self._placement.timers.pause(task, pause)
        else:
            self.go_on(task)
        if task.worker is None and task.state is not TaskState.DONE:
            self._host.task_queued_again(task)

    def go_on(self, task: Task) -> None:
        """Place a task that had an engine before, after its pause."""
        must_ask_anew = self._must_ask_anew(task)
        if task.sent_by is SentBy.EARLIER_HUB:
            task.sent_by = SentBy.PERHAPS_EARLIER_HUB
        if must_ask_anew:
            self._dependencies.look_up(task)
        else:
            self._placement.place(task)


def after_failure(task: Task, ename: str) -> bool:
    """Return whether a task is repeated that has failed on its engine, with an exception of this name."""
    if task.aborted or not _attempts_left(task):
        return False
    retry_on = task.rules.retry_on
    return retry_on is None or ename in retry_on or ANY_FAILURE in retry_on


def _repeated_after_death(task: Task) -> bool:
    """Return whether a task is repeated that was lost with its engine, if not for `TaskRules.max_deaths`."""
    if task.aborted or not _attempts_left(task):
        return False
    retry_on = task.rules.retry_on
    return retry_on is None or DEATH in retry_on or ANY_FAILURE in retry_on


def pause_after(task: Task) -> float:
    """Count one retry of a task that is repeated. Return the seconds before its next attempt, doubled each time."""
    if task.retries > 0:
        task.retries -= 1
    return pause_after_attempt(task.attempts, task.rules)


def pause_after_attempt(attempts: int, rules: TaskRules) -> float:
    """Return the seconds between an attempt, given by its number, and the next one."""
    pause = rules.retry_pause
    return min(pause * 2.0 ** min(attempts - 1, 100), MAX_SECONDS) if pause else 0.0


def _story_of_deaths(task: Task, error: HubError) -> EngineError:
    """Return the error for a task that was lost with `TaskRules.max_deaths` engines.

    Args:
        task: the task.
        error: what happened to the last engine.
    """
    engines = [ident.decode("utf-8", "replace") for ident in task.deaths]
    number = "1 engine" if len(engines) == 1 else f"{len(engines)} engines"
    return EngineError(
        f"{error}. The task was lost with {number} ({', '.join(engines)}), and its max_deaths is "
        f"{task.rules.max_deaths}: it is not given to another engine"
    )


def _attempts_left(task: Task) -> bool:
    most = task.rules.max_attempts
    return task.attempts < most if most else task.retries > 0
