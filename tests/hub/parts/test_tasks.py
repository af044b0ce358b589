from __future__ import annotations

from typing import Any

import pytest

from trio_hub.hub import EngineConnector
from trio_hub.hub.tasks import TaskQueue
from trio_hub.wire.messages import Message
from trio_hub.wire.packers import Packer

from .bench import Bench


def queue_on(bench: Bench, uuids: str = "a") -> tuple[TaskQueue, list[EngineConnector]]:
    queue = TaskQueue(
        bench.host,
        bench.session,
        bench.clock,
        policies=bench.policies,
        assignments=bench.assignments(),
        **bench.below,
    )
    bench.routes.connect({"task_out": queue})
    engines = [bench.engine(uuid, number) for number, uuid in enumerate(uuids)]
    for engine in engines:
        queue.engine_joined(engine)
    return queue, engines


def submitted(bench: Bench, queue: TaskQueue, **metadata: Any) -> Message:
    msg = bench.message(metadata=metadata)
    queue.save_task_request(msg.idents, msg)
    return msg


def test_a_task_goes_to_an_engine_and_its_answer_to_the_client() -> None:
    bench = Bench()
    queue, [engine] = queue_on(bench)
    msg = submitted(bench, queue)
    assert queue.outstanding(engine) == [msg.header.msg_id]
    assert bench.record(msg.header.msg_id).engine_uuid == "a"
    queue.save_task_result([b"a"], bench.reply_to("a", msg))
    assert [sent.parent.msg_id for sent in bench.sent("task_in")] == [msg.header.msg_id]
    assert (queue.submitted, engine.completed, queue.outstanding(engine)) == (1, 1, [])
    queue.save_task_result([b"a"], bench.reply_to("a", msg))
    assert bench.notices.ignored == {"unexpected_result": 1}


def test_a_task_that_fails_goes_to_another_engine_as_a_new_message() -> None:
    bench = Bench()
    queue, _ = queue_on(bench, "ab")
    msg = submitted(bench, queue, retries=1)
    [first] = bench.sent("task_out")
    queue.save_task_result([b"a"], bench.reply_to("a", msg, {"status": "error"}))
    _, second = bench.sent("task_out")
    assert (first.idents[0], second.idents[0]) == (b"a", b"b")
    assert bench.session.metadata(second)["retries"] == 0


def test_an_answer_that_was_lost_makes_a_task_run_again_and_an_engine_that_dies_fails_it() -> None:
    bench = Bench()
    queue, [engine] = queue_on(bench)
    msg = submitted(bench, queue)
    queue.answer_lost(engine, msg.header.msg_id, "cause")
    assert len(bench.sent("task_out")) == 2
    queue.engine_lost(engine)
    assert queue.owes_answers(engine)
    queue.engine_settled(engine)
    assert bench.contents("task_in")[0]["ename"] == "EngineError"


def test_odd_values_in_its_metadata_do_not_keep_a_task_from_a_second_attempt() -> None:
    """Python refuses to read integers of more than 4,300 digits, and msgspec skips those that nobody asks for."""
    bench = Bench()
    queue, [_] = queue_on(bench)
    frames = bench.client.session.write("apply_request", {})
    metadata = b'{"retries": 1, "x": ' + b"1" * 5000 + b"}"
    frames = bench.client.session.seal([frames[2], frames[3], metadata, frames[5]])
    msg = bench.session.read_untrusted([b"client", *frames])
    queue.save_task_request(msg.idents, msg)
    queue.save_task_result([b"a"], bench.reply_to("a", msg, {"status": "error"}))
    queue.save_task_result([b"a"], bench.reply_to("a", msg))
    assert [content["status"] for content in bench.contents("task_in")] == ["ok"]


def test_a_task_whose_metadata_cannot_be_packed_anew_fails_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(packer: Packer, data: bytes, changes: dict[str, Any]) -> bytes:
        raise TypeError("cannot be packed")

    monkeypatch.setattr(Packer, "repacked", fail)
    bench = Bench()
    queue, [engine] = queue_on(bench)
    frames = bench.client.session.write("apply_request", {})
    frames = bench.client.session.seal([frames[2], frames[3], b'{"retries": 1}', frames[5]])
    msg = bench.session.read_untrusted([b"client", *frames])
    queue.save_task_request(msg.idents, msg)
    other = submitted(bench, queue)
    queue.save_task_result([b"a"], bench.reply_to("a", msg, {"status": "error"}))
    assert bench.contents("task_in") == [], "it is queued behind the other"
    queue.save_task_result([b"a"], bench.reply_to("a", other))
    assert [content.get("ename", "ok") for content in bench.contents("task_in")] == ["HubError", "ok"]
    assert bench.record(msg.header.msg_id).completed is not None
    assert queue.outstanding(engine) == []


@pytest.mark.parametrize("broken", ["send", "emit"])
def test_what_fails_at_an_assignment_fails_this_task_only(broken: str) -> None:
    bench = Bench()
    queue, [engine] = queue_on(bench)
    first, second = submitted(bench, queue), submitted(bench, queue)
    works = getattr(bench.host, broken)
    calls = []

    def fail(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise ZeroDivisionError("a bug")
        return works(*arguments)

    setattr(bench.host, broken, fail)
    queue.save_task_result([b"a"], bench.reply_to("a", first))
    assert sum(bench.notices.internal_errors.values()) == 1
    answered = {sent.parent.msg_id for sent in bench.sent("task_in")}
    assert answered == {first.header.msg_id} | ({second.header.msg_id} if broken == "send" else set())
    assert queue.outstanding(engine) == ([] if broken == "send" else [second.header.msg_id])


def test_all_are_answered_when_the_hub_stops() -> None:
    bench = Bench()
    queue, _ = queue_on(bench)
    for _ in range(3):
        submitted(bench, queue)
    bench.intake.close(carried_on=False)
    queue.stop(bench.notices.failed("stop", ZeroDivisionError("a bug")))
    submitted(bench, queue)
    assert [content["ename"] for content in bench.contents("task_in")] == ["HubError"] * 3 + ["EngineError"]
