"""A day of load in a simulated cluster: what the rules of pools cost, and whether pools oscillate."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.pools.controllers import DaskController, PoolController
from benchmarks.pools.least import least
from benchmarks.pools.loads import Task, constant, days
from benchmarks.pools.simulation import BatchSystem, Controller, Result, simulate

from .making import pool

SYSTEM = BatchSystem(wait=20.0, startup=10.0)
MOST = 2000


def controller(**settings: object) -> PoolController:
    return PoolController(pool(**{"max": MOST, "backlog": MOST, "idle_timeout": 30.0, **settings}))


def run(tasks: list[Task], controller: Controller, engines_per_block: int = 1) -> Result:
    return simulate(tasks, controller, system=SYSTEM, engines_per_block=engines_per_block, most=MOST, seed=1, tick=2.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_day_costs_at_most_a_quarter_more_than_the_least_possible_for_the_same_waiting_times(seed: int) -> None:
    tasks = days(Random(seed), 1, 0.15)
    result = run(tasks, controller())
    best = least(tasks, SYSTEM.startup)
    assert result.engine_hours <= 1.25 * best.engine_hours
    assert best.engine_hours <= result.placed_hours <= result.engine_hours
    assert result.overshoot <= 0
    # Dask gives engines back sooner. So it starts many more, and some of them for nothing.
    tasks = days(Random(seed), 1, 0.15)
    dask = run(tasks, DaskController(MOST))
    assert result.wasted < dask.wasted
    assert result.replaced < dask.replaced
    assert result.blocks < dask.blocks


@pytest.mark.parametrize("engines_per_block", [1, 8])
def test_under_constant_load_nothing_oscillates(engines_per_block: int) -> None:
    tasks = constant(Random(2), seconds=3600.0, per_second=1.0, runtime=30.0)
    result = run(tasks, controller(engines_per_block=engines_per_block), engines_per_block)
    assert result.blocks * engines_per_block <= 2 * result.largest
    assert result.replaced <= 0.1 * result.blocks
    assert result.largest <= 90  # about 30 tasks run at a time; at first the run time is unknown


def test_the_least_possible_is_that_of_a_cluster_that_knows_the_future() -> None:
    tasks = [Task(0.0, 100.0, "a", 0.0), Task(0.0, 50.0, "a", 0.0), Task(0.0, 10.0, "a", 105.0)]
    alone = least(tasks, startup=20.0)
    assert alone.engine_hours * 3600 == pytest.approx(20 + 100 + 20 + 50 + 5 + 10)  # it keeps one for 5 s
    assert alone.blocks == 2
    pairs = least(tasks, startup=20.0, engines_per_block=2)
    assert pairs.engine_hours * 3600 == pytest.approx(2 * (20 + 100 + 5 + 10))
    assert pairs.blocks == 1
