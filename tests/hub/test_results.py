"""Results that a stock client asks for later, with the client's own code but without sockets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from ipyparallel import Client, RemoteError
from ipyparallel.serialize import serialize_object

from trio_hub.records import MemoryStore

from .world import Peer, World


class StockClient:
    """The part of a stock client that reads the hub's answer to a `result_request`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.peer = Peer("a later client")
        self.results: dict[str, Any] = {}
        self.metadata: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        self._engines: dict[str, int] = {}
        self._query_stream = None

    def _msg_ids_from_jobs(self, msg_ids: list[str]) -> list[str]:
        return list(msg_ids)

    def _send_recv(self, stream: None, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        reply = self.world.query_message(msg_type, content, self.peer)
        return {"content": self.world.content(reply), "buffers": [bytes(buffer) for buffer in reply.buffers]}

    result_status: Callable[..., dict[str, Any]] = Client.result_status
    _extract_metadata = Client._extract_metadata
    _unwrap_exception = Client._unwrap_exception


def finish(world: World, uuid: str, result: object, **content: Any) -> str:
    """Have this engine answer a task, and return its msg_id."""
    msg_id = world.submit(targets=[uuid])
    [(_, request)] = world.take("task_out")
    world.answer(uuid, request, {"status": "ok"} | content, buffers=tuple(serialize_object(result)))
    world.take()
    return msg_id


# Errors that the hub itself answers


def stranded(world: World, msg_type: str) -> str:
    engine = world.engine("a")
    msg_id = world.submit(msg_type=msg_type)
    world.hub.lose_engine(engine, "heart")
    world.hub.handle_stranded(engine)
    return msg_id


def out_of_time(world: World, msg_type: str) -> str:
    msg_id = world.submit(msg_type=msg_type, timeout=1.0)
    [(_, _, time_is_up)] = world.host.timers
    time_is_up()
    return msg_id


def without_target(world: World, msg_type: str) -> str:
    return world.submit(msg_type=msg_type, targets=["nobody"])


def with_an_unknown_dependency(world: World, msg_type: str) -> str:
    msg_id = world.submit(msg_type=msg_type, after=["never"])
    world.answer_questions()
    return msg_id


def resubmitted_and_stranded(world: World, msg_type: str) -> str:
    first = without_target(world, msg_type)
    world.hub.store.update(first, {"metadata": b"{}"})
    engine = world.engine("a")
    resubmitted: dict[str, str] = world.query("resubmit_request", {"msg_ids": [first]})["resubmitted"]
    world.hub.lose_engine(engine, "heart")
    world.hub.handle_stranded(engine)
    return resubmitted[first]


def at_the_stop(world: World, msg_type: str) -> str:
    msg_id = world.submit(msg_type=msg_type)
    world.hub.stop_serving()
    return msg_id


def direct_to_nobody(world: World, msg_type: str) -> str:
    return world.call("nobody", msg_type=msg_type)


def direct_to_one_that_dies(world: World, msg_type: str) -> str:
    engine = world.engine("a")
    msg_id = world.call("a", msg_type=msg_type)
    world.hub.lose_engine(engine, "heart")
    return msg_id


FAILURES: dict[Callable[[World, str], str], str] = {
    stranded: "EngineError",
    out_of_time: "TaskTimeout",
    without_target: "ImpossibleDependency",
    with_an_unknown_dependency: "InvalidDependency",
    resubmitted_and_stranded: "EngineError",
    at_the_stop: "EngineError",
    direct_to_nobody: "EngineError",
    direct_to_one_that_dies: "EngineError",
}


@pytest.mark.parametrize("kind", ["apply", "execute"])
@pytest.mark.parametrize("fail", FAILURES)
def test_an_error_of_the_hubs_own_is_read_by_a_stock_client(fail: Callable[[World, str], str], kind: str) -> None:
    world = World()
    msg_id = fail(world, f"{kind}_request")
    replies = [message for channel, message in world.take() if channel in ("task_in", "mux_in")]
    answered = {message.parent.msg_id: message.header.msg_type for message in replies}
    assert set(answered.values()) == {f"{kind}_reply"}, "what the client of such a request has a handler for"
    assert world.record(msg_id)["result_header"]["msg_type"] == f"{kind}_reply"
    client = StockClient(world)
    assert client.result_status([msg_id]) == {"status": "ok", "pending": [], "completed": [msg_id]}
    with pytest.raises(RemoteError) as raised:
        client.result_status([msg_id], status_only=False)
    assert raised.value.ename == FAILURES[fail]
    metadata = client.metadata[msg_id]
    assert (metadata["msg_id"], metadata["status"]) == (msg_id, "error")
    engine = "a" if fail in (stranded, resubmitted_and_stranded, direct_to_one_that_dies) else None
    if fail is not direct_to_nobody:
        assert metadata["engine_uuid"] == engine
    assert metadata["submitted"] is not None
    assert metadata["received"] is not None


# Results


def test_each_result_is_that_of_its_own_request() -> None:
    world = World()
    for uuid in "ab":
        world.engine(uuid)
    msg_ids = {finish(world, uuid, number): (uuid, number) for number, uuid in enumerate("abba")}
    reply = world.query("result_request", {"msg_ids": list(msg_ids)})
    for msg_id, (uuid, _) in msg_ids.items():
        assert reply[msg_id]["header"]["msg_id"] == msg_id
        assert reply[msg_id]["result_metadata"]["engine"] == uuid
    for msg_id, (uuid, number) in msg_ids.items():
        client = StockClient(world)
        assert client.result_status([msg_id], status_only=False)[msg_id] == number
        assert client.metadata[msg_id]["engine_uuid"] == uuid


@pytest.mark.parametrize("status_only", [True, False])
def test_results_of_an_earlier_hub_are_there(status_only: bool) -> None:
    """A hub that never saw these requests has their records: finished ones with results, others as pending."""
    store = MemoryStore()
    earlier = World(store=store)
    earlier.engine("a")
    done = [finish(earlier, "a", "one"), finish(earlier, "a", "two")]
    running = earlier.submit()
    world = World(store=store)
    client = StockClient(world)
    asked = sorted([done[0], running])
    status = client.result_status(asked, status_only=status_only)
    assert (status["completed"], status["pending"]) == ([done[0]], [running])
    if not status_only:
        assert status[done[0]] == "one"
    both = world.query("result_request", {"msg_ids": done, "status_only": status_only})
    assert both["completed"] == sorted(done)
    for msg_id in [] if status_only else done:
        assert both[msg_id]["header"]["msg_id"] == msg_id
    unknown = world.query("result_request", {"msg_ids": [done[0], "never"], "status_only": status_only})
    assert (unknown["status"], unknown["ename"]) == ("error", "KeyError")
