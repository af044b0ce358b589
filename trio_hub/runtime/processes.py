"""Facts about processes, from the system: whether a process is still the same, and how a process has ended."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["OutOfMemory", "ancestors", "boot_id", "how_it_ended", "is_descendant", "is_own_address", "start_time"]

_CGROUPS = Path("/sys/fs/cgroup")


def boot_id() -> str:
    """Return a text that differs between boots of the system; empty if the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None if there is no such process any more.

    A process id is used again after a while. The id and the start time together name one process.
    """
    fields = _stat(pid)
    return None if fields is None or fields[0] in (b"Z", b"X") else int(fields[19])


def ancestors(pid: int) -> list[int]:
    """Return the parent of a process, the parent's parent and so on, without the system's first process."""
    found: list[int] = []
    fields = _stat(pid)
    while fields is not None and (parent := int(fields[1])) > 1 and parent not in found:
        found.append(parent)
        fields = _stat(parent)
    return found


def is_descendant(pid: int, *, of: int) -> bool:
    """Return whether a process was started by another process, or by a descendant of that process that still runs."""
    return of in ancestors(pid)


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat, from the state on; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return stat.rpartition(b")")[2].split()  # the name, in parentheses, may have any characters


def how_it_ended(status: int) -> str:
    """Return how a process ended in words, from its return code as `subprocess` gives it."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:  # a real-time signal
        name = ""
    return f"killed by signal {-status}{name}"


def is_own_address(host: str | None) -> bool:
    """Return whether an IP address belongs to this machine."""
    if host is None:
        return False
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


class OutOfMemory:
    """Tells whether the system has killed a process for want of memory since the last look.

    The system does not say which process it killed. It counts such kills for this process's control group and for the
    whole machine.
    """

    def __init__(self) -> None:
        self._group, self._machine = _kills_in_group(), _kills_on_machine()

    def look(self) -> str:
        """Return the text to add to the cause of a death by SIGKILL; empty if memory was probably not the cause."""
        group, self._group = self._group, _kills_in_group()
        machine, self._machine = self._machine, _kills_on_machine()
        if self._group > group:
            return ", out of memory"
        return ", probably out of memory" if self._machine > machine else ""


def _kills_in_group() -> int:
    """Return how often the system has killed a process of this control group for want of memory; 0 if not known."""
    kills = 0
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                kills += _count_in(_CGROUPS / path.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                kills += _count_in(_CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control")
    return kills


def _kills_on_machine() -> int:
    return _count_in(Path("/proc/vmstat"))


def _count_in(path: Path) -> int:
    """Return the number behind ``oom_kill`` in a file of names and numbers."""
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
