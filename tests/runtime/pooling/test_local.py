"""The launcher ``local``: engines of pools that the hub itself starts, with scripted engines."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trio_hub import HubConfig, RunningHub
from trio_hub.runtime import children, localmaking
from trio_hub.testing import ScriptedClient, open_client, open_hub

from ..support import eventually, within_limit

COMMAND = [sys.executable, "-m", "tests.runtime.local_engine"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(children, "LAST_WORDS", 0.01)
    monkeypatch.setattr(localmaking, "pool_command", lambda config, pool: COMMAND)


@asynccontextmanager
async def hub_with(*pools: dict[str, Any], **settings: Any) -> AsyncGenerator[tuple[RunningHub, ScriptedClient], None]:
    tables: Any = [{"launcher": "local", "idle_timeout": 60.0} | pool for pool in pools]
    config = HubConfig(pools=tables, ping=0.5, stranded_grace=0, **settings)
    async with within_limit(), open_hub(config) as hub, open_client(hub.client_info) as client:
        yield hub, client


async def test_engines_have_their_blocks_and_several_pools_may_be_local() -> None:
    async with hub_with(
        {"name": "a", "min": 2, "max": 4, "engines_per_block": 2},
        {"name": "b", "min": 1, "max": 1},
        engines=1,
        engine_command=tuple(COMMAND),
    ) as (hub, _):
        await hub.wait_engines(4)
        blocks = sorted(engine.block for engine in hub.core.engines.alive.values())
        assert [block[:2] for block in blocks] == ["", "a-", "a-", "b-"]
        assert blocks[1] == blocks[2]
        await eventually(lambda: [pool["there"] for pool in hub.pools] == [1, 2, 1])
        assert [(pool["name"], pool["fixed"]) for pool in hub.pools] == [("local", True), ("a", False), ("b", False)]
        hub.scale("b", 0)
        await eventually(lambda: sum(engine.block[:2] == "b-" for engine in hub.core.engines.alive.values()) == 0)
        assert {reason for reason, number in hub.statistics().engines_lost.items() if number} <= {"request", "shutdown"}


async def test_an_engine_that_dies_is_started_again_in_its_block() -> None:
    async with hub_with({"name": "a", "min": 1, "max": 1}) as (hub, client):
        await hub.wait_engines(1)
        block = hub.core.engines.alive[0].block
        reply = await client.reply(client.submit(b"exit 7"))
        assert "ended with exit status 7" in reply.content["evalue"]
        assert (await client.reply(client.submit(b"work"))).content["status"] == "ok"
        (engine,) = hub.core.engines.alive.values()
        assert (engine.id, engine.block) == (1, block)
        (told,) = hub.pools
        assert (told["counts"]["submitted"], told["failures"]) == (1, 0)
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: list(hub.engines) == [2])
        assert hub.pools[0]["counts"]["submitted"] == 1


async def test_an_engine_that_was_told_to_stop_ends_its_block() -> None:
    async with hub_with({"name": "a", "min": 1, "max": 1}) as (hub, client):
        await hub.wait_engines(1)
        await eventually(lambda: hub.pools[0]["there"] == 1)
        client.control(hub.engines[0], "shutdown_request", {"restart": False})
        await eventually(lambda: hub.pools[0]["counts"]["ended"] == 1)
        await hub.wait_engines(1)  # since min is 1
        assert hub.pools[0]["counts"] == {"submitted": 2, "refused": 0, "failed": 0, "ended": 1, "cancelled": 0}


async def test_an_engine_that_never_registers_fails_its_block(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(localmaking, "pool_command", lambda config, pool: [sys.executable, "-c", "raise SystemExit(3)"])
    pool = {"name": "a", "min": 1, "max": 1, "retry_pause": 0.01, "max_failures": 2}
    async with hub_with(pool) as (hub, _):
        await eventually(lambda: bool(hub.pools[0]["is_stopped"]))
        assert hub.pools[0]["failed_words"] == "ended with exit status 3"
        assert hub.pools[0]["counts"]["failed"] == 2
    assert caplog.text.count("local engine of a pool ended before it had registered") == 2


async def test_a_command_that_cannot_be_run_fails_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localmaking, "pool_command", lambda config, pool: ["/nowhere/engine"])
    async with hub_with({"name": "a", "min": 1, "max": 1}) as (hub, _):
        await eventually(lambda: hub.pools[0]["failures"] == 1)
        assert hub.pools[0]["failed_words"] == "cannot be started: /nowhere/engine: No such file or directory"
