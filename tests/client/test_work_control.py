"""Cancelling requests, draining engines, and the rules of tasks, by our client."""

from __future__ import annotations

import pytest
import trio

from trio_hub import Client, RemoteError, connect

from ..runtime.support import eventually
from .support import cluster


def double(number: int) -> int:
    return 2 * number


async def fails_with(ename: str, number: int, client: Client) -> None:
    with pytest.raises(RemoteError) as caught:
        await client.apply(double, number)
    assert caught.value.ename == ename


async def test_a_client_cancels_requests() -> None:
    async with cluster() as (hub, client, (engine,)):
        assert await client.apply(double, 1) == 2
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_with, "TaskCancelled", 2, client)
            await engine.wait_requests(2)
            nursery.start_soon(fails_with, "TaskCancelled", 3, client)
            await eventually(lambda: hub.statistics().tasks_queued == 1)
            finished, runs, waits = await client.history()
            assert await client.cancel([waits, runs, finished, "nobody"], grace=30) == {
                waits: "withdrawn",
                runs: "interrupted",
                finished: "finished",
                "nobody": "unknown",
            }
            engine.release()
        assert hub.core.work.cancelling.counts == {"withdrawn": 1, "interrupted": 1, "unknown": 2}


async def test_a_client_drains_engines() -> None:
    async with cluster(2) as (hub, client, (first, second)):
        drains = hub.core.work.draining.drains
        assert await client.drain(first.id, deadline=30) == {str(first.id): "draining"}
        assert list(drains) == [first.uuid.encode()]
        assert await client.drain([second.uuid, 7]) == {second.uuid: "draining", "7": "unknown"}
        assert await client.undrain() == {str(first.id): "undrained", str(second.id): "undrained"}
        assert not drains
        assert await client.drain(host="127.0.0.1") == {str(first.id): "draining", str(second.id): "draining"}
        assert await client.undrain(host="nowhere") == {}
        with pytest.raises(RemoteError, match="then must be 'shutdown' or empty"):
            await client.drain(then="dance")


async def test_an_ipcontroller_cannot_cancel_or_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster() as (hub, _, _), connect(connection_info=hub.client_info) as client:
        monkeypatch.setattr(client._link, "hub_name", "ada")
        with pytest.raises(RemoteError, match="the hub is an ipcontroller, which cannot do this"):
            await client.cancel(["a"])
        with pytest.raises(RemoteError, match="the hub is an ipcontroller, which cannot do this"):
            await client.drain(0)
        with pytest.raises(RemoteError, match="the hub is an ipcontroller, which cannot do this"):
            await client.undrain(0)
