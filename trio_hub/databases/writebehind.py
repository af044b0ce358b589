"""`WriteBehindStore`: a task database on a disk or a server, which the event loop never waits for when it writes.

Changes are merged in memory (`trio_hub.databases.backlog`). A thread writes them in batches, one at a time
(`trio_hub.databases.writer`). Readers see pending changes, too: each reader gets a snapshot of the database and the
changes that the snapshot does not have (`trio_hub.databases.questions`). Purges and retention work step by step
(`trio_hub.databases.retention`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import trio

from ..errors import StoreError
from ..logs import get_logger
from ..records.interface import StoreStatistics
from ..records.output import MAX_OUTPUT, OutputLimit
from ..records.query import Query, parse_keys
from ..records.record import TaskRecord
from ..services import Failures, keep_running
from .backend import Backend, Retention
from .backlog import Backlog
from .calls import in_thread
from .layers import count_over, find_over, get_over, history_over, recent_over
from .questions import Questions
from .retention import Dropping
from .writer import Writer

__all__ = ["WriteBehindStore"]

log = get_logger("trio_hub.runtime")

FLUSHES = 10
"""The maximum number of flushes in `WriteBehindStore.flush_all`. Calls after a commit may write once or twice."""
TELL_EVERY = 60.0
"""The least seconds between two log messages that records were given up."""


class WriteBehindStore:
    """A `trio_hub.records.Store` on top of a `trio_hub.databases.backend.Backend`.

    The hub has to run `run` in its nursery. `aclose` also writes the changes that came after `run` had ended.

    While the database cannot be written, changes stay in memory, and writing is tried again. Above ``max_backlog``
    bytes the store is ``crowded``. Above twice that, records of finished tasks are given up, the oldest first.

    Args:
        backend: The database. Only this store may use it.
        delay: Seconds that a change may wait for others to be written with it. If it is 0, changes wait only while the
            previous batch is being written, and they never wait while more than an eighth of `max_backlog` is pending.
        max_backlog: The approximate bytes of pending changes above which the store is ``crowded``. One change counts as
            at most a quarter of this.
        keep: The limits for finished records; None for no limits.
        max_output: See `trio_hub.records.output.OutputLimit`.
        now: Returns the current time, for `keep`.
        failures: Counts errors of the writer, of retention, and of calls after a commit.
    """

    durable = True

    def __init__(
        self,
        backend: Backend,
        *,
        delay: float = 0.05,
        max_backlog: int = 256 << 20,
        keep: Retention | None = None,
        max_output: int = MAX_OUTPUT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        failures: Failures | None = None,
    ) -> None:
        self.failures: Failures = Counter() if failures is None else failures
        self.keep = keep
        self._backend = backend
        self._pending = Backlog(max_backlog)
        self._writer = Writer(backend, self._pending, delay, self.failures)
        self._dropping = Dropping(backend, self._writer, now)
        self._questions = Questions(backend, self._writer)
        self._output = OutputLimit(max_output)
        self._told_at: float | None = None
        self._closing = trio.Lock()
        self._released = False

    def __repr__(self) -> str:
        error = self._writer.last_error
        state = f"cannot write: {error}" if error else "closed" if self._writer.closed.is_set() else "open"
        return f"<WriteBehindStore {state}, {len(self._pending)} records pending>"

    def statistics(self) -> StoreStatistics:
        """See `trio_hub.records.Store.statistics`."""
        layers = self._pending.layers()
        return StoreStatistics(
            size=None,
            pending=len(self._pending),
            pending_bytes=self._pending.size,
            lag=trio.current_time() - layers[0].since if layers else 0.0,
            batches=self._writer.batches,
            written=self._writer.written,
            trimmed=self._dropping.trimmed,
            not_persisted=self._writer.not_persisted,
            last_error=self._writer.last_error,
        )

    @property
    def crowded(self) -> bool:
        """Whether ``max_backlog`` was exceeded, and the backlog has not fallen to three quarters of it since."""
        return self._pending.crowded

    # Writing, which never waits

    def add(self, record: TaskRecord) -> None:
        """See `trio_hub.records.Store.add`."""
        self._output.forget(record.msg_id)
        pending = self._pending
        layer = pending.open
        if not layer.changes:
            self._begin_layer()
        layer.add(record)
        if layer.weight + pending.frozen_weight > pending.limit:
            self._grown()

    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        """See `trio_hub.records.Store.update`."""
        pending = self._pending
        layer = pending.open
        if not layer.changes:
            self._begin_layer()
        layer.update(msg_id, changes)
        if layer.weight + pending.frozen_weight > pending.limit:
            self._grown()

    def append(self, msg_id: str, key: str, text: str) -> None:
        """See `trio_hub.records.Store.append`."""
        text = self._output.recorded(msg_id, key, text)
        if not text:
            return
        pending = self._pending
        layer = pending.open
        if not layer.changes:
            self._begin_layer()
        layer.append(msg_id, key, text)
        if layer.weight + pending.frozen_weight > pending.limit:
            self._grown()

    def discard(self, msg_id: str) -> None:
        """See `trio_hub.records.Store.discard`."""
        self._output.forget(msg_id)
        layer = self._pending.open
        if not layer.changes:
            self._begin_layer()
        layer.discard(msg_id)

    def after_commit(self, call: Callable[[], None]) -> None:
        """See `trio_hub.records.Store.after_commit`. An error that the call raises is logged and counted."""
        self._writer.after_commit(call)

    def _begin_layer(self) -> None:
        self._pending.open.since = trio.current_time()
        self._writer.wake()

    def _grown(self) -> None:
        given_up = self._pending.grown()
        self._writer.hurry()
        self._writer.not_persisted += given_up
        now = trio.current_time()
        if given_up and (self._told_at is None or now >= self._told_at + TELL_EVERY):
            self._told_at = now
            log.error(
                "the task database is too slow, or fails: records of finished tasks were given up to save memory",
                records=given_up,
                lost=self._writer.not_persisted,
            )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write changes until the store is closed, or this is cancelled. `aclose` writes the changes that remain."""
        async with trio.open_nursery() as nursery:
            if self.keep is not None:
                trim = partial(self._dropping.keep, self.keep)
                nursery.start_soon(keep_running, "retention of records", trim, self.failures)
            task_status.started()
            await keep_running("record writer", self._writer.run, self.failures)
            nursery.cancel_scope.cancel()

    async def flush(self) -> None:
        """See `trio_hub.records.Store.flush`.

        Raises:
            StoreError: The database cannot be written now. The changes stay pending, and are tried again.
        """
        await self._writer.commit()

    async def flush_all(self) -> None:
        """See `trio_hub.records.Store.flush_all`. Raises the errors of `flush`."""
        for _ in range(FLUSHES):
            await self.flush()
            if not self._pending.layers():
                return

    # Users' queries

    async def get(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """See `trio_hub.records.Store.get`. A query raises `StoreError` if the database is closed or unreadable."""
        found = await self._questions.of_users(lambda layers, reader: get_over(layers, reader, msg_ids))
        return {msg_id: record for msg_id, record in found.items() if not record.note}

    async def find(self, query: Query, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """See `trio_hub.records.Store.find`."""
        wanted = parse_keys(keys)
        return await self._questions.of_users(lambda layers, reader: find_over(layers, reader, query, wanted))

    async def history(self) -> list[str]:
        """See `trio_hub.records.Store.history`."""
        return await self._questions.of_users(history_over)

    async def recent(self, limit: int, before: str | None = None) -> list[str]:
        """See `trio_hub.records.Store.recent`."""
        found = await self._questions.of_users(lambda layers, reader: recent_over(layers, reader, limit, before))
        if found is None:
            raise KeyError(before)
        return found

    async def count(self) -> int:
        """See `trio_hub.records.Store.count`."""
        return await self._questions.of_users(count_over)

    async def drop(self, query: Query) -> int:
        """See `trio_hub.records.Store.drop`. First writes the pending changes.

        Raises:
            StoreError: The database cannot be written now. The records that were dropped before stay dropped.
        """
        self._writer.refuse_if_closed()
        await self.flush()
        return await self._dropping.drop(await self._questions.of_users(lambda layers, reader: reader.completed(query)))

    # The hub's own questions

    async def fetch(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """See `trio_hub.records.Store.fetch`."""
        return await self._questions.of_the_hub(lambda layers, reader: get_over(layers, reader, msg_ids))

    async def unfinished(self) -> list[TaskRecord]:
        """See `trio_hub.records.Store.unfinished`. First writes the pending changes."""
        await self.flush()
        return await self._questions.of_the_hub(lambda layers, reader: [kept.record for kept in reader.unfinished()])

    async def notes(self) -> list[TaskRecord]:
        """See `trio_hub.records.Store.notes`. First writes the pending changes."""
        await self.flush()
        return await self._questions.of_the_hub(lambda layers, reader: [kept.record for kept in reader.notes()])

    async def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """See `trio_hub.records.Store.undelivered`. First writes the pending changes."""
        await self.flush()
        return await self._questions.of_the_hub(lambda layers, reader: reader.undelivered(window))

    # Closing

    async def aclose(self) -> None:
        """Write the pending changes, and close the database. Idempotent.

        If they cannot be written, or this is cancelled before, the number of lost records is logged. Queries that are
        still running are interrupted.
        """
        try:
            with suppress(StoreError):
                await self.flush()
        finally:
            with trio.CancelScope(shield=True):
                async with self._closing:
                    if not self._released:
                        await self._close()

    async def _close(self) -> None:
        writer = self._writer
        writer.close()
        await self._questions.stop()
        async with writer.turn:
            writer.forget_the_rest()
            if not writer.stuck:  # otherwise a thread still uses the database, until the process ends
                await in_thread(self._release)
            self._released = True
            log.info("task database closed", records=writer.written, lost=writer.not_persisted)

    def _release(self) -> None:
        self._questions.close()
        self._backend.close()
