"""`Watch`: notes the events of a hub for the dashboard. Handling an event takes little time; numbers are made later."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time
from typing import Any

from ..hub.events import (
    BlockEnded,
    BlockStarted,
    BlockSubmitted,
    EngineDraining,
    EngineRegistered,
    EngineRequested,
    EngineReturned,
    EngineSettled,
    EngineShutdownRequested,
    EngineUnregistered,
    Event,
    HubShutdownRequested,
    HubStopping,
    PoolScaled,
    RecordsPurged,
    RegistrationStalled,
    RequestsAborted,
    RequestsResubmitted,
    TaskAssigned,
    TaskCancelled,
    TaskFinished,
    TaskQueued,
    TaskSubmitted,
)
from .bars import KINDS, STATUSES, Bars
from .clients import ClientBook
from .engines import EngineBook, EngineEvent
from .failures import Failures
from .journal import JournalEvent
from .progress import EARLIER, Progress
from .timings import Timings
from .usage import UsageBook

__all__ = ["Watch"]

_KIND = {kind: number for number, kind in enumerate(KINDS)}
_FAILED = STATUSES.index("failed")
_STATUS = {"ok": STATUSES.index("ok"), "error": _FAILED, "aborted": STATUSES.index("aborted")}
"""By the status in an event, the index in `STATUSES`."""


def _clock() -> Callable[[], float]:
    """Return a clock that gives Unix seconds and never goes back, so that differences are right."""
    epoch = time() - perf_counter()
    return lambda: epoch + perf_counter()


class Watch:
    """Observes a hub (`trio_hub.runtime.observing.Observer`).

    It keeps a few numbers for each request that is not answered. The size of all other data is limited.

    Args:
        timings: The histograms of durations.
        clock: Returns the time in Unix seconds, and never goes back.
        journal: Is called with each event that the journal of the dashboard lists.
        bars: Where the bars of tasks are kept; None for a new `Bars` of the default size.
    """

    def __init__(
        self,
        timings: Timings,
        clock: Callable[[], float] | None = None,
        journal: Callable[[JournalEvent], None] = lambda event: None,
        bars: Bars | None = None,
    ) -> None:
        self.timings = timings
        self.bars = Bars() if bars is None else bars
        self.progress = Progress()
        self.failures = Failures()
        self.engines = EngineBook()
        self.clients = ClientBook()
        self.usage = UsageBook()
        self.waiting: dict[str, tuple[int, float | None]] = {}
        """The tasks without an engine, by msg_id: the number of the label, and the time of submission. The time is None
        for a task that had an engine before."""
        self.handled = timings.handled
        self._clock = clock or _clock()
        self._journal = journal
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
            EngineDraining: tell,
            TaskCancelled: journal,
            BlockSubmitted: journal,
            BlockStarted: journal,
            BlockEnded: journal,
            PoolScaled: journal,
            RecordsPurged: journal,
            RequestsAborted: journal,
            RequestsResubmitted: journal,
            EngineShutdownRequested: journal,
            HubShutdownRequested: journal,
            HubStopping: journal,
        }

    def happened(self, event: Event) -> None:
        """See `trio_hub.runtime.observing.Observer`."""
        self._handlers[type(event)](event)

    def _submitted(self, event: TaskSubmitted) -> None:
        label = self.progress.submit(event.label)
        now = self._clock()
        self.clients.submitted(event.client, now)
        if event.queue == "task":
            self.waiting[event.msg_id] = label, now
        else:  # the hub has sent it to its engine already
            uuid = event.engine_uuid
            row = -1 if uuid is None else self.engines.of(uuid).row
            self.bars.start(event.msg_id, row, now, _KIND[event.queue], label)

    def _assigned(self, event: TaskAssigned) -> None:
        now = self._clock()
        msg_id = event.msg_id
        waited = self.waiting.pop(msg_id, None)
        if waited is not None:
            label, since = waited
            if since is not None:
                self.timings.wait.observe(now - since)
        else:  # it had an engine before, or was submitted before we looked
            label = self._end_attempt(msg_id, now)
        self.bars.start(msg_id, self.engines.of(event.engine_uuid).row, now, 0, label)

    def _queued_again(self, event: TaskQueued) -> None:
        self.waiting[event.msg_id] = self._end_attempt(event.msg_id, self._clock()), None

    def _end_attempt(self, msg_id: str, now: float) -> int:
        """End the attempt at a task on its last engine; return the number of the task's label."""
        before = self.bars.end(msg_id, now, _FAILED)
        return self.progress.submit(EARLIER) if before is None else before[4]

    def _finished(self, event: TaskFinished) -> None:
        now = self._clock()
        msg_id = event.msg_id
        status = _STATUS.get(event.status, _FAILED)
        running = self.bars.end(msg_id, now, status)
        label: int | None = None
        if running is not None:
            _, _, start, kind, label = running
            self._run[kind].observe(now - start)
            self.progress.end(label, status, now - start)
        elif (waited := self.waiting.pop(msg_id, None)) is not None:
            label = waited[0]
            self.progress.end(label, status, None)
        uuid = event.engine_uuid
        seen = None if uuid is None else self.engines.seen.get(uuid)
        if seen is not None:
            seen.done += 1
        if status == _FAILED:
            if seen is not None:
                seen.failed += 1
                seen.last_error = msg_id, event.ename, event.evalue, now
            engine_id = None if seen is None else seen.id
            self.failures.add(event.ename, event.evalue, now, msg_id, engine_id, event.where, label)

    def _engine_changed(self, event: EngineEvent) -> None:
        self.engines.happened(event, self._clock())
        if not isinstance(event, EngineRequested):
            self._journal(event)

    def label_of(self, msg_id: str) -> int | None:
        """Return the number of a task's label; None for a task that is neither unfinished nor one of the last ended."""
        running = self.bars.running.get(msg_id)
        if running is not None:
            return running[4]
        waiting = self.waiting.get(msg_id)
        return self.bars.label_of(msg_id) if waiting is None else waiting[0]
