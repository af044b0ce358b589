"""Registration and unregistration of engines."""

from __future__ import annotations

import pytest

from trio_hub.hub import EngineState
from trio_hub.hub.events import (
    EngineRegistered,
    EngineRequested,
    EngineSettled,
    EngineUnregistered,
    RegistrationStalled,
)

from .world import FakeScope, Peer, World


def scope_of(engine: object) -> FakeScope:
    scope = engine.scope  # type: ignore[attr-defined]
    assert isinstance(scope, FakeScope)
    return scope


def test_registration_completes_on_the_first_heartbeat() -> None:
    world = World(hb_period=1234, engine_info={"mux": 1})
    reply = world.register("a")
    welcome = {"status": "ok", "publishes_idle": True, "drains": True}
    assert reply == welcome | {"id": 0, "hb_period": 1234, "connection_info": {"mux": 1}}
    engine = world.host.started[0]
    assert engine in world.hub.engines.incoming_registrations.values()
    assert world.query("connection_request")["engines"] == {}
    assert not scope_of(engine).cancelled
    world.beat("a")
    assert engine.state is EngineState.ALIVE
    assert scope_of(engine).cancelled, "the stalled-registration timeout ends"
    assert world.query("connection_request") == {"status": "ok", "engines": {"0": "a"}}
    assert world.replies("notification") == [{"id": 0, "uuid": "a"}]
    assert world.host.events == [EngineRequested(0, "a", "10.0.0.7"), EngineRegistered(0, "a")]


def test_where_an_engine_runs_is_known_by_its_first_message() -> None:
    world = World()
    jupyter = world.engine("session_4711")  # whose first message is session_4711_0
    assert (jupyter.host, jupyter.pid) == ("10.0.0.7", 4711)
    assert world.host.events[0] == EngineRequested(0, "session_4711", "10.0.0.7", 4711)
    assert world.engine("other").pid is None


def test_ids_count_up_are_honoured_if_free_and_never_reused() -> None:
    world = World()
    assert [world.register("a")["id"], world.register("b")["id"]] == [0, 1]
    assert world.register("c", id=7)["id"] == 7
    assert world.register("d", id=7)["id"] == 8, "in use: the next"
    assert world.register("e", id=1)["id"] == 9, "in use by one that is registering"
    for uuid in "abcde":
        world.beat(uuid)
    world.hub.lose_engine(world.hub.engines.alive[9], "heart")
    assert world.register("f")["id"] == 10, "9 is not used again"
    assert world.register("g", id=2)["id"] == 2
    assert world.register("h")["id"] == 11


@pytest.mark.parametrize("uuid", [None, 5, "", "x" * 256, "\0bad", ["a"]])
def test_a_registration_without_a_usable_uuid_is_refused(uuid: object) -> None:
    world = World()
    peer = Peer("engine")
    world.hub.dispatch_query([peer.ident, *peer.session.write("registration_request", {"uuid": uuid})])
    [reply] = world.replies("query")
    assert reply["status"] == "error"
    assert "uuid" in reply["evalue"]
    assert not world.host.started


@pytest.mark.parametrize("requested", ["1", 1.5, True, -1, 2**40])
def test_a_requested_id_that_is_none_is_refused(requested: object) -> None:
    world = World()
    reply = world.register("a", id=requested)
    assert (reply["status"], "id" in reply["evalue"]) == ("error", True)


def test_a_uuid_in_use_is_refused_with_an_error_reply() -> None:
    world = World()
    world.register("a")
    for _ in range(2):  # while it registers, and when it is alive
        reply = world.register("a")
        assert (reply["status"], reply["ename"]) == ("error", "KeyError")
        assert "'a' in use" in reply["evalue"]
        world.beat("a")
    assert list(world.hub.engines.alive) == [0]


def test_a_failed_registration_stops_no_other() -> None:
    world = World()
    peer = Peer("engine")
    world.hub.dispatch_query([peer.ident, *peer.session.write("registration_request", [])])
    assert world.replies("query")[0]["status"] == "error"
    assert world.engine("b").id == 0


def test_a_stalled_registration_is_purged() -> None:
    world = World()
    world.register("a")
    [engine] = world.host.started
    world.hub.purge_stalled_registration(engine)
    assert engine.state is EngineState.STALLED
    assert world.host.events == [EngineRequested(0, "a", "10.0.0.7"), RegistrationStalled(0, "a")]
    assert not world.hub.engines.alive
    world.hub.purge_stalled_registration(engine)
    assert world.engine("a").id == 1, "it may come again"


def test_a_heart_that_misses_too_many_pings_is_lost() -> None:
    world = World(max_heartmonitor_misses=3)
    engine = world.engine("a")
    other = world.engine("b")
    world.take()
    for _ in range(4):  # the first weighing still counts the beat that registered it
        world.beat("b")
        world.hub.weigh_hearts()
    assert world.hub.hearts.heartmonitor.misses(b"a") == 3
    world.beat("a")
    world.hub.weigh_hearts()
    assert world.hub.hearts.heartmonitor.misses(b"a") == 0
    for _ in range(4):
        world.beat("b")
        world.hub.weigh_hearts()
    assert engine.state is EngineState.LOST
    assert other.state is EngineState.ALIVE
    assert world.replies("notification") == [{"id": 0, "uuid": "a"}]
    assert world.host.events[-1] == EngineUnregistered(0, "a", "heart")
    assert b"a" not in world.hub.hearts.heartmonitor


@pytest.mark.parametrize(
    "frames",
    [
        [b"a"],
        [b"a", b"x", b"y"],
        [b"a", b""],
        [b"a", b"token.0"],
        [b"a", b"token.99"],
        [b"a", b"other.1"],
        [b"a", b"1"],
        [],
    ],
)
def test_heartbeats_that_answer_no_ping_are_harmless(frames: list[bytes]) -> None:
    world = World()
    world.register("a")
    world.hub.hearts.heartmonitor.ping()
    world.hub.handle_pong(frames)
    assert world.hub.notices.ignored["bad_heartbeat"] == 1
    assert not world.hub.engines.alive


@pytest.mark.parametrize("reason", ["request", "shutdown", "ended"])
def test_a_late_heartbeat_of_an_engine_that_is_gone_is_harmless(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    engine = world.engine("a")
    world.hub.lose_engine(engine, reason)
    world.beat("a")
    world.hub.hearts.handle_heart_failure(b"a")
    assert world.hub.notices.ignored["unknown_heart"] == 1
    assert engine.state is EngineState.LOST
    assert not [record for record in caplog.records if record.levelname == "WARNING"], "nobody need do anything"


def test_a_heartbeat_of_an_engine_that_the_hub_has_never_seen_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.beat("stranger")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert vars(record)["what"] == "a heartbeat of an engine that is not registered"


def test_unregistration_request() -> None:
    world = World()
    engine = world.engine("a")
    for _ in range(2):
        world.hub.dispatch_query([b"a", *Peer("a").session.write("unregistration_request", {"id": 0})])
    assert engine.state is EngineState.LOST
    assert scope_of(engine).cancelled
    assert world.host.events[-1] == EngineUnregistered(0, "a", "request")
    assert world.hub.notices.ignored["unknown_engine"] == 1


NOBODY = b"\0\x01\x02\x03\x04"
"""The kind of identity that ZeroMQ makes up for a socket that has none, such as a stock nanny's."""


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize(
    ("sender", "content"),
    [
        (b"old", {"id": 0}),
        (b"old", {"id": 0, "uuid": "old"}),
        (NOBODY, {"id": 0, "uuid": "old"}),
        (b"new", {"id": 0, "uuid": "old"}),
    ],
)
def test_the_late_word_of_an_old_engine_does_not_hit_a_new_one(
    sender: bytes, content: dict[str, object], registered: bool
) -> None:
    world = World()
    old = world.engine("old")
    world.hub.lose_engine(old, "heart")
    world.hub.handle_stranded(old)
    assert world.register("new", id=0)["id"] == 0, "an id that is free may be asked for"
    if registered:
        world.beat("new")
    world.hub.dispatch_query([sender, *Peer("old").session.write("unregistration_request", content)])
    assert world.hub.notices.ignored == {"other_engine": 1}
    new = world.host.started[-1]
    assert new.state is (EngineState.ALIVE if registered else EngineState.REGISTERING)
    world.hub.dispatch_query([b"new", *Peer("new").session.write("unregistration_request", {"id": 0})])
    assert new.state is (EngineState.LOST if registered else EngineState.STALLED)


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize(
    ("sender", "content"),
    [(NOBODY, {"id": 0}), (NOBODY, {"id": 0, "uuid": None}), (b"its nanny", {"id": 0, "uuid": "a"})],
)
def test_a_nanny_unregisters_its_engine(sender: bytes, content: dict[str, object], registered: bool) -> None:
    """A stock nanny gives only the engine's id, and nothing else that would identify its engine."""
    world = World()
    world.register("a")
    if registered:
        world.beat("a")
    for _ in range(2):
        world.hub.dispatch_query([sender, *Peer("nanny").session.write("unregistration_request", content)])
    [engine] = world.host.started
    if content.get("uuid") is None:
        assert engine.state is (EngineState.ALIVE if registered else EngineState.REGISTERING)
        assert world.host.asked_hearts == [engine], "once"
        world.heart_asked(answered=False)
        assert not world.hub.notices.ignored
    assert engine.state is (EngineState.LOST if registered else EngineState.STALLED)


def test_a_goodbye_that_says_only_an_id_is_not_believed_if_the_heart_beats() -> None:
    """Another engine may have the id now: the hub was started again, or the other engine has asked for the id."""
    world = World()
    engine = world.engine("new")
    for times in (1, 2):
        world.hub.dispatch_query([NOBODY, *Peer("nanny").session.write("unregistration_request", {"id": 0})])
        world.heart_asked(answered=True)
        assert engine.state is EngineState.ALIVE
        assert world.hub.notices.ignored == {"other_engine": times}
    assert not world.hub.goodbyes.doubted


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("engine_id", [True, 1.0, "1", [1], None])
def test_what_is_no_id_unregisters_nobody(engine_id: object, registered: bool) -> None:
    world = World()
    for uuid in "ab":
        world.register(uuid)
        if registered:
            world.beat(uuid)
    world.hub.dispatch_query([NOBODY, *Peer("x").session.write("unregistration_request", {"id": engine_id})])
    assert world.hub.notices.ignored == {"unknown_engine": 1}
    assert len(world.hub.engines.alive) + len(world.hub.engines.incoming_registrations) == 2


@pytest.mark.parametrize("content", [{"id": 0}, {"id": None}])
def test_an_engine_that_gives_up_registering(content: dict[str, int | None]) -> None:
    world = World()
    world.register("a")
    world.hub.dispatch_query([b"a", *Peer("a").session.write("unregistration_request", content)])
    assert world.host.started[0].state is EngineState.STALLED
    assert not world.hub.engines.incoming_registrations
    assert scope_of(world.host.started[0]).cancelled


def test_shutdown_reply_on_iopub_unregisters_at_once() -> None:
    world = World()
    engine = world.engine("a")
    world.publish("a", b"{}", "shutdown_reply", {"status": "ok"})
    assert engine.state is EngineState.LOST
    assert world.host.events[-1] == EngineUnregistered(0, "a", "shutdown")
    world.publish("a", b"{}", "shutdown_reply", {"status": "ok"})  # a second report is harmless
    assert len(world.take("iopub_out")) == 2


def test_settling_leaves_no_trace_of_an_engine() -> None:
    world = World()
    engine = world.engine("a")
    world.submit()
    world.call("a")
    world.call("a", msg_type="clear_request", channel="control_in")
    world.hub.lose_engine(engine, "heart")
    assert world.hub.engines.owes_answers(engine)
    world.hub.handle_stranded(engine)
    world.hub.handle_stranded(engine)
    assert engine.state is EngineState.SETTLED
    assert not world.hub.engines.owes_answers(engine)
    assert world.host.events[-1] == EngineSettled(0, "a")
    hub = world.hub
    for table in (
        hub.engines.alive,
        hub.engines.by_ident,
        hub.engines.incoming_registrations,
        hub.engines.lost,
        hub.direct.late,
        hub.direct.unanswered.pending,
    ):
        assert not table
    assert not hub.control.unanswered.pending
    assert not hub.tasks.scheduler.tasks
    assert not hub.tasks.scheduler.workers
    assert len(hub.hearts.heartmonitor) == 0


def test_the_same_uuid_can_come_back_within_the_grace() -> None:
    world = World()
    old = world.engine("a")
    msg_id = world.submit()
    [(_, request)] = world.take("task_out")
    world.hub.lose_engine(old, "heart")
    new = world.engine("a")
    assert new.id == 1
    world.answer("a", request)
    assert [message.parent.msg_id for _, message in world.take("task_in")] == [msg_id], "the late result counts"
    world.hub.handle_stranded(old)
    assert world.hub.engines.alive == {1: new}


def test_messages_wait_for_an_engine_that_beats_before_it_listens() -> None:
    world = World()
    world.host.unreachable.add(b"a")
    engine = world.engine("a")
    world.submit()
    world.call("a")
    world.call("a", msg_type="clear_request", channel="control_in")
    channels = ["task_out", "mux_out", "control_out"]
    assert world.host.to_reach == [(engine, channel) for channel in channels], "asked for once on each"
    assert not any(world.hub.flush_route(engine, channel) for channel in channels)
    assert not world.take("task_out")
    world.host.unreachable.clear()
    assert all(world.hub.flush_route(engine, channel) for channel in channels)
    assert [name for name, _ in world.take() if name.endswith("_out")] == channels


def test_nothing_more_is_sent_to_an_engine_that_was_lost_before_it_listened() -> None:
    world = World()
    world.host.unreachable.add(b"a")
    engine = world.engine("a")
    world.submit()
    world.hub.lose_engine(engine, "unreachable")
    world.host.unreachable.clear()
    assert world.hub.flush_route(engine, "task_out")
    assert not world.take("task_out")
    world.hub.handle_stranded(engine)
    assert world.replies("task_in")[0]["ename"] == "EngineError"


def test_pending_names_all_that_an_engine_owes() -> None:
    world = World(hwm=2)
    engine = world.engine("a")
    msg_ids = {world.submit(), world.submit(), world.call("a")}
    assert engine.pending == msg_ids
    assert "alive" in repr(engine)
