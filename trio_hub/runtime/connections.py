"""The TCP connections of engines: whose they are, when one breaks, and how one is closed that leads nowhere.

A ROUTER knows its peers by the names that they give themselves. While a name is in use, ZeroMQ ignores a second
connection that gives the same name: so nobody takes an engine's place, whatever name a peer pretends to have. But the
second connection may be the engine's own, made after its network was cut and before the hub has noticed that. ZeroMQ
keeps such a connection open and never looks at it again, also when the name has become free. So the hub has to close
it; the engine makes a new one at once.

ZeroMQ tells which connections there are (by events of a monitor), and by which of them a message has come (its file
descriptor). A connection by which nothing has come yet may be one that ZeroMQ ignores.
"""

from __future__ import annotations

import os
import socket as net
import struct
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from functools import partial

import trio
import zmq

from ..logs import get_logger
from ..wire.frames import Frames, to_bytes
from .services import Failures, going_on
from .sockets import Channel, monitor_of

__all__ = ["WATCHER", "Connections"]

log = get_logger("trio_hub.runtime")

WATCHER = "watcher of connections"
"""The service's name."""
PAUSE = 5.0
"""Seconds between a broken connection of nobody knows whom, and the question to engines whether it was theirs."""
_EVENT = struct.Struct("=Hi")
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED


class Connections:
    """The connections to the hub's ROUTER sockets for engines.

    Args:
        channels: these sockets, by name.
        lost: called when a connection has broken, with the channel's name, the identity of the engine that was heard by
            it, or None, and the identities that were heard by other connections.
        failures: where errors are counted that nobody expected.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        lost: Callable[[str, bytes | None, Container[bytes]], None],
        failures: Failures,
    ) -> None:
        self._channels = channels
        self._failures = failures
        self._lost = lost
        self._ports: dict[str, int] = {}
        self._open: dict[str, dict[int, float]] = {name: {} for name in channels}
        """When each connection was made, by channel and descriptor."""
        self._heard: dict[str, dict[bytes, int]] = {name: {} for name in channels}
        """By which connection each identity was heard."""
        self._names: dict[str, dict[int, bytes]] = {name: {} for name in channels}
        """The same, the other way round."""
        self._unknown: dict[str, None] = {}
        """Channels on which connections have broken by which nothing had come."""
        self._broken = trio.Event()
        self.monitors: list[Channel] = []
        """To be received from."""
        for name, channel in channels.items():
            endpoint = channel.socket.get_string(zmq.LAST_ENDPOINT)
            self._ports[name] = int(endpoint.rpartition(":")[2])
            monitor = monitor_of(channel.socket, _EVENTS)
            self.monitors.append(Channel(monitor, partial(self._happened, name), name=f"connections of {name}"))

    def count(self, name: str) -> int:
        """How many connections a channel has."""
        return len(self._open[name])

    def listen(self, name: str, handle: Callable[[Frames], None]) -> Callable[[Frames], None]:
        """A handler of messages that also notes by which connection their sender is heard."""
        heard = self._heard[name]
        channel = self._channels[name]
        names = self._names[name]

        def handle_and_note(frames: Frames) -> None:
            ident = frames[0]
            if ident not in heard:
                fd = channel.peer_fd()
                if fd in self._open[name]:
                    heard[to_bytes(ident)] = fd
                    names[fd] = to_bytes(ident)
            handle(frames)

        return handle_and_note

    def _happened(self, name: str, frames: Frames) -> None:
        with going_on(WATCHER, self._failures):
            event, fd = _EVENT.unpack(to_bytes(frames[0]))
            if event == zmq.EVENT_ACCEPTED:
                self._forget(name, fd)  # its end may not have been told
                self._open[name][fd] = trio.current_time()
            elif fd in self._open[name]:
                ident = self._forget(name, fd)
                if ident is not None:
                    self._lost(name, ident, ())
                else:
                    self._unknown[name] = None
                    self._broken.set()

    async def tell(self) -> None:
        """Tell of broken connections by which nothing had come, for ever; not often, since anybody can break one."""
        while True:
            await self._broken.wait()
            await trio.sleep(PAUSE)
            while self._unknown:
                name = next(iter(self._unknown))
                self._lost(name, None, self._heard[name])
                del self._unknown[name]  # once it was told
            self._broken = trio.Event()

    def _forget(self, name: str, fd: int) -> bytes | None:
        self._open[name].pop(fd, None)
        ident = self._names[name].pop(fd, None)
        if ident is not None:
            del self._heard[name][ident]
        return ident

    def retry(self, name: str, host: str | None = None, ident: bytes | None = None) -> int:
        """Close connections by which nothing has come, so that their peers make new ones; how many they were.

        Args:
            name: the channel's.
            host: only those that come from this address.
            ident: also the connection by which this identity was heard.
        """
        heard = self._heard[name]
        silent = self._open[name].keys() - set(heard.values())
        closed = sum(self._close(name, fd, host) for fd in silent)
        if ident is not None and ident in heard:
            closed += self._close(name, heard[ident], None)
        if closed:
            log.info("closed connections that may lead nowhere", channel=name, connections=closed)
        return closed

    def _close(self, name: str, fd: int, host: str | None) -> bool:
        # The descriptor is ZeroMQ's, which may close it at any moment, and the system may give its number to another
        # file. A copy stays what it is, so the hub looks at a copy before it acts.
        try:
            copy = os.dup(fd)
        except OSError:
            return False
        try:
            connection = net.socket(fileno=copy)
        except OSError:  # not a socket
            os.close(copy)
            return False
        with suppress(OSError), connection:
            peer = str(connection.getpeername()[0]).removeprefix("::ffff:")
            if connection.getsockname()[1] == self._ports[name] and host in (None, peer):
                connection.shutdown(net.SHUT_RDWR)
                return True
        return False

    def close(self) -> None:
        """Stop watching. Before the channels are closed."""
        for channel in self._channels.values():
            if not channel.closed:
                channel.socket.disable_monitor()
        for monitor in self.monitors:
            monitor.close(linger=0)
