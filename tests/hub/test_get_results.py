"""The reply to a ``result_request``, read as a stock client reads it: each msg_id gets its own value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ipyparallel import error
from ipyparallel.serialize import deserialize_object, serialize_object

from trio_hub.client.packing import unpack_values_untrusted
from trio_hub.errors import SerializationError
from trio_hub.hub.results import error_as_value
from trio_hub.wire.messages import Message

from .test_broadcasting import broadcast, shares
from .world import Peer, World

BIG = b"x" * 100_000
ANOTHER = Peer("another", username="ada")


def stock_results(reply: Message, content: dict[str, Any], msg_ids: Sequence[str]) -> list[Any]:
    """Return the results for these msg_ids, read from a reply as `ipyparallel.Client.result_status` reads it."""
    assert content["status"] == "ok", content
    buffers = reply.buffers
    results: list[Any] = []
    for msg_id in sorted(msg_ids):
        result = content[msg_id]
        if result["result_content"]["status"] != "ok":
            results.append(error.unwrap_exception(result["result_content"]))
        elif result["result_header"]["msg_type"] == "apply_reply":
            value, buffers = deserialize_object(buffers)
            results.append(value)
        else:
            results.append(result["result_content"])
    assert not buffers
    return results


def ask(world: World, *msg_ids: str) -> list[Any]:
    """Ask for these msg_ids as another stock client, and return the results in the order of the msg_ids."""
    reply = world.query_message("result_request", {"msg_ids": list(msg_ids)}, ANOTHER)
    results = stock_results(reply, world.content(reply), msg_ids)
    by_id = dict(zip(sorted(msg_ids), results, strict=True))
    return [by_id[msg_id] for msg_id in msg_ids]


def answer(world: World, uuid: str, request: Message, value: Any, channel: str = "task_out") -> None:
    """Answer a request as a stock engine: with a value, or with an error if the value is an exception."""
    if isinstance(value, Exception):
        content = {"status": "error", "ename": type(value).__name__, "evalue": str(value), "traceback": []}
        world.answer(uuid, request, content, channel=channel)
    else:
        world.answer(uuid, request, channel=channel, buffers=tuple(map(bytes, serialize_object(value))))


def gathered(world: World, *values: Any) -> str:
    """Send a gathered broadcast to engines that answer with these values, and return its msg_id."""
    uuids = "abcdefgh"[: len(values)]
    msg_id = broadcast(world, uuids, gather=True)
    sent = shares(world)
    for uuid, value in zip(uuids, values, strict=True):
        answer(world, uuid, sent[uuid], value, "broadcast_out")
    return msg_id


def task(world: World, value: Any) -> str:
    msg_id = world.submit()
    [(_, request)] = world.take("task_out")
    answer(world, request.idents[0].decode(), request, value)
    return msg_id


@pytest.fixture
def world() -> World:
    world = World()
    for uuid in "abc":
        world.engine(uuid)
    return world


@pytest.mark.parametrize(
    "values",
    [(1, "two", None), ([BIG, 2], {"key": BIG, "other": 3}, BIG), ([], {}, ()), ((1, (BIG, [2])), {1: {2: 3}}, b"")],
)
def test_a_gathered_broadcast_is_the_list_that_it_was_for_its_own_client(world: World, values: tuple[Any, ...]) -> None:
    before, broadcasted, after = task(world, "before"), gathered(world, *values), task(world, BIG)
    assert ask(world, before, broadcasted, after) == ["before", list(values), BIG]
    assert ask(world, broadcasted) == [list(values)]


def test_a_failed_gathered_broadcast_takes_nobody_elses_value(world: World) -> None:
    failed, after = gathered(world, "one", ValueError("two"), "three"), task(world, "after")
    found, value = ask(world, failed, after)
    assert (found.ename, value) == ("ValueError", "after")


def test_a_failed_request_beside_others_has_its_error_as_its_value(world: World) -> None:
    msg_ids = [task(world, ValueError("odd: \u00e4\n'\"")), task(world, 1)]
    reply = world.query_message("result_request", {"msg_ids": msg_ids}, ANOTHER)
    content = world.content(reply)
    assert content[msg_ids[0]]["io"]["status"] == "error"
    failed, value = (stock_results(reply, content, msg_ids)[sorted(msg_ids).index(msg_id)] for msg_id in msg_ids)
    assert type(failed) is error.RemoteError
    assert (failed.ename, failed.evalue, failed.traceback) == ("ValueError", "odd: \u00e4\n'\"", "")
    assert value == 1


@pytest.mark.parametrize(
    ("content", "traceback", "info"),
    [
        ({"traceback": ["one", "two"]}, "one\ntwo", {}),
        ({"traceback": "no list", "engine_info": "none"}, "", {}),
        (
            {"engine_info": {"engine_id": 3, "engine_uuid": "u", "method": None}},
            "",
            {"engine_id": 3, "engine_uuid": "u"},
        ),
        ({"engine_info": {"engine_id": 1 << 40}}, "", {"engine_id": str(1 << 40)}),
    ],
)
def test_an_error_as_a_value(content: dict[str, Any], traceback: str, info: dict[str, Any]) -> None:
    result: dict[str, Any] = {
        "io": {"stdout": "printed"},
        "result_header": {"msg_type": "execute_reply"},
        "result_content": {"status": "error", "ename": "E", "evalue": "\udcff"} | content,
    }
    value, rest = deserialize_object(error_as_value(result))
    assert not rest
    assert (value.ename, value.evalue, value.traceback) == ("E", "\udcff", traceback)
    assert value.engine_info.items() >= info.items()
    assert result["io"] == {"stdout": "printed", "status": "error"}


def test_a_msg_id_that_is_asked_for_twice_gets_its_value_twice(world: World) -> None:
    first, second = task(world, 1), task(world, 2)
    assert ask(world, first, second, first) == [1, 2, 1]


def test_an_answer_without_a_value_is_none(world: World) -> None:
    empty = world.submit()
    [(_, request)] = world.take("task_out")
    world.answer(request.idents[0].decode(), request)
    assert ask(world, empty, task(world, 2)) == [None, 2]


def test_what_was_executed_has_no_value(world: World) -> None:
    executed = world.call("a", msg_type="execute_request")
    [(_, request)] = world.take("mux_out")
    world.answer("a", request, channel="mux_out", buffers=(b"surplus",))
    assert ask(world, executed, task(world, 2)) == [{"status": "ok"}, 2]


@pytest.mark.parametrize("who", ["hub", "engine"])
def test_an_aborted_request_has_an_error(world: World, who: str) -> None:
    if who == "engine":
        aborted = world.call("a")
        [(_, request)] = world.take("mux_out")
        world.answer("a", request, {"status": "aborted"}, channel="mux_out")
    else:
        [*_, aborted] = [world.submit() for _ in range(4)]
        assert world.query("abort_request", {"msg_ids": [aborted]})["aborted"] == [aborted]
    [found] = ask(world, aborted)
    assert (found.ename, found.evalue) == ("TaskAborted", "it was aborted before it began")
    content = world.query("result_request", {"msg_ids": [aborted]}, ANOTHER)[aborted]
    assert content["result_content"]["status"] == "aborted"
    assert world.record(aborted)["result_content"] == {"status": "aborted"}


def test_a_damaged_result_is_an_error(world: World) -> None:
    damaged, after = task(world, 1), task(world, 2)
    world.hub.store.update(damaged, {"result_content": None, "result_header": None})
    found, value = ask(world, damaged, after)
    assert (found.ename, value) == ("HubError", 2)


def test_a_client_of_ours_gets_the_buffers_as_they_came(world: World) -> None:
    msg_id = gathered(world, BIG, "two", None)
    reply = world.query_message("result_request", {"msg_ids": [msg_id]}, Peer("ours", username="trio-hub-client"))
    counts = world.content(reply)[msg_id]["result_metadata"]["buffer_counts"]
    assert counts == [2, 1, 1]
    assert unpack_values_untrusted(reply.buffers, counts) == [BIG, "two", None]
    with pytest.raises(SerializationError, match="4 buffers"):
        unpack_values_untrusted(reply.buffers, [2, 1])
