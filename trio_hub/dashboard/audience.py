"""The readers of the stream of events. Each message is encoded once for all readers. Slow readers are dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..wire.plain import json_bytes

__all__ = ["Audience", "EventStream", "Reader", "event_message"]

BACKLOG = 20
"""The maximum number of messages that wait for a reader. A slower reader is dropped."""
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


def event_message(name: str, data: Any) -> bytes:
    """Return a message of a stream of events (text/event-stream)."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json_bytes(data))


class Reader:
    """One browser. Its messages are received from `receive` until that ends."""

    def __init__(self, wants_bars: bool) -> None:
        self.wants_bars = wants_bars
        self.send, self.receive = trio.open_memory_channel[bytes](BACKLOG)

    def tell(self, message: bytes) -> bool:
        """Queue a message for sending. Return False if the queue is full or closed."""
        try:
            self.send.send_nowait(message)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return False
        return True


class Audience:
    """All readers of one hub's events."""

    def __init__(self) -> None:
        self.readers: set[Reader] = set()
        self.given_up = 0
        """The number of readers that were dropped because they did not read."""
        self.joined = trio.Event()
        """Set, and replaced by a new event, whenever a reader has joined."""
        self._ended = False

    @property
    def wants_bars(self) -> bool:
        """Whether any reader wants messages about single tasks."""
        return any(reader.wants_bars for reader in self.readers)

    @contextmanager
    def join(self, wants_bars: bool) -> Iterator[Reader]:
        """Add a reader for the duration of a block."""
        reader = Reader(wants_bars)
        if self._ended:
            reader.send.close()
        else:
            self.readers.add(reader)
            self.joined.set()
            self.joined = trio.Event()
        try:
            yield reader
        finally:
            self.readers.discard(reader)
            reader.send.close()
            reader.receive.close()

    def tell(self, message: bytes, *, bars: bool = False) -> None:
        """Send a message to all readers; with `bars`, only to those that want messages about single tasks."""
        for reader in [reader for reader in self.readers if reader.wants_bars or not bars]:
            if not reader.tell(message):
                self.given_up += 1
                self._end(reader)

    def end(self, message: bytes) -> None:
        """Send a last message to all readers, and end their streams. Later readers get no messages."""
        self._ended = True
        self.tell(message)
        for reader in list(self.readers):
            self._end(reader)

    def _end(self, reader: Reader) -> None:
        self.readers.discard(reader)
        reader.send.close()


class EventStream(Response):
    """An answer with the stream of events. It ends when the stream ends or the peer disconnects.

    Args:
        audience: The readers, to which the peer is added.
        first: Returns the first message.
        wants_bars: Whether the peer wants messages about single tasks.
    """

    def __init__(self, audience: Audience, first: Callable[[], bytes], wants_bars: bool) -> None:
        super().__init__()
        self._audience = audience
        self._first = first
        self._wants_bars = wants_bars

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one peer. Sending cannot be cancelled, see `trio_hub.dashboard.server`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell, send, nursery.cancel_scope)
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

    async def _tell(self, send: Send, scope: trio.CancelScope) -> None:
        with self._audience.join(self._wants_bars) as reader:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body", "body": self._first(), "more_body": True})
            async for message in reader.receive:
                await send({"type": "http.response.body", "body": message, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        scope.cancel()
