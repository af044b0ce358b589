"""Tasks that are aborted while they are with the hub, and what the hub itself asks of engines."""

from __future__ import annotations

import pytest

from trio_hub.hub.events import TaskFinished

from .durable import DurableStore
from .world import World


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
    assert not world.hub.control.relay.pending
