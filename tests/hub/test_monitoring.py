"""Requests and replies: relayed and recorded in one step."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from trio_hub.errors import StoreError
from trio_hub.hub import EngineState
from trio_hub.hub.events import TaskAssigned, TaskFinished, TaskSubmitted
from trio_hub.records import NullStore
from trio_hub.schedulers.dependencies import Outcomes
from trio_hub.wire.frames import Frames

from .world import Peer, World


def test_a_task_goes_to_an_engine_and_its_result_back_to_the_client() -> None:
    world = World()
    world.engine("a")
    msg_id = world.submit(buffers=(b"f", b"x"), label="L")
    [(_, request)] = world.take("task_out")
    assert request.idents == [b"a", b"client"]
    assert request.header.msg_id == msg_id
    assert request.buffers == [b"f", b"x"]
    world.answer("a", request, buffers=(b"result",))
    [(_, reply)] = world.take("task_in")
    assert reply.idents == [b"client", b"a"]
    assert reply.parent.msg_id == msg_id
    assert reply.buffers == [b"result"]
    record = world.record(msg_id)
    assert record["queue"] == "task"
    assert record["label"] == "L"
    assert record["engine_uuid"] == "a"
    assert record["client_uuid"] == "client"
    assert record["result_content"] == {"status": "ok"}
    assert record["result_metadata"]["engine"] == "a"
    assert record["started"] == "2026-01-01T00:00:00Z"
    assert record["completed"] is not None
    assert world.host.events[2:] == [
        TaskSubmitted(msg_id, "task", "L", "client"),
        TaskAssigned(msg_id, "a"),
        TaskFinished(msg_id, "a", "ok"),
    ]


def test_a_frame_passes_through_unchanged() -> None:
    """The hub does not pack messages again: the frames that arrive equal the frames that were sent."""
    world = World()
    world.engine("a")
    frames = world.client.session.write("apply_request", {"code": "é"}, metadata={"x": 1.0}, buffers=[b"\0" * 10])
    world.take()
    world.hub.dispatch_monitor_traffic("task_in", [b"client", *frames])
    assert world.host.sent == [("task_out", [b"a", b"client", *frames])]


def test_a_duplicate_reply_reaches_nobody() -> None:
    world = World()
    world.engine("a")
    world.submit()
    [(_, request)] = world.take("task_out")
    world.answer("a", request)
    world.answer("a", request)
    assert len(world.take("task_in")) == 1
    assert world.hub.notices.ignored["unexpected_result"] == 1


def test_replies_by_engines_that_were_not_asked_change_nothing() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    world.submit(targets=["a"])
    world.call("a")
    [(_, task)] = world.take("task_out")
    [(_, direct)] = world.take("mux_out")
    world.answer("b", task)
    world.answer("b", direct, channel="mux_out")
    world.answer("b", task, channel="control_out")
    world.answer("nobody", task)
    assert world.hub.notices.ignored["unexpected_result"] == 4
    world.answer("a", task, key=b"wrong")
    assert world.hub.notices.wire_errors["bad_signature"] == 1
    assert not world.take("task_in")
    assert not world.take("mux_in")
    world.answer("a", task)
    world.answer("a", direct, channel="mux_out")
    assert len(world.take("task_in")) == len(world.take("mux_in")) == 1


@pytest.mark.parametrize("channel", ["task_out", "mux_out", "control_out", "broadcast_out"])
def test_replies_that_nobody_waits_for_are_harmless(channel: str) -> None:
    """Replies to answered and to unknown requests, from engines that are registered, gone or unknown."""
    world = World()
    world.engine("a")
    gone = world.engine("gone")
    world.hub.lose_engine(gone, "heart")
    world.hub.handle_stranded(gone)
    if channel == "task_out":
        world.submit()
    else:
        metadata: dict[str, Any] = {"targets": [("a", 0)]} if channel == "broadcast_out" else {}
        world.call("a", channel=channel.replace("_out", "_in"), **metadata)
    [(_, request)] = world.take(channel)
    never = world.read([b"a", b"client", *world.client.session.write("apply_request", {})])
    strays = [("a", never), ("gone", request), ("gone", never), ("nobody", request), ("nobody", never)]
    for uuid, parent in strays:
        world.answer(uuid, parent, channel=channel)
    assert not [name for name, _ in world.take() if name.endswith("_in")]
    world.answer("a", request, channel=channel)
    assert len(world.take(channel.replace("_out", "_in"))) == 1
    world.answer("a", request, channel=channel)
    assert not world.take()
    assert world.hub.notices.ignored == {"unexpected_result": len(strays) + 1}
    assert world.hub.engines.alive[0].completed == (channel != "control_out")


def test_a_dead_engines_task_is_answered_with_engine_error_after_the_grace() -> None:
    world = World()
    engine = world.engine("a")
    msg_id = world.submit()
    world.hub.lose_engine(engine, "heart")
    assert not world.take("task_in")
    world.hub.handle_stranded(engine)
    [(_, reply)] = world.take("task_in")
    content = world.content(reply)
    assert (content["status"], content["ename"]) == ("error", "EngineError")
    assert "died while running" in content["evalue"]
    assert content["engine_info"] == {}, "so that clients wait for no output"
    assert reply.header.msg_type == "apply_reply"
    record = world.record(msg_id)
    assert record["result_metadata"]["engine"] == "a", "what result_status needs"
    assert record["completed"] is not None
    assert record["result_header"]["msg_type"] == "apply_reply"
    assert world.query("result_request", {"msg_ids": [msg_id]})["completed"] == [msg_id]


def test_a_dead_engines_task_with_retries_left_goes_to_another() -> None:
    world = World()
    engine = world.engine("a")
    msg_id = world.submit(retries=1)
    world.take()
    world.engine("b")
    world.hub.lose_engine(engine, "heart")
    world.hub.handle_stranded(engine)
    [(_, request)] = world.take("task_out")
    assert request.idents[0] == b"b"
    world.answer("b", request)
    assert [reply.parent.msg_id for _, reply in world.take("task_in")] == [msg_id]
    assert world.record(msg_id)["engine_uuid"] == "b"


def test_a_late_result_within_the_grace_is_delivered_once() -> None:
    world = World()
    engine = world.engine("a")
    world.submit()
    [(_, request)] = world.take("task_out")
    world.hub.lose_engine(engine, "heart")
    world.answer("a", request)
    world.hub.handle_stranded(engine)
    assert [reply["status"] for reply in world.replies("task_in")] == ["ok"]


def test_a_failed_task_is_tried_again_while_it_has_retries() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    world.submit(retries=1)
    seen = set()
    for _ in range(2):
        [(_, request)] = world.take("task_out")
        seen.add(request.idents[0])
        world.answer(request.idents[0].decode(), request, {"status": "error", "ename": "E"})
    assert seen == {b"a", b"b"}
    assert [reply["ename"] for reply in world.replies("task_in")] == ["E"]


def test_an_unmet_functional_dependency_goes_to_another_engine() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    world.submit()
    [(_, request)] = world.take("task_out")
    first = request.idents[0].decode()
    world.answer(first, request, {"status": "error"}, dependencies_met=False)
    [(_, request)] = world.take("task_out")
    assert request.idents[0].decode() != first
    assert not world.take("task_in")


def test_an_aborted_task_is_not_retried_and_not_counted_as_completed() -> None:
    world = World()
    engine = world.engine("a")
    world.engine("b")
    world.submit(retries=5)
    [(_, request)] = world.take("task_out")
    world.answer(request.idents[0].decode(), request, {"status": "aborted"})
    assert [reply["status"] for reply in world.replies("task_in")] == ["aborted"]
    assert engine.completed == 0
    assert (world.hub.tasks_failed, world.hub.answers.count("aborted")) == (0, 1)


def test_a_reply_that_says_its_status_only_in_its_content() -> None:
    world = World()
    engine = world.engine("a")
    world.submit()
    [(_, request)] = world.take("task_out")
    world.answer("a", request, status=None)
    assert engine.completed == 1
    assert world.hub.tasks_completed == 1


@pytest.mark.parametrize("metadata", [{"status": 7}, {"dependencies_met": "no"}, {"engine": []}])
def test_a_reply_with_unreadable_metadata_still_reaches_the_client(metadata: dict[str, Any]) -> None:
    world = World()
    world.engine("a")
    world.submit()
    world.call("a")
    [(_, task)] = world.take("task_out")
    [(_, direct)] = world.take("mux_out")
    world.answer("a", task, **metadata)
    world.answer("a", direct, channel="mux_out", **metadata)
    assert len(world.take("task_in")) == len(world.take("mux_in")) == 1
    assert world.hub.notices.wire_errors["wrong_type"] == 2


@pytest.mark.parametrize("metadata", [{"targets": 5}, {"retries": "many"}, {"targets": [1]}, {"timeout": []}])
def test_a_request_with_unreadable_metadata_is_answered(metadata: dict[str, Any]) -> None:
    world = World()
    world.engine("a")
    world.submit(**metadata)
    [reply] = world.replies("task_in")
    assert (reply["status"], reply["ename"]) == ("error", "WireError")
    world.call("a", **metadata)
    assert world.replies("mux_in")[0]["ename"] == "WireError"
    assert world.hub.notices.wire_errors["wrong_type"] == 2
    assert not world.hub.tasks.scheduler.tasks


def test_a_target_that_is_not_registered_is_impossible() -> None:
    world = World()
    world.engine("a")
    msg_id = world.submit(targets=["b"])
    assert world.replies("task_in")[0]["ename"] == "ImpossibleDependency"
    assert world.record(msg_id)["completed"] is not None


@pytest.mark.parametrize("kind", ["after", "follow"])
def test_a_dependency_on_what_nobody_knows_is_invalid(kind: str) -> None:
    world = World()
    world.engine("a")
    metadata: dict[str, Any] = {kind: ["some_id"]}
    msg_id = world.submit(**metadata)
    assert not world.take("task_in"), "the store is asked first"
    world.answer_questions()
    [reply] = world.replies("task_in")
    assert (reply["ename"], "some_id" in reply["evalue"]) == ("InvalidDependency", True)
    assert world.record(msg_id)["completed"] is not None
    assert not world.take("task_out")


@pytest.mark.parametrize("dependency", [5, [5], {"dependencies": "x", "all": "1"}, {"ids": []}])
def test_a_dependency_of_no_known_form_is_invalid(dependency: Any) -> None:
    world = World()
    world.engine("a")
    world.submit(after=dependency)
    assert world.replies("task_in")[0]["ename"] == "InvalidDependency"


def test_a_task_runs_after_tasks_and_direct_requests() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    first = world.submit(targets=["a"])
    call = world.call("b")
    second = world.submit(after=[first, call], targets=["b"])
    assert world.query("queue_request", {})["unassigned"] == 1
    assert world.query("queue_request", {"verbose": True})["unassigned"] == [second]
    [(_, task)] = world.take("task_out")
    [(_, direct)] = world.take("mux_out")
    world.answer("a", task)
    assert not world.take("task_out")
    world.answer("b", direct, channel="mux_out")
    assert [message.header.msg_id for _, message in world.take("task_out")] == [second]


def test_dependencies_on_tasks_finished_long_ago_answer_from_the_store() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    old = {}
    for status in ("ok", "error"):
        old[status] = world.submit(targets=["b"])
        [(_, request)] = world.take("task_out")
        world.answer("b", request, {"status": status, "ename": "E"})
    world.hub.tasks.scheduler.dependencies.outcomes = Outcomes()
    world.take()
    after = world.submit(after=[old["ok"]])
    follow = world.submit(follow=old["ok"])
    impossible = world.submit(after=[old["error"]])
    on_failure = world.submit(follow={"dependencies": [old["error"]], "success": False, "failure": True})
    world.answer_questions()
    sent = {message.header.msg_id: message.idents[0] for _, message in world.take("task_out")}
    assert sent.keys() == {after, follow}
    assert sent[follow] == b"b"
    [(_, reply)] = world.take("task_in")
    assert reply.parent.msg_id == impossible
    assert world.content(reply)["ename"] == "ImpossibleDependency"
    assert [task.msg_id for task in world.hub.tasks.scheduler.queue] == [on_failure], "b is busy"


def test_a_store_that_fails_leaves_no_task_waiting() -> None:
    world = World()
    world.submit(after=["x"])
    [(task, _)] = [(task, None) for task in world.hub.tasks.scheduler.tasks.values()]
    world.host.questions.clear()
    world.hub.parts.assignments.ask_outcomes(task, ["x"])

    async def fail(msg_ids: object) -> Any:
        raise StoreError("gone")

    world.hub.store.get = fail  # type: ignore[method-assign]
    world.answer_questions()
    assert world.replies("task_in")[0]["ename"] == "InvalidDependency"


def test_the_time_limit_of_a_task_that_waits() -> None:
    world = World()
    msg_id = world.submit(timeout=2.5)
    [(scope, seconds, call)] = world.host.timers
    assert (seconds, scope.cancelled) == (2.5, False)
    call()
    [(_, reply)] = world.take("task_in")
    assert (reply.parent.msg_id, world.content(reply)["ename"]) == (msg_id, "TaskTimeout")
    call()
    assert not world.take("task_in")


def test_the_time_limit_ends_when_the_task_runs() -> None:
    world = World()
    world.submit(timeout=2.5)
    [(scope, _, call)] = world.host.timers
    world.engine("a")
    assert scope.cancelled
    call()
    assert not world.take("task_in")


@pytest.mark.parametrize("jump", [timedelta(days=-1000), timedelta(days=1000)])
def test_a_time_limit_does_not_go_by_a_clock_that_can_be_set(jump: timedelta) -> None:
    """The hub measures a number of seconds. It uses neither the date of the task nor the present date."""
    world = World(hwm=1)
    engine = world.engine("a")
    world.submit()
    world.client.session.now = lambda: world.clock.time - jump
    msg_id = world.submit(timeout=2.5)
    world.clock.time += jump
    other = world.engine("b")
    [(_, _), (_, request)] = world.take("task_out")
    assert request.header.msg_id == msg_id, "a day has come, or gone, and it is run all the same"
    world.hub.lose_engine(other, "heart")
    world.clock.time += jump
    world.hub.weigh_hearts()
    assert engine.state is EngineState.ALIVE
    waiting = world.submit(timeout=2.5)
    world.clock.time += jump
    world.answer("a", world.read([b"a", *request.frames]), key=b"forged")
    assert not world.take("task_in")
    assert [(scope.cancelled, seconds) for scope, seconds, _ in world.host.timers] == [(True, 2.5), (False, 2.5)]
    world.host.timers[-1][2]()
    [(_, reply)] = world.take("task_in")
    assert (reply.parent.msg_id, world.content(reply)["ename"]) == (waiting, "TaskTimeout")


def test_a_time_limit_that_is_no_number_is_refused() -> None:
    world = World()
    _, _, header, parent, *_ = world.client.session.write("apply_request", {})
    frames = world.client.session.seal([header, parent, b'{"timeout": NaN}', b"{}"])
    world.hub.dispatch_monitor_traffic("task_in", [b"client", *frames])
    assert world.replies("task_in")[0]["ename"] == "WireError"


def test_a_msg_id_in_use_is_not_submitted_twice() -> None:
    world = World()
    world.engine("a")
    header = world.client.session.new_header("apply_request")
    for number in range(3):
        header["date"] = f"2026-01-0{number + 1}T00:00:00Z"
        frames = world.client.session.write("apply_request", {}, header=header)
        channel, idents = ("task_in", [b"client"]) if number < 2 else ("mux_in", [b"client", b"a"])
        world.hub.dispatch_monitor_traffic(channel, [*idents, *frames])
    assert world.hub.notices.ignored["duplicate_msg_id"] == 2
    assert len(world.take("task_out")) == 1
    assert not world.take("mux_out")


# Direct requests


def test_a_direct_request_and_its_reply() -> None:
    world = World()
    engine = world.engine("a")
    msg_id = world.call("a", label={"any": "thing"})
    [(_, request)] = world.take("mux_out")
    assert request.idents == [b"a", b"client"]
    assert list(engine.mux.pending) == [msg_id]
    world.answer("a", request, channel="mux_out")
    [(_, reply)] = world.take("mux_in")
    assert reply.idents == [b"client", b"a"]
    record = world.record(msg_id)
    assert (record["queue"], record["engine_uuid"], record["label"]) == ("mux", "a", {"any": "thing"})
    assert engine.completed == 1
    assert not world.hub.direct.unanswered.pending


def test_a_direct_request_to_an_unknown_or_dead_engine_is_answered_at_once() -> None:
    world = World()
    engine = world.engine("a")
    world.hub.lose_engine(engine, "heart")
    for uuid in ("a", "unknown"):
        msg_id = world.call(uuid)
        [(_, reply)] = world.take("mux_in")
        assert reply.idents == [b"client"]
        assert world.content(reply)["ename"] == "EngineError"
        assert uuid in world.content(reply)["evalue"]
        assert world.record(msg_id)["completed"] is not None
    world.call("a", msg_type="clear_request", channel="control_in")
    [(_, reply)] = world.take("control_in")
    assert reply.header.msg_type == "clear_reply"
    assert world.content(reply)["ename"] == "EngineError"


@pytest.mark.parametrize("channel", ["mux_in", "control_in"])
def test_a_direct_request_that_names_no_engine_is_answered(channel: str) -> None:
    world = World()
    world.hub.dispatch_monitor_traffic(channel, [b"client", *world.client.session.write("apply_request", {})])
    assert world.replies(channel)[0]["evalue"] == "the message names no engine"


def test_a_direct_request_that_names_no_engine_leaves_no_record() -> None:
    world = World()
    frames = world.client.session.write("apply_request", {})
    world.hub.dispatch_monitor_traffic("mux_in", [b"client", *frames])
    assert len(world.replies("mux_in")) == 1
    assert world.hub.tasks_submitted == 0


def test_the_death_of_an_engine_answers_its_direct_requests_before_it_is_announced() -> None:
    world = World()
    engine = world.engine("a")
    world.call("a")
    [(_, request)] = world.take("mux_out")
    world.take()
    world.hub.lose_engine(engine, "heart")
    assert [channel for channel, _ in world.host.sent] == ["mux_in", "notification"]
    world.take()
    world.answer("a", request, channel="mux_out", buffers=(b"truth",))
    assert not world.take("mux_in"), "answered once"
    record = world.record(request.header.msg_id)
    assert record["result_content"] == {"status": "ok"}, "but the record has the truth"
    assert world.hub.notices.ignored["late_result"] == 1
    world.answer("a", request, channel="mux_out")
    assert world.hub.notices.ignored["unexpected_result"] == 1


def test_messages_that_expect_no_reply_are_relayed_and_not_waited_for() -> None:
    world = World()
    world.engine("a")
    world.call("a", msg_type="comm_msg")
    assert len(world.take("mux_out")) == 1
    assert not world.hub.direct.unanswered.pending
    world.call("nobody", msg_type="comm_msg")
    assert not world.take("mux_in")
    assert world.query("history_request")["history"] == []


def test_control_requests_are_relayed_and_not_recorded() -> None:
    world = World()
    world.engine("a")
    world.call("a", msg_type="abort_request", channel="control_in")
    [(_, request)] = world.take("control_out")
    world.answer("a", request, channel="control_out")
    [(_, reply)] = world.take("control_in")
    assert reply.idents == [b"client", b"a"]
    assert reply.header.msg_type == "abort_reply"
    assert world.query("history_request")["history"] == []
    world.answer("a", request, channel="control_out")
    assert world.hub.notices.ignored["unexpected_result"] == 1


def test_a_control_request_that_an_engine_took_to_its_grave() -> None:
    world = World()
    engine = world.engine("a")
    world.call("a", msg_type="clear_request", channel="control_in")
    world.call("a", msg_type="shutdown_request", channel="control_in")
    world.hub.lose_engine(engine, "shutdown")
    assert not world.take("control_in"), "the replies may still be on their way"
    world.hub.handle_stranded(engine)
    clear, shutdown = world.take("control_in")
    assert world.content(clear[1])["ename"] == "EngineError"
    assert shutdown[1].header.msg_type == "shutdown_reply"
    assert world.content(shutdown[1])["status"] == "ok", "gone is what it was asked to be"


def test_a_control_request_to_an_engine_that_is_gone_or_to_a_hub_that_stops_is_refused_at_once() -> None:
    world = World()
    engine = world.engine("a")
    world.engine("b")
    world.hub.lose_engine(engine, "shutdown")
    world.hub.handle_stranded(engine)
    world.call("a", msg_type="clear_request", channel="control_in")
    assert world.replies("control_in")[0]["ename"] == "EngineError"
    world.hub.stop_serving()
    world.take()
    world.call("b", msg_type="clear_request", channel="control_in")
    assert world.replies("control_in")[0]["evalue"] == "the hub has been stopped"


def test_a_client_that_is_gone_is_counted() -> None:
    world = World()
    world.engine("a")
    world.submit()
    [(_, request)] = world.take("task_out")
    world.host.gone.add(b"client")
    world.answer("a", request)
    frames = world.client.session.write("connection_request", {})
    world.hub.dispatch_query([b"client", *frames])
    assert world.hub.notices.ignored["client_gone"] == 2


# Output


def test_output_is_relayed_to_all_and_recorded() -> None:
    world = World()
    world.engine("a")
    msg_id = world.submit()
    [(_, request)] = world.take("task_out")
    header = bytes(request.frames[2])
    world.publish("a", header, "status", {"execution_state": "busy"})
    world.publish("a", header, "execute_input", {"code": "print(1)"})
    for text in ("1\n", "2\n"):
        world.publish("a", header, "stream", {"name": "stdout", "text": text})
    world.publish("a", header, "stream", {"name": "stderr", "text": "oh"})
    world.publish("a", header, "execute_result", {"data": {"text/plain": "3"}})
    world.publish("a", header, "error", {"ename": "E", "evalue": "v", "traceback": []})
    world.publish("a", header, "display_data", {"data": {}})
    relayed = world.take("iopub_out")
    assert len(relayed) == 8
    assert all(message.idents == [b"engine.0.stdout"] for _, message in relayed)
    record = world.record(msg_id)
    assert (record["stdout"], record["stderr"], record["execute_input"]) == ("1\n2\n", "oh", "print(1)")
    assert record["execute_result"] == {"data": {"text/plain": "3"}}
    assert record["error"]["ename"] == "E"


@pytest.mark.parametrize(
    ("msg_type", "content"),
    [
        ("stream", {"name": "submitted", "text": "x"}),
        ("stream", {"name": "stdout"}),
        ("stream", {"name": "stdout", "text": 5}),
        ("execute_input", {}),
        ("stream", []),
    ],
)
def test_unusable_output_is_relayed_but_not_recorded(msg_type: str, content: Any) -> None:
    world = World()
    world.engine("a")
    msg_id = world.submit()
    [(_, request)] = world.take("task_out")
    world.publish("a", bytes(request.frames[2]), msg_type, content)
    assert world.hub.notices.wire_errors["wrong_type"] == 1
    assert world.record(msg_id)["stdout"] == ""
    assert len(world.take("iopub_out")) == 1


def test_output_without_a_known_request_is_relayed() -> None:
    world = World()
    world.publish("a", b"{}", "stream", {"name": "stdout", "text": "x"})
    world.publish("a", b'{"msg_id": "unknown"}', "stream", {"name": "stdout", "text": "x"})
    assert len(world.take("iopub_out")) == 2


# The end, and the unreadable


def test_whoever_waits_is_answered_when_the_hub_stops() -> None:
    world = World()
    engine = world.engine("a")
    other = world.engine("b")
    waiting = {
        world.submit(),
        world.submit(),
        world.submit(),
        world.submit(targets=["a"]),
        world.call("a"),
        world.call("b"),
    }
    world.call("a", msg_type="clear_request", channel="control_in")
    world.hub.lose_engine(other, "heart")
    world.hub.stop_serving()
    assert world.hub.intake.stopping
    answered = {
        message.parent.msg_id for channel, message in world.take() if channel in ("task_in", "mux_in", "control_in")
    }
    assert waiting <= answered
    assert len(answered) == len(waiting) + 1
    assert not engine.pending
    assert not world.hub.tasks.scheduler.tasks
    assert not len(world.hub.tasks.scheduler.queue)
    world.hub.stop_serving()
    assert not world.take(), "once is enough"
    world.submit()
    world.call("a")
    for channel in ("task_in", "mux_in"):
        assert world.replies(channel)[0]["evalue"] == "the hub has been stopped"


CHANNELS = (
    "mux_in",
    "mux_out",
    "task_in",
    "task_out",
    "control_in",
    "control_out",
    "broadcast_in",
    "iopub",
    "query",
)


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_unreadable_is_counted_by_kind_and_changes_nothing_else(channel: str) -> None:
    world = World()
    world.engine("a")
    good = Peer("x").session.write("apply_request", {})
    unsigned = Peer("x", b"wrong").session.write("apply_request", {})
    seal = Peer("x").session.seal
    cases: dict[str, Frames] = {
        "no_delimiter": [b"x", b"hello"],
        "too_few_frames": [b"x", *good[:5]],
        "bad_signature": [b"x", *unsigned],
        "malformed": [b"x", *seal([b"{nonsense", b"{}", b"{}", b"{}"])],
        "wrong_type": [b"x", *seal([b'{"msg_id": 5}', b"{}", b"{}", b"{}"])],
        "too_large": [b"x", *seal([b'{"msg_id":"' + b"x" * 10_000_000 + b'"}', b"{}", b"{}", b"{}"])],
        "no_identity": good,
    }
    if channel == "iopub":
        del cases["no_identity"]  # there they are topics, and an engine's first message has none
    world.take()
    dispatch = world.hub.dispatch_query if channel == "query" else None
    for kind, frames in cases.items():
        dispatch(frames) if dispatch else world.hub.dispatch_monitor_traffic(channel, frames)
        assert world.hub.notices.wire_errors.pop(kind) == 1
    assert not world.hub.notices.wire_errors
    assert not world.host.sent
    assert not world.hub.tasks.scheduler.tasks
    assert list(world.hub.engines.alive) == [0]


def test_a_replayed_message_has_no_effect() -> None:
    world = World()
    world.engine("a")
    frames = world.client.session.write("apply_request", {})
    for _ in range(2):
        world.hub.dispatch_monitor_traffic("task_in", [b"client", *frames])
    assert world.hub.notices.wire_errors == {"replayed": 1}
    assert world.hub.tasks_submitted == 1


def test_without_a_store_tasks_run_all_the_same() -> None:
    world = World(store=NullStore())
    world.engine("a")
    world.submit()
    [(_, request)] = world.take("task_out")
    world.answer("a", request)
    assert world.replies("task_in") == [{"status": "ok"}]


def test_msgpack_clients_are_served_alike() -> None:
    world = World(packer="msgpack")
    world.engine("a")
    msg_id = world.submit(label="L")
    [(_, request)] = world.take("task_out")
    world.answer("a", request, buffers=(b"r",))
    assert len(world.take("task_in")) == 1
    record = world.record(msg_id)
    assert record["header"]["msg_id"] == msg_id
    assert record["result_content"] == {"status": "ok"}
    world.call("nobody")
    assert world.replies("mux_in")[0]["ename"] == "EngineError"


@pytest.mark.parametrize("gather", [None, False, True])
def test_a_task_that_depends_on_what_dies_with_an_engine_does_not_go_there(gather: bool | None) -> None:
    world = World()
    engine = world.engine("a")
    if gather is None:
        msg_id = world.call("a")
    else:
        metadata = {"targets": [("a", 0)], "is_broadcast": True, "is_coalescing": gather}
        frames = world.client.session.write("apply_request", {}, metadata=metadata)
        world.hub.dispatch_monitor_traffic("broadcast_in", [world.client.ident, *frames])
        msg_id = world.read(frames).header.msg_id + ("" if gather else "_a")
    last = world.submit(after={"dependencies": [msg_id], "failure": True})
    world.hub.lose_engine(engine, "heart")
    assert world.take("task_out") == []
    world.engine("b")
    [(_, request)] = world.take("task_out")
    assert (request.idents[0], request.header.msg_id) == (b"b", last)
