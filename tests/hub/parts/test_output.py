from __future__ import annotations

from typing import Any

import pytest

from trio_hub.hub import EngineState
from trio_hub.hub.output import Output
from trio_hub.hub.usage import EngineUsage
from trio_hub.records.record import TaskRecord
from trio_hub.wire.frames import DELIMITER, Buffer
from trio_hub.wire.messages import Message

from ..world import Peer
from .bench import Bench


def output_on(bench: Bench) -> Output:
    bench.store.add(TaskRecord("x"))
    return Output(bench.host, bench.session, bench.store, bench.notices, bench.engines)


def published(bench: Bench, msg_type: str, content: dict[str, Any]) -> Message:
    parent = bench.session.packer.pack({"msg_id": "x", "msg_type": "apply_request"})
    frames = Peer("a").session.write(msg_type, content, parent=parent)
    return bench.session.read_untrusted([b"topic", *frames])


@pytest.mark.parametrize(
    ("msg_type", "content", "key"),
    [
        ("stream", {"name": "stdout", "text": "hello"}, "stdout"),
        ("execute_input", {"code": "1 + 1"}, "execute_input"),
        ("error", {"ename": "E"}, "error"),
    ],
)
def test_output_is_passed_on_and_recorded(msg_type: str, content: dict[str, Any], key: str) -> None:
    bench = Bench()
    output_on(bench).monitor_iopub_message([b"topic"], published(bench, msg_type, content))
    assert len(bench.sent("iopub_out")) == 1
    assert bench.record("x").as_dict((key,))[key]


def test_what_an_engine_uses_is_noted_and_not_passed_on() -> None:
    bench = Bench()
    engine = bench.engine()
    output = output_on(bench)
    report = {"cpu": 0.5, "rss": 1000, "host": "h" * 300, "host_cores": 8, "new": 1}
    output.monitor_iopub_message([b"topic"], published(bench, "engine_usage", report))
    assert engine.usage == EngineUsage(cpu=0.5, rss=1000, host="h" * 100, host_cores=8)
    output.monitor_iopub_message([b"topic"], published(bench, "engine_usage", {"rss": "much"}))
    assert bench.notices.wire_errors == {"wrong_type": 1}
    assert engine.usage.rss == 1000
    bench.engines.lose_engine(engine, "request")
    output.monitor_iopub_message([b"topic"], published(bench, "engine_usage", {}))  # its engine is gone
    assert bench.sent("iopub_out") == []


def test_what_is_odd_is_counted() -> None:
    bench = Bench()
    output = output_on(bench)
    output.monitor_iopub_message([b"topic"], published(bench, "stream", {"name": "elsewhere", "text": "hello"}))
    output.monitor_iopub_message([b"topic"], published(bench, "apply_reply", {}))
    assert bench.notices.wire_errors == {"wrong_type": 1}
    assert bench.notices.ignored == {"not_output": 1}


@pytest.mark.parametrize(
    ("msg_type", "alone", "subscribed"),
    [
        *(("status", False, True), ("comm_msg", False, True)),
        *(("stream", True, True), ("shutdown_reply", True, True), ("apply_reply", True, True)),
        ("engine_usage", True, True),
    ],
)
def test_what_nobody_wants_is_of_no_use(msg_type: str, alone: bool, subscribed: bool) -> None:
    bench = Bench()
    output = output_on(bench)
    frames = [b"topic", *Peer("a").session.write(msg_type, {})]
    assert output.is_of_use(frames) is subscribed
    bench.host.has_subscribers = False
    assert output.is_of_use(frames) is alone


@pytest.mark.parametrize("frames", [[], [b"topic"], [DELIMITER, b""], [DELIMITER, b"", b"{"], [DELIMITER, b"", b"{}"]])
def test_what_cannot_be_read_is_looked_at(frames: list[Buffer]) -> None:
    """The hub reads such output all the same, so that it is counted."""
    bench = Bench()
    bench.host.has_subscribers = False
    assert output_on(bench).is_of_use(frames)


def test_an_engine_that_says_that_it_ends_is_lost() -> None:
    bench = Bench()
    engine = bench.engine()
    output_on(bench).monitor_iopub_message([b"topic"], published(bench, "shutdown_reply", {}))
    assert engine.state is EngineState.LOST
