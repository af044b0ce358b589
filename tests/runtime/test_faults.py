"""Faults of engines, clients and messages. The hub stays correct."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from trio_hub import HubConfig
from trio_hub.hub.events import EngineSettled, EngineUnregistered
from trio_hub.runtime import serve as serve_module
from trio_hub.testing import (
    Received,
    ScriptedClient,
    answer,
    failing,
    one_by_one,
    open_client,
    open_engine,
    open_hub,
    twice,
    unmet,
)
from trio_hub.wire.frames import DELIMITER, Frames

from .support import cluster, eventually, settled, within_limit
from .test_registration import next_of

QUICK: dict[str, Any] = {"ping": 0.05, "max_heartmonitor_misses": 8, "stranded_grace": 0}
"""Settings under which the death of an engine is noticed in half a second."""
SLOW: dict[str, Any] = {"ping": 60, "stranded_grace": 60}
"""Settings under which nothing happens in the time of a test just because time passes."""


def ename(reply: Received) -> str:
    assert reply.content["status"] == "error"
    assert reply.metadata.get("status", "error") == "error"
    return str(reply.content["ename"])


# Engines that are not there


async def test_a_direct_request_to_an_unknown_engine_is_answered_at_once() -> None:
    async with cluster(1, **SLOW) as (_, client, (engine,)):
        reply = await client.reply(client.call("nobody", b"x"))
        assert ename(reply) == "EngineError"
        assert "nobody is not registered" in reply.content["evalue"]
        assert reply.msg_type == "apply_reply"
        assert reply.content["engine_info"] == {}, "stock clients then do not wait for output"
        nameless = await client.reply(client.send("mux", "apply_request"))
        assert ename(nameless) == "EngineError"
        assert "names no engine" in nameless.content["evalue"]
        control = await client.reply(client.control("nobody", "abort_request"))
        assert ename(control) == "EngineError"
        assert control.msg_type == "abort_reply"
        assert ename(await client.reply(client.send("control", "abort_request"))) == "EngineError"
        assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]


async def test_a_direct_request_to_a_dead_engine_is_answered_at_once() -> None:
    async with cluster(2, **SLOW) as (_, client, (gone, _engine)):
        gone.leave()
        await client.notification("unregistration_notification", id=gone.id)
        assert ename(await client.reply(client.call(gone, b"x"))) == "EngineError"
        assert ename(await client.reply(client.control(gone, "clear_request"))) == "EngineError"
        targeted = await client.reply(client.submit(metadata={"targets": [gone.uuid]}))
        assert ename(targeted) == "ImpossibleDependency"
        assert gone.requests == []
        record = (await client.query("db_request", {"query": {"engine_uuid": gone.uuid}})).content["records"]
        assert len(record) == 1
        assert (await client.reply(client.submit(b"x"))).buffers == [b"x"]


async def test_a_request_without_reply_to_an_unknown_engine_is_just_dropped() -> None:
    async with cluster(1) as (_, client, (engine,)):
        client.send("mux", "comm_msg", to="nobody")
        await client.reply(client.call(engine))
        assert len(client.replies) == 2


# Engines that die at their work


async def test_a_task_whose_engine_dies_fails_after_the_grace() -> None:
    async with cluster(2, **QUICK | {"stranded_grace": 0.2}) as (hub, client, engines), hub.events() as events:
        for engine in engines:
            engine.hold()
        task = client.submit(b"x")
        await eventually(lambda: any(engine.held for engine in engines))
        (dying,) = (engine for engine in engines if engine.held)
        dying.die()
        await next_of(events, EngineUnregistered)
        lost = trio.current_time()
        reply = await client.reply(task)
        assert trio.current_time() - lost > 0.1
        assert ename(reply) == "EngineError"
        assert "died while running task" in reply.content["evalue"]
        assert reply.metadata["engine"] == dying.uuid
        assert await next_of(events, EngineSettled) == EngineSettled(dying.id, dying.uuid)
        result = (await client.query("result_request", {"msg_ids": [task]})).content
        assert result["completed"] == [task]
        assert result[task]["result_content"]["ename"] == "EngineError"
        assert result[task]["result_metadata"]["engine"] == dying.uuid
        (living,) = (engine for engine in engines if engine is not dying)
        living.release()
        assert (await client.reply(client.submit(b"y"))).buffers == [b"y"]
        assert [len(client.replies[msg_id]) for msg_id in client.replies] == [1] * len(client.replies)


async def test_a_task_with_retries_gets_another_engines_result() -> None:
    async with cluster(1, **QUICK) as (hub, client, (dying,)):
        dying.hold()
        tasks = [client.submit(b"%d" % number, metadata={"retries": 1}) for number in range(3)]
        await dying.wait_requests(1)
        async with open_engine(hub.engine_info) as successor:
            successor.hold()
            dying.die()
            await client.notification("unregistration_notification", id=dying.id)
            successor.release()
            for number, task in enumerate(tasks):
                reply = await client.reply(task)
                assert reply.content["status"] == "ok"
                assert reply.buffers == [b"%d" % number]
                assert reply.metadata["engine"] == successor.uuid
            assert [len(client.replies[task]) for task in tasks] == [1, 1, 1]
        assert hub.statistics().completed == 3


async def test_retries_run_out() -> None:
    async with cluster(0, **QUICK) as (hub, client, _):
        task = client.submit(metadata={"retries": 2})
        for attempt in range(3):
            async with open_engine(hub.engine_info, uuid=f"attempt {attempt}") as engine:
                engine.hold()
                await engine.wait_requests(1)
                assert task not in client.replies
                engine.die()
                await client.notification("unregistration_notification", uuid=engine.uuid)
        assert ename(await client.reply(task)) == "EngineError"


async def test_a_late_result_within_the_grace_is_delivered_once() -> None:
    async with cluster(1, **SLOW) as (hub, client, (leaving,)), open_engine(hub.engine_info) as other:
        await hub.wait_engines(2)
        leaving.hold()
        other.hold()
        tasks = [client.submit(b"%d" % number, metadata={"retries": 3}) for number in range(2)]
        await eventually(lambda: bool(leaving.held and other.held))
        (late,) = leaving.held
        leaving.leave()
        await client.notification("unregistration_notification", id=leaving.id)
        assert late.msg_id not in client.replies
        leaving.release()
        assert (await client.reply(late.msg_id)).metadata["engine"] == leaving.uuid
        late.answer([b"again"])
        other.release()
        for task in tasks:
            await client.reply(task)
        await eventually(lambda: hub.statistics().ignored.get("unexpected_result") == 1)
        assert [len(client.replies[task]) for task in tasks] == [1, 1]
        assert hub.statistics().completed == 2
        assert len(other.requests) == 1, "nothing was run a second time"


async def test_a_direct_request_to_an_engine_that_dies_fails_when_it_is_lost() -> None:
    async with cluster(2, **QUICK | {"stranded_grace": 60}) as (hub, client, (dying, living)):
        dying.hold()
        calls = [client.call(dying, b"x") for _ in range(3)]
        await dying.wait_requests(3)
        dying.die()
        for call in calls:
            reply = await client.reply(call)
            assert ename(reply) == "EngineError"
            assert reply.metadata["engine"] == dying.uuid
        assert (await client.reply(client.call(living, b"x"))).buffers == [b"x"]
        assert hub.statistics().direct_pending == 0


async def test_a_late_direct_result_is_recorded_though_its_client_was_told_otherwise() -> None:
    async with cluster(1, **SLOW) as (hub, client, (leaving,)):
        leaving.hold()
        call = client.call(leaving, b"x")
        await leaving.wait_requests(1)
        leaving.leave()
        assert ename(await client.reply(call)) == "EngineError"
        leaving.release()
        await eventually(lambda: hub.statistics().ignored.get("late_result") == 1)
        result = await client.query("result_request", {"msg_ids": [call]})
        assert result.content[call]["result_content"] == {"status": "ok"}
        assert result.buffers == [b"x"]
        leaving.requests[0].answer([b"once more"])
        await eventually(lambda: hub.statistics().ignored.get("unexpected_result") == 1)
        assert len(client.replies[call]) == 1


async def test_a_control_request_to_an_engine_that_dies_is_answered() -> None:
    async with cluster(1, **QUICK) as (_, client, (dying,)):
        dying.control_behaviour = lambda request: None
        abort = client.control(dying, "abort_request")
        shutdown = client.control(dying, "shutdown_request")
        await dying.wait_requests(2)
        dying.die()
        assert ename(await client.reply(abort)) == "EngineError"
        assert (await client.reply(shutdown)).content == {"status": "ok", "restart": False}


async def test_an_engine_whose_control_channel_is_out_of_reach_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control requests fail soon, and all other requests work. A stock engine without its nanny is such an engine."""
    monkeypatch.setattr("trio_hub.runtime.engine.CONTROL_LIMIT", 0.2)
    async with cluster(0) as (hub, client, _), AsyncExitStack() as stack:
        held = stack.enter_context(socket.socket())  # nobody listens there, and nobody else gets this port
        held.bind(("127.0.0.1", 0))
        info = hub.engine_info | {"control": held.getsockname()[1]}
        engine = await stack.enter_async_context(open_engine(info))
        await hub.wait_engines(1)
        requests = [client.control(engine, msg_type) for msg_type in ("abort_request", "shutdown_request")]
        for msg_id in (client.submit(), client.call(engine)):
            assert (await client.reply(msg_id)).content["status"] == "ok"
        for msg_id in requests:
            error = (await client.reply(msg_id)).content["evalue"]
            assert f"engine {engine.id} cannot be reached on its control channel" in error
        assert hub.engines == {engine.id: engine.uuid}
        assert (await client.reply(client.call(engine))).content["status"] == "ok"


async def test_an_engine_whose_shell_never_connects_is_lost_as_unreachable() -> None:
    settings: dict[str, Any] = {"ping": 60, "registration_timeout": 2, "stranded_grace": 0}
    async with (
        cluster(0, **settings) as (hub, client, _),
        hub.events() as events,
        open_engine(hub.engine_info, shell=False) as engine,
    ):
        await hub.wait_engines(1)
        task, call = client.submit(b"x"), client.call(engine, b"x")
        assert await next_of(events, EngineUnregistered) == EngineUnregistered(engine.id, engine.uuid, "unreachable")
        assert ename(await client.reply(task)) == "EngineError"
        assert ename(await client.reply(call)) == "EngineError"
        assert hub.engines == {}


async def test_an_engine_whose_shell_connects_late_gets_what_was_sent_before_in_order() -> None:
    async with (
        cluster(0, **SLOW | {"stranded_grace": 0}) as (hub, client, _),
        open_engine(hub.engine_info, shell=False) as engine,
    ):
        await hub.wait_engines(1)
        calls = [client.call(engine, b"%d" % number) for number in range(5)]
        task = client.submit(b"task")
        await eventually(lambda: hub.statistics().direct_pending == 5)
        engine.open_shell()
        for call in calls:
            await client.reply(call)
        await client.reply(task)
        direct = [bytes(request.buffers[0]) for request in engine.requests if request.queue == "mux"]
        assert direct == [b"0", b"1", b"2", b"3", b"4"]


# Tasks that fail, and retries


async def test_a_task_that_fails_is_tried_on_another_engine() -> None:
    async with cluster(2, behaviour=one_by_one(failing("ValueError"), answer)) as (_, client, engines):
        reply = await client.reply(client.submit(b"x", metadata={"retries": 1}))
        assert reply.content["status"] == "ok"
        assert [len(engine.requests) for engine in engines] == [1, 1]


async def test_a_task_that_fails_is_tried_again_on_the_only_engine() -> None:
    """An engine drops a message it has seen before, so the second attempt has to be a new one."""
    async with cluster(1, behaviour=one_by_one(failing(), failing(), answer)) as (_, client, (engine,)):
        task = client.submit(b"x", metadata={"retries": 2, "label": "kept"})
        reply = await client.reply(task)
        assert reply.content["status"] == "ok"
        assert reply.buffers == [b"x"]
        assert engine.unreadable == []
        assert [request.msg_id for request in engine.requests] == [task] * 3
        assert [request.metadata["label"] for request in engine.requests] == ["kept"] * 3


async def test_time_limits_and_hearts_do_not_go_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is set by years, as by hand or over the network. No time limit ends sooner or later."""
    jump = timedelta()
    monkeypatch.setattr(serve_module, "_now", lambda: datetime.now(UTC) + jump)
    async with cluster(1, **QUICK) as (hub, client, (engine,)):
        engine.hold()
        running = client.submit()
        await engine.wait_requests(1)
        patient = client.submit(metadata={"timeout": 600})
        for known, days in ((3, 1000), (4, -1000)):
            hasty = client.submit(metadata={"timeout": 0.3})
            await eventually(lambda known=known: hub.statistics().submitted == known)  # type: ignore[misc]
            jump = timedelta(days=days)
            assert ename(await client.reply(hasty)) == "TaskTimeout"
            pings = len(engine.pings)
            await engine.wait_until(lambda pings=pings: len(engine.pings) > pings + 3)  # type: ignore[misc]
        assert hub.engines == {engine.id: engine.uuid}
        assert not client.replies.keys() & {running, patient}
        engine.release()
        for msg_id in (running, patient):
            assert (await client.reply(msg_id)).content["status"] == "ok"


async def test_an_error_without_retries_is_the_clients() -> None:
    async with cluster(2, behaviour=failing("ValueError", "no")) as (hub, client, engines):
        reply = await client.reply(client.submit(b"x"))
        assert ename(reply) == "ValueError"
        assert sum(len(engine.requests) for engine in engines) == 1
        assert hub.statistics().failed == 1


async def test_a_refused_task_goes_elsewhere() -> None:
    async with cluster(2) as (_, client, (picky, other)):
        picky.behaviour = unmet
        for _ in range(4):
            reply = await client.reply(client.submit(b"x"))
            assert reply.content["status"] == "ok"
            assert reply.metadata["engine"] == other.uuid


# Replies that nobody asked for


@pytest.mark.parametrize("queue", ["task", "mux", "control"])
async def test_duplicate_and_forged_replies_change_nothing(queue: str) -> None:
    async with cluster(2, hwm=0, **SLOW) as (hub, client, engines):

        def ask(buffer: bytes) -> str:
            if queue == "task":
                return client.submit(buffer, metadata={"targets": [engines[0].uuid]})
            if queue == "mux":
                return client.call(engines[0], buffer)
            return client.control(engines[0], "clear_request", {"x": buffer.decode()})

        kept: list[Any] = []
        for engine in engines:
            engine.behaviour = engine.control_behaviour = kept.append
        first, second = ask(b"1"), ask(b"2")
        await engines[0].wait_requests(2)
        one, two = kept
        other = engines[1]

        one.answer([b"forged"], key=b"not the key")
        one.answer([b"forged"], by=other)
        other.send_reply(queue, "apply_reply", {"status": "ok"}, to=one.idents[1:], parent={"msg_id": "never"})
        other.send_reply(queue, "apply_reply", {"status": "ok"}, to=one.idents[1:])  # answers nothing at all
        frames = one.answer([b"true"])
        one.answer([b"a second time"])
        engines[0].send_raw("control" if queue == "control" else "shell", frames)
        two.answer([b"true"])
        for msg_id in (first, second):
            assert (await client.reply(msg_id)).buffers == [b"true"]

        expected = {"unexpected_result": 4}
        await eventually(lambda: hub.statistics().ignored == expected)
        await eventually(lambda: hub.statistics().wire_errors == {"bad_signature": 1, "replayed": 1})
        assert [len(client.replies[msg_id]) for msg_id in (first, second)] == [1, 1]
        statistics = hub.statistics()
        assert (statistics.tasks_running, statistics.tasks_queued, statistics.direct_pending) == (0, 0, 0)
        if queue != "control":
            assert (statistics.submitted, statistics.completed, statistics.failed) == (2, 2, 0)
            result = await client.query("result_request", {"msg_ids": [first, second]})
            assert result.buffers == [b"true", b"true"]


async def test_answering_twice_does_not_make_room_for_two() -> None:
    async with cluster(1, hwm=1, behaviour=twice) as (hub, client, (engine,)):
        tasks = [client.submit(b"%d" % number) for number in range(50)]
        for number, task in enumerate(tasks):
            assert (await client.reply(task)).buffers == [b"%d" % number]
        await eventually(lambda: hub.statistics().ignored.get("unexpected_result") == 50)
        assert [request.msg_id for request in engine.requests] == tasks
        assert all(len(client.replies[task]) == 1 for task in tasks)


async def test_a_msg_id_used_twice_is_answered_once() -> None:
    async with cluster(1) as (hub, client, (engine,)):
        engine.hold()
        for _ in range(2):
            client.submit(b"x", msg_id="same")
        await eventually(lambda: hub.statistics().ignored.get("duplicate_msg_id") == 1)
        engine.release()
        await client.reply("same")
        assert hub.statistics().tasks_queued == 0
        assert len(engine.requests) == 1


async def test_a_reply_whose_metadata_cannot_be_read_still_reaches_its_client() -> None:
    async with cluster(1) as (hub, client, (engine,)):
        engine.hold()
        call = client.call(engine)
        (request,) = await engine.wait_requests(1)
        packed = [engine.session.packer.pack(engine.session.new_header("apply_reply")), request.frames[2], b"[]", b"{}"]
        engine.send_raw("shell", [b"mux_out", *request.idents[1:], *engine.session.seal(packed)])
        await client.reply(call)
        assert hub.statistics().failed == 1
        assert hub.statistics().wire_errors == {"wrong_type": 1}


# Bytes that are no message


def garbage(client: ScriptedClient) -> dict[str, Callable[[], Frames]]:
    """Return unreadable messages, by the kind as which the hub counts them. Most begin with the delimiter."""
    session = client.session
    seal = session.seal

    def header() -> bytes:
        return session.packer.pack(session.new_header("apply_request"))

    numbers = itertools.count()

    def seal_new(header: bytes) -> Frames:
        """Return a signed message that differs from all others."""
        return seal([header, b"{}", b'{"number": %d}' % next(numbers), b"{}"])

    replayed = seal([header(), b"{}", b'{"targets": []}', b"{}"])  # good on every channel, when it first comes
    return {
        "no_delimiter": lambda: [b"no", b"delimiter"],
        "too_few_frames": lambda: [DELIMITER, b"signature", header(), b"{}", b"{}"],
        "bad_signature": lambda: [DELIMITER, b"0" * 64, header(), b"{}", b"{}", b"{}"],
        "replayed": lambda: list(replayed),
        "malformed": lambda: seal_new(b'{"msg_id": "broken'),
        "wrong_type": lambda: seal_new(b'["a list"]'),
        "too_large": lambda: seal_new(b'{"msg_id": "%s"}' % (b"x" * 10_000_000)),
    }


@pytest.mark.parametrize("channel", ["registration", "task", "mux", "control", "broadcast"])
async def test_the_hub_goes_on_whatever_clients_send(channel: str) -> None:
    async with cluster(1, **SLOW) as (hub, client, (engine,)):
        expected: dict[str, int] = {}
        for kind, make in garbage(client).items():
            prefix = [engine.ident] if channel in ("mux", "control") else []
            for _ in range(3):
                client.send_raw(channel, [*prefix, *make()])
            expected[kind] = 2 if kind == "replayed" else 3
        client.send_raw(channel, [b""])
        client.send_raw(channel, [b"\xff" * 300, b"", b"\0"])
        expected["no_delimiter"] += 2
        await eventually(lambda: hub.statistics().wire_errors == expected)
        assert (await client.reply(client.submit(b"x"))).buffers == [b"x"]
        assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]
        assert (await client.query("queue_request")).content["status"] == "ok"
        async with open_client(hub.client_info) as other, open_engine(hub.engine_info):
            await hub.wait_engines(2)
            assert (await other.reply(other.submit(b"x"))).buffers == [b"x"]


@pytest.mark.parametrize("channel", ["task_out", "mux_out", "broadcast_out", "control", "iopub", "registration"])
async def test_the_hub_goes_on_whatever_engines_send(channel: str) -> None:
    async with cluster(2, **SLOW) as (hub, client, engines):
        engine = engines[0]
        engine.hold()
        running = client.call(engine, b"still good")
        await engine.wait_requests(1)
        expected: dict[str, int] = {}
        socket = "shell" if channel.endswith("_out") else channel
        routing = [f"{channel.removesuffix('_out')}_out".encode(), b"client"]
        prefix = routing if socket in ("shell", "control") else [b"topic"] if socket == "iopub" else []
        for kind, make in garbage(client).items():
            for _ in range(3):
                engine.send_raw(socket, [*prefix, *make()])
            expected[kind] = 2 if kind == "replayed" else 3
        await eventually(lambda: hub.statistics().wire_errors == expected)
        engine.release()
        assert (await client.reply(running)).buffers == [b"still good"]
        for each in engines:
            assert (await client.reply(client.call(each, b"x"))).buffers == [b"x"]


async def test_a_task_whose_metadata_cannot_be_read_is_refused() -> None:
    async with cluster(1) as (hub, client, (engine,)):
        session = client.session
        prefixes: dict[str, Frames] = {"task": [], "mux": [engine.ident]}
        for channel, prefix in prefixes.items():
            header = session.new_header("apply_request")
            client.send_raw(channel, [*prefix, *session.seal([session.packer.pack(header), b"{}", b"[1]", b"{}"])])
            assert ename(await client.reply(header["msg_id"])) == "WireError"
        assert hub.statistics().wire_errors == {"wrong_type": 2}
        assert engine.requests == []


async def test_output_that_cannot_be_read_is_counted() -> None:
    async with cluster(1) as (hub, client, (engine,)):
        task = client.submit(b"x")
        await client.reply(task)
        (request,) = engine.requests
        parent = request.frames[2]
        for content in ({}, {"name": "stdlog", "text": "x"}, {"name": "stdout", "text": 7}):
            engine.publish("stream", content, parent=parent)
        engine.publish("execute_input", {"code": None}, parent=parent)
        request.print("good\n")
        request.print("output\n")
        await client.output("stream", text="output\n")
        assert hub.statistics().wire_errors == {"wrong_type": 4}
        result = await client.query("result_request", {"msg_ids": [task]})
        assert result.content[task]["io"]["stdout"] == "good\noutput\n"


# Queries


QUERIES: dict[str, list[Any]] = {
    "queue_request": [{"targets": {}}, {"targets": [99]}, {"targets": "nobody"}, {"targets": []}, {"targets": 1.5}],
    "load_request": [{"targets": [99]}, {"targets": [None]}],
    "result_request": [{}, {"msg_ids": 7}, {"msg_ids": ["never"]}, {"msg_ids": [1]}, {"msg_ids": None}],
    "db_request": [{"query": 7}, {"query": {"nonsense": 1}}, {"query": {"msg_id": {"$no": 1}}}, {"keys": ["nonsense"]}],
    "purge_request": [{"msg_ids": 7}, {"engine_ids": [99]}, {"msg_ids": {"a": 1}}],
    "resubmit_request": [{}, {"msg_ids": ["never"]}, {"msg_ids": 7}],
    "nonsense_request": [{}],
    "": [{}],
}


@pytest.mark.parametrize(
    ("msg_type", "content"), [(msg_type, content) for msg_type, contents in QUERIES.items() for content in contents]
)
async def test_a_query_that_cannot_be_answered_is_answered_so(msg_type: str, content: dict[str, Any]) -> None:
    async with cluster(1, **SLOW) as (_, client, (_engine,)):
        reply = await client.query(msg_type, content)
        assert reply.msg_type == "hub_error"
        assert reply.content["status"] == "error"
        assert reply.content["evalue"]
        assert reply.content["traceback"]
        assert (await client.reply(client.submit(b"x"))).buffers == [b"x"]


@pytest.mark.parametrize("msg_type", [msg_type for msg_type in QUERIES if msg_type and msg_type != "nonsense_request"])
@pytest.mark.parametrize("content", [b"[]", b"null", b'"text"', b"{", b"\xff\xfe", b"7", b""])
async def test_a_query_whose_content_is_none_is_answered_so(msg_type: str, content: bytes) -> None:
    async with within_limit(), open_hub() as hub, open_client(hub.client_info) as client:
        header = client.session.new_header(msg_type)
        packed = [client.session.packer.pack(header), b"{}", b"{}", content]
        client.send_raw("registration", client.session.seal(packed))
        reply = await client.reply(header["msg_id"])
        assert reply.msg_type == "hub_error"
        assert ename(reply) == "WireError"


# Clients that go


async def test_a_client_that_is_gone_when_its_result_comes() -> None:
    async with cluster(1, hwm=0, **SLOW) as (hub, client, (engine,)):
        engine.hold()
        async with open_client(hub.client_info) as leaving:
            for _ in range(50):
                leaving.submit(b"x")
                leaving.call(engine, b"x")
            await engine.wait_requests(100)
        mine = client.call(engine, b"mine")
        # The hub learns of it when its sockets do, so the first replies may still seem to be sent.
        while hub.statistics().ignored.get("client_gone", 0) == 0:
            assert engine.held, "100 replies to a client that is gone, and nobody noticed"
            completed = hub.statistics().completed
            engine.release(1)
            await eventually(lambda completed=completed: hub.statistics().completed > completed)  # type: ignore[misc]
        engine.release()
        assert (await client.reply(mine)).buffers == [b"mine"]
        await eventually(lambda: hub.statistics().completed == 101)
        history = await client.query("history_request")
        assert len(history.content["history"]) == 101
        result = await client.query("result_request", {"msg_ids": history.content["history"], "status_only": True})
        assert len(result.content["completed"]) == 101


async def test_a_client_that_does_not_wait_for_the_answer_to_its_query() -> None:
    async with within_limit(), open_hub() as hub, open_client(hub.client_info) as client:
        for _ in range(20):
            async with open_client(hub.client_info) as hasty:
                hasty.send("registration", "history_request")
        assert (await client.query("history_request")).content["status"] == "ok"


# Broadcasts


@pytest.mark.parametrize("coalescing", [True, False])
async def test_a_broadcast_with_an_engine_that_dies_is_answered_for_all(coalescing: bool) -> None:
    async with cluster(3, **QUICK) as (_, client, engines):
        dying = engines[1]
        dying.hold()
        metadata = {
            "targets": [[engine.uuid, engine.id] for engine in engines],
            "is_broadcast": True,
            "is_coalescing": coalescing,
        }
        msg_id = client.send("broadcast", "apply_request", metadata=metadata, buffers=[b"f", b"x"])
        await dying.wait_requests(1)
        assert dying.requests[0].queue == "broadcast"
        dying.die()
        await client.notification("unregistration_notification", id=dying.id)
        expected = 1 if coalescing else 3
        await client.wait_until(lambda: len(client.replies) - 1 == expected)
        replies = [reply for replies in client.replies.values() for reply in replies if reply.msg_type == "apply_reply"]
        assert len(replies) == expected
        if not coalescing:
            assert sorted(reply.content["status"] for reply in replies) == ["error", "ok", "ok"]
        assert msg_id in client.replies or not coalescing


# The hub stops


@pytest.mark.parametrize("how", ["shutdown", "client", "cancel"])
async def test_whoever_waits_when_the_hub_stops_is_answered(how: str, tmp_path: Any) -> None:
    from trio_hub import serve_hub

    async with within_limit(), trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def serve(*, task_status: Any) -> None:
            with scope:
                await serve_hub(HubConfig(profile_dir=tmp_path, **SLOW), task_status=task_status)

        hub = await nursery.start(serve)
        async with (
            open_client(hub.client_info) as client,
            open_engine(hub.engine_info) as engine,
            open_engine(hub.engine_info, beating=False),
        ):
            await hub.wait_engines(1)
            engine.hold()
            engine.control_behaviour = lambda request: None
            waiting = [client.submit(b"running"), client.submit(b"queued"), client.call(engine)]
            control = client.control(engine, "abort_request")
            await engine.wait_requests(3)
            await eventually(lambda: hub.statistics().submitted == 3)
            assert hub.client_file.exists()
            if how == "shutdown":
                hub.shutdown()
                hub.shutdown("again")
            elif how == "client":
                assert (await client.query("shutdown_request")).content["status"] == "ok"
            else:
                scope.cancel()
            for msg_id in [*waiting, control]:
                reply = await client.reply(msg_id)
                assert ename(reply) == "EngineError"
                assert len(client.replies[msg_id]) == 1
            await client.notification("shutdown_notification")
            await hub.wait_stopped()
            assert not hub.client_file.exists()
            assert not hub.engine_file.exists()
            assert "stopped" in repr(hub)


async def test_settled_means_settled() -> None:
    async with cluster(1, hwm=0) as (hub, client, (engine,)):
        engine.send_reply("mux", "apply_reply", {"status": "ok"}, parent={"msg_id": "never"})
        engine.send_reply("task", "apply_reply", {"status": "ok"}, parent={"msg_id": "never"})
        await settled(hub, client, engine)
        assert hub.statistics().ignored == {"unexpected_result": 2}


@pytest.mark.parametrize("packer", ["json", "msgpack"])
async def test_a_long_answer_is_whole_and_in_order(packer: str) -> None:
    """Long answers are packed piece by piece."""
    async with cluster(packer=packer) as (_, client, _):
        labels = [f"task {number} \N{SNOWMAN}" for number in range(130)]
        for label in labels:
            await client.reply(client.submit(b"work", metadata={"label": label}))
        found = (await client.query("db_request", {"query": {}, "keys": ["msg_id", "label"]})).content
        assert [record["label"] for record in found["records"]] == labels
        history = (await client.query("history_request")).content["history"]
        assert history == [record["msg_id"] for record in found["records"]]
