"""Cancels, limits, drains, deaths and restarts at the same time: each request is answered exactly once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from trio_hub.schedulers.broadcast import sub_msg_id

from .durable import DurableStore, crashed
from .test_cancelling import HIT, broadcast, cancel, errors, land, pass_time, running, sent
from .test_draining import drain, limited, tasks_sent
from .world import World


def test_the_answer_of_an_engine_that_was_lost_after_the_cancel_is_not_passed_on() -> None:
    world = World()
    engine = world.engine("a")
    msg_id, request = running(world, retries=2)
    cancel(world, msg_id)
    world.hub.lose_engine(engine, "heart")
    assert errors(world) == [(msg_id, "TaskCancelled")]
    world.answer("a", request)
    world.hub.handle_stranded(engine)
    world.answer("a", request)
    assert not errors(world)
    assert cancel(world, msg_id) == {msg_id: "finished"}


def test_a_task_that_waits_for_another_is_withdrawn_and_so_are_those_that_need_it() -> None:
    world = World()
    world.engine("a")
    first, request = running(world)
    needs = {"success": True, "failure": False, "all": True}
    second = world.submit(after={"dependencies": [first]} | needs)
    third = world.submit(after={"dependencies": [second]} | needs)
    assert cancel(world, second) == {second: "withdrawn"}
    assert errors(world) == [(second, "TaskCancelled"), (third, "ImpossibleDependency")]
    world.answer("a", request)
    assert errors(world) == [(first, "")]
    assert not tasks_sent(world)


@pytest.mark.parametrize("limit_first", [True, False])
def test_a_limit_and_a_cancel_at_once_give_one_answer(limit_first: bool) -> None:
    world = World()
    world.engine("a")
    msg_id, request = limited(world, max_attempts=5)
    if limit_first:
        pass_time(world, 5.0)
    assert cancel(world, msg_id) == {msg_id: "interrupted"}
    if not limit_first:
        pass_time(world, 5.0)
    [signal] = sent(world, "control_out")
    land(world, "a", signal)
    world.answer("a", request, HIT)
    assert errors(world) == [(msg_id, "TaskTimeout" if limit_first else "TaskCancelled")]
    pass_time(world, 100.0)
    assert not errors(world)
    assert not world.host.killed


@pytest.mark.parametrize("drain_first", [True, False])
def test_a_limit_at_the_deadline_of_a_drain_ends_the_task(drain_first: bool) -> None:
    world = World()
    world.engine("a")
    msg_id, request = limited(world)
    drain(world, "a", deadline=4.0 if drain_first else 6.0)
    world.engine("b")
    pass_time(world, 4.0)
    pass_time(world, 5.0)
    pass_time(world, 6.0)
    world.answer("a", request, HIT)
    assert errors(world) == [(msg_id, "TaskTimeout")]
    assert not tasks_sent(world)
    assert world.hub.work.interrupts.taken_away == 0


def test_a_task_that_was_cancelled_before_the_deadline_of_a_drain_does_not_run_elsewhere() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    drain(world, "a", deadline=5.0)
    cancel(world, msg_id)
    world.engine("b")
    pass_time(world, 5.0)
    world.answer("a", request, HIT)
    assert errors(world) == [(msg_id, "TaskCancelled")]
    assert not tasks_sent(world)


def test_a_cancelled_direct_request_is_answered_once_when_its_engine_is_lost() -> None:
    world = World()
    engine = world.engine("a")
    called = world.call("a")
    [direct] = sent(world, "mux_out")
    cancel(world, called)
    world.hub.lose_engine(engine, "heart")
    assert errors(world, "mux_in") == [(called, "TaskCancelled")]
    world.answer("a", direct, channel="mux_out")
    world.hub.handle_stranded(engine)
    assert not errors(world, "mux_in")


def test_a_share_and_then_the_whole_broadcast_are_cancelled_while_one_engine_dies() -> None:
    world = World()
    engine = world.engine("a")
    world.engine("b")
    msg_id, shares = broadcast(world, ["a", "b"], gather=True)
    share = sub_msg_id(msg_id, "a")
    assert cancel(world, share) == cancel(world, share) == {share: "interrupted"}
    assert cancel(world, msg_id) == {msg_id: "interrupted"}
    world.hub.lose_engine(engine, "died")
    assert not errors(world, "broadcast_in")
    world.answer("b", shares["b"], HIT, channel="broadcast_out")
    assert errors(world, "broadcast_in") == [(msg_id, "TaskCancelled")]
    assert cancel(world, msg_id) == {msg_id: "finished"}


def test_a_task_on_its_way_to_the_disk_is_withdrawn() -> None:
    store = DurableStore(auto=False)
    world = World(store=store, strict=True)
    world.engine("a")
    msg_id = world.submit()
    assert cancel(world, msg_id) == {msg_id: "withdrawn"}
    assert not errors(world)
    while store._writes:
        store.commit()
    assert errors(world) == [(msg_id, "TaskCancelled")]
    assert not tasks_sent(world)


def test_the_next_hub_cancels_a_task_whose_engine_never_comes_back() -> None:
    world = World(store=DurableStore())
    world.engine("a")
    msg_id, _ = running(world, retries=5)
    cancel(world, msg_id, by="ann")
    world.answer_questions()
    world = crashed(world)
    world.hub.purge_unheard()
    assert errors(world) == [(msg_id, "TaskCancelled")]
    world.engine("b")
    assert not tasks_sent(world)


def test_a_second_restart_still_knows_of_the_cancel() -> None:
    world = World(store=DurableStore())
    world.engine("a")
    msg_id, request = running(world)
    cancel(world, msg_id)
    world.answer_questions()
    for _ in range(2):
        world = crashed(world)
        world.answer_questions()
    world.beat("a")
    world.answer_questions()
    world.answer("a", request)
    assert errors(world) == [(msg_id, "TaskCancelled")]


def test_a_deadline_that_passed_while_no_hub_ran_takes_tasks_away() -> None:
    world = World(store=DurableStore())
    world.engine("a")
    msg_id, request = running(world)
    drain(world, "a", deadline=30.0)
    world.clock.time += timedelta(seconds=60)
    world = crashed(world)
    world.beat("a")
    world.engine("b")
    pass_time(world, 0.0)
    world.answer("a", request, HIT)
    world.answer_questions()
    assert tasks_sent(world) == [(b"b", msg_id)]
    assert not errors(world)


def test_tasks_that_the_engine_aborts_since_interrupted_code_has_failed_are_run_again() -> None:
    """A stock engine aborts what waits at it when an ``execute_request`` fails, also by an interrupt."""
    world = World(hwm=2)
    world.engine("a")
    called = world.call("a", msg_type="execute_request")
    [direct] = sent(world, "mux_out")
    first, second = running(world), running(world)
    cancel(world, called)
    [signal] = sent(world, "control_out")
    land(world, "a", signal)
    sent(world, "mux_out")
    world.answer("a", direct, HIT, channel="mux_out")
    assert errors(world, "mux_in") == [(called, "TaskCancelled")]
    world.answer("a", first[1], {"status": "aborted"})
    assert not errors(world)
    assert [msg_id for _, msg_id in tasks_sent(world)] == [first[0]]
    world.answer("a", second[1])
    assert errors(world) == [(second[0], "")]
    assert not world.hub.parts.work.interrupts._attention.engines


def test_a_task_that_its_client_aborts_behind_a_cancelled_one_stays_aborted() -> None:
    world = World(hwm=2)
    world.engine("a")
    first, second = running(world), running(world)
    cancel(world, first[0])
    world.hub.aborting.abort([second[0]])
    world.answer("a", first[1], HIT)
    world.answer("a", second[1], {"status": "aborted"})
    assert len(errors(world)) == 2
    assert not tasks_sent(world)
