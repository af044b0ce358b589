"""Endings: how tasks end without an engine's answer, and what is forgotten at the end of each task."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial

from ..errors import HubError, TaskAborted
from .dependencies import Outcome
from .dependents import Dependents
from .host import SchedulerHost
from .placement import AT_A_TIME, Placement
from .task import Task, TaskState, Worker

__all__ = ["NOT_BEGUN", "Endings"]

NOT_BEGUN = "it was aborted before it began"

# A global for code that runs for each task: looking up a member of an enum takes five times as long as a global.
_DONE = TaskState.DONE


class Endings:
    """Ends tasks.

    Args:
        host: answers the tasks.
        tasks: all unfinished tasks, by msg_id.
        placement: the engines and the queue.
        dependencies: the tasks that depend on others.
    """

    def __init__(
        self, host: SchedulerHost, tasks: dict[str, Task], placement: Placement, dependencies: Dependents
    ) -> None:
        self._host = host
        self._tasks = tasks
        self._placement = placement
        self._dependencies = dependencies

    def fail(self, task: Task, worker: Worker | None, error: HubError) -> None:
        """Answer a task that has no engine any more with an error.

        Args:
            task: the task.
            worker: the engine that had it last, if the error is about that attempt.
            error: the error.
        """
        self.forget(task)
        self._host.task_failed(task, worker, error)
        self._dependencies.ended(task.msg_id, Outcome(False, worker.ident if worker is not None else None))

    def forget(self, task: Task) -> None:
        """Forget a task that is answered, and that has no engine any more."""
        task.state = _DONE
        del self._tasks[task.msg_id]
        if task.timer is not None or task.pause is not None or task.patience is not None:
            self._placement.timers.stop(task)
        if task.demand is not None:
            task.demand.tasks -= 1
        if task.after is not None or task.follow is not None:
            self._dependencies.forget(task)

    def abandon(self, task: Task, error: HubError) -> None:
        """Give up a task, in whatever state it is, and answer it with the error."""
        worker = task.worker
        if worker is not None:
            self._placement.take_back(task)
        elif task.state is TaskState.QUEUED:
            self._placement.unqueue(task)
        self.fail(task, worker, error)

    def abort(self, msg_ids: Iterable[str]) -> list[str]:
        """Abort tasks, and return the msg_ids of those that no engine has.

        Tasks that depend on an aborted task treat it as failed. A task that an engine has goes on there, and is not
        sent to another engine.
        """
        found = [task for msg_id in dict.fromkeys(msg_ids) if (task := self._tasks.get(msg_id)) is not None]
        left = [task for task in found if task.worker is None and not task.aborted]
        self._placement.queue.remove_many(task for task in left if task.state is TaskState.QUEUED)
        self._placement.feed_unreserved()
        for task in found:
            task.aborted = True
            if task.worker is None:
                task.state = TaskState.WAITING  # until the hub answers it
        self._answer_aborted(deque(left))
        return [task.msg_id for task in left]

    def _answer_aborted(self, tasks: deque[Task]) -> None:
        """Answer aborted tasks that no engine has, `AT_A_TIME` at a time, so that other work has its turn."""
        with self._dependencies.told_later():  # a dependent task may be aborted, too, and gets that answer
            for _ in range(min(len(tasks), AT_A_TIME)):
                task = tasks.popleft()
                if task.worker is None and task.state is not TaskState.DONE:
                    self.fail(task, None, TaskAborted(NOT_BEGUN))
        if tasks:
            self._host.soon(partial(self._answer_aborted, tasks))
