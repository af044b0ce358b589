"""`RecordWriter`: a task database on disk, for which nobody in the event loop waits.

What is written is merged in memory, and goes to the database in batches, in a thread, one at a time. Readers see it
all the same: each gets a snapshot of the database and, of the same moment, what is not in it yet.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import trio

from ..errors import StoreError
from ..logs import get_logger
from ..store.backend import Backend, Batch, Keep, Reader
from ..store.backlog import Backlog
from ..store.interface import StoreStatistics
from ..store.output import MAX_OUTPUT, OutputLimit
from ..store.pending import Changes, Layer, find_over, get_over, history_over, joined, merged
from ..store.query import Query, parse_keys
from ..store.record import TaskRecord
from .recordbatch import Attempt, write_layers
from .recordreaders import RecordReaders
from .services import Failures, keep_running

__all__ = ["RecordWriter"]

log = get_logger("trio_hub.runtime")

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two attempts to write, while the database cannot."""
LAYERS = 8
"""Every question freezes what is pending into a layer of its own; when there are more than this, they are merged."""
TAKEN, TAKEN_AT_ONCE = 2000, 50
"""Changes of a batch up to which the event loop prepares them, and how many in one go: for half a millisecond or so."""
TRIM_EVERY, TRIM_PAUSE = 60.0, 0.02
"""Seconds between two looks for what is too old to keep, and between two steps of throwing it away."""
FLUSHES = 10
"""How often `RecordWriter.flush_all` flushes at most: what is called after a commit may write once, or twice."""
RELEASE_LIMIT = 5.0
"""Seconds that closing the database may take: a disk or a server that does not answer must not keep the hub."""
TELL_EVERY = 60.0
"""Seconds between two messages that records were given up."""


class RecordWriter:
    """A `trio_hub.store.Store` on top of a `trio_hub.store.backend.Backend`.

    Its task, `run`, is to be started in the hub's nursery; `aclose` also writes what came when that had ended.

    While the database cannot be written, everything is kept in memory, and tried again. From ``max_backlog`` bytes on
    it is ``crowded``; beyond twice that, records of finished tasks are forgotten, the oldest first.

    Args:
        backend: The database; from here on nobody else's.
        delay: Seconds that a change may wait for others to be written with it. 0: not at all; then a batch is what
            came while the last one was being written.
        max_backlog: Bytes of what is not yet written, roughly, from which on it is ``crowded``.
        keep: How much of what is finished is kept; None for all.
        max_output: See `trio_hub.store.output.OutputLimit`.
        now: The time, for `keep`.
        failures: Where errors of the writer and of retention are counted that nobody expected.

    Attributes:
        batches, written: How many batches were committed so far, and how many records changed in them.
        trimmed: How many records were forgotten since `keep` does not want them.
        not_persisted: How many records were lost: given up, or not to be written for a reason of their own.
        last_error: Why the database cannot be written now; None when it can.
    """

    durable = True

    def __init__(
        self,
        backend: Backend,
        *,
        delay: float = 0.05,
        max_backlog: int = 256 << 20,
        keep: Keep | None = None,
        max_output: int = MAX_OUTPUT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        failures: Failures | None = None,
    ) -> None:
        self.failures: Failures = Counter() if failures is None else failures
        self.delay = delay
        self.keep = keep
        self.batches = 0
        self.written = 0
        self.trimmed = 0
        self.not_persisted = 0
        self.last_error: str | None = None
        self._backend = backend
        self._now = now
        self._pending = Backlog(max_backlog)
        self._output = OutputLimit(max_output)
        self._told_at: float | None = None
        # Calls of `after_commit` whose time has come.
        self._due: deque[Callable[[], None]] = deque()
        self._calling = False
        # Held by whoever writes to the database, and by readers while they begin.
        self._lock = trio.Lock()
        self._writing = trio.CapacityLimiter(1)
        self._readers = RecordReaders(backend)
        self._awake = trio.Event()  # something is to be written, or it is to be closed
        self._pause = FIRST_PAUSE
        self._works_again = trio.Event()
        self._closed = trio.Event()
        self._closing = trio.Lock()
        self._released = False

    def __repr__(self) -> str:
        state = f"cannot write: {self.last_error}" if self.last_error else "closed" if self._closed.is_set() else "open"
        return f"<RecordWriter {state}, {self.backlog} records pending>"

    # Numbers

    def statistics(self) -> StoreStatistics:
        """See `trio_hub.store.Store.statistics`."""
        return StoreStatistics(
            size=None,
            pending=self.backlog,
            pending_bytes=self.backlog_bytes,
            lag=self.lag,
            batches=self.batches,
            written=self.written,
            trimmed=self.trimmed,
            not_persisted=self.not_persisted,
            last_error=self.last_error,
        )

    @property
    def backlog(self) -> int:
        """Records of which something is not yet written."""
        return len(self._pending)

    @property
    def backlog_bytes(self) -> int:
        """Bytes of memory that they take, roughly."""
        return self._pending.size

    @property
    def crowded(self) -> bool:
        """Whether ``max_backlog`` was exceeded, and less than a quarter of it has been got rid of since."""
        return self._pending.crowded

    @property
    def lag(self) -> float:
        """Seconds since the oldest change came that is not yet written; 0 if all are."""
        layers = self._pending.layers()
        return trio.current_time() - layers[0].since if layers else 0.0

    # Writing: never waits

    def add(self, record: TaskRecord) -> None:
        """See `trio_hub.store.Store.add`."""
        self._output.forget(record.msg_id)
        pending = self._pending
        layer = pending.open
        if not layer.changes:
            self._begin_layer()
        layer.add(record)
        if layer.size + pending.frozen_size > pending.limit:
            self._grown()

    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        """See `trio_hub.store.Store.update`."""
        pending = self._pending
        layer = pending.open
        if not layer.changes:
            self._begin_layer()
        layer.update(msg_id, changes)
        if layer.size + pending.frozen_size > pending.limit:
            self._grown()

    def append(self, msg_id: str, key: str, text: str) -> None:
        """See `trio_hub.store.Store.append`."""
        text = self._output.recorded(msg_id, key, text)
        if not text:
            return
        pending = self._pending
        layer = pending.open
        if not layer.changes:
            self._begin_layer()
        layer.append(msg_id, key, text)
        if layer.size + pending.frozen_size > pending.limit:
            self._grown()

    def discard(self, msg_id: str) -> None:
        """See `trio_hub.store.Store.discard`."""
        self._output.forget(msg_id)
        layer = self._pending.open
        if not layer.changes:
            self._begin_layer()
        layer.discard(msg_id)

    def _begin_layer(self) -> None:
        self._pending.open.since = trio.current_time()
        self._awake.set()

    def _grown(self) -> None:
        given_up = self._pending.grown()
        self.not_persisted += given_up
        now = trio.current_time()
        if given_up and (self._told_at is None or now >= self._told_at + TELL_EVERY):
            self._told_at = now
            log.error(
                "the task database takes too little: records of finished tasks were given up to save memory",
                records=given_up,
                lost=self.not_persisted,
            )

    # After the commit

    def after_commit(self, call: Callable[[], None]) -> None:
        """See `trio_hub.store.Store.after_commit`. An error that it raises is logged."""
        layers = self._pending.layers()
        if layers:
            layers[-1].calls.append(call)
        else:
            self._due.append(call)
            self._call_due()

    def _call_due(self) -> None:
        if self._calling:
            return  # by one of these calls: it comes when the others are done
        self._calling = True
        try:
            while self._due:
                call = self._due.popleft()
                try:
                    call()
                except Exception:
                    log.exception("what was to be done after a commit failed")
        finally:
            self._calling = False

    # The writer

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what comes, until it is closed, or cancelled: then what is pending stays so, for `aclose` to write."""
        async with trio.open_nursery() as nursery:
            if self.keep is not None:
                trim = partial(self._trim, self.keep)
                nursery.start_soon(keep_running, "retention of records", trim, self.failures)
            task_status.started()
            await keep_running("record writer", self._write, self.failures)
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        while not self._closed.is_set():
            await self._wait_for_work()
            try:
                async with self._lock:
                    await self._commit()
            except StoreError:  # it was logged
                pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
                with trio.move_on_after(pause):
                    await self._works_again.wait()

    async def _wait_for_work(self) -> None:
        while not self._pending.layers() and not self._closed.is_set():
            self._awake = trio.Event()
            await self._awake.wait()
        if self.delay and self.last_error is None:
            with trio.move_on_after(self.delay):
                await self._closed.wait()

    async def _commit(self) -> None:
        """Write what is pending now. Whoever calls this holds the lock.

        Raises:
            StoreError: It cannot be written. Nothing is lost.
        """
        layers = self._pending.freeze()
        if not layers:
            return
        self._refuse_if_closed()
        self._pending.busy = len(layers)
        try:
            attempt = await self._carry_out(layers)
        finally:
            self._pending.busy = 0
        calls = self._pending.calls(len(layers))
        rest = Layer(attempt.rest, attempt.size, layers[0].since, calls) if attempt.rest else None
        self._pending.replace(len(layers), rest)
        self.batches += attempt.batches
        self.written += attempt.written
        if attempt.refused:
            self._refuse(attempt.refused)
        if attempt.error is not None:
            self._fail(attempt.error)
            raise attempt.error
        self._succeed(attempt.written)
        self._due.extend(calls)
        self._call_due()

    async def _carry_out(self, layers: Sequence[Layer]) -> Attempt:
        """Write these layers, in a thread, shielded.

        What Python has to do for that is done here, unless it is much: a thread would take turns at it with the event
        loop, change by change, which costs both more than the work.
        """
        changes: list[Changes] = [layer.changes for layer in layers]
        batch = None
        if sum(map(len, changes)) <= TAKEN:
            pending = merged(changes)
            changes = [pending]
            with suppress(Exception):  # one of the changes is at fault: who writes them will find out which
                batch = await self._taken(pending)
        with trio.CancelScope(shield=True):
            attempt = await trio.to_thread.run_sync(write_layers, self._backend, changes, batch, limiter=self._writing)
        return attempt  # noqa: RET504  # within the scope, mypy would miss a return after it

    async def _taken(self, pending: Changes) -> Batch:
        batch = self._backend.batch()
        for taken, change in enumerate(pending.values(), 1):
            batch.take(joined(change))
            if taken % TAKEN_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return batch

    def _refuse(self, refused: Mapping[str, Exception]) -> None:
        self.not_persisted += len(refused)
        msg_id, error = next(iter(refused.items()))
        log.error(
            "the task database cannot hold some records, which are lost",
            task=msg_id,
            records=len(refused),
            error=f"{type(error).__name__}: {error}",
        )

    def _fail(self, error: StoreError) -> None:
        if self.last_error is None:
            self._works_again = trio.Event()
            log.error(
                "the task database cannot be written: records wait in memory, and it will be tried again",
                records=self.backlog,
                error=error,
            )
        self.last_error = str(error)

    def _succeed(self, written: int) -> None:
        self._pause = FIRST_PAUSE
        if self.last_error is not None:
            self.last_error = None
            self._works_again.set()
            log.warning("the task database can be written again", records=written, lost=self.not_persisted)

    async def _trim(self, keep: Keep) -> None:
        """Keep no more than that, step by step, so that writing has its turn in between."""
        while True:
            gone = 0
            try:
                async with self._lock:
                    self._refuse_if_closed()
                    gone = await trio.to_thread.run_sync(self._backend.trim, keep, self._now(), limiter=self._writing)
                self.trimmed += gone
            except StoreError as error:
                if self.last_error is None:
                    log.warning("the task database cannot forget what is too old", error=error)
            await trio.sleep(TRIM_PAUSE if gone else TRIM_EVERY)

    async def flush(self) -> None:
        """See `trio_hub.store.Store.flush`.

        Raises:
            StoreError: The database cannot be written now. What waits will be tried again all the same.
        """
        async with self._lock:
            await self._commit()

    async def flush_all(self) -> None:
        """See `trio_hub.store.Store.flush_all`.

        Raises:
            StoreError: The database cannot be written now.
        """
        for _ in range(FLUSHES):
            await self.flush()
            if not self._pending.layers():
                return

    async def drop(self, query: Query) -> int:
        """See `trio_hub.store.Store.drop`. What is written while it works stays.

        Raises:
            StoreError: The database cannot be written now.
        """
        async with self._lock:
            self._refuse_if_closed()
            await self._commit()
            return await trio.to_thread.run_sync(self._backend.drop, query, limiter=self._writing)

    # Reading

    async def get(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """See `trio_hub.store.Store.get`.

        Raises:
            StoreError: The database cannot be read now; so for all that follow.
        """
        return await self._read(lambda layers, reader: get_over(layers, reader, msg_ids))

    async def find(self, query: Query, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """See `trio_hub.store.Store.find`."""
        wanted = parse_keys(keys)
        return await self._read(lambda layers, reader: find_over(layers, reader, query, wanted))

    async def history(self) -> list[str]:
        """See `trio_hub.store.Store.history`."""
        return await self._read(history_over)

    async def unfinished(self) -> list[TaskRecord]:
        """See `trio_hub.store.Store.unfinished`. Writes first what is pending."""
        await self.flush()
        return await self._read(lambda layers, reader: [kept.record for kept in reader.unfinished()])

    async def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """See `trio_hub.store.Store.undelivered`. Writes first what is pending."""
        await self.flush()
        return await self._read(lambda layers, reader: reader.undelivered(window))

    async def _read(self, work: Callable[[Sequence[Changes], Reader], T]) -> T:
        """What `work` finds, in a thread, with a reader that has begun and the pending changes that it does not see."""
        async with self._readers.slots:
            async with self._lock:
                self._refuse_if_closed()
                reader = await self._readers.begin()
                layers = self._pending.freeze()
                if len(layers) > LAYERS:
                    layers = [await self._merge(layers)]
            return await self._readers.answer(reader, partial(work, [layer.changes for layer in layers]))

    async def _merge(self, layers: list[Layer]) -> Layer:
        """Make one layer of those, so that readers have less to look through."""
        pending = self._pending
        pending.busy = len(layers)
        try:
            changes = await self._readers.in_thread(partial(merged, [layer.changes for layer in layers]))
        finally:
            pending.busy = 0
        size = sum(layer.size for layer in layers)
        one = Layer(changes, size, layers[0].since, pending.calls(len(layers)))
        pending.replace(len(layers), one)
        return one

    # The end

    async def aclose(self) -> None:
        """Write what is pending, and close the database. Idempotent.

        If it cannot be written, or this is cancelled before it is, the log tells how many records were lost.
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
        self._closed.set()
        self._awake.set()
        self._works_again.set()
        async with self._readers.nobody_else(), self._lock:
            lost = self.backlog
            if lost:
                self.not_persisted += lost
                reason = self.last_error or "there was no time left"
                log.error("records were not written to the task database, and are lost", records=lost, reason=reason)
            self._pending = Backlog(self._pending.bound)
            with trio.move_on_after(RELEASE_LIMIT) as limit:
                await trio.to_thread.run_sync(self._release, limiter=self._writing, abandon_on_cancel=True)
            self._released = True
            if limit.cancelled_caught:
                log.error("the task database was not closed in time: it ends with this process", seconds=RELEASE_LIMIT)
            log.info("task database closed", records=self.written, lost=self.not_persisted)

    def _release(self) -> None:
        self._readers.close()
        self._backend.close()

    def _refuse_if_closed(self) -> None:
        if self._closed.is_set():
            raise StoreError("the task database is closed, since the hub has stopped")
