"""The engine's sockets to one hub."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import zmq

from ..transport.channel import Channel, monitor_of
from ..transport.receiver import Receiver
from ..wire.frames import Frames, to_bytes
from .address import HubAddress
from .turns import ShellReader

__all__ = ["Link", "secured"]

_CONNECTED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_WATCHED = _CONNECTED | int(zmq.EVENT_DISCONNECTED)
WAITING_OUTPUT = 256
"""Messages of output that ZeroMQ keeps while the hub does not take them; more wait in `trio_hub.engine.output`."""


class Link:
    """All connections of an engine to one hub, except the connections of its heart.

    Sending and receiving never wait. The sockets connect again by themselves. ``handshakes`` counts the handshakes of
    each channel by its name.

    Args:
        address: where the hub is.
        reach: returns the address at which a URL of the hub is reached: the URL itself, or the end of a tunnel.
        context: makes the sockets.
        identity: the engine's uuid.
        receiver: receives from all sockets.
    """

    def __init__(
        self,
        address: HubAddress,
        reach: Callable[[str], str],
        context: zmq.Context[zmq.Socket[Any]],
        identity: bytes,
        receiver: Receiver,
    ) -> None:
        self.address = address
        self._reach = reach
        self._context = context
        self._identity = identity
        self._receiver = receiver
        self._channels: dict[str, Channel] = {}
        self._monitors: list[Channel] = []
        self._connected: set[str] = set()
        self._broken: set[str] = set()
        self._held: dict[str, deque[Frames]] = {"shell": deque(), "control": deque()}
        self.handshakes: dict[str, int] = {}
        self.on_return: Callable[[str], None] = lambda name: None
        """Called with the name of a channel whenever it has connected."""
        self.on_loss: Callable[[str], None] = lambda name: None
        """Called with the name of a channel whenever one of its connections has ended."""

    def open(
        self,
        name: str,
        kind: int,
        urls: list[str],
        handle: Callable[[Frames], None],
        reader: ShellReader | None = None,
    ) -> None:
        """Open a channel and connect it to the given addresses of the hub. `reader`: receives, in the main thread."""
        socket: zmq.Socket[Any] = self._context.socket(kind)
        channel = self._channels[name] = Channel(socket, handle, name=name)
        if kind == zmq.XPUB:
            socket.sndhwm = WAITING_OUTPUT
            socket.setsockopt(zmq.XPUB_NODROP, 1)
        else:
            socket.sndhwm = 0
            socket.setsockopt(zmq.IDENTITY, self._identity)
        if reader is not None:
            socket.rcvhwm = 0  # while user code runs, nobody receives
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        secured(socket, self.address)
        monitor = Channel(monitor_of(socket, _WATCHED), partial(self._on_event, name))
        self._monitors.append(monitor)
        self._receiver.add(monitor)
        self.connect(name, urls)
        (self._receiver if reader is None else reader).add(channel)

    def is_open(self, name: str) -> bool:
        """Return whether a channel is open."""
        return name in self._channels

    def is_broken(self, name: str) -> bool:
        """Return whether a connection of a channel has ended, and none has been made since then."""
        return name in self._broken

    def is_connected(self, name: str) -> bool:
        """Return whether a channel has connected, and none of its connections has ended since then."""
        return name in self.handshakes and name not in self._broken

    def connect(self, name: str, urls: list[str]) -> None:
        """Connect a channel to addresses to which it is not connected yet."""
        channel = self._channels[name]
        for url in urls:
            if url not in self._connected:
                self._connected.add(url)
                channel.socket.connect(self._reach(url))
        channel.touch()

    def send(self, name: str, frames: Frames) -> bool:
        """Send on a channel. Return False if ZeroMQ does not take it now, or if the channel is not open.

        An answer, on ``shell`` or ``control``, is kept then, and sent when the channel has connected.
        """
        held = self._held.get(name)
        if held:
            held.append(frames)
            return False
        channel = self._channels.get(name)
        sent = channel is not None and channel.send(frames)
        if not sent and held is not None:
            held.append(frames)
        return sent

    def _on_event(self, name: str, frames: Frames) -> None:
        if int.from_bytes(to_bytes(frames[0])[:2], sys.byteorder) == _CONNECTED:
            self._on_handshake(name)
        else:
            self._broken.add(name)
            self.on_loss(name)

    def _on_handshake(self, name: str) -> None:
        self.handshakes[name] = self.handshakes.get(name, 0) + 1
        self._broken.discard(name)
        self._channels[name].touch()  # so that a ROUTER knows its new peer
        held = self._held.get(name)
        for _ in range(len(held or ())):
            assert held is not None
            frames = held.popleft()
            if not self._channels[name].send(frames):
                held.append(frames)
        self.on_return(name)

    def unsent(self) -> list[tuple[str, Frames]]:
        """Return the answers that were kept, as pairs of a channel and the frames."""
        return [(name, frames) for name, held in self._held.items() for frames in held]

    def close(self, linger: int) -> None:
        """Close all sockets. Messages that were sent have `linger` milliseconds to leave."""
        for channel in self._channels.values():
            channel.socket.disable_monitor()
        for monitor in self._monitors:
            monitor.close(linger=0)
        for channel in self._channels.values():
            channel.close(linger)
        self._channels.clear()
        self._monitors.clear()


def secured(socket: zmq.Socket[Any], address: HubAddress) -> None:
    """Set the options that each socket needs before it connects to the hub."""
    socket.ipv6 = any("[" in url for url in address.urls.values())
    socket.reconnect_ivl_max = 1000  # milliseconds: a hub that was away for long is noticed soon, too
    if address.curve is not None:
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = address.curve
