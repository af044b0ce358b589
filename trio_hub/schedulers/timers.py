"""The timers of tasks that wait: how long a task may wait, and the pause before its next attempt.

`Timers.patience` limits how long a task waits that no engine can run.
"""

from __future__ import annotations

from .host import SchedulerHost
from .task import Task, TaskState

__all__ = ["Timers"]


class Timers:
    """Starts and stops the timers of tasks, and counts paused tasks.

    Args:
        host: runs the timers.
    """

    def __init__(self, host: SchedulerHost) -> None:
        self._host = host
        self.paused = 0
        """The number of paused tasks."""
        self.patience = 0.0
        """Seconds after which a queued task fails that no engine can ever run; 0: it waits for ever."""

    def start(self, task: Task) -> None:
        """Start the timer of a task that waits, if it has a timeout and its timer does not run yet."""
        if task.timeout and task.timer is None:
            left = max(task.timeout - task.waited, 0.001) if task.waited else task.timeout
            task.timer = self._host.start_timer(task, left)

    def pause(self, task: Task, seconds: float) -> None:
        """Let a task wait for some seconds, until `TaskScheduler.pause_over`."""
        task.state = TaskState.PAUSED
        self.start(task)
        task.pause = self._host.start_pause(task, seconds)
        if task.state is TaskState.PAUSED:
            self.paused += 1

    def end_pause(self, task: Task) -> None:
        """Note that the pause of a task is over."""
        task.pause = None
        self.paused -= 1

    def wait_patiently(self, task: Task, *, is_hopeless: bool) -> None:
        """Start the timer of a queued task that no engine can run now, or perhaps later."""
        task.is_hopeless = is_hopeless
        if task.patience is None:
            task.patience = self._host.start_patience(task, self.patience)

    def stop(self, task: Task) -> None:
        """Stop the timers of a task that does not wait any more."""
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None
        if task.pause is not None:
            task.pause.cancel()
            self.end_pause(task)
        if task.patience is not None:
            task.patience.cancel()
            task.patience = None
