"""Hubs that are killed or stopped with requests under way: one test per case."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import zmq

from trio_hub.testing import ScriptedClient, ScriptedEngine, open_client, open_engines
from trio_hub.testing.peer import serving
from trio_hub.transport.channel import Channel
from trio_hub.transport.receiver import receive_from
from trio_hub.wire.frames import Frames, to_bytes

from .processes import HubProcess, hub_process
from .work import Workers, heard, hold, on_disk, release, result_of

pytestmark = pytest.mark.crash

LIMIT = 60.0
"""The time limit of one test, in seconds. A test usually takes a small part of it."""


@asynccontextmanager
async def disconnection(engine: ScriptedEngine) -> AsyncGenerator[trio.Event, None]:
    """Return an event that is set when the engine has lost its three connections for requests."""
    lost: list[Frames] = []
    disconnected = trio.Event()

    def lose(event: Frames) -> None:
        lost.append(event)
        if len(lost) == 3:
            disconnected.set()

    socket = engine.channels["shell"].socket
    with Channel(socket.get_monitor_socket(zmq.EVENT_DISCONNECTED), lose) as events:
        async with serving() as nursery:
            nursery.start_soon(receive_from, events)
            yield disconnected
        socket.disable_monitor()


async def recorded(hub: HubProcess, msg_ids: Sequence[str]) -> None:
    """Wait until these requests are on disk."""
    while len(hub.records(msg_ids)) < len(msg_ids):
        await trio.testing.wait_all_tasks_blocked(0.005)


async def killed_and_started_anew(hub: HubProcess, *options: str) -> None:
    hub.kill()
    await hub.gone()
    await hub.start(*options)
    await hub.ready()


async def only_reply(client: ScriptedClient, msg_id: str) -> dict[str, Any]:
    """Return the content of the only reply to a request."""
    reply = await client.reply(msg_id)
    assert len(client.replies[msg_id]) == 1
    return reply.content


async def nothing_is_pending(client: ScriptedClient) -> None:
    queues = (await client.query("queue_request")).content
    assert (queues.pop("status"), queues.pop("unassigned")) == ("ok", 0)
    assert [(queue["queue"], queue["tasks"]) for queue in queues.values()] == [(0, 0)] * len(queues)
    pending = await client.query("db_request", {"query": {"completed": None}, "keys": ["msg_id"]})
    assert pending.content["records"] == []


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
async def test_engines_that_die_with_the_hub(durability: str, tmp_path: Path) -> None:
    """Their tasks go to other engines if they have retries. Otherwise their clients get an error after the timeout."""
    options = ("--durability", durability, "--registration-timeout", "5", "--stranded-grace", "0.1")
    with trio.fail_after(LIMIT):
        async with (
            hub_process(tmp_path / "profile", *options) as hub,
            open_client(hub.client_info) as client,
            open_engines(hub.engine_info, 8, behaviour=Workers()) as engines,
        ):
            await on_disk(hub, engines)
            hold(engines)
            tasks = [client.submit(b"%d" % number, metadata={"retries": number % 2}) for number in range(40)]
            for engine in engines:
                await engine.wait_requests(1)
            await recorded(hub, tasks)
            running = [engine.held[0].msg_id for engine in engines]
            # the engine of a task is written after the task; without it, the next hub counts the task as queued
            while not all(record["engine_uuid"] for record in hub.records(running, "engine_uuid").values()):
                await trio.testing.wait_all_tasks_blocked(0.005)
            dying, others = engines[:3], engines[3:]
            lost = [engine.held[0] for engine in dying]
            hub.kill()
            for engine in dying:
                engine.die()
            await hub.gone()
            await hub.start()
            release(others)
            await heard(client, "task")
            for number, task in enumerate(tasks):
                content = await only_reply(client, task)
                if task in [request.msg_id for request in lost] and number % 2 == 0:
                    assert content["ename"] == "EngineError"
                    assert "died while running task" in content["evalue"]
                else:
                    assert content == {"status": "ok"}
                    assert client.replies[task][0].buffers == [result_of(b"%d" % number)]
            await nothing_is_pending(client)
            assert client.unreadable == []


async def test_direct_requests_and_broadcasts(tmp_path: Path) -> None:
    """Engines answer before the hub is killed, without a hub, and after the restart. Some answers are lost."""
    with trio.fail_after(LIMIT):
        async with (
            hub_process(tmp_path / "profile", "--durability", "strict") as hub,
            open_client(hub.client_info) as client,
            open_engines(hub.engine_info, 4, behaviour=Workers()) as engines,
        ):
            await on_disk(hub, engines)
            first, second, third, forgetful = engines
            hold(engines)
            targets = [[engine.uuid, engine.id] for engine in engines]
            gathered, scattered = (
                client.send(
                    "broadcast",
                    "apply_request",
                    metadata={"targets": targets, "is_broadcast": True, "is_coalescing": coalescing},
                    buffers=[b"all"],
                )
                for coalescing in (True, False)
            )
            calls = [client.call(engine, b"one") for engine in engines]
            for engine in engines:
                await engine.wait_requests(3)
            first.release()
            shares = [f"{scattered}_{engine.uuid}" for engine in engines]
            assert await only_reply(client, calls[0]) == {"status": "ok"}
            assert await only_reply(client, shares[0]) == {"status": "ok"}
            # If a hub is killed after it has sent a result and before it has noted that, the next hub sends the result
            # again, see durability.md. When the hub answers this query, it has noted both results.
            await client.query("queue_request")
            forgetful.held.clear()
            async with disconnection(second) as disconnected:
                hub.kill()
                await hub.gone()
                await disconnected.wait()  # until then, replies may go to the sockets of the killed hub
            second.release()
            await hub.start()
            await hub.ready()
            third.release()
            forgetful.release()
            await heard(client, "mux")
            await heard(client, "broadcast")

            for answered in (*calls[:3], *shares[:3]):
                assert await only_reply(client, answered) == {"status": "ok"}
                assert client.replies[answered][0].buffers in ([result_of(b"one")], [result_of(b"all")])
            for lost in (calls[3], shares[3]):
                content = await only_reply(client, lost)
                assert content["ename"] == "EngineError"
                assert "its result was lost" in content["evalue"]
            content = await only_reply(client, gathered)
            assert content["errors"].keys() == {forgetful.uuid}
            assert client.replies[gathered][0].buffers == [result_of(b"all")] * 3
            await nothing_is_pending(client)
            assert client.unreadable == []


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
async def test_somebody_else_gets_the_results_of_a_client_that_is_gone(durability: str, tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with (
            hub_process(tmp_path / "profile", "--durability", durability) as hub,
            open_engines(hub.engine_info, 2, behaviour=Workers()) as engines,
        ):
            await on_disk(hub, engines)
            hold(engines)
            async with open_client(hub.client_info) as client:
                tasks = [client.submit(b"x") for _ in range(4)]
                for engine in engines:
                    await engine.wait_requests(1)
                    engine.held[0].print("before\n")
                await recorded(hub, tasks)
                running = [engine.held[0].msg_id for engine in engines]
                while not all(record["stdout"] for record in hub.records(running, "stdout").values()):
                    await trio.testing.wait_all_tasks_blocked(0.005)
            await killed_and_started_anew(hub)
            async with open_client(hub.client_info) as other:
                for engine in engines:
                    engine.held[0].print("after\n")
                    engine.held[0].print("and a warning\n", "stderr")
                release(engines)
                pending = {"msg_ids": tasks, "status_only": True}
                while (await other.query("result_request", pending)).content["pending"]:
                    pass
                reply = await other.query("result_request", {"msg_ids": tasks})
                assert reply.buffers == [result_of(b"x")] * 4
                assert all(reply.content[task]["result_content"] == {"status": "ok"} for task in tasks)
                while not all(await outputs(other, running)):
                    pass  # output comes on a separate channel, perhaps later
                assert [(io["stdout"], io["stderr"]) for io in await outputs(other, running)] == [
                    ("before\nafter\n", "and a warning\n")
                ] * 2
                await nothing_is_pending(other)


async def outputs(client: ScriptedClient, msg_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the recorded output of these tasks; nothing, until all have printed their last line."""
    content = (await client.query("result_request", {"msg_ids": list(msg_ids)})).content
    return [content[msg_id]["io"] if content[msg_id]["io"]["stderr"] else {} for msg_id in msg_ids]


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
async def test_a_hub_that_is_stopped_leaves_its_work_to_the_next(durability: str, tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with (
            hub_process(tmp_path / "profile", "--durability", durability) as hub,
            open_client(hub.client_info) as client,
            open_engines(hub.engine_info, 4, behaviour=Workers()) as engines,
        ):
            await on_disk(hub, engines)
            hold(engines)
            tasks = [client.submit(b"%d" % number) for number in range(200)]
            calls = [client.call(engine, b"call") for engine in engines]
            for engine in engines:
                await engine.wait_requests(2)
            await heard(client, "task")
            for engine in engines[:2]:
                engine.release(1)
            await hub.stop()
            await trio.testing.wait_all_tasks_blocked(0.01)  # the last replies of the hub may not be handled yet
            assert hub.records(tasks).keys() == set(tasks)
            assert set(hub.unfinished()) == {*tasks, *calls} - client.replies.keys()
            assert len(client.replies.keys() & {*tasks, *calls}) <= 2
            await hub.start()
            await hub.ready()
            release(engines)
            await heard(client, "task")
            for number, task in enumerate(tasks):
                assert await only_reply(client, task) == {"status": "ok"}
                assert client.replies[task][0].buffers == [result_of(b"%d" % number)]
            for call in calls:
                assert await only_reply(client, call) == {"status": "ok"}
            await nothing_is_pending(client)
            assert client.unreadable == []


async def test_a_hub_that_begins_anew_writes_off_what_was_left(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with hub_process(tmp_path / "profile", "--durability", "strict") as hub:
            async with (
                open_client(hub.client_info) as client,
                open_engines(hub.engine_info, 2, behaviour=Workers()) as engines,
            ):
                await on_disk(hub, engines)
                hold(engines)
                requests = [client.submit(b"x") for _ in range(10)]
                requests += [client.call(engine, b"x") for engine in engines]
                targets = [[engine.uuid, engine.id] for engine in engines]
                metadata = {"targets": targets, "is_broadcast": True, "is_coalescing": True}
                requests.append(client.send("broadcast", "apply_request", metadata=metadata, buffers=[b"x"]))
                await recorded(hub, requests)
                await killed_and_started_anew(hub, "--reuse", "false", "--restore", "false")
            assert "unfinished requests of the previous hub have failed" in hub.log
            assert "requests=13" in hub.log
            async with open_client(hub.client_info) as client:
                await nothing_is_pending(client)
                query = {"query": {"msg_id": {"$in": requests}}, "keys": ["result_content", "completed"]}
                records = (await client.query("db_request", query)).content["records"]
                assert len(records) == len(requests)
                assert {record["result_content"]["ename"] for record in records} == {"EngineError"}
                assert all("was not told to carry on" in record["result_content"]["evalue"] for record in records)
            await hub.stop()
            assert hub.unfinished() == []


async def test_buffers_that_are_lost_with_their_files(tmp_path: Path) -> None:
    """A request or a result whose large buffers are gone is answered with an error that names the file."""
    big = b"x" * 200_000
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(LIMIT))
        hub = await stack.enter_async_context(hub_process(tmp_path / "profile", "--durability", "strict", "--hwm", "1"))
        client = await stack.enter_async_context(open_client(hub.client_info))
        (engine,) = await stack.enter_async_context(open_engines(hub.engine_info, 1, behaviour=Workers()))
        await on_disk(hub, [engine])
        finished = client.submit(big)
        await only_reply(client, finished)
        engine.hold()
        running, waiting, small = client.submit(big + b"1"), client.submit(big + b"2"), client.submit(b"3")
        call = client.call(engine, big + b"4")
        await recorded(hub, [running, waiting, small, call])
        await engine.wait_requests(3)
        hub.kill()
        await hub.gone()
        (segment,) = hub.database.with_name("tasks.sqlite-buffers").iterdir()
        segment.unlink()
        await hub.start()
        await hub.ready()
        assert "files of large buffers are missing" in hub.log
        engine.release()
        await heard(client, "task")
        for request, number in ((running, b"1"), (call, b"4")):  # the engine had these already
            assert await only_reply(client, request) == {"status": "ok"}
            assert to_bytes(client.replies[request][0].buffers[0]) == result_of(big + number)
        lost = await only_reply(client, waiting)
        assert lost["ename"] == "EngineError"
        assert (
            f"the buffers of {waiting} cannot be read: {segment}: this file of large buffers is missing"
            in (lost["evalue"])
        )
        assert await only_reply(client, small) == {"status": "ok"}
        reply = await client.query("result_request", {"msg_ids": [finished]})
        assert reply.content["ename"] == "StoreError"
        assert f"the result_buffers of {finished} cannot be read: {segment}" in reply.content["evalue"]
        await nothing_is_pending(client)
        assert (await client.query("purge_request", {"msg_ids": [finished]})).content == {"status": "ok"}
        assert "internal_error" not in hub.log
        assert client.unreadable == []
