"""Several pools: which of them serves which tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trio_hub.pools.demand import Queued
from trio_hub.pools.dividing import Plan, Pool, decide_all
from trio_hub.pools.memory import PoolMemory
from trio_hub.pools.supply import Block, BlockState, Engine, Supply

from .making import SEASONED, engines, pool, queued, there

NOTHING = Supply()
GPU = (("gpu", 1.0),)


def one(name: str, supply: Supply = NOTHING, memory: PoolMemory = SEASONED, **settings: Any) -> Pool:
    return Pool(pool(name=name, **settings), supply, memory)


def submits(plan: Plan) -> dict[str, int]:
    return {name: decision.submit for name, decision in plan.decisions.items()}


def test_tasks_go_to_the_pool_that_fits() -> None:
    several = [one("cpu"), one("gpu", tags={"gpu": 1})]
    assert submits(decide_all(several, queued(3, needs=GPU), 0.0)) == {"cpu": 0, "gpu": 3}


def test_the_cheapest_pool_grows_first_and_the_next_takes_the_rest() -> None:
    several = [one("cloud", cost=5.0), one("local", max=2), one("slurm", max=4)]
    assert submits(decide_all(several, queued(9), 0.0)) == {"local": 2, "slurm": 4, "cloud": 3}
    assert submits(decide_all(several, queued(2), 0.0)) == {"local": 2, "slurm": 0, "cloud": 0}


def test_short_tasks_that_the_cheapest_pool_has_room_for_stay_there() -> None:
    several = [one("local", max=2), one("cloud", cost=5.0)]
    assert submits(decide_all(several, queued(8, 0.5), 0.0)) == {"local": 1, "cloud": 0}


def test_engines_that_are_coming_count_before_a_cheaper_pool_grows() -> None:
    coming = Supply(blocks=(Block("b", 2, BlockState.WAITING, 0.0),))
    several = [one("local"), one("cloud", coming, cost=5.0)]
    assert submits(decide_all(several, queued(3), 0.0)) == {"local": 1, "cloud": 0}


def test_a_pool_that_has_failed_leaves_the_tasks_to_the_next() -> None:
    failed = SEASONED.after_failure(pool(), 0.0, "refused", asked=0.0)
    several = [one("spot", memory=failed), one("local")]
    assert submits(decide_all(several, queued(3), 1.0)) == {"spot": 0, "local": 3}
    assert submits(decide_all(several, queued(3), 2.0)) == {"spot": 3, "local": 0}


def test_important_tasks_are_given_the_cheap_pool() -> None:
    several = [one("local", max=2), one("cloud", cost=5.0)]
    demand = (*queued(2, priority=0), *queued(2, priority=5))
    plan = decide_all(several, demand, 0.0)
    assert plan.shares["local"] == queued(2, priority=5)
    assert plan.shares["cloud"] == queued(2, priority=0)


def test_tasks_for_which_there_is_no_room_have_a_pool_that_says_so() -> None:
    several = [one("local", max=2, supply=there(engines(2, idle_since=None, busy_for=600.0)))]
    plan = decide_all(several, queued(3), 0.0)
    assert plan.decisions["local"].grow.word == "at_max"
    assert plan.unmet == ()


def test_tasks_that_no_pool_fits_are_named() -> None:
    demand = queued(3, needs=GPU)
    assert decide_all([one("cpu")], demand, 0.0).unmet == demand
    assert decide_all([], demand, 0.0).unmet == demand


def test_engines_of_no_pool_serve_tasks_too() -> None:
    stranger = Engine(b"x", idle_since=0.0, offers=GPU)
    demand = queued(3, needs=GPU)
    assert decide_all([one("cpu")], demand, 0.0, [stranger]).unmet == ()
    several = [one("gpu", tags={"gpu": 1})]
    assert submits(decide_all(several, demand, 0.0, [stranger])) == {"gpu": 2}
    busy = replace(stranger, idle_since=None, busy_for=600.0)
    assert submits(decide_all(several, demand, 0.0, [busy])) == {"gpu": 3}
    assert submits(decide_all(several, queued(1, 1.0), 0.0, [stranger])) == {"gpu": 0}


def test_the_next_decision_is_that_of_the_first_pool_that_needs_one() -> None:
    several = [one("local"), one("gpu", tags={"gpu": 1})]
    assert decide_all(several, queued(1, needs=GPU), 5.0).ask_again == 6.0
    assert decide_all([], (Queued(1),), 5.0).ask_again == float("inf")
