"""Reading a task database in threads, by several at the same time."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import trio

from ..errors import StoreError
from ..logs import get_logger
from ..store.backend import Backend, Reader

__all__ = ["READERS", "RecordReaders"]

log = get_logger("trio_hub.runtime")

T = TypeVar("T")

READERS = 4
"""How many questions the database answers at the same time; further ones wait."""
GIVE_UP = 3.0
"""Seconds that a reading has to end after it was interrupted."""


class RecordReaders:
    """The readers of a backend: opened when needed, used again, closed when they fail.

    Whoever wants one holds ``slots``, of which there are as many as readers, from `begin` to `answer`.
    """

    def __init__(self, backend: Backend) -> None:
        self.slots = trio.Semaphore(READERS)
        self._backend = backend
        self._idle: list[Reader] = []
        self._threads = trio.CapacityLimiter(READERS)

    async def in_thread(self, work: Callable[[], T]) -> T:
        with trio.CancelScope(shield=True):
            answer = await trio.to_thread.run_sync(work, limiter=self._threads)
        return answer  # noqa: RET504  # within the scope, mypy would miss a return after it

    async def begin(self) -> Reader:
        """A reader that sees the database as it is now.

        Raises:
            StoreError: It cannot be read.
        """
        return await self.in_thread(partial(self._begin, self._idle.pop() if self._idle else None))

    def _begin(self, known: Reader | None) -> Reader:
        if known is not None:
            try:
                known.begin()
                return known
            except Exception:  # it may have lost its database while nobody used it: another one tells
                known.close()
        reader = self._backend.reader()
        try:
            reader.begin()
        except BaseException:
            reader.close()
            raise
        return reader

    async def answer(self, reader: Reader, work: Callable[[Reader], T]) -> T:
        """Return what `work` finds; the reader is not the caller's any more.

        If this is cancelled, the reading is interrupted. A reading that goes on for `GIVE_UP` seconds all the same is
        left to its thread, which closes the reader.
        """
        reading = _Reading(reader, work)
        try:
            answer = await trio.to_thread.run_sync(reading.run, abandon_on_cancel=True, limiter=self._threads)
        except trio.Cancelled:
            await self._give_up(reading)
            raise
        if isinstance(answer, _Failure):
            raise answer.error
        self._idle.append(reader)
        return answer

    async def _give_up(self, reading: _Reading[Any]) -> None:
        if reading.withdraw():
            await self.in_thread(reading.reader.end)
            self._idle.append(reading.reader)
            return
        with trio.CancelScope(shield=True), trio.move_on_after(GIVE_UP) as limit:
            # In a thread, since a database on a server is asked over the network.
            interrupt = partial(trio.to_thread.run_sync, reading.reader.interrupt, abandon_on_cancel=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(interrupt)
                await reading.ended.wait()
                nursery.cancel_scope.cancel()
        if limit.cancelled_caught:
            log.error("a query was given up: it did not end when it was interrupted", seconds=GIVE_UP)
        else:
            log.warning("a query was interrupted, since the hub stops or its caller was cancelled")

    @asynccontextmanager
    async def nobody_else(self) -> AsyncGenerator[None, None]:
        """Wait until nobody reads, and keep it so for a while."""
        for _ in range(READERS):
            await self.slots.acquire()
        try:
            yield
        finally:
            for _ in range(READERS):
                self.slots.release()

    def close(self) -> None:
        """Close them all. Called in a thread, when nobody reads."""
        while self._idle:
            self._idle.pop().close()


@dataclass(slots=True)
class _Failure:
    error: Exception


class _Reading(Generic[T]):
    """One question, answered in a thread by one reader.

    ``ended`` is set in the event loop when the thread is done.
    """

    def __init__(self, reader: Reader, work: Callable[[Reader], T]) -> None:
        self.reader = reader
        self.ended = trio.Event()
        self._work = work
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._is_at_work = False
        self._is_withdrawn = False

    def run(self) -> T | _Failure:
        """In a thread: return the answer, and the reader can be used again; or why there is none, and it is closed."""
        with self._lock:
            if self._is_withdrawn:
                return _Failure(StoreError("the question was withdrawn"))
            self._is_at_work = True
        try:
            return self._answer()
        finally:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.ended.set)

    def _answer(self) -> T | _Failure:
        answer: T | _Failure
        try:
            answer = self._work(self.reader)
        except Exception as error:
            answer = _Failure(error)
        self.reader.end()
        with self._lock:
            self._is_at_work = False
            if self._is_withdrawn or isinstance(answer, _Failure):
                self.reader.close()
                self._is_withdrawn = True
        return answer

    def withdraw(self) -> bool:
        """Give the question up. Return whether the reader can be used again.

        If not, the thread closes the reader when it is done, or has done so.
        """
        with self._lock:
            is_usable = not self._is_at_work and not self._is_withdrawn
            self._is_withdrawn = True
            return is_usable
