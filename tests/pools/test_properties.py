"""What holds for every pool, whatever happens: bounds, no harm to work, convergence, and no oscillation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_hub.errors import ConfigError
from trio_hub.pools.demand import Demand, Queued
from trio_hub.pools.dividing import Pool, decide_all
from trio_hub.pools.memory import PoolMemory
from trio_hub.pools.settings import PoolSettings
from trio_hub.pools.sizing import decide
from trio_hub.pools.supply import Block, BlockState, Supply

from .making import World, pool

pytestmark = pytest.mark.property

runtimes = st.none() | st.sampled_from([0.001, 0.2, 3.0, 30.0, 600.0, 1e5])
groups = st.builds(
    Queued,
    tasks=st.integers(0, 30) | st.just(100_000),
    priority=st.integers(-2, 2),
    runtime=runtimes,
    max_runtime=st.sampled_from([0.0, 0.0, 60.0]),
)
demands = st.lists(groups, max_size=3).map(tuple)


@st.composite
def pools(draw: st.DrawFn, /, **fixed: Any) -> PoolSettings:
    size = draw(st.sampled_from([1, 1, 2, 3, 8]))
    values: dict[str, Any] = {
        "engines_per_block": size,
        "max": size * draw(st.integers(1, 5)) + draw(st.integers(0, size - 1)),
        "min": draw(st.integers(0, 4)),
        "backlog": draw(st.none() | st.integers(1, 3)),
        "idle_timeout": draw(st.sampled_from([1.0, 5.0, 60.0])),
        "startup_timeout": 20.0,
        "time_limit": draw(st.none() | st.just(100.0)),
        "parallelism": draw(st.sampled_from([0.3, 1.0])),
        "stateless": draw(st.booleans()),
        "retry_pause": 1.0,
        "max_failures": 5,
        **fixed,
    }
    try:
        return pool(**values)
    except ConfigError:
        assume(False)
        raise


class PoolMachine(RuleBasedStateMachine):
    """Plays tasks, clients and a batch system at random. `World` checks each decision."""

    @initialize(settings=pools(), delay=st.sampled_from([0.0, 2.0, 30.0]))
    def begin(self, settings: PoolSettings, delay: float) -> None:
        self.world = World(settings, delay)

    @rule(demand=demands, seconds=st.sampled_from([0.1, 1.0, 10.0]), times=st.integers(1, 5))
    def decide(self, demand: Demand, seconds: float, times: int) -> None:
        for _ in range(times):
            self.world.step(demand, seconds)

    @rule(number=st.integers(0, 10), busy_for=st.sampled_from([0.0, 5.0, 600.0]))
    def work(self, number: int, busy_for: float) -> None:
        self.world.busy(number, busy_for)

    @precondition(lambda self: self.world.engines)
    @rule(data=st.data(), direct=st.integers(0, 1), drained=st.booleans())
    def address(self, data: st.DataObject, direct: int, drained: bool) -> None:
        engine = self.world.engines[data.draw(st.sampled_from(sorted(self.world.engines)))]
        self.world.engines[engine.ident] = replace(
            engine, direct=direct, addressed=self.world.now, draining=engine.retiring or drained
        )

    @precondition(lambda self: self.world.engines)
    @rule(data=st.data())
    def lose_an_engine(self, data: st.DataObject) -> None:
        del self.world.engines[data.draw(st.sampled_from(sorted(self.world.engines)))]

    @precondition(lambda self: self.world.blocks)
    @rule(data=st.data())
    def lose_a_block(self, data: st.DataObject) -> None:
        world = self.world
        block = world.blocks.pop(data.draw(st.sampled_from(sorted(world.blocks))))
        world.engines = {key: engine for key, engine in world.engines.items() if engine.block != block.ident}
        world.memory = world.memory.after_failure(world.settings, world.now, "ended", block.asked)
        assert world.memory.paused_until <= world.now + 600

    @precondition(lambda self: self.world.blocks)
    @rule(data=st.data())
    def start_without_engines(self, data: st.DataObject) -> None:
        world = self.world
        block = world.blocks[data.draw(st.sampled_from(sorted(world.blocks)))]
        if block.started is None:
            world.blocks[block.ident] = replace(block, state=BlockState.RUNNING, started=world.now)

    @rule()
    def resume(self) -> None:
        self.world.memory = self.world.memory.resumed()

    @invariant()
    def the_pool_keeps_its_bounds(self) -> None:
        if world := getattr(self, "world", None):
            assert world.supply.size() <= world.settings.max
            queued = sum(1 for block in world.blocks.values() if block.state.is_queued)
            assert world.settings.backlog is None or queued <= world.settings.backlog


TestPools = PoolMachine.TestCase


def least(settings: PoolSettings) -> int:
    """Return the number of engines that a pool has without tasks."""
    return -(-settings.min // settings.engines_per_block) * settings.engines_per_block


def always_have(world: World, tasks: int, seconds: int) -> None:
    """Let time pass, and let there be so many running and queued tasks all the time."""
    for _ in range(seconds):
        running = sum(1 for engine in world.engines.values() if engine.stays)
        world.busy(tasks)
        world.step((Queued(tasks - running, runtime=600.0),) if tasks > running else (), 1.0)


@given(settings=pools(), tasks=st.integers(0, 60), delay=st.sampled_from([0.0, 2.0, 20.0]))
def test_under_constant_load_the_pool_converges_and_stays(settings: PoolSettings, tasks: int, delay: float) -> None:
    world = World(settings, delay)
    always_have(world, tasks, 200)
    submitted, cancelled = world.submitted, world.cancelled
    size = settings.engines_per_block
    most = settings.max // size * size
    wanted = -(-tasks // size) * size if settings.parallelism == 1 else 0
    assert max(min(wanted, most), min(settings.min, most)) <= len(world.engines) <= most
    assert cancelled == 0, "a block was given back, although there were always as many tasks"
    if settings.parallelism == 1:
        assert len(world.engines) == min(max(wanted, least(settings)), most)
    always_have(world, tasks, 80)
    assert (world.submitted, world.cancelled) == (submitted, cancelled)


@given(settings=pools(), demand=demands, busy=st.integers(0, 40))
def test_a_pool_without_tasks_goes_back_to_its_minimum(settings: PoolSettings, demand: Demand, busy: int) -> None:
    world = World(settings)
    for _ in range(20):
        world.step(demand)
        world.busy(busy)
    world.busy(0)
    for _ in range(int(settings.idle_timeout * 1.3) + 15):
        world.step(())
    assert len(world.engines) == least(settings)
    assert world.supply.size() == least(settings)


@given(settings=pools(), demand=demands)
def test_demand_that_nothing_serves_is_answered_at_once(settings: PoolSettings, demand: Demand) -> None:
    decision = decide(settings, demand, Supply(), 0.0, PoolMemory())
    tasks = sum(one.tasks for one in demand)
    assert (decision.submit > 0) == (tasks > 0 or settings.min > 0)
    wanted = max(tasks, settings.min)
    assert decision.submit * settings.engines_per_block < wanted + settings.engines_per_block


@given(settings=pools(parallelism=1.0, backlog=None), tasks=st.integers(0, 60), size=st.integers(0, 5))
def test_blocks_on_their_way_are_not_asked_for_again(settings: PoolSettings, tasks: int, size: int) -> None:
    demand = (Queued(tasks, runtime=1e5),)
    blocks = tuple(Block(f"b{i}", settings.engines_per_block, BlockState.WAITING, 0.0) for i in range(size))
    further = decide(settings, demand, Supply(blocks=blocks), 0.0, PoolMemory()).submit
    assert further == max(decide(settings, demand, Supply(), 0.0, PoolMemory()).submit - size, 0)


@given(data=st.data(), demand=demands)
def test_several_pools_share_all_tasks(data: st.DataObject, demand: Demand) -> None:
    number = data.draw(st.integers(1, 3))
    several = [
        Pool(data.draw(pools(name=f"p{i}", cost=data.draw(st.sampled_from([1.0, 2.0])))), Supply(), PoolMemory())
        for i in range(number)
    ]
    plan = decide_all(several, demand, 0.0)
    assert plan.decisions.keys() == plan.shares.keys() == {one.settings.name for one in several}
    shared = sum(one.tasks for share in plan.shares.values() for one in share)
    unmet = sum(one.tasks for one in plan.unmet)
    assert shared + unmet == sum(one.tasks for one in demand)
    for one in plan.unmet:
        assert not any(each.settings.fits(one) for each in several)
    for each in several:
        share = plan.shares[each.settings.name]
        assert all(each.settings.fits(one) for one in share)
        decision = plan.decisions[each.settings.name]
        assert decision.submit * each.settings.engines_per_block <= each.settings.max
