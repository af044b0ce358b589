"""The resources that the hub's process uses: memory, CPU, open files. Read from Linux's /proc."""

from __future__ import annotations

import os
import resource
from collections import deque
from contextlib import suppress
from typing import Any

__all__ = ["Process"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
FILES_EVERY, FILES_UNSEEN = 5, 12
"""Open files are counted for every fifth overview, since counting ten thousands takes milliseconds. If nobody asks for
overviews, they are counted at every twelfth look, that is, once in a minute."""
CPU_WINDOW = 10
"""The number of looks over which the use of the CPU is averaged. The use within one second flickers."""


class Process:
    """The resources of this process. `look` must be called once a second, or more rarely if nobody sees the numbers."""

    def __init__(self) -> None:
        self.rss = 0
        """The resident memory in bytes."""
        self.cpu = 0.0
        """The cores in use, over the last `CPU_WINDOW` calls of `look`."""
        self._used: deque[tuple[float, float]] = deque(maxlen=CPU_WINDOW + 1)
        """Pairs of a time and the seconds of CPU that were used until then."""
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
        self._used.append((now, used))
        began, before = self._used[0]
        if now > began:
            self.cpu = (used - before) / (now - began)
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
