"""Pings to all engines, and their pongs.

Every period one ping goes out and the pongs since the last are weighed. An engine that has just subscribed gets a ping
of its own at once, so that its registration completes in milliseconds, however many engines there are to answer a
common one.

While no engine is awaited, nobody is in a hurry for pongs: they stay with ZeroMQ until they are weighed. To be woken
for each would cost more than all else that a hub with thousands of idle engines does.
"""

from __future__ import annotations

from contextlib import suppress

import trio
import zmq

from ..hub import Hub
from ..wire.frames import Frames, to_bytes
from .sockets import Channel

__all__ = ["Heartbeat"]

_SLICE = 16
"""Pongs received at a time before others have their turn: a fraction of a millisecond."""


class Heartbeat:
    """Pings through `ping` (XPUB, with manual subscriptions), hears through `pong` (ROUTER), and tells the hub."""

    def __init__(self, hub: Hub, ping: Channel, pong: Channel, period: float) -> None:
        self.hub = hub
        self.ping = ping
        self.pong = pong
        self.period = period
        ping.handle = self._subscribed
        pong.handle = self._ponged

    async def beat(self) -> None:
        """Ping and weigh, for ever."""
        while True:
            self.ping.send([self.hub.heartmonitor.ping()])
            await trio.sleep(self.period)
            # A miss counts only if the pong is not here: a busy hub must not declare a living engine dead.
            while self.pong.drain(_SLICE, held=True):
                await trio.lowlevel.checkpoint()
            self.hub.weigh_hearts()
            if self.hub.awaits_hearts:
                self.pong.release()
            else:
                self.pong.hold()

    def _subscribed(self, frames: Frames) -> None:
        """Engines subscribe to everything. What they get is all common pings, and a greeting that nobody else does."""
        if to_bytes(frames[0])[:1] == b"\x01":
            self.pong.release()
            greeting = self.hub.heartmonitor.greeting()
            with suppress(zmq.ZMQError):  # it is gone already
                self.ping.socket.setsockopt(zmq.SUBSCRIBE, self.hub.heartmonitor.topic)
                self.ping.socket.setsockopt(zmq.SUBSCRIBE, greeting)
                self.ping.send([greeting])
                self.ping.socket.setsockopt(zmq.UNSUBSCRIBE, greeting)  # it begins as those of others may

    def _ponged(self, frames: Frames) -> None:
        self.hub.handle_pong([to_bytes(frame) for frame in frames])
