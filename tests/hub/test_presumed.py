"""Results that were sent but not recorded: only the client knows whether it has them."""

from __future__ import annotations

import pytest

from trio_hub.hub.redelivery import Presumption

from .durable import DurableStore, Notes, answer_probes, crashed, speak
from .world import Peer, World


def killed_with_a_result_on_its_way(channel: str) -> tuple[World, str]:
    """Return the hub after a hub that noted a result as sent, and was killed before it recorded the result."""
    before = World(store=(store := DurableStore()), sent_results=Notes())
    before.engine("a")
    if channel == "task":
        msg_id = before.submit()
    elif channel == "mux":
        msg_id = before.call("a")
    else:
        metadata = {"targets": [("a", 0)], "is_broadcast": True, "is_coalescing": True}
        frames = before.client.session.write("apply_request", {}, metadata=metadata)
        before.hub.dispatch_monitor_traffic("broadcast_in", [before.client.ident, *frames])
        msg_id = before.read(frames).header.msg_id
    store.auto = False
    [(_, request)] = before.take(f"{channel}_out")
    before.answer("a", request, channel=f"{channel}_out")
    store.auto = True
    return crashed(before), msg_id


def carry_on(world: World, channel: str) -> None:
    """Have the engine come back and carry out its requests."""
    world.beat("a")
    world.answer_questions()
    answer_probes(world, "a")
    world.answer_questions()
    for name, request in world.take(f"{channel}_out"):
        world.answer("a", request, channel=name)


@pytest.mark.parametrize("channel", ["task", "mux", "broadcast"])
def test_a_client_that_asks_does_not_have_it(channel: str) -> None:
    world, msg_id = killed_with_a_result_on_its_way(channel)
    speak(world, world.client)
    world.take()
    asked = {"msg_ids": [msg_id], "status_only": True}
    assert world.query("result_request", asked)["pending"] == [msg_id]
    carry_on(world, channel)
    answers = [
        message.parent.msg_id for name in ("task_in", "mux_in", "broadcast_in") for _, message in world.take(name)
    ]
    assert answers == [msg_id]
    assert world.query("result_request", asked)["completed"] == [msg_id]
    assert set(world.hub.redelivery.presumptions.values()) <= {Presumption.SENT_AGAIN}


@pytest.mark.parametrize("asker", [None, "somebody else"])
def test_a_client_that_does_not_ask_has_it(asker: str | None) -> None:
    world, msg_id = killed_with_a_result_on_its_way("task")
    speak(world, world.client)
    world.take()
    if asker:
        world.query("result_request", {"msg_ids": [msg_id]}, Peer(asker))
    carry_on(world, "task")
    assert world.take("task_in") == []
    assert set(world.hub.redelivery.presumptions.values()) <= {Presumption.SENT_AGAIN}


@pytest.mark.parametrize("spoken", ["before", "after"])
def test_a_result_that_is_recorded_and_did_not_leave(spoken: str) -> None:
    before = World(store=DurableStore(), sent_results=Notes())
    before.client.ident = b"\0there"
    before.engine("a")
    msg_id = before.submit()
    [(_, request)] = before.take("task_out")
    before.answer("a", request)
    [(_, reply)] = before.take("task_in")
    world = crashed(before)
    world.client.ident = b"\0elsewhere"
    if spoken == "before":
        speak(world, world.client)
    assert world.take("task_in") == [], "the hub before has sent it"
    asked = {"msg_ids": [msg_id], "status_only": True}
    for asker in (Peer("somebody else"), world.client, world.client):
        assert world.query("result_request", asked, asker)["completed"] == [msg_id]
        world.answer_questions()
    if spoken == "after":
        assert world.take("task_in") == []
        speak(world, world.client)
    [(_, again)] = world.take("task_in")
    assert again.frames[1:] == reply.frames[1:], "the same signature, so a client that has had it drops it"
    world.query("result_request", asked)
    world.answer_questions()
    assert world.take("task_in") == []
