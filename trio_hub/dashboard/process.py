"""What the hub's process takes of the machine: memory, CPU, open files. Of Linux's /proc."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import Any

__all__ = ["Process"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
FILES_EVERY = 5
"""Counting open files takes milliseconds where there are ten thousands: so many looks have one count between them."""


class Process:
    """This process; `look` once a second."""

    def __init__(self) -> None:
        self.rss = 0
        """Bytes of memory that are resident."""
        self.cpu = 0.0
        """Cores in use, between the last two looks."""
        self._used = 0.0
        self._at: float | None = None
        self._files = 0
        self._looks = 0
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def look(self, now: float) -> None:
        """See how it is at this time (seconds)."""
        with suppress(OSError), open("/proc/self/statm", "rb") as statm:
            self.rss = int(statm.read().split()[1]) * _PAGE
        times = os.times()
        used = times.user + times.system
        if self._at is not None and now > self._at:
            self.cpu = (used - self._used) / (now - self._at)
        self._used, self._at = used, now

    def as_dict(self) -> dict[str, Any]:
        """For an overview."""
        if self._looks % FILES_EVERY == 0:
            with suppress(OSError):
                self._files = len(os.listdir("/proc/self/fd"))
        self._looks += 1
        return {"rss": self.rss, "cpu": self.cpu, "fds": self._files, "fds_limit": self._limit}
