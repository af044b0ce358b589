"""Limits on the run time of tasks (`TaskRules.max_runtime`). Each attempt has the whole limit; waits do not count."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from ..schedulers.task import Task, Worker
from .connector import Scope
from .ports import Host

__all__ = ["RunLimits"]


def _nobody(task: Task, began: datetime) -> None:
    """Do nothing. Used as callback until `RunLimits.connect` is called."""


class _Run:
    __slots__ = ("began", "timer")

    def __init__(self, began: datetime) -> None:
        self.began = began
        self.timer: Scope | None = None


class RunLimits:
    """Times the attempts of the tasks that have a limit.

    Args:
        host: starts timers.
        now: the current time, aware and in UTC.
    """

    def __init__(self, host: Host, now: Callable[[], datetime]) -> None:
        self._host = host
        self._now = now
        self._too_long: Callable[[Task, datetime], None] = _nobody
        self.runs: dict[str, _Run] = {}
        """The attempts that are timed, by the msg_ids of their tasks."""

    def connect(self, too_long: Callable[[Task, datetime], None]) -> None:
        """Set the callback for a task that runs for too long; it gets the time at which the attempt began."""
        self._too_long = too_long

    def begin(self, task: Task, worker: Worker, since: float | None = None) -> None:
        """Time an attempt at a task that has a limit, from now on, or from an earlier time in seconds since 1970."""
        self.end(task.msg_id)
        now = self._now()
        run = self.runs[task.msg_id] = _Run(now if since is None else datetime.fromtimestamp(since, UTC))
        left = task.rules.max_runtime - (now - run.began).total_seconds()
        run.timer = self._host.call_later(max(left, 0.0), partial(self._is_over, task, worker, run))

    def end(self, msg_id: str) -> None:
        """Note that an attempt has ended."""
        run = self.runs.pop(msg_id, None)
        if run is not None and run.timer is not None:
            run.timer.cancel()

    def since(self, msg_id: str) -> float | None:
        """Return when the timed attempt at a task began, in seconds since 1970; None if none is timed."""
        run = self.runs.get(msg_id)
        return None if run is None else run.began.timestamp()

    def _is_over(self, task: Task, worker: Worker, run: _Run) -> None:
        if self.runs.get(task.msg_id) is not run:
            return
        del self.runs[task.msg_id]
        if task.worker is worker:  # else its engine was lost
            self._too_long(task, run.began)
