"""Pings to all engines, and their pongs.

Every period one ping goes out and the pongs since the last are weighed. An engine that has just subscribed
is pinged at once, so that its registration completes in milliseconds; many that subscribe together share pings.
"""

from __future__ import annotations

import trio

from ..hub import Hub
from ..wire.frames import Frames, to_bytes
from .sockets import Channel

__all__ = ["Heartbeat"]

_GREETING_GAP = 0.02
"""Seconds between two pings for newcomers, at least."""
_GREETING_COST = 20e-6
"""Seconds more for each engine there is, since each of them answers: at most about 1/20 of a core."""


class Heartbeat:
    """Pings through `ping` (XPUB), hears through `pong` (ROUTER), and tells the hub."""

    def __init__(self, hub: Hub, ping: Channel, pong: Channel, period: float) -> None:
        self.hub = hub
        self.ping = ping
        self.pong = pong
        self.period = period
        self._newcomers = trio.Event()
        ping.handle = self._subscribed
        pong.handle = self._ponged

    async def beat(self) -> None:
        """Ping and weigh, for ever."""
        while True:
            self._send_ping()
            await trio.sleep(self.period)
            # A miss counts only if the pong is not here: a busy hub must not declare a living engine dead.
            self.pong.drain()
            self.hub.weigh_hearts()

    async def greet(self) -> None:
        """Ping newcomers, for ever."""
        while True:
            await self._newcomers.wait()
            self._newcomers = trio.Event()
            self._send_ping()
            await trio.sleep(_GREETING_GAP + _GREETING_COST * len(self.hub.heartmonitor))

    def _send_ping(self) -> None:
        self.ping.send([self.hub.heartmonitor.ping()])

    def _subscribed(self, frames: Frames) -> None:
        if to_bytes(frames[0])[:1] == b"\x01":
            self._newcomers.set()

    def _ponged(self, frames: Frames) -> None:
        self.hub.handle_pong([to_bytes(frame) for frame in frames])
