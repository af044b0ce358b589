"""How the hub ends the processes of local engines: by a request, then by SIGTERM, then by SIGKILL, in bounded time."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from .processes import is_descendant

__all__ = ["ASKED_FOR", "Endings"]

ASKED_FOR = 1.0
"""Seconds that an engine has to end after it was asked to on its control channel, and before it gets SIGTERM."""
CLEANS_UP = 1.5
"""Seconds that an engine's nanny has to end after the hub has killed the engine.

The nanny first ends the processes that the engine has started and left behind.
"""


class Endings:
    """Ends processes, each within the grace.

    Args:
        grace: seconds between asking a process to end and SIGKILL; 0: SIGTERM is followed by SIGKILL at once.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._waits: set[trio.CancelScope] = set()

    def hurry(self) -> None:
        """Leave out the grace of processes that are ending, or will be."""
        self._grace = 0
        for wait in self._waits:
            wait.cancel()

    async def end(
        self,
        pid: int,
        send_signal: Callable[[signal.Signals], object],
        ended: Callable[[], Awaitable[None]],
        *,
        ask: Callable[[], bool] = lambda: False,
        engine_pid: int | None = None,
    ) -> None:
        """End a process, and wait for its end. Not cancellable.

        Args:
            pid: the process that the hub has started.
            send_signal: sends a signal to that process.
            ended: waits for the end of that process.
            ask: asks the engine to end by itself; returns whether it could be asked.
            engine_pid: the engine's process. If it is a child of the hub's process, which then is the engine's nanny,
                the engine is killed first: the nanny cannot be sure to do that when it is killed itself.
        """
        began = trio.current_time()
        with trio.CancelScope(shield=True):
            if self._grace > 0 and ask() and await self._ends_by(began + min(ASKED_FOR, self._grace / 2), ended):
                return
            send_signal(signal.SIGTERM)
            if await self._ends_by(began + self._grace, ended):
                return
            if engine_pid is not None and engine_pid != pid and is_descendant(engine_pid, of=pid):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(engine_pid, signal.SIGKILL)
                with trio.move_on_after(CLEANS_UP):
                    await ended()
                    return
            send_signal(signal.SIGKILL)
            await ended()

    async def _ends_by(self, deadline: float, ended: Callable[[], Awaitable[None]]) -> bool:
        """Wait until a process has ended, but no longer than until the deadline, or until `hurry` is called.

        Return whether the process has ended.
        """
        with trio.CancelScope(deadline=deadline) as wait:
            self._waits.add(wait)
            try:
                await ended()
                return True
            finally:
                self._waits.discard(wait)
        return False
