"""A hub carries on with the requests, engines and owed results of a hub that was killed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from trio_hub.hub import EngineState
from trio_hub.hub.custody import Custody
from trio_hub.hub.owed import OWED_AT_A_TIME
from trio_hub.hub.returning import SENT_AT_A_TIME
from trio_hub.hub.shares import note_of_share
from trio_hub.schedulers.broadcast import sub_msg_id
from trio_hub.wire.messages import Message

from .durable import DurableStore, Notes, answer_probes, crashed, frames_sent, probes, running_on, speak
from .world import Peer, World, run_now


def durable_world(**settings: Any) -> World:
    """Return a world with a stock client, whose identity ZeroMQ makes up."""
    world = World(store=DurableStore(), **settings)
    world.client.ident = b"\0client"
    return world


def broadcast(world: World, uuids: list[str], client: Peer | None = None, *, gather: bool) -> str:
    client = client or world.client
    metadata = {"targets": [(uuid, 0) for uuid in uuids], "is_broadcast": True, "is_coalescing": gather}
    frames = client.session.write("apply_request", {}, metadata=metadata)
    world.hub.dispatch_monitor_traffic("broadcast_in", [client.ident, *frames])
    return world.read(frames).header.msg_id


def come_back(world: World, uuid: str) -> None:
    """Have the engine's heart beat again, and have the store return the engine's requests."""
    world.beat(uuid)
    world.answer_questions()


def requests(world: World, channel: str = "task_out") -> list[Message]:
    """Return the messages that engines were sent, without the hub's probes."""
    taken = [(frames, world.read(frames)) for name, frames in world.host.sent if name == channel]
    wanted = [(frames, message) for frames, message in taken if message.header.msg_type != "kernel_info_request"]
    for frames, _ in wanted:
        world.host.sent.remove((channel, frames))
    return [message for _, message in wanted]


def outcomes(world: World, *channels: str) -> dict[str, str]:
    """Return the outcomes that clients have got since the last call, by msg_id: ok, or the name of an error."""
    found: dict[str, str] = {}
    for channel in channels or ("task_in", "mux_in", "broadcast_in"):
        for _, reply in world.take(channel):
            assert reply.parent.msg_id not in found
            content = world.content(reply)
            found[reply.parent.msg_id] = content.get("ename", content["status"])
    return found


def settle_unheard(world: World) -> None:
    """Lose the engines that have not come back, and end their grace."""
    world.hub.purge_unheard()
    for engine in list(world.hub.engines.lost):
        world.hub.handle_stranded(engine)


def nothing_left(world: World) -> None:
    hub = world.hub
    assert not hub.tasks.scheduler.tasks
    assert not hub.tasks.scheduler.dependents
    for table in (
        hub.direct.unanswered.pending,
        hub.broadcasts.unanswered.pending,
        hub.gathering.gathered,
        hub.routes.probes,
        hub.intake.uncommitted,
        hub.answers.unsaved,
    ):
        assert not table
    assert not hub.direct.late
    assert all(not engine.parked and not engine.routes for engine in hub.engines.alive.values())
    assert hub.intake.held_bytes == 0
    assert isinstance(hub.store, DurableStore)
    assert all(record.completed is not None for record in hub.store.committed.values())


# Tasks


@pytest.mark.parametrize("packer", ["json", "msgpack"])
def test_a_task_that_waited_is_run(packer: str) -> None:
    before = durable_world(packer=packer)
    msg_id = before.submit(buffers=(b"code", b"data"), targets=None)
    world = crashed(before)
    world.engine("a")
    world.answer_questions()
    [request] = requests(world)
    assert request.header.msg_id == msg_id
    assert [bytes(buffer) for buffer in request.buffers] == [b"code", b"data"]
    world.answer("a", request)
    assert world.record(msg_id)["engine_uuid"] == "a"
    assert outcomes(world) == {}, "the client is somewhere else now"
    speak(world, world.client)
    assert outcomes(world) == {msg_id: "ok"}
    nothing_left(world)


def test_tasks_keep_their_order() -> None:
    before = durable_world()
    msg_ids = [before.submit() for _ in range(5)]
    world = crashed(before)
    world.engine("a")
    for msg_id in msg_ids:
        world.answer_questions()
        [request] = requests(world)
        assert request.header.msg_id == msg_id
        world.answer("a", request)


def test_a_task_that_runs_is_answered_once() -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit()
    [request] = requests(before)
    world = crashed(before)
    assert world.query("queue_request")["0"]["tasks"] == 1
    world.answer("a", request)  # before its heart is heard
    speak(world, world.client)
    assert outcomes(world) == {msg_id: "ok"}
    world.answer("a", request)
    assert outcomes(world) == {}
    come_back(world, "a")
    assert probes(world, "a") == [], "there is nothing to ask"
    nothing_left(world)


def test_a_result_that_was_lost_on_its_way_means_that_the_task_is_run_again() -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit(retries=1)
    [request] = requests(before)
    world = crashed(before)
    come_back(world, "a")
    assert requests(world) == []
    assert answer_probes(world, "a") == 1
    world.answer_questions()
    [again] = requests(world)
    assert again.header.msg_id == msg_id
    assert bytes(again.frames[1]) != bytes(request.frames[1]), "or the engine would drop it"
    assert world.hub.session.metadata(again)["retries"] == 1, "a lost result is no failure"
    world.answer("a", again)
    assert world.record(msg_id)["completed"] is not None
    nothing_left(world)


def test_the_result_comes_before_the_answer_to_the_probe() -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit()
    [request] = requests(before)
    world = crashed(before)
    come_back(world, "a")
    [(_, probe)] = probes(world, "a")
    world.answer("a", request)
    world.answer("a", probe)
    assert requests(world) == []
    assert world.record(msg_id)["completed"] is not None
    nothing_left(world)


def test_a_probe_is_answered_by_whom_it_asked() -> None:
    before = durable_world()
    before.engine("a")
    before.submit()
    world = crashed(before)
    world.engine("b")
    come_back(world, "a")
    [(_, probe)] = probes(world, "a")
    world.answer("b", probe)
    assert world.hub.notices.ignored["unexpected_result"] == 1
    assert len(world.hub.routes.probes) == 1


@pytest.mark.parametrize(("retries", "outcome"), [(0, "EngineError"), (1, "ok")])
def test_an_engine_that_never_comes_back(retries: int, outcome: str) -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit(retries=retries)
    world = crashed(before)
    world.engine("b")
    settle_unheard(world)
    world.answer_questions()
    for request in requests(world):
        assert request.idents[0] == b"b"
        world.answer("b", request)
    speak(world, world.client)
    assert outcomes(world) == {msg_id: outcome}
    nothing_left(world)


def test_an_engine_that_no_list_names_is_expected_all_the_same() -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit()
    direct = before.call("late")  # answered at once, since there never was such an engine
    [request] = requests(before)
    world = crashed(before, engines={})
    assert [engine.uuid for engine in world.hub.engines.alive.values()] == ["a"]
    assert world.hub.engines.next_engine_id > 0
    world.answer("a", request)
    assert world.record(msg_id)["completed"] is not None
    assert world.record(direct)["completed"] is not None


def test_a_task_that_had_been_sent_elsewhere_without_a_note() -> None:
    before = durable_world(hwm=1)
    before.engine("a")
    assert isinstance(before.hub.store, DurableStore)
    msg_id = before.submit()
    [request] = requests(before)
    before.hub.store._disk.update(msg_id, {"engine_uuid": None})  # as if the engine had not been committed
    world = crashed(before)
    world.engine("b")
    queued = world.submit()
    world.answer_questions()
    assert running_on(world) == {msg_id: "b"}
    world.answer("a", request)
    world.answer_questions()
    assert world.record(msg_id)["engine_uuid"] == "a"
    assert running_on(world) == {queued: "b"}, "which is not left without work"
    [first, second] = requests(world)
    world.answer("b", first)  # this answer comes too late
    world.answer("b", second)
    assert outcomes(world) == {msg_id: "ok", queued: "ok"}
    nothing_left(world)


@pytest.mark.parametrize("waits_for", ["memory", "dependency", "an engine"])
def test_a_task_that_waits_turns_out_to_be_done(waits_for: str) -> None:
    before = durable_world()
    before.engine("a")
    first = before.submit(targets=["a"])
    metadata: dict[str, Any] = {"after": [first], "timeout": 5.0} if waits_for == "dependency" else {}
    msg_id = before.submit(targets=["a"], **metadata)
    before.take()
    world = crashed(before)
    peer = Peer("a")
    assert isinstance(world.hub.store, DurableStore)
    request = world.read(peer.session.write("apply_request", {}, header={"msg_id": msg_id, "msg_type": "x_request"}))
    request.idents = [b"a"]
    world.answer("a", request)
    assert world.record(msg_id)["completed"] is not None
    assert all(scope.cancelled for scope, _, _ in world.host.timers)
    come_back(world, "a")
    assert answer_probes(world, "a") == 1
    world.answer_questions()
    [request] = requests(world)
    assert request.header.msg_id == first
    world.answer("a", request)
    nothing_left(world)


def test_a_result_that_is_not_final_goes_on_elsewhere() -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit(retries=2)
    [request] = requests(before)
    world = crashed(before)
    world.engine("b")
    failure = {"status": "error", "ename": "E", "evalue": "v"}
    world.answer("a", request, failure)
    world.answer_questions()
    [again] = requests(world)
    assert (again.idents[0], world.hub.session.metadata(again)["retries"]) == (b"b", 1)
    world = crashed(world)  # a second crash
    assert running_on(world) == {msg_id: "b"}
    task = world.hub.tasks.scheduler.tasks[msg_id]
    assert (task.retries, task.refused, task.unmet) == (1, frozenset({b"a"}), frozenset())
    world.answer("b", again, failure)
    assert running_on(world) == {}, "both have failed it, and its last chance waits for one of them"
    come_back(world, "a")
    world.answer_questions()
    [last] = requests(world)
    assert world.hub.session.metadata(last)["retries"] == 0
    world.answer("a", last, failure)
    speak(world, world.client)
    assert outcomes(world) == {msg_id: "E"}
    nothing_left(world)


def test_an_engine_that_did_not_meet_a_dependency_is_not_asked_again_by_another_hub() -> None:
    before = durable_world()
    for uuid in "ab":
        before.engine(uuid)
    msg_id = before.submit()
    [request] = requests(before)
    first = request.idents[0].decode()
    before.answer(first, request, {"status": "error", "ename": "UnmetDependency"}, dependencies_met=False)
    [request] = requests(before)
    second = request.idents[0].decode()
    assert {first, second} == {"a", "b"}
    world = crashed(before)
    for uuid in "ab":
        come_back(world, uuid)
    answer_probes(world, second)
    world.answer_questions()
    [again] = requests(world)
    assert (again.idents[0].decode(), again.header.msg_id) == (second, msg_id)


def test_targets_are_kept() -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit(targets=["b"], timeout=9.0)
    also = before.submit(targets=["a"])
    world = crashed(before)
    assert world.hub.tasks.scheduler.tasks.keys() <= {msg_id, also}
    speak(world, world.client)
    assert outcomes(world) == {msg_id: "ImpossibleDependency"}
    come_back(world, "a")
    answer_probes(world, "a")
    world.answer_questions()
    [request] = requests(world)
    assert request.header.msg_id == also


def test_dependencies_are_kept() -> None:
    before = durable_world(hwm=3)
    before.engine("a")
    done, runs = before.submit(), before.submit()
    [first, second] = requests(before)
    before.answer("a", first)
    direct = before.call("a")
    [call] = requests(before, "mux_out")
    gathered = broadcast(before, ["a"], gather=True)
    [share] = requests(before, "broadcast_out")
    last = before.submit(after=[done, runs, direct, gathered])
    never = before.submit(after={"dependencies": [runs], "success": False, "failure": True})
    after_never = before.submit(after=[never])
    world = crashed(before)
    world.answer_questions()
    come_back(world, "a")
    assert requests(world) == []
    world.answer("a", second)
    world.answer("a", call, channel="mux_out")
    assert requests(world) == []
    world.answer("a", share, channel="broadcast_out")
    world.answer_questions()
    [request] = requests(world)
    assert request.header.msg_id == last
    world.answer("a", request)
    answer_probes(world, "a")
    speak(world, world.client)
    found = outcomes(world)
    assert {found[never], found[after_never]} == {"ImpossibleDependency"}
    assert {found[msg_id] for msg_id in (runs, direct, gathered, last)} == {"ok"}
    nothing_left(world)


def test_a_lost_result_of_a_task_that_follows_another() -> None:
    before = durable_world(hwm=2)
    for uuid in "ab":
        before.engine(uuid)
    first = before.submit(targets=["b"])
    [request] = requests(before)
    before.answer("b", request)
    follower = before.submit(follow=[first])
    before.take()
    world = crashed(before)
    for uuid in "ab":
        come_back(world, uuid)
        answer_probes(world, uuid)
    world.answer_questions()
    [again] = requests(world)
    assert (again.idents[0], again.header.msg_id) == (b"b", follower)
    world.answer("b", again)
    nothing_left(world)


def test_what_is_left_of_the_time_is_kept() -> None:
    before = durable_world()
    msg_id = before.submit(timeout=1000.0)
    world = crashed(before)
    [(_, seconds, time_is_up)] = world.host.timers
    assert 0 < seconds < 1000.0
    time_is_up()
    speak(world, world.client)
    assert outcomes(world) == {msg_id: "TaskTimeout"}
    nothing_left(world)


def test_time_that_was_up_while_there_was_no_hub() -> None:
    before = durable_world()
    before.submit(timeout=0.5)
    for _ in range(1000):
        before.client.session.now()  # time passes
    world = crashed(before)
    [(_, seconds, time_is_up)] = world.host.timers
    assert 0 < seconds <= 0.001
    time_is_up()
    nothing_left(world)


def test_a_task_that_the_hub_has_resubmitted_is_nobodys() -> None:
    before = durable_world(sent_results=Notes())
    before.engine("a")
    first = before.submit()
    [request] = requests(before)
    before.answer("a", request)
    [again] = before.query("resubmit_request", {"msg_ids": [first]})["resubmitted"].values()
    [request] = requests(before)
    before.take()
    world = crashed(before)
    world.answer("a", request)
    speak(world, world.client)
    assert world.query("result_request", {"msg_ids": [again]})["completed"] == [again]
    world = crashed(world)
    speak(world, world.client)
    assert outcomes(world) == {}
    nothing_left(world)


# Direct requests and broadcasts


def test_direct_requests_are_sent_once_more_in_order_and_as_they_were() -> None:
    before = durable_world()
    before.engine("a")
    msg_ids = [before.call("a", label=str(number)) for number in range(2 * SENT_AT_A_TIME + 1)]
    sent = frames_sent(before, "mux_out")
    world = crashed(before)
    world.call("a", Peer("another"), "comm_msg")  # messages that come meanwhile are sent after the probe
    world.beat("a")
    meanwhile = world.call("a", Peer("another"))
    world.answer_questions()
    again = frames_sent(world, "mux_out")
    # (its client is found by its session, so its identity is not the same)
    assert [frames[2:] for frames in again[: len(msg_ids)]] == [frames[2:] for frames in sent]
    rest = [world.read(frames) for frames in again[len(msg_ids) :]]
    assert [message.header.msg_type for message in rest] == ["kernel_info_request", "comm_msg", "apply_request"]
    assert rest[2].header.msg_id == meanwhile
    for frames in again[: len(msg_ids) - 1]:
        world.answer("a", world.read(frames), channel="mux_out")
    world.answer("a", rest[0], channel="mux_out")
    speak(world, world.client)
    found = outcomes(world)
    assert [found[msg_id] for msg_id in msg_ids] == ["ok"] * (len(msg_ids) - 1) + ["EngineError"]
    assert world.hub.is_pending(meanwhile), "it was asked after the probe"
    world.answer("a", rest[2], channel="mux_out")
    assert outcomes(world) == {meanwhile: "ok"}
    nothing_left(world)


@pytest.mark.parametrize("gather", [False, True])
def test_shares_of_broadcasts_are_sent_once_more(gather: bool) -> None:
    before = durable_world()
    uuids = ["a", "b", "c", "d"]
    for uuid in uuids:
        before.engine(uuid)
    msg_id = broadcast(before, uuids, gather=gather)
    shares = [sub_msg_id(msg_id, uuid) for uuid in uuids]
    sent = {bytes(frames[0]): frames for frames in frames_sent(before, "broadcast_out")}
    before.answer("a", before.read(sent[b"a"]), channel="broadcast_out", buffers=(b"result of a",))
    world = crashed(before)
    come_back(world, "b")
    [again, probe] = frames_sent(world, "broadcast_out")
    assert again[2:] == sent[b"b"][2:], "the same bytes"
    world.answer("b", world.read(again), channel="broadcast_out", buffers=(b"result of b",))
    world.answer("b", world.read(probe), channel="broadcast_out")
    come_back(world, "c")
    answer_probes(world, "c")
    requests(world, "broadcast_out")
    settle_unheard(world)  # a, of which nothing is wanted any more, and d
    speak(world, world.client)
    if gather:
        [(_, reply)] = world.take("task_in")
        content = world.content(reply)
        assert content["status"] == "error"
        assert {uuid: error["ename"] for uuid, error in content["errors"].items()} == {
            "c": "EngineError",
            "d": "EngineError",
        }
        assert [bytes(buffer) for buffer in reply.buffers] == [b"result of a", b"result of b"]
        assert world.hub.session.metadata(reply)["buffer_counts"] == [1, 1, 0, 0]
        assert list(run_history(world)) == [msg_id], "shares are not kept"
    else:
        found = outcomes(world)
        found.pop(shares[0], None)  # this share may have been on its way, and is sent once more
        assert found == dict(zip(shares[1:], ["ok", "EngineError", "EngineError"], strict=True))
        assert world.query("history_request")["history"] == shares
    nothing_left(world)


def run_history(world: World) -> list[str]:
    history = world.query("history_request")["history"]
    assert isinstance(history, list)
    return history


def half_answered() -> tuple[World, str, Message]:
    """Return a world whose engine a has answered a gathered broadcast, its msg_id, and the share of the engine b."""
    world = durable_world()
    for uuid in "ab":
        world.engine(uuid)
    msg_id = broadcast(world, ["a", "b"], gather=True)
    [first, second] = requests(world, "broadcast_out")
    world.answer("a", first, channel="broadcast_out")
    return world, msg_id, second


def test_a_gathered_broadcast_all_of_whose_shares_were_noted() -> None:
    """The earlier hub has noted the last answer, and was killed before it recorded the result."""
    before, msg_id, second = half_answered()
    gathered = before.hub.gathering.gathered[msg_id]
    assert before.hub.store.durable
    before.hub.store.add(note_of_share(gathered, "b", gathered.answers["a"]))
    world = crashed(before)
    speak(world, world.client)
    assert outcomes(world) == {msg_id: "ok"}
    world.answer("b", second, channel="broadcast_out")
    assert run_history(world) == [msg_id]
    nothing_left(world)


def test_notes_of_shares_are_not_for_users_and_outlive_a_purge() -> None:
    before, msg_id, second = half_answered()
    share = sub_msg_id(msg_id, "a")
    assert run_history(before) == [msg_id]
    assert [found["msg_id"] for found in before.query("db_request", {"query": {}})["records"]] == [msg_id]
    assert before.query("result_request", {"msg_ids": [share]})["status"] == "error"
    assert before.query("queue_request", {"verbose": True})["0"]["completed"] == []
    for purge in ({"msg_ids": "all"}, {"engine_ids": [0]}):
        assert before.query("purge_request", purge)["status"] == "ok"
    world = crashed(before)
    assert run_history(world) == [msg_id]
    world.answer("b", second, channel="broadcast_out")
    speak(world, world.client)
    assert outcomes(world) == {msg_id: "ok"}
    nothing_left(world)
    assert run_now(world.hub.store.notes()) == []


@pytest.mark.parametrize("carry_on", [True, False])
def test_notes_that_no_broadcast_needs_any_more_go_at_the_next_start(carry_on: bool) -> None:
    """The last hub ended between recording the answer of a broadcast and forgetting the notes of its shares."""
    before, msg_id, _ = half_answered()
    before.hub.store.update(msg_id, {"completed": before.clock(), "received": before.clock()})
    world = crashed(before, carry_on=carry_on)
    assert run_now(world.hub.store.notes()) == []
    assert run_history(world) == [msg_id]


def test_a_noted_share_that_is_damaged_is_asked_for_again() -> None:
    before, msg_id, second = half_answered()
    before.hub.store.update(sub_msg_id(msg_id, "a"), {"result_content": b"{"})
    world = crashed(before)
    world.answer("b", second, channel="broadcast_out")
    come_back(world, "a")
    answer_probes(world, "a")  # the engine drops requests that it has had before
    speak(world, world.client)
    assert outcomes(world, "task_in") == {msg_id: "EngineError"}
    nothing_left(world)


def test_an_engine_that_is_heard_before_its_connections_are_open() -> None:
    before = durable_world()
    before.engine("a")
    msg_ids = [before.call("a"), before.call("a")]
    world = crashed(before)
    world.host.unreachable = {b"a"}
    come_back(world, "a")
    later = world.call("a")
    assert requests(world, "mux_out") == []
    world.host.unreachable = set()
    [(engine, channel)] = world.host.to_reach
    assert world.hub.flush_route(engine, channel)
    order = [message.header.msg_id for _, message in world.take("mux_out")]
    assert order[:2] == msg_ids
    assert order[3] == later
    assert order[2] in world.hub.routes.probes


@pytest.mark.parametrize("how", ["heart", "request", "iopub"])
@pytest.mark.parametrize("when", ["expected", "asked", "probed"])
def test_an_engine_goes_during_the_take_over(how: str, when: str) -> None:
    before = durable_world()
    engine = before.engine("a")
    task, direct = before.submit(), before.call("a")
    gathered = broadcast(before, ["a"], gather=True)
    world = crashed(before)
    meanwhile = world.call("a")
    if when != "expected":
        world.beat("a")
    if when == "probed":
        world.answer_questions()
    kept = world.take("task_out")
    if how == "heart":
        world.hub.lose_engine(world.hub.engines.alive[engine.id], "heart")
    elif how == "iopub":
        world.publish("a", b"{}", "shutdown_reply", {"status": "ok"})
    else:
        frames = Peer("a").session.write("unregistration_request", {"id": engine.id})
        world.hub.dispatch_query([b"a", *frames])
    world.answer_questions()
    world.take("mux_out")
    assert world.register("a")["status"] == "ok", "its uuid is free again"
    for channel, probe in kept:
        world.answer("a", probe, channel=channel)  # within its grace
    settle_unheard(world)
    world.beat("a")
    world.answer_questions()
    for request in requests(world):
        world.answer("a", request)
    assert requests(world, "mux_out") == []
    speak(world, world.client)
    found = outcomes(world)
    assert found == {task: "ok" if kept else "EngineError"} | dict.fromkeys(
        (direct, gathered, meanwhile), "EngineError"
    )
    nothing_left(world)


def test_an_engine_may_not_register_anew_while_it_is_expected() -> None:
    before = durable_world()
    before.engine("a")
    before.call("a")
    world = crashed(before)
    assert world.register("a")["status"] == "error"
    come_back(world, "a")
    assert world.register("a")["status"] == "error"
    answer_probes(world, "a")
    nothing_left(world)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_another_crash_during_the_take_over(times: int) -> None:
    before = durable_world(hwm=2)
    before.engine("a")
    runs, direct = before.submit(), before.call("a")
    gathered = broadcast(before, ["a", "b"], gather=True)
    [task] = requests(before)
    world = before
    for number in range(times):
        world = crashed(world)
        assert set(world.hub.tasks.scheduler.tasks) == {runs}
        if number > 0:
            world.beat("a")
        if number > 1:
            world.answer_questions()
    for _ in range(2):
        come_back(world, "a")
        world.answer("a", task)
        answer_probes(world, "a")
    speak(world, world.client)
    assert outcomes(world) == {runs: "ok", direct: "EngineError", gathered: "EngineError"}
    nothing_left(world)


def test_a_probed_task_is_run_again_by_every_hub_with_another_signature() -> None:
    world = durable_world()
    world.engine("a")
    world.submit()
    signatures = {bytes(message.frames[1]) for message in requests(world)}
    for _ in range(3):
        world = crashed(world)
        come_back(world, "a")
        answer_probes(world, "a")
        world.answer_questions()
        [again] = requests(world)
        signatures.add(bytes(again.frames[1]))
    assert len(signatures) == 4
    world.answer("a", again)
    nothing_left(world)


# Damage


DAMAGE: dict[str, dict[str, Any]] = {
    "header": {"header": b"\xff"},
    "no header": {"header": None},
    "header of another kind": {"header": b"[]"},
    "metadata": {"metadata": b"[7"},
    "custody": {"custody": b"\xc1"},
    "targets": {"metadata": b'{"targets": 7}'},
}


@pytest.mark.parametrize("packer", ["json", "msgpack"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("sort", ["task", "running", "direct", "broadcast", "gathered"])
def test_a_damaged_record_harms_no_other(sort: str, damage: str, packer: str) -> None:
    before = durable_world(packer=packer, hwm=2)
    before.engine("a")
    good = before.submit(targets=["a"])
    [request] = requests(before)
    match sort:
        case "task":
            bad = before.submit(targets=["nobody", "a"], after=[good])
        case "running":
            bad = before.submit()
        case "direct":
            bad = before.call("a")
        case "broadcast":
            bad = sub_msg_id(broadcast(before, ["a"], gather=False), "a")
        case _:
            bad = broadcast(before, ["a"], gather=True)
    changes = DAMAGE[damage]
    if packer == "msgpack" and damage != "custody":
        changes = changes | {"custody": Custody([b"client"], b"\x80").pack()}
    before.hub.store.update(bad, changes)
    world = crashed(before)
    world.answer("a", request)
    come_back(world, "a")
    answer_probes(world, "a")
    world.answer_questions()
    for again in requests(world):
        world.answer("a", again)
    speak(world, world.client)
    found = outcomes(world)
    assert found[good] == "ok"
    assert found[bad] in ("EngineError", "ok")
    assert found.keys() == {good, bad}
    nothing_left(world)


def test_a_damaged_result_is_owed_to_nobody() -> None:
    before = durable_world(packer="msgpack")
    before.engine("a")
    msg_ids = [before.submit() for _ in range(2)]
    before.host.gone = {before.client.ident}
    for _ in msg_ids:
        [request] = requests(before)
        before.answer("a", request)
    before.hub.store.update(msg_ids[0], {"result_content": b"{"})
    world = crashed(before)
    speak(world, world.client)
    assert outcomes(world) == {msg_ids[1]: "ok"}
    assert world.hub.notices.wire_errors["malformed"] == 1


# Owed results


def away(count: int, **settings: Any) -> tuple[World, list[str]]:
    """Return a world in which this number of results waits for a client that is away."""
    world = durable_world(hwm=0, **settings)
    world.engine("a")
    world.host.gone = {world.client.ident}
    msg_ids = [world.submit() for _ in range(count)]
    for request in requests(world):
        world.answer("a", request)
    return world, msg_ids


def owed_in(world: World) -> set[str]:
    assert isinstance(world.hub.store, DurableStore)
    return {msg_id for msg_id, record in world.hub.store.committed.items() if record.owed}


def client_elsewhere(world: World, name: str = "at another place") -> Peer:
    """Return the same client after it has connected again."""
    peer = Peer(name)
    peer.session = world.client.session
    return peer


SAYINGS: dict[str, Callable[[World, Peer], str]] = {
    "task_in": lambda world, client: world.submit(client, targets=["nobody"]),
    "mux_in": lambda world, client: world.call("nobody", client),
    "broadcast_in": lambda world, client: sub_msg_id(broadcast(world, ["nobody"], client, gather=False), "nobody"),
}


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("channel", SAYINGS)
def test_a_client_gets_what_it_is_owed_when_it_speaks(channel: str, restart: bool) -> None:
    world, msg_ids = away(2 * OWED_AT_A_TIME + 1, sent_results=Notes())
    assert owed_in(world) == set(msg_ids)
    if restart:
        world = crashed(world)
        assert world.take() == []
    world.take()
    said = SAYINGS[channel](world, client_elsewhere(world))
    world.answer_questions()
    sent = world.take(channel)
    assert {message.idents[0] for _, message in sent} == {b"at another place"}
    order = [message.parent.msg_id for _, message in sent]
    assert [msg_id for msg_id in order if msg_id != said] == msg_ids, "each once, and in order"
    assert owed_in(world) == set()
    assert world.hub.owed.clients.owed == 0
    SAYINGS[channel](world, client_elsewhere(world))
    world.answer_questions()
    assert len(world.take(channel)) == 1
    world = crashed(world)
    speak(world, world.client)
    assert outcomes(world) == {}


def test_a_client_that_goes_again_in_the_middle() -> None:
    world, msg_ids = away(OWED_AT_A_TIME + 50)
    client = client_elsewhere(world)
    send = world.host.send
    got: list[str] = []

    def until_it_goes(channel: str, frames: Any) -> bool:
        if bytes(frames[0]) != client.ident:
            return send(channel, frames)
        if len(got) in (30, 130):
            return False
        got.append(world.read(frames).parent.msg_id)
        return True

    world.host.send = until_it_goes  # type: ignore[method-assign]
    speak(world, client)
    assert got == msg_ids[:30]
    assert world.hub.owed.clients.owed == len(msg_ids) - 30
    got.append("it comes back")
    speak(world, client)
    assert len(got) == 130
    got.append("it comes back")
    speak(world, client)
    assert [msg_id for msg_id in got if msg_id in msg_ids] == msg_ids
    assert world.hub.owed.clients.owed == 0
    assert owed_in(world) == set()


def test_a_store_that_fails_owes_on() -> None:
    world, msg_ids = away(OWED_AT_A_TIME + 50)
    assert isinstance(world.hub.store, DurableStore)
    client = client_elsewhere(world)
    world.hub.store.failing = True
    speak(world, client)
    assert outcomes(world) == {}
    assert world.hub.owed.clients.owed == len(msg_ids)
    world.hub.store.failing = False
    speak(world, client)
    assert list(outcomes(world)) == msg_ids


def test_what_was_purged_meanwhile_is_not_delivered() -> None:
    world, [first, second] = away(2)
    world.query("purge_request", {"msg_ids": [first]}, Peer("another"))
    speak(world, client_elsewhere(world))
    assert outcomes(world) == {second: "ok"}
    assert world.hub.owed.clients.owed == 0


@pytest.mark.parametrize("strict", [False, True])
def test_nothing_that_was_noted_is_delivered_twice(strict: bool) -> None:
    before = durable_world(sent_results=Notes(), strict=strict)
    before.engine("a")
    delivered = before.submit()
    [request] = requests(before)
    before.answer("a", request)
    before.host.gone = {before.client.ident}
    waits = before.submit()
    [request] = requests(before)
    before.answer("a", request)
    before.take()
    world = crashed(before)
    speak(world, world.client)
    assert outcomes(world) == {waits: "ok"}
    assert world.record(delivered)["completed"] is not None


def test_what_was_delivered_late_is_owed_no_more_when_the_notes_are_gone() -> None:
    before, [msg_id] = away(1, sent_results=Notes())
    assert isinstance(before.hub.store, DurableStore)
    before.hub.store.auto = False
    speak(before, client_elsewhere(before))
    assert outcomes(before) == {msg_id: "ok"}
    assert owed_in(before) == {msg_id}, "the last word on it did not reach the disk"
    before.hub.store.auto = True
    world = crashed(before)
    assert owed_in(world) == set()


def test_what_was_on_its_way_is_delivered_where_nothing_is_noted() -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit()
    [request] = requests(before)
    before.answer("a", request)
    [first] = frames_sent(before, "task_in")
    world = crashed(before)
    speak(world, world.client)
    [second] = frames_sent(world, "task_in")
    assert second[1:] == first[2:], "the same bytes, so a client that has had it drops it"
    assert world.read(second).parent.msg_id == msg_id


def test_what_was_on_its_way_is_owed_however_many_hubs_come_after() -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit()
    before.answer("a", requests(before)[0])
    frames_sent(before, "task_in")
    world = crashed(before)
    world.clock.time += timedelta(hours=1)
    come_back(world, "a")
    world.submit(Peer("somebody else"))
    world.answer("a", requests(world)[0])
    frames_sent(world, "task_in")
    world = crashed(world)
    speak(world, world.client)
    [late] = frames_sent(world, "task_in")
    assert world.read(late).parent.msg_id == msg_id


def test_a_result_that_was_sent_and_not_recorded() -> None:
    """The task is run again for its record. Its client gets no second reply."""
    store = DurableStore()
    before = World(store=store, sent_results=Notes())
    before.engine("a")
    msg_id, direct = before.submit(), before.call("a")
    store.auto = False
    [request] = requests(before)
    before.answer("a", request)
    [call] = requests(before, "mux_out")
    before.answer("a", call, channel="mux_out")
    assert len(outcomes(before)) == 2
    store.auto = True
    world = crashed(before)
    come_back(world, "a")
    answer_probes(world, "a")
    world.answer_questions()
    [again] = requests(world)
    world.answer("a", again)
    speak(world, world.client)
    assert outcomes(world) == {}
    assert world.record(msg_id)["result_content"]["status"] == "ok"
    assert world.record(direct)["result_content"]["ename"] == "EngineError"
    nothing_left(world)


def test_a_damaged_request_whose_result_was_sent() -> None:
    store = DurableStore()
    before = World(store=store, sent_results=Notes())
    before.engine("a")
    msg_id = before.submit()
    store.auto = False
    [request] = requests(before)
    before.answer("a", request)
    store._disk.update(msg_id, {"header": b"{"})
    store.auto = True
    world = crashed(before)
    speak(world, world.client)
    assert outcomes(world) == {}
    nothing_left(world)


def test_a_client_with_an_identity_of_its_own_says_nothing() -> None:
    before = durable_world()
    before.engine("a")
    client = Peer("one that has a name")
    msg_id = before.submit(client)
    [request] = requests(before)
    world = crashed(before)
    world.answer("a", request)
    [(_, reply)] = world.take("task_in")
    assert reply.idents[0] == client.ident
    assert reply.parent.msg_id == msg_id


@pytest.mark.parametrize("heard_on", ["task_in", "mux_in"])
def test_a_client_that_spoke_before_the_result_came(heard_on: str) -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit()
    [request] = requests(before)
    world = crashed(before)
    client = client_elsewhere(world)
    SAYINGS[heard_on](world, client)
    world.take(heard_on)
    world.answer("a", request)
    [(channel, reply)] = [item for item in world.take() if item[0].endswith("_in")]
    assert (channel, reply.idents[0], reply.parent.msg_id) == (heard_on, client.ident, msg_id)


# The end


def test_what_another_hub_is_not_to_carry_on_with_is_written_off() -> None:
    before = durable_world()
    before.engine("a")
    task, direct = before.submit(), before.call("a")
    queued = before.submit(targets=["a"])
    gathered = broadcast(before, ["a", "b"], gather=True)
    [share] = requests(before, "broadcast_out")
    plain = sub_msg_id(broadcast(before, ["a"], gather=False), "a")
    damaged = before.submit(targets=["a"])
    before.hub.store.update(damaged, {"header": b"{"})
    before.answer("a", share, channel="broadcast_out")
    before.take()
    world = crashed(before, engines={}, carry_on=False)
    unfinished = {task, direct, queued, gathered, plain, damaged}
    assert set(run_history(world)) == unfinished, "and the share that was noted is gone"
    assert world.record(task)["result_content"]["ename"] == "EngineError"
    nothing_left(world)


def test_a_hub_that_stops_for_another_leaves_everything() -> None:
    before = durable_world(hwm=1)
    before.engine("a")
    runs, queued, direct = before.submit(), before.submit(), before.call("a")
    gathered = broadcast(before, ["a"], gather=True)
    before.call("a", channel="control_in", msg_type="clear_request")
    [request] = requests(before)
    before.take("notification")
    before.hub.stop_serving(carried_on=True)
    sent = [channel for channel, _ in before.take() if not channel.endswith("_out")]
    assert sent == ["control_in"], "which nobody else could answer; and clients are not told"
    world = crashed(before)
    for msg_id in (runs, queued, direct, gathered):
        assert world.hub.is_pending(msg_id)
    world.answer("a", request)
    come_back(world, "a")
    answer_probes(world, "a")
    world.answer_questions()
    [last] = requests(world)
    world.answer("a", last)
    speak(world, world.client)
    assert outcomes(world) == {runs: "ok", queued: "ok", direct: "EngineError", gathered: "EngineError"}
    nothing_left(world)


def test_a_store_without_requests() -> None:
    world = crashed(durable_world())
    assert world.take() == []
    assert world.hub.engines.alive == {}
    nothing_left(world)


def test_a_result_after_the_engine_is_lost_goes_to_its_task() -> None:
    before = durable_world()
    before.engine("a")
    msg_id = before.submit()
    [request] = requests(before)
    world = crashed(before)
    [engine] = world.hub.engines.alive.values()
    world.hub.purge_unheard()
    assert engine.state is EngineState.LOST
    world.answer("a", request)
    world.hub.handle_stranded(engine)
    speak(world, world.client)
    assert outcomes(world) == {msg_id: "ok"}
    nothing_left(world)
