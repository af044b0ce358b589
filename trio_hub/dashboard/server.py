"""HTTP connections, each in a task of its own, that end when they are told to.

Hypercorn speaks HTTP. What it sends is shielded from cancellation, so that a peer which does not read would hold up
whoever waits for its `serve`, for ever. Hence the streams are held here, and closing them ends such a wait.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

from ..logs import get_logger

__all__ = ["Server"]

log = get_logger("trio_hub.dashboard")

MAX_CONNECTIONS = 100
"""Connections at a time; more are closed as they come, since each is a descriptor that engines may need."""
STALL_LIMIT = 30.0
"""Seconds after which a peer that takes nothing of what is sent to it is dropped."""
CLOSE_GRACE = 1.0
"""Seconds that answers have to leave when the hub has stopped."""


class Server:
    """Serves an application to whoever connects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app: Any = ASGIWrapper(app)  # type: ignore[arg-type]  # two sets of names for the same messages
        self._config = Config()
        self._config.accesslog = None
        self._config.errorlog = get_logger("trio_hub.dashboard.http").logger
        self._config.include_server_header = False
        self._context = WorkerContext(None)
        self._streams: set[trio.SocketStream] = set()
        self._changed = trio.Event()

    async def serve(self, listeners: list[trio.SocketListener], until: Callable[[], Awaitable[None]]) -> None:
        """Serve until that returns, and then close what is open within `CLOSE_GRACE`; if cancelled, at once."""
        async with trio.open_nursery() as connections:
            try:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(self._accept, listeners, connections)
                    await until()
                    accepting.cancel_scope.cancel()
                await self._context.terminated.set()  # ends connections on which nothing is asked
                with trio.move_on_after(CLOSE_GRACE):
                    while self._streams:
                        await self._changed.wait()
            finally:
                connections.cancel_scope.cancel()
                for stream in self._streams:
                    stream.socket.close()

    async def _accept(self, listeners: list[trio.SocketListener], connections: trio.Nursery) -> None:
        await trio.serve_listeners(self._connected, listeners, handler_nursery=connections)

    async def _connected(self, stream: trio.SocketStream) -> None:
        if len(self._streams) >= MAX_CONNECTIONS:
            await stream.aclose()
            return
        self._streams.add(stream)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * STALL_LIMIT))
            # Typed for TLS only; it finds out by itself that this is none.
            await TCPServer(self._app, self._config, self._context, ConnectionState({}), stream)  # type: ignore[arg-type]
        except Exception:  # whatever a peer has done to its connection, the others and the hub go on
            log.exception("a connection to the dashboard failed")
        finally:
            self._streams.discard(stream)
            stream.socket.close()
            self._changed.set()
            self._changed = trio.Event()
