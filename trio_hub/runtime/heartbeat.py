"""Pings to all engines, and their pongs.

In each period the hub sends one common ping, and evaluates the pongs since the last ping. An engine that has just
subscribed gets a ping of its own at once, so that its registration completes in milliseconds, whatever the number of
engines.

While no engine is awaited, pongs stay with ZeroMQ until the end of the period. Waking up for each pong would cost more
than everything else that a hub with thousands of idle engines does.
"""

from __future__ import annotations

import math
from contextlib import suppress

import trio
import zmq

from ..hub import EngineConnector, Hub
from ..transport.channel import Channel
from ..transport.tcp import end_connection
from ..wire.frames import Frames, to_bytes
from .connections import Connections

__all__ = ["Heartbeat"]

SILENT_PINGS, SILENT_SECONDS = 3, 3.0
"""Pings in a row, and seconds, that a heart may miss before the hub closes its connection: it connects again."""
AT_LEAST = 2000
"""The hub receives at least this many messages in each period, if so many have come, so that a flood is dropped."""
HEART_ANSWER = 0.5
"""Seconds within which a heart that is asked must answer. Hearts of stock engines answer while the engine works."""
_SLICE = 16
"""Pongs that are received before other tasks have their turn: it takes a fraction of a millisecond."""


class Heartbeat:
    """Sends pings on `ping` (XPUB with manual subscriptions), receives pongs on `pong` (ROUTER), and calls the hub."""

    def __init__(self, hub: Hub, ping: Channel, pong: Channel, period: float, connections: Connections) -> None:
        self.hub = hub
        self.ping = ping
        self.pong = pong
        self.period = period
        self.connections = connections
        self._silent = max(SILENT_PINGS, math.ceil(SILENT_SECONDS / period))
        self._confused = False
        """Whether ZeroMQ may have handed over a subscription together with the connection of another peer."""
        self._to_ask: list[EngineConnector] = []
        self._is_asked = trio.Event()
        ping.handle = self._subscribed
        pong.handle = self._ponged

    async def beat(self) -> None:
        """Send pings and evaluate pongs, for ever. Pings keep their period, whatever the hub receives."""
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

    def ask(self, engine: EngineConnector) -> None:
        """Ask the heart of an engine whether it beats; `Hub.heart_asked` is called within two times `HEART_ANSWER`."""
        self._to_ask.append(engine)
        self._is_asked.set()

    async def keep_asking(self) -> None:
        """Ask hearts for ever: one ping for all hearts that are to be asked."""
        monitor = self.hub.hearts.heartmonitor
        while True:
            await self._is_asked.wait()
            self._is_asked = trio.Event()
            engines, self._to_ask = self._to_ask, []
            for engine in engines:
                monitor.ask(engine.ident)
            self.ping.send([monitor.ping()])
            self.pong.release()  # the receiver handles the answers as they come
            await trio.sleep(HEART_ANSWER)
            await self._hear()
            for engine in engines:
                self.hub.heart_asked(engine, answered=monitor.asked.pop(engine.ident, None) is None)

    async def _hear(self) -> None:
        """Receive the pongs that have arrived, so that a busy hub does not take a living engine for dead.

        ZeroMQ takes one message of each connection in turn. So after as many messages as there are connections, each
        engine that had answered has been heard, also during a flood.
        """
        received = 0
        enough = max(self.connections.count("hb_pong"), AT_LEAST)
        while received <= enough and self.pong.drain(_SLICE, held=True):
            received += _SLICE
            await trio.lowlevel.checkpoint()

    def _subscribed(self, frames: Frames) -> None:
        """Handle an engine's subscription: subscribe it to the common pings, and send it a greeting of its own."""
        verb = to_bytes(frames[0])[:1]
        if verb not in (b"\0", b"\x01") or self._confused:
            self._refuse_subscription()
        elif verb == b"\x01":
            self.pong.release()
            greeting = self.hub.hearts.heartmonitor.greeting()
            with suppress(zmq.ZMQError):  # the engine's connection has ended already
                self.ping.socket.setsockopt(zmq.SUBSCRIBE, self.hub.hearts.heartmonitor.topic)
                self.ping.socket.setsockopt(zmq.SUBSCRIBE, greeting)
                self.ping.send([greeting])
                self.ping.socket.setsockopt(zmq.UNSUBSCRIBE, greeting)  # others' may begin with these bytes

    def _refuse_subscription(self) -> None:
        """End a connection. If it is an engine's, by mistake, the engine connects and subscribes again.

        After a message that is not a subscription, libzmq attributes later subscriptions to wrong connections, until
        nothing is left to be received. So a stranger could get an engine's pings.
        """
        self.hub.notices.ignore(
            "subscription_refused", "a peer of the heartbeat sent something that is not a subscription"
        )
        end_connection(self.ping.peer_fd(), self.ping.socket)
        self._confused = self.ping.is_readable()

    def _ponged(self, frames: Frames) -> None:
        self.hub.handle_pong([to_bytes(frame) for frame in frames])
