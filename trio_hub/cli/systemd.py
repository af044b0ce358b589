"""Reports to systemd about a hub that runs as its service: when it is ready, its status, signs of life, and its stop.

The protocol is sd_notify(3): each report is a datagram to the Unix socket that ``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from functools import partial

import trio

from ..logs import get_logger
from ..runtime.running import RunningHub
from ..runtime.statistics import Statistics
from ..services import keep_running
from .encryption import in_words

__all__ = ["STATUS_EVERY", "ServiceManager", "status_of"]

log = get_logger("trio_hub.cli")

STATUS_EVERY = 10.0
"""Seconds between two checks whether the status has changed."""


class ServiceManager:
    """The connection to systemd. Without systemd, all methods do nothing.

    systemd's variables are removed from ``environ``. So engines and other child processes cannot report for the hub.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        self._period = _watchdog_period(environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", ""))
        self._failed = False

    def tell(self, *assignments: str) -> None:
        """Send assignments such as ``READY=1``. Never waits, and never raises: the first error is logged."""
        if not self._address:
            return
        message = "\n".join(" ".join(assignment.split()) for assignment in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(message.encode("utf-8", "backslashreplace"), self._address)
        except (OSError, ValueError) as error:  # ValueError: the address has a NUL
            if not self._failed:
                self._failed = True
                log.warning("cannot report to systemd", path=self._address, error=error)

    async def keep_informed(self, hub: RunningHub) -> None:
        """Report that a hub is ready. Then, until cancelled, report its status, and that the event loop runs."""
        if not self._address:
            return
        status = status_of(hub.statistics())
        self.tell("READY=1", f"STATUS={status}")
        failures = hub.service_failures
        async with trio.open_nursery() as nursery:
            if (period := self._period) is not None:  # a service of its own: an error in the status must not stop it
                beat = partial(self._beat, period)
                nursery.start_soon(partial(keep_running, "systemd watchdog", beat, failures, longest_pause=period))
            nursery.start_soon(keep_running, "systemd status", partial(self._tell_status, hub, status), failures)

    async def _tell_status(self, hub: RunningHub, status: str) -> None:
        while True:
            await trio.sleep(STATUS_EVERY)
            before, status = status, status_of(hub.statistics())
            if status != before and not hub.is_stopping:
                self.tell(f"STATUS={status}")

    async def _beat(self, period: float) -> None:
        """Report signs of life, from the event loop, so that systemd notices an event loop that is stuck."""
        while True:
            self.tell("WATCHDOG=1")
            await trio.sleep(period)


def status_of(statistics: Statistics) -> str:
    """Return the line that ``systemctl status`` shows."""
    unsent = statistics.tasks_queued + statistics.tasks_waiting + statistics.tasks_paused
    status = f"{statistics.engines} engines, {statistics.tasks_running} tasks running"
    status += f", {unsent} queued, waiting or paused; connections are {in_words(statistics.connections)}"
    if statistics.database.last_error is not None:
        status += f"; the task database cannot be written: {statistics.database.last_error}"
    return status


def _address(given: str) -> str:
    """Return the address for a socket: a path, or an abstract name, which systemd writes with an at sign in front."""
    if given.startswith("@"):
        return "\0" + given[1:]
    if given and not given.startswith("/"):
        log.warning("NOTIFY_SOCKET is neither a path nor an abstract name: no reports to systemd", path=given)
        return ""
    return given


def _watchdog_period(microseconds: str, pid: str) -> float | None:
    """Return the seconds between two signs of life, half of systemd's limit; None if systemd expects none."""
    if not microseconds or (pid and pid != str(os.getpid())):
        return None
    if not (microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0):
        log.warning("WATCHDOG_USEC is not a number of microseconds: the hub sends no signs of life", value=microseconds)
        return None
    return int(microseconds) / 2e6
