"""Requests of stock clients at engines that leave: the client settles them itself, and gets no second answer."""

from __future__ import annotations

from typing import Any

import pytest

from .durable import DurableStore
from .test_broadcasting import shares
from .world import Peer, World

STOCK = Peer("client", username="ada")
OURS = Peer("ours", username="trio-hub-client")


def new_world(**settings: Any) -> World:
    """Return a world whose stock client has asked for the engines, as all stock clients do first."""
    world = World(**settings)
    world.query("connection_request", {}, STOCK)
    return world


def broadcast(world: World, client: Peer, uuids: str, *, gather: bool) -> str:
    targets = [(uuid, number) for number, uuid in enumerate(uuids)]
    metadata = {"targets": targets, "is_broadcast": True, "is_coalescing": gather}
    frames = client.session.write("apply_request", {}, metadata=metadata, buffers=[b"f"])
    world.hub.dispatch_monitor_traffic("broadcast_in", [client.ident, *frames])
    return world.read(frames).header.msg_id


def test_direct_requests_are_recorded_and_not_answered() -> None:
    world = new_world()
    engine = world.engine("a")
    theirs, ours = [world.call("a", STOCK) for _ in range(3)], world.call("a", OURS)
    world.take()
    world.hub.lose_engine(engine, "heart")
    sent = world.take()
    assert [name for name, _ in sent] == ["mux_in", "notification"], "a client of ours gets its answer first"
    assert (sent[0][1].idents, sent[0][1].parent.msg_id) == ([b"ours"], ours)
    for msg_id in theirs:
        record = world.record(msg_id)
        assert record["result_content"]["ename"] == "EngineError"
        assert record["completed"] is not None
        found = world.query("result_request", {"msg_ids": [msg_id]}, Peer("another", username="bob"))
        assert found[msg_id]["result_content"]["ename"] == "EngineError"
    assert world.hub.answers.outcomes["mux"] == {"ok": 0, "error": 4, "aborted": 0}
    assert world.hub.owed.clients.owed == 0


def test_a_strict_hub_answers_nothing_after_the_commit_either() -> None:
    store = DurableStore(auto=False)
    world = new_world(store=store, strict=True)
    engine = world.engine("a")
    msg_id = world.call("a", STOCK)
    store.commit()
    world.take()
    world.hub.lose_engine(engine, "heart")
    store.commit()
    assert [name for name, _ in world.take()] == ["notification"]
    assert not world.hub.answers.unsaved
    assert world.record(msg_id)["result_content"]["ename"] == "EngineError"


@pytest.mark.parametrize("observed", [True, False])
def test_a_request_that_was_sent_before_the_client_heard_of_the_loss_is_not_answered(observed: bool) -> None:
    world = new_world()
    world.host.listening = observed
    world.hub.lose_engine(world.engine("a"), "heart")
    world.take()
    late = world.call("a", STOCK)
    assert world.take("mux_in") == []
    assert "not registered" in world.record(late)["result_content"]["evalue"]
    world.call("a", OURS)
    assert [reply["ename"] for reply in world.replies("mux_in")] == ["EngineError"]
    world.call("never-there", STOCK)
    assert [reply["ename"] for reply in world.replies("mux_in")] == ["EngineError"], "nobody will tell that client"


@pytest.mark.parametrize("uuids", ["ab", "ba"])
def test_a_gathered_broadcast_is_recorded_whole_and_not_answered(uuids: str) -> None:
    world = new_world()
    engine, _ = world.engine("a"), world.engine("b")
    msg_id = broadcast(world, STOCK, uuids, gather=True)
    sent = shares(world)
    world.hub.lose_engine(engine, "heart")
    assert world.hub.is_pending(msg_id), "another engine works on it"
    world.answer("b", sent["b"], channel="broadcast_out", buffers=(b"B",))
    assert world.take("broadcast_in") == []
    record = world.record(msg_id)
    assert list(record["result_content"]["errors"]) == ["a"]
    assert record["completed"] is not None


def test_a_gathered_broadcast_to_an_engine_that_has_just_left_is_not_answered() -> None:
    world = new_world()
    engine, _ = world.engine("a"), world.engine("b")
    world.hub.lose_engine(engine, "heart")
    world.take()
    broadcast(world, STOCK, "ab", gather=True)
    world.answer("b", shares(world)["b"], channel="broadcast_out")
    assert world.take("broadcast_in") == []


def test_shares_are_not_answered_but_the_broadcast_is_closed() -> None:
    world = new_world()
    engine, _ = world.engine("a"), world.engine("b")
    msg_id = broadcast(world, STOCK, "ab", gather=False)
    sent = shares(world)
    world.hub.lose_engine(engine, "heart")
    assert world.take("broadcast_in") == []
    world.answer("b", sent["b"], channel="broadcast_out")
    answer, closing = [message for _, message in world.take("broadcast_in")]
    assert (answer.parent.msg_id, closing.parent.msg_id) == (f"{msg_id}_b", msg_id)
    assert world.record(f"{msg_id}_a")["result_content"]["ename"] == "EngineError"


def test_a_client_that_comes_back_on_a_new_connection_is_owed_the_answer() -> None:
    world = new_world()
    engine = world.engine("a")
    msg_id = world.call("a", STOCK)
    world.hub.lose_engine(engine, "heart")
    world.take()
    elsewhere = Peer("client", username="ada")
    elsewhere.ident = b"elsewhere"
    world.submit(elsewhere)
    world.answer_questions()
    assert world.take("task_in") == [], "it was never heard on this channel, so nothing says that its connection broke"
    world.call("nobody", elsewhere)
    world.answer_questions()
    [found] = [message for _, message in world.take("mux_in") if message.parent.msg_id == msg_id]
    assert found.idents == [b"elsewhere"]


def test_a_broadcast_is_closed_after_its_last_share() -> None:
    world = new_world()
    world.engine("a")
    world.engine("b")
    msg_id = broadcast(world, STOCK, "abx", gather=False)
    sent = shares(world)
    assert [message.parent.msg_id for _, message in world.take("broadcast_in")] == [f"{msg_id}_x"]
    world.answer("b", sent["b"], channel="broadcast_out")
    world.take("broadcast_in")
    world.answer("a", sent["a"], {"status": "error", "ename": "E"}, channel="broadcast_out")
    _, (_, closing) = world.take("broadcast_in")
    assert (closing.parent.msg_id, closing.header.msg_type) == (msg_id, "apply_reply")
    assert world.content(closing) == {"status": "ok"}
    assert closing.buffers == [b"\x80\x03N."], "a stock client unpickles a value"
    assert msg_id not in world.query("history_request")["history"], "the shares are the requests"


@pytest.mark.parametrize("kind", ["direct", "late", "gathered"])
def test_a_client_that_has_not_asked_for_the_engines_is_answered(kind: str) -> None:
    """Such a client may not receive notifications, so it must get an answer."""
    world = World()
    engine = world.engine("a")
    if kind == "late":
        world.hub.lose_engine(engine, "heart")
    msg_id = broadcast(world, STOCK, "a", gather=True) if kind == "gathered" else world.call("a", STOCK)
    world.hub.lose_engine(engine, "heart")
    [reply] = [message for name, message in world.take() if name in ("mux_in", "broadcast_in")]
    assert reply.parent.msg_id == msg_id
    assert world.content(reply)["ename"] == "EngineError"
