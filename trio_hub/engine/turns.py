"""Lets the main thread receive requests and send their answers itself, beside the thread of the sockets.

A request that has to pass from one thread to another, and its answer that has to pass back, cost more than a quick
call. So the main thread reads the shell channel whenever it has nothing to do. All other channels belong to the thread
of the sockets, which also serves them while user code runs.

Two threads may use the same sockets in turns, but never at once. So there is one lock, the *turn*. The thread of the
sockets has the turn except while it waits for I/O. The main thread takes the turn to receive a request or to send an
answer, and never while user code runs.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import trio

from ..transport.channel import Channel
from .output import Printed

__all__ = ["InterruptedTurn", "ShellReader", "Turn"]


class InterruptedTurn(Exception):
    """The main thread was interrupted while it sent or received a message: a signal handler of user code has raised.

    A part of the message may be lost, so the engine must end. Its nanny tells the hub.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"a message may be lost, since a signal handler has raised {error!r}")


class Turn(trio.abc.Instrument):
    """The lock of the sockets, and of all objects that belong to their thread.

    Trio takes and releases it in the thread of the sockets, as an instrument. The main thread takes it with ``with``,
    for a block that must not run user code.

    Args:
        printed: the output that is not sent yet. The thread that has the turn never waits for room there.
    """

    def __init__(self, printed: Printed) -> None:
        self._lock = threading.Lock()
        self._printed = printed

    # In the thread of the sockets, called by Trio

    def before_run(self) -> None:
        self._take()

    def before_io_wait(self, timeout: float) -> None:
        self._release()

    def after_io_wait(self, timeout: float) -> None:
        self._take()

    def after_run(self) -> None:
        self._release()

    # In the main thread

    def __enter__(self) -> None:
        try:
            self._take()
        except BaseException as error:
            raise InterruptedTurn(error) from error

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._release()
        except BaseException as error:
            raise InterruptedTurn(error) from error
        if exc is not None:
            raise InterruptedTurn(exc) from exc

    def _take(self) -> None:
        self._lock.acquire()
        self._printed.owner = threading.get_ident()

    def _release(self) -> None:
        self._printed.owner = 0
        self._lock.release()


class ShellReader:
    """Receives from the shell channel in the main thread, when that thread has nothing to do.

    It is the channel's `trio_hub.transport.channel.Watcher`.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._channel: Channel | None = None
        # Other threads write to this descriptor to wake the main thread.
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waiting = False
        self._polled: Channel | None = None
        self._poll = self._poll_for(None)

    # With the turn

    def add(self, channel: Channel) -> None:
        """Receive from this channel from now on."""
        self._channel = channel
        channel.receiver = self
        self.ring()

    def remove(self, channel: Channel) -> None:
        """Forget the channel, which is being closed."""
        self._channel = channel.receiver = None
        self.ring()

    def watch(self, channel: Channel) -> None:
        self.ring()

    def unwatch(self, channel: Channel) -> None:
        pass

    def look_again(self, channel: Channel) -> None:
        """Wake the main thread if there is a message: a use of the channel may have consumed the edge that tells."""
        if self._waiting and channel.is_readable():
            self.ring()

    def collect(self) -> None:
        """Receive all requests that have come."""
        channel = self._channel
        while channel is not None and channel.is_readable():
            channel.drain()  # a part of a long message, or all messages up to one

    # In any thread

    def ring(self) -> None:
        """Let the main thread look whether there is something to do."""
        if self._waiting:
            self._waiting = False
            with suppress(OSError):  # user code has closed it
                os.eventfd_write(self._bell, 1)

    # In the main thread

    def wait(self, has_work: Callable[[], Any]) -> None:
        """Receive until there is work. If no message is left before that, wait until there may be some."""
        with self._turn:
            channel = self._channel
            # A message may give no work, for instance a replay. The next one may be there already, without an edge.
            while channel is not None and not has_work() and channel.is_readable():
                channel.drain(1)
            if has_work():
                return
            self._waiting = True
        if channel is not self._polled:
            self._poll, self._polled = self._poll_for(channel), channel
        for descriptor, _ in self._poll.poll():
            if descriptor == self._bell:
                os.eventfd_read(self._bell)
        self._waiting = False

    def _poll_for(self, channel: Channel | None) -> select.poll:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if channel is not None:
            poll.register(channel.fd, select.POLLIN)
        return poll
