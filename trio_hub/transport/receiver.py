"""`Receiver`: one task that receives from many channels."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
import trio

from .channel import Channel, with_messages

__all__ = ["BUDGET", "ROUND", "Receiver", "receive_from"]

BUDGET = 8
"""The maximum number of messages of one channel that are received at a time. It takes half a millisecond."""
ROUND = 32
"""The number of messages after which other tasks have their turn. A turn of a channel counts as one more message.

Giving other tasks a turn costs as much as receiving six frames.
"""


class Receiver:
    """Receives from many channels in one task, in turns.

    One epoll watches the descriptors of all channels, and the task waits for the epoll's descriptor. So the cost of
    waiting and waking up is paid once for all messages that arrive meanwhile, not once per channel.

    Each busy channel in turn gets to receive `BUDGET` messages. Before each of these turns, the channels on which a
    message has just arrived are read. So a single message, such as a call, waits for a few messages of a burst, not for
    a whole round.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._epoll_fd = self._epoll.fileno()
        # Other tasks write to this descriptor to wake the receiver. It costs less than a cancel scope for each wait.
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._watched: dict[int, Channel] = {}
        self._channels: set[Channel] = set()
        # Channels that may have messages: channels with newly arrived messages; channels that had more messages than
        # `BUDGET`, in order; and channels on which something was sent, which have to be looked at again.
        self._new: dict[Channel, None] = {}
        self._left: dict[Channel, None] = {}
        self._sent: set[Channel] = set()
        # Whether messages are being handled, and the calls to be made after that.
        self._handling = False
        self._later: list[Callable[[], None]] = []
        # Whether the task waits and nobody has woken it yet. If not, it looks at all channels before it waits.
        self._waiting = False
        self._running = False
        # The number of messages, and of turns of channels, since other tasks had their turn.
        self._work = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, channel: Channel) -> None:
        """Receive from a channel until it is closed.

        Raises:
            anyio.BusyResourceError: Another receiver receives from this channel.
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
        """Stop receiving from a channel. A channel that was not added is ignored."""
        if channel in self._channels:
            self.unwatch(channel)
            self._channels.discard(channel)
            channel.receiver = None
            self._wake()  # `run` ends after the last channel

    def watch(self, channel: Channel) -> None:
        """Look at a channel now, and whenever its descriptor is readable."""
        self._epoll.register(channel.fd, select.EPOLLIN)
        self._watched[channel.fd] = channel
        self._new[channel] = None
        self._wake()

    def unwatch(self, channel: Channel) -> None:
        """Stop looking at a channel."""
        if self._watched.pop(channel.fd, None) is not None:
            self._epoll.unregister(channel.fd)
        self._new.pop(channel, None)
        self._left.pop(channel, None)
        self._sent.discard(channel)

    def look_again(self, channel: Channel) -> None:
        """Look at a channel before waiting: a use of it may have consumed the edge that tells of a message.

        While the task waits, a channel without a message need not be looked at: a later message has a new edge.
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
        """Receive until all channels are closed. Only one task at a time may call this."""
        task_status.started()
        self._running = True
        try:
            while self._channels:
                self._look()
                if not (self._new or self._left):
                    await self._wait()
                    self._work = 0
                    self._look()
                elif self._work >= ROUND:
                    await trio.lowlevel.checkpoint()
                    self._work = 0
                self._receive_all()
        finally:
            self._running = False

    def _receive_all(self) -> None:
        """Give each channel that may have messages one turn."""
        left = tuple(self._left)  # channels that are added to it from here on have had their turn in this round
        self._receive_new()
        for channel in left:
            if channel in self._left:  # otherwise it was closed or held meanwhile
                del self._left[channel]
                self._receive(channel)
                self._look()
                self._receive_new()

    def _receive_new(self) -> None:
        """Receive from all channels on which messages had arrived by the last look."""
        new, self._new = self._new, {}
        for channel in new:
            self._receive(channel)

    def _look(self) -> None:
        """Find out on which channels messages have arrived since the last look.

        This costs a fortieth of waiting in Trio, so the receiver looks once more before it waits.
        """
        self._look_at_sent()
        for fd, _ in self._epoll.poll(0):
            if fd == self._bell:
                os.eventfd_read(self._bell)
            elif (channel := self._watched[fd]) not in self._left:
                self._new[channel] = None  # without a question: there is hardly ever no message

    def _look_at_sent(self) -> None:
        """Find out which of the channels on which something was sent have a message, with one question to ZeroMQ."""
        if self._sent:
            sent, self._sent = self._sent.difference(self._left), set()
            if sent:
                self._new.update(dict.fromkeys(with_messages(sent)))

    def _receive(self, channel: Channel) -> None:
        before = channel.received
        self._handling = True
        try:
            if channel.drain(BUDGET):
                self._left[channel] = None
        finally:
            self._handling = False
            self._work += channel.received - before + 1
            self.catch_up()

    def soon(self, call: Callable[[], None]) -> None:
        """Make a call after the messages that were received together are handled; at once if none is being handled."""
        if self._handling:
            self._later.append(call)
        else:
            call()

    def catch_up(self) -> None:
        """Make all calls that `soon` has put off, in order."""
        if self._later:
            calls, self._later = self._later, []
            for call in calls:
                call()

    async def _wait(self) -> None:
        """Wait until there may be something to receive."""
        self._waiting = True
        try:
            await anyio.wait_readable(self._epoll_fd)
        finally:
            self._waiting = False

    def close(self) -> None:
        """Release the receiver after `run` has ended. The channels stay open. Idempotent.

        The end of `run` is the end of its task: a task that is cancelled may run on until its next checkpoint.
        """
        assert not self._running, "the receiver is closed while it runs"
        for channel in list(self._channels):
            self.remove(channel)
        if not self._epoll.closed:
            self._epoll.close()
            os.close(self._bell)


async def receive_from(channel: Channel, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Receive from one channel, with a new receiver, until the channel is closed."""
    with Receiver() as receiver:
        receiver.add(channel)
        await receiver.run(task_status=task_status)
