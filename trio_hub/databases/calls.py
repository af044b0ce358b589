"""Calls of a database in threads. After the waiting task was cancelled, a call goes on for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import trio

from ..logs import get_logger

__all__ = ["INTERRUPT_LIMIT", "Call", "in_thread"]

log = get_logger("trio_hub.runtime")

T = TypeVar("T")

INTERRUPT_LIMIT = 2.0
"""Seconds within which an interrupted call must end. After that the hub does not wait for the call any more."""


async def in_thread(work: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
    """Carry out ``work`` in a thread. Wait for its end even if the task is cancelled, so the work must be quick."""
    with trio.CancelScope(shield=True):
        answer = await trio.to_thread.run_sync(work, limiter=limiter)
    return answer  # noqa: RET504  # within the scope, mypy would miss a return after it


class Call(Generic[T]):
    """One call of a database, in a thread.

    If the waiting task is cancelled, the call has ``patience`` more seconds, and is then interrupted. If it does not
    end within `INTERRUPT_LIMIT` seconds, `run` logs that the call was given up. Its thread ends some time later.

    Args:
        what: The activity of the call, for the log.
        work: The function that is called in the thread.
        interrupt: Makes ``work`` end soon, with an error. It is called in another thread, and must not raise. By
            default, nothing can make ``work`` end.
        patience: Seconds from the cancellation to the interruption.
        unwanted: Called in the thread with the result of a call that was given up.

    Attributes:
        started: Whether the thread has begun with the work.
        interrupted: Whether the call was interrupted.
        ended: Set when the work in the thread has ended.
    """

    def __init__(
        self,
        what: str,
        work: Callable[[], T],
        interrupt: Callable[[], None] = lambda: None,
        *,
        patience: float = 0.0,
        unwanted: Callable[[T], None] | None = None,
    ) -> None:
        self.what = what
        self.started = False
        self.interrupted = False
        self.ended = trio.Event()
        self._work = work
        self._interrupt = interrupt
        self._patience = patience
        self._unwanted = unwanted
        self._loop = trio.lowlevel.current_trio_token()
        self._guard = threading.Lock()
        self._given_up = False
        self._results: list[T] = []
        self._errors: list[Exception] = []

    @property
    def is_stuck(self) -> bool:
        """Whether the call was given up after it had begun, so that a thread may still be in it."""
        return self.started and self._given_up

    async def run(self, limiter: trio.CapacityLimiter | None = None) -> T:
        """Run the work in a thread, and return its result or raise its error.

        If the task is cancelled, this still waits for a call that has begun. If the call succeeds in time, its result
        is returned, and the cancellation is raised later. If it fails, the cancellation is raised at once.
        """
        try:
            await trio.to_thread.run_sync(self._carry_out, limiter=limiter, abandon_on_cancel=True)
        except trio.Cancelled:
            with self._guard:
                if not self.started:
                    self._given_up = True
                    raise
            with trio.CancelScope(shield=True):
                if not await self._ends() or self._errors:
                    raise
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    async def interrupt(self) -> None:
        """Make the call end soon, with an error. Wait at most `INTERRUPT_LIMIT` seconds."""
        self.interrupted = True
        with trio.move_on_after(INTERRUPT_LIMIT):
            await trio.to_thread.run_sync(self._interrupt, abandon_on_cancel=True)

    async def _ends(self) -> bool:
        """Wait for the end of the call, and interrupt it if needed. Return whether it has ended in time."""
        with trio.move_on_after(self._patience):
            await self.ended.wait()
        if not self.ended.is_set():
            await self.interrupt()
            with trio.move_on_after(INTERRUPT_LIMIT):
                await self.ended.wait()
        with self._guard:
            self._given_up = not (self._results or self._errors)
        if self._given_up:
            log.error(
                "a call of the task database was interrupted, but does not end; the hub does not wait for it any more",
                call=self.what,
            )
        return not self._given_up

    def _carry_out(self) -> None:
        with self._guard:
            if self._given_up:
                return
            self.started = True
        try:
            result = self._work()
        except Exception as error:
            with self._guard:
                self._errors.append(error)
        else:
            with self._guard:
                wanted = not self._given_up
                if wanted:
                    self._results.append(result)
            if not wanted and self._unwanted is not None:
                self._unwanted(result)
        finally:
            with suppress(trio.RunFinishedError):
                self._loop.run_sync_soon(self.ended.set)
