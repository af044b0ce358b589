"""`Watch`: what a dashboard notes of a hub's work as it happens. A few steps an event; figures are made later."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time
from typing import Any

from ..hub.events import (
    EngineRegistered,
    EngineRequested,
    EngineReturned,
    EngineSettled,
    EngineUnregistered,
    Event,
    HubStopping,
    RegistrationStalled,
    TaskAssigned,
    TaskFinished,
    TaskQueued,
    TaskSubmitted,
)
from .bars import KINDS, STATUSES, Bars
from .engines import EngineBook, EngineEvent
from .failures import Failures
from .progress import EARLIER, Progress
from .timings import Timings

__all__ = ["Watch"]

_KIND = {kind: number for number, kind in enumerate(KINDS)}
_STATUS = {status: number for number, status in enumerate(STATUSES[:3])}
_ERROR = _STATUS["error"]


def _clock() -> Callable[[], float]:
    """Unix seconds that never go back: what was a difference once stays one."""
    epoch = time() - perf_counter()
    return lambda: epoch + perf_counter()


class Watch:
    """Observes a hub (`trio_hub.runtime.observing.Observer`).

    For each request that is not answered it keeps a few numbers, by msg_id; of all else, no more than a fixed size.
    """

    def __init__(self, timings: Timings, clock: Callable[[], float] | None = None) -> None:
        self.timings = timings
        self.bars = Bars()
        self.progress = Progress()
        self.failures = Failures()
        self.engines = EngineBook()
        self.waiting: dict[str, tuple[int, float]] = {}
        """Of tasks that wait: the numbers of their labels, and since when; by msg_id."""
        self.handled = timings.handled
        self._clock = clock or _clock()
        self._run = [timings.run[kind] for kind in KINDS]
        tell: Any = self._engine_changed
        self._handlers: dict[type, Callable[[Any], None]] = {
            TaskSubmitted: self._submitted,
            TaskAssigned: self._assigned,
            TaskQueued: self._queued_again,
            TaskFinished: self._finished,
            EngineRequested: tell,
            EngineRegistered: tell,
            EngineReturned: tell,
            RegistrationStalled: tell,
            EngineUnregistered: tell,
            EngineSettled: tell,
            HubStopping: lambda event: None,
        }

    def happened(self, event: Event) -> None:
        """See `trio_hub.runtime.observing.Observer`."""
        self._handlers[type(event)](event)

    def _submitted(self, event: TaskSubmitted) -> None:
        label = self.progress.submit(event.label)
        if event.queue == "task":
            self.waiting[event.msg_id] = label, self._clock()
        else:  # it is on its way already
            uuid = event.engine_uuid
            row = -1 if uuid is None else self.engines.of(uuid).row
            self.bars.start(event.msg_id, row, self._clock(), _KIND[event.queue], label)

    def _assigned(self, event: TaskAssigned) -> None:
        now = self._clock()
        msg_id = event.msg_id
        waited = self.waiting.pop(msg_id, None)
        if waited is not None:
            label, since = waited
            self.timings.wait.observe(now - since)
        else:  # it had an engine before, or was submitted before we looked
            label = self._end_attempt(msg_id, now)
        self.bars.start(msg_id, self.engines.of(event.engine_uuid).row, now, 0, label)

    def _queued_again(self, event: TaskQueued) -> None:
        now = self._clock()
        self.waiting[event.msg_id] = self._end_attempt(event.msg_id, now), now

    def _end_attempt(self, msg_id: str, now: float) -> int:
        """End the attempt at a task on its last engine; return the number of the task's label."""
        before = self.bars.end(msg_id, now, _ERROR)
        return self.progress.submit(EARLIER) if before is None else before[4]

    def _finished(self, event: TaskFinished) -> None:
        now = self._clock()
        msg_id = event.msg_id
        status = _STATUS.get(event.status, _ERROR)
        running = self.bars.end(msg_id, now, status)
        if running is not None:
            _, _, start, kind, label = running
            self._run[kind].observe(now - start)
            self.progress.end(label, status, now - start)
        elif (waited := self.waiting.pop(msg_id, None)) is not None:
            self.progress.end(waited[0], status, None)
        uuid = event.engine_uuid
        seen = None if uuid is None else self.engines.seen.get(uuid)
        if seen is not None:
            seen.done += 1
        if status == _ERROR:
            if seen is not None:
                seen.failed += 1
                seen.last_error = msg_id, event.ename, event.evalue, now
            self.failures.add(event.ename, event.evalue, now, msg_id, None if seen is None else seen.id)

    def _engine_changed(self, event: EngineEvent) -> None:
        self.engines.happened(event, self._clock())

    def label_of(self, msg_id: str) -> int | None:
        """The number of a task's label, as long as it is waiting, running, or among those that ended last."""
        running = self.bars.running.get(msg_id)
        if running is not None:
            return running[4]
        waiting = self.waiting.get(msg_id)
        return self.bars.label_of(msg_id) if waiting is None else waiting[0]
