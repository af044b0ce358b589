"""The engine's heart: it returns the hub's pings, from a thread in C, whatever Python is doing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zmq

from ..transport.channel import Channel
from ..transport.receiver import Receiver
from ..wire.frames import Frames
from .address import HubAddress
from .link import secured

__all__ = ["Heart"]


class Heart:
    """Returns pings, until it is closed.

    ZeroMQ's proxy passes each ping back without Python's lock, so that pings are answered while user code holds it. The
    proxy has a context of its own, since the end of the context is what ends the proxy.

    Args:
        address: where the hub is.
        reach: returns the address at which a URL of the hub is reached.
        identity: the engine's uuid.
        receiver: receives copies of the pings.
        on_ping: called for each ping, in the receiver's thread, as soon as that thread runs.
    """

    def __init__(
        self,
        address: HubAddress,
        reach: Callable[[str], str],
        identity: bytes,
        receiver: Receiver,
        on_ping: Callable[[], None],
    ) -> None:
        self._context: zmq.Context[zmq.Socket[Any]] = zmq.Context()
        pings, pongs = self._context.socket(zmq.SUB), self._context.socket(zmq.DEALER)
        for socket in (pings, pongs):
            socket.linger = 0
            secured(socket, address)
        pings.subscribe(b"")
        pongs.setsockopt(zmq.IDENTITY, identity)
        # A publisher never waits for its reader, which may not run for minutes.
        copies = self._context.socket(zmq.PUB)
        copies.linger = 0
        copies.bind("inproc://pings")
        reader = self._context.socket(zmq.SUB)
        reader.subscribe(b"")
        reader.connect("inproc://pings")

        def handle(frames: Frames) -> None:
            on_ping()

        self._channel = Channel(reader, handle, name="pings")
        receiver.add(self._channel)
        pongs.connect(reach(address.urls["hb_pong"]))
        pings.connect(reach(address.urls["hb_ping"]))
        self._thread = threading.Thread(target=_beat, args=(pings, pongs, copies), name="heart", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the heart away from the receiver. Call this before `wait`."""
        self._channel.close(linger=0)

    def wait(self) -> None:
        """End the heart's thread, and wait for its end."""
        self._context.term()
        self._thread.join()


def _beat(pings: zmq.Socket[Any], pongs: zmq.Socket[Any], copies: zmq.Socket[Any]) -> None:
    with suppress(zmq.ContextTerminated):
        zmq.proxy(pings, pongs, copies)
    for socket in (pings, pongs, copies):
        socket.close(0)
