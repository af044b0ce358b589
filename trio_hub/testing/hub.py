"""`open_hub`: run a hub for the duration of a block."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ..config import HubConfig
from ..runtime import RunningHub, serve_hub
from .peer import serving

__all__ = ["open_hub"]


@asynccontextmanager
async def open_hub(config: HubConfig | None = None) -> AsyncGenerator[RunningHub, None]:
    """Run a hub for the duration of a block, and cancel it at the end.

    ::

        async with open_hub(HubConfig(hwm=0)) as hub: ...

    Raises:
        HubError: An error of `trio_hub.serve_hub`. An exception of the block is raised unchanged.
    """
    async with serving() as nursery:
        yield await nursery.start(serve_hub, config)
