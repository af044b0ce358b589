from __future__ import annotations

from typing import Any

import pytest

from trio_hub.hub.records import init_record
from trio_hub.wire.messages import Message

from .bench import Bench


class Handled:
    def __init__(self, bench: Bench, *, fails: bool = False) -> None:
        self.bench = bench
        self.fails = fails
        self.msg_ids: list[str] = []

    def __call__(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None:
        assert admitted
        self.msg_ids.append(msg.header.msg_id)
        if self.fails:
            raise ZeroDivisionError("a bug")


def test_a_request_is_let_in_and_its_client_is_known() -> None:
    bench = Bench()
    assert bench.admission.admit("task_in", [b"client"], bench.message(), Handled(bench))
    assert bench.owed.clients.places("client", "task_in") == [("task_in", b"client")]


@pytest.mark.parametrize("msg_type", ["apply_reply", "history_request", "comm_open"])
def test_what_is_no_request_is_refused(msg_type: str) -> None:
    bench = Bench()
    assert not bench.admission.admit("task_in", [b"client"], bench.message(msg_type), Handled(bench))
    assert bench.notices.ignored == {"not_a_request": 1}
    assert bench.contents("task_in")[0]["ename"] == "RequestRefused"


def test_a_request_that_is_pending_is_ignored() -> None:
    bench = Bench()
    msg = bench.message()
    bench.pending.add(msg.header.msg_id)
    assert not bench.admission.admit("task_in", [b"client"], msg, Handled(bench))
    assert bench.notices.ignored == {"duplicate_msg_id": 1}


@pytest.mark.parametrize("recorded", [True, False])
def test_a_msg_id_that_came_before_is_looked_up(recorded: bool) -> None:
    bench = Bench()
    handled = Handled(bench)
    msg = bench.message()
    assert bench.admission.admit("task_in", [b"client"], msg, handled)
    if recorded:
        bench.store.add(init_record(msg, bench.session.packer, queue="task", now=bench.clock))
    assert not bench.admission.admit("task_in", [b"client"], msg, handled)
    bench.host.answer()
    assert handled.msg_ids == ([] if recorded else [msg.header.msg_id])
    assert [content["ename"] for content in bench.contents("task_in")] == ["RequestRefused"] * recorded
    assert bench.admission.waiting_bytes == 0


def test_a_handler_that_fails_and_a_store_that_cannot_be_asked_are_answered() -> None:
    bench = Bench()
    handled = Handled(bench, fails=True)
    msg = bench.message()
    bench.admission.admit("task_in", [b"client"], msg, handled)
    bench.admission.admit("task_in", [b"client"], msg, handled)
    bench.host.answer()

    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    setattr(bench.host, "ask_store", broken)  # noqa: B010
    bench.admission.admit("task_in", [b"client"], msg, handled)
    assert [content["ename"] for content in bench.contents("task_in")] == ["HubError", "EngineError"]
    assert bench.notices.internal_errors == {"admission": 2}
