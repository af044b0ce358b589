"""What the system and ZeroMQ tell of single connections, by their file descriptors."""

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
from .sockets import Channel, monitor_of

__all__ = ["ConnectionMonitor", "bytes_written", "end_connection", "peer_of"]

# Where Linux tells, in its struct tcp_info, how many bytes of a connection the peer's system has acknowledged.
_BYTES_ACKED = struct.Struct("=120xQ")
_OUTPUT_QUEUE = struct.Struct("=i")
_EVENT = struct.Struct("=Hi")


class ConnectionMonitor:
    """Knows the connections of a bound socket by their file descriptors.

    Its ``channel`` is to be run. What has become of a descriptor is there to be received before anything that comes by
    its next connection, so whoever drains the channel first knows whose descriptor it is.

    - ``connected``: the descriptors of the connections that there are.

    Args:
        socket: one of a context with one thread, that is not bound yet.
        ended: called with the descriptor of each connection that has ended.
        accepted: called with the descriptor of each connection that has been made.
    """

    def __init__(
        self,
        socket: zmq.Socket[Any],
        ended: Callable[[int], None],
        accepted: Callable[[int], None] = lambda fd: None,
    ) -> None:
        self._socket = socket
        self._ended = ended
        self._accepted = accepted
        self.connected: set[int] = set()
        monitor = monitor_of(socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.channel = Channel(monitor, self._handle, name="connections")

    def _handle(self, frames: Frames) -> None:
        event, fd = _EVENT.unpack(to_bytes(frames[0]))
        if event == zmq.EVENT_ACCEPTED:
            self.connected.add(fd)
            self._accepted(fd)
        else:
            self.connected.discard(fd)
            self._ended(fd)

    def close(self) -> None:
        """Tell no more, before the socket is closed. Idempotent."""
        if not self.channel.closed:
            self._socket.disable_monitor()
            self.channel.close(linger=0)


def peer_of(frame: zmq.Frame) -> str:
    """Return the address that a message came from, without the port; ``unknown`` if that cannot be told."""
    try:
        return str(frame["Peer-Address"]).removeprefix("::ffff:")  # a socket for IPv6 calls those of IPv4 so, too
    except zmq.ZMQError:
        return "unknown"


def bytes_written(fd: int) -> int | None:
    """Return how many bytes of a TCP connection the system has taken: acknowledged by the peer's, or still to be sent.

    0 if the connection has ended. Before Linux 4.1, the number is not known: None if nothing is to be sent, else 0.
    """
    connection: sockets.socket | None = None
    try:
        connection = sockets.socket(fileno=fd)
        info = connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, _BYTES_ACKED.size)
        queued: int = _OUTPUT_QUEUE.unpack(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_OUTPUT_QUEUE.size)))[0]
        if len(info) < _BYTES_ACKED.size:
            return 0 if queued else None
        acknowledged: int = _BYTES_ACKED.unpack(info)[0]
        return acknowledged + queued
    except OSError:
        return 0
    finally:
        if connection is not None:
            connection.detach()  # it is ZeroMQ's


def end_connection(fd: int, socket: zmq.Socket[Any], host: str | None = None) -> bool:
    """End one connection of a socket that is bound to a TCP port; ZeroMQ takes it as the peer's doing.

    Args:
        fd: the connection's descriptor. It is ZeroMQ's, which may close it at any moment, and the system may give its
            number to another file. So this looks at a copy first, which stays what it is.
        socket: that the connection belongs to; another one's is left alone.
        host: only a connection from this address is ended.

    Returns:
        Whether it was ended.
    """
    try:
        copy = os.dup(fd)
    except OSError:
        return False
    try:
        connection = sockets.socket(fileno=copy)
    except OSError:  # it is no socket
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
