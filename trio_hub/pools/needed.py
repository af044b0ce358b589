"""How many engines the tasks of a pool could use."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..schedulers.matching import rounded_up
from .demand import Demand
from .memory import PoolMemory
from .settings import PoolSettings
from .supply import Supply

__all__ = ["Needed", "horizon_of", "memory_of", "needed_by", "window_of"]

MIN_HORIZON, MAX_HORIZON = 2.0, 60.0
"""Seconds. The smallest and the largest result of `horizon_of`."""
MAX_DELAY = 300.0
"""Seconds. The longest time that a block is presumed to take until its engines come. A batch system that was slow may
be fast now."""
PRESUMED_WAIT, PRESUMED_STARTUP = 30.0, 2.0
"""Seconds. How long the first block of a pool presumably waits in the batch system's queue, and then starts up."""
EXPLORED = 32
"""The number of engines that tasks of unknown run time may have before any of them has ended."""
STEP = 0.1
"""The part by which a pool grows if tasks were always queued, although its engines should have run them all by now."""
TOLERANCE = 1e-6


def horizon_of(settings: PoolSettings, memory: PoolMemory) -> float:
    """Return the seconds of work that an engine must find to be worth starting.

    An engine costs its start, and the time that it is idle before it is given back. So many short tasks get only as
    many engines as have enough to do.
    """
    startup = PRESUMED_STARTUP if memory.startup is None else memory.startup
    return min(max(startup + settings.idle_timeout / 2, MIN_HORIZON), MAX_HORIZON)


def window_of(settings: PoolSettings, memory: PoolMemory) -> float:
    """Return the seconds in which existing engines must have run all queued tasks, or else the pool grows.

    It is the time until an engine asked for now would come and find its work.
    """
    wait = memory.wait
    if wait is None:
        wait = 0.0 if settings.backlog is None else PRESUMED_WAIT
    startup = PRESUMED_STARTUP if memory.startup is None else memory.startup
    return min(wait + startup, MAX_DELAY) + horizon_of(settings, memory)


def memory_of(settings: PoolSettings, memory: PoolMemory) -> float:
    """Return the seconds for which a pool under load remembers how many engines were needed.

    It is not less than the time that it takes to get engines. Otherwise a pool would give back engines that it soon
    needs again.
    """
    return max(settings.idle_timeout, window_of(settings, memory))


@dataclass(frozen=True, slots=True)
class Needed:
    """How many engines the tasks of a pool could use.

    - ``useful``: the number of engines that running and queued tasks could use now;
    - ``missing``: the number of further engines that queued tasks could use, besides the engines there and coming;
    - ``waiting``: the number of further engines that queued tasks could use if the engines were there at once;
    - ``queued``: the number of queued tasks;
    - ``busy``: the number of engines that run something;
    - ``staying``: the number of engines that get new tasks;
    - ``coming``: the number of engines still to be expected from the blocks that were asked for.
    """

    useful: int
    missing: int
    waiting: int
    queued: int
    busy: int
    staying: int
    coming: int


def needed_by(settings: PoolSettings, demand: Demand, supply: Supply, now: float, memory: PoolMemory) -> Needed:
    """Return how many engines these queued tasks and the running ones could use.

    A task that runs for at least the window counts as one engine; shorter tasks share engines. Engines that will soon
    be free count for the part of the window in which they are free.
    """
    window, horizon = window_of(settings, memory), horizon_of(settings, memory)
    staying = [engine for engine in supply.engines if engine.stays]
    busy = sum(1 for engine in staying if not engine.is_idle)
    leaving = 0
    if len(staying) < len(supply.engines):
        leaving = sum(1 for engine in supply.engines if not engine.stays and not engine.is_idle)
    coming = supply.coming(now, settings.startup_timeout)
    tasks = sum(queued.tasks for queued in demand)
    in_horizon = _engines(demand, horizon, busy)
    missing = 0
    # Tasks that may run for long need engines that will be there for long. The tasks that are hardest to serve decide.
    for limit in sorted({0.0, *(rounded_up(queued.max_runtime) for queued in demand)}) if tasks else ():
        strict = tuple(queued for queued in demand if rounded_up(queued.max_runtime) >= limit)
        in_window = _engines(strict, window, busy)
        available = coming + sum(engine.available(now, window) for engine in staying if engine.ends - now >= limit)
        lacking = in_window - available
        if lacking > TOLERANCE:
            # The work that existing engines will not have done by then goes to engines that find less time for it.
            exact = lacking / in_window * _engines(strict, horizon, busy)
            exact -= (1 - settings.parallelism) * (busy + in_window)
            missing = max(missing, math.ceil(exact - TOLERANCE), 0 if staying or coming else 1)
    since = memory.queued_since
    if tasks and not missing and not coming and since is not None and now - since >= window:
        # By now the queue should have been empty: new tasks keep coming, or tasks take longer than was expected.
        most = math.ceil(settings.parallelism * (busy + tasks) - TOLERANCE) - len(staying)
        missing = max(min(max(int(len(staying) * STEP), 1), most), 0)
    at_once = math.ceil(settings.parallelism * in_horizon - TOLERANCE)
    waiting = max(at_once - (len(staying) - busy), 0)
    useful = busy + leaving + at_once
    return Needed(useful, min(missing, tasks), waiting, tasks, busy, len(staying), coming)


def _engines(demand: Demand, seconds: float, busy: int) -> float:
    """Return the number of engines that these tasks fill for so many seconds; no more than there are tasks."""
    known = sum(one.tasks * min(1.0, one.runtime / seconds) for one in demand if one.runtime is not None)
    unknown = sum(one.tasks for one in demand if one.runtime is None)
    return known + min(unknown, max(EXPLORED, 2 * busy))
