"""ZeroMQ sockets on Trio.

A ZeroMQ socket has one descriptor, which is edge-triggered and only ever becomes readable; any send or receive may
consume the edge, and after each of them the truth is in the socket, not in its descriptor. Hence the two rules here:

1. one task receives (`Receiver.run`), for many sockets: it drains each until it would block, and waits when none is
   left to be drained;
2. anybody may send, at once; but a socket that was sent on is to be looked at once more before that task waits.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import trio
import zmq

from ..wire.frames import Buffer, Frames

__all__ = ["LARGE_FRAME", "MAX_FRAMES", "Channel", "Receiver", "monitor_of"]

LARGE_FRAME = 65_536
"""Bytes from which on a frame stays where ZeroMQ received it, instead of being copied into Python's memory."""
_BUDGET = 4
"""Messages received at most from one socket before others have their turn: half a millisecond."""
_PARTS_AT_A_TIME = 1000
"""Frames of one message received at most before others have their turn: about a millisecond."""
_FEW_FRAMES = 64
"""Frames that nearly all messages have at most; those of a longer one are counted as they are received."""
MAX_FRAMES = 100_000
"""Frames that a message may have at most. Each buffer of a request or result is a frame."""

# As plain numbers: ZeroMQ's own flags are enums, which cost more to convert than the call itself.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_SRCFD = int(zmq.SRCFD)
_FRAME: type = zmq.Frame


class Channel:
    """A ZeroMQ socket, and whoever handles what it receives.

    Args:
        socket: bound or connected, or to be so soon; the channel owns it and closes it.
        handle: called with each message's frames, in the receiving task; it must not wait.
        name: for people.

    A message of more than ``max_frames`` frames is thrown away as it comes in, a slice at a time, and ``refused`` is
    called with the number of its frames. (How long one frame may be is for the socket to say: ``zmq.MAXMSGSIZE``.)
    """

    def __init__(
        self, socket: zmq.Socket[Any], handle: Callable[[Frames], None] | None = None, *, name: str = ""
    ) -> None:
        self.socket = socket
        self.handle = handle
        self.name = name
        self.max_frames = MAX_FRAMES
        self.refused: Callable[[int], None] = lambda frames: None
        self.latest: Any = None
        """The first frame, a `zmq.Frame`, of the message that came last; it knows by which connection it came."""
        self.closed = False
        # A connection that breaks while it is sent on ends with the linger of that moment, whatever `close` says later.
        # By ZeroMQ's default it may then never end, and nor may its context.
        socket.linger = 0
        self.fd = int(socket.getsockopt(zmq.FD))
        # Those of the C extension: what is wrapped around them serves sockets of other kinds, at twice the cost.
        core: Any = super(zmq.Socket, socket)
        self._send: Callable[[Buffer, int, bool], Any] = core.send
        self._receive: Callable[[int, bool], Any] = core.recv
        self._getsockopt: Callable[[int], int] = core.get
        self._receiver: Receiver | None = None
        self._held = False
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
            False if nothing was sent: the peer that a ROUTER's first frame names is not connected, or there is
            no room for the message, or the channel is closed.
        """
        if self.closed:
            return False
        send = self._send
        left = len(frames)
        try:
            for frame in frames:
                left -= 1
                # Bytes are copied, since ZeroMQ would need a thread of its own to release them; frames that it
                # received itself are shared.
                send(frame, _MORE if left else _NOBLOCK, type(frame) is not _FRAME)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            sent = False
        else:
            sent = True
        if self._receiver is not None:
            self._receiver.look_again(self)
        return sent

    def drain(self, budget: int | None = None, *, held: bool = False) -> bool:
        """Receive and handle what is there, at most `budget` messages; with `held`, also if it is held.

        Returns:
            Whether there may be more.
        """
        receive = self._receive
        received = 0
        handle = self.handle
        while not self.closed and (held or not self._held) and (budget is None or received < budget):
            if self._unfinished is not None:
                unfinished = self._receive_rest(self._unfinished)
                if unfinished is None:
                    return True
                frames = unfinished
            else:
                try:
                    frame = receive(_NOBLOCK, False)
                except zmq.Again:
                    return False
                self.latest = frame
                frames = [frame.bytes if len(frame) < LARGE_FRAME else frame]
                left = _FEW_FRAMES
                while frame.more and left:  # all parts of a message arrive together
                    frame = receive(_NOBLOCK, False)
                    frames.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
                    left -= 1
                if frame.more:
                    self._unfinished = _Unfinished(frames)
                    continue
            received += 1
            if handle is not None and frames:
                handle(frames)
            # Often one is all there is, and to be told so by an exception costs several times as much.
            if received == 1 and not self._has_message():
                return False
        return not self.closed and (held or not self._held)

    def _receive_rest(self, unfinished: _Unfinished) -> Frames | None:
        """Receive more of a message of many frames. Returns it when it is whole, empty if it is too long; else None."""
        receive = self._receive
        frames = unfinished.frames
        for _ in range(_PARTS_AT_A_TIME):
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
        """Whether there is something to receive now."""
        return not self._held and self._has_message()

    def touch(self) -> None:
        """Have ZeroMQ do now what it has to do for this socket, such as let go of connections that have ended."""
        self._has_message()
        if self._receiver is not None:
            self._receiver.look_again(self)  # the sign that a message has arrived may be gone

    def _has_message(self) -> bool:
        return not self.closed and bool(self._getsockopt(_EVENTS) & _POLLIN)

    def peer_address(self) -> str | None:
        """The address, without the port, that the message being handled came from; None if that cannot be told."""
        if self.latest is None:
            return None
        try:
            address = str(self.latest["Peer-Address"])
        except zmq.ZMQError:  # it has not come over a network
            return None
        return address.removeprefix("::ffff:")  # a socket for IPv6 calls those of IPv4 so, too

    def peer_fd(self) -> int:
        """The descriptor, in this process, of the connection that the message being handled came by; -1 for none."""
        try:
            return -1 if self.latest is None else int(self.latest.get(_SRCFD))
        except zmq.ZMQError:
            return -1

    def hold(self) -> None:
        """Receive nothing for now: ZeroMQ keeps what comes, and, when its queues are full, so does the sender's."""
        if not self._held:
            self._held = True
            if self._receiver is not None:
                self._receiver.unwatch(self)

    def release(self) -> None:
        """Receive again."""
        if self._held:
            self._held = False
            if self._receiver is not None:
                self._receiver.watch(self)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive until the channel is closed, with a receiver of its own."""
        with Receiver() as receiver:
            receiver.add(self)
            await receiver.run(task_status=task_status)

    def close(self, linger: int) -> None:
        """Close the socket; what was sent has `linger` milliseconds to leave. Idempotent."""
        if not self.closed:
            self.closed = True
            if self._receiver is not None:
                self._receiver.remove(self)
            self.socket.close(linger)


class _Unfinished:
    """The beginning of a message whose other frames are still with ZeroMQ."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.count = len(frames)


class Receiver:
    """Receives from many channels in one task, in turns.

    Their descriptors are watched by one epoll, and the task waits for that one's. So what it costs to wait, and to be
    woken, is paid once for all that has arrived meanwhile, and not for each channel.

    Each channel on which much arrives gets its share of the messages, one channel after the other; and before each of
    them, it is the turn of those on which something has arrived just now. So what comes now and then, such as a call,
    waits for a few messages of a burst, and not for all that is done in a round.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        # Others write to it when the task is to come round: cheaper than a scope to be cancelled each time it waits.
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._watched: dict[int, Channel] = {}
        self._channels: set[Channel] = set()
        # All three are received from without waiting: those that have something, and did not have it before; those that
        # had more than their share, in order; and those that were sent on, if they have something.
        self._new: dict[Channel, None] = {}
        self._left: dict[Channel, None] = {}
        self._sent: set[Channel] = set()
        # Whether messages are being handled, and what is to be called after that.
        self._handling = False
        self._later: list[Callable[[], None]] = []
        # Whether the task waits, and nobody has rung yet; if not, it will come round by itself.
        self._waiting = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, channel: Channel) -> None:
        """Receive from this one, too, until it is closed.

        Raises:
            anyio.BusyResourceError: another receiver does.
        """
        if channel.closed:
            return
        if channel._receiver is not None:
            raise anyio.BusyResourceError("receiving from")
        if not channel._held:
            self.watch(channel)
        channel._receiver = self
        self._channels.add(channel)

    def remove(self, channel: Channel) -> None:
        """Receive from this one no more. One that is not here is ignored."""
        if channel in self._channels:
            self.unwatch(channel)
            self._channels.discard(channel)
            channel._receiver = None
            self._wake()  # it may have been the last

    def watch(self, channel: Channel) -> None:
        """Look at a channel now, and whenever its descriptor says so."""
        self._epoll.register(channel.fd, select.EPOLLIN)
        self._watched[channel.fd] = channel
        self._new[channel] = None
        self._wake()

    def unwatch(self, channel: Channel) -> None:
        """The opposite of `watch`."""
        if self._watched.pop(channel.fd, None) is not None:
            self._epoll.unregister(channel.fd)
        self._new.pop(channel, None)
        self._left.pop(channel, None)
        self._sent.discard(channel)

    def look_again(self, channel: Channel) -> None:
        """A channel was sent on, which may have consumed the edge that would have told of a message.

        While the task waits, a channel that has no message now needs no other look: a message that comes later has an
        edge of its own.
        """
        if not self._waiting:
            self._sent.add(channel)
        elif channel.is_readable():
            self._sent.add(channel)
            self._wake()

    def _wake(self) -> None:
        if self._waiting:
            self._waiting = False
            os.eventfd_write(self._bell, 1)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive until all channels are closed. One task at a time may do this."""
        task_status.started()
        while self._channels:
            self._look_at_sent()
            if self._new or self._left:
                await trio.lowlevel.checkpoint()
            else:
                await self._wait()
            left = tuple(self._left)  # whatever is left over from here on has had its share of this round
            self._receive_new()
            for channel in left:
                if channel in self._left:  # else what was received meanwhile has ended or held it
                    del self._left[channel]
                    self._receive(channel)
                    self._receive_new()

    def _receive_new(self) -> None:
        """Receive from all channels of which it has turned out since the last time that they have something."""
        self._look_at_sent()
        for fd, _ in self._epoll.poll(0):
            if fd == self._bell:
                os.eventfd_read(self._bell)
            elif (channel := self._watched[fd]) not in self._left:
                self._new[channel] = None
        new, self._new = self._new, {}
        for channel in new:
            self._receive(channel)

    def _look_at_sent(self) -> None:
        while self._sent:
            channel = self._sent.pop()
            if channel not in self._left and channel.is_readable():
                self._new[channel] = None

    def _receive(self, channel: Channel) -> None:
        self._handling = True
        try:
            if channel.drain(_BUDGET):
                self._left[channel] = None
        finally:
            self._handling = False
            self.catch_up()

    def soon(self, call: Callable[[], None]) -> None:
        """Call that when the messages that were received together are handled; at once, if none is being handled."""
        if self._handling:
            self._later.append(call)
        else:
            call()

    def catch_up(self) -> None:
        """Make all calls that are to be made `soon`, in order."""
        if self._later:
            calls, self._later = self._later, []
            for call in calls:
                call()

    async def _wait(self) -> None:
        """Wait until there may be something to receive."""
        self._waiting = True
        try:
            await anyio.wait_readable(self._epoll.fileno())
        finally:
            self._waiting = False

    def close(self) -> None:
        """Receive from nobody any more, once `run` has ended; the channels stay open. Idempotent."""
        for channel in list(self._channels):
            self.remove(channel)
        if not self._epoll.closed:
            self._epoll.close()
            os.close(self._bell)


def monitor_of(socket: zmq.Socket[Any], events: int) -> zmq.Socket[Any]:
    """Return a socket that receives events of `socket`'s connections, until `socket.disable_monitor` is called.

    The queue of events has no limit: at a limit, ZeroMQ's own thread would wait until the events are read, and with it
    all connections.
    """
    address = f"inproc://monitor-{id(socket):x}"
    socket.monitor(address, events)
    monitor: zmq.Socket[Any] = socket.context.socket(zmq.PAIR)
    monitor.linger = 0
    monitor.rcvhwm = 0
    monitor.connect(address)
    return monitor
