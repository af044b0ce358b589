"""What an engine and its machine use: CPU and memory, read from Linux's /proc, and reported to hubs that ask for it.

A hub with a dashboard asks for reports in its answer to the registration (``usage_period``). Other hubs, such as stock
hubs, do not ask for reports, and get none. A report is a message of the type ``engine_usage`` on the engine's channel
for output.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

__all__ = ["HostUsage", "ProcessUsage", "UsageReporter"]

SHORTEST_PERIOD = 0.1
"""The least number of seconds between two reports, whatever a hub asks for."""
FIRST_AFTER = 1.0
"""Seconds until the first report. Before, the hub may not have heard the engine's heart, and would drop the report."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class ProcessUsage:
    """The CPU and the memory that a process uses, without its child processes.

    Args:
        pid: The process; None for this process.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._directory = Path("/proc") / (str(pid) if pid is not None else "self")
        self._used: float | None = None
        self._at = 0.0

    def look(self, now: float) -> dict[str, Any] | None:
        """Return the usage now; None if there is no such process, or no /proc.

        Args:
            now: The time in seconds, of any clock.

        Returns:
            ``cpu``: the cores in use since the previous look, None at the first look; ``rss``: resident bytes.
        """
        try:
            stat = (self._directory / "stat").read_bytes().rpartition(b")")[2].split()
            rss = int((self._directory / "statm").read_bytes().split()[1]) * _PAGE
        except OSError:
            return None
        used = (int(stat[11]) + int(stat[12])) / _TICKS
        cpu = None
        if self._used is not None and now > self._at:
            cpu = max(0.0, used - self._used) / (now - self._at)
        self._used, self._at = used, now
        return {"cpu": cpu, "rss": rss}


class HostUsage:
    """The CPU and the memory that are in use on this machine, by all its processes."""

    def __init__(self) -> None:
        self._before: tuple[int, int] | None = None

    def look(self) -> dict[str, Any]:
        """Return the usage now; an empty dict if there is no /proc.

        Returns:
            ``host``: the machine's name; ``host_cpu``: the part of all cores in use since the previous look, from 0 to
            1, None at the first look; ``host_cores``: the number of cores; ``host_memory`` and ``host_memory_total``:
            bytes.
        """
        try:
            times = list(map(int, Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]))
            lines = (line.split() for line in Path("/proc/meminfo").read_text("ascii").splitlines())
            memory = {line[0]: int(line[1]) * 1024 for line in lines}
            total, available = memory["MemTotal:"], memory["MemAvailable:"]
        except (OSError, KeyError, ValueError):
            return {}
        idle, all_times = times[3] + times[4], sum(times)
        cpu = None
        if self._before is not None and all_times > self._before[1]:
            cpu = 1 - (idle - self._before[0]) / (all_times - self._before[1])
        self._before = idle, all_times
        return {
            "host": socket.gethostname(),
            "host_cpu": cpu,
            "host_cores": os.cpu_count(),
            "host_memory": total - available,
            "host_memory_total": total,
        }


class UsageReporter:
    """Reports the usage of this engine, as often as its hub asks for it.

    Args:
        send: Sends a message of the type ``engine_usage`` with a content.
    """

    def __init__(self, send: Callable[[dict[str, Any]], object]) -> None:
        self._send = send
        self._period = 0.0
        self._asked = trio.Event()
        self._process = ProcessUsage()
        self._host = HostUsage()

    def asked(self, period: Any) -> None:
        """Note the seconds between reports that a hub asks for. A value that is not a positive number means none."""
        self._period = max(SHORTEST_PERIOD, period) if type(period) in (int, float) and period > 0 else 0.0
        self._asked.set()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            if not self._period:
                self._asked = trio.Event()
                await self._asked.wait()
                self._look()
                await trio.sleep(FIRST_AFTER)
                continue
            usage = self._look()
            if usage is not None:
                self._send(usage)
            await trio.sleep(self._period)

    def _look(self) -> dict[str, Any] | None:
        usage = self._process.look(trio.current_time())
        return None if usage is None else usage | self._host.look()
