"""Broadcasts: one request to many engines, answered one by one, or gathered."""

from __future__ import annotations

from typing import Any

import pytest

from trio_hub.wire.messages import Message

from .world import World


def broadcast(
    world: World, uuids: str, *, gather: bool = False, buffers: tuple[bytes, ...] = (b"f",), **metadata: Any
) -> str:
    """Send a broadcast to engines whose names have one letter each, and return its msg_id."""
    targets = [(uuid, number) for number, uuid in enumerate(uuids)]
    metadata = {"targets": targets, "is_broadcast": True, "is_coalescing": gather} | metadata
    frames = world.client.session.write("apply_request", {"a": 1}, metadata=metadata, buffers=buffers)
    world.hub.dispatch_monitor_traffic("broadcast_in", [b"client", *frames])
    return world.read(frames).header.msg_id


def shares(world: World) -> dict[str, Message]:
    """Return the shares that engines were sent since the last call, by uuid."""
    return {message.idents[0].decode(): message for _, message in world.take("broadcast_out")}


@pytest.mark.parametrize("gather", [False, True])
def test_each_share_has_an_idle_status_of_its_own(gather: bool) -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    msg_id = broadcast(world, "ab", gather=gather)
    for uuid, share in shares(world).items():
        world.answer(uuid, share, channel="broadcast_out", idle_topic=f"engine.{uuid}.status")
        [(_, status)] = world.take("iopub_out")
        assert status.idents == [f"engine.{uuid}.status".encode()]
        assert status.parent.msg_id == f"{msg_id}_{uuid}"
    assert len(world.take("broadcast_in")) == 2 - gather


def test_each_engine_gets_its_share_and_answers_it() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    msg_id = broadcast(world, "ab", label="L")
    sent = shares(world)
    assert set(sent) == {"a", "b"}
    for uuid, share in sent.items():
        assert share.idents == [uuid.encode(), b"client"]
        assert share.header.msg_id == f"{msg_id}_{uuid}", "the name by which stock clients wait"
        assert share.header.session == "client"
        assert share.buffers == [b"f"]
        assert world.content(share) == {"a": 1}
        metadata = world.reader.metadata(share)
        assert metadata["original_msg_id"] == msg_id
        assert metadata["is_broadcast"] is True
        assert "targets" not in metadata, "a thousand engines need not hear of each other"
    assert world.query("queue_request", {})["0"]["queue"] == 1
    assert world.hub.engines.alive[0].pending == {f"{msg_id}_a"}
    world.answer("b", sent["b"], channel="broadcast_out", buffers=(b"B",))
    [(_, reply)] = world.take("broadcast_in")
    assert reply.idents[0] == b"client"
    assert (reply.parent.msg_id, reply.buffers) == (f"{msg_id}_b", [b"B"])
    world.answer("a", sent["a"], {"status": "error", "ename": "E"}, channel="broadcast_out")
    assert [content["status"] for content in world.replies("broadcast_in")] == ["error"]
    record = world.record(f"{msg_id}_b")
    assert (record["queue"], record["engine_uuid"], record["label"]) == ("broadcast", "b", "L")
    assert record["completed"] is not None
    assert not world.hub.broadcasts.unanswered.pending
    assert world.hub.engines.alive[1].completed == 1


def test_gathered_answers_come_as_one_in_the_order_of_the_targets() -> None:
    world = World()
    for uuid in "abc":
        world.engine(uuid)
    msg_id = broadcast(world, "cab", gather=True)
    sent = shares(world)
    for uuid in "abc":
        assert not world.take("broadcast_in")
        world.answer(uuid, sent[uuid], channel="broadcast_out", buffers=(uuid.encode(), b"."))
    [(_, reply)] = world.take("broadcast_in")
    assert reply.idents == [b"client"]
    assert reply.buffers == [b"c", b".", b"a", b".", b"b", b"."]
    assert world.content(reply) == {"status": "ok"}
    metadata = world.reader.metadata(reply)
    assert metadata["broadcast_targets"] == [["c", 0], ["a", 1], ["b", 2]]
    assert metadata["original_msg_id"] == msg_id
    assert metadata["buffer_counts"] == [2, 2, 2]
    assert metadata["is_broadcast"] is metadata["is_coalescing"] is True
    record = world.record(msg_id)
    assert (record["queue"], record["completed"] is not None) == ("broadcast", True)
    assert world.query_message("result_request", {"msg_ids": [msg_id]}).buffers == reply.buffers
    assert not world.hub.gathering.gathered


def test_gathered_errors_are_told_with_the_results_of_the_rest() -> None:
    world = World()
    for uuid in "abc":
        world.engine(uuid)
    broadcast(world, "abc", gather=True)
    sent = shares(world)
    world.answer("a", sent["a"], channel="broadcast_out", buffers=(b"A",))
    world.answer("c", sent["c"], {"status": "error", "ename": "C", "evalue": "c"}, channel="broadcast_out")
    world.answer("b", sent["b"], {"status": "error", "ename": "B", "evalue": "b"}, channel="broadcast_out")
    [(_, reply)] = world.take("broadcast_in")
    content = world.content(reply)
    assert (content["status"], content["ename"]) == ("error", "B"), "the first in the order of the targets"
    assert set(content["errors"]) == {"b", "c"}
    assert content["errors"]["c"]["ename"] == "C"
    assert reply.buffers == [b"A"]
    assert world.reader.metadata(reply)["buffer_counts"] == [1, 0, 0]


@pytest.mark.parametrize("gather", [False, True])
def test_an_engine_that_dies_is_settled_and_the_rest_delivered(gather: bool) -> None:
    world = World()
    world.engine("a")
    engine = world.engine("b")
    msg_id = broadcast(world, "ab", gather=gather)
    sent = shares(world)
    world.take()
    world.hub.lose_engine(engine, "heart")
    if not gather:
        assert [channel for channel, _ in world.host.sent] == ["broadcast_in", "notification"]
        [(_, reply)] = world.take("broadcast_in")
        assert reply.parent.msg_id == f"{msg_id}_b"
        assert world.content(reply)["ename"] == "EngineError"
        assert world.reader.metadata(reply)["engine"] == "b"
    world.answer("b", sent["b"], channel="broadcast_out")
    assert world.hub.notices.ignored == {"unexpected_result" if gather else "late_result": 1}
    world.answer("a", sent["a"], channel="broadcast_out", buffers=(b"A",))
    [(_, reply)] = world.take("broadcast_in")
    assert reply.buffers == [b"A"]
    if gather:
        assert set(world.content(reply)["errors"]) == {"b"}
        assert world.content(reply)["errors"]["b"]["ename"] == "EngineError"
    assert not world.hub.broadcasts.unanswered.pending
    assert not world.hub.gathering.gathered


@pytest.mark.parametrize("gather", [False, True])
def test_engines_that_are_not_there_are_answered_for_at_once(gather: bool) -> None:
    world = World()
    world.engine("a")
    msg_id = broadcast(world, "xy", gather=gather)
    replies = world.take("broadcast_in")
    parents = [reply.parent.msg_id for _, reply in replies]
    assert parents == ([msg_id] if gather else [f"{msg_id}_x", f"{msg_id}_y"])
    assert all(world.content(reply)["ename"] == "EngineError" for _, reply in replies)
    for parent in parents:
        assert world.record(parent)["completed"] is not None


@pytest.mark.parametrize(
    "metadata",
    [{"targets": []}, {"targets": [("a", 0), ("a", 0)]}, {"targets": ["a"]}, {"targets": 5}, {"is_coalescing": 1}],
)
def test_broadcasts_that_cannot_be_read_are_answered(metadata: dict[str, Any]) -> None:
    world = World()
    world.engine("a")
    broadcast(world, "a", **metadata)
    assert world.replies("broadcast_in")[0]["status"] == "error"
    assert not shares(world)


def test_a_hub_that_stops_answers_broadcasts() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    gathered, single = broadcast(world, "ab", gather=True), broadcast(world, "ab")
    world.hub.stop_serving()
    answered = {reply.parent.msg_id for _, reply in world.take("broadcast_in")}
    assert answered == {gathered, f"{single}_a", f"{single}_b"}
    late = broadcast(world, "ab")
    assert {reply.parent.msg_id for _, reply in world.take("broadcast_in")} == {f"{late}_a", f"{late}_b"}


def test_a_broadcast_of_a_msg_id_in_use_is_not_sent_twice() -> None:
    world = World()
    world.engine("a")
    header = world.client.session.new_header("apply_request")
    for date in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"):
        metadata = {"targets": [("a", 0)], "is_coalescing": True}
        frames = world.client.session.write("apply_request", {}, header=header | {"date": date}, metadata=metadata)
        world.hub.dispatch_monitor_traffic("broadcast_in", [b"client", *frames])
    assert len(shares(world)) == 1
    assert world.hub.notices.ignored["duplicate_msg_id"] == 1


def test_engines_are_spread_over_the_broadcast_channels_by_id() -> None:
    world = World(broadcast_channels=("broadcast_out", "broadcast_out_1"))
    for uuid in "abc":
        world.engine(uuid)
    broadcast(world, "abc")
    sent = [(channel, message.idents[0]) for channel, message in world.take() if channel.startswith("broadcast_out")]
    assert sent == [("broadcast_out", b"a"), ("broadcast_out_1", b"b"), ("broadcast_out", b"c")]
    broadcast(world, "b")
    [(_, share)] = world.take("broadcast_out_1")
    world.answer("b", share, channel="broadcast_out_1")
    assert len(world.take("broadcast_in")) == 1


def test_tasks_may_depend_on_a_broadcasts_shares() -> None:
    world = World()
    world.engine("a")
    msg_id = broadcast(world, "a")
    task = world.submit(after=[f"{msg_id}_a"])
    assert not world.take("task_out")
    world.answer("a", shares(world)["a"], channel="broadcast_out")
    assert [message.header.msg_id for _, message in world.take("task_out")] == [task]
