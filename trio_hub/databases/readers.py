"""Reading a task database in threads, by several at the same time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import trio

from ..logs import get_logger
from .backend import Backend, Reader
from .calls import INTERRUPT_LIMIT, Call, in_thread

__all__ = ["OWN_READERS", "USERS_READERS", "ReaderPool"]

log = get_logger("trio_hub.runtime")

T = TypeVar("T")

USERS_READERS = 4
"""How many questions of users the database answers at the same time; further ones wait."""
OWN_READERS = 2
"""How many questions of the hub itself the database answers at the same time, beside those of users."""


class ReaderPool:
    """The readers of a backend: opened when needed, used again, closed when they fail.

    A question holds ``slots``, of which there are as many as readers, from `begin` to `answer`. A question is
    interrupted when its task is cancelled, since nobody waits for its answer.
    """

    def __init__(self, backend: Backend, readers: int) -> None:
        self.slots = trio.Semaphore(readers)
        self._number = readers
        self._backend = backend
        self._idle: list[Reader] = []
        self._running: set[Call[Any]] = set()
        self._threads = trio.CapacityLimiter(readers)

    async def begin(self) -> tuple[Reader, int]:
        """Return a reader that sees the database as it is now, and the number of the last batch that it sees.

        Raises:
            StoreError: The database cannot be read.
        """
        known = self._idle.pop() if self._idle else None
        return await self._run(Call("begin to read", partial(self._begin, known), _nothing, unwanted=_close_begun))

    def _begin(self, known: Reader | None) -> tuple[Reader, int]:
        if known is not None:
            try:
                return known, known.begin()
            except Exception:  # it may have lost its database while nobody used it: another one tells
                known.close()
        reader = self._backend.reader()
        try:
            return reader, reader.begin()
        except BaseException:
            reader.close()
            raise

    async def answer(self, reader: Reader, work: Callable[[Reader], T]) -> T:
        """Return what ``work`` finds; the reader is not the caller's any more."""
        call = Call(
            "answer a question", partial(_answer, reader, work), reader.interrupt, unwanted=lambda _: reader.close()
        )
        try:
            answer = await self._run(call)
        except trio.Cancelled:
            if not call.started:
                await in_thread(reader.close)
            elif call.interrupted and call.ended.is_set():
                log.warning("a query was interrupted, since the hub stops or nobody waits for its answer any more")
            raise
        if call.interrupted:  # too late to matter for this answer
            await in_thread(reader.close)
        else:
            self._idle.append(reader)
        return answer

    async def _run(self, call: Call[T]) -> T:
        self._running.add(call)
        try:
            return await call.run(self._threads)
        finally:
            self._running.discard(call)

    @asynccontextmanager
    async def nobody_else(self) -> AsyncGenerator[int, None]:
        """Interrupt everybody who reads, wait for the end of that, but not for long, and let nobody begin for a while.

        The value is how many still read.
        """
        async with trio.open_nursery() as nursery:
            for call in self._running:
                nursery.start_soon(call.interrupt)
        taken = 0
        with trio.move_on_after(INTERRUPT_LIMIT):
            for _ in range(self._number):
                await self.slots.acquire()
                taken += 1
        try:
            yield self._number - taken
        finally:
            for _ in range(taken):
                self.slots.release()

    def close(self) -> None:
        """Close all readers that nobody uses. Called in a thread."""
        while self._idle:
            self._idle.pop().close()


def _answer(reader: Reader, work: Callable[[Reader], T]) -> T:
    """In a thread: return the answer, and the reader can be used again; or raise why there is none, and close it."""
    try:
        answer = work(reader)
    except BaseException:
        reader.end()
        reader.close()
        raise
    reader.end()
    return answer


def _close_begun(begun: tuple[Reader, int]) -> None:
    begun[0].end()
    begun[0].close()


def _nothing() -> None:
    """There is nothing to interrupt before the reader exists."""
