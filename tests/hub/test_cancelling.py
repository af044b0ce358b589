"""Cancelling requests, in the core."""

from __future__ import annotations

from typing import Any

import pytest

from trio_hub.hub import EngineConnector
from trio_hub.hub.events import TaskCancelled
from trio_hub.schedulers.broadcast import sub_msg_id
from trio_hub.wire.messages import Message

from .durable import DurableStore, crashed
from .world import World

HIT = {"status": "error", "ename": "KeyboardInterrupt", "evalue": "", "traceback": []}


def cancel(world: World, *msg_ids: str, **options: Any) -> dict[str, str]:
    reply = world.query("cancel_request", {"msg_ids": list(msg_ids)} | options)
    assert reply["status"] == "ok", reply
    done = reply["cancelled"]
    assert isinstance(done, dict)
    return done


def sent(world: World, channel: str) -> list[Message]:
    return [message for _, message in world.take(channel)]


def kinds(messages: list[Message]) -> list[str]:
    return [message.header.msg_type for message in messages]


def errors(world: World, channel: str = "task_in") -> list[tuple[str, str]]:
    """Return the msg_ids and enames of the answers to clients."""
    return [(message.parent.msg_id, world.content(message).get("ename", "")) for message in sent(world, channel)]


def land(world: World, uuid: str, request: Message, **content: Any) -> None:
    """Have an engine, or its nanny, answer a control request."""
    world.answer(uuid, request, {"status": "ok"} | content, channel="control_out")


def pass_time(world: World, seconds: float) -> None:
    """End the timers that take at most this long."""
    timers, world.host.timers = world.host.timers, []
    for timer in timers:
        scope, length, call = timer
        if scope.cancelled:
            continue
        if length <= seconds:
            call()
        else:
            world.host.timers.append(timer)


def running(world: World, uuid: str = "a", **metadata: Any) -> tuple[str, Message]:
    """Return a task that an engine runs, and the request."""
    msg_id = world.submit(**metadata)
    [request] = [one for one in sent(world, "task_out") if one.header.msg_id == msg_id]
    assert request.idents[0] == uuid.encode()
    return msg_id, request


def late_signal(world: World) -> str:
    """Cancel a task that ends just before the signal to its engine lands, and return its msg_id."""
    msg_id, request = running(world)
    cancel(world, msg_id)
    world.answer("a", request)
    [signal] = sent(world, "control_out")
    land(world, "a", signal)
    return msg_id


def test_a_task_that_waits_is_withdrawn() -> None:
    world = World()
    msg_id = world.submit()
    assert cancel(world, msg_id, by="ann") == {msg_id: "withdrawn"}
    assert errors(world) == [(msg_id, "TaskCancelled")]
    record = world.record(msg_id)
    assert record["result_content"]["evalue"].startswith("cancelled by ann at ")
    assert record["result_metadata"]["cancelled"]["by"] == "ann"
    assert record["result_metadata"]["cancelled"]["took"] == "no engine had it"
    assert TaskCancelled(msg_id, "ann", "withdrawn") in world.host.events
    world.engine("a")
    assert not sent(world, "task_out")


def test_a_task_of_a_stock_engine_gets_sigint_by_its_nanny() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    assert cancel(world, msg_id) == {msg_id: "interrupted"}
    [signal] = sent(world, "control_out")
    assert signal.header.msg_type == "signal_request"
    assert world.content(signal) == {"sig": "SIGINT"}
    land(world, "a", signal)
    assert not sent(world, "task_in")
    world.answer("a", request, HIT)
    assert errors(world) == [(msg_id, "TaskCancelled")]
    took = world.record(msg_id)["result_metadata"]["cancelled"]["took"]
    assert took.startswith("it was interrupted, and ended after ")
    assert running(world)[1].idents[0] == b"a", "the engine is free"


def test_a_task_of_an_engine_of_ours_is_named() -> None:
    world = World()
    world.engine("a", aims_interrupts=True)
    msg_id, request = running(world)
    cancel(world, msg_id)
    [interrupt] = sent(world, "control_out")
    assert interrupt.header.msg_type == "interrupt_request"
    assert world.content(interrupt) == {"msg_id": msg_id, "withdraw": True}
    land(world, "a", interrupt, did="interrupted")
    world.answer("a", request, HIT)
    assert errors(world) == [(msg_id, "TaskCancelled")]


@pytest.mark.parametrize("status", ["ok", "error", "aborted"])
def test_the_client_gets_the_cancellation_whatever_the_engine_answers(status: str) -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world, retries=3)
    cancel(world, msg_id)
    world.answer("a", request, {"status": status, "ename": "ValueError", "evalue": "x"})
    assert errors(world) == [(msg_id, "TaskCancelled")]
    world.answer("a", request, {"status": status})
    assert not sent(world, "task_in")


def test_a_second_cancel_changes_nothing() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    assert cancel(world, msg_id) == cancel(world, msg_id) == {msg_id: "interrupted"}
    assert len(sent(world, "control_out")) == 1
    world.answer("a", request, HIT)
    assert errors(world) == [(msg_id, "TaskCancelled")]
    assert cancel(world, msg_id) == {msg_id: "finished"}
    assert cancel(world, "never heard of") == {"never heard of": "unknown"}


def test_the_engine_is_held_until_the_signal_has_landed() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    cancel(world, msg_id)
    world.answer("a", request)  # it had ended before the signal came
    waiting = world.submit()
    called = world.call("a")
    assert not sent(world, "task_out")
    assert not sent(world, "mux_out")
    [signal] = sent(world, "control_out")
    land(world, "a", signal)
    assert [request.header.msg_id for request in sent(world, "task_out")] == [waiting]
    assert [request.header.msg_id for request in sent(world, "mux_out")] == [called]


def test_a_keyboard_interrupt_shows_that_the_signal_has_landed() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    waiting = world.submit()
    cancel(world, msg_id)
    world.answer("a", request, HIT)
    assert [request.header.msg_id for request in sent(world, "task_out")] == [waiting]


def test_a_nanny_that_does_not_answer_holds_the_engine_only_for_a_while() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    cancel(world, msg_id)
    world.answer("a", request)
    waiting = world.submit()
    pass_time(world, 60)
    assert [request.header.msg_id for request in sent(world, "task_out")] == [waiting]


def test_a_signal_that_lands_after_the_hold_still_counts_as_under_way() -> None:
    world = World()
    world.engine("a")
    _, request = running(world)
    cancel(world, world.read(request.frames).header.msg_id)
    world.answer("a", request)
    [signal] = sent(world, "control_out")
    pass_time(world, 10.0)  # the nanny does not answer, so the engine gets work again
    world.answer("a", running(world)[1])
    hit, request = running(world)
    world.answer("a", request, HIT)  # only now the signal has landed
    [again] = sent(world, "task_out")
    assert again.header.msg_id == hit
    land(world, "a", signal)
    world.answer("a", again, HIT)
    assert errors(world)[-1] == (hit, "KeyboardInterrupt"), "there was one signal"


def test_a_signal_whose_answer_is_an_error_may_have_landed() -> None:
    world = World()
    world.engine("a")
    first, request = running(world)
    cancel(world, first)
    world.answer("a", request)
    [signal] = sent(world, "control_out")
    error = {"ename": "EngineError", "evalue": "the connection broke while it was under way", "traceback": []}
    world.answer("a", signal, {"status": "error"} | error, channel="control_out")
    second, request = running(world)
    world.answer("a", request, HIT)
    [again] = sent(world, "task_out")
    assert again.header.msg_id == second


def test_the_next_task_is_run_again_if_it_was_hit() -> None:
    world = World()
    world.engine("a")
    first = late_signal(world)
    second, request = running(world)
    world.answer("a", request, HIT)
    assert errors(world) == [(first, "TaskCancelled")]
    [again] = sent(world, "task_out")
    assert again.header.msg_id == second
    world.answer("a", again, HIT)  # there was one signal: this is the task's own
    assert errors(world) == [(second, "KeyboardInterrupt")]
    assert world.hub.work.interrupts.hits == 1


def test_a_task_after_the_window_fails_by_itself() -> None:
    world = World()
    world.engine("a")
    late_signal(world)
    world.answer("a", running(world)[1])
    third, request = running(world)
    world.answer("a", request, HIT)
    assert errors(world)[-1] == (third, "KeyboardInterrupt")


def test_tasks_behind_the_cancelled_one_are_run_again_if_they_are_hit() -> None:
    world = World(hwm=3)
    world.engine("a")
    requests = [running(world) for _ in range(3)]
    cancel(world, requests[0][0])
    [signal] = sent(world, "control_out")
    world.answer("a", requests[0][1])
    world.answer("a", requests[1][1], HIT)
    land(world, "a", signal)
    assert errors(world) == [(requests[0][0], "TaskCancelled")]
    [again] = sent(world, "task_out")
    assert again.header.msg_id == requests[1][0]


def test_a_task_behind_others_is_aborted_and_interrupted_only_when_it_runs() -> None:
    world = World(hwm=2)
    world.engine("a")
    (_, first), (second, request) = running(world), running(world)
    cancel(world, second)
    [abort] = sent(world, "control_out")
    assert world.content(abort) == {"msg_ids": [second]}
    pass_time(world, 1.0)
    assert not sent(world, "control_out")
    world.answer("a", first)
    assert kinds(sent(world, "control_out")) == ["signal_request"]
    world.answer("a", request, {"status": "aborted"})
    assert errors(world)[1:] == [(second, "TaskCancelled")]
    assert world.record(second)["result_metadata"]["cancelled"]["took"] == "it had not begun"


def test_a_direct_request_before_a_task_is_not_hit() -> None:
    world = World()
    world.engine("a")
    world.call("a")
    [direct] = sent(world, "mux_out")
    msg_id, _ = running(world)
    cancel(world, msg_id)
    assert kinds(sent(world, "control_out")) == ["abort_request"]
    world.answer("a", direct, channel="mux_out")
    assert kinds(sent(world, "control_out")) == ["signal_request"]


def test_a_direct_request_behind_a_task_does_not_keep_the_task_from_being_interrupted() -> None:
    world = World()
    world.engine("a")
    msg_id, _ = running(world)
    called = world.call("a")
    sent(world, "mux_out")
    assert cancel(world, called) == {called: "interrupted"}
    assert kinds(sent(world, "control_out")) == ["abort_request"]
    cancel(world, msg_id)
    assert kinds(sent(world, "control_out")) == ["signal_request"]


def test_a_direct_request_that_was_hit_is_not_run_again() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    called = world.call("a")
    [direct] = sent(world, "mux_out")
    cancel(world, msg_id)
    world.answer("a", request)
    world.answer("a", direct, HIT, channel="mux_out")
    assert errors(world, "mux_in") == [(called, "EngineError")]


def test_a_direct_request_is_cancelled() -> None:
    world = World()
    world.engine("a")
    called = world.call("a")
    [direct] = sent(world, "mux_out")
    assert cancel(world, called) == {called: "interrupted"}
    world.answer("a", direct, HIT, channel="mux_out")
    assert errors(world, "mux_in") == [(called, "TaskCancelled")]


def broadcast(world: World, uuids: list[str], *, gather: bool) -> tuple[str, dict[str, Message]]:
    metadata = {"targets": [(uuid, 0) for uuid in uuids], "is_broadcast": True, "is_coalescing": gather}
    frames = world.client.session.write("apply_request", {}, metadata=metadata)
    world.hub.dispatch_monitor_traffic("broadcast_in", [world.client.ident, *frames])
    shares = sent(world, "broadcast_out")
    return world.read(frames).header.msg_id, {share.idents[0].decode(): share for share in shares}


def test_a_gathered_broadcast_is_cancelled_as_a_whole() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    msg_id, shares = broadcast(world, ["a", "b"], gather=True)
    assert cancel(world, msg_id) == {msg_id: "interrupted"}
    assert kinds(sent(world, "control_out")) == ["signal_request"] * 2
    for uuid, share in shares.items():
        assert not sent(world, "broadcast_in")
        world.answer(uuid, share, HIT, channel="broadcast_out")
    assert errors(world, "broadcast_in") == [(msg_id, "TaskCancelled")]


def test_one_share_of_a_gathered_broadcast_is_cancelled() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    msg_id, shares = broadcast(world, ["a", "b"], gather=True)
    share = sub_msg_id(msg_id, "b")
    assert cancel(world, share) == {share: "interrupted"}
    world.answer("b", shares["b"], HIT, channel="broadcast_out")
    world.answer("a", shares["a"], channel="broadcast_out")
    [answer] = sent(world, "broadcast_in")
    assert set(world.content(answer)["errors"]) == {"b"}
    assert world.content(answer)["ename"] == "TaskCancelled"


def test_all_shares_of_another_broadcast_are_cancelled() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    msg_id, shares = broadcast(world, ["a", "b"], gather=False)
    assert cancel(world, msg_id) == {msg_id: "interrupted"}
    for uuid, share in shares.items():
        world.answer(uuid, share, HIT, channel="broadcast_out")
    assert errors(world, "broadcast_in") == [(sub_msg_id(msg_id, uuid), "TaskCancelled") for uuid in "ab"]


def killed(world: World, engine: EngineConnector) -> str:
    """Return the msg_id of a task that does not end after its cancel, so that its engine is killed."""
    msg_id, _ = running(world, engine.uuid)
    cancel(world, msg_id, grace=3.0)
    sent(world, "control_out")
    pass_time(world, 3.0)
    assert world.host.killed == [engine]
    return msg_id


def test_an_engine_whose_task_does_not_end_is_killed() -> None:
    world = World()
    engine = world.engine("a")
    world.host.local = {"a"}
    msg_id = killed(world, engine)
    assert not sent(world, "control_out"), "the host has killed it"
    world.hub.lose_engine(engine, "ended", "killed by signal 9 (SIGKILL)")
    assert errors(world) == [(msg_id, "TaskCancelled")]
    took = world.record(msg_id)["result_metadata"]["cancelled"]["took"]
    assert took == "it had not ended 3 s after it was interrupted, and its engine was killed"


def test_an_engine_elsewhere_is_killed_by_its_nanny() -> None:
    world = World()
    engine = world.engine("a")
    killed(world, engine)
    [signal] = sent(world, "control_out")
    assert world.content(signal) == {"sig": "SIGKILL"}


def test_the_tasks_behind_are_run_elsewhere_if_the_engine_is_killed() -> None:
    world = World(hwm=2)
    engine = world.engine("a")
    first, _ = running(world)
    second, _ = running(world)
    cancel(world, first, grace=3.0)
    pass_time(world, 3.0)
    world.hub.lose_engine(engine, "ended")
    assert errors(world) == [(first, "TaskCancelled")]
    world.engine("b")
    [again] = sent(world, "task_out")
    assert (again.idents[0], again.header.msg_id) == (b"b", second)


def ended_while_killed(world: World) -> tuple[EngineConnector, Message, str]:
    """Return an engine that is being killed although its request has ended, its SIGKILL, and a task behind."""
    engine = world.engine("a")
    first, request = running(world)
    second, _ = running(world, retries=0)
    cancel(world, first, grace=3.0)
    [signal] = sent(world, "control_out")
    land(world, "a", signal)
    pass_time(world, 3.0)
    world.answer("a", request, HIT)
    assert errors(world) == [(first, "TaskCancelled")]
    [signal] = sent(world, "control_out")
    return engine, signal, second


def test_a_task_behind_is_run_elsewhere_if_the_engine_is_killed_after_the_cancelled_one_has_ended() -> None:
    world = World(hwm=2)
    engine, _, second = ended_while_killed(world)
    world.hub.lose_engine(engine, "ended", "killed by signal 9 (SIGKILL)")
    world.hub.handle_stranded(engine)
    assert not errors(world), "the attempt does not count"
    world.engine("b")
    assert [request.header.msg_id for request in sent(world, "task_out")][-1] == second


def test_an_engine_that_is_being_killed_gets_no_new_work() -> None:
    world = World(hwm=2)
    engine, _, _ = ended_while_killed(world)
    sent(world, "task_out")
    waiting = world.submit()
    pass_time(world, 5.0)
    assert not sent(world, "task_out")
    pass_time(world, 10.0)
    assert not engine.state.is_registered, "it has not died in time"
    world.engine("b")
    assert waiting in [request.header.msg_id for request in sent(world, "task_out")]


def test_an_engine_that_cannot_be_killed_gets_work_again_when_its_task_has_ended() -> None:
    world = World(hwm=2)
    engine, signal, _ = ended_while_killed(world)
    world.answer("a", signal, {"status": "error", "ename": "x", "evalue": "y"}, channel="control_out")
    sent(world, "task_out")
    waiting = world.submit()
    assert [request.header.msg_id for request in sent(world, "task_out")] == [waiting]
    pass_time(world, 10.0)
    assert engine.state.is_registered
    assert not engine.held


def test_an_engine_that_cannot_be_killed_and_whose_task_goes_on_gets_no_work() -> None:
    world = World()
    engine = world.engine("a")
    msg_id, request = running(world)
    cancel(world, msg_id, grace=3.0)
    [interrupt] = sent(world, "control_out")
    land(world, "a", interrupt)
    sent(world, "task_out")
    pass_time(world, 3.0)
    [signal] = sent(world, "control_out")
    world.answer("a", signal, {"status": "error", "ename": "x", "evalue": "y"}, channel="control_out")
    waiting = world.submit()
    assert not sent(world, "task_out")
    world.answer("a", request, HIT)
    assert [request.header.msg_id for request in sent(world, "task_out")] == [waiting]
    assert engine.state.is_registered


@pytest.mark.parametrize("reason", ["ended", "died", "request"])
def test_the_next_task_is_run_again_if_the_signal_has_ended_its_engine(reason: str) -> None:
    world = World()
    engine = world.engine("a")
    first = late_signal(world)
    second, _ = running(world, rules={"max_attempts": 1})
    world.hub.lose_engine(engine, reason)
    world.hub.handle_stranded(engine)
    assert errors(world) == [(first, "TaskCancelled")]
    world.engine("b")
    [again] = sent(world, "task_out")
    assert (again.idents[0], again.header.msg_id) == (b"b", second)
    task = world.hub.tasks.scheduler.tasks[second]
    assert (task.attempts, task.deaths) == (1, ())


@pytest.mark.parametrize("case", ["ours", "silent", "later"])
def test_another_death_counts(case: str) -> None:
    """An engine of ours, one whose process may still run, and one that has carried out a request after the signal."""
    world = World()
    engine = world.engine("a", aims_interrupts=case == "ours")
    late_signal(world)
    if case == "later":
        world.answer("a", running(world)[1])
        sent(world, "task_in")
    second, _ = running(world)
    world.hub.lose_engine(engine, "heart" if case == "silent" else "died")
    world.hub.handle_stranded(engine)
    assert errors(world)[-1] == (second, "EngineError")


def test_an_engine_that_cannot_be_killed_is_lost() -> None:
    world = World()
    engine = world.engine("a")
    msg_id = killed(world, engine)
    pass_time(world, 10.0)
    assert not engine.state.is_registered
    assert errors(world) == [(msg_id, "TaskCancelled")]


def test_the_end_of_the_engine_answers_the_client_at_once() -> None:
    world = World()
    engine = world.engine("a")
    msg_id, _ = running(world, retries=5)
    cancel(world, msg_id)
    world.hub.lose_engine(engine, "heart")
    assert errors(world) == [(msg_id, "TaskCancelled")]
    world.engine("b")
    assert not sent(world, "task_out")
    world.hub.handle_stranded(engine)
    assert not sent(world, "task_in")


def test_an_answer_that_was_lost_ends_the_cancel() -> None:
    """A signal can hit the engine while it writes its answer: the answer to a question shows it."""
    world = World()
    world.engine("a")
    msg_id, _ = running(world)
    cancel(world, msg_id)
    [signal] = sent(world, "control_out")
    land(world, "a", signal)
    [question] = sent(world, "task_out")
    world.answer("a", question)
    assert errors(world) == [(msg_id, "TaskCancelled")]


def test_an_engine_of_ours_that_does_not_run_the_request_yet_is_asked_again() -> None:
    world = World(hwm=2)
    world.engine("a", aims_interrupts=True)
    running(world)
    second, request = running(world)
    cancel(world, second)
    [interrupt] = sent(world, "control_out")
    land(world, "a", interrupt, did="withdrawn")
    world.answer("a", request, {"status": "aborted"})
    assert errors(world) == [(second, "TaskCancelled")]


def test_a_task_that_waits_for_its_engines_connection_is_withdrawn() -> None:
    world = World()
    world.engine("a")
    world.host.unreachable = {b"a"}
    msg_id = world.submit()
    assert cancel(world, msg_id) == {msg_id: "withdrawn"}
    assert errors(world) == [(msg_id, "TaskCancelled")]


def test_a_cancel_that_overtakes_its_request_counts() -> None:
    world = World()
    frames = world.client.session.write("apply_request", {}, buffers=(b"f",))
    msg_id = world.read(frames).header.msg_id
    assert cancel(world, msg_id) == {msg_id: "unknown"}
    world.hub.dispatch_monitor_traffic("task_in", [world.client.ident, *frames])
    assert errors(world) == [(msg_id, "TaskCancelled")]


def test_many_tasks_are_cancelled_a_few_at_a_time() -> None:
    world = World()
    msg_ids = [world.submit() for _ in range(1100)]
    assert set(cancel(world, *msg_ids).values()) == {"withdrawn"}
    assert len(sent(world, "task_in")) == 500
    pass_time(world, 0.0)
    pass_time(world, 0.0)
    assert len(sent(world, "task_in")) == 600
    assert not world.hub.tasks.scheduler.tasks


@pytest.mark.parametrize("content", [{}, {"msg_ids": [1]}, {"msg_ids": ["a"], "grace": "soon"}])
def test_a_wrong_request_is_refused(content: dict[str, Any]) -> None:
    assert World().query("cancel_request", content)["status"] == "error"


# Restart


def test_a_cancel_in_flight_goes_on_after_a_restart_of_the_hub() -> None:
    world = World(store=DurableStore())
    world.engine("a")
    msg_id, request = running(world)
    called = world.call("a")
    [direct] = sent(world, "mux_out")
    cancel(world, msg_id, called, by="ann")
    world.answer_questions()
    world = crashed(world)
    world.beat("a")
    world.answer_questions()
    assert msg_id in world.hub.work.interrupts.open
    assert called in world.hub.work.interrupts.open
    world.take("task_in")
    world.answer("a", request, HIT)
    world.answer("a", direct, HIT, channel="mux_out")
    assert world.record(msg_id)["result_metadata"]["cancelled"]["by"] == "ann"
    assert world.record(called)["result_content"]["ename"] == "TaskCancelled"


def test_a_signal_of_an_earlier_hub_that_hits_the_next_task_counts() -> None:
    world = World(store=DurableStore(), hwm=2)
    world.engine("a")
    first, request = running(world)
    second, behind = running(world)
    cancel(world, first)
    world.answer("a", request)
    assert errors(world) == [(first, "TaskCancelled")]
    world = crashed(world)
    world.beat("a")
    world.answer("a", behind, HIT)
    assert second in world.hub.tasks.scheduler.tasks, "it is run again"
    assert not errors(world)
    assert world.hub.work.interrupts.hits == 1
    world.answer_questions()
    world.answer("a", [one for one in sent(world, "task_out") if one.header.msg_id == second][-1], HIT)
    assert errors(world) == [(second, "KeyboardInterrupt")], "there was one signal"
    assert not world.hub.parts.work.interrupts._attention.engines


def test_a_task_behind_is_run_elsewhere_for_free_if_an_earlier_hub_was_killing_the_engine() -> None:
    world = World(store=DurableStore(), hwm=2)
    world.engine("a")
    first, request = running(world)
    second, _ = running(world, retries=0)
    cancel(world, first, grace=3.0)
    pass_time(world, 3.0)
    world.answer("a", request, HIT)
    assert errors(world) == [(first, "TaskCancelled")]
    world = crashed(world)
    world.hub.lose_engine(world.hub.engines.by_ident[b"a"], "heart")
    world.engine("b")
    world.answer_questions()
    assert [one.header.msg_id for one in sent(world, "task_out")] == [second]
    assert not errors(world)
