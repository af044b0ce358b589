"""Dropping records from a task database, a step at a time, so that everybody else has a turn in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import trio

from ..errors import StoreError
from ..logs import get_logger
from .backend import Backend, Retention
from .calls import in_thread
from .writer import Writer

__all__ = ["TRIM_EVERY", "TRIM_PAUSE", "Dropping"]

log = get_logger("trio_hub.runtime")

TRIM_EVERY, TRIM_PAUSE = 60.0, 0.02
"""Seconds between two looks for what is too old to keep, and between two steps of throwing it away."""
STEP = 0.005
"""Seconds that one step of a purge should take. Strict hubs' tasks wait for so long, and for the disk."""
TIDY_EVERY = 0.25
"""Seconds of a purge after which the database is tidied between two steps."""
FIRST_STEP, LONGEST_STEP = 50, 500
"""Records that the first step of a purge drops, and those that a step drops at most."""


class Dropping:
    """Drops records: those that a purge names, and those that are more than is to be kept.

    Args:
        backend: The database.
        writer: Gives each step its turn.
        now: The time, for ages.

    Attributes:
        trimmed: How many records were dropped since they were more, larger or older than is to be kept.
    """

    def __init__(self, backend: Backend, writer: Writer, now: Callable[[], datetime]) -> None:
        self.trimmed = 0
        self._backend = backend
        self._writer = writer
        self._now = now

    async def drop(self, arrivals: Sequence[int]) -> int:
        """Drop the records with these numbers of arrival, if they are completed; return how many were dropped.

        Raises:
            StoreError: The database cannot be written now. What was dropped until then stays so.
        """
        backend, dropped, start, step = self._backend, 0, 0, FIRST_STEP
        tidied = trio.current_time()
        while start < len(arrivals):
            some = arrivals[start : start + step]
            seconds, gone = await self._writer.in_turn("drop records", partial(_timed, backend, some))
            dropped += gone
            start += len(some)
            # as many as there is time for: some are larger than others, and some disks slower
            step = max(1, min(LONGEST_STEP, 2 * step, int(len(some) * STEP / max(seconds, 1e-6))))
            if trio.current_time() > tidied + TIDY_EVERY:
                await in_thread(partial(backend.tidy, done=False))
                tidied = trio.current_time()
        if dropped:
            await in_thread(partial(backend.tidy, done=True))
            while await self._writer.in_turn("give space back", backend.give_back):
                pass
        return dropped

    async def keep(self, keep: Retention) -> None:
        """Keep no more than that, for ever: step by step, so that writing has its turn in between."""
        while True:
            gone = 0
            try:
                gone = await self._writer.in_turn("trim", partial(self._backend.trim, keep, self._now()))
                self.trimmed += gone
            except StoreError as error:
                if self._writer.last_error is None:
                    log.warning("the task database cannot forget what is too old", error=error)
            await trio.sleep(TRIM_PAUSE if gone else TRIM_EVERY)


def _timed(backend: Backend, arrivals: Sequence[int]) -> tuple[float, int]:
    """In a thread: drop these, and return how many seconds that took, and how many went."""
    began = time.perf_counter()
    gone = backend.drop(arrivals)
    return time.perf_counter() - began, gone
