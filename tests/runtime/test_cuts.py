"""Connections that are cut in every way while both ends live: the engine comes back, and every request is answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from trio_hub import RunningHub
from trio_hub.runtime import connections, engine, factory, heartbeat
from trio_hub.testing import ScriptedClient, ScriptedEngine, open_client, open_engine

from .proxy import Network, open_network
from .support import cluster, eventually

WAYS = ("reset", "swallow", "forget")
CHANNELS = ("task", "mux", "broadcast", "control", "hb_ping", "hb_pong", "iopub", "registration")

ALL_BUT_THE_HEART = tuple(channel for channel in CHANNELS if channel != "hb_pong")
"""The channels on which both ends notice silence. A heart whose messages are swallowed counts as stopped."""


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the times of a minute to seconds."""
    monkeypatch.setattr(factory, "CONNECTION_PING", 0.3)
    monkeypatch.setattr(factory, "LEAST_SILENCE", 0.5)
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(engine, "RETRY", 0.3)
    monkeypatch.setattr(engine, "ANSWER", 0.5)
    monkeypatch.setattr(connections, "PAUSE", 0.1)


@asynccontextmanager
async def networked() -> AsyncGenerator[tuple[RunningHub, ScriptedClient, ScriptedEngine, Network], None]:
    """A hub, a client, and an engine that reaches the hub through a network."""
    async with (
        cluster(0, ping=0.1, max_heartmonitor_misses=25) as (hub, client, _),
        open_network(hub.engine_info) as network,
        open_engine(network.info) as scripted,
    ):
        await hub.wait_engines(1)
        yield hub, client, scripted, network


async def cut(network: Network, way: str, *channels: str) -> None:
    """Cut connections when the engine's ZeroMQ knows how long they may be silent."""
    await eventually(lambda: network.is_watched("task", "mux", "broadcast", "control", "hb_ping"))
    getattr(network, way)(*channels)


async def works(hub: RunningHub, client: ScriptedClient, engine: ScriptedEngine) -> None:
    """Check that all channels work, and that the engine is still the same."""
    for msg_id in (client.submit(b"task"), client.call(engine, b"direct"), client.control(engine, "clear_request")):
        assert (await client.reply(msg_id)).content["status"] == "ok"
    assert hub.engines == {engine.id: engine.uuid}
    assert hub.statistics().engines_lost == dict.fromkeys(hub.statistics().engines_lost, 0)


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
@pytest.mark.parametrize("way", WAYS)
async def test_all_connections_of_an_engine_are_cut(way: str, busy: bool, known: bool) -> None:
    async with networked() as (hub, client, engine, network):
        if known:
            await works(hub, client, engine)
        if busy:
            engine.hold()
        before = len(engine.requests)
        msg_ids = [client.submit(b"task"), client.call(engine, b"direct")] if busy else []
        await engine.wait_requests(before + len(msg_ids))
        await cut(network, way, *(CHANNELS if way != "swallow" else ALL_BUT_THE_HEART))
        msg_ids += [client.submit(b"sent into the cut"), client.call(engine, b"sent into the cut")]
        msg_ids.append(client.control(engine, "clear_request"))
        engine.release()
        for msg_id in msg_ids:
            content = (await client.reply(msg_id)).content
            assert content["status"] == "ok" or "the connection to the engine broke" in content["evalue"]
        await works(hub, client, engine)
        assert [len(client.replies[msg_id]) for msg_id in msg_ids] == [1] * len(msg_ids)


@pytest.mark.parametrize(
    ("way", "channel"),
    [(way, channel) for way in WAYS for channel in CHANNELS if (way, channel) != ("swallow", "hb_pong")],
)
async def test_one_connection_of_an_engine_is_cut(way: str, channel: str) -> None:
    async with networked() as (hub, client, engine, network):
        await works(hub, client, engine)
        await cut(network, way, channel)
        if channel == "control":
            # The request may be lost, and is then answered with an error.
            await client.reply(client.control(engine, "clear_request"))
        await works(hub, client, engine)


async def test_an_engine_whose_heart_is_swallowed_is_lost_and_its_work_is_answered() -> None:
    async with networked() as (hub, client, engine, network):
        await works(hub, client, engine)
        engine.hold()
        call = client.call(engine, b"direct")
        await cut(network, "swallow", *CHANNELS)
        assert (await client.reply(call)).content["ename"] == "EngineError"
        assert hub.statistics().engines_lost["heart"] == 1


async def test_an_engine_that_was_cut_off_for_too_long_is_usable_again_under_its_id() -> None:
    async with networked() as (hub, client, engine, network), open_engine(hub.engine_info) as other:
        await hub.wait_engines(2)
        known = hub.engines
        network.refusing = True
        network.reset()
        await client.notification("unregistration_notification", id=engine.id)
        assert "its heart was silent for" in (await client.reply(client.call(engine))).content["evalue"]
        network.refusing = False
        await hub.wait_engines(2)
        assert hub.engines == known
        for msg_id in (client.call(engine), client.call(other), client.control(engine, "clear_request")):
            assert (await client.reply(msg_id)).content["status"] == "ok"
        tasks = [client.submit(b"task") for _ in range(10)]
        assert {(await client.reply(task)).content["status"] for task in tasks} == {"ok"}


@pytest.mark.parametrize("way", WAYS)
async def test_tasks_whose_answers_are_lost_on_the_way_are_run_again(way: str) -> None:
    async with networked() as (hub, client, engine, network):
        await works(hub, client, engine)
        engine.hold()
        task = client.submit(b"task")
        await eventually(lambda: len(engine.held) == 1)
        await cut(network, way, "task")
        if way == "swallow":
            engine.release(1)  # its answer goes into the dead connection
        engine.release()
        assert (await client.reply(task)).content["status"] == "ok"
        await works(hub, client, engine)


async def test_a_new_connection_that_is_used_at_once_does_not_hide_what_the_broken_one_has_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "PAUSE", 1.0)
    async with networked() as (hub, client, engine, network):
        assert network.count("mux") == 1, "and nothing was received on it"
        await cut(network, "swallow", "mux")
        lost = client.call(engine, b"sent into the cut")
        await eventually(lambda: network.count("mux") == 1)
        await client.reply(client.call(engine, b"on the new connection"))
        assert (await client.reply(lost)).content["status"] == "ok"
        await works(hub, client, engine)


async def test_a_client_that_was_cut_gets_its_results_when_it_is_heard_again() -> None:
    async with (
        cluster(1) as (hub, _, (engine,)),
        open_network(hub.client_info) as network,
        open_client(network.info) as client,
    ):
        engine.hold()
        task, call = client.submit(b"task"), client.call(engine, b"direct")
        await engine.wait_requests(2)
        network.reset()
        await eventually(lambda: network.count("task") == 1)
        engine.release()
        await eventually(lambda: hub.statistics().completed == 2)
        later = client.submit(b"later"), client.call(engine, b"later")
        for msg_id in (task, call, *later):
            assert (await client.reply(msg_id)).content["status"] == "ok"
