"""ZeroMQ sockets on Trio.

A ZeroMQ socket has one descriptor, which is edge-triggered and only ever becomes readable; any send or
receive may consume the edge, and after each of them the truth is in ``EVENTS``. Hence the two rules here:

1. one task per socket receives (`Channel.run`): it drains the socket until it would block, reads ``EVENTS``
   last, and only then waits;
2. anybody may send, at once, and then looks: if there is something to read now, the receiving task may have
   missed the edge, and is woken.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import trio
import zmq

from ..wire.frames import Buffer, Frames

__all__ = ["LARGE_FRAME", "Channel"]

LARGE_FRAME = 65_536
"""Bytes from which on a frame stays where ZeroMQ received it, instead of being copied into Python's memory."""
_BUDGET = 200
"""Messages received at most before other tasks have their turn."""


class Channel:
    """A ZeroMQ socket, and whoever handles what it receives.

    Args:
        socket: bound or connected, or to be so soon; the channel owns it and closes it.
        handle: called with each message's frames, in the receiving task; it must not wait.
        name: for people.
    """

    def __init__(
        self, socket: zmq.Socket[Any], handle: Callable[[Frames], None] | None = None, *, name: str = ""
    ) -> None:
        self.socket = socket
        self.handle = handle
        self.name = name
        self.closed = False
        self._fd = int(socket.getsockopt(zmq.FD))
        self._waiting: trio.CancelScope | None = None
        self._held: trio.Event | None = None

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
        send = self.socket.send
        last = len(frames) - 1
        try:
            for index, frame in enumerate(frames):
                # Bytes are copied, since ZeroMQ would need a thread of its own to release them; frames that it
                # received itself are shared.
                send(frame, _MORE if index < last else zmq.NOBLOCK, not isinstance(frame, zmq.Frame))
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            sent = False
        else:
            sent = True
        if self._waiting is not None and self._readable():
            self._waiting.cancel()
        return sent

    def drain(self, budget: int | None = None) -> bool:
        """Receive and handle what is there, at most `budget` messages. Whether there may be more."""
        receive: Callable[[int, bool], Any] = self.socket.recv
        received = 0
        handle = self.handle
        while not self.closed and self._held is None and (budget is None or received < budget):
            try:
                frame = receive(zmq.NOBLOCK, False)
            except zmq.Again:
                return False
            frames: Frames = [frame.bytes if len(frame) < LARGE_FRAME else frame]
            while frame.more:  # all parts of a message arrive together
                frame = receive(zmq.NOBLOCK, False)
                frames.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
            received += 1
            if handle is not None:
                handle(frames)
        return not self.closed

    def hold(self) -> None:
        """Receive nothing for now: ZeroMQ keeps what comes, and, when its queues are full, so does the sender's."""
        if self._held is None:
            self._held = trio.Event()

    def release(self) -> None:
        """Receive again."""
        if self._held is not None:
            self._held.set()
            self._held = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive until the channel is closed. One task at a time may do this."""
        task_status.started()
        while not self.closed:
            if self._held is not None:
                await self._held.wait()
            elif self.drain(_BUDGET):
                await trio.lowlevel.checkpoint()
            elif not self.closed:  # it is, if a handler has closed it
                await self._wait()

    async def _wait(self) -> None:
        """Wait until there may be something to read."""
        with trio.CancelScope() as self._waiting:
            try:
                if not self._readable():
                    await anyio.wait_readable(self._fd)
                else:
                    await trio.lowlevel.checkpoint()
            except anyio.ClosedResourceError:
                pass  # closed while waiting; `run` sees it
            finally:
                self._waiting = None

    def _readable(self) -> bool:
        return bool(int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def close(self, linger: int) -> None:
        """Close the socket; what was sent has `linger` milliseconds to leave. Idempotent."""
        if not self.closed:
            self.closed = True
            self.release()
            anyio.notify_closing(self._fd)
            self.socket.close(linger)


_MORE = zmq.NOBLOCK | zmq.SNDMORE
