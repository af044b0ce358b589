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

from collections.abc import Callable, Container, Mapping
from functools import partial

import trio

from ..logs import get_logger
from ..wire.frames import Frames, to_bytes
from .services import Failures, going_on
from .sockets import Channel
from .tcp import ConnectionMonitor, end_connection

__all__ = ["WATCHER", "Connections"]

log = get_logger("trio_hub.runtime")

WATCHER = "watcher of connections"
"""The service's name."""
PAUSE = 5.0
"""Seconds between a broken connection of nobody knows whom, and the question to engines whether it was theirs."""
RELEASES = (0.002, 0.01, 0.03)
"""Seconds from a broken connection to the first use of its socket, and between uses. Peers come back after 0.1 s."""


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
        self._open: dict[str, dict[int, float]] = {name: {} for name in channels}
        """When each connection was made, by channel and descriptor."""
        self._heard: dict[str, dict[bytes, int]] = {name: {} for name in channels}
        """By which connection each identity was heard."""
        self._names: dict[str, dict[int, bytes]] = {name: {} for name in channels}
        """The same, the other way round."""
        self._unknown: dict[str, None] = {}
        """Channels on which connections have broken by which nothing had come."""
        self._broken = trio.Event()
        self._ended = trio.Event()
        self._monitors = [
            ConnectionMonitor(channel.socket, partial(self._has_ended, name), partial(self._was_accepted, name))
            for name, channel in channels.items()
        ]

    @property
    def monitors(self) -> list[Channel]:
        """Channels to be received from."""
        return [monitor.channel for monitor in self._monitors]

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

    def _was_accepted(self, name: str, fd: int) -> None:
        self._forget(name, fd)  # its end may not have been told
        self._open[name][fd] = trio.current_time()

    def _has_ended(self, name: str, fd: int) -> None:
        if fd not in self._open[name]:
            return
        self._ended.set()
        ident = self._forget(name, fd)
        if ident is None:
            self._unknown[name] = None
            self._broken.set()
        else:
            with going_on(WATCHER, self._failures):
                self._lost(name, ident, ())

    async def release(self) -> None:
        """Let ZeroMQ release the names of connections that have broken, before their owners come back, for ever.

        A socket does so only when it is used, and one that is held may not be used for seconds. Were its owner's new
        connection there by then, ZeroMQ would see the new one first, and ignore it.
        """
        while True:
            await self._ended.wait()
            self._ended = trio.Event()
            for pause in RELEASES:
                await trio.sleep(pause)
                for channel in self._channels.values():
                    channel.touch()

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
        socket = self._channels[name].socket
        closed = sum(end_connection(fd, socket, host) for fd in silent)
        if ident is not None and ident in heard:
            closed += end_connection(heard[ident], socket)
        if closed:
            log.info("closed connections that may lead nowhere", channel=name, connections=closed)
        return closed

    def close(self) -> None:
        """Stop watching. Before the channels are closed."""
        for monitor in self._monitors:
            monitor.close()
