"""Signed messages that a stranger repeats with other buffers have no effect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trio_hub.hub import admission
from trio_hub.hub.admission import AHEAD, Freshness
from trio_hub.records import NullStore
from trio_hub.wire.frames import DELIMITER, Frames
from trio_hub.wire.recent import Recent

from .durable import DurableStore, Notes, crashed
from .world import Peer, World

START = datetime(2026, 1, 1, tzinfo=UTC)
EVIL = b"a function of the stranger's"
PORTS = (
    *("query", "task_in", "mux_in", "control_in", "broadcast_in"),
    *("task_out", "mux_out", "control_out", "broadcast_out", "iopub"),
)


def send_on(world: World, port: str, frames: Frames, *idents: bytes) -> None:
    if port == "query":
        world.hub.dispatch_query([*idents, *frames])
    else:
        world.hub.dispatch_monitor_traffic(port, [*idents, *frames])


def replay_everywhere(world: World, sent: Frames, engine: bytes = b"a") -> None:
    """Send the signed part of a message to every port, as a client and as an engine, with other buffers."""
    at = sent.index(DELIMITER)
    frames = [*sent[at : at + 6], EVIL]
    for port in PORTS:
        for idents in ([b"stranger", engine], [engine, b"client"]):
            send_on(world, port, frames, *idents)


# Messages that the hub has signed, and messages that it has read


def of_a_broadcast(world: World) -> Frames:
    metadata = {"targets": [("a", 0), ("b", 1)], "is_broadcast": True, "is_coalescing": False}
    frames = world.client.session.write("apply_request", {}, metadata=metadata)
    world.hub.dispatch_monitor_traffic("broadcast_in", [b"client", *frames])
    return sent_last(world, "broadcast_out")


def of_a_gathered_broadcast(world: World) -> Frames:
    metadata = {"targets": [("a", 0), ("b", 1)], "is_broadcast": True, "is_coalescing": True}
    frames = world.client.session.write("apply_request", {}, metadata=metadata)
    world.hub.dispatch_monitor_traffic("broadcast_in", [b"client", *frames])
    return sent_last(world, "broadcast_out")


def second_attempt(world: World) -> Frames:
    world.submit(retries=1, targets=["a"])
    [(_, request)] = world.take("task_out")
    world.answer("a", request, {"status": "error"})
    return sent_last(world, "task_out")


def notification(world: World) -> Frames:
    world.engine("c")
    return sent_last(world, "notification")


def error_reply(world: World) -> Frames:
    world.call("nobody")
    return sent_last(world, "mux_in")


def answer_to_a_query(world: World) -> Frames:
    world.hub.dispatch_query([b"client", *world.client.session.write("queue_request", {})])
    return sent_last(world, "query")


def shutdown_of_an_engine(world: World) -> Frames:
    world.hub.control.shutdown_engine(world.hub.engines.by_ident[b"a"])
    return sent_last(world, "control_out")


def resubmitted(world: World) -> Frames:
    msg_id = world.submit(targets=["a"])
    [(_, request)] = world.take("task_out")
    world.answer("a", request)
    world.query("resubmit_request", {"msg_ids": [msg_id]})
    return sent_last(world, "task_out")


def task_of_a_client(world: World) -> Frames:
    world.submit(targets=["a"])
    return sent_last(world, "task_out")


def control_of_a_client(world: World) -> Frames:
    world.call("a", msg_type="shutdown_request", channel="control_in")
    return sent_last(world, "control_out")


def sent_last(world: World, channel: str) -> Frames:
    return [frames for name, frames in world.host.sent if name == channel][-1]


MESSAGES = (
    *(of_a_broadcast, of_a_gathered_broadcast, second_attempt, notification, error_reply, answer_to_a_query),
    *(shutdown_of_an_engine, resubmitted, task_of_a_client, control_of_a_client),
)


@pytest.mark.parametrize("make", MESSAGES, ids=lambda make: make.__name__)
def test_what_the_hub_has_sent_does_not_come_back(make: Callable[[World], Frames]) -> None:
    world = World()
    for uuid in "ab":
        world.engine(uuid)
    sent = make(world)
    world.take()
    replay_everywhere(world, sent)
    world.answer_questions()
    assert world.host.sent == []
    assert world.hub.notices.wire_errors == {"replayed": 2 * len(PORTS)}
    assert not world.host.stopped


@pytest.mark.parametrize("make", MESSAGES, ids=lambda make: make.__name__)
def test_also_when_the_session_has_forgotten_it(make: Callable[[World], Frames]) -> None:
    """A request with a record is refused. A message without a record can only have a harmless effect on an engine."""
    world = World()
    for uuid in "ab":
        world.engine(uuid)
    sent = make(world)
    forget(world)
    world.take()
    replay_everywhere(world, sent)
    world.answer_questions()
    given = [world.read(frames) for name, frames in world.host.sent if name.endswith("_out") and name != "iopub_out"]
    assert [message for message in given if EVIL in message.buffers] == []
    assert not world.host.stopped


def test_a_probe_does_not_come_back() -> None:
    world = World(store=DurableStore(), sent_results=Notes())
    world.engine("a")
    world.submit()
    after = crashed(world)
    after.beat("a")
    after.answer_questions()
    probe = next(frames for name, frames in after.host.sent if b"kernel_info_request" in bytes(frames[-4]))
    after.take()
    replay_everywhere(after, probe)
    after.answer_questions()
    assert after.host.sent == []
    assert after.hub.notices.wire_errors == {"replayed": 2 * len(PORTS)}


def forget(world: World) -> None:
    """Have the session read so many messages that it forgets all earlier ones."""
    recent = world.hub.session.replays.recent
    size, recent.size = recent.size, 1
    for _ in range(3):
        world.publish("a", b"{}", "status", {})
    recent.size = size


# Requests and replies only


@pytest.mark.parametrize("msg_type", ["registration_notification", "apply_reply", "request", "comm_msg", "hub_error"])
@pytest.mark.parametrize("port", ["task_in", "mux_in", "control_in", "broadcast_in"])
def test_request_ports_take_requests(port: str, msg_type: str) -> None:
    world = World()
    world.engine("a")
    world.take()
    send_on(world, port, world.client.session.write(msg_type, {}), b"client", b"a")
    if (port, msg_type) == ("mux_in", "comm_msg"):
        assert [message.header.msg_type for _, message in world.take("mux_out")] == ["comm_msg"]
        return
    [(channel, reply)] = world.take()
    assert channel == port
    assert reply.idents[0] == b"client"
    assert world.content(reply)["ename"] == "RequestRefused"
    assert world.hub.notices.ignored == {"not_a_request": 1}


@pytest.mark.parametrize("msg_type", ["shutdown_request", "queue_request", "registration_request"])
@pytest.mark.parametrize("port", ["task_in", "mux_in", "broadcast_in"])
def test_a_query_is_no_work_for_engines(port: str, msg_type: str) -> None:
    world = World()
    world.engine("a")
    world.take()
    send_on(world, port, world.client.session.write(msg_type, {}), b"client", b"a")
    assert [world.content(reply)["ename"] for _, reply in world.take()] == ["RequestRefused"]


def test_a_nannys_answer_to_a_signal_has_an_odd_name_and_arrives() -> None:
    world = World()
    world.engine("a")
    msg_id = world.call("a", msg_type="signal_request", channel="control_in")
    [(_, request)] = world.take("control_out")
    frames = Peer("a").session.write("_request", {"status": "ok"}, parent=request.frames[2])
    send_on(world, "control_out", frames, b"a", b"client")
    assert [message.parent.msg_id for _, message in world.take("control_in")] == [msg_id]


@pytest.mark.parametrize("port", ["task_out", "mux_out", "broadcast_out"])
def test_result_ports_take_replies(port: str) -> None:
    world = World()
    world.engine("a")
    msg_id = world.submit()
    [(_, request)] = world.take("task_out")
    world.take()
    frames = Peer("a").session.write("apply_request", {}, parent=request.frames[2])
    send_on(world, port, frames, b"a", b"client")
    assert not world.take()
    assert world.hub.notices.ignored == {"not_a_reply": 1}
    assert world.hub.is_pending(msg_id)


def test_output_is_neither_a_request_nor_a_reply() -> None:
    world = World()
    for msg_type in ("apply_request", "apply_reply"):
        world.publish("a", b"{}", msg_type, {})
    assert not world.take("iopub_out")
    assert world.hub.notices.ignored == {"not_output": 2}


def test_a_forgotten_comm_message_is_not_passed_on_again() -> None:
    world = World()
    world.engine("a")
    frames = world.client.session.write("comm_msg", {}, buffers=[b"x"])
    send_on(world, "mux_in", frames, b"client", b"a")
    forget(world)
    world.take()
    send_on(world, "mux_in", [*frames[:-1], EVIL], b"stranger", b"a")
    assert not world.take()
    assert world.hub.notices.wire_errors == {"replayed": 1}


# Requests that the hub looks up in the records


def dated(world: World, date: str | None, *, msg_id: str | None = None, client: Peer | None = None) -> Frames:
    """Return a request with this date."""
    session = (client or world.client).session
    header = session.new_header("apply_request") | {"date": date}
    if msg_id is not None:
        header["msg_id"] = msg_id
    return session.write("apply_request", {}, header=header, buffers=[b"f"])


def msg_id_of(world: World, frames: Frames) -> str:
    return world.read(frames).header.msg_id


def restarted(store: Any) -> World:
    """Return a hub with the key and the store of an earlier hub."""
    world = World(store=store, forgotten=START)
    world.engine("a")
    world.take()
    return world


OLD, NEW = "2025-12-31T23:59:59Z", "2026-01-01T00:00:01Z"


@pytest.mark.parametrize("date", [OLD, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "yesterday", None])
@pytest.mark.parametrize("port", ["task_in", "mux_in", "control_in"])
def test_what_an_earlier_hub_has_run_is_not_run_again(port: str, date: str | None) -> None:
    store = DurableStore()
    before = World(store=store)
    before.engine("a")
    frames = dated(before, date)
    msg_id = msg_id_of(before, frames)
    send_on(before, "task_in", frames, b"client")
    record = store.committed[msg_id]
    after = restarted(store)
    for number in (1,) if port == "control_in" else (1, 2):  # control messages are remembered for longer
        if number == 2:
            forget(after)
            after.take()
        send_on(after, port, [*frames[:-1], EVIL], b"stranger", b"a")
        assert not after.take(), "it waits for the store"
        after.answer_questions()
        [(channel, reply)] = after.take()
        assert (channel, reply.idents[0]) == (port, b"stranger")
        assert after.content(reply)["ename"] == "RequestRefused"
        assert after.hub.notices.ignored == {"already_run": number}
    assert store.committed[msg_id] == record
    assert after.hub.admission.waiting_bytes == 0


@pytest.mark.parametrize("gather", [True, False])
@pytest.mark.parametrize("port", ["task_in", "mux_in", "control_in", "broadcast_in"])
def test_neither_is_a_broadcast_or_a_share_of_one(port: str, gather: bool) -> None:
    store = DurableStore()
    before = World(store=store)
    before.engine("a")
    metadata = {"targets": [("a", 0)], "is_broadcast": True, "is_coalescing": gather}
    frames = before.client.session.write(
        "apply_request",
        {},
        metadata=metadata,
        header=before.client.session.new_header("apply_request") | {"date": OLD},
    )
    before.hub.dispatch_monitor_traffic("broadcast_in", [b"client", *frames])
    share = sent_last(before, "broadcast_out")
    [(_, request)] = before.take("broadcast_out")
    before.answer("a", request, channel="broadcast_out")
    for message in (share[2:], frames):
        after = restarted(store)
        send_on(after, port, [*message[:6], EVIL], b"stranger", b"a")
        after.answer_questions()
        assert [name for name, _ in after.host.sent] == [port]
        assert after.replies(port)[0]["ename"] == "RequestRefused"


@pytest.mark.parametrize("date", [OLD, "2027-01-01T00:00:00Z", "yesterday", None])
def test_a_request_that_was_on_its_way_during_the_restart_is_run(date: str | None) -> None:
    world = restarted(DurableStore())
    frames = dated(world, date)
    send_on(world, "task_in", frames, b"client")
    assert not world.take("task_out")
    world.answer_questions()
    assert [message.header.msg_id for _, message in world.take("task_out")] == [msg_id_of(world, frames)]


def test_what_is_dated_within_the_life_of_the_hub_costs_no_question() -> None:
    store = DurableStore()
    world = restarted(store)
    send_on(world, "task_in", dated(world, NEW), b"client")
    assert world.take("task_out")
    assert not world.host.questions
    fresh_key = World(store=DurableStore())
    fresh_key.engine("a")
    send_on(fresh_key, "task_in", dated(fresh_key, None), b"client")
    assert fresh_key.take("task_out")
    assert not fresh_key.host.questions


def test_a_hub_without_records_runs_what_it_cannot_look_up() -> None:
    world = restarted(NullStore())
    send_on(world, "task_in", dated(world, OLD), b"client")
    world.answer_questions()
    assert world.take("task_out")


def test_nothing_of_a_client_overtakes_a_request_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LOOKED_UP_AT_A_TIME", 2)
    world = restarted(DurableStore())
    other = Peer("other")
    sent = [dated(world, date) for date in (NEW, OLD, NEW, OLD, NEW)]
    for frames in sent:
        send_on(world, "mux_in", frames, b"client", b"a")
    passing = dated(world, NEW, client=other)
    send_on(world, "mux_in", passing, b"other", b"a")
    mine = [msg_id_of(world, frames) for frames in sent]
    arrived = [message.header.msg_id for _, message in world.take("mux_out")]
    assert arrived == [mine[0], msg_id_of(world, passing)], "who does not have to wait does not wait"
    world.answer_questions()
    assert [message.header.msg_id for _, message in world.take("mux_out")] == mine[1:]
    send_on(world, "mux_in", dated(world, NEW), b"client", b"a")
    assert world.take("mux_out"), "the line is no more"


def test_the_same_request_twice_in_a_line_is_run_once() -> None:
    world = restarted(DurableStore())
    frames = dated(world, OLD)
    again = dated(world, "2025-12-31T23:59:58Z", msg_id=msg_id_of(world, frames))
    for one in (frames, again):
        send_on(world, "task_in", one, b"client")
    world.answer_questions()
    assert len(world.take("task_out")) == 1
    assert world.hub.notices.ignored == {"duplicate_msg_id": 1}


def test_a_store_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LOOK_UP_ATTEMPTS", 2)
    store = DurableStore()
    world = restarted(store)
    store.failing = True
    send_on(world, "task_in", dated(world, OLD), b"client")
    world.answer_questions()
    [(_, _, again)] = world.host.timers
    store.failing = False
    again()
    world.answer_questions()
    assert len(world.take("task_out")) == 1
    store.failing = True
    send_on(world, "task_in", dated(world, OLD), b"client")
    world.answer_questions()
    world.host.timers[-1][2]()
    world.answer_questions()
    assert [content["ename"] for content in world.replies("task_in")] == ["EngineError"]


def test_clients_wait_when_too_much_waits_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WAITING_BYTES", 3 * admission.OVERHEAD)
    world = restarted(DurableStore())
    for _ in range(3):
        send_on(world, "mux_in", dated(world, OLD), b"client", b"a")
    held: tuple[str, ...] = world.host.held
    assert held == ("task_in", "mux_in", "broadcast_in")
    world.answer_questions()
    assert not world.host.held
    assert world.hub.admission.waiting_bytes == 0
    assert len(world.take("mux_out")) == 3


@pytest.mark.parametrize("carried_on", [False, True])
def test_what_waits_when_the_hub_stops_is_answered(carried_on: bool) -> None:
    world = restarted(DurableStore())
    send_on(world, "mux_in", dated(world, OLD), b"client", b"a")
    world.hub.stop_serving(carried_on=carried_on)
    send_on(world, "task_in", dated(world, OLD), b"client")
    for channel in ("mux_in", "task_in"):
        assert [content["evalue"] for content in world.replies(channel)] == ["the hub has been stopped"]
    world.answer_questions()
    assert not world.take("mux_out")


def test_a_stranger_does_not_take_the_place_of_a_client() -> None:
    store = DurableStore()
    before = World(store=store)
    before.engine("a")
    frames = dated(before, OLD)
    send_on(before, "task_in", frames, b"client")
    after = restarted(store)
    after.hub.owed.owe("client", msg_id_of(after, frames))
    send_on(after, "task_in", frames, b"stranger")
    after.answer_questions()
    assert [content["ename"] for content in after.replies("task_in")] == ["RequestRefused"], "no result of the client's"
    assert after.hub.owed.clients.places("client", "task_in") == []


# A client that uses a msg_id twice


def test_a_msg_id_of_a_finished_request_is_refused() -> None:
    world = World()
    world.engine("a")
    frames = dated(world, NEW)
    msg_id = msg_id_of(world, frames)
    send_on(world, "task_in", frames, b"client")
    [(_, request)] = world.take("task_out")
    world.answer("a", request, buffers=(b"result",))
    world.take()
    record = world.record(msg_id)
    send_on(world, "task_in", dated(world, NEW.replace("01Z", "02Z"), msg_id=msg_id), b"client")
    world.answer_questions()
    assert [content["ename"] for content in world.replies("task_in")] == ["RequestRefused"]
    assert not world.take("task_out")
    assert world.record(msg_id) == record


# Requests that the hub accepts without looking them up


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_with_a_new_key_all_is_fresh_until_something_is_forgotten() -> None:
    recent: Recent[bool] = Recent(1)
    fresh = Freshness(recent, lambda: at(0), None)
    for date in (None, at(-1e6), at(1e6), at(-5), at(-3)):
        assert fresh.is_fresh(date)
    recent.remember(1, True)
    recent.remember(2, True)  # the younger generation becomes the older one
    assert fresh.is_fresh(at(-1e6))
    recent.remember(3, True)
    assert not fresh.is_fresh(None)
    assert not fresh.is_fresh(at(-3)), "the latest of what may be forgotten"
    assert not fresh.is_fresh(at(1e6))
    assert fresh.is_fresh(at(0.1))


def test_several_generations_may_go_between_two_requests() -> None:
    recent: Recent[bool] = Recent(1)
    fresh = Freshness(recent, lambda: at(10), at(0))
    assert not fresh.is_fresh(at(0))
    assert fresh.is_fresh(at(20))
    for mark in range(1, 5):
        recent.remember(mark, True)
    assert not fresh.is_fresh(at(20))
    assert fresh.is_fresh(at(21))


def test_a_clock_that_is_ahead_by_more_than_a_minute_makes_nobody_else_wait() -> None:
    now = at(10)
    fresh = Freshness(Recent(1), lambda: now, at(0))
    assert not fresh.is_fresh(at(11) + AHEAD)
    assert fresh.is_fresh(at(10) + AHEAD)
    assert fresh.is_fresh(at(10))
    now = at(12)
    assert fresh.is_fresh(at(11) + AHEAD)
