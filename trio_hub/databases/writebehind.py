"""`WriteBehindStore`: a task database on disk, for which nobody in the event loop waits.

What is written is merged in memory (`trio_hub.databases.backlog`), and goes to the database in batches, in a thread,
one at a time (`trio_hub.databases.writer`). Readers see it all the same: each gets a snapshot of the database, with
the changes that the snapshot does not have laid over it (`trio_hub.databases.questions`). Purges and retention work
step by step (`trio_hub.databases.retention`).
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
from .layers import find_over, get_over, history_over
from .questions import Questions
from .retention import Dropping
from .writer import Writer

__all__ = ["WriteBehindStore"]

log = get_logger("trio_hub.runtime")

FLUSHES = 10
"""How often `WriteBehindStore.flush_all` flushes at most: what is called after a commit may write once, or twice."""
TELL_EVERY = 60.0
"""Seconds between two messages that records were given up."""


class WriteBehindStore:
    """A `trio_hub.records.Store` on top of a `trio_hub.databases.backend.Backend`.

    Its task, `run`, is to be started in the hub's nursery; `aclose` also writes what came when that had ended.

    While the database cannot be written, everything is kept in memory, and tried again. From ``max_backlog`` bytes on
    it is ``crowded``; beyond twice that, records of finished tasks are forgotten, the oldest first.

    Args:
        backend: The database; from here on nobody else's.
        delay: Seconds that a change may wait for others to be written with it. 0: not at all; then a batch is what
            came while the last one was being written.
        max_backlog: Bytes of what is not yet written, roughly, from which on it is ``crowded``. One change counts as a
            quarter of this at most.
        keep: How much of what is finished is kept; None for all.
        max_output: See `trio_hub.records.output.OutputLimit`.
        now: The time, for `keep`.
        failures: Where errors of the writer, of retention, and of calls after a commit are counted.
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
        """Whether ``max_backlog`` was exceeded, and less than a quarter of it has been got rid of since."""
        return self._pending.crowded

    # Writing: never waits

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
        self._writer.not_persisted += given_up
        now = trio.current_time()
        if given_up and (self._told_at is None or now >= self._told_at + TELL_EVERY):
            self._told_at = now
            log.error(
                "the task database takes too little: records of finished tasks were given up to save memory",
                records=given_up,
                lost=self._writer.not_persisted,
            )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what comes, until it is closed, or cancelled: then what is pending stays so, for `aclose` to write."""
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
            StoreError: The database cannot be written now. What waits will be tried again all the same.
        """
        await self._writer.commit()

    async def flush_all(self) -> None:
        """See `trio_hub.records.Store.flush_all`.

        Raises:
            StoreError: The database cannot be written now.
        """
        for _ in range(FLUSHES):
            await self.flush()
            if not self._pending.layers():
                return

    # For users

    async def get(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """See `trio_hub.records.Store.get`.

        Raises:
            StoreError: The database cannot be read now, or it is closed meanwhile; so for all that follow.
        """
        found = await self._questions.of_users(lambda layers, reader: get_over(layers, reader, msg_ids))
        return {msg_id: record for msg_id, record in found.items() if not record.note}

    async def find(self, query: Query, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """See `trio_hub.records.Store.find`."""
        wanted = parse_keys(keys)
        return await self._questions.of_users(lambda layers, reader: find_over(layers, reader, query, wanted))

    async def history(self) -> list[str]:
        """See `trio_hub.records.Store.history`."""
        return await self._questions.of_users(history_over)

    async def drop(self, query: Query) -> int:
        """See `trio_hub.records.Store.drop`. Writes first what is pending.

        Raises:
            StoreError: The database cannot be written now. What was dropped until then stays so.
        """
        self._writer.refuse_if_closed()
        await self.flush()
        return await self._dropping.drop(await self._questions.of_users(lambda layers, reader: reader.completed(query)))

    # For the hub itself

    async def fetch(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """See `trio_hub.records.Store.fetch`."""
        return await self._questions.of_the_hub(lambda layers, reader: get_over(layers, reader, msg_ids))

    async def unfinished(self) -> list[TaskRecord]:
        """See `trio_hub.records.Store.unfinished`. Writes first what is pending."""
        await self.flush()
        return await self._questions.of_the_hub(lambda layers, reader: [kept.record for kept in reader.unfinished()])

    async def notes(self) -> list[TaskRecord]:
        """See `trio_hub.records.Store.notes`. Writes first what is pending."""
        await self.flush()
        return await self._questions.of_the_hub(lambda layers, reader: [kept.record for kept in reader.notes()])

    async def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """See `trio_hub.records.Store.undelivered`. Writes first what is pending."""
        await self.flush()
        return await self._questions.of_the_hub(lambda layers, reader: reader.undelivered(window))

    # The end

    async def aclose(self) -> None:
        """Write what is pending, and close the database. Idempotent.

        If it cannot be written, or this is cancelled before it is, the log tells how many records were lost. Whoever
        reads is interrupted.
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
            if not writer.stuck:  # else a thread has the database, and it ends with the process
                await in_thread(self._release)
            self._released = True
            log.info("task database closed", records=writer.written, lost=writer.not_persisted)

    def _release(self) -> None:
        self._questions.close()
        self._backend.close()
