"""Functions for single TCP connections of ZeroMQ sockets, by their file descriptors."""

from __future__ import annotations

import fcntl
import os
import socket as sockets
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zmq

from ..wire.frames import Frames, to_bytes
from .channel import Channel, monitor_of

__all__ = ["ConnectionMonitor", "bytes_written", "end_connection"]

# The place in Linux' struct tcp_info of the number of bytes that the peer's system has acknowledged.
_BYTES_ACKED = struct.Struct("=120xQ")
_OUTPUT_QUEUE = struct.Struct("=i")
_EVENT = struct.Struct("=Hi")


def _ignore(fd: int) -> None:
    """Do nothing."""


class ConnectionMonitor:
    """Knows the connections of a bound socket by their file descriptors.

    The receiver has to read its ``channel``. The events of a descriptor arrive there before any message of its next
    connection. So a caller that drains the channel first knows which connection a descriptor belongs to.

    - ``connected``: the descriptors of the open connections.
    - ``ended``, ``accepted``: called with the descriptor of each connection that has ended, or that has been made.

    Args:
        socket: a socket that is not bound yet, of a context with one thread. The connections that are made before the
            monitor would never be known.
        ended: the first value of the attribute ``ended``.
    """

    def __init__(self, socket: zmq.Socket[Any], ended: Callable[[int], None] = _ignore) -> None:
        self._socket = socket
        self.ended = ended
        self.accepted: Callable[[int], None] = _ignore
        self.connected: set[int] = set()
        monitor = monitor_of(socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.channel = Channel(monitor, self._handle, name="connections")

    def _handle(self, frames: Frames) -> None:
        event, fd = _EVENT.unpack(to_bytes(frames[0]))
        if event == zmq.EVENT_ACCEPTED:
            self.connected.add(fd)
            self.accepted(fd)
        else:
            self.connected.discard(fd)
            self.ended(fd)

    def close(self) -> None:
        """Stop watching. Call this before the socket is closed. Idempotent."""
        if not self.channel.closed:
            self._socket.disable_monitor()
            self.channel.close(linger=0)


def bytes_written(fd: int) -> int | None:
    """Return how many bytes of a TCP connection the system has taken: bytes that the peer has acknowledged, or not yet.

    0 if the connection has ended. Before Linux 4.1, the number is not known: None if nothing is to be sent, else 0.
    """
    connection: sockets.socket | None = None
    try:
        connection = sockets.socket(fileno=fd)
        acknowledged = _bytes_acknowledged(connection)
        while True:
            queued: int = _OUTPUT_QUEUE.unpack(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_OUTPUT_QUEUE.size)))[0]
            if acknowledged is None:
                return 0 if queued else None
            # Bytes that the peer acknowledges between the two questions are in neither answer.
            before, acknowledged = acknowledged, _bytes_acknowledged(connection)
            if acknowledged == before:
                return before + queued
    except OSError:
        return 0
    finally:
        if connection is not None:
            connection.detach()  # the descriptor belongs to ZeroMQ


def _bytes_acknowledged(connection: sockets.socket) -> int | None:
    info = connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, _BYTES_ACKED.size)
    return int(_BYTES_ACKED.unpack(info)[0]) if len(info) == _BYTES_ACKED.size else None


def end_connection(fd: int, socket: zmq.Socket[Any], host: str | None = None) -> bool:
    """End one connection of a socket that is bound to a TCP port, as if the peer had ended it.

    Args:
        fd: the connection's descriptor. ZeroMQ may close it at any moment, and the system may give its number to
            another file. So the function checks a copy of the descriptor, which stays the same file.
        socket: the socket of the connection. A connection of another socket is left alone.
        host: end the connection only if it comes from this address; None for any address.

    Returns:
        Whether the connection was ended.
    """
    try:
        copy = os.dup(fd)
    except OSError:
        return False
    try:
        connection = sockets.socket(fileno=copy)
    except OSError:  # not a socket
        os.close(copy)
        return False
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    port = int(endpoint.rstrip(b"\0").rpartition(b":")[2])
    with suppress(OSError), connection:
        peer = str(connection.getpeername()[0]).removeprefix("::ffff:")
        if connection.getsockname()[1] == port and host in (None, peer):
            connection.shutdown(sockets.SHUT_RDWR)
            return True
    return False
