"""Clients' queries, and the answers."""

from __future__ import annotations

from typing import Any

import pytest

from trio_hub.client.packing import pack_call, pack_function
from trio_hub.hub.events import TaskSubmitted
from trio_hub.records import NullStore
from trio_hub.records.record import RECORD_KEYS

from .durable import DurableStore
from .test_broadcasting import broadcast
from .world import Peer, World, run_now


def finished(world: World, uuid: str = "a", *, buffers: tuple[bytes, ...] = (b"r",), **metadata: Any) -> str:
    """Have the engine `uuid` answer a direct request, and return its msg_id."""
    msg_id = world.call(uuid, **metadata)
    [(_, request)] = world.take("mux_out")
    world.answer(uuid, request, channel="mux_out", buffers=buffers)
    world.take()
    return msg_id


def test_an_unknown_message_type_is_named() -> None:
    reply = World().query("nonsense_request")
    assert (reply["status"], reply["ename"]) == ("error", "KeyError")
    assert "nonsense_request" in reply["evalue"]
    assert reply["engine_info"] == {}


@pytest.mark.parametrize(
    ("msg_type", "content"),
    [
        ("queue_request", {"targets": [99]}),
        ("queue_request", {"targets": "no such uuid"}),
        ("queue_request", {"targets": 1.5}),
        ("queue_request", {"targets": [True]}),
        ("queue_request", {"targets": []}),
        ("queue_request", []),
        ("load_request", {"targets": [99]}),
        ("load_request", 5),
        ("result_request", {}),
        ("result_request", {"msg_ids": [1]}),
        ("result_request", {"msg_ids": ["unknown"]}),
        ("result_request", "x"),
        ("db_request", {"query": {"nonsense": 1}}),
        ("db_request", {"query": {"msg_id": {"$nonsense": 1}}}),
        ("db_request", {"query": [1]}),
        ("db_request", {"keys": ["nonsense"]}),
        ("db_request", {"keys": 5}),
        ("db_request", []),
        ("purge_request", {"msg_ids": 5}),
        ("purge_request", {"engine_ids": [99]}),
        ("purge_request", []),
        ("resubmit_request", {"msg_ids": ["unknown"]}),
        ("resubmit_request", {}),
        ("unregistration_request", []),
        ("registration_request", "x"),
        ("become_dask_request", {"scheduler_args": 5}),
        ("details_request", {}),
        ("details_request", {"msg_ids": [1]}),
        ("details_request", {"msg_ids": ["a"] * 501}),
    ],
)
def test_unusable_queries_are_answered_with_what_is_wrong(msg_type: str, content: Any) -> None:
    world = World()
    world.engine("a")
    frames = world.client.session.write(msg_type, content)
    world.take()
    world.hub.dispatch_query([b"client", *frames])
    [reply] = world.replies("query")
    assert reply["status"] == "error"
    assert reply["ename"]
    assert reply["evalue"]
    assert world.query("connection_request")["engines"] == {"0": "a"}, "and the hub goes on"


def test_queue_status_counts_and_lists() -> None:
    world = World(hwm=2)
    world.engine("a")
    world.engine("b")
    done = finished(world, "a")
    direct = world.call("a")
    tasks = [world.submit(targets=["a"]) for _ in range(3)]
    status = world.query("queue_request", {"targets": None})
    assert status == {
        "status": "ok",
        "0": {"queue": 1, "completed": 1, "tasks": 2},
        "1": {"queue": 0, "completed": 0, "tasks": 0},
        "unassigned": 1,
    }
    status = world.query("queue_request", {"targets": [0], "verbose": True})
    assert status == {
        "status": "ok",
        "0": {"queue": [direct], "completed": [done], "tasks": tasks[:2]},
        "unassigned": [tasks[2]],
    }
    assert "1" in world.query("queue_request", {"targets": "b"}), "a uuid names an engine too"
    assert world.query("load_request", {"targets": None}) == {"status": "ok", "0": 3, "1": 0}


@pytest.mark.parametrize("packer", ["json", "msgpack"])
def test_the_load_is_all_that_is_outstanding(packer: str) -> None:
    world = World(hwm=0, packer=packer)
    for uuid in "ab":
        world.engine(uuid)
    for _ in range(3):
        world.submit(targets=["a"])
    world.call("a")
    world.call("b", channel="broadcast_in", targets=[("a", 0), ("b", 1)])
    world.take()
    assert world.query("load_request") == {"status": "ok", "0": 5, "1": 1}
    assert world.query("load_request", {"targets": 1}) == {"status": "ok", "1": 1}
    assert world.query("load_request", {"targets": ["a"]}) == {"status": "ok", "0": 5}


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("target", [0, [0], "a", ["a"], [0, 1]])
@pytest.mark.parametrize("msg_type", ["queue_request", "load_request"])
def test_dead_engines_are_no_targets(msg_type: str, target: Any, settled: bool) -> None:
    world = World()
    engine = world.engine("a")
    world.engine("b")
    world.hub.lose_engine(engine, "heart")
    if settled:
        world.hub.handle_stranded(engine)
    assert world.query(msg_type, {"targets": None}).keys() - {"unassigned"} == {"status", "1"}
    refused = world.query(msg_type, {"targets": target})
    assert refused["ename"] == "IndexError"
    assert "No Such Engine: [" in refused["evalue"]
    purge = world.query("purge_request", {"engine_ids": target})
    assert (purge["ename"], purge["evalue"]) == (refused["ename"], refused["evalue"])


def test_results_pending_completed_and_unknown() -> None:
    world = World()
    world.engine("a")
    one, two = sorted([finished(world, buffers=(b"1", b"2")), finished(world, buffers=(b"3",))])
    pending = world.call("a")
    queued = world.submit(targets=["a"])
    world.submit()
    reply = world.query_message("result_request", {"msg_ids": [two, pending, one, queued]})
    content = world.content(reply)
    assert content["completed"] == [one, two]
    assert content["pending"] == sorted([pending, queued])
    expected = {one: [b"1", b"2"], two: [b"3"]}
    assert reply.buffers == expected[one] + expected[two], "in the order of the sorted msg_ids, as clients read them"
    assert content[one]["result_content"] == {"status": "ok"}
    assert content[one]["header"]["msg_id"] == one
    assert set(content[one]["io"]) == {"execute_input", "execute_result", "error", "stdout", "stderr"}
    status = world.query("result_request", {"msg_ids": [one, pending], "status_only": True})
    assert status == {"status": "ok", "completed": [one], "pending": [pending]}, "also from the store"
    missing = world.query("result_request", {"msg_ids": [one, "unknown"]})
    assert (missing["ename"], missing["evalue"]) == ("KeyError", "No such message: unknown")


def test_a_single_msg_id_may_be_given_as_text() -> None:
    world = World()
    world.engine("a")
    msg_id = finished(world)
    assert world.query("result_request", {"msg_ids": msg_id})["completed"] == [msg_id]


def test_results_of_an_earlier_hub_that_never_finished_are_pending() -> None:
    world = World()
    world.engine("a")
    msg_id = finished(world)
    world.hub.store.update(msg_id, {"completed": None})
    assert world.query("result_request", {"msg_ids": [msg_id]})["pending"] == [msg_id]


def test_db_query_by_exact_keys_operators_and_keys() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    ours, theirs = finished(world, "a", label="x"), finished(world, "b", label="x")
    found = world.query("db_request", {"query": {"label": "x", "engine_uuid": "a"}})["records"]
    assert [record["msg_id"] for record in found] == [ours]
    assert set(found[0]) == set(RECORD_KEYS) - {"buffers", "result_buffers"}
    everything = world.query("db_request", {"query": {}, "keys": ["label"]})
    assert everything["records"] == [{"msg_id": ours, "label": "x"}, {"msg_id": theirs, "label": "x"}]
    assert everything["buffer_lens"] is None
    assert world.query("db_request", {"query": {"msg_id": {"$in": []}}})["records"] == []
    assert len(world.query("db_request")["records"]) == 2


def test_db_query_sends_buffers_record_by_record() -> None:
    world = World()
    world.engine("a")
    finished(world, buffers=(b"1", b"2"))
    pending = world.call("a")
    world.take()
    reply = world.query_message("db_request", {"query": {}, "keys": ["buffers", "result_buffers"]})
    content = world.content(reply)
    assert (content["buffer_lens"], content["result_buffer_lens"]) == ([0, 0], [2, 0])
    assert reply.buffers == [b"1", b"2"]
    assert [set(record) for record in content["records"]] == [{"msg_id"}, {"msg_id"}]
    assert pending in [record["msg_id"] for record in content["records"]]


def test_history_is_in_the_order_of_submission() -> None:
    world = World()
    world.engine("a")
    msg_ids = [finished(world) for _ in range(3)]
    assert world.query("history_request") == {"status": "ok", "history": msg_ids}


def test_purge_all_by_msg_id_and_by_engine() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    one, two, three = finished(world, "a"), finished(world, "a"), finished(world, "b")
    pending = world.call("b")
    assert world.query("purge_request", {"msg_ids": [one]}) == {"status": "ok"}
    assert world.query("history_request")["history"] == [two, three, pending]
    assert world.query("purge_request", {"engine_ids": [0]}) == {"status": "ok"}
    assert world.query("history_request")["history"] == [three, pending]
    refused = world.query("purge_request", {"msg_ids": [three, pending]})
    assert (refused["ename"], pending in refused["evalue"]) == ("IndexError", True)
    assert world.query("purge_request", {"msg_ids": "all"}) == {"status": "ok"}
    assert world.query("history_request")["history"] == [pending], "what is unfinished stays"
    assert world.query("purge_request", {}) == {"status": "ok"}


def test_resubmission_runs_a_request_again_under_a_new_id() -> None:
    world = World()
    world.engine("a")
    old = finished(world, after=["x"], label="L")
    reply = world.query("resubmit_request", {"msg_ids": [old]})
    new = reply["resubmitted"][old]
    assert TaskSubmitted(new, "task", "L", "client") in world.host.events
    [(_, request)] = world.take("task_out")
    assert request.header.msg_id == new
    assert request.header.session == "client"
    assert world.query("result_request", {"msg_ids": [new]})["pending"] == [new]
    world.answer("a", request, buffers=(b"again",))
    assert not world.take("task_in"), "nobody waits for it on a socket"
    result = world.query_message("result_request", {"msg_ids": [new]})
    assert result.buffers == [b"again"]
    assert world.record(old)["resubmitted"] == new
    record = world.record(new)
    assert (record["label"], record["queue"], record["client_uuid"]) == ("L", "task", "client")
    assert "after" not in record["metadata"]


def test_a_pending_request_can_be_resubmitted_too() -> None:
    world = World(hwm=0)
    world.engine("a")
    old = world.submit()
    new = world.query("resubmit_request", {"msg_ids": [old, old]})["resubmitted"][old]
    assert [message.header.msg_id for _, message in world.take("task_out")] == [old, new]


def test_shutdown_answers_the_client_and_tells_all() -> None:
    world = World()
    assert world.query("shutdown_request") == {"status": "ok"}
    assert len(world.host.stopped) == 1
    assert not world.hub.intake.stopping, "when to stop is the runtime's business"
    world.hub.stop_serving()
    assert world.replies("notification") == [{"status": "ok"}]


@pytest.mark.parametrize(
    ("msg_type", "content"),
    [
        ("history_request", {}),
        ("db_request", {}),
        ("result_request", {"msg_ids": ["x"]}),
        ("resubmit_request", {"msg_ids": ["x"]}),
    ],
)
def test_without_a_store_queries_say_so(msg_type: str, content: dict[str, Any]) -> None:
    world = World(store=NullStore())
    reply = world.query(msg_type, content)
    assert reply["status"] == "error"


def test_a_record_that_changes_while_a_query_waits() -> None:
    """A result that comes in between the store's answer and the reply is not reported missing."""
    world = World()
    world.engine("a")
    msg_id = world.call("a")
    [(_, request)] = world.take("mux_out")
    world.host.deferred = []
    frames = world.client.session.write("result_request", {"msg_ids": [msg_id]})
    world.hub.dispatch_query([b"client", *frames])
    [(message, query)] = world.host.deferred
    question = query.send(None)
    world.answer("a", request, channel="mux_out")
    world.take()
    with pytest.raises(StopIteration) as finished_query:
        query.send(run_now(question))
    assert finished_query.value.value.content["pending"] == [msg_id]
    assert message.header.msg_type == "result_request"


def test_a_reply_that_cannot_be_packed_becomes_an_error() -> None:
    world = World()
    world.engine("a")
    msg_id = finished(world)
    world.hub.store.update(msg_id, {"label": object()})
    reply = world.query("db_request", {"query": {}})
    assert (reply["status"], reply["ename"]) == ("error", "TypeError")


def test_a_query_of_another_client_waits_for_nobody() -> None:
    """While one query waits for the store, queries of other clients are answered."""
    world = World()
    world.host.deferred = []
    world.hub.dispatch_query([b"client", *world.client.session.write("history_request", {})])
    assert world.query("connection_request", client=Peer("other"))["status"] == "ok"


# Details that no record has


def details(world: World, *msg_ids: str, names: bool = True) -> dict[str, Any]:
    reply = world.query("details_request", {"msg_ids": list(msg_ids), "names": names})
    assert reply["status"] == "ok"
    found: dict[str, Any] = reply["details"]
    return found


def test_a_gathered_broadcast_runs_though_its_record_names_no_engine() -> None:
    world = World()
    world.engine("a")
    world.engine("b")
    msg_id = broadcast(world, "ab", gather=True)
    assert world.record(msg_id)["engine_uuid"] is None
    assert details(world, msg_id)[msg_id]["state"] == "running"


def test_a_request_on_its_way_to_the_disk_is_queued() -> None:
    world = World(store=DurableStore(auto=False), strict=True)
    world.engine("a")
    task, call = world.submit(), world.call("a")
    assert [detail["state"] for detail in details(world, task, call).values()] == ["queued", "queued"]


def test_why_requests_wait_and_the_names_of_their_functions() -> None:
    world = World()
    world.engine("a")
    call = tuple(map(bytes, pack_call(pack_function(divmod), (1, 1), {})))
    runs = world.submit(buffers=call)
    waits = world.submit(buffers=call)
    first, second = world.call("a"), world.call("a")
    after = world.submit(buffers=call, after=[waits])
    found = details(world, runs, waits, first, second, after, "unknown")
    assert [detail["state"] for detail in found.values()] == [
        "running",
        "queued",
        "running",
        "running",
        "waiting",
        None,
    ]
    assert found[runs]["why"] == "engine 0 runs one request at a time, and was sent 2 requests of other queues"
    assert found[waits]["why"] == (
        "no free engine: all engines are busy, with 1 task each (setting hwm); 1 task is queued"
    )
    assert found[first]["why"] == "engine 0 runs one request at a time, and was sent one request of other queues"
    assert found[second]["why"] == (
        "engine 0 runs one request at a time, and was sent one request before this one and one request of other queues"
    )
    assert found[after]["why"] == f"it depends on {waits}"
    assert {found[msg_id]["name"] for msg_id in (runs, waits, after)} == {"divmod"}
    assert found[first]["name"] == "apply", "the type of the message, where no function is found"
    assert [found[msg_id]["attempts"] for msg_id in (runs, waits, first)] == [1, 0, None]
    assert found["unknown"] == {"state": None, "name": None, "why": None, "attempts": None}
    assert details(world, runs, names=False)[runs]["name"] is None


def test_why_a_share_of_a_broadcast_waits() -> None:
    world = World()
    world.engine("a")
    world.call("a")
    shares = [f"{broadcast(world, 'a')}_a" for _ in range(2)]
    assert [found["why"] for found in details(world, *shares).values()] == [
        "engine 0 runs one request at a time, and was sent one request of other queues",
        "engine 0 runs one request at a time, and was sent one request before this one and one request of other queues",
    ]


def test_a_new_engine_with_the_uuid_of_a_lost_engine_does_not_have_its_requests() -> None:
    world = World()
    lost = world.engine("a")
    msg_id = world.submit()
    world.hub.lose_engine(lost, "heart")
    world.engine("a")
    assert details(world, msg_id)[msg_id]["why"] is None


def test_why_nothing_runs_without_engines() -> None:
    world = World()
    msg_id = world.submit()
    assert details(world, msg_id)[msg_id]["why"] == "no engine is registered"


def test_the_search_for_names_ends_when_much_has_been_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.engine("a")
    call = tuple(map(bytes, pack_call(pack_function(divmod), (1, 1), {})))
    done = []
    for _ in range(2):
        done.append(world.submit(buffers=call))
        [(_, request)] = world.take("task_out")
        world.answer("a", request)
    assert [found["name"] for found in details(world, *done).values()] == ["divmod", "divmod"]
    monkeypatch.setattr("trio_hub.hub.waiting.MOST_READ", 1)
    assert [found["name"] for found in details(world, *done).values()] == ["divmod", None]


def test_a_client_is_logged_as_connected_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world = World()
    for _ in range(3):
        world.query("connection_request")
    world.query("connection_request", client=Peer("other"))
    assert caplog.messages.count("client connected") == 2
