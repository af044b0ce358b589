"""The pools that could bring an engine for a task."""

from __future__ import annotations

from collections.abc import Sequence

from ..pools.demand import Queued
from ..pools.settings import PoolSettings
from ..schedulers.task import Task

__all__ = ["Bringing", "may_bring"]


class Bringing:
    """Knows the settings of the pools, and which pools could bring an engine for a task.

    Args:
        pools: the settings of all pools.
    """

    def __init__(self, pools: Sequence[PoolSettings] = ()) -> None:
        self.pools: Sequence[PoolSettings] = tuple(pools)

    def use(self, pools: Sequence[PoolSettings]) -> None:
        """Replace the settings of all pools."""
        self.pools = tuple(pools)

    def names_for(self, task: Task) -> Sequence[str]:
        """Return the names of the pools whose new engines could run a task."""
        if not self.pools or not may_bring(task):
            return ()
        demand = task.demand
        queued = Queued(1) if demand is None else Queued(1, demand.needs, max_runtime=demand.runtime)
        return [pool.name for pool in self.pools if pool.max > 0 and pool.fits(queued)]


def may_bring(task: Task) -> bool:
    """Return whether pools may start engines for a task.

    A task with targets may run only on its targets. A task whose functional dependency was not met on an engine gets no
    new engines either: the dependency would presumably not be met on them, and the pool would ask for engines for ever.
    """
    return task.targets is None and not task.unmet
