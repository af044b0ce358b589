"""Tasks that are aborted in the hub, and the hub's own requests to engines."""

from __future__ import annotations

from typing import Any

import pytest

from trio_hub.hub.events import RequestsAborted, TaskFinished
from trio_hub.hub.withdrawn import Withdrawn

from .durable import DurableStore, crashed
from .test_broadcasting import broadcast, shares
from .world import Peer, World


def test_who_waits_for_an_aborted_task_is_told_as_an_engine_tells_it() -> None:
    world = World()
    world.engine("a")
    runs, queued = world.submit(), world.submit(label="L")
    dependent = world.submit(after=[queued])
    world.take()
    reply = world.query("abort_request", {"msg_ids": [runs, queued, "unknown"]})
    assert reply == {"status": "ok", "aborted": [queued]}
    aborted, failed = world.take("task_in")
    assert aborted[1].header.msg_type == "apply_reply"
    assert (aborted[1].parent.msg_id, world.content(aborted[1])) == (queued, {"status": "aborted"})
    assert world.reader.result_metadata(aborted[1]).status == "aborted"
    assert world.content(failed[1])["ename"] == "ImpossibleDependency"
    assert failed[1].parent.msg_id == dependent
    record = world.record(queued)
    assert record["result_content"] == {"status": "aborted"}
    assert record["completed"] is not None
    assert record["engine_uuid"] is None
    assert world.hub.answers.outcomes["task"] == {"ok": 0, "error": 1, "aborted": 1}
    assert TaskFinished(queued, None, "aborted") in world.host.events
    assert world.hub.intake.held_bytes == 0
    assert world.query("abort_request", {"msg_ids": [queued]}) == {"status": "ok", "aborted": []}
    assert aborts(world) == [RequestsAborted(1, world.client.session.session_id, world.client.session.username)]


def aborts(world: World) -> list[RequestsAborted]:
    """Return the events that tell observers of aborts by clients."""
    return [event for event in world.host.events if isinstance(event, RequestsAborted)]


def test_a_strict_hub_answers_when_it_is_on_disk() -> None:
    store = DurableStore(auto=False)
    world = World(store=store, strict=True)
    queued = world.submit()
    assert world.query("abort_request", {"msg_ids": queued})["aborted"] == [queued]
    assert world.take("task_in") == []
    store.commit()
    assert world.query("abort_request", {"msg_ids": queued})["aborted"] == []
    assert world.take("task_in") == []
    store.commit()
    assert world.replies("task_in") == [{"status": "aborted"}]


@pytest.mark.parametrize("msg_ids", [None, 5, [5]])
def test_what_to_abort_has_to_be_said(msg_ids: object) -> None:
    reply = World().query("abort_request", {"msg_ids": msg_ids})
    assert (reply["ename"], "msg_ids" in reply["evalue"]) == ("TypeError", True)


@pytest.mark.parametrize("answers", [True, False])
def test_the_hub_asks_an_engine_to_end(answers: bool) -> None:
    world = World()
    engine = world.engine("a")
    world.take()
    world.hub.control.shutdown_engine(engine)
    [(_, request)] = world.take("control_out")
    assert (request.header.msg_type, world.content(request)) == ("shutdown_request", {"restart": False})
    assert request.idents[0] == b"a"
    if answers:
        world.answer("a", request, channel="control_out")
    world.publish("a", b"{}", "shutdown_reply", {"status": "ok"})
    if engine.uuid in [one.uuid for one in world.hub.engines.alive.values()]:
        world.hub.lose_engine(engine, "shutdown")
    world.hub.handle_stranded(engine)
    assert {name for name, _ in world.host.sent} <= {"iopub_out", "notification"}, "no client had asked"
    assert not world.hub.notices.ignored
    assert not world.hub.control.unanswered.pending


# Aborts of a stock client: it sends an abort request to each engine, on the control channel


def stock_abort(world: World, uuid: str, *msg_ids: str, content: dict[str, Any] | None = None) -> None:
    frames = world.client.session.write("abort_request", content or {"msg_ids": list(msg_ids)})
    world.hub.dispatch_monitor_traffic("control_in", [b"client", uuid.encode(), *frames])


def named(world: World) -> list[list[str]]:
    """Return the msg_ids that engines were told to abort since the last call."""
    return [world.content(message)["msg_ids"] for _, message in world.take("control_out")]


def test_a_stock_clients_abort_reaches_what_waits_in_the_hub() -> None:
    world = World()
    world.engine("a")
    runs, *queued = [world.submit() for _ in range(4)]
    waits = world.submit(after=[runs])
    world.take()
    stock_abort(world, "a", runs, *queued, waits)
    assert [event.requests for event in aborts(world)] == [5], "the one that runs, too"
    assert named(world) == [[runs, *queued, waits]], "the engine is told as well"
    replies = world.take("task_in")
    assert [message.parent.msg_id for _, message in replies] == [*queued, waits]
    assert {world.content(message)["status"] for _, message in replies} == {"aborted"}


@pytest.mark.parametrize("how", ["stock", "query"])
def test_an_abort_interrupts_the_clients_own_tasks_whose_rules_say_so(how: str) -> None:
    world = World(hwm=0)
    world.engine("a", aims_interrupts=True)
    plain, own, queued = world.submit(), world.submit(rules={"on_cancel": "interrupt"}), world.submit()
    of_another = world.submit(Peer("other"), rules={"on_cancel": "interrupt"})
    world.take()
    for _ in range(2):
        if how == "stock":
            stock_abort(world, "a", plain, own, of_another)
        else:
            world.query("abort_request", {"msg_ids": [plain, own, of_another]})
    asked = [one for _, one in world.take("control_out") if one.header.msg_type == "interrupt_request"]
    assert [world.content(one)["msg_id"] for one in asked] == [own], "once"
    assert world.hub.work.cancelling.counts == {"interrupted": 1}
    assert queued in world.hub.tasks.scheduler.tasks


def test_the_bytes_of_an_abort_request_stay_unless_a_share_is_meant() -> None:
    world = World()
    world.engine("a")
    frames = world.client.session.write("abort_request", {"msg_ids": ["x"]})
    world.hub.dispatch_monitor_traffic("control_in", [b"client", b"a", *frames])
    assert world.host.sent[-1][1][2:] == frames


@pytest.mark.parametrize("gather", [True, False])
def test_a_broadcast_is_aborted_by_its_own_msg_id(gather: bool) -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    msg_id = broadcast(world, "ab", gather=gather)
    sent = shares(world)
    world.take()
    stock_abort(world, "a", msg_id)
    stock_abort(world, "b", msg_id)
    assert named(world) == [[msg_id, f"{msg_id}_a"], [msg_id, f"{msg_id}_b"]]
    for uuid in "ab":
        world.answer(uuid, sent[uuid], {"status": "aborted"}, channel="broadcast_out")
    assert [event.requests for event in aborts(world)] == [1, 1]
    replies = world.take("broadcast_in")
    assert len(replies) == (1 if gather else 2)
    for _, reply in replies:
        assert world.content(reply)["status"] == "aborted"
        assert world.reader.result_metadata(reply).status == "aborted"
    assert world.hub.answers.outcomes["broadcast"]["aborted"] == len(replies)


def test_an_abort_that_overtakes_its_requests() -> None:
    world = World()
    world.engine("a")
    peer = Peer("late")
    task, call = (peer.session.write("apply_request", {}) for _ in range(2))
    whole, part = (
        peer.session.write(
            "apply_request", {}, metadata={"targets": [("a", 0)], "is_broadcast": True, "is_coalescing": gather}
        )
        for gather in (True, False)
    )
    ids = [world.read(frames).header.msg_id for frames in (task, call, whole, part)]
    ids[3] += "_a"
    stock_abort(world, "a", *ids)
    world.take()
    world.hub.dispatch_monitor_traffic("task_in", [b"late", *task])
    world.hub.dispatch_monitor_traffic("mux_in", [b"late", b"a", *call])
    world.hub.dispatch_monitor_traffic("broadcast_in", [b"late", *whole])
    world.hub.dispatch_monitor_traffic("broadcast_in", [b"late", *part])
    sent = world.take()
    assert [name for name, _ in sent] == ["task_in", "mux_in", "broadcast_in", "broadcast_in"], "no engine gets them"
    assert [message.parent.msg_id for _, message in sent] == ids
    assert {world.content(message)["status"] for _, message in sent} == {"aborted"}
    assert not len(world.hub.intake.withdrawn)


def test_requests_on_their_way_to_the_disk_are_aborted() -> None:
    store = DurableStore(auto=False)
    world = World(store=store, strict=True)
    world.engine("a")
    task, call = world.submit(), world.call("a")
    dependent = world.submit(after=[task, call])
    stock_abort(world, "a", task, call)
    world.take()
    store.commit()
    store.commit()
    world.answer_questions()
    store.commit()
    sent = world.take()
    assert [message.parent.msg_id for _, message in sent] == [task, call, dependent]
    assert world.content(sent[2][1])["ename"] == "ImpossibleDependency"


def everything(world: World, uuid: str) -> list[str]:
    """Submit a task, a direct request and a gathered broadcast for this engine only, and return their msg_ids."""
    return [world.submit(targets=[uuid]), world.call(uuid), broadcast(world, uuid, gather=True)]


def test_requests_that_wait_for_the_connection_of_an_engine_are_aborted_at_once() -> None:
    world = World()
    world.engine("a")
    world.host.unreachable.add(b"a")
    world.take()
    msg_ids = everything(world, "a")
    stock_abort(world, "a", *msg_ids)
    assert {world.content(message)["status"] for _, message in world.take()} == {"aborted"}
    assert not any(map(world.hub.is_pending, msg_ids))
    world.host.unreachable.clear()
    for engine, channel in world.host.to_reach:
        assert world.hub.flush_route(engine, channel)
    assert named(world) == [[*msg_ids, f"{msg_ids[2]}_a"]]
    assert world.take() == [], "only the abort goes to the engine"


def test_requests_that_an_earlier_hub_has_left() -> None:
    store = DurableStore()
    world = World(store=store, strict=True)
    world.engine("a")
    runs, queued = world.submit(), world.submit()
    world = crashed(world)
    new = world.call("a")
    world.take()
    stock_abort(world, "a", runs, queued, new)
    assert [message.parent.msg_id for _, message in world.take("mux_in")] == [new]
    assert not world.hub.is_pending(queued)
    assert world.record(queued)["result_content"] == {"status": "aborted"}
    assert world.hub.is_pending(runs), "the engine may run it"
    [engine] = world.hub.engines.alive.values()
    world.hub.lose_engine(engine, "heart")
    world.hub.handle_stranded(engine)
    assert world.record(runs)["result_content"]["ename"] == "EngineError"


@pytest.mark.parametrize("content", [{}, {"msg_ids": 5}, {"msg_ids": [5]}, {"msg_ids": []}])
def test_what_names_no_request_is_the_engines_affair(content: dict[str, Any]) -> None:
    world = World()
    world.engine("a")
    queued = [world.submit() for _ in range(2)][1]
    world.take()
    stock_abort(world, "a", content=content or {"else": 1})
    assert [name for name, _ in world.take()] == ["control_out"]
    assert world.hub.is_pending(queued)


def test_an_abort_to_an_engine_that_has_gone_reaches_the_hubs_queue() -> None:
    world = World()
    queued = world.submit()
    stock_abort(world, "gone", queued)
    assert [name for name, _ in world.take()] == ["task_in", "control_in"]


def test_only_so_many_unknown_msg_ids_are_kept() -> None:
    withdrawn = Withdrawn(limit=3)
    withdrawn.note("abcd")
    withdrawn.note("a")
    assert [msg_id for msg_id in "abcd" if withdrawn.take(msg_id)] == ["a", "c", "d"]
    assert not withdrawn.take("a")
