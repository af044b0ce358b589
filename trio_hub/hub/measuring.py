"""The run times of tasks by label, for the pools: how long queued tasks will presumably take."""

from __future__ import annotations

from collections import OrderedDict

from ..errors import WireError
from ..pools.demand import RunTimes
from ..schedulers.task import Task
from ..wire.messages import Message, Session, parse_date
from .labels import Labels

__all__ = ["MeasuredRuns"]

MOST_AT_ONCE = 200
"""The maximum number of run times that are noted between two looks at the demand. More would not help the estimates."""
SESSIONS = 1000
"""The number of clients whose last label is remembered."""


class MeasuredRuns:
    """Notes how long tasks have run, by label, while somebody wants to know.

    The label of a task is the label that its client gave, else the name of its function, as on the pages of the hub.

    Args:
        session: reads the metadata of tasks.
        labels: finds labels.
        sessions: the number of clients whose last label is remembered.
    """

    def __init__(self, session: Session, labels: Labels, *, sessions: int = SESSIONS) -> None:
        self._session = session
        self._labels = labels
        self._sessions = sessions
        self.is_on = False
        """Whether run times are noted. Without a pool that grows and shrinks, they would cost time for nothing."""
        self.times = RunTimes()
        self._left = MOST_AT_ONCE
        self._last: OrderedDict[str, str] = OrderedDict()
        """The label of the task that was measured last, by the session of the client."""

    def switch(self, *, on: bool) -> None:
        """Begin to note run times, or end it."""
        self.is_on = on

    def looked(self) -> None:
        """Note that somebody has looked at the demand, so that further run times are of interest."""
        self._left = MOST_AT_ONCE

    def note(self, task: Task, reply: Message, started: str | None) -> None:
        """Note the run time of a task that an engine has answered.

        Args:
            task: the task.
            reply: the engine's answer, whose date is when the task ended, by the engine's clock.
            started: when the task began, by the engine's clock.
        """
        if self._left <= 0:
            return
        self._left -= 1
        begin, end = parse_date(started), reply.date or parse_date(reply.header.date)
        label = self.label_of(task)
        if begin is not None and end is not None and label is not None:
            self.times.note(label, max((end - begin).total_seconds(), 0.0))
            self._last[task.session] = label
            self._last.move_to_end(task.session)
            if len(self._last) > self._sessions:
                self._last.popitem(last=False)

    def label_of(self, task: Task) -> str | None:
        """Return the label of a task; None if it is not known.

        The message of a queued task may be only in the task database. Then the task is presumed to have the label of
        the task of its client that was measured last.
        """
        frames = task.frames
        if frames is None:
            return self._last.get(task.session)
        try:
            label = self._session.task_label(frames)
        except WireError:
            label = None
        return self._labels.of(label, task.msg_type, frames[6:])
