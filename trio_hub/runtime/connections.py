"""The TCP connections of engines: notes the engine of each connection, reports breaks, and closes ignored connections.

A ROUTER knows its peers by the names that they give themselves. While a name is in use, ZeroMQ ignores a second
connection with the same name, so no peer can take an engine's place. But the second connection may be the engine's own,
made after its network was cut and before the hub has noticed the cut. ZeroMQ keeps such a connection open and never
reads from it, even after the name has become free. So the hub has to close the connection; the engine then connects
again at once.

ZeroMQ reports the connections (by events of a monitor), and the connection of each message (by its file descriptor). A
connection on which nothing was received may be a connection that ZeroMQ ignores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from functools import partial

import trio

from ..logs import get_logger
from ..services import Failures, going_on
from ..transport.channel import Channel
from ..transport.tcp import ConnectionMonitor, end_connection
from ..wire.frames import Buffer, to_bytes

__all__ = ["WATCHER", "Connections"]

log = get_logger("trio_hub.runtime")

WATCHER = "watcher of connections"
"""The name of the service that watches connections."""
PAUSE = 5.0
"""Seconds from the break of an unknown peer's connection to the questions to engines that may have had it."""
DOUBT = 0.25
"""Seconds after the end of a connection in which the hub may still read its messages.

The system may have given the descriptor to a new connection, perhaps of another peer. So these messages do not tell
whose the new connection is.
"""
RELEASES = (0.002, 0.01, 0.03)
"""Seconds from a broken connection to the first use of its socket, and between uses. Peers come back after 0.1 s."""


class Connections:
    """The connections to the hub's ROUTER sockets for engines.

    Args:
        channels: these sockets, by name.
        monitors: the monitor of each of these sockets.
        lost: called when a connection has broken. Gets the channel's name; the identity of the engine of the
            connection, or None if nothing was received on it; and the identities that had other connections by then.
        failures: counts unexpected errors.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        monitors: Mapping[str, ConnectionMonitor],
        lost: Callable[[str, bytes | None, Container[bytes]], None],
        failures: Failures,
    ) -> None:
        self._channels = channels
        self._failures = failures
        self._lost = lost
        self._open: dict[str, set[int]] = {name: set() for name in channels}
        """The descriptors of the open connections, by channel."""
        self._heard: dict[str, dict[bytes, int]] = {name: {} for name in channels}
        """The descriptor of each identity's connection, by channel and identity."""
        self._names: dict[str, dict[int, bytes]] = {name: {} for name in channels}
        """The identity of each connection, by channel and descriptor."""
        self._ended_at: dict[str, dict[int, float]] = {name: {} for name in channels}
        """When the last connection of each descriptor ended, by channel and descriptor."""
        self._unknown: dict[str, set[bytes]] = {}
        """The channels on which a connection has broken before anything was received on it. For each channel, the
        identities that were first heard after that: the broken connection may have been their earlier one."""
        self._broken = trio.Event()
        self._ended = trio.Event()
        for name, channel in channels.items():
            channel.known = self._heard[name]
            channel.introduce = partial(self._introduce, name)
            monitors[name].ended = partial(self._has_ended, name)
            monitors[name].accepted = partial(self._was_accepted, name)

    def count(self, name: str) -> int:
        """Return the number of connections of a channel."""
        return len(self._open[name])

    def _introduce(self, name: str, first: Buffer) -> None:
        """Note the connection of the sender of the message that is being received, which begins with this frame."""
        fd = self._channels[name].peer_fd()
        if fd in self._open[name] and trio.current_time() - self._ended_at[name].get(fd, -math.inf) > DOUBT:
            ident = to_bytes(first)
            if (other := self._names[name].get(fd)) is not None:
                del self._heard[name][other]
            self._heard[name][ident] = fd
            self._names[name][fd] = ident
            if name in self._unknown:
                self._unknown[name].add(ident)

    def _was_accepted(self, name: str, fd: int) -> None:
        self._has_ended(name, fd)  # in case the end of its earlier connection was not reported
        self._open[name].add(fd)

    def _has_ended(self, name: str, fd: int) -> None:
        if fd not in self._open[name]:
            return
        self._ended.set()
        self._ended_at[name][fd] = trio.current_time()
        ident = self._forget(name, fd)
        if ident is None:
            self._unknown.setdefault(name, set())
            self._broken.set()
        else:
            with going_on(WATCHER, self._failures):
                self._lost(name, ident, ())

    async def release(self) -> None:
        """Let ZeroMQ release the names of broken connections, before their engines come back. Runs for ever.

        A socket releases names only when it is used, and a socket that is on hold may be unused for seconds. If the
        engine's new connection were there by then, ZeroMQ would see the new connection first, and ignore it.
        """
        while True:
            await self._ended.wait()
            self._ended = trio.Event()
            for pause in RELEASES:
                await trio.sleep(pause)
                for channel in self._channels.values():
                    channel.touch()

    async def tell(self) -> None:
        """Report broken connections on which nothing was received.

        Runs for ever. It reports at most once in `PAUSE` seconds, since any peer can break such a connection.
        """
        while True:
            await self._broken.wait()
            await trio.sleep(PAUSE)
            while self._unknown:
                name, heard_since = next(iter(self._unknown.items()))
                self._lost(name, None, self._heard[name].keys() - heard_since if heard_since else self._heard[name])
                del self._unknown[name]  # after it was reported
            self._broken = trio.Event()

    def _forget(self, name: str, fd: int) -> bytes | None:
        self._open[name].discard(fd)
        ident = self._names[name].pop(fd, None)
        if ident is not None:
            del self._heard[name][ident]
        return ident

    def retry(self, name: str, host: str | None = None, ident: bytes | None = None) -> int:
        """Close connections on which nothing was received, so that their peers connect again. Return their number.

        Args:
            name: the name of the channel.
            host: close only connections from this address; None for all.
            ident: also close the connection of this identity.
        """
        heard = self._heard[name]
        silent = self._open[name].difference(heard.values())
        socket = self._channels[name].socket
        closed = sum(end_connection(fd, socket, host) for fd in silent)
        if ident is not None and ident in heard:
            closed += end_connection(heard[ident], socket)
        if closed:
            log.info("closed connections that may be dead", channel=name, connections=closed)
        return closed
