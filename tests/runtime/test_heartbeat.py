"""Receiving pongs: at once while the hub awaits an engine, otherwise once per period."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import trio
import trio.testing

from tests.hub.world import World
from trio_hub.runtime.connections import Connections
from trio_hub.runtime.heartbeat import Heartbeat
from trio_hub.transport.channel import Channel
from trio_hub.wire.frames import Frames


class FakeChannel:
    """A channel whose messages are put into it, and which counts how many it gives at a time."""

    def __init__(self) -> None:
        self.handle: Callable[[Frames], None]
        self.socket = self
        self.held = False
        self.sent: list[Any] = []
        self.waiting: list[Frames] = []
        self.drained: list[int] = []

    def setsockopt(self, option: int, value: bytes) -> None:
        pass

    def send(self, frames: Frames) -> bool:
        self.sent.append(frames)
        return True

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False

    def drain(self, budget: int, *, held: bool = False) -> bool:
        assert held or not self.held
        taken, self.waiting = self.waiting[:budget], self.waiting[budget:]
        for frames in taken:
            self.handle(frames)
        self.drained.append(len(taken))
        return len(taken) == budget


class FakeConnections:
    """Counts connections, and records those that were closed so that their peers connect again."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.retried: list[bytes] = []

    def count(self, name: str) -> int:
        return self._count

    def retry(self, name: str, *, ident: bytes) -> None:
        self.retried.append(ident)


async def test_pongs_wait_for_their_turn_unless_an_engine_is_awaited(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    ping, pong = FakeChannel(), FakeChannel()
    connections = cast(Connections, FakeConnections(41))
    heartbeat = Heartbeat(world.hub, cast(Channel, ping), cast(Channel, pong), 3.0, connections)
    uuids = [f"engine{number}" for number in range(40)]
    for uuid in uuids:
        world.engine(uuid)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.beat)
        await trio.sleep(1)
        assert not pong.held, "nobody knows yet whether anybody is awaited"
        await trio.sleep(3)
        assert pong.held
        for _ in range(2):
            pong.waiting = [[uuid.encode(), ping.sent[-1][0]] for uuid in uuids]
            pong.drained.clear()
            await trio.sleep(3)
            assert not pong.waiting
            assert len(pong.drained) > 2, "others had their turns"
            assert world.hub.hearts.heartmonitor.missed == 0

        # A new engine asks for an id, and subscribes to pings.
        world.register("newcomer")
        ping.handle([b"\x01"])
        assert not pong.held
        assert ping.sent[-1][0].startswith(b"hello.")
        pong.waiting = [[uuid.encode(), ping.sent[-2][0]] for uuid in uuids]
        await trio.sleep(3)
        assert not pong.held, "its heart is still to be heard"
        pong.handle([b"newcomer", ping.sent[-1][0]])
        assert len(world.hub.engines.alive) == 41
        await trio.sleep(3)
        assert pong.held
        nursery.cancel_scope.cancel()
