"""When a pool grows, and when it shrinks: one example for each rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trio_hub.pools.demand import Queued, RunTimes
from trio_hub.pools.memory import PoolMemory
from trio_hub.pools.sizing import decide
from trio_hub.pools.supply import Block, BlockState, Supply

from .making import SEASONED, World, engines, pool, queued, there

NOTHING = Supply()
LONG_AGO = -100.0


def waiting(number: int, size: int = 1, asked: float = 0.0) -> tuple[Block, ...]:
    return tuple(Block(f"w{i}", size, BlockState.WAITING, asked) for i in range(number))


# Growing


def test_a_pool_without_tasks_stays_empty() -> None:
    decision = decide(pool(), (), NOTHING, 0.0, PoolMemory())
    assert (decision.submit, decision.grow.word, decision.shrink.word) == (0, "no_demand", "empty")


def test_the_first_decision_asks_for_an_engine_for_each_task() -> None:
    decision = decide(pool(), queued(3), NOTHING, 0.0, PoolMemory())
    assert (decision.submit, decision.grow.word) == (3, "grows")


@pytest.mark.parametrize("runtime", [None, 0.2])
def test_many_tasks_fill_a_small_pool_at_once(runtime: float | None) -> None:
    settings = pool(max=4, idle_timeout=5.0)
    assert decide(settings, queued(200, runtime), NOTHING, 0.0, PoolMemory()).submit == 4


def test_one_short_task_gets_an_engine() -> None:
    assert decide(pool(), queued(1, 0.001), NOTHING, 0.0, PoolMemory()).submit == 1


def test_short_tasks_share_engines() -> None:
    # Blocks start within 1 s, and an engine is idle for 8 s before it goes: it is worth starting for 5 s of work.
    assert decide(pool(max=100), queued(100, 0.5), NOTHING, 0.0, SEASONED).submit == 10


def test_many_labels_with_little_work_each_share_engines() -> None:
    demand = tuple(Queued(1, runtime=0.5 + i / 1e6) for i in range(100))
    assert decide(pool(max=100), demand, NOTHING, 0.0, SEASONED).submit == 11


def test_tasks_of_unknown_run_time_are_first_tried_with_some_engines() -> None:
    settings = pool(max=1000)
    assert decide(settings, queued(10_000, None), NOTHING, 0.0, SEASONED).submit == 32
    busy = engines(100, idle_since=None, busy_for=60.0)
    assert decide(settings, queued(10_000, None), there(busy), 0.0, SEASONED).submit == 200
    assert decide(settings, queued(10_000), NOTHING, 0.0, SEASONED).submit == 1000


def test_blocks_that_are_coming_count() -> None:
    decision = decide(pool(), queued(3), Supply(blocks=waiting(3)), 0.0, SEASONED)
    assert (decision.submit, decision.grow.word) == (0, "enough")
    assert decide(pool(), queued(4), Supply(blocks=waiting(3)), 0.0, SEASONED).submit == 1


def test_only_the_engines_that_a_running_block_has_not_brought_yet_are_coming() -> None:
    half = Block("b", 4, BlockState.RUNNING, 0.0, 0.0, arrived=2)
    supply = Supply(engines(1, "b", idle_since=None, busy_for=600.0), (half,))  # one of its engines has died
    settings = pool(engines_per_block=4, startup_timeout=30.0)
    decision = decide(settings, queued(2), supply, 1.0, SEASONED)
    assert (decision.needed.coming, decision.submit) == (2, 0)
    decision = decide(settings, queued(2), supply, 30.0, SEASONED)
    assert (decision.needed.coming, decision.submit) == (0, 1)


def test_blocks_are_rounded_up_and_never_go_beyond_max() -> None:
    settings = pool(engines_per_block=3)
    assert decide(settings, queued(4), NOTHING, 0.0, PoolMemory()).submit == 2
    decision = decide(settings, queued(100), NOTHING, 0.0, PoolMemory())
    assert decision.submit == 2  # a third one would bring 9 engines
    full = decide(settings, queued(100), Supply(blocks=waiting(2, 3)), 0.0, decision.memory)
    assert (full.submit, full.grow.word) == (0, "at_max")
    assert "6" in full.grow.text
    assert "8" in full.grow.text


def test_a_block_that_is_being_cancelled_still_counts_towards_max() -> None:
    supply = Supply(blocks=(Block("b", 8, BlockState.CANCELLED, 0.0, 0.0, 8),))
    assert decide(pool(), queued(5), supply, 1.0, SEASONED).grow.word == "at_max"


def test_only_so_many_blocks_wait_in_the_queue_of_the_batch_system() -> None:
    settings = pool(backlog=2)
    assert decide(settings, queued(8), NOTHING, 0.0, PoolMemory()).submit == 2
    decision = decide(settings, queued(8), Supply(blocks=waiting(2)), 0.0, PoolMemory())
    assert (decision.submit, decision.grow.word) == (0, "backlog")
    started = Block("b", 1, BlockState.RUNNING, 0.0, 1.0)
    assert decide(settings, queued(8), Supply(blocks=(started, *waiting(1))), 1.0, PoolMemory()).submit == 1


def test_no_engine_is_asked_for_that_would_come_too_late() -> None:
    busy = engines(4, idle_since=None, busy_for=0.1)
    decision = decide(pool(), queued(20, 0.5), there(busy), 0.0, SEASONED)
    assert (decision.submit, decision.grow.word) == (0, "enough")
    assert decide(pool(), queued(20, 600.0), there(busy), 0.0, SEASONED).submit == 4


def test_tasks_of_unknown_run_time_do_not_count_as_ending_soon() -> None:
    slow = replace(SEASONED, wait=300.0)
    busy = engines(4, idle_since=None, busy_for=RunTimes().remaining("new", 30.0))
    assert decide(pool(), queued(3, None), there(busy), 0.0, slow).submit == 3


def test_engines_that_are_busy_for_long_do_not_count() -> None:
    busy = engines(4, idle_since=None, busy_for=600.0)
    assert decide(pool(), queued(20, 0.5), there(busy), 0.0, SEASONED).submit == 2


def test_an_engine_that_ends_soon_does_not_count() -> None:
    assert decide(pool(), queued(1), there(engines(1)), 0.0, SEASONED).submit == 0
    assert decide(pool(), queued(1), there(engines(1, ends=1.0)), 0.0, SEASONED).submit == 1


def test_tasks_with_a_limit_need_engines_that_are_there_for_so_long() -> None:
    settings = pool(time_limit=7200.0)
    supply = there(engines(2, ends=1000.0))
    assert decide(settings, queued(1, 10.0, max_runtime=3600.0), supply, 0.0, SEASONED).submit == 1
    assert decide(settings, queued(1, 10.0, max_runtime=900.0), supply, 0.0, SEASONED).submit == 0
    both = (*queued(2, 10.0), *queued(2, 10.0, max_runtime=3600.0))
    assert decide(settings, both, there(engines(2)), 0.0, SEASONED).submit >= 1


def test_parallelism_asks_for_a_part_of_the_engines() -> None:
    assert decide(pool(parallelism=0.5), queued(8), NOTHING, 0.0, PoolMemory()).submit == 4
    assert decide(pool(parallelism=0.1), queued(1), NOTHING, 0.0, PoolMemory()).submit == 1
    busy = engines(4, idle_since=None, busy_for=600.0)
    assert decide(pool(parallelism=0.5), queued(4), there(busy), 0.0, SEASONED).submit == 0


def test_min_is_there_without_tasks() -> None:
    assert decide(pool(min=3), (), NOTHING, 0.0, PoolMemory()).submit == 3
    assert decide(pool(min=3), (), Supply(blocks=waiting(2)), 0.0, PoolMemory()).submit == 1
    lost = there(engines(2, idle_since=None))
    assert decide(pool(min=3), (), lost, 0.0, SEASONED).submit == 1


def test_retiring_engines_are_taken_back_before_others_are_asked_for() -> None:
    supply = there(engines(2, "a", retiring=True, draining=True), engines(1, "c", retiring=True, draining=True))
    decision = decide(pool(), queued(2), supply, 0.0, SEASONED)
    assert (len(decision.undrain), decision.submit, decision.grow.word) == (2, 0, "grows")
    assert {one.block for one in decision.cancel} <= {"c"}
    decision = decide(pool(), queued(4), supply, 0.0, SEASONED)
    assert (len(decision.undrain), decision.submit, decision.cancel) == (3, 1, ())


def test_retiring_engines_are_taken_back_for_tasks_that_would_not_wait_for_long() -> None:
    busy = engines(4, idle_since=None, busy_for=0.1)
    retiring = engines(1, "r", retiring=True, draining=True)
    decision = decide(pool(), queued(20, 0.5), there(busy, retiring), 0.0, SEASONED)
    assert (decision.undrain, decision.submit) == ((b"r0",), 0)


def test_the_pool_grows_if_the_queue_does_not_end_when_it_should() -> None:
    supply = there(engines(4, idle_since=None, busy_for=0.1))
    known = frozenset(block.ident for block in supply.blocks)
    memory, submits = replace(SEASONED, measured=(known, known)), []
    for now in range(10):
        decision = decide(pool(), queued(20, 0.5), supply, float(now), memory)
        memory = decision.memory
        submits.append(decision.submit)
    # The queue should have been empty when a block could have come, after 2 s, and have had 5 s of work.
    assert submits == [0] * 7 + [1] * 3
    few = decide(pool(parallelism=0.1), queued(20, 0.5), supply, 9.0, memory)
    assert (few.submit, few.needed.missing) == (0, 0)
    assert decide(pool(), (), supply, 10.0, memory).memory.queued_since is None


def test_an_engine_that_somebody_else_has_drained_is_not_taken_back() -> None:
    decision = decide(pool(), queued(1), there(engines(1, draining=True)), 0.0, SEASONED)
    assert (decision.undrain, decision.submit) == ((), 1)


# Shrinking


def test_engines_that_were_not_needed_are_drained_and_then_their_blocks_are_cancelled() -> None:
    supply = there(engines(3))
    decision = decide(pool(), (), supply, 100.0, SEASONED)
    assert (len(decision.drain), decision.cancel, decision.shrink.word) == (3, (), "shrinks")
    drained = tuple(replace(engine, retiring=True, draining=True) for engine in supply.engines)
    decision = decide(pool(), (), there(drained), 101.0, decision.memory)
    assert {(one.block, one.word) for one in decision.cancel} == {(f"b{i}", "drained") for i in range(3)}


def test_min_stays() -> None:
    assert len(decide(pool(min=2), (), there(engines(3)), 100.0, SEASONED).drain) == 1
    decision = decide(pool(min=2), (), there(engines(2)), 100.0, SEASONED)
    assert (decision.drain, decision.shrink.word) == ((), "at_min")


def test_engines_that_were_needed_within_the_idle_timeout_stay() -> None:
    world = World(pool())
    world.step(queued(4))
    while len(world.engines) < 4:
        world.step(queued(4))
    world.busy(4)
    world.step(())
    world.busy(0)
    ended = world.now
    while world.engines and world.now < 100:
        if (decision := world.step((), 0.25)).drain:
            assert ended + 7 <= world.now <= ended + 10
        else:
            assert decision.shrink.word in ("in_use", "draining")
    assert not world.engines
    assert world.now <= ended + 10.5


def test_busy_engines_stay_whatever_is_needed() -> None:
    busy = engines(3, idle_since=None, busy_for=600.0)
    assert decide(pool(), (), there(busy), 100.0, SEASONED).drain == ()
    assert decide(pool(max=1), (), there(busy), 100.0, SEASONED).drain == ()


def test_an_engine_that_holds_a_direct_request_stays() -> None:
    assert decide(pool(), (), there(engines(1, direct=1)), 100.0, SEASONED).drain == ()


def test_an_engine_that_was_addressed_directly_stays_for_the_idle_timeout_unless_the_pool_is_stateless() -> None:
    supply = there(engines(1, addressed=95.0))
    decision = decide(pool(), (), supply, 100.0, SEASONED)
    assert (decision.drain, decision.shrink.word) == ((), "direct")
    assert decide(pool(stateless=True), (), supply, 100.0, SEASONED).drain == (b"e0",)
    assert decide(pool(), (), supply, 103.0, SEASONED).drain == (b"e0",)


def test_a_block_is_kept_whose_retiring_engine_was_addressed_directly() -> None:
    supply = there(engines(1, retiring=True, draining=True, addressed=95.0))
    assert decide(pool(), (), supply, 100.0, SEASONED).cancel == ()
    assert len(decide(pool(), (), supply, 103.0, SEASONED).cancel) == 1


def test_a_block_is_kept_whose_retiring_engine_still_has_a_task() -> None:
    retiring = engines(1, retiring=True, draining=True, idle_since=None)
    assert decide(pool(), (), there(retiring), 100.0, SEASONED).cancel == ()


def test_a_pool_does_not_grow_and_shrink_in_one_decision() -> None:
    settings = pool(time_limit=7200.0)
    demand = queued(1, 10.0, max_runtime=3600.0)
    decision = decide(settings, demand, there(engines(1, ends=1000.0)), 100.0, SEASONED)
    assert (decision.submit, decision.drain, decision.shrink.word) == (1, (), "in_use")


def test_a_block_is_cancelled_only_when_all_its_engines_are_drained() -> None:
    settings = pool(engines_per_block=2)
    drained, busy = (
        engines(2, "a", retiring=True, draining=True)[:1],
        engines(2, "a", idle_since=None, busy_for=600.0)[1:],
    )
    decision = decide(settings, (), there(drained, busy, size=2), 100.0, SEASONED)
    assert (decision.cancel, decision.shrink.word) == ((), "draining")
    idle = (replace(busy[0], idle_since=99.0, busy_for=0.0),)
    decision = decide(settings, (), there(drained, idle, size=2), 200.0, SEASONED)
    assert (decision.drain, decision.cancel) == ((b"a1",), ())


def test_whole_blocks_are_given_back_and_those_with_the_least_work_first() -> None:
    settings = pool(engines_per_block=2)
    a = (engines(2, "a")[0], engines(2, "a", idle_since=None, busy_for=600.0)[1])
    c = engines(2, "c")
    assert decide(settings, (), there(a, c, size=2), 100.0, SEASONED).drain == (b"c0", b"c1", b"a0")


def test_a_part_of_a_block_is_not_drained() -> None:
    settings = pool(engines_per_block=2, min=1)
    decision = decide(settings, (), there(engines(2, "a"), size=2), 100.0, SEASONED)
    assert (decision.drain, decision.shrink.word) == ((), "rest_of_block")


def test_an_engine_on_which_the_queued_tasks_cannot_run_is_given_back() -> None:
    settings = pool(max=1, time_limit=7200.0)
    demand = queued(1, 10.0, max_runtime=3600.0)
    decision = decide(settings, demand, there(engines(1, ends=1000.0)), 100.0, SEASONED)
    assert (decision.submit, decision.grow.word, decision.drain) == (0, "at_max", (b"e0",))


def test_an_engine_that_somebody_has_drained_goes_when_it_is_idle_for_long() -> None:
    assert decide(pool(), (), there(engines(1, draining=True)), 7.0, SEASONED).drain == ()
    assert decide(pool(), (), there(engines(1, draining=True)), 8.0, SEASONED).drain == (b"e0",)


def test_blocks_that_wait_are_cancelled_when_they_are_not_needed_for_a_while() -> None:
    world = World(pool(), delay=100.0)
    world.step(queued(3))
    assert world.submitted == 3
    for _ in range(5):
        world.step(())
    assert (world.cancelled, world.blocks) == (3, {})


def test_after_a_restart_nothing_is_drained_before_the_idle_timeout() -> None:
    supply = there(engines(3, idle_since=99.0))
    decision = decide(pool(), (), supply, 100.0, PoolMemory())
    assert (decision.drain, decision.shrink.word) == ((), "in_use")
    assert len(decide(pool(), (), supply, 108.0, decision.memory).drain) == 3


def test_a_lower_max_gives_back_idle_engines() -> None:
    supply = there(engines(2), engines(2, "x", idle_since=None, busy_for=600.0))
    settings = pool(max=2)
    assert sorted(decide(settings, queued(9), supply, 1.0, SEASONED).drain) == [b"e0", b"e1"]


def test_scaling_by_hand_fixes_the_size() -> None:
    settings = pool(engines_per_block=2).scaled(3)
    assert (settings.min, settings.max) == (4, 4)
    assert decide(settings, (), NOTHING, 0.0, PoolMemory()).submit == 2
    none = settings.scaled(0)
    assert decide(none, queued(5), NOTHING, 0.0, PoolMemory()).grow.word == "at_max"
    assert len(decide(none, queued(5), there(engines(2)), 100.0, SEASONED).drain) == 2


# Failures


def test_after_a_failure_the_pool_pauses_and_the_pauses_grow() -> None:
    settings = pool(retry_pause=2.0, max_failures=4)
    memory, now, pauses = PoolMemory(), 0.0, []
    for _ in range(4):
        memory = memory.after_failure(settings, now, "sbatch: error: invalid partition", asked=now)
        decision = decide(settings, queued(5), NOTHING, now, memory)
        assert decision.submit == 0
        assert "invalid partition" in decision.grow.text
        pauses.append(memory.paused_until - now)
        now = memory.paused_until
    assert pauses == [2, 4, 8, 16]
    decision = decide(settings, queued(5), NOTHING, now, memory)
    assert (decision.submit, decision.grow.word) == (0, "stopped")
    assert decide(settings, queued(5), NOTHING, now, memory.resumed()).submit == 5


def test_after_several_failures_one_block_is_tried_first() -> None:
    settings = pool()
    memory = PoolMemory().after_failure(settings, 0.0, "refused", asked=0.0)
    assert decide(settings, queued(5), NOTHING, 2.0, memory).submit == 5
    memory = memory.after_failure(settings, 2.0, "refused", asked=2.0)
    assert decide(settings, queued(5), NOTHING, 6.0, memory).submit == 1
    probe = Block("p", 1, BlockState.RUNNING, 6.0, 7.0, arrived=1)
    supply = Supply(engines(1, "p", idle_since=None, busy_for=600.0), (probe,))
    assert decide(settings, queued(5), supply, 8.0, memory).grow.word == "probing"
    decision = decide(settings, queued(5), supply, 37.0, memory)
    assert (decision.submit, decision.memory.failures) == (5, 0)


def test_blocks_that_fail_together_are_one_failure() -> None:
    settings = pool()
    memory = PoolMemory()
    for i in range(20):
        memory = memory.after_failure(settings, 10.0 + i, f"node{i} failed", asked=1.0)
    assert (memory.failures, memory.words) == (1, "node19 failed")


def test_a_block_without_engines_is_cancelled_after_the_startup_timeout() -> None:
    settings = pool(startup_timeout=30.0)
    supply = Supply(blocks=(Block("b", 2, BlockState.RUNNING, 0.0, 0.0),))
    assert decide(settings, queued(2), supply, 29.0, SEASONED).cancel == ()
    decision = decide(settings, queued(2), supply, 30.0, SEASONED)
    (one,) = decision.cancel
    assert (one.block, one.word, one.failed) == ("b", "startup_timeout", True)
    assert (decision.memory.failures, decision.grow.word) == (1, "paused")


@pytest.mark.parametrize(("now", "failed"), [(10.0, True), (1000.0, False)])
def test_a_block_whose_engines_have_all_gone_is_cancelled(now: float, failed: bool) -> None:
    supply = Supply(blocks=(Block("b", 1, BlockState.RUNNING, 0.0, 0.0, arrived=1),))
    decision = decide(pool(), (), supply, now, SEASONED)
    (one,) = decision.cancel
    assert (one.word, one.failed, decision.memory.failures) == ("no_engines", failed, int(failed))


# Memory


def test_waits_and_startups_of_blocks_are_measured() -> None:
    settings, memory = pool(), PoolMemory()
    memory = decide(settings, queued(9), NOTHING, 0.0, memory).memory
    running = Block("a", 1, BlockState.RUNNING, 0.0, 40.0)
    memory = decide(settings, queued(9), Supply(blocks=(running,)), 41.0, memory).memory
    assert (memory.wait, memory.startup) == (40.0, None)
    arrived = Supply(engines(1, "a", idle_since=None), (replace(running, arrived=1),))
    memory = decide(settings, queued(9), arrived, 45.0, memory).memory
    assert (memory.wait, memory.startup) == (40.0, 5.0)
    again = decide(settings, queued(9), arrived, 99.0, memory).memory
    assert (again.wait, again.startup) == (40.0, 5.0)


def test_blocks_of_an_earlier_hub_are_not_measured() -> None:
    memory = decide(pool(), (), there(engines(2)), 5000.0, PoolMemory()).memory
    assert (memory.wait, memory.startup) == (None, None)


def test_no_time_grows_what_is_remembered() -> None:
    world = World(pool())
    for i in range(1000):
        world.busy(i % 9)
        world.step(queued(i % 3))
    assert len(world.memory.peaks) <= 11
    assert all(len(seen) <= 8 for seen in world.memory.measured)


def test_the_next_decision_comes_in_time() -> None:
    assert decide(pool(), (), NOTHING, 5.0, PoolMemory()).ask_again == 65.0
    assert decide(pool(), queued(1), NOTHING, 5.0, PoolMemory()).ask_again == 6.0
    assert decide(pool(), (), there(engines(1)), 5.0, PoolMemory()).ask_again == 6.0
