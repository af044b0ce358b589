from __future__ import annotations

from typing import Any

import pytest

from trio_hub.errors import EngineError
from trio_hub.hub.control import ControlChannel
from trio_hub.hub.events import EngineShutdownRequested
from trio_hub.hub.intake import STOPPED
from trio_hub.wire.messages import Message

from .bench import Bench


def channel_on(bench: Bench) -> ControlChannel:
    channel = ControlChannel(
        bench.session,
        notices=bench.notices,
        replies=bench.replies,
        admission=bench.admission,
        routes=bench.routes,
        engines=bench.engines,
        abort=lambda message, engine: message.frames,
        intake=bench.intake,
    )
    bench.routes.connect({"control_out": channel})
    return channel


def asked(bench: Bench, channel: ControlChannel, msg_type: str = "abort_request", uuid: str = "a") -> Message:
    msg = bench.message(msg_type)
    channel.relay_control_request([b"client", uuid.encode()], msg)
    return msg


def test_a_request_goes_to_its_engine_and_the_answer_back() -> None:
    bench = Bench()
    channel = channel_on(bench)
    engine = bench.engine()
    msg = asked(bench, channel)
    assert channel.owes_answers(engine)
    channel.relay_control_result([b"a"], bench.reply_to("a", msg))
    assert [sent.parent.msg_id for sent in bench.sent("control_in")] == [msg.header.msg_id]
    channel.relay_control_result([b"a"], bench.reply_to("a", msg))
    assert bench.notices.ignored == {"unexpected_result": 1}


def test_a_request_to_nobody_is_refused() -> None:
    bench = Bench()
    asked(bench, channel_on(bench), uuid="nobody")
    assert bench.contents("control_in")[0]["ename"] == "EngineError"


def test_an_engine_that_ends_has_done_as_it_was_asked() -> None:
    bench = Bench()
    channel = channel_on(bench)
    engine = bench.engine()
    for msg_type in ("shutdown_request", "abort_request"):
        asked(bench, channel, msg_type)
    channel.shutdown_engine(engine)
    channel.engine_lost(engine)
    assert bench.contents("control_in") == []
    channel.engine_settled(engine)
    assert [content["status"] for content in bench.contents("control_in")] == ["ok", "error"]


def test_a_channel_that_cannot_be_reached_fails_its_requests() -> None:
    bench = Bench()
    channel = channel_on(bench)
    engine = bench.engine()
    bench.host.unreachable = {b"a"}
    asked(bench, channel)
    channel.give_up_channel(engine)
    channel.give_up_channel(engine)
    assert ["cannot be reached" in content["evalue"] for content in bench.contents("control_in")] == [True]


def test_all_are_answered_when_the_hub_stops() -> None:
    bench = Bench()
    channel = channel_on(bench)
    bench.engine()
    msg = asked(bench, channel)
    channel.stop(EngineError("stopped"))
    assert msg.header.msg_id not in channel.unanswered.pending
    assert len(bench.contents("control_in")) == 1


def test_what_comes_when_the_hub_is_stopping_is_refused_at_once() -> None:
    bench = Bench()
    channel = channel_on(bench)
    bench.engine()
    bench.intake.close(carried_on=False)
    asked(bench, channel)
    assert [content["evalue"] for content in bench.contents("control_in")] == [STOPPED]
    assert bench.sent("control_out") == []


@pytest.mark.parametrize(("content", "told"), [({}, True), ({"restart": False}, True), ({"restart": True}, False)])
def test_who_asks_an_engine_to_stop_is_remembered(content: dict[str, Any], told: bool) -> None:
    bench = Bench()
    channel = channel_on(bench)
    engine = bench.engine()
    asked(bench, channel, "abort_request")
    assert not engine.told_to_stop
    msg = bench.message("shutdown_request", content)
    asked_by = msg.header
    channel.relay_control_request([b"client", b"a"], msg)
    assert engine.told_to_stop is told
    assert bench.host.events[-1] == EngineShutdownRequested(engine.id, "a", not told, asked_by.session, asked_by.user)
    channel.relay_control_request([b"client", b"a"], bench.message("shutdown_request", {"restart": True}))
    assert engine.told_to_stop is told, "it may have begun to stop"


def test_the_page_asks_an_engine_to_stop() -> None:
    bench = Bench()
    channel = channel_on(bench)
    engine = bench.engine()
    channel.shutdown_engine(engine)
    assert engine.told_to_stop
