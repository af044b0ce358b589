"""An HTTP server whose connections can be ended at any time. Each connection has a task of its own.

Hypercorn implements HTTP. It shields sending from cancellation, so a peer that does not read would keep its `serve`
from ever ending. Therefore this module keeps the streams, and closes them to end such sends.
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
"""The maximum number of connections. Further connections are closed, since engines may need the descriptors."""
STALL_LIMIT = 30.0
"""Seconds after which a peer that reads nothing is disconnected."""
CLOSE_GRACE = 1.0
"""Seconds within which answers must be sent after the hub has stopped."""


class Server:
    """Serves an application over HTTP."""

    def __init__(self, app: ASGIApp) -> None:
        self._app: Any = ASGIWrapper(app)  # type: ignore[arg-type]  # Starlette and Hypercorn have different types for the same messages
        self._config = Config()
        self._config.accesslog = None
        self._config.errorlog = get_logger("trio_hub.dashboard.http").logger
        self._config.include_server_header = False
        self._context = WorkerContext(None)
        self._streams: set[trio.SocketStream] = set()
        self._changed = trio.Event()

    async def serve(self, listeners: list[trio.SocketListener], until: Callable[[], Awaitable[None]]) -> None:
        """Serve until `until` returns, then close the connections within `CLOSE_GRACE`; at once if cancelled."""
        async with trio.open_nursery() as connections:
            try:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(self._accept, listeners, connections)
                    await until()
                    accepting.cancel_scope.cancel()
                await self._context.terminated.set()  # ends idle connections
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
            # The type allows TLS streams only, but Hypercorn also accepts plain streams.
            await TCPServer(self._app, self._config, self._context, ConnectionState({}), stream)  # type: ignore[arg-type]
        except Exception:  # an error on one connection must not affect the others and the hub
            log.exception("a connection to the dashboard failed")
        finally:
            self._streams.discard(stream)
            stream.socket.close()
            self._changed.set()
            self._changed = trio.Event()
