"""Engines of an earlier hub: they are listed at once, and expected until their hearts are heard."""

from __future__ import annotations

from trio_hub.hub import EngineState
from trio_hub.hub.events import EngineUnregistered

from .world import World


def test_restored_engines_are_alive_at_once() -> None:
    world = World()
    world.hub.restore_engines({2: "a", 5: "b"}, 9)
    assert world.query("connection_request")["engines"] == {"2": "a", "5": "b"}
    assert world.register("c")["id"] == 9, "ids go on where they were"
    world.submit(targets=["b"])
    assert world.take("task_out") == [], "it gets nothing before its heart is heard"
    world.beat("b")
    [(_, request)] = world.take("task_out")
    world.answer("b", request)
    assert [reply["status"] for reply in world.replies("task_in")] == ["ok"]
    assert world.register("a")["status"] == "error", "its uuid is in use"


def test_those_whose_hearts_are_not_heard_are_lost() -> None:
    world = World()
    world.hub.restore_engines({0: "a", 1: "b"}, 2)
    alive, silent = world.hub.engines.alive[0], world.hub.engines.alive[1]
    world.beat("a")
    world.hub.purge_unheard()
    assert alive.state is EngineState.ALIVE
    assert silent.state is EngineState.LOST
    assert [event for event in world.host.events if isinstance(event, EngineUnregistered)] == [
        EngineUnregistered(1, "b", "heart")
    ]
    world.hub.purge_unheard()
    assert world.hub.engines.alive == {0: alive}


def test_an_engine_that_cannot_be_restored_is_left_out() -> None:
    world = World()
    world.hub.restore_engines({0: "", 1: "a", 2: "a"}, 3)
    assert {engine_id: engine.uuid for engine_id, engine in world.hub.engines.alive.items()} == {1: "a"}
