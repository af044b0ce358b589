from __future__ import annotations

from typing import Any

import pytest

from trio_hub.hub import EngineConnector, EngineState
from trio_hub.hub.routes import DISCONNECTED
from trio_hub.records.record import TaskRecord
from trio_hub.schedulers.unanswered import Direct

from .bench import Bench, FakeQueue


def test_messages_wait_in_order_for_a_connection() -> None:
    bench = Bench()
    bench.routes.connect({"mux_out": FakeQueue()})
    engine = bench.engine()
    bench.host.unreachable = {b"a"}
    for number in (b"1", b"2"):
        bench.routes.send(engine, "mux_out", [number], "x")
    assert bench.host.to_reach == [(engine, "mux_out")]
    assert not bench.routes.flush(engine, "mux_out")
    bench.host.unreachable = set()
    assert bench.routes.flush(engine, "mux_out")
    assert bench.host.sent == [("mux_out", [b"a", b"1"]), ("mux_out", [b"a", b"2"])]
    assert engine.routes == {}


@pytest.mark.parametrize("broken", ["send", "soon", "reach_engine"])
def test_a_request_that_cannot_be_sent_is_given_up(broken: str) -> None:
    bench = Bench()

    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    setattr(bench.host, broken, fail)
    bench.routes = type(bench.routes)(bench.host, bench.session, bench.notices)
    queue = FakeQueue()
    bench.routes.connect({"mux_out": queue})
    bench.host.unreachable = {b"a"}
    engine = bench.engine()
    bench.routes.send(engine, "mux_out", [b"1"], "x")
    assert queue.given_up == [("x", "the hub failed at send: ZeroDivisionError: a bug")]
    assert engine.routes == {}


@pytest.mark.parametrize("again", [False, True])
def test_a_connection_that_breaks_has_to_be_proved(again: bool) -> None:
    bench = Bench()
    engine = bench.engine()
    msg = bench.message()
    direct = Direct([b"client"], msg.header, msg.raw_header, engine.mux)
    engine.mux.pending[msg.header.msg_id] = direct
    bench.store.add(TaskRecord(msg.header.msg_id))
    queue = FakeQueue([msg.header.msg_id], [direct] if again else [])
    bench.routes.connect({"mux_out": queue})
    bench.routes.engine_connection_lost(engine, "mux_out")
    bench.routes.send(engine, "mux_out", [b"new"], "y")
    assert bench.routes.flush(engine, "mux_out")
    [question] = bench.sent("mux_out")
    assert not bench.routes.heard_probe(b"another", question.header.msg_id)
    assert bench.routes.heard_probe(b"a", question.header.msg_id)
    assert engine.routes == {}
    assert ("mux_out", [b"a", b"new"]) in bench.host.sent
    assert queue.lost == ([] if again else [(msg.header.msg_id, DISCONNECTED)])
    bench.host.answer()
    assert (("mux_out", [b"a", b"client", b"once more"]) in bench.host.sent) is again
    assert len(bench.routes.probes) == again, "the next question is the last"


def test_nothing_is_kept_for_an_engine_that_goes() -> None:
    bench = Bench()
    bench.routes.connect({"mux_out": FakeQueue(["x"])})
    engine = bench.engine()
    bench.routes.some_connection_lost([engine], "mux_out", ())
    bench.routes.engine_connection_lost(engine, "mux_out")
    engine.state = EngineState.LOST
    bench.routes.engine_lost(engine)
    bench.routes.engine_settled(engine)
    assert (engine.routes, bench.routes.probes) == ({}, {})
    assert not bench.routes.owes_answers(engine)


def one_of_two_sent(bench: Bench, channel: str) -> tuple[EngineConnector, FakeQueue, str, str]:
    """Send an engine the first of two requests. Return the engine, the channel's queue, and the msg_ids."""
    engine = bench.engine()
    sent, waits = bench.message().header.msg_id, bench.message().header.msg_id
    queue = FakeQueue([sent, waits])
    bench.routes.connect({channel: queue})
    bench.routes.send(engine, channel, [b"sent"], sent)
    return engine, queue, sent, waits


def test_a_request_that_waits_for_a_proof_was_not_lost() -> None:
    bench = Bench()
    engine, queue, sent, waits = one_of_two_sent(bench, "control_out")
    bench.routes.engine_connection_lost(engine, "control_out")
    bench.routes.send(engine, "control_out", [b"waits"], waits)
    bench.host.sent.clear()
    bench.routes.flush(engine, "control_out")
    [question] = bench.sent("control_out")
    assert bench.routes.heard_probe(b"a", question.header.msg_id)
    assert queue.lost == [(sent, DISCONNECTED)]
    assert bench.host.sent[1:] == [("control_out", [b"a", b"waits"])]


def test_a_message_that_waits_does_not_hide_what_an_unknown_connection_has_lost() -> None:
    bench = Bench()
    engine, queue, sent, waits = one_of_two_sent(bench, "mux_out")
    bench.host.unreachable = {b"a"}
    bench.routes.send(engine, "mux_out", [b"waits"], waits)
    bench.routes.some_connection_lost([engine], "mux_out", ())
    bench.host.unreachable = set()
    bench.host.sent.clear()
    bench.routes.flush(engine, "mux_out")
    [question] = bench.sent("mux_out")
    assert bench.routes.heard_probe(b"a", question.header.msg_id)
    assert queue.lost == [(sent, DISCONNECTED)]
    assert bench.host.sent[1:] == [("mux_out", [b"a", b"waits"])]
