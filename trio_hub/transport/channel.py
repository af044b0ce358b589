"""`Channel`: a ZeroMQ socket in a Trio program.

A ZeroMQ socket has one descriptor. It is edge-triggered, and becomes readable only. Any send or receive may consume the
edge; then only the socket itself knows whether there is a message. Hence two rules:

1. One task receives from many sockets (`trio_hub.transport.receiver.Receiver`), from each socket until no message is
   left. It waits when no socket has a message left.
2. Any task may send, at once. The receiving task then has to look at the socket once more before it waits.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Collection, Container, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import zmq

from ..wire.frames import Buffer, Frames

__all__ = [
    "LARGE_FRAME",
    "MAX_FRAMES",
    "PARTS_AT_A_TIME",
    "Channel",
    "Watcher",
    "monitor_of",
    "peer_of",
    "with_messages",
]

LARGE_FRAME = 65_536
"""Frames of this many bytes and more stay where ZeroMQ received them. Smaller ones are copied into Python's memory."""
PARTS_AT_A_TIME = 1000
"""The maximum number of frames of one message that are received at a time. It takes about a millisecond."""
_FEW_FRAMES = range(64)
"""Nearly all messages have at most this many frames. The frames of longer messages are counted as they come."""
MAX_FRAMES = 100_000
"""The maximum number of frames of a message. Each buffer of a request or result is a frame."""

# As plain numbers: ZeroMQ's own flags are enums, which cost more to convert than the call itself.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_POLLIN = int(zmq.POLLIN)
_SRCFD = int(zmq.SRCFD)
# Asks sockets whether they have a message. It costs a third of reading `EVENTS`, for which pyzmq looks up enums, and
# a tenth of an attempt to receive that fails, for which pyzmq makes an exception.
_poll: Any = zmq.zmq_poll


class Watcher(Protocol):
    """A receiver, as its channels call it."""

    def watch(self, channel: Channel) -> None:
        """Look at a channel now, and whenever its descriptor is readable."""

    def unwatch(self, channel: Channel) -> None:
        """Do the opposite of `watch`."""

    def look_again(self, channel: Channel) -> None:
        """Look at a channel before waiting, since the edge that tells of a message may have been consumed."""

    def remove(self, channel: Channel) -> None:
        """Forget a channel, which is being closed."""


class Channel:
    """A ZeroMQ socket, and the function that handles its messages.

    Args:
        socket: the socket, which may be bound or connected later. The channel owns the socket, and closes it.
        handle: called with the frames of each message, in the receiving task. It must not wait.
        name: the name for logs.

    A message of more than ``max_frames`` frames is dropped as it comes in, a slice at a time, and ``refused`` is called
    with the number of its frames. (The socket limits the size of a frame: ``zmq.MAXMSGSIZE``.)
    """

    def __init__(
        self, socket: zmq.Socket[Any], handle: Callable[[Frames], None] | None = None, *, name: str = ""
    ) -> None:
        self.socket = socket
        self.handle = handle
        self.name = name
        self.known: Container[Buffer] | None = None
        """The first frames of known peers, for which `introduce` is not called; None if it is never called."""
        self.introduce: Callable[[Buffer], None] = lambda first: None
        """Called with the first frame of a message from a peer that is not `known`, before the message is handled."""
        self.max_frames = MAX_FRAMES
        self.refused: Callable[[int], None] = lambda frames: None
        self.received = 0
        """The number of messages received so far."""
        self.latest: Any = None
        """A frame (a `zmq.Frame`) of the latest message. ZeroMQ knows the connection by which a frame came."""
        self.closed = False
        # If a connection breaks while a message is sent, the linger of that moment applies, not that of `close`. With
        # ZeroMQ's default, the connection and its context might never end.
        socket.linger = 0
        self.fd = int(socket.getsockopt(zmq.FD))
        # Methods of the C extension: pyzmq's wrappers are for other kinds of sockets, and cost twice as much.
        core: Any = super(zmq.Socket, socket)
        self._send: Callable[[Buffer, int], Any] = core.send
        self._receive: Callable[[int, bool], Any] = core.recv
        # A ROUTER puts the identity of the sender in front of each message.
        self._names_sender = socket.type == zmq.ROUTER
        self.asked = (socket, _POLLIN)
        """The question for `with_messages`."""
        self._asked = [self.asked]
        self.receiver: Watcher | None = None
        self.held = False
        """Whether the channel receives nothing for now, see `hold`."""
        self._unfinished: _Unfinished | None = None

    def __repr__(self) -> str:
        return f"<Channel {self.name}{' closed' if self.closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(linger=0)

    def send(self, frames: Sequence[Buffer]) -> bool:
        """Send a message, without waiting.

        Returns:
            False if nothing was sent: the peer that a ROUTER's first frame names is not connected, there is no room
            for the message, or the channel is closed.
        """
        if self.closed:
            return False
        send = self._send
        last = frames[-1]
        try:
            # pyzmq copies bytes: otherwise it would need a further thread to release them. It never copies frames that
            # ZeroMQ has received.
            for frame in frames[:-1]:
                send(frame, _MORE)
            send(last, _NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            sent = False
        else:
            sent = True
        if self.receiver is not None:
            self.receiver.look_again(self)
        return sent

    def drain(self, budget: int | None = None, *, held: bool = False) -> bool:
        """Receive and handle the messages that have arrived, at most `budget`; with `held`, also on a held channel.

        Returns:
            Whether there may be more messages.
        """
        receive = self._receive
        handle = self.handle
        known = self.known
        received = 0
        while not self.closed and (held or not self.held) and (budget is None or received < budget):
            if self._unfinished is None:
                frames: Frames = []
                try:
                    if self._names_sender:  # an identity is short, and another frame always follows it
                        frames.append(receive(_NOBLOCK, True))
                    frame = receive(_NOBLOCK, False)
                except zmq.Again:
                    return False
                self.latest = frame
                frames.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
                for _ in _FEW_FRAMES:
                    if not frame.more:
                        break
                    frame = receive(_NOBLOCK, False)  # all parts of a message arrive together
                    frames.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
                else:
                    if frame.more:
                        self._unfinished = _Unfinished(frames)
                        continue
            else:
                unfinished = self._receive_rest(self._unfinished)
                if unfinished is None:
                    return True
                frames = unfinished
            received += 1
            self.received += 1
            if handle is not None and frames:
                if known is not None and frames[0] not in known:
                    self.introduce(frames[0])
                handle(frames)
            # An exception that says that there is no message costs ten times as much as this check.
            if received != budget and not self._has_message():
                return False
        return not self.closed and (held or not self.held)

    def _receive_rest(self, unfinished: _Unfinished) -> Frames | None:
        """Receive more of a long message. When complete, return its frames, or [] if it is too long; else None."""
        receive = self._receive
        frames = unfinished.frames
        for _ in range(PARTS_AT_A_TIME):
            frame = receive(_NOBLOCK, False)
            unfinished.count += 1
            if unfinished.count > self.max_frames:
                frames.clear()
            else:
                frames.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
            if not frame.more:
                self._unfinished = None
                if not frames:
                    self.refused(unfinished.count)
                return frames
        return None

    def is_readable(self) -> bool:
        """Return whether there is a message to receive now."""
        return not self.held and self._has_message()

    def touch(self) -> None:
        """Have ZeroMQ do its pending work for this socket now, such as releasing connections that have ended."""
        self._has_message()
        self._look_again()

    def _look_again(self) -> None:
        """Have the receiver look at the socket again: any use may have consumed the edge that tells of a message."""
        if self.receiver is not None:
            self.receiver.look_again(self)

    def _has_message(self) -> bool:
        return not self.closed and bool(_poll(self._asked, 0))

    def peer_address(self) -> str | None:
        """Return the address, without a port, of the sender of the message being handled; None if it is not known."""
        return None if self.latest is None else peer_of(self.latest)

    def peer_fd(self) -> int:
        """Return the descriptor of the connection of the message being handled; -1 if there is none."""
        try:
            return -1 if self.latest is None else int(self.latest.get(_SRCFD))
        except zmq.ZMQError:
            return -1

    def hold(self) -> None:
        """Receive nothing for now. Messages wait in ZeroMQ's queues and, when these are full, at their senders."""
        if not self.held:
            self.held = True
            if self.receiver is not None:
                self.receiver.unwatch(self)

    def release(self) -> None:
        """Receive messages again, after `hold`."""
        if self.held:
            self.held = False
            if self.receiver is not None:
                self.receiver.watch(self)

    def close(self, linger: int) -> None:
        """Close the socket. Messages that were sent have `linger` milliseconds to leave. Idempotent."""
        if not self.closed:
            self.closed = True
            if self.receiver is not None:
                self.receiver.remove(self)
            self.socket.close(linger)


def with_messages(channels: Collection[Channel]) -> list[Channel]:
    """Return the channels among these that have a message to receive now and are not held or closed."""
    asked = [channel.asked for channel in channels if not channel.held and not channel.closed]
    answers = _poll(asked, 0)
    if not answers:
        return []
    readable = {socket for socket, _ in answers}
    return [channel for channel in channels if channel.socket in readable]


class _Unfinished:
    """The beginning of a message whose other frames are still with ZeroMQ."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.count = len(frames)


def peer_of(frame: zmq.Frame) -> str | None:
    """Return the address, without a port, that a frame came from; None if it has not come over a network."""
    try:
        address = str(frame["Peer-Address"])
    except zmq.ZMQError:
        return None
    return address.removeprefix("::ffff:")  # an IPv6 socket gives IPv4 addresses this prefix


_monitor_numbers = itertools.count()


def monitor_of(socket: zmq.Socket[Any], events: int) -> zmq.Socket[Any]:
    """Return a socket that receives events of `socket`'s connections, until `socket.disable_monitor` is called.

    The queue of events has no limit: at a limit, ZeroMQ's own thread would wait until the events are read, and with it
    all connections.
    """
    # ZeroMQ releases an address some time after its socket was closed, so that `id(socket)` might still be in use.
    address = f"inproc://monitor-{next(_monitor_numbers)}"
    socket.monitor(address, events)
    monitor: zmq.Socket[Any] = socket.context.socket(zmq.PAIR)
    monitor.linger = 0
    monitor.rcvhwm = 0
    monitor.connect(address)
    return monitor
