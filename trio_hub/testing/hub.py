"""A hub for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ..config import HubConfig
from ..runtime import RunningHub, serve_hub
from .peer import serving

__all__ = ["open_hub"]


@asynccontextmanager
async def open_hub(config: HubConfig | None = None) -> AsyncGenerator[RunningHub, None]:
    """Run a hub for the length of the block, and cancel it at its end.

    ::

        async with open_hub(HubConfig(hwm=0)) as hub: ...

    Raises:
        HubError: whatever `trio_hub.serve_hub` raises; an error of the block itself comes out as it is.
    """
    async with serving() as nursery:
        yield await nursery.start(serve_hub, config)
