"""The client at our own hub: calling, asking, cancelling, and being refused."""

from __future__ import annotations

import itertools
import json
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import numpy
import pytest
import trio
import trio.testing
import zmq

from trio_hub import (
    ConfigError,
    ConnectionFileError,
    EngineError,
    EngineJoined,
    EngineLeft,
    HubConfig,
    HubLostError,
    HubStopped,
    RemoteError,
    SerializationError,
    connect,
)
from trio_hub.client.packing import pack_call, pack_function
from trio_hub.client.questions import Questions
from trio_hub.config.connectionfiles import connection_paths, read_connection_file, write_connection_file
from trio_hub.testing import ignore, open_client, open_engine, open_hub

from ..runtime.support import Footprint, eventually, within_limit
from .support import cluster, compute


def divide(a: float, b: float = 2.0) -> float:
    return a / b


# Calling


@pytest.mark.parametrize("packer", ["json", "msgpack"])
async def test_a_call(packer: str) -> None:
    async with cluster(packer=packer) as (_, client, engines):
        assert await client.apply(divide, 6, b=3) == 2
        assert await client.apply(divide, 6, targets=0) == 3
        assert await client.apply(divide, 8, targets=engines[0].uuid) == 4
        array = numpy.arange(200_000.0)
        assert (await client.apply(numpy.negative, array) == -array).all()


async def test_an_error_on_the_engine() -> None:
    async with cluster() as (_, client, _):
        with pytest.raises(RemoteError, match=r"ZeroDivisionError: .* \(engine 0\)") as caught:
            await client.apply(divide, 1, 0)
        assert (caught.value.ename, caught.value.engine) == ("ZeroDivisionError", 0)
        assert caught.value.traceback == "here\nthere"


async def test_calls_that_cannot_be_made() -> None:
    async with cluster() as (_, client, _):
        with pytest.raises(EngineError, match="no engine 5; the registered engines are: 0"):
            await client.apply(divide, 1, targets=5)
        with pytest.raises(SerializationError, match="argument 0"):
            await client.apply(divide, (x for x in "a"))
        with pytest.raises(ValueError, match="in_flight is 0"):
            await anext(client.map(divide, [1], in_flight=0))
        with pytest.raises(ValueError, match="at least one"):
            await client.abort([])


async def test_an_engine_dies_at_a_call() -> None:
    async with cluster(stranded_grace=0, ping=0.05) as (_, client, (engine,)):
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_with, "EngineError", client.apply, divide, 1)
            await engine.wait_requests(1)
            engine.die()


async def fails_with(ename: str, function: Any, *args: Any) -> None:
    with pytest.raises(RemoteError) as caught:
        await function(*args)
    assert caught.value.ename == ename


async def test_map_keeps_the_order_and_takes_what_it_needs() -> None:
    async with cluster(2) as (_, client, engines):
        numbers = itertools.count()
        results = client.map(divide, numbers, itertools.repeat(1), in_flight=5)
        assert [await anext(results) for _ in range(20)] == list(range(20))
        assert next(numbers) <= 26
        await results.aclose()
        assert [value async for value in client.map(divide, [])] == []
        found = {value async for value in client.map(divide, range(50), [1] * 50, ordered=False)}
        assert found == set(range(50))
        assert all(engine.requests for engine in engines)


async def test_a_map_that_fails_withdraws_the_rest() -> None:
    async with cluster(hwm=0) as (_, client, (engine,)):
        engine.hold()
        results = client.map(divide, [1, 1, 1], [1, 0, 1])

        async def read() -> None:
            assert await anext(results) == 1
            await fails_with("ZeroDivisionError", anext, results)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await engine.wait_requests(3)
            engine.release(2)
        await engine.wait_requests(4)
        abort = engine.requests[3]
        assert (abort.msg_type, len(abort.content["msg_ids"])) == ("abort_request", 1)


@pytest.mark.parametrize("targets", [None, 0])
async def test_a_cancelled_call_is_withdrawn(targets: int | None) -> None:
    async with cluster() as (_, client, (engine,)):
        engine.hold()
        with trio.move_on_after(30) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: client.apply(divide, 1, targets=targets))
                (call,) = await engine.wait_requests(1)
                scope.cancel()
        _, abort = await engine.wait_requests(2)
        assert (abort.queue, abort.content) == ("control", {"msg_ids": [call.msg_id]})
        engine.release()
        assert await client.apply(divide, 4) == 2


async def test_a_call_that_is_queued_is_aborted_at_once() -> None:
    async with cluster() as (hub, client, (engine,)):
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.apply, divide, 1)
            await engine.wait_requests(1)
            nursery.start_soon(fails_with, "TaskAborted", client.apply, divide, 2)
            await eventually(lambda: hub.statistics().tasks_queued == 1)
            _, queued = await client.history()
            await client.abort([queued])
            assert len(engine.requests) == 1, "no engine has to be told"
            engine.release()
        assert hub.statistics().outcomes["task"] == {"ok": 1, "error": 0, "aborted": 1}


async def test_details_of_requests_and_of_the_hub() -> None:
    async with cluster() as (hub, client, (engine,)):
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.apply, divide, 1)
            await engine.wait_requests(1)
            nursery.start_soon(client.apply, divide, 2)
            await eventually(lambda: hub.statistics().tasks_queued == 1)
            runs, waits = await client.history()
            details = await client.details([runs, waits, "unknown"], names=True)
            assert (details[waits]["why"] or "").startswith("no free engine: all engines are busy")
            assert details[waits]["name"] == "divide"
            assert details[runs] == {"state": "running", "name": "divide", "why": None, "attempts": 1}
            assert details["unknown"] == {"state": None, "name": None, "why": None, "attempts": None}
            about = await client.about()
            assert about["statistics"]["tasks_queued"] == 1
            assert about["settings"]["hwm"] == 1
            assert about["versions"]["trio"]
            engine.release()


async def test_an_ipcontroller_knows_no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster() as (_, client, _):
        monkeypatch.setattr(Questions, "kind", "ipcontroller")
        assert await client.details(["a"]) == {}
        assert await client.about() == {}


async def test_a_cancelled_call_leaves_the_queue() -> None:
    async with cluster() as (hub, client, (engine,)):
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.apply, divide, 1)
            await engine.wait_requests(1)
            with trio.move_on_after(30) as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(client.apply, divide, 2)
                    await eventually(lambda: hub.statistics().tasks_queued == 1)
                    scope.cancel()
            await eventually(lambda: hub.statistics().tasks_queued == 0)
            engine.release()
        assert await client.apply(divide, 4) == 2


async def test_a_hub_that_cannot_abort_leaves_it_to_the_engines() -> None:
    async with cluster() as (hub, client, (engine,)):
        del hub.core.query_handlers["abort_request"]  # as in an ipcontroller
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.apply, divide, 1)
            await engine.wait_requests(1)
            nursery.start_soon(client.abort, ["anything"])
            _, abort = await engine.wait_requests(2)
            assert (abort.queue, abort.content) == ("control", {"msg_ids": ["anything"]})
            engine.release()


async def test_a_call_that_takes_too_long() -> None:
    async with cluster() as (_, client, (engine,)):
        engine.behaviour = ignore
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
            await client.apply(divide, 1)
        assert (await engine.wait_requests(2))[1].msg_type == "abort_request"


# Asking


async def test_queries() -> None:
    async with cluster() as (_, client, (engine,)):
        assert await client.apply(divide, 6) == 3
        (msg_id,) = await client.history()
        assert await client.result(msg_id) == 3
        status = await client.queue_status()
        assert status == {"0": {"queue": 0, "tasks": 0, "completed": 1}, "unassigned": 0}
        assert (await client.queue_status(0, verbose=True))["0"]["completed"] == [msg_id]
        (record,) = await client.db_query({"msg_id": msg_id}, keys=["client_uuid", "completed", "result_buffers"])
        assert record["client_uuid"] == client.session
        assert record["completed"].tzinfo is not None
        assert len(record["result_buffers"]) == 1
        again = await client.resubmit([msg_id])
        assert await client.result(again[msg_id]) == 3
        await client.abort(["anything"], targets=0)
        assert engine.requests[-1].content == {"msg_ids": ["anything"]}
        await client.purge([msg_id])
        assert await client.history() == [again[msg_id]]
        await client.purge(engines=[0])
        assert await client.history() == []
        await client.purge()
        with pytest.raises(RemoteError, match="No such message"):
            await client.result(msg_id)
        with pytest.raises(RemoteError, match="QueryError"):
            await client.db_query({"msg_id": {"$nonsense": 1}})


async def test_the_result_of_a_gathered_broadcast_is_a_list() -> None:
    async with cluster(2) as (hub, client, engines), open_client(hub.client_info) as other:
        msg_id = other.send(
            "broadcast",
            "apply_request",
            metadata={
                "targets": [[engine.uuid, number] for number, engine in enumerate(engines)],
                "is_broadcast": True,
                "is_coalescing": True,
            },
            buffers=pack_call(pack_function(sorted), [[b"y" * 5000, b"x"]], {}),
        )
        assert await client.result(msg_id) == [[b"x", b"y" * 5000]] * 2
        assert len(await client.result_buffers(msg_id)) == 4


async def test_a_result_that_is_not_there_yet() -> None:
    async with cluster() as (hub, client, (engine,)), connect(connection_info=hub.client_info) as other:
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.apply, divide, 6)
            await engine.wait_requests(1)
            (msg_id,) = await other.history()

            async def ask() -> None:
                assert await other.result(msg_id) == 3
                nursery.cancel_scope.cancel()

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            engine.release()


async def test_notifications_and_shutdown() -> None:
    async with cluster() as (hub, client, (engine,)), AsyncExitStack() as stack:
        told = await stack.enter_async_context(aclosing(client.notifications()))
        assert await anext(told) == EngineJoined(0, engine.uuid)
        async with open_engine(hub.engine_info, behaviour=compute) as second:
            assert await anext(told) == EngineJoined(1, second.uuid)
            assert client.engines == {0: engine.uuid, 1: second.uuid}
            await client.shutdown(1)
            assert await anext(told) == EngineLeft(1, second.uuid)
        await client.shutdown(hub=True)
        assert {await anext(told), await anext(told)} == {EngineLeft(0, engine.uuid), HubStopped()}
        await hub.wait_stopped()


# Being refused


@pytest.fixture
def silent() -> Any:
    """Give a port that accepts connections and never answers."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        yield socket.bind_to_random_port("tcp://127.0.0.1")


async def test_nobody_answers(silent: int) -> None:
    info: dict[str, Any] = dict.fromkeys(("registration", "control", "mux", "task", "notification"), silent)
    with pytest.raises(HubLostError, match=f"no answer from tcp://127.0.0.1:{silent} within 0.1 s"):
        async with connect(connection_info=info | {"interface": "tcp://*", "key": "k"}, answer_within=0.1):
            pytest.fail("connected")


async def test_the_wrong_key() -> None:
    async with within_limit(), open_hub() as hub:
        with pytest.raises(HubLostError, match="is its key the one"):
            async with connect(connection_info=hub.client_info | {"key": "wrong"}, answer_within=0.3):
                pytest.fail("connected")


async def test_encrypted(tmp_path: Path) -> None:
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, curve=True, cluster_id="c")) as hub:
        async with connect(profile_dir=tmp_path, cluster_id="c") as client:
            assert await client.history() == []
        for change in ({"curve_serverkey": None}, {"curve_serverkey": zmq.curve_keypair()[0].decode()}):
            with pytest.raises(HubLostError):
                async with connect(connection_info=hub.client_info | change, answer_within=0.3):
                    pytest.fail("connected")


async def test_the_file_is_found_as_by_stock_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    config = HubConfig(profile_dir=tmp_path / "profile_lab")
    async with within_limit(), open_hub(config):
        file = connection_paths(tmp_path / "profile_lab")[0]
        for where in ({"profile": "lab"}, {"profile_dir": tmp_path / "profile_lab"}, {"connection_file": file}):
            async with connect(**where) as client:
                assert client.engines == {}


GOOD: dict[str, Any] = {
    "interface": "tcp://127.0.0.1",
    "key": "k",
    **dict.fromkeys(("registration", "control", "mux", "task", "notification"), 4),
}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"interface": "ipc://x"}, "supports only TCP"),
        ({"interface": None}, "'interface' is missing"),
        ({"key": 5}, "'key' is missing, or is not a text"),
        ({"task": "5"}, "'task' is '5', which is not a port number"),
        ({"mux": 70_000}, "not a port number"),
        ({"pack": "json", "unpack": "msgpack"}, "differ"),
        ({"curve_serverkey": "short"}, "no CURVE key"),
        ({"interface": "tcp://10.9.8.7", "ssh": "me@gate"}, "open them with ssh -L"),
    ],
)
async def test_a_bad_file(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    path = tmp_path / "file.json"
    write_connection_file(path, GOOD | changes)
    with pytest.raises(ConnectionFileError, match=what) as caught:
        async with connect(connection_file=path):
            pytest.fail("connected")
    assert str(path) in str(caught.value)


async def test_no_file_and_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="Is the hub running"):
        async with connect(profile_dir=tmp_path):
            pytest.fail("connected")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConnectionFileError, match="damaged"):
        async with connect(connection_file=tmp_path / "x.json"):
            pytest.fail("connected")


@pytest.mark.parametrize(
    "arguments",
    [
        {"profile": "a", "profile_dir": "b"},
        {"connection_file": "a", "cluster_id": "b"},
        {"connection_info": {}, "profile": "a"},
        {"lost_after": 0},
        {"connection_info": GOOD | {"pack": "pickle"}},
    ],
    ids=json.dumps,
)
async def test_arguments_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        async with connect(**arguments):
            pytest.fail("connected")


async def test_nothing_is_left_behind() -> None:
    async with within_limit(), open_hub() as hub:
        await trio.to_thread.run_sync(int)  # Trio's own descriptors
        before = Footprint.now()
        with trio.CancelScope() as scope:
            async with connect(connection_info=hub.client_info) as client, trio.open_nursery() as nursery:
                nursery.start_soon(client.apply, divide, 1)
                await eventually(lambda: hub.statistics().submitted == 1)
                scope.cancel()
        assert scope.cancelled_caught
        await before.restored()
        with pytest.raises(HubLostError, match="the client is closed"):
            await client.history()


async def test_where_a_location_is(tmp_path: Path) -> None:
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path)):
        info = read_connection_file(connection_paths(tmp_path)[0])
        for location in ("", "127.0.0.1", "localhost"):
            async with connect(connection_info=info | {"location": location}) as client:
                assert "tcp://127.0.0.1:" in repr(client)
