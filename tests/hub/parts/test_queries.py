from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from trio_hub.hub.events import HubShutdownRequested, RequestsResubmitted
from trio_hub.hub.queries import Queries
from trio_hub.hub.records import init_record
from trio_hub.hub.tasks import TaskQueue

from ..world import run_now
from .bench import Bench


def queries_on(bench: Bench) -> Queries:
    tasks = TaskQueue(
        bench.host,
        bench.session,
        bench.clock,
        policies=bench.policies,
        assignments=bench.assignments(),
        **bench.below,
    )
    bench.routes.connect({"task_out": tasks})
    return Queries(
        bench.host,
        bench.session,
        bench.store,
        bench.notices,
        bench.clock,
        redelivery=bench.redelivery,
        owed=bench.owed,
        answers=bench.answers,
        engines=bench.engines,
        tasks=tasks,
        abort=lambda header, msg_ids: tasks.scheduler.abort(msg_ids),
        is_pending=bench.pending.__contains__,
    )


def answered(outcome: Any) -> dict[str, Any]:
    """Return the content of the reply, after the store has answered the handler."""
    answer = None
    while isinstance(outcome, Generator):
        try:
            answer = run_now(outcome.send(answer))
        except StopIteration as finished:
            outcome = finished.value
    content: dict[str, Any] = outcome.content
    return content


def test_which_engines_there_are_and_what_they_have() -> None:
    bench = Bench()
    queries = queries_on(bench)
    bench.engine("a", 3)
    assert answered(queries.connection_request([], bench.message("connection_request")))["engines"] == {"3": "a"}
    status = answered(queries.queue_status([], bench.message("queue_request", {"targets": [3]})))
    assert status["3"] == {"queue": 0, "completed": 0, "tasks": 0}
    with pytest.raises(IndexError, match="No Such Engine"):
        queries.check_load([], bench.message("load_request", {"targets": [7]}))


def test_a_result_is_pending_completed_or_unknown() -> None:
    bench = Bench()
    queries = queries_on(bench)
    msg = bench.message()
    bench.store.add(init_record(msg, bench.session.packer, queue="task", now=bench.clock))
    bench.store.update(msg.header.msg_id, {"completed": bench.clock(), "result_content": b"{}"})
    bench.pending.add("open")
    asked = bench.message("result_request", {"msg_ids": ["open", msg.header.msg_id]})
    content = answered(queries.get_results([], asked))
    assert (content["pending"], content["completed"]) == (["open"], [msg.header.msg_id])
    with pytest.raises(KeyError, match="No such message"):
        answered(queries.get_results([], bench.message("result_request", {"msg_ids": ["unknown"]})))


def test_a_pending_request_is_not_purged() -> None:
    bench = Bench()
    bench.pending.add("open")
    with pytest.raises(IndexError, match="pending"):
        answered(queries_on(bench).purge_results([], bench.message("purge_request", {"msg_ids": ["open"]})))


def test_a_request_is_run_again_as_a_new_task() -> None:
    bench = Bench()
    queries = queries_on(bench)
    msg = bench.message(buffers=(b"work",))
    bench.store.add(init_record(msg, bench.session.packer, queue="mux", now=bench.clock))
    asked = bench.message("resubmit_request", {"msg_ids": [msg.header.msg_id]})
    [(old, new)] = answered(queries.resubmit_task([], asked))["resubmitted"].items()
    assert old == msg.header.msg_id
    assert bench.record(new).buffers == (b"work",)
    assert bench.record(old).resubmitted == new
    assert RequestsResubmitted(1, asked.header.session, asked.header.user) in bench.host.events


def test_a_client_stops_the_hub() -> None:
    bench = Bench()
    asked = bench.message("shutdown_request")
    queries_on(bench).shutdown_request([], asked)
    assert bench.host.stopped == ["a client's shutdown_request"]
    assert bench.host.events == [HubShutdownRequested(asked.header.session, asked.header.user)]
