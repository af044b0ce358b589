"""A channel that can tell from which address a message has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq

from ..wire.frames import Frames
from .sockets import Channel

__all__ = ["PeerChannel"]


class PeerChannel(Channel):
    """Like any channel; ZeroMQ is asked for the address only if somebody wants to know it."""

    def __init__(
        self, socket: zmq.Socket[Any], handle: Callable[[Frames], None] | None = None, *, name: str = ""
    ) -> None:
        super().__init__(socket, handle, name=name)
        self._latest: zmq.Frame | None = None
        receive = self._receive

        def receive_and_note(flags: int, copy: bool) -> Any:
            self._latest = None  # large ones are not to be kept for long
            self._latest = frame = receive(flags, copy)
            return frame

        self._receive = receive_and_note

    def peer_address(self) -> str | None:
        """Where the message that is being handled came from, without the port; None if that cannot be told."""
        if self._latest is None:
            return None
        try:
            address = str(self._latest["Peer-Address"])
        except zmq.ZMQError:  # it has not come over a network
            return None
        return address.removeprefix("::ffff:")  # a socket for IPv6 calls those of IPv4 so, too
