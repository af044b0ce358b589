"""A network between a hub and its peers. Tests can cut it in all ways in which real networks fail."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio

__all__ = ["Network", "open_network"]

_CHANNELS = ("registration", "control", "mux", "task", "iopub", "notification", "hb_ping", "hb_pong", "broadcast")
PING_END = 7
"""The number of bytes from the name of ZeroMQ's ping command to its end: the name, and a time to live."""
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class _Connection:
    """A connection of a peer, and the connection to the hub to which its bytes go."""

    def __init__(self, channel: str, peer: trio.SocketStream, hub: trio.SocketStream) -> None:
        self.channel = channel
        self.peer = peer
        self.hub = hub
        self.silent = False
        self.pinged = False

    async def forward(self) -> None:
        try:
            async with trio.open_nursery() as both:
                both.start_soon(self._pump, self.peer, self.hub)
                both.start_soon(self._pump, self.hub, self.peer)
        finally:
            if not self.silent:
                reset(self.peer)
                reset(self.hub)

    async def _pump(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        with suppress(*_BROKEN):
            async for data in source:
                if self.silent:
                    continue  # the bytes are read, and dropped
                if source is self.hub:
                    # If anything comes after a ping, ZeroMQ does not wait for the next ping any more.
                    self.pinged = data[-PING_END:].startswith(b"\x04PING")
                await target.send_all(data)
        if not self.silent:
            reset(self.peer)
            reset(self.hub)


def reset(stream: trio.SocketStream) -> None:
    """Close a connection at once, so that its other end gets an RST."""
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


class Network:
    """Passes connections on to the hub. ``info`` is the connection info with which peers connect to this network."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.info = dict(info)
        self.connections: list[_Connection] = []
        self.refusing = False
        """Whether new connections are closed at once."""

    def _cut(self, channels: tuple[str, ...]) -> list[_Connection]:
        cut = [one for one in self.connections if not channels or one.channel in channels]
        self.connections = [one for one in self.connections if one not in cut]
        return cut

    def reset(self, *channels: str) -> None:
        """Send an RST to both ends of the connections of these channels, or of all. New connections work."""
        for connection in self._cut(channels):
            reset(connection.peer)
            reset(connection.hub)

    def swallow(self, *channels: str) -> None:
        """Drop everything that is sent on these connections from now on; both ends stay open. New connections work."""
        for connection in self._cut(channels):
            connection.silent = True

    def forget(self, *channels: str) -> None:
        """Send the peer an RST and the hub nothing, as if a router had lost its memory. New connections work."""
        for connection in self._cut(channels):
            connection.silent = True
            reset(connection.peer)

    def is_watched(self, *channels: str) -> bool:
        """Return whether ZeroMQ has pinged the peer on all these connections, so that the peer notices silence."""
        return all(one.pinged for one in self.connections if one.channel in channels)

    def count(self, channel: str) -> int:
        """Return the number of working connections of a channel."""
        return sum(one.channel == channel for one in self.connections)


@asynccontextmanager
async def open_network(info: dict[str, Any]) -> AsyncGenerator[Network, None]:
    """Run a network to the hub of this connection info during the block."""
    network = Network(info)
    host = info["interface"].removeprefix("tcp://")
    streams: list[trio.SocketStream] = []
    async with trio.open_nursery() as nursery:

        async def listen(channel: str, port: int) -> int:
            async def serve(peer: trio.SocketStream) -> None:
                if network.refusing:
                    reset(peer)
                    return
                try:
                    hub = await trio.open_tcp_stream(host, port)
                except OSError:
                    reset(peer)
                    return
                streams.extend((peer, hub))
                connection = _Connection(channel, peer, hub)
                network.connections.append(connection)
                await connection.forward()

            listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            found: int = listeners[0].socket.getsockname()[1]
            return found

        for channel in _CHANNELS:
            ports = info.get(channel)
            if isinstance(ports, list):
                network.info[channel] = [await listen(channel, port) for port in ports]
            elif ports is not None:
                network.info[channel] = await listen(channel, ports)
        try:
            yield network
        finally:
            nursery.cancel_scope.cancel()
            for stream in streams:
                reset(stream)
