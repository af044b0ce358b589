"""Who reads the stream of events: each message is encoded once for all, and who does not read is given up."""

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
"""Messages that wait for a reader which is slow; one that is further behind is given up."""
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


def event_message(name: str, data: Any) -> bytes:
    """One message of a stream of events (text/event-stream)."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json_bytes(data))


class Reader:
    """One browser. `receive` gives the messages, until it ends."""

    def __init__(self, wants_bars: bool) -> None:
        self.wants_bars = wants_bars
        self.send, self.receive = trio.open_memory_channel[bytes](BACKLOG)

    def tell(self, message: bytes) -> bool:
        """Have it sent. Whether there was room."""
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
        """Readers that did not read."""
        self._ended = False

    @property
    def wants_bars(self) -> bool:
        """Whether anybody looks at single tasks."""
        return any(reader.wants_bars for reader in self.readers)

    @contextmanager
    def join(self, wants_bars: bool) -> Iterator[Reader]:
        """Be one of them, for the length of a block."""
        reader = Reader(wants_bars)
        if self._ended:
            reader.send.close()
        else:
            self.readers.add(reader)
        try:
            yield reader
        finally:
            self.readers.discard(reader)
            reader.send.close()
            reader.receive.close()

    def tell(self, message: bytes, *, bars: bool = False) -> None:
        """Send that to all; if it is about single tasks, to those who look at these."""
        for reader in [reader for reader in self.readers if reader.wants_bars or not bars]:
            if not reader.tell(message):
                self.given_up += 1
                self._end(reader)

    def end(self, message: bytes) -> None:
        """That is the last one, for whoever comes, too."""
        self._ended = True
        self.tell(message)
        for reader in list(self.readers):
            self._end(reader)

    def _end(self, reader: Reader) -> None:
        self.readers.discard(reader)
        reader.send.close()


class EventStream(Response):
    """Answers with a stream of events, until that ends or the peer is gone.

    Args:
        audience: tells what happens.
        first: makes the first message.
        wants_bars: whether to tell of single tasks.
    """

    def __init__(self, audience: Audience, first: Callable[[], bytes], wants_bars: bool) -> None:
        super().__init__()
        self._audience = audience
        self._first = first
        self._wants_bars = wants_bars

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one peer. What is sent cannot be cancelled: see `trio_hub.dashboard.server`."""
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
