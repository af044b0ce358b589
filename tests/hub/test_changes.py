"""Changes of engines that a client gets when it subscribes late."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from trio_hub.hub.changes import MOST, RECENT

from .world import Peer, World


def told(world: World) -> list[tuple[str, int, str]]:
    """Return the notifications that the next subscriber gets, each as type, engine id and uuid."""
    found: list[tuple[str, int, str]] = []
    for frames in world.hub.engines.changes.client_subscribed():
        message = world.read(frames)
        content: dict[str, Any] = world.content(message)
        found.append((message.header.msg_type.removesuffix("_notification"), content["id"], content["uuid"]))
    return found


def ask(world: World, session: str = "client") -> dict[str, str]:
    """Ask for the engines as a client, and return the uuids by id."""
    engines: dict[str, str] = world.query("connection_request", client=Peer(session))["engines"]
    return engines


def test_registrations_after_the_answer_and_before_the_subscription() -> None:
    world = World()
    world.engine("a")
    assert ask(world) == {"0": "a"}
    world.engine("b")
    assert ("registration", 1, "b") in told(world)
    assert len({bytes(frames[1]) for _ in range(2) for frames in world.hub.engines.changes.client_subscribed()}) == 4, (
        "a session refuses a message that it has seen"
    )


def test_an_unregistration_after_the_answer_and_before_the_subscription() -> None:
    world = World()
    engine = world.engine("a")
    ask(world)
    world.hub.lose_engine(engine, "heart")
    assert told(world) == [("unregistration", 0, "a")]
    assert told(world) == [], "all clients have subscribed: a stock client that waits for engines would give up"


def test_a_client_that_asks_after_the_loss_is_not_told_of_it() -> None:
    world = World()
    world.hub.lose_engine(world.engine("a"), "heart")
    ask(world)
    assert told(world) == []


def test_a_subscription_that_came_before_the_question() -> None:
    world = World()
    engine = world.engine("a")
    told(world)
    ask(world)
    world.hub.lose_engine(engine, "heart")
    ask(world, "another")
    assert told(world) == []


def test_the_last_of_several_clients_misses_nothing() -> None:
    world = World()
    engine = world.engine("a")
    ask(world, "slow")
    world.hub.lose_engine(engine, "heart")
    ask(world, "quick")
    assert told(world) == [("unregistration", 0, "a")], "this may be the slow one"
    assert told(world) == [("unregistration", 0, "a")]
    assert told(world) == []


def test_a_client_that_asks_again_and_again_counts_once() -> None:
    world = World()
    engine = world.engine("a")
    for _ in range(5):
        ask(world)
    told(world)
    world.hub.lose_engine(engine, "heart")
    assert told(world) == []


def test_only_the_latest_change_of_an_id() -> None:
    world = World()
    engine = world.engine("a", id=3)
    ask(world)
    world.hub.lose_engine(engine, "heart")
    world.engine("b", id=3)
    assert told(world) == [("registration", 3, "b")]


def test_old_changes_are_not_told() -> None:
    world = World()
    engine = world.engine("a")
    ask(world)
    world.hub.lose_engine(engine, "heart")
    assert world.hub.engines.changes.has_left("a")
    world.clock.time += RECENT + timedelta(seconds=1)
    assert not world.hub.engines.changes.has_left("a")
    assert told(world) == []
    world.engine("b")
    assert told(world) == [("registration", 1, "b")]


def test_so_many_changes_are_kept_whatever_the_number_of_engines() -> None:
    world = World()
    changes = world.hub.engines.changes
    for number in range(3 * MOST):
        changes.engine_came(number, str(number))
    assert [number for _, number, _ in told(world)] == list(range(2 * MOST, 3 * MOST))


def test_the_pure_scheme_tells_no_unregistration_twice() -> None:
    world = World(scheme="pure", hwm=0)
    engine = world.engine("a")
    ask(world)
    world.hub.lose_engine(engine, "heart")
    assert told(world) == []
