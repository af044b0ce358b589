"""The interface by which the scheduler has its decisions carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import HubError
from .task import Task, Timer, Worker

__all__ = ["SchedulerHost"]


class SchedulerHost(Protocol):
    """The interface by which the scheduler has its decisions carried out."""

    def task_assigned(self, task: Task, worker: Worker) -> None:
        """Send the task to the engine."""

    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        """Answer the task with an error. The scheduler has forgotten the task."""

    def task_queued_again(self, task: Task) -> None:
        """Note that a task has no engine any more: it is queued again, or waits for a dependency or for a pause."""

    def is_pending(self, msg_id: str) -> bool:
        """Return whether a request of any queue is pending, so that `TaskScheduler.ended` will be called for it."""

    def ask_outcomes(self, task: Task, msg_ids: list[str]) -> None:
        """Look up in the store how these requests ended, and call `TaskScheduler.outcomes_known`."""

    def soon(self, call: Callable[[], None]) -> None:
        """Make the call later, after other work has had its turn."""

    def start_timer(self, task: Task, seconds: float) -> Timer:
        """Call `TaskScheduler.timed_out` after this time, unless the timer is cancelled before."""

    def start_pause(self, task: Task, seconds: float) -> Timer:
        """Call `TaskScheduler.pause_over` after this time, unless the timer is cancelled before."""

    def start_patience(self, task: Task, seconds: float) -> Timer:
        """Call `TaskScheduler.patience_over` after this time, unless the timer is cancelled before."""

    def seconds_left(self, worker: Worker) -> float:
        """Return how long the engine will still be there, in seconds; infinity if unknown."""

    def pools_for(self, task: Task) -> Sequence[str]:
        """Return the names of the pools that could bring an engine that can run the task."""
