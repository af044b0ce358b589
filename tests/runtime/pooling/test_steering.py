"""What users see of pools, and what they can change."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_hub import HubConfig
from trio_hub.errors import PoolError
from trio_hub.hub.events import PoolScaled
from trio_hub.runtime import children
from trio_hub.runtime.pooling.pool import COUNTS
from trio_hub.testing import ScriptedClient, open_client, open_hub

from ..support import eventually, within_limit
from .fake import a_batch, a_hub, a_pool

COMMAND = (sys.executable, "-m", "tests.runtime.local_engine")


async def test_a_pool_is_scaled_and_scaled_back(autojump_clock: MockClock) -> None:
    async with a_batch() as batch, a_hub(batch) as hub:
        assert hub.steering.scale("slurm", 3, by="Ada") == (4, 4), "whole blocks"
        assert PoolScaled("slurm", 4, 4, "Ada") in hub.events
        await hub.until(lambda: len(batch.engines) == 4)
        (told,) = hub.steering.listed()
        assert [told[key] for key in ("min", "max", "configured_min", "configured_max")] == [4, 4, 0, 8]
        assert [pool.max for pool in hub.core.used] == [4]
        await trio.sleep(60)
        assert len(batch.engines) == 4, "idle engines stay"
        hub.steering.scale("slurm", min=0, max=2)
        await hub.until(lambda: not batch.alive())
        assert hub.steering.scale("slurm", max=16) == (0, 16)
        assert hub.steering.scale("slurm") == (0, 8)


@pytest.mark.parametrize(
    ("name", "sizes", "why"),
    [
        ("pbs", {"engines": 1}, "there is no pool 'pbs': the pools are slurm"),
        ("slurm", {"engines": -1}, "must be a whole number from 0"),
        ("slurm", {"engines": 10**9}, "must be a whole number from 0 to 1000000"),
        ("slurm", {"min": 9}, "min is 9, which is more than max, 8"),
        ("slurm", {"engines": 1, "min": 1}, "either the number of engines, or min and max"),
    ],
)
async def test_a_size_that_cannot_be(name: str, sizes: dict[str, Any], why: str, autojump_clock: MockClock) -> None:
    async with a_batch() as batch, a_hub(batch) as hub:
        with pytest.raises(PoolError, match=why):
            hub.steering.scale(name, **sizes)
        with pytest.raises(PoolError, match="there is no pool 'pbs'"):
            hub.steering.resume("pbs")
        assert hub.pool.settings == hub.pool.pool.settings


async def test_the_next_hub_has_the_size_unless_the_settings_have_changed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_batch() as batch:
        async with a_hub(batch, directory=tmp_path) as hub:
            hub.core.tasks, hub.core.runtime = 2, 10.0
            await hub.until(lambda: hub.core.done == 2)
            hub.steering.scale("slurm", min=0, max=4)
            await hub.until(lambda: (tmp_path / "pools.json").exists())
            await trio.sleep(1)
            hub.kill()
        async with a_hub(batch, directory=tmp_path) as hub:
            (told,) = hub.steering.listed()
            assert (told["max"], told["configured_max"]) == (4, 8)
            assert told["counts"]["submitted"] == 1
            assert told["engine_seconds"] >= 20
        async with a_hub(batch, a_pool(max=6), directory=tmp_path) as hub:
            assert hub.steering.listed()[0]["max"] == 6


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"engine_seconds": "many"},
        {"engine_seconds": math.inf},
        {"engine_seconds": 1, "counts": 3},
        {"engine_seconds": 1, "counts": {"submitted": math.inf}},
        {"engine_seconds": 1, "counts": dict.fromkeys(COUNTS, 0), "configured": [0, 8], "scaled": [1]},
        5,
        {"engine_seconds": 1},
    ],
)
async def test_damaged_numbers_are_told(
    numbers: Any, tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pools.json").write_text(json.dumps({"pools": {"slurm": numbers, "pbs": {"engine_seconds": 1}}}))
    async with a_batch() as batch, a_hub(batch, directory=tmp_path) as hub:
        assert hub.steering.listed()[0]["max"] == 8
    assert "the numbers of a pool are not restored" in caplog.text


async def ask(client: ScriptedClient, msg_type: str, **content: Any) -> dict[str, Any]:
    reply = await client.query(msg_type, content)
    return dict(reply.content)


async def test_the_number_of_engines_is_changed_while_the_hub_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engines of ``--engines N`` are the pool ``local``."""
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(children, "LAST_WORDS", 0.01)
    config = HubConfig(engines=2, engine_command=COMMAND, ping=0.5)
    async with within_limit(), open_hub(config) as hub, open_client(hub.client_info) as client:
        await hub.wait_engines(2)
        (told,) = hub.pools
        assert (told["name"], told["fixed"], told["there"], told["idle"], told["coming"]) == ("local", True, 2, 2, 0)
        assert (await ask(client, "pools_request"))["pools"][0]["there"] == 2
        assert (await ask(client, "scale_request", pool="local", engines=3, by="Ada"))["max"] == 3
        await hub.wait_engines(3)
        hub.scale("local", 1)
        await eventually(lambda: len(hub.engines) == 1)
        statistics = hub.statistics()
        assert (statistics.local_engines, statistics.local_engines_missing) == (1, ())
        client.control(next(iter(hub.engines.values())), "shutdown_request", {"restart": False})
        await eventually(lambda: not hub.engines)
        hub.scale("local")
        await hub.wait_engines(2)
        assert hub.statistics().local_engines_missing == ()
        assert hub.pools[0]["engine_seconds"] > 0
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"pool": "slurm", "engines": 1}, "PoolError"),
            ({"pool": "local", "min": 1, "max": 2}, "PoolError"),
            ({"pool": 3}, "TypeError"),
            ({"pool": "local", "engines": True}, "TypeError"),
            ({"pool": "local", "engines": "2"}, "TypeError"),
        ]
        for content, ename in wrong:
            error = await ask(client, "scale_request", **content)
            assert (error["status"], error["ename"]) == ("error", ename)
        assert (await ask(client, "resume_pool_request", pool="local"))["status"] == "ok"
        assert (await ask(client, "resume_pool_request", pool="slurm"))["ename"] == "PoolError"


async def test_a_hub_without_pools_lists_none() -> None:
    async with within_limit(), open_hub(HubConfig()) as hub:
        assert hub.pools == []
        with pytest.raises(PoolError, match="this hub has no pools"):
            hub.scale("local", 2)
