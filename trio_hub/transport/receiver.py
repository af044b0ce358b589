"""`Receiver`: one task that receives from many channels."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
import trio

from .channel import Channel

__all__ = ["BUDGET", "Receiver", "receive_from"]

BUDGET = 8
"""Messages received at most from one channel before other channels have their turn: half a millisecond."""


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
        if channel.receiver is not None:
            raise anyio.BusyResourceError("receiving from")
        if not channel.held:
            self.watch(channel)
        channel.receiver = self
        self._channels.add(channel)

    def remove(self, channel: Channel) -> None:
        """Receive from this one no more. One that is not here is ignored."""
        if channel in self._channels:
            self.unwatch(channel)
            self._channels.discard(channel)
            channel.receiver = None
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
        """Look at a channel before waiting: it was sent on, which may have consumed the edge that tells of a message.

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
            if channel.drain(BUDGET):
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


async def receive_from(channel: Channel, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Receive from one channel, with a receiver of its own, until the channel is closed."""
    with Receiver() as receiver:
        receiver.add(channel)
        await receiver.run(task_status=task_status)
