"""The resources that the hub's process uses: memory, CPU, open files. Read from Linux's /proc."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import Any

__all__ = ["Process"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
FILES_EVERY, FILES_UNSEEN = 5, 60
"""Open files are counted at every fifth overview only, since counting ten thousands takes milliseconds; and at every
60th look, if nobody asks for overviews."""


class Process:
    """The resources of this process. `look` must be called once a second."""

    def __init__(self) -> None:
        self.rss = 0
        """The resident memory in bytes."""
        self.cpu = 0.0
        """The cores in use between the last two calls of `look`."""
        self._used = 0.0
        self._at: float | None = None
        self.files = 0
        """The number of open files."""
        self._told = 0
        self._looks = 0
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def look(self, now: float) -> None:
        """Read memory and CPU use. `now` is the time in seconds."""
        with suppress(OSError), open("/proc/self/statm", "rb") as statm:
            self.rss = int(statm.read().split()[1]) * _PAGE
        times = os.times()
        used = times.user + times.system
        if self._at is not None and now > self._at:
            self.cpu = (used - self._used) / (now - self._at)
        self._used, self._at = used, now
        if self._looks % FILES_UNSEEN == 0:
            self._count_files()
        self._looks += 1

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers for an overview."""
        if self._told % FILES_EVERY == 0:
            self._count_files()
        self._told += 1
        return {"rss": self.rss, "cpu": self.cpu, "fds": self.files, "fds_limit": self.limit}

    def _count_files(self) -> None:
        with suppress(OSError):
            self.files = len(os.listdir("/proc/self/fd"))
