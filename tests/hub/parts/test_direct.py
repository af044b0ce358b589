from __future__ import annotations

from trio_hub.errors import HubError
from trio_hub.hub.direct import DirectQueue
from trio_hub.wire.messages import Message

from .bench import Bench


def queue_on(bench: Bench) -> DirectQueue:
    queue = DirectQueue(bench.host, bench.session, bench.clock, request_ended=bench.request_ended, **bench.below)
    bench.routes.connect({"mux_out": queue})
    return queue


def called(bench: Bench, queue: DirectQueue, uuid: str = "a") -> Message:
    msg = bench.message()
    queue.save_queue_request([b"client", uuid.encode()], msg)
    return msg


def test_a_request_goes_to_its_engine_and_the_answer_back() -> None:
    bench = Bench()
    queue = queue_on(bench)
    engine = bench.engine()
    msg = called(bench, queue)
    assert msg.header.msg_id in queue.unanswered.pending
    assert queue.outstanding(engine) == [msg.header.msg_id]
    queue.save_queue_result([b"a"], bench.reply_to("a", msg))
    assert [sent.parent.msg_id for sent in bench.sent("mux_in")] == [msg.header.msg_id]
    assert [(msg_id, outcome.ok) for msg_id, outcome in bench.ended] == [(msg.header.msg_id, True)]


def test_a_request_to_nobody_is_recorded_and_answered() -> None:
    bench = Bench()
    msg = called(bench, queue_on(bench), "nobody")
    assert "not registered" in bench.contents("mux_in")[0]["evalue"]
    assert bench.record(msg.header.msg_id).completed is not None


def test_a_late_answer_of_a_lost_engine_is_recorded() -> None:
    bench = Bench()
    queue = queue_on(bench)
    engine = bench.engine()
    msg = called(bench, queue)
    queue.engine_lost(engine)
    assert "died while running" in bench.contents("mux_in")[0]["evalue"]
    assert queue.owes_answers(engine)
    queue.save_queue_result([b"a"], bench.reply_to("a", msg))
    assert bench.notices.ignored == {"late_result": 1}
    assert bench.record(msg.header.msg_id).as_dict(("result_content",))["result_content"] == {"status": "ok"}
    queue.engine_settled(engine)
    assert not queue.owes_answers(engine)


def test_what_is_given_up_is_answered_once() -> None:
    bench = Bench()
    queue = queue_on(bench)
    engine = bench.engine()
    first, second = called(bench, queue), called(bench, queue)
    for _ in range(2):
        queue.give_up(b"a", first.header.msg_id, HubError("a bug"))
        queue.give_up(b"another", second.header.msg_id, HubError("a bug"))
    queue.answer_lost(engine, second.header.msg_id, "the connection broke")
    assert [content["ename"] for content in bench.contents("mux_in")] == ["HubError", "EngineError"]
    assert queue.unanswered.pending == {}


def test_only_requests_that_are_open_can_be_repeated() -> None:
    bench = Bench()
    queue = queue_on(bench)
    engine = bench.engine()
    msg = called(bench, queue)
    [direct] = queue.repeatable(engine, [msg.header.msg_id, "unknown"])
    assert queue.frames_of(direct, bench.record(msg.header.msg_id)) == msg.frames
