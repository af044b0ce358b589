"""Repetition: whether a task gets another attempt after a failure or the loss of its engine, and after which pause."""

from __future__ import annotations

from ..errors import EngineError, HubError
from .rules import ANY_FAILURE, DEATH, MAX_SECONDS
from .task import Task

__all__ = ["after_death", "after_failure", "pause_after", "story_of_deaths"]


def after_failure(task: Task, ename: str) -> bool:
    """Return whether a task is repeated that has failed on its engine, with an exception of this name."""
    if task.aborted or not _attempts_left(task):
        return False
    retry_on = task.rules.retry_on
    return retry_on is None or ename in retry_on or ANY_FAILURE in retry_on


def after_death(task: Task) -> bool:
    """Return whether a task is repeated that was lost with its engine, if not for `TaskRules.max_deaths`."""
    if task.aborted or not _attempts_left(task):
        return False
    retry_on = task.rules.retry_on
    return retry_on is None or DEATH in retry_on or ANY_FAILURE in retry_on


def pause_after(task: Task) -> float:
    """Count one retry of a task that is repeated. Return the seconds before its next attempt, doubled each time."""
    if task.retries > 0:
        task.retries -= 1
    pause = task.rules.retry_pause
    return min(pause * 2.0 ** min(task.attempts - 1, 100), MAX_SECONDS) if pause else 0.0


def story_of_deaths(task: Task, error: HubError) -> EngineError:
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
