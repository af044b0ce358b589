"""Serves the forwarder on a Unix socket, until a signal comes or the Jupyter server is gone."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import trio

from .forwarding import Forwarder

__all__ = ["serve"]


async def serve(path: str) -> None:
    """Serve on a Unix socket that only this user can connect to. Remove the socket at the end."""
    parent = os.getppid()
    with suppress(FileNotFoundError):
        os.unlink(path)  # jupyter-server-proxy restarts a process that has ended, with the same path
    listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    mask = os.umask(0o077)
    try:
        await listening.bind(path)
    finally:
        os.umask(mask)
    listening.listen()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, nursery.cancel_scope)
            nursery.start_soon(_until_orphaned, parent, nursery.cancel_scope)
            await trio.serve_listeners(Forwarder().serve, [trio.SocketListener(listening)])
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


async def _until_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        await anext(received)
        scope.cancel()


async def _until_orphaned(parent: int, scope: trio.CancelScope) -> None:
    """Cancel the scope when the parent has ended, however it ended: nobody else would end this process then."""
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        scope.cancel()
        return
    try:
        if os.getppid() == parent:  # otherwise the id names another process by now
            await trio.lowlevel.wait_readable(descriptor)
        scope.cancel()
    finally:
        os.close(descriptor)
