"""The cost of a process and its descendants, from Linux."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "cost_of_tree"]

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """The cost of a tree of processes: CPU seconds so far, and MB of memory now (PSS, which divides shared memory)."""

    cpu: float
    memory: float
    processes: int


def cost_of_tree(root: int) -> Cost:
    pids = tree(root)
    return Cost(sum(map(cpu_seconds, pids)), sum(map(memory_mb, pids)), len(pids))


def tree(pid: int) -> list[int]:
    """Return the ids of a process and its descendants."""
    pids = [pid]
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                pids += tree(int(child))
    return pids


def cpu_seconds(pid: int) -> float:
    """Return the CPU time (user and system) of all threads, in seconds."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    return 0.0


def memory_mb(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
