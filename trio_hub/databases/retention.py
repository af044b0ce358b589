"""Drops records from a task database, step by step, so that other writes have their turn in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import trio

from ..errors import StoreError
from ..logs import get_logger
from .backend import Backend, Retention
from .calls import Call
from .writer import Writer

__all__ = ["TRIM_EVERY", "TRIM_PAUSE", "Dropping"]

log = get_logger("trio_hub.runtime")

TRIM_EVERY, TRIM_PAUSE = 60.0, 0.02
"""Seconds between two checks for records that exceed the limits, and between two steps of dropping them."""
STEP = 0.005
"""Seconds that one step of a purge should take. The tasks of a strict hub wait for this long, and for the disk."""
TIDY_EVERY = 0.25
"""Seconds between two calls of `trio_hub.databases.backend.Backend.tidy` during a purge."""
FIRST_STEP, LONGEST_STEP = 50, 500
"""The number of records that the first step of a purge drops, and the maximum for any step."""


class Dropping:
    """Drops records: the records of a purge, and the records that exceed the limits of retention.

    Args:
        backend: The database.
        writer: Gives each step its turn.
        now: Returns the current time, for ages.

    Attributes:
        trimmed: The number of records that were dropped because of the limits.
    """

    def __init__(self, backend: Backend, writer: Writer, now: Callable[[], datetime]) -> None:
        self.trimmed = 0
        self._backend = backend
        self._writer = writer
        self._now = now

    async def drop(self, arrivals: Sequence[int]) -> int:
        """Drop the records with these arrival numbers, if they are completed. Return the number of dropped records.

        Raises:
            StoreError: The database cannot be written now. The records that were dropped before stay dropped.
        """
        backend, dropped, start, step = self._backend, 0, 0, FIRST_STEP
        tidied = trio.current_time()
        while start < len(arrivals):
            some = arrivals[start : start + step]
            seconds, gone = await self._writer.in_turn("drop records", partial(_timed, backend, some))
            dropped += gone
            start += len(some)
            # As many records as `STEP` has time for, which depends on their size and on the disk.
            step = max(1, min(LONGEST_STEP, 2 * step, int(len(some) * STEP / max(seconds, 1e-6))))
            if trio.current_time() > tidied + TIDY_EVERY:
                await self._tidy(done=False)
                tidied = trio.current_time()
        if dropped:
            await self._tidy(done=True)
            while await self._writer.in_turn("give space back", backend.give_back):
                pass
        return dropped

    async def _tidy(self, *, done: bool) -> None:
        """Tidy the database, beside other writes. This may take minutes, so a stop of the hub does not wait for it."""
        await Call("tidy", partial(self._backend.tidy, done=done)).run()

    async def keep(self, keep: Retention) -> None:
        """Drop the records that exceed the limits, for ever, step by step, so that other writes have their turn."""
        while True:
            gone = 0
            try:
                gone = await self._writer.in_turn("trim", partial(self._backend.trim, keep, self._now()))
                self.trimmed += gone
            except StoreError as error:
                if self._writer.last_error is None:
                    log.warning("records that exceed the limits cannot be dropped from the database", error=error)
            await trio.sleep(TRIM_PAUSE if gone else TRIM_EVERY)


def _timed(backend: Backend, arrivals: Sequence[int]) -> tuple[float, int]:
    """Drop records. Return the seconds that it took, and the number of dropped records. Called in a thread."""
    began = time.perf_counter()
    gone = backend.drop(arrivals)
    return time.perf_counter() - began, gone
