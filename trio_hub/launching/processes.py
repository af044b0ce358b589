"""Processes that outlive the agent that has started them, found again by facts that do not change."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["find_leader", "process_key"]


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
