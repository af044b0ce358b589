"""Reads a task database in several threads at the same time."""

from __future__ import annotations

from collections.abc import Callable
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
"""The number of users' queries that the database answers at the same time. Further queries wait."""
OWN_READERS = 2
"""The number of the hub's own questions that the database answers at the same time, besides users' queries."""


class ReaderPool:
    """The readers of a backend. They are opened when needed, used again, and closed when they fail.

    A question holds one of the ``slots`` from `begin` to `answer`. There are as many slots as readers. If the task of a
    question is cancelled, the question is interrupted, since nobody waits for its answer.
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
        call = Call("begin to read", partial(self._begin, known), unwanted=_close_begun)
        try:
            return await self._run(call)
        except trio.Cancelled:
            if known is not None and not call.started:
                self._idle.append(known)
            raise

    def _begin(self, known: Reader | None) -> tuple[Reader, int]:
        if known is not None:
            try:
                return known, known.begin()
            except Exception:  # its connection may have broken while it was idle: try a new reader
                known.close()
        reader = self._backend.reader()
        try:
            return reader, reader.begin()
        except BaseException:
            reader.close()
            raise

    async def answer(self, reader: Reader, work: Callable[[Reader], T]) -> T:
        """Return the result of ``work``, and take the reader back: the caller must not use it any more."""
        call = Call(
            "answer a question", partial(_answer, reader, work), reader.interrupt, unwanted=lambda _: reader.close()
        )
        try:
            answer = await self._run(call)
        except trio.Cancelled:
            if not call.started:
                await in_thread(reader.close)
            elif call.interrupted and call.ended.is_set():
                log.info("a query was interrupted, since the hub stops or nobody waits for its answer any more")
            raise
        if call.interrupted:  # it was interrupted too late, after it had its answer
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

    async def stop(self) -> int:
        """Interrupt all questions, wait for their end for a limited time, and return the number that have not ended.

        The caller must let no further question begin.
        """
        async with trio.open_nursery() as nursery:
            for call in self._running:
                nursery.start_soon(call.interrupt)
        taken = 0
        with trio.move_on_after(INTERRUPT_LIMIT):
            for _ in range(self._number):
                await self.slots.acquire()
                taken += 1
        for _ in range(taken):
            self.slots.release()
        return self._number - taken

    def close(self) -> None:
        """Close all idle readers. Call this in a thread."""
        while self._idle:
            self._idle.pop().close()


def _answer(reader: Reader, work: Callable[[Reader], T]) -> T:
    """Return the answer. The reader can then be used again; after an error it is closed. Called in a thread."""
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
