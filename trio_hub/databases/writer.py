"""The writer of a task database: it writes pending changes in batches, and tries again while the database fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import trio

from ..errors import StoreError
from ..logs import get_logger
from ..services import Failures, failed
from .backend import Backend, Batch, Change
from .backlog import Backlog
from .batches import Attempt, write_batch, write_in_parts
from .calls import Call, in_thread
from .layers import Layer, joined, merged, size_of

__all__ = ["LAYERS", "Writer"]

log = get_logger("trio_hub.runtime")

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two attempts to write while the database cannot be written: the first pause and the longest."""
TAKEN, TAKEN_AT_ONCE = 2000, 50
"""The event loop prepares batches of up to this many changes, and so many changes at a time (half a millisecond)."""
LAYERS = 8
"""Each question freezes the pending changes into a new layer. If there are more layers than this, they are merged."""
PATIENCE = 5.0
"""Seconds within which a batch must be written after the writer was cancelled. Then the batch is interrupted."""
AFTER_COMMIT = "call after a commit"
"""The name under which errors of calls after a commit are counted."""


class Writer:
    """Writes a backlog to a backend, one batch at a time.

    Args:
        backend: The database.
        pending: The changes to be written.
        delay: Seconds that a change may wait for others to be written with it. Changes do not wait while the backlog
            is large.
        failures: Counts errors of calls after a commit.

    Attributes:
        turn: Held while a task writes to the database.
        still: Held by readers while they begin, and by the writer while the layers of the backlog or their batches
            change, so that a reader knows which layers it sees in the database. Not held during a commit, except
            when changes are written in parts, since some of them cannot be written.
        batches, written: The number of committed batches, and of changed records in these batches.
        not_persisted: The number of lost records: given up, or impossible to write.
        last_error: Why the database cannot be written now; None if it can be written.
        closed: Set when the store is closed.
        stuck: Whether a call of the backend was given up, see `Call`. A thread may still be in it.
    """

    def __init__(self, backend: Backend, pending: Backlog, delay: float, failures: Failures) -> None:
        self.turn = trio.Lock()
        self.still = trio.Lock()
        self.batches = 0
        self.written = 0
        self.not_persisted = 0
        self.last_error: str | None = None
        self.closed = trio.Event()
        self.stuck = False
        self._backend = backend
        self._pending = pending
        self._delay = delay
        self._failures = failures
        self._threads = trio.CapacityLimiter(1)
        self._awake = trio.Event()  # set when there are changes to write, or the store is closed
        self._hurried = trio.Event()  # set when the backlog is large, or the store is closed
        self._pause = FIRST_PAUSE
        self._works_again = trio.Event()
        # Calls passed to `after_commit` that are to be made now.
        self._due: deque[Callable[[], None]] = deque()
        self._calling = False

    def wake(self) -> None:
        """Have the writer write soon, since changes are pending now."""
        self._awake.set()

    def hurry(self) -> None:
        """Have the writer write without delay, since the backlog is large."""
        self._hurried.set()

    def close(self) -> None:
        """Stop writing."""
        self.closed.set()
        self._awake.set()
        self._hurried.set()
        self._works_again.set()

    def refuse_if_closed(self) -> None:
        """Raise `StoreError` if the store is closed."""
        if self.closed.is_set():
            raise StoreError("the task database is closed, since the hub has stopped")

    # After the commit

    def after_commit(self, call: Callable[[], None]) -> None:
        """See `trio_hub.records.Store.after_commit`. An error that the call raises is logged and counted."""
        layers = self._pending.layers()
        if layers:
            layers[-1].calls.append(call)
        else:
            self._call([call])

    def _call(self, calls: Sequence[Callable[[], None]]) -> None:
        self._due.extend(calls)
        if self._calling:
            return  # a call of the present batch has called this method: its own calls follow after the batch
        self._calling = True
        try:
            while self._due:
                call = self._due.popleft()
                try:
                    call()
                except Exception as error:
                    failed(AFTER_COMMIT, error, self._failures)
        finally:
            self._calling = False

    # Writing

    async def run(self) -> None:
        """Write changes until `close` is called, or until cancelled. Pending changes then stay pending."""
        while not self.closed.is_set():
            await self._wait_for_work()
            try:
                await self.commit()
            except StoreError:  # `_fail` has logged it
                pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
                with trio.move_on_after(pause):
                    await self._works_again.wait()

    async def _wait_for_work(self) -> None:
        while not self._pending.layers() and not self.closed.is_set():
            self._awake = trio.Event()
            await self._awake.wait()
        if self._delay and self.last_error is None and not self._pending.large and not self.closed.is_set():
            self._hurried = trio.Event()
            with trio.move_on_after(self._delay):
                await self._hurried.wait()

    async def commit(self) -> None:
        """Write the changes that are pending now.

        Raises:
            StoreError: The database cannot be written. Nothing is lost.
        """
        async with self.turn:
            async with self.still:
                layers = self._pending.freeze()
                if not layers:
                    return
                self.refuse_if_closed()
                self._pending.busy = len(layers)
                batch = self._backend.batch()
                for layer in layers:
                    layer.batch = batch.number
            try:
                attempt = await self._write(layers, batch)
            finally:
                self._pending.busy = 0
            self._account(layers, attempt)

    async def _write(self, layers: Sequence[Layer], batch: Batch) -> Attempt:
        """Write layers, in a thread.

        The event loop prepares the changes, unless there are many: a thread would compete with the event loop for
        Python's lock at each change, which would cost both more than the work itself.
        """
        changes = [layer.changes for layer in layers]
        taken = sum(map(len, changes)) <= TAKEN
        pending = merged(changes) if taken else await in_thread(partial(merged, changes))
        if taken:
            try:
                for number, change in enumerate(pending.values(), 1):
                    batch.take(joined(change))
                    if number % TAKEN_AT_ONCE == 0:
                        await trio.lowlevel.checkpoint()
            except Exception:  # a change is at fault: `_write_in_parts` finds out which one
                return await self._write_in_parts(layers, pending)
        attempt = await self._run("write records", partial(write_batch, batch, pending, taken=taken))
        return await self._write_in_parts(layers, pending) if attempt is None else attempt

    async def _write_in_parts(self, layers: Sequence[Layer], pending: dict[str, Change]) -> Attempt:
        """Write layers of which some changes may be impossible to write."""
        # Several batches write parts of a layer, so no single batch number can tell whether a reader sees the layer.
        async with self.still:
            for layer in layers:
                layer.batch = None
            return await self._run("write records", partial(write_in_parts, self._backend, pending))

    async def in_turn(self, what: str, work: Callable[[], T]) -> T:
        """Run ``work``, which writes to the database, when no other task writes, and return its result.

        ``what`` names the activity, for the log.
        """
        async with self.turn:
            self.refuse_if_closed()
            return await self._run(what, work)

    async def _run(self, what: str, work: Callable[[], T]) -> T:
        call = Call(what, work, self._backend.interrupt, patience=PATIENCE)
        try:
            return await call.run(self._threads)
        except trio.Cancelled:
            self.stuck = self.stuck or call.is_stuck
            raise

    def _account(self, layers: Sequence[Layer], attempt: Attempt) -> None:
        """Handle the outcome of an attempt to write layers. Raises `StoreError` if the database cannot be written."""
        calls = [call for layer in layers for call in layer.calls]
        self._pending.replace(layers, attempt.rest, map(size_of, attempt.rest.values()))
        self.batches += attempt.batches
        self.written += attempt.written
        if attempt.refused:
            self._refuse(attempt.refused)
        if attempt.error is not None:
            self._fail(attempt.error)
            raise attempt.error
        self._succeed(attempt.written)
        self._call(calls)

    def _refuse(self, refused: Mapping[str, Exception]) -> None:
        self.not_persisted += len(refused)
        msg_id, error = next(iter(refused.items()))
        log.error(
            "some records cannot be written to the task database, and are lost",
            task=msg_id,
            records=len(refused),
            error=f"{type(error).__name__}: {error}",
        )

    def _fail(self, error: StoreError) -> None:
        if self.last_error is None:
            self._works_again = trio.Event()
            log.error(
                "the task database cannot be written: records wait in memory, and the hub tries again",
                records=len(self._pending),
                error=error,
            )
        self.last_error = str(error)

    def _succeed(self, written: int) -> None:
        self._pause = FIRST_PAUSE
        if self.last_error is not None:
            self.last_error = None
            self._works_again.set()
            log.warning("the task database can be written again", records=written, lost=self.not_persisted)

    # For readers

    async def pending_layers(self) -> list[Layer]:
        """Return the pending changes, in layers that will not change any more. The caller must hold ``still``."""
        pending = self._pending
        layers = pending.freeze()[pending.busy :]
        if len(layers) > LAYERS:
            changes = await in_thread(partial(merged, [layer.changes for layer in layers]))
            pending.replace(layers, changes)
        return pending.frozen.copy()

    # Closing

    def forget_the_rest(self) -> None:
        """Forget, count and log the pending changes, which are lost, since the store is closed."""
        lost = len(self._pending)
        if lost:
            self.not_persisted += lost
            reason = self.last_error or "the time for it was over"
            log.error("records were not written to the task database, and are lost", records=lost, reason=reason)
        self._pending.clear()
