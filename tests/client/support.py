"""Engines that really call functions, with the stock engine's own code, in the process of the test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from ipyparallel.serialize import serialize_object, unpack_apply_message

from trio_hub import Client, HubConfig, RunningHub, connect
from trio_hub.testing import Request, ScriptedEngine, open_engines, open_hub
from trio_hub.wire.messages import error_content

from ..runtime.support import within_limit


def compute(request: Request) -> None:
    """Do what a stock engine does with an apply_request."""
    try:
        function, args, kwargs = unpack_apply_message([bytes(buffer) for buffer in request.buffers])
        result = function(*args, **kwargs)
    except Exception as error:
        info = {"engine_uuid": request.engine.uuid, "engine_id": request.engine.id, "method": "apply"}
        content = error_content(type(error).__name__, str(error), traceback=["here", "there"], engine_info=info)
        request.answer(content=content)
    else:
        request.answer(serialize_object(result))


class Cluster(NamedTuple):
    hub: RunningHub
    client: Client
    engines: list[ScriptedEngine]


@asynccontextmanager
async def cluster(engines: int = 1, **settings: Any) -> AsyncGenerator[Cluster, None]:
    """Run a hub and computing engines, and give a connected client."""
    async with (
        within_limit(),
        open_hub(HubConfig(**settings)) as hub,
        open_engines(hub.engine_info, engines, behaviour=compute) as scripted,
    ):
        await hub.wait_engines(engines)
        async with connect(connection_info=hub.client_info) as client:
            yield Cluster(hub, client, scripted)
