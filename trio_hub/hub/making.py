"""Makes tasks out of clients' requests, and out of the records of an earlier hub."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from sys import intern

from ..records.record import TaskRecord
from ..schedulers.task import SentBy, Task
from ..wire.messages import Message, Session, TaskMetadata
from .custody import custody_of
from .policies import NOTHING, Applied, Policies
from .records import unpacked_rules

__all__ = ["TaskMaker"]


class TaskMaker:
    """Makes tasks.

    Args:
        session: reads metadata.
        now: the current time, aware and in UTC.
        policies: finds the rules that apply to a new task.
    """

    def __init__(self, session: Session, now: Callable[[], datetime], policies: Policies) -> None:
        self._session = session
        self._now = now
        self._policies = policies

    def make(self, idents: list[bytes], msg: Message, metadata: TaskMetadata, applied: Applied | None = None) -> Task:
        """Return the task that a message asks for, by default with the rules that apply now.

        Raises `WireError` and `InvalidDependency`.
        """
        header = msg.header
        if applied is None:
            applied = NOTHING
            # Not isinstance: tasks without rules cost no call.
            if self._policies.active or metadata.rules is not None or metadata.label.__class__ is dict:
                applied = self._policies.applied_to(msg, metadata)
        return Task(
            header.msg_id,
            idents,
            msg.frames,
            session=intern(header.session),
            msg_type=header.msg_type,
            raw_header=msg.raw_header,
            metadata=metadata,
            rules=applied.rules,
            policies=applied.policies,
        )

    def restored(self, record: TaskRecord, message: Message, *, lost: bool) -> Task:
        """Return the task of an earlier hub, with the rules that applied there. Raises `WireError`.

        Args:
            record: the record of the task.
            message: the message in the record.
            lost: whether no engine that is known has the task.
        """
        custody = custody_of(record)
        applied = Applied(*unpacked_rules(custody.rules))
        task = self.make(message.idents, message, self._session.task_metadata(message), applied)
        task.frames = None
        task.sent_by = SentBy.PERHAPS_EARLIER_HUB
        if custody.retries is not None:
            task.retries = custody.retries
        task.refused = frozenset(custody.refused)
        task.unmet = frozenset(custody.unmet)
        task.attempts = custody.attempts_begun(assigned=record.engine_uuid is not None, lost=lost)
        task.deaths = tuple(custody.deaths)
        if record.engine_uuid is None and custody.since is not None:  # else an engine has had the task: a new wait
            task.waited = max(self._now().timestamp() - custody.since, 0.0)
        if record.engine_uuid is None and custody.paused_until is not None:
            task.pause_left = max(custody.paused_until - self._now().timestamp(), 0.0)
        return task
