"""Pauses between the attempts at a task, in the core."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from .durable import DurableStore, crashed
from .test_cancelling import cancel, errors, pass_time, running, sent
from .world import World

PAUSE = 7200
"""Seconds. Long, since the next hub's clock begins where the client's is, which may be ahead by minutes."""
FAILED = {"status": "error", "ename": "ValueError", "evalue": "x", "traceback": []}


def paused(world: World, **metadata: Any) -> str:
    """Return a task that has failed on engine a, and waits for `PAUSE` before its next attempt."""
    world.engine("a")
    msg_id, request = running(world, rules={"max_attempts": 3, "retry_pause": PAUSE}, **metadata)
    world.answer("a", request, FAILED)
    assert world.hub.tasks.scheduler.timers.paused == 1
    return msg_id


def the_pause(world: World) -> float:
    """Return the seconds that the only timer takes."""
    [(_, seconds, _)] = [timer for timer in world.host.timers if not timer[0].cancelled]
    return seconds


@pytest.mark.parametrize("depends", [False, True])
def test_the_rest_of_a_pause_is_kept_over_a_restart(depends: bool) -> None:
    world = World(store=DurableStore())
    metadata: dict[str, Any] = {}
    if depends:
        world.engine("a")
        earlier, request = running(world)
        world.answer("a", request)
        metadata["after"] = {"dependencies": [earlier], "success": True, "failure": False, "all": True}
        world.hub.lose_engine(world.hub.engines.by_ident[b"a"], "request")
        world.take()
    msg_id = paused(world, **metadata)
    ends = world.clock.time + timedelta(seconds=PAUSE)
    world.clock.time += timedelta(seconds=20)
    world = crashed(world)
    world.beat("a")
    world.answer_questions()
    assert the_pause(world) == pytest.approx((ends - world.clock.time).total_seconds(), abs=1)
    assert world.hub.tasks.scheduler.timers.paused == 1
    world.clock.time += timedelta(seconds=10)
    world = crashed(world)
    world.beat("a")
    assert the_pause(world) == pytest.approx((ends - world.clock.time).total_seconds(), abs=1)
    assert not sent(world, "task_out")
    pass_time(world, PAUSE)
    world.answer_questions()
    world.answer_questions()
    [request] = sent(world, "task_out")
    assert request.header.msg_id == msg_id
    world.answer("a", request)
    assert errors(world)[-1] == (msg_id, "")


def test_a_pause_that_ended_while_no_hub_ran_is_over() -> None:
    world = World(store=DurableStore())
    msg_id = paused(world)
    world.clock.time += timedelta(seconds=PAUSE + 1)
    world = crashed(world)
    world.beat("a")
    world.answer_questions()
    assert [request.header.msg_id for request in sent(world, "task_out")] == [msg_id]


def test_a_paused_task_is_cancelled() -> None:
    world = World()
    msg_id = paused(world)
    assert cancel(world, msg_id) == {msg_id: "withdrawn"}
    assert errors(world) == [(msg_id, "TaskCancelled")]
    pass_time(world, PAUSE)
    assert not sent(world, "task_out")
    assert world.hub.tasks.scheduler.timers.paused == 0
