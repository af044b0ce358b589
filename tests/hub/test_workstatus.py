"""The numbers of controlled work."""

from __future__ import annotations

from typing import Any

from .world import World


def status(world: World) -> dict[str, Any]:
    return world.query("work_status_request", {})


def test_an_idle_hub_has_no_work() -> None:
    assert status(World()) == {
        "status": "ok",
        **dict.fromkeys(("queued", "waiting", "paused", "running", "cancelling"), 0),
        "priorities": {},
        "drained": {},
    }


def test_tasks_cancels_and_drains_are_counted() -> None:
    world = World()
    engine = world.engine("a")
    first = world.submit()
    for priority in (5, -1, 5):
        world.submit(rules={"priority": priority})
    world.submit(after=[first])
    found = status(world)
    assert [found[name] for name in ("running", "queued", "waiting", "paused", "cancelling")] == [1, 3, 1, 0, 0]
    assert list(found["priorities"].items()) == [("5", 2), ("-1", 1)]
    world.query("cancel_request", {"msg_ids": [first]})
    world.query("drain_request", {"engines": ["a"], "by": "ann", "then": "shutdown"})
    found = status(world)
    assert found["cancelling"] == 1
    assert found["drained"] == {str(engine.id): {"by": "ann", "deadline": None, "then": "shutdown"}}
