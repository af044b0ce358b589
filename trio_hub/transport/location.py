"""Whether a location, as a connection file names it, is this machine."""

from __future__ import annotations

import socket

import trio

__all__ = ["is_here"]


async def is_here(location: str) -> bool:
    """Return whether a location is this machine: empty, its own name, or an address at which it can listen."""
    if not location or location == socket.gethostname():
        return True
    try:
        found = await trio.socket.getaddrinfo(location, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, proto, _, place in found:
        with socket.socket(family, kind, proto) as probe:
            try:
                probe.bind(place)
            except OSError:
                continue
            return True
    return False
