from __future__ import annotations

from trio_hub.errors import EngineError, WireError
from trio_hub.hub.replies import Reply, content_of, reply_type

from .bench import Bench


def test_a_reply_goes_to_whoever_asked() -> None:
    bench = Bench()
    msg = bench.message("history_request")
    bench.replies.reply("query", [b"client"], msg, Reply("history_reply", {"status": "ok"}))
    [sent] = bench.sent("query")
    assert (sent.idents, sent.parent.msg_id) == ([b"client"], msg.header.msg_id)


def test_a_refusal_names_the_error_and_counts_what_cannot_be_read() -> None:
    bench = Bench()
    bench.replies.refuse("task_in", [b"client"], bench.message(), EngineError("no"))
    bench.replies.refuse("task_in", [b"client"], bench.message(), WireError("wrong_type", "odd"))
    assert [content["ename"] for content in bench.contents("task_in")] == ["EngineError", "WireError"]
    assert bench.notices.wire_errors == {"wrong_type": 1}


def test_a_client_that_is_gone_is_counted_and_the_hub_itself_gets_nothing() -> None:
    bench = Bench()
    bench.host.gone = {b"client"}
    bench.replies.send_back("control_in", [b"client"], [b"frames"])
    bench.replies.send_back("control_in", [], [b"frames"])
    assert bench.notices.ignored == {"client_gone": 1}
    assert bench.host.sent == []


def test_a_notification_that_cannot_be_packed_is_lost_and_nothing_else() -> None:
    bench = Bench()
    bench.replies.notify("registration_notification", {"id": object()})
    assert bench.notices.internal_errors == {"notification": 1}


def test_names_of_replies_and_contents_of_errors() -> None:
    assert reply_type("apply_request") == "apply_reply"
    assert content_of(KeyError("x"))["evalue"] == "x"
