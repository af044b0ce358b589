"""What pools are told of the queue and of the engines, and what they do to engines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_hub.hub.connector import EngineConnector
from trio_hub.hub.events import EngineDraining
from trio_hub.pools.demand import Queued
from trio_hub.pools.memory import PoolMemory
from trio_hub.pools.settings import PoolSettings
from trio_hub.pools.sizing import Decision, decide
from trio_hub.pools.supply import Block, BlockState, Engine, Supply
from trio_hub.schedulers.matching import rounded_up
from trio_hub.schedulers.task import TaskState
from trio_hub.wire.messages import Message

from .durable import DurableStore, crashed
from .test_broadcasting import broadcast
from .test_cancelling import kinds, pass_time, running, sent
from .test_cost import Calls, calls_per_task
from .world import Peer, World

GPU = {"gpu": 1}
NEEDS_GPU = (("gpu", 1.0),)


def pools(**settings: Any) -> list[PoolSettings]:
    return [PoolSettings("big", max=4, tags=GPU, **settings)]


def seen(world: World, uuid: str = "a") -> Engine:
    """Return what pools are told of an engine."""
    [found] = [engine for engine in world.hub.pooling.engines() if engine.ident == uuid.encode()]
    return found


def later(world: World, seconds: float) -> None:
    world.clock.time += timedelta(seconds=seconds)


def now(world: World) -> float:
    return world.clock.time.timestamp()


def about(seconds: float) -> Any:
    """Return a value that equals these seconds, and a little more or less: the clock moves with each look."""
    return pytest.approx(seconds, abs=0.2)


def end(world: World, request: Message, uuid: str = "a", *, ran: float = 0.0, **content: Any) -> None:
    """Have an engine answer a task that has run for so long."""
    date = world.read(Peer(uuid).session.write("hello", {})).header.date  # all peers have one clock
    assert date is not None
    started = datetime.fromisoformat(date) - timedelta(seconds=ran)
    world.answer(uuid, request, {"status": "ok"} | content, started=started.isoformat())


def sized(world: World) -> dict[tuple[Any, int, float], int]:
    """Return the numbers of queued tasks by needs, priority and limit."""
    found: Counter[tuple[Any, int, float]] = Counter()
    for one in world.hub.pooling.demand():
        found[one.needs, one.priority, one.max_runtime] += one.tasks
    return dict(found)


# The queue


def test_queued_tasks_are_grouped_by_what_pools_ask_for() -> None:
    world = World()
    assert world.hub.pooling.demand() == ()
    for _ in range(3):
        world.submit()
    world.submit(Peer("other"))
    world.submit(rules={"priority": 5})
    world.submit(rules={"needs": GPU, "max_runtime": 61})
    world.submit(rules={"needs": GPU, "max_runtime": 62})
    assert world.hub.pooling.demand() == (
        Queued(1, priority=5),
        Queued(4),
        Queued(2, NEEDS_GPU, max_runtime=64.0),
    )


def test_tasks_that_no_new_engine_could_run_now_are_left_out() -> None:
    world = World()
    world.engine("a")
    first, request = running(world)
    world.submit(targets=["a"])
    world.submit(after=[first])
    world.submit(follow=[first])
    assert world.hub.pooling.demand() == ()
    world.submit()
    assert sized(world) == {((), 0, 0.0): 1}
    end(world, request)  # the engine takes the task with targets, or the one behind it
    assert sum(sized(world).values()) <= 2


def test_a_task_that_has_failed_is_left_out_during_its_pause_only() -> None:
    world = World()
    world.engine("a")
    _, request = running(world, rules={"max_attempts": 3, "retry_pause": 30})
    world.hub.work.draining.drain(world.hub.engines.by_ident[b"a"], by="ann")
    end(world, request, status="error", ename="E", evalue="", traceback=[])
    assert world.hub.tasks.scheduler.timers.paused == 1
    assert world.hub.pooling.demand() == ()
    pass_time(world, 30)
    assert [one.tasks for one in world.hub.pooling.demand()] == [1]


def test_a_task_whose_dependency_is_not_met_brings_no_engines() -> None:
    """Otherwise the pool would start one engine after the other, and each engine would refuse the task."""
    world = World(pools=pools(), unmet_timeout=60)
    world.engine("a", offers=GPU)
    msg_id, request = running(world, rules={"needs": GPU})
    world.answer("a", request, {"status": "error", "ename": "UnmetDependency"}, dependencies_met=False)
    assert world.hub.tasks.scheduler.tasks[msg_id].state is TaskState.QUEUED
    assert world.hub.pooling.demand() == ()
    assert world.query("explain_request", {"msg_id": msg_id})["text"].startswith("has a functional dependency")


def test_run_times_are_expected_by_label_while_somebody_measures() -> None:
    world = World()
    world.engine("a")
    for label in ("x", "x", "y", "z"):
        _, request = running(world, label=label)
        end(world, request, ran=100.0)
    _, request = running(world, label="x")
    world.submit(label="x")
    assert world.hub.pooling.demand() == (Queued(1),), "nobody has measured"
    world.hub.pooling.measure = True
    assert world.hub.pooling.measure
    end(world, request, ran=10.0)
    world.submit(label="x")
    world.submit(label="new")
    assert [(one.tasks, one.runtime) for one in world.hub.pooling.demand()] == [(1, about(10.0)), (1, None)]
    world.hub.pooling.measure = False
    assert not world.hub.pooling.measure


def measured(world: World, seconds: float, uuid: str = "a", **metadata: Any) -> None:
    """Have a task run and end."""
    world.hub.pooling.measure = True
    _, request = running(world, uuid, **metadata)
    end(world, request, uuid, ran=seconds)


def test_a_label_that_never_ended_is_expected_to_last_as_long_as_it_has_run() -> None:
    world = World()
    world.engine("a")
    world.hub.pooling.measure = True
    running(world, label="slow")
    world.submit(label="slow")
    world.hub.pooling.engines()
    later(world, 59)
    world.hub.pooling.engines()
    assert [one.runtime for one in world.hub.pooling.demand()] == [None]
    later(world, 41)
    world.hub.pooling.engines()
    assert [one.runtime for one in world.hub.pooling.demand()] == [about(100)]


def test_aborted_attempts_and_attempts_with_unmet_dependencies_are_not_measured() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    measured(world, 10.0, label="x")
    _, request = running(world, "b", label="x")
    world.answer("b", request, {"status": "aborted"}, started="2020-01-01T00:00:00Z")
    _, request = running(world, "a", label="x")
    world.answer("a", request, {"status": "error"}, dependencies_met=False, started="2020-01-01T00:00:00Z")
    assert world.hub.tasks.measured.times.expected("x") == about(10.0)


def test_only_so_many_run_times_are_noted_between_two_looks() -> None:
    world = World()
    world.engine("a")
    for _ in range(210):
        measured(world, 10.0, label="x")
    world.hub.pooling.demand()
    measured(world, 10.0, label="y")
    times = world.hub.tasks.measured.times
    assert times.expected("y") == about(10.0)
    for number in range(250):
        measured(world, 10.0, label=f"label {number}")
    assert sum(times.expected(f"label {number}") is not None for number in range(250)) == 199


def test_many_tasks_are_exact_in_number_and_sampled_in_label() -> None:
    world = World()
    world.engine("a")
    for label, seconds in (("quick", 1.0), ("slow", 50.0)):
        measured(world, seconds, label=label)
    running(world)
    for number in range(4000):
        world.submit(label="slow" if number % 4 == 3 else "quick", rules={"priority": number % 2})
    assert sized(world) == {((), 1, 0.0): 2000, ((), 0, 0.0): 2000}
    runtimes = Counter({(one.priority, one.runtime): one.tasks for one in world.hub.pooling.demand()})
    times = world.hub.tasks.measured.times
    quick, slow = times.expected("quick"), times.expected("slow")
    assert runtimes[0, quick] == 2000, "all with priority 0 are quick"
    assert runtimes[1, quick] + runtimes[1, slow] == 2000
    assert 700 <= runtimes[1, slow] <= 1300


def test_a_task_whose_message_is_on_disk_has_the_last_label_of_its_client() -> None:
    world = World(store=DurableStore(), queue_memory=1000)
    world.engine("a")
    measured(world, 7.0, label="x")
    running(world, label="x")
    for client in (world.client, Peer("other"), world.client):
        world.submit(client, label="x", buffers=(b"x" * 2000,))
    assert [task.frames for task in world.hub.tasks.scheduler.queue] == [None] * 3
    known = world.hub.tasks.measured.times.expected("x")
    assert {(one.tasks, one.runtime) for one in world.hub.pooling.demand()} == {(2, known), (1, None)}


def test_tasks_that_wait_at_engines_count_while_more_of_them_come() -> None:
    world = World(hwm=0)
    for _ in range(5):
        world.submit(label="x", rules={"priority": 2})
    world.engine("a")
    assert len(world.hub.engines.by_ident[b"a"].pending) == 5
    assert world.hub.pooling.demand() == (Queued(4, priority=2),)
    later(world, 4)
    assert sized(world) == {((), 2, 0.0): 4}
    later(world, 2)
    assert world.hub.pooling.demand() == (), "no other engine can run them"
    world.submit()
    assert sized(world) == {((), 2, 0.0): 4, ((), 0, 0.0): 1}


def test_tasks_that_wait_at_a_drained_engine_or_have_targets_bring_no_engines() -> None:
    world = World(hwm=3)
    engine = world.engine("a")
    for _ in range(3):
        world.submit(targets=["a"])
    assert world.hub.pooling.demand() == ()
    other = world.engine("b")
    for _ in range(3):
        world.submit()
    assert sized(world) == {((), 0, 0.0): 2}
    assert world.hub.pooling.retire(other.ident, "pool x")
    assert world.hub.pooling.demand() == ()
    assert not engine.worker or len(engine.worker.running) == 3


TASKS = st.fixed_dictionaries(
    {
        "session": st.sampled_from(["ann", "bob", "cy"]),
        "label": st.sampled_from(["", "x", "y"]),
        "priority": st.integers(0, 2),
        "needs": st.sampled_from([{}, {"gpu": 1}, {"gpu": 2}, {"site": "a"}]),
        "max_runtime": st.sampled_from([0, 10, 61]),
        "targets": st.sampled_from([None, ["a"], ["b"]]),
        "after": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    tasks=st.lists(TASKS, max_size=60),
    steps=st.lists(st.tuples(st.sampled_from(["ok", "error", "unmet", "abort"]), st.integers(0, 50)), max_size=30),
    engines=st.lists(st.sampled_from([{}, {"gpu": 1}, {"site": "a", "gpu": 2}]), max_size=3),
)
def test_the_demand_is_what_counting_each_task_gives(
    tasks: list[dict[str, Any]], steps: list[tuple[str, int]], engines: list[dict[str, Any]]
) -> None:
    world = World()
    world.hub.pooling.measure = True
    clients = {name: Peer(name) for name in ("ann", "bob", "cy")}
    for number, offers in enumerate(engines):
        world.engine("abc"[number], offers=offers)
    last = ""
    for task in tasks:
        rules = {name: task[name] for name in ("priority", "needs", "max_runtime") if task[name]}
        metadata: dict[str, Any] = {"label": task["label"]} if task["label"] else {}
        after: dict[str, Any] = {"after": [last]} if task["after"] and last else {}
        targets: dict[str, Any] = {"targets": task["targets"]} if task["targets"] else {}
        last = world.submit(clients[task["session"]], rules=rules, retries=1, **metadata, **after, **targets)
    for what, number in steps:
        requests = [one for one in sent(world, "task_out") if one.header.msg_type == "apply_request"]
        for request in requests[number % 3 :]:
            if what == "unmet":
                world.answer(request.idents[0].decode(), request, {"status": "error"}, dependencies_met=False)
            elif what != "abort":
                world.answer(request.idents[0].decode(), request, {"status": what}, started="2025-12-31T23:59:00Z")
        if what == "abort":
            world.hub.tasks.scheduler.abort([f"ann_{number}"])
        world.answer_questions()
    counted: Counter[Queued] = Counter()
    for queued in world.hub.tasks.scheduler.tasks.values():
        if queued.state is TaskState.QUEUED and queued.targets is None and not queued.unmet:
            rule = queued.rules
            label = world.hub.tasks.measured.label_of(queued)
            assert label is not None
            runtime = world.hub.tasks.measured.times.expected(label)
            counted[Queued(0, rule.needs, rule.priority, runtime, rounded_up(rule.max_runtime))] += 1
    demand = world.hub.pooling.demand()
    assert {Queued(0, one.needs, one.priority, one.runtime, one.max_runtime): one.tasks for one in demand} == dict(
        counted
    )
    assert [one.priority for one in demand] == sorted((one.priority for one in demand), reverse=True)


def calls_of(call: Callable[[], object]) -> int:
    """Return the number of calls of functions in a call."""
    calls = Calls()
    with calls.counted():
        call()
    return calls.count


def test_a_look_at_the_demand_costs_the_same_however_many_tasks_are_queued() -> None:
    costs = []
    world = World()
    for number in (1000, 7000):
        for _ in range(number):
            world.submit(label="x")
        costs.append(calls_of(world.hub.pooling.demand))
    assert sized(world) == {((), 0, 0.0): 8000}
    assert costs[1] <= 1.1 * costs[0]
    assert costs[1] < 10000
    assert calls_of(lambda: world.hub.pooling.has_changed(())) < 100


def test_measuring_costs_a_task_little() -> None:
    measuring = World()
    measuring.hub.pooling.measure = True
    assert calls_per_task(measuring, engines=8, queued=50) <= 1.15 * calls_per_task(World(), engines=8, queued=50)


# The engines


def test_an_engine_is_idle_since_it_was_seen_with_its_last_request() -> None:
    world = World()
    world.engine("a")
    came = seen(world)
    assert came.is_idle
    assert came.idle_since == about(now(world))
    later(world, 10)
    assert seen(world).idle_since == came.idle_since
    _, request = running(world)
    assert seen(world).idle_since is None
    end(world, request)
    later(world, 5)
    idle = seen(world).idle_since
    assert idle == about(now(world))
    later(world, 5)
    _, request = running(world)
    end(world, request)  # between two looks
    assert seen(world).idle_since == about(now(world))
    later(world, 5)
    _, request = running(world)
    world.answer("a", request, {"status": "aborted"})
    assert seen(world).idle_since == about(now(world))


def test_how_long_an_engine_is_busy_is_expected_by_the_label_of_its_task() -> None:
    world = World()
    world.engine("a")
    assert seen(world).busy_for == 0.0
    measured(world, 20.0, label="x")
    running(world, label="x")
    assert seen(world).busy_for == about(20.0)
    later(world, 8)
    assert seen(world).busy_for == about(12.0)
    later(world, 32)
    assert seen(world).busy_for == about(20.0)
    world.engine("b")
    running(world, "b", label="new")
    assert seen(world, "b").busy_for == math.inf


def test_direct_requests_make_an_engine_busy_and_addressed() -> None:
    world = World()
    world.engine("a")
    assert (seen(world).direct, seen(world).addressed) == (0, None)
    world.call("a")
    [request] = sent(world, "mux_out")
    found = seen(world)
    assert (found.direct, found.idle_since, found.is_idle) == (1, None, False)
    assert found.addressed == about(now(world))
    later(world, 3)
    assert seen(world).busy_for == about(3.0)
    world.answer("a", request, channel="mux_out")
    later(world, 3)
    after = seen(world)
    assert (after.direct, after.addressed, after.is_idle) == (0, found.addressed, True)
    world.call("a")  # answered between two looks
    [request] = sent(world, "mux_out")
    world.answer("a", request, channel="mux_out")
    again = seen(world)
    assert again.addressed == again.idle_since == about(now(world))
    later(world, 5)
    world.call("a", msg_type="comm_msg")
    assert seen(world).addressed == about(now(world))


def test_a_task_behind_a_direct_request_lasts_as_long_as_both() -> None:
    world = World()
    world.engine("a")
    measured(world, 20.0, label="x")
    world.call("a")
    running(world, label="x")
    assert seen(world).busy_for == about(20.0)
    later(world, 4)
    assert seen(world).busy_for == about(24.0)


def test_a_broadcast_to_all_addresses_none_and_one_to_chosen_engines_does() -> None:
    world = World()
    for uuid in "abc":
        world.engine(uuid)
    broadcast(world, "abc")
    for uuid in "abc":
        assert (seen(world, uuid).direct, seen(world, uuid).addressed) == (1, None)
    broadcast(world, "ab")
    assert [engine.addressed is None for engine in world.hub.pooling.engines()] == [False, False, True]


def test_what_an_engine_offers_and_when_it_ends() -> None:
    world = World()
    world.engine("a", offers=GPU, seconds_left=100, block="big-1")
    found = seen(world)
    assert (found.offers, found.block, found.ends) == (NEEDS_GPU, "big-1", about(now(world) + 100))
    world.engine("b")
    assert seen(world, "b") == Engine(b"b", idle_since=seen(world, "b").idle_since)


def test_an_engine_that_gets_no_tasks_is_draining() -> None:
    world = World()
    for uuid in "abcd":
        world.engine(uuid)
    world.query("drain_request", {"engines": ["a"]})
    world.hub.control.shutdown_engine(world.hub.engines.by_ident[b"b"])
    world.hub.work.interrupts.kills.kill(world.hub.engines.by_ident[b"c"], "x", 1.0)
    found = [(engine.draining, engine.retiring) for engine in world.hub.pooling.engines()]
    assert found == [(True, False)] * 3 + [(False, False)]


def test_engines_that_have_gone_are_forgotten() -> None:
    world = World()
    engine = world.engine("a")
    assert len(world.hub.pooling.engines()) == 1
    world.hub.lose_engine(engine, "ended")
    assert world.hub.pooling.engines() == []
    world.engine("a")
    later(world, 5)
    assert seen(world).idle_since == about(now(world))


def test_the_mark_tells_what_a_poller_has_to_look_at() -> None:
    world = World()
    pooling = world.hub.pooling
    mark = pooling.mark()
    assert not pooling.has_changed(mark)

    def changed() -> bool:
        nonlocal mark
        before, mark = mark, pooling.mark()
        assert not pooling.has_changed(mark)
        return mark != before

    engine = world.engine("a", offers=GPU)
    assert changed()
    later(world, 100)
    pooling.demand()
    pooling.engines()
    assert not changed()
    _, request = running(world)
    assert changed()
    end(world, request)
    assert changed()
    world.call("a")
    assert changed()
    world.answer("a", sent(world, "mux_out")[0], channel="mux_out")
    assert changed()
    broadcast(world, "a")
    assert changed()
    world.query("drain_request", {"engines": ["a"]})
    assert changed()
    world.query("drain_request", {"engines": ["a"], "undrain": True})
    assert changed()
    pooling.retire(engine.ident, "pool x")
    assert changed()
    pooling.take_back(engine.ident, "pool x")
    assert changed()
    world.query("tag_request", {"engine": "a", "tags": {"site": "x"}})
    assert changed()
    world.query("queue_request", {})
    assert not changed()
    world.hub.lose_engine(engine, "heart")
    assert changed()


# What pools do


def retire(world: World, uuid: str = "a") -> bool:
    return world.hub.pooling.retire(uuid.encode(), "pool x")


def take_back(world: World, uuid: str = "a") -> bool:
    return world.hub.pooling.take_back(uuid.encode(), "pool x")


def test_an_engine_that_retires_gets_no_tasks_until_it_is_taken_back() -> None:
    world = World()
    engine = world.engine("a")
    assert retire(world)
    assert (seen(world).draining, seen(world).retiring) == (True, True)
    assert world.host.events[-1] == EngineDraining(engine.id, "a", True, "pool x")
    assert world.host.state_changes
    world.submit()
    assert not sent(world, "task_out")
    assert take_back(world)
    assert (seen(world).draining, seen(world).retiring) == (False, False)
    assert kinds(sent(world, "task_out")) == ["apply_request"]
    assert not take_back(world)
    assert not retire(world, "nobody")
    assert not take_back(world, "nobody")


@pytest.mark.parametrize("first", ["the user", "the pool"])
def test_an_engine_that_a_user_drains_as_well_is_not_given_tasks_by_the_pool(first: str) -> None:
    world = World()
    world.engine("a")
    if first == "the pool":
        retire(world)
    world.query("drain_request", {"engines": ["a"], "by": "ann", "deadline": 60})
    if first == "the user":
        retire(world)
    drain = world.hub.work.draining.drains[b"a"]
    assert (drain.by, drain.retiring) == ("ann", True)
    assert take_back(world)
    assert (seen(world).draining, seen(world).retiring) == (True, False)
    assert not take_back(world)
    assert world.query("drain_request", {"engines": ["a"], "undrain": True})["engines"] == {"a": "undrained"}
    assert not seen(world).draining


def test_a_user_can_take_back_an_engine_that_retires() -> None:
    world = World()
    world.engine("a")
    retire(world)
    assert world.query("drain_request", {"engines": ["a"], "undrain": True})["engines"] == {"a": "undrained"}
    assert not seen(world).retiring


def test_an_engine_that_was_told_to_end_is_not_taken_back() -> None:
    world = World()
    world.engine("a")
    retire(world)
    world.query("drain_request", {"engines": ["a"], "then": "shutdown"})
    assert kinds(sent(world, "control_out")) == ["shutdown_request"]
    assert not take_back(world)


@pytest.mark.parametrize("asked", [False, True])
def test_the_next_hub_knows_blocks_and_engines_that_retire(asked: bool) -> None:
    world = World(store=DurableStore())
    stock = "big-2:" + "0" * 32
    world.engine("a", block="big-1")
    world.engine(stock)
    retire(world)
    if asked:
        world.query("drain_request", {"engines": ["a"], "by": "ann"})
    saved = world.hub.work.saved()
    world = crashed(world)
    world.hub.work.restore(saved)
    assert [(engine.block, engine.retiring) for engine in world.hub.pooling.engines()] == [
        ("big-1", True),
        ("big-2", False),
    ]
    assert world.hub.work.saved() == saved
    world.beat("a")
    world.answer_questions()
    assert take_back(world)
    assert seen(world).draining is asked


def test_the_next_hub_ignores_blocks_that_are_damaged() -> None:
    world = World()
    engine = world.engine("a", block="big-1")
    for blocks in ("x", {"a": 7}, {"a": "two words"}, {}):
        world.hub.work.restore({"blocks": blocks})
        assert engine.block == "big-1"


@pytest.mark.parametrize("block", [7, None, "", "two words", "x" * 101])
def test_a_block_without_a_usable_name_counts_as_none(block: object) -> None:
    world = World()
    assert world.engine("a", block=block).block == ""
    assert world.engine("big-1:" + "g" * 32, block=block).block == ""
    assert world.engine("big-1:" + "f" * 32, block=block).block == "big-1"


def test_the_engines_of_a_block_are_told_to_end_once() -> None:
    world = World()
    engines = [world.engine(uuid, block=block) for uuid, block in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert world.hub.pooling.shut_down("x") == 2
    assert [message.idents[0] for message in sent(world, "control_out")] == [b"a", b"c"]
    assert [engine.told_to_stop for engine in engines] == [True, False, True]
    assert world.hub.pooling.shut_down("x") == 0
    assert world.hub.pooling.shut_down("nothing") == 0
    assert not sent(world, "control_out")


# Tasks that no registered engine can run


def explained(world: World, msg_id: str) -> tuple[str, str]:
    found = world.query("explain_request", {"msg_id": msg_id})
    return found["text"], found["why"]


def test_a_task_for_which_a_pool_could_bring_an_engine_waits_for_it() -> None:
    world = World(pools=pools(), unmet_timeout=60)
    first = world.submit()
    assert explained(world, first) == (
        "is queued, and no engine is registered; pool big could bring an engine for it",
        "no engine is registered; pool big could bring an engine for it",
    )
    world.engine("a")
    msg_id = world.submit(rules={"needs": GPU})
    text = "needs gpu=1, which no registered engine offers; pool big could bring an engine for it"
    assert explained(world, msg_id) == (text, f"it {text}")
    for _ in range(3):
        pass_time(world, 60)
    assert not world.take("task_in")
    world.hub.pooling.use([pools()[0].scaled(0)])
    assert world.hub.pooling.pools[0].max == 0
    assert explained(world, msg_id)[0] == "needs gpu=1, which no engine offers, even when it is idle"
    for _ in range(2):
        pass_time(world, 60)
    assert [content["ename"] for content in world.replies("task_in")] == ["ImpossibleDependency"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"rules": {"needs": {"gpu": 2}}},
        {"rules": {"needs": {"gpu": 1}, "max_runtime": 95}},
        {"rules": {"needs": {"gpu": 1}}, "targets": ["a"]},
    ],
)
def test_a_task_that_no_pool_fits_is_unmet(metadata: dict[str, Any]) -> None:
    world = World(pools=pools(time_limit=100), unmet_timeout=60)
    world.engine("a")
    msg_id = world.submit(**metadata)
    assert "pool" not in explained(world, msg_id)[0]
    pass_time(world, 60)
    assert [content["ename"] for content in world.replies("task_in")] == ["ImpossibleDependency"]


def test_an_error_of_a_pools_rules_costs_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(pools=pools())
    world.engine("a")

    def fail(self: PoolSettings, queued: Queued) -> bool:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(PoolSettings, "fits", fail)
    msg_id = world.submit(rules={"needs": GPU})
    assert explained(world, msg_id)[0] == "needs gpu=1, which no engine offers, even when it is idle"
    assert world.hub.notices.internal_errors


def test_the_engine_that_a_pool_brings_gets_the_task() -> None:
    world = World(pools=pools(), unmet_timeout=60)
    world.engine("a")
    msg_id = world.submit(rules={"needs": GPU})
    assert sized(world) == {(NEEDS_GPU, 0, 0.0): 1}
    engine: EngineConnector = world.engine("b", offers=GPU, block="big-1")
    assert [one.header.msg_id for one in sent(world, "task_out")] == [msg_id]
    assert engine.worker is not None
    assert world.hub.pooling.demand() == ()


def test_the_rules_of_pools_grow_and_shrink_a_pool_by_what_the_hub_says() -> None:
    pool = PoolSettings("big", max=3, backlog=None, idle_timeout=5.0)
    world = World(pools=[pool])
    pooling, memory, blocks = world.hub.pooling, PoolMemory(), list[Block]()
    pooling.measure = True

    def decided() -> Decision:
        nonlocal memory
        supply = Supply(tuple(pooling.engines()), tuple(blocks))
        decision = decide(pool, pooling.demand(), supply, now(world), memory)
        memory = decision.memory
        for ident in decision.undrain:
            assert pooling.take_back(ident, "pool big")
        for ident in decision.drain:
            assert pooling.retire(ident, "pool big")
        return decision

    assert decided().submit == 0
    for _ in range(3):
        world.submit(label="x")
    assert decided().submit == 3
    for number in range(3):
        world.engine(str(number), block=f"big-{number}")
        blocks.append(Block(f"big-{number}", 1, BlockState.RUNNING, now(world), now(world), 1))
    requests = sent(world, "task_out")
    assert len(requests) == 3
    assert (decided().submit, decided().drain) == (0, ())
    for request in requests:
        end(world, request, bytes(request.idents[0]).decode(), ran=1.0)
    world.call("2")
    decided()
    later(world, 20)
    decided()
    assert [engine.retiring for engine in pooling.engines()] == [True, True, False], "one has a direct request"
    world.submit(label="new")  # engine 2 gets it, behind the direct request
    world.submit(label="new")
    undrained = decided().undrain
    assert len(undrained) == 1
    assert [one.idents[0] for one in sent(world, "task_out")] == [b"2", *undrained]
    later(world, 20)
    [cancelled] = decided().cancel
    assert cancelled.block not in ("big-2", f"big-{undrained[0].decode()}")
