"""Pools of a hub in a program, with real engines."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import HubConfig, RunningHub, connect, serve_hub
from trio_hub.hub.events import BlockEnded, BlockStarted, BlockSubmitted, Event
from trio_hub.testing import open_hub

from ...cli.process import processes_with
from ..support import eventually, within_limit

POOL: Any = {
    "name": "cloud",
    "launcher": "command",
    "max": 1,
    "idle_timeout": 1,
    "submit_command": 'setsid sh -c "exec $TRIO_HUB_ENGINE_COMMAND" > /dev/null 2>&1 & printf "%s" $!',
    "cancel_command": "kill $TRIO_HUB_JOB; true",
    "status_command": "kill -0 $TRIO_HUB_JOB && echo running || echo ended",
}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


class Seen:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def happened(self, event: Event) -> None:
        if isinstance(event, BlockSubmitted | BlockStarted | BlockEnded):
            self.events.append(event)

    def handled(self, channel: str, seconds: float) -> None:
        pass


async def test_a_hub_without_a_profile_has_pools_too(temporary: Path) -> None:
    seen = Seen()
    async with (
        within_limit(),
        open_hub(HubConfig(pools=(POOL,))) as hub,
        connect(connection_info=hub.client_info) as rc,
    ):
        with hub.observed(seen):
            assert await rc.apply(int) == 0
            await eventually(lambda: not hub.engines and not hub.pools[0]["blocks"])
        assert [type(event) for event in seen.events] == [BlockSubmitted, BlockStarted, BlockEnded]
        assert hub.pools[0]["counts"]["cancelled"] == 1
        assert hub.pools[0]["engine_seconds"] > 1
    assert os.listdir(temporary) == []


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_hub_that_is_cancelled_cancels_its_blocks(temporary: Path, at_once: bool) -> None:
    async with within_limit():
        async with trio.open_nursery() as nursery:
            hub: RunningHub = await nursery.start(serve_hub, HubConfig(pools=(POOL | {"min": 1},)))
            if not at_once:
                await hub.wait_engines(1)
            nursery.cancel_scope.cancel()
        await eventually(lambda: not processes_with(str(temporary)))
    assert os.listdir(temporary) == []
