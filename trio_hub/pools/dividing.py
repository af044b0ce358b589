"""Several pools: which pool serves which of the queued tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..schedulers.matching import lacking
from .demand import LONG_RUNTIME, Demand, Queued
from .memory import PoolMemory
from .needed import window_of
from .settings import PoolSettings
from .sizing import Decision, decide
from .supply import Engine, Supply

__all__ = ["Plan", "Pool", "decide_all"]


@dataclass(frozen=True, slots=True)
class Pool:
    """The facts about a pool on which its size depends."""

    settings: PoolSettings
    supply: Supply
    memory: PoolMemory


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions for all pools.

    - ``decisions``: the decision for each pool, by the name of the pool;
    - ``shares``: the queued tasks that each pool is to serve, by the name of the pool;
    - ``unmet``: the queued tasks that no engine of any pool, and no other engine, could run.
    """

    decisions: Mapping[str, Decision]
    shares: Mapping[str, Demand]
    unmet: Demand

    @property
    def ask_again(self) -> float:
        """When to decide again at the latest."""
        return min((decision.ask_again for decision in self.decisions.values()), default=float("inf"))


def decide_all(pools: Sequence[Pool], demand: Demand, now: float, others: Sequence[Engine] = ()) -> Plan:
    """Decide how each of several pools grows or shrinks.

    Each group of queued tasks goes to pools whose engines meet its needs: first to the engines that are there or
    coming, then to the pools that may grow. The cheapest pool is first, and of equally cheap pools the first in the
    list. Tasks for which no pool has room go to the cheapest pool that could run them. This pool then says why it does
    not grow.

    Args:
        pools: the pools, whose names differ.
        demand: all queued tasks.
        now: the time in seconds.
        others: the engines that belong to no pool.
    """
    ordered = sorted(pools, key=lambda pool: pool.settings.cost)
    rooms = [_Room(pool, now) for pool in ordered]
    strangers = [(engine, engine.available(now, LONG_RUNTIME)) for engine in others]
    unmet = []
    for queued in sorted(demand, key=lambda queued: -queued.priority):
        left, strangers, served = _served_by_others(queued, strangers)
        fitting = [room for room in rooms if room.pool.settings.fits(queued)]
        if not fitting:
            if not served and left.tasks:
                unmet.append(left)
            continue
        for room in fitting:
            left = room.take(left, growing=False)
        for room in fitting:
            left = room.take(left, growing=True)
        if left.tasks:
            willing = next((room for room in fitting if room.may_grow), fitting[0])
            willing.share.append(left)
    decisions, shares = {}, {}
    for room in rooms:
        pool, share = room.pool, _merged(room.share)
        shares[pool.settings.name] = share
        decisions[pool.settings.name] = decide(pool.settings, share, pool.supply, now, pool.memory)
    return Plan(decisions, shares, tuple(unmet))


def _served_by_others(
    queued: Queued, strangers: list[tuple[Engine, float]]
) -> tuple[Queued, list[tuple[Engine, float]], bool]:
    """Return what engines of no pool leave of queued tasks, what is left of these engines, and whether any fits."""
    load = _load(queued, LONG_RUNTIME)
    work = queued.tasks * load
    left, fits = [], False
    for engine, available in strangers:
        if not lacking(queued.needs, engine.offers):
            fits = True
            part = min(available, work)
            work -= part
            available -= part
        left.append((engine, available))
    return replace(queued, tasks=min(queued.tasks, _tasks(work, load))), left, fits


def _load(queued: Queued, window: float) -> float:
    """Return the part of an engine that one of these tasks takes up for a window of so many seconds."""
    return 1.0 if queued.runtime is None else min(max(queued.runtime, 1e-6) / window, 1.0)


def _tasks(work: float, load: float) -> int:
    """Return how many tasks of this load make up so much work, rounded up."""
    return math.ceil(work / load - 1e-6)


class _Room:
    """The engines that a pool has, or may have, for queued tasks, and the tasks that `take` has given to the pool."""

    def __init__(self, pool: Pool, now: float) -> None:
        settings, supply, memory = pool.settings, pool.supply, pool.memory
        self.pool = pool
        self.share: list[Queued] = []
        self._window = window_of(settings, memory)
        self.may_grow = now >= memory.paused_until and not memory.stopped(settings) and settings.max > 0
        coming = supply.coming(now, settings.startup_timeout)
        back = sum(1 for engine in supply.engines if engine.retiring)
        self._there = coming + back + sum(engine.available(now, self._window) for engine in supply.engines)
        blocks = (settings.max - supply.size()) // settings.engines_per_block
        self._more = float(max(blocks, 0) * settings.engines_per_block) if self.may_grow else 0.0

    def take(self, queued: Queued, *, growing: bool) -> Queued:
        """Give the pool as many of these tasks as it has room for, and return the others."""
        load = _load(queued, self._window)
        room = self._more if growing else self._there
        tasks = min(queued.tasks, int(room / load + 1e-6))
        if tasks:
            self.share.append(replace(queued, tasks=tasks))
            if growing:
                self._more -= tasks * load
            else:
                self._there -= tasks * load
        return replace(queued, tasks=queued.tasks - tasks)


def _merged(share: list[Queued]) -> Demand:
    """Return the share of a pool, with the parts of each group of tasks put together again."""
    merged: dict[Queued, int] = {}
    for queued in share:
        key = replace(queued, tasks=0)
        merged[key] = merged.get(key, 0) + queued.tasks
    return tuple(replace(key, tasks=tasks) for key, tasks in merged.items())
