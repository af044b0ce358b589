"""The hub's counts of requests and engines."""

from __future__ import annotations

import pytest

from trio_hub.hub.answers import OUTCOMES, QUEUES, queue_of
from trio_hub.hub.engines import LOSSES

from .world import World


@pytest.mark.parametrize(
    ("status", "outcome"), [("ok", "ok"), ("error", "error"), ("aborted", "aborted"), ("?", "error")]
)
def test_each_answer_is_counted_in_its_queue_with_its_outcome(status: str, outcome: str) -> None:
    world = World()
    world.engine("a")
    for queue in ("task", "mux"):
        if queue == "task":
            world.submit()
        else:
            world.call("a")
        [(_, request)] = world.take(f"{queue}_out")
        world.answer("a", request, {"status": status}, channel=f"{queue}_out")
    assert world.hub.submitted == {"task": 1, "mux": 1, "broadcast": 0}
    once = {name: int(name == outcome) for name in OUTCOMES}
    assert world.hub.answers.outcomes == {"task": once, "mux": once, "broadcast": dict.fromkeys(OUTCOMES, 0)}
    assert world.hub.tasks_submitted == 2
    counts = {
        "ok": world.hub.tasks_completed,
        "error": world.hub.tasks_failed,
        "aborted": world.hub.answers.count("aborted"),
    }
    assert counts == {name: 2 * n for name, n in once.items()}


def test_what_the_hub_answers_itself_is_counted_where_it_was_asked() -> None:
    world = World()
    world.call("nobody")
    world.submit(targets=["nobody"])
    assert {queue: world.hub.answers.outcomes[queue]["error"] for queue in QUEUES} == {
        "task": 1,
        "mux": 1,
        "broadcast": 0,
    }


@pytest.mark.parametrize("name", ["task", "mux", "broadcast", None, "damaged"])
def test_every_record_has_a_queue(name: str | None) -> None:
    assert queue_of(name) == (name if name in QUEUES else "task")


@pytest.mark.parametrize("reason", LOSSES)
def test_engines_that_come_and_go_are_counted(reason: str) -> None:
    world = World()
    engine = world.engine("a")
    world.engine("b")
    world.hub.lose_engine(engine, reason)
    world.hub.lose_engine(engine, reason)  # the engine is gone already
    assert world.hub.engines.engines_registered == 2
    assert world.hub.engines.engines_lost == dict.fromkeys(LOSSES, 0) | {reason: 1}


def test_pings_without_an_answer_are_counted() -> None:
    world = World(max_heartmonitor_misses=2)
    world.engine("a")
    for _ in range(3):
        world.hub.hearts.heartmonitor.ping()
        world.hub.weigh_hearts()
    assert world.hub.hearts.heartmonitor.missed == 2  # in the first period it has just come
    world.beat("a")
    world.hub.weigh_hearts()
    assert world.hub.hearts.heartmonitor.missed == 2
