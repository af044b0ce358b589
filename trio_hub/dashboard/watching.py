"""`Watch`: what a dashboard notes of a hub's work as it happens. A few steps an event; figures are made later."""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any

from ..hub.events import (
    EngineRegistered,
    EngineRequested,
    EngineReturned,
    EngineSettled,
    EngineUnregistered,
    Event,
    RegistrationStalled,
    TaskAssigned,
    TaskFinished,
    TaskSubmitted,
)
from .bars import KINDS, STATUSES, Bars
from .engines import EngineBook, EngineEvent
from .failures import Failures
from .progress import EARLIER, Progress

__all__ = ["Watch"]

_KIND = {kind: number for number, kind in enumerate(KINDS)}
_STATUS = {status: number for number, status in enumerate(STATUSES[:3])}
_ERROR = _STATUS["error"]


class Watch:
    """Observes a hub (`trio_hub.runtime.observing.Observer`)."""

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self.bars = Bars()
        self.progress = Progress()
        self.failures = Failures()
        self.engines = EngineBook()
        self.waiting: dict[str, int] = {}
        """The numbers of the labels of tasks that wait, by msg_id."""
        self._clock = clock
        tell: Any = self.engine_changed
        self._handlers: dict[type, Callable[[Any], None]] = {
            TaskSubmitted: self.submitted,
            TaskAssigned: self.assigned,
            TaskFinished: self.finished,
            EngineRequested: tell,
            EngineRegistered: tell,
            EngineReturned: tell,
            RegistrationStalled: tell,
            EngineUnregistered: tell,
            EngineSettled: tell,
        }

    def happened(self, event: Event) -> None:
        """See `trio_hub.runtime.observing.Observer`."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def handled(self, channel: str, seconds: float) -> None:
        """See `trio_hub.runtime.observing.Observer`: messages are timed elsewhere."""

    def submitted(self, event: TaskSubmitted) -> None:
        label = self.progress.submit(event.label)
        if event.queue == "task":
            self.waiting[event.msg_id] = label
        else:  # it is on its way already
            uuid = event.engine_uuid
            row = -1 if uuid is None else self.engines.of(uuid).row
            self.bars.start(event.msg_id, row, self._clock(), _KIND[event.queue], label)

    def assigned(self, event: TaskAssigned) -> None:
        now = self._clock()
        msg_id = event.msg_id
        label = self.waiting.pop(msg_id, None)
        if label is None:
            before = self.bars.end(msg_id, now, _ERROR)  # it is tried again
            label = self.progress.submit(EARLIER) if before is None else before.label
        self.bars.start(msg_id, self.engines.of(event.engine_uuid).row, now, 0, label)

    def finished(self, event: TaskFinished) -> None:
        now = self._clock()
        msg_id = event.msg_id
        status = _STATUS.get(event.status, _ERROR)
        running = self.bars.end(msg_id, now, status)
        if running is not None:
            self.progress.end(running.label, status, now - running.start)
        else:
            label = self.waiting.pop(msg_id, None)
            if label is not None:
                self.progress.end(label, status, None)
        seen = None if event.engine_uuid is None else self.engines.seen.get(event.engine_uuid)
        if seen is not None:
            seen.done += 1
        if status == _ERROR:
            if seen is not None:
                seen.failed += 1
                seen.last_error = msg_id, event.ename, event.evalue, now
            self.failures.add(event.ename, event.evalue, now, msg_id, None if seen is None else seen.id)

    def engine_changed(self, event: EngineEvent) -> None:
        self.engines.happened(event, self._clock())

    def label_of(self, msg_id: str) -> int | None:
        """The number of a task's label, as long as it is waiting, running, or among those that ended last."""
        running = self.bars.running.get(msg_id)
        if running is not None:
            return running.label
        label = self.waiting.get(msg_id)
        return self.bars.label_of(msg_id) if label is None else label
