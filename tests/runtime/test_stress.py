"""Many messages: each is answered exactly once, with the right answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio

from trio_hub import HubConfig
from trio_hub.testing import open_hub

pytestmark = pytest.mark.stress

ROOT = Path(__file__).parent.parent.parent
LIMIT = 280.0
"""The time limit of one run, in seconds. On two idle cores, a run takes a small part of it."""


@pytest.mark.parametrize("run", range(3))
@pytest.mark.parametrize(("queue", "clients", "requests"), [("task", 6, 20_000), ("mux", 1, 5_000)])
async def test_every_request_is_answered_exactly_once(queue: str, clients: int, requests: int, run: int) -> None:
    """The requests go to 8 engines."""
    command = [sys.executable, "-m", "tests.runtime.stress_peers", queue, str(clients), str(requests)]
    config = HubConfig(ping=1, max_heartmonitor_misses=60)
    with trio.fail_after(LIMIT):
        async with open_hub(config) as hub:
            info = json.dumps({"client": hub.client_info, "engine": hub.engine_info})
            await trio.run_process(command, stdin=info.encode(), cwd=ROOT)
            statistics = hub.statistics()
            assert (statistics.submitted, statistics.completed) == (clients * requests,) * 2
            assert (statistics.tasks_queued, statistics.tasks_running, statistics.direct_pending) == (0, 0, 0)
            assert (statistics.failed, statistics.wire_errors, statistics.ignored) == (0, {}, {})
            assert hub._host.hub.engines.next_engine_id == 8
