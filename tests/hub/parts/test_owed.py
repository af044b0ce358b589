from __future__ import annotations

from typing import Any

import pytest

from trio_hub.errors import EngineError
from trio_hub.hub import owed
from trio_hub.hub.answers import Asked
from trio_hub.hub.records import init_record

from .bench import Bench


def owed_result(bench: Bench) -> str:
    msg = bench.message()
    bench.store.add(init_record(msg, bench.session.packer, queue="task", now=bench.clock))
    bench.host.gone = {b"client"}
    bench.answers.fail(Asked.by("task_in", [b"client"], msg), None, EngineError("gone"))
    bench.host.gone = set()
    return msg.header.msg_id


def test_a_client_gets_what_it_is_owed_when_it_speaks_from_elsewhere() -> None:
    bench = Bench()
    msg_id = owed_result(bench)
    bench.owed.heard_of("task_in", [b"elsewhere"], "another")
    assert bench.host.questions == []
    bench.owed.heard_of("task_in", [b"elsewhere"], "client")
    bench.host.answer()
    [sent] = bench.sent("task_in")
    assert (sent.idents, sent.parent.msg_id) == ([b"elsewhere"], msg_id)
    assert bench.owed.clients.owed == 0


def test_what_cannot_be_sent_is_owed_again() -> None:
    bench = Bench()
    owed_result(bench)
    bench.host.gone = {b"elsewhere"}
    bench.owed.heard_of("task_in", [b"elsewhere"], "client")
    bench.host.answer()
    assert bench.owed.clients.owed == 1


def test_a_record_that_cannot_be_sent_is_answered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    msg_id = owed_result(bench)

    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(owed, "reply_frames", broken)
    bench.owed.heard_of("task_in", [b"elsewhere"], "client")
    bench.host.answer()
    [sent] = bench.sent("task_in")
    assert (sent.parent.msg_id, bench.session.content(sent)["ename"]) == (msg_id, "HubError")
    assert bench.owed.clients.owed == 0


def test_a_question_that_cannot_be_asked_loses_nothing() -> None:
    bench = Bench()
    owed_result(bench)

    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    setattr(bench.host, "ask_store", broken)  # noqa: B010
    bench.owed.heard_of("task_in", [b"elsewhere"], "client")
    assert bench.owed.clients.owed == 1
    assert bench.notices.internal_errors == {"owed results": 1}
