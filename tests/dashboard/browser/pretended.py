"""Serves the dashboard of a hub with made-up pools, prints its URL, and ends with its stdin: ``python -m …``."""

from __future__ import annotations

import sys

import trio

from trio_hub import HubConfig, serve_hub
from trio_hub.dashboard import serve_dashboard

from ..pools import fixed_pool, pool, pretend, stopped_pool


async def main() -> None:
    async with trio.open_nursery() as nursery:
        hub = await nursery.start(serve_hub, HubConfig(db="memory", dashboard="0", dashboard_admin=True))
        pretend(hub, fixed_pool(2), pool(cost=2.5), stopped_pool())
        dashboard = await nursery.start(serve_dashboard, hub)
        print(dashboard.url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        hub.shutdown()


if __name__ == "__main__":
    trio.run(main)
