"""Pings to all engines, and their pongs.

Every period one ping goes out and the pongs since the last are weighed. An engine that has just subscribed gets a ping
of its own at once, so that its registration completes in milliseconds, however many engines there are to answer a
common one.

While no engine is awaited, nobody is in a hurry for pongs: they stay with ZeroMQ until they are weighed. To be woken
for each would cost more than all else that a hub with thousands of idle engines does.
"""

from __future__ import annotations

import math
from contextlib import suppress

import trio
import zmq

from ..hub import Hub
from ..wire.frames import Frames, to_bytes
from .connections import Connections
from .sockets import Channel
from .tcp import end_connection

__all__ = ["Heartbeat"]

SILENT_PINGS, SILENT_SECONDS = 3, 3.0
"""Pings in a row, and seconds, that a heart misses before its connection is closed, so that it can make a new one."""
AT_LEAST = 2000
"""Messages that are received in each period, if there are so many: so a flood is thrown away as it comes in."""
_SLICE = 16
"""Pongs received at a time before others have their turn: a fraction of a millisecond."""


class Heartbeat:
    """Pings through `ping` (XPUB, with manual subscriptions), hears through `pong` (ROUTER), and tells the hub."""

    def __init__(self, hub: Hub, ping: Channel, pong: Channel, period: float, connections: Connections) -> None:
        self.hub = hub
        self.ping = ping
        self.pong = pong
        self.period = period
        self.connections = connections
        self._silent = max(SILENT_PINGS, math.ceil(SILENT_SECONDS / period))
        self._confused = False
        """Whether ZeroMQ may have handed over a subscription together with the connection of another peer."""
        ping.handle = self._subscribed
        pong.handle = self._ponged

    async def beat(self) -> None:
        """Ping and weigh, for ever. Pings keep their period, whatever comes in."""
        next_ping = trio.current_time()
        while True:
            self.ping.send([self.hub.hearts.heartmonitor.ping()])
            next_ping = max(next_ping + self.period, trio.current_time())
            await trio.sleep_until(next_ping)
            await self._hear()
            self.hub.weigh_hearts()
            for heart in self.hub.hearts.heartmonitor.silent(self._silent):
                # If its network was cut, ZeroMQ ignores the heart's new connection as long as it has the old one.
                self.connections.retry("hb_pong", ident=heart)
            if self.hub.hearts.awaits_hearts:
                self.pong.release()
            else:
                self.pong.hold()

    async def _hear(self) -> None:
        """Receive the pongs that are here: a busy hub must not declare a living engine dead.

        ZeroMQ takes a message of each connection in turn. So each engine that had answered is heard when as many
        messages have been received as there are connections, whatever a flood brings meanwhile.
        """
        received = 0
        enough = max(self.connections.count("hb_pong"), AT_LEAST)
        while received <= enough and self.pong.drain(_SLICE, held=True):
            received += _SLICE
            await trio.lowlevel.checkpoint()

    def _subscribed(self, frames: Frames) -> None:
        """Engines subscribe to everything. What they get is all common pings, and a greeting that nobody else does."""
        verb = to_bytes(frames[0])[:1]
        if verb not in (b"\0", b"\x01") or self._confused:
            self._refuse_subscription()
        elif verb == b"\x01":
            self.pong.release()
            greeting = self.hub.hearts.heartmonitor.greeting()
            with suppress(zmq.ZMQError):  # it is gone already
                self.ping.socket.setsockopt(zmq.SUBSCRIBE, self.hub.hearts.heartmonitor.topic)
                self.ping.socket.setsockopt(zmq.SUBSCRIBE, greeting)
                self.ping.send([greeting])
                self.ping.socket.setsockopt(zmq.UNSUBSCRIBE, greeting)  # it begins as those of others may

    def _refuse_subscription(self) -> None:
        """End a connection. An engine whose subscription a stranger has spoilt comes back, and subscribes again.

        After a message that is no subscription, libzmq confuses the connections of the subscriptions that follow, until
        nothing is left to be received. So a stranger could have an engine's pings.
        """
        self.hub.notices.ignore(
            "subscription_refused", "a peer of the heartbeat sent something that is no subscription"
        )
        end_connection(self.ping.peer_fd(), self.ping.socket)
        self._confused = self.ping.is_readable()

    def _ponged(self, frames: Frames) -> None:
        self.hub.handle_pong([to_bytes(frame) for frame in frames])
