"""Reading a task database in threads, by several at the same time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from .backend import Backend, Reader

__all__ = ["READERS", "ReaderPool"]

T = TypeVar("T")

READERS = 4
"""How many questions the database answers at the same time; further ones wait."""


class ReaderPool:
    """The readers of a backend: opened when needed, used again, closed when they fail.

    Whoever wants one holds ``slots``, of which there are as many as readers, from `begin` to `answer`. A thread at
    work is always waited for, also by those who are cancelled, so that its reader comes back.
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
        """What `work` finds; the reader is not the caller's any more."""
        answer = await self.in_thread(partial(_answer, reader, work))
        if isinstance(answer, _Failure):
            raise answer.error
        self._idle.append(reader)
        return answer

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


def _answer(reader: Reader, work: Callable[[Reader], T]) -> T | _Failure:
    """In a thread: the answer, and the reader can be used again; or why there is none, and it is closed."""
    try:
        answer = work(reader)
    except Exception as error:
        reader.end()
        reader.close()
        return _Failure(error)
    reader.end()
    return answer
