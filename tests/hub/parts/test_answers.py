from __future__ import annotations

from typing import Any

import pytest

from trio_hub.errors import EngineError, TaskAborted
from trio_hub.hub.answers import Asked
from trio_hub.hub.records import init_record
from trio_hub.records import MemoryStore
from trio_hub.wire.messages import Message, ResultMetadata

from ..durable import DurableStore
from .bench import Bench


def asked(bench: Bench) -> tuple[Message, Asked]:
    """Return a request that has a record."""
    msg = bench.message()
    bench.store.add(init_record(msg, bench.session.packer, queue="task", now=bench.clock))
    return msg, Asked.by("task_in", msg.idents, msg)


def test_the_idle_status_that_an_engine_leaves_to_the_hub_follows_its_answer() -> None:
    bench = Bench()
    for wanted in (False, True):
        bench.host.has_subscribers = wanted
        msg, request = asked(bench)
        reply = bench.reply_to("a", msg, idle_topic="engine.3.status")
        bench.answers.save_result("task", b"a", reply, request, bench.answers.metadata_of(reply), "ok")
        channels = [channel for channel, _ in bench.host.sent]
        assert channels == ["task_in", "iopub_out"][: 1 + wanted]
        if wanted:
            [status] = bench.sent("iopub_out")
            assert status.idents == [b"engine.3.status"]
            assert (status.header.msg_type, status.parent.msg_id) == ("status", request.msg_id)
            assert bench.session.content(status) == {"execution_state": "idle"}
            assert bench.session.metadata(status) == {"engine": "a"}
        bench.host.sent.clear()


@pytest.mark.parametrize("method", ["is_wanted", "send"])
def test_a_failure_with_an_idle_status_affects_nothing_else(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    def fail(channel: str, frames: object) -> bool:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(bench.host, method, fail)
    msg, _ = asked(bench)
    bench.answers.publish_idle(b"a", bench.reply_to("a", msg), "engine.3.status")
    assert bench.notices.internal_errors == {"idle status": 1}


def test_an_engines_answer_is_recorded_sent_and_counted() -> None:
    bench = Bench()
    msg, request = asked(bench)
    bench.answers.save_result("task", b"a", bench.reply_to("a", msg), request, ResultMetadata(), "ok")
    [sent] = bench.sent("task_in")
    assert sent.idents == [b"client", b"a"]
    assert bench.record(request.msg_id).completed is not None
    assert bench.answers.outcomes["task"] == {"ok": 1, "error": 0, "aborted": 0}


@pytest.mark.parametrize(("error", "outcome"), [(EngineError("gone"), "error"), (TaskAborted("gone"), "aborted")])
def test_an_error_is_recorded_sent_and_counted(error: Any, outcome: str) -> None:
    bench = Bench()
    _, request = asked(bench)
    bench.answers.fail(request, "a", error)
    assert bench.contents("task_in")[0]["status"] == outcome
    assert bench.record(request.msg_id).completed is not None
    assert bench.answers.outcomes["task"][outcome] == 1


def test_a_strict_hub_sends_an_answer_when_it_is_on_disk() -> None:
    store = DurableStore(auto=False)
    bench = Bench(store, strict=True)
    _, request = asked(bench)
    bench.answers.fail(request, None, EngineError("gone"))
    assert bench.sent("task_in") == []
    assert bench.answers.unsaved == {request.msg_id}
    store.commit()
    assert len(bench.sent("task_in")) == 1
    assert bench.answers.unsaved == set()


def test_an_answer_for_a_client_that_is_away_is_owed() -> None:
    bench = Bench()
    _, request = asked(bench)
    bench.host.gone = {b"client"}
    bench.answers.fail(request, None, EngineError("gone"))
    assert bench.owed.clients.owed == 1


@pytest.mark.parametrize("times", [1, 2, 100])
def test_a_record_that_cannot_be_changed_does_not_keep_the_answer_back(times: int) -> None:
    class Failing(MemoryStore):
        left = times

        def update(self, msg_id: str, changes: dict[str, Any]) -> None:
            if self.left:
                self.left -= 1
                raise ZeroDivisionError("a bug")
            super().update(msg_id, changes)

    bench = Bench(Failing())
    msg, request = asked(bench)
    bench.answers.save_result("task", b"a", bench.reply_to("a", msg), request, ResultMetadata(), "ok")
    [content] = bench.contents("task_in")
    assert (content["ename"], content["status"]) == ("HubError", "error")
    assert (bench.record(request.msg_id).completed is not None) == (times < 3)
    assert sum(bench.answers.outcomes["task"].values()) == 1
