"""Keeps the hub from running out of file descriptors: it accepts no further connections until there is room.

Each connection takes a descriptor of the process, whose number is limited (``ulimit -n``). When no descriptor is free,
ZeroMQ's thread tries to accept the next connection again and again, and takes a whole core for it. ZeroMQ cannot stop
listening without closing the open connections. So the hub has the system ignore the first packet of each new
connection: peers go on trying, and are connected as soon as there is room.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import resource
import socket
import struct
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import trio

from ..logs import get_logger

__all__ = ["DescriptorGuard"]

log = get_logger("trio_hub.runtime")

LOOK_PERIOD = 0.5
"""Seconds from one check of the descriptors to the next."""
RESERVE = 24
"""The number of descriptors for the hub's own files. If fewer are free, no further connections are accepted."""
ROOM = 8
"""Connections are accepted again when this many descriptors beyond the reserve are free: enough for one engine."""
SPARE = 4
"""The number of descriptors that the guard holds, so that it can free some when no descriptor is free."""
TURNING_AWAY = 1.0
"""The longest time, in seconds, that the event loop waits for waiting connections to be closed. It takes some ms."""
DRAINED = 4096
"""The maximum number of connections of one socket that are closed at a time: more than can wait there."""

# See socket(7) and linux/filter.h; Python does not name them. The program has one instruction: "return 0 bytes".
_CLONE_FILES = 0x400  # see unshare(2)
_libc = ctypes.CDLL(None, use_errno=True)
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_IGNORE_ALL = array.array("B", struct.pack("=HBBI", 0x06, 0, 0, 0))


class DescriptorGuard:
    """Watches the descriptors of this process for one hub.

    - ``is_paused``: whether the hub accepts no further connections.

    Args:
        ports: the TCP ports on which the hub listens.
    """

    def __init__(self, ports: Collection[int]) -> None:
        self.is_paused = False
        self._ports = frozenset(ports)
        self._spare: list[int] = []
        self._reserve = RESERVE

    async def run(self) -> None:
        """Check the descriptors regularly until cancelled."""
        self._take_spare()
        # A limit that is very low leaves no room for the whole reserve.
        self._reserve = min(RESERVE, max(SPARE, self._free() // 4))
        try:
            while True:
                self.look()
                await trio.sleep(LOOK_PERIOD)
        finally:
            self._let_spare_go()

    def look(self) -> None:
        """Stop accepting connections if descriptors run out, or accept them again if there is room."""
        if not self.is_paused:
            if self._may_be_short() and (free := self._free()) < self._reserve:
                self._pause(free)
            return
        free = self._free()
        if free <= SPARE:
            self._turn_waiting_away()
        elif free >= self._reserve + ROOM:
            self._resume(free)

    def _limit(self) -> int:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def _may_be_short(self) -> bool:
        """Return whether so many descriptors may be in use that they have to be counted. Takes next to no time.

        The system gives the lowest free number. So if a high number is in use, all lower numbers were in use once.
        """
        limit = self._limit()
        if limit == resource.RLIM_INFINITY:
            return False
        lowest = max(0, limit - self._reserve)
        if not self._spare:
            return True
        try:
            descriptor = fcntl.fcntl(self._spare[0], fcntl.F_DUPFD_CLOEXEC, lowest)
        except OSError:
            return True
        os.close(descriptor)
        return descriptor != lowest

    def _free(self) -> int:
        """Return the number of free descriptors."""
        try:
            used = len(os.listdir("/proc/self/fd")) - 1  # without the descriptor of the listing
        except OSError as error:
            return 0 if error.errno in (errno.EMFILE, errno.ENFILE) else self._reserve
        return self._limit() - used

    def _take_spare(self) -> None:
        with suppress(OSError):
            while len(self._spare) < SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _let_spare_go(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    def _pause(self, free: int) -> None:
        for listener in self._listeners():
            with suppress(OSError):  # a system without such filters accepts connections until no descriptor is free
                address, _ = _IGNORE_ALL.buffer_info()
                listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, address))
        self.is_paused = True
        limit = self._limit()
        log.warning(
            "file descriptors run out: new connections wait until other connections end; raise the limit (ulimit -n)",
            kind="descriptors",
            limit=limit,
            used=limit - free,
        )
        if free <= SPARE:
            self._turn_waiting_away()

    def _resume(self, free: int) -> None:
        for listener in self._listeners():
            with suppress(OSError):
                listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        self.is_paused = False
        self._take_spare()
        log.warning("there are file descriptors for new connections again", kind="descriptors again", free=free)

    def _turn_waiting_away(self) -> None:
        """Close the connections that wait to be accepted, since ZeroMQ has no descriptor for them. Peers try again.

        Accepting a connection needs a descriptor, and ZeroMQ's thread would be the first to use one that becomes free.
        So another thread does this, with its own copy of the table of descriptors.
        """
        thread = threading.Thread(target=self._accept_and_close, name="trio_hub: connections turned away", daemon=True)
        thread.start()
        thread.join(TURNING_AWAY)

    def _accept_and_close(self) -> None:
        try:
            _unshare_descriptors()
        except OSError:  # some containers do not allow this: then ZeroMQ may use the descriptors that this thread frees
            self._let_spare_go()
        else:
            for descriptor in self._spare:  # in this thread's table only
                os.close(descriptor)
        for listener in self._listeners():
            listener.setblocking(False)  # for good; ZeroMQ accepts only when a connection waits
            with suppress(OSError):  # none waits any more
                for _ in range(DRAINED):
                    listener.accept()[0].close()

    def _listeners(self) -> Iterator[socket.socket]:
        """Yield the sockets on which the hub listens. They belong to ZeroMQ, which closes them only at the end."""
        for descriptor in _descriptors():
            with _borrowed(descriptor) as borrowed:
                if borrowed is not None and self._is_ours(borrowed):
                    yield borrowed

    def _is_ours(self, borrowed: socket.socket) -> bool:
        try:
            listens = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return bool(listens) and borrowed.getsockname()[1] in self._ports
        except (OSError, IndexError):
            return False


def _unshare_descriptors() -> None:
    """Give this thread a copy of the process's table of descriptors. Raises `OSError`."""
    if _libc.unshare(_CLONE_FILES) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _descriptors() -> list[int]:
    """Return the descriptors in use; if the system cannot list them for want of a descriptor, all possible ones."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return list(range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20)))


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket | None]:
    """Give a socket object for a descriptor that is not ours; None if the descriptor is no TCP socket."""
    borrowed = None
    with suppress(OSError):
        borrowed = socket.socket(fileno=descriptor)
    try:
        yield borrowed if borrowed is not None and borrowed.type == socket.SOCK_STREAM else None
    finally:
        if borrowed is not None:
            borrowed.detach()
