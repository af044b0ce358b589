"""Python's interpreter, as a process wants it that does nothing but serve a hub."""

from __future__ import annotations

import ctypes
import gc
import sys
import time

import trio

__all__ = ["collect_rarely", "give_memory_back", "switch_often", "tidy_at_rest"]

_THRESHOLDS = (2_000, 2, 1_000)
"""See `gc.set_threshold`. Python's own are 700, 10 and 10, and from 3.13 on 2,000, 10 and 10. The first two are low, so
that a collection takes some milliseconds and no more; the third is high, since the rest is looked at when there is no
work, see `tidy_at_rest`."""
_SWITCH_INTERVAL = 1e-4
"""Seconds, see `sys.setswitchinterval`. Python's own is 0.005."""
_LOOK_PERIOD = 1.0
"""Seconds from one look at whether the process is at rest to the next."""
_REST = 0.1
"""Of a core; a process that takes less is at rest. (Two thousand engines that do nothing take 0.02.)"""
_WORTH = 0.25
"""Seconds of work since memory was given back for the last time, from which on there may be some again."""
_AT_REST = 0.1
"""How much work a second of CPU is that was used at rest: most of it leaves nothing."""

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU C library; others have no such function


def collect_rarely() -> None:
    """Look at what is there now never again, and at what comes less often.

    Nearly all that a hub makes is freed without the collector, as soon as nobody refers to it. Looking for cycles among
    what every task leaves for a while took up to a tenth of what a task costs. What the start has left in cycles, some
    200 kB, stays: to look for it would keep the first clients waiting.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def switch_often() -> None:
    """Let a thread that runs Python give way to another within a moment.

    Each call of ZeroMQ lets other threads run. One that decodes ten thousand records for somebody's query would have
    the event loop wait for Python's five milliseconds after each frame.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)


async def tidy_at_rest() -> None:
    """Give memory back whenever the process comes to rest after it has worked, for ever.

    While it works, what was freed is used again. A purge of a hundred thousand records, or five hundred engines that
    have gone, leave some hundred megabytes which it may never need again.
    """
    used = time.process_time()
    worked = 0.0
    while True:
        await trio.sleep(_LOOK_PERIOD)
        before, used = used, time.process_time()
        if used - before >= _REST * _LOOK_PERIOD:
            worked += used - before
            continue
        worked += _AT_REST * (used - before)
        if worked > _WORTH:
            give_memory_back()
            worked = 0.0
            used = time.process_time()


def give_memory_back() -> None:
    """What was freed goes back to the system, as far as nothing else is in the same pieces of memory.

    Python keeps some freed objects of many kinds for later, each of which keeps a piece of memory from going; a
    collection lets go of them. The C library returns by itself only what is free at the end of its memory.
    """
    gc.collect()
    if _trim is not None:
        _trim(0)
