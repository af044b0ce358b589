"""Processes that outlive the agent that has started them, found again by facts that do not change."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["Processes", "end", "find_leader", "going", "process_key"]

Processes = Mapping[str, str | None]
"""Processes by their ids, which are texts since JSON has no other keys, each with its `process_key`."""

POLL = 0.05
"""Seconds between two looks at processes that were told to end."""


def process_key(pid: int) -> str | None:
    """Return a text that, together with its id, names one process: its start time; None if there is none, or it ended.

    A process id is used again after a while.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # the name, in parentheses, may have any characters
    return None if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")


def find_leader(word: str) -> int | None:
    """Return the leader of a session in whose command line a text occurs; None if there is none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(path.parent.name)
        with suppress(OSError):
            # the whole word, also within the script of a shell
            words = path.read_bytes().decode("utf-8", "replace").replace("\0", " ").split()
            if word in words and os.getsid(pid) == pid and process_key(pid) is not None:
                return pid
    return None


def going(processes: Processes) -> list[int]:
    """Return the ids of those processes that have not ended."""
    return [int(pid) for pid, key in processes.items() if key is not None and process_key(int(pid)) == key]


def end(processes: Processes, grace: float) -> None:
    """End processes, each the leader of a group, and wait until they have ended. This blocks.

    Nobody may reap the children of an agent that has ended, so a process that is a zombie has ended.

    Args:
        processes: the processes.
        grace: the seconds between SIGTERM and SIGKILL.
    """
    leaders = going(processes)
    for pid in leaders:
        _kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while going(processes) and time.monotonic() < deadline:
        time.sleep(POLL)
    for pid in leaders:
        _kill(-pid, signal.SIGKILL)  # the whole group: mpiexec may have left processes
    while going(processes):
        time.sleep(POLL)


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
