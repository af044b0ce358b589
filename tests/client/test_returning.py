"""A client whose hub goes away, and perhaps comes back: no call waits for ever."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import HubConfig, HubLostError, RequestLostError, connect
from trio_hub.testing import open_engine, open_hub

from ..runtime.support import eventually, within_limit
from .support import compute
from .test_client import divide


@asynccontextmanager
async def outcomes(*calls: Any) -> AsyncGenerator[list[Any], None]:
    """Make calls together, and give their outcomes as they end. The block ends when all calls have ended."""
    found: list[Any] = []

    async def call(function: Any) -> None:
        try:
            found.append(await function())
        except (HubLostError, RequestLostError) as error:
            found.append(type(error))

    async with trio.open_nursery() as nursery:
        for function in calls:
            nursery.start_soon(call, function)
        yield found


async def test_the_hub_is_gone_for_too_long_and_comes_back(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, reuse=True)
    async with within_limit():
        async with open_hub(config) as first:
            info = first.client_info
            await stop(first)
        async with trio.open_nursery() as nursery:
            hub = await nursery.start(run_hub, config)
            async with connect(connection_info=info, lost_after=0.5) as client:
                assert await client.history() == []
                hub.cancel()
                with pytest.raises(HubLostError, match=r"has not answered for 0.5 s"):
                    await client.apply(divide, 1)
                with pytest.raises(HubLostError):
                    await client.queue_status()
                async with open_hub(config) as again, open_engine(again.engine_info, behaviour=compute):
                    await eventually(lambda: bool(client.engines))
                    assert await client.apply(divide, 4) == 2


async def stop(hub: Any) -> None:
    hub.shutdown()
    await hub.wait_stopped()


async def run_hub(config: HubConfig, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    """Run a hub until the scope is cancelled with which this function starts."""
    with trio.CancelScope() as scope:
        async with open_hub(config):
            task_status.started(scope)
            await trio.sleep_forever()


async def test_work_goes_on_with_the_next_hub(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, restore=True, durability="strict")
    async with within_limit(), trio.open_nursery() as nursery:
        first = await nursery.start(run_hub_with_handle, config)
        scope, hub = first
        async with (
            open_engine(hub.engine_info, behaviour=compute) as engine,
            connect(connection_info=hub.client_info) as client,
        ):
            await hub.wait_engines(1)
            await eventually(lambda: bool(client.engines))
            engine.hold()
            async with outcomes(
                lambda: client.apply(divide, 2), lambda: client.apply(divide, 4, targets=0), lambda: one(client)
            ) as found:
                await engine.wait_requests(2)
                scope.cancel()
                await hub.wait_stopped()
                async with open_hub(config) as second:
                    await second.wait_engines(1)
                    engine.release()
                    await eventually(lambda: len(found) == 3)
            assert sorted(found) == [1, 2, 3]


async def one(client: Any) -> Any:
    async with aclosing(client.map(divide, [6])) as values:
        return await anext(values)


async def run_hub_with_handle(config: HubConfig, *, task_status: trio.TaskStatus[Any]) -> None:
    with trio.CancelScope() as scope:
        async with open_hub(config) as hub:
            task_status.started((scope, hub))
            await trio.sleep_forever()


async def test_what_the_next_hub_does_not_know(tmp_path: Path) -> None:
    """Tasks are sent again, and direct calls have failed."""
    config = HubConfig(profile_dir=tmp_path, restore=True, durability="strict")
    forgetful = HubConfig(profile_dir=tmp_path, restore=True, db="memory")
    async with within_limit(), trio.open_nursery() as nursery:
        scope, hub = await nursery.start(run_hub_with_handle, config)
        async with (
            connect(connection_info=hub.client_info) as client,
            open_engine(hub.engine_info, uuid="same") as engine,
        ):
            await hub.wait_engines(1)
            await eventually(lambda: bool(client.engines))
            engine.hold()
            async with outcomes(lambda: client.apply(divide, 2), lambda: client.apply(divide, 4, targets=0)) as found:
                await engine.wait_requests(2)
                scope.cancel()
                engine.die()
                await hub.wait_stopped()
                async with open_hub(forgetful) as second, open_engine(second.engine_info, behaviour=compute):
                    await eventually(lambda: len(found) == 2)
            assert set(found) == {1, RequestLostError}
