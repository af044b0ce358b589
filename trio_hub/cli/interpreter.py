"""Settings of the Python interpreter for a process that only serves a hub."""

from __future__ import annotations

import gc
import sys
import time

import trio

from .. import memory

__all__ = ["collect_rarely", "give_memory_back", "switch_often", "tidy_at_rest"]

_THRESHOLDS = (2_000, 2, 1_000)
"""See `gc.set_threshold`. Python's defaults are 700, 10 and 10; from 3.13 on 2,000, 10, 10. The first two are low, so
that a collection takes only some milliseconds. The third is high, since full collections happen when there is no work,
see `tidy_at_rest`."""
_SWITCH_INTERVAL = 1e-4
"""Seconds after which a waiting thread gets Python's lock, see `sys.setswitchinterval`. Python's default is 0.005."""
_LOOK_PERIOD = 1.0
"""Seconds between two checks whether the process is at rest."""
_REST = 0.1
"""A process that uses less than this part of a core is at rest. (Two thousand idle engines use 0.02.)"""
_WORTH = 0.25
"""Seconds of CPU time since memory was last given back, after which it is worth doing so again."""
_AT_REST = 0.1
"""The weight of CPU time that was used at rest, since most of it leaves no memory to give back."""


def collect_rarely() -> None:
    """Exclude all present objects from garbage collection, and collect other objects less often.

    Nearly all objects of a hub are freed without the collector, as soon as nothing refers to them. Searching them for
    cycles took up to a tenth of the time of a task. The start leaves some 200 kB in cycles, which are not freed, since
    searching for them would delay the first clients.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def switch_often() -> None:
    """Make threads that run Python code switch more often.

    Each call of ZeroMQ releases the interpreter lock. With Python's default, the event loop would then wait 5 ms after
    each frame for a thread that decodes the records of a large query.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)


async def tidy_at_rest() -> None:
    """Give memory back to the system each time the process becomes idle after work. Never returns.

    While the process works, it reuses freed memory. But a purge of a hundred thousand records, or the loss of five
    hundred engines, frees some hundred megabytes that the process may never need again.
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
    """Return freed memory to the system, as far as no objects are left in the same blocks of memory.

    Python keeps freed objects of many types for reuse, and each keeps a block of memory in use; a full collection
    releases them. The C library by itself returns only the free memory at the end of its heap.
    """
    gc.collect()
    memory.give_back()
