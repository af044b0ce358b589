"""The file in which a hub tells other processes of its user where its dashboard is: the address and the token.

The file is in the ``security`` directory of the profile, beside the connection files, and only its owner can read it. A
proxy of the user, such as that of `trio_hub.jupyter`, finds the dashboard by it.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.connectionfiles import write_private_file
from ..logs import get_logger
from ..runtime.processes import boot_id, start_time

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PublishedDashboard", "find_dashboards", "publish", "published_path"]

log = get_logger("trio_hub.dashboard")

_NAME = "trio-hub-dashboard"


@dataclass(frozen=True)
class PublishedDashboard:
    """The dashboard of a hub, and the process that serves it.

    - ``address``: the URL without a token and without a slash at the end;
    - ``host``: the name of the machine on which the hub runs;
    - ``boot``: differs between boots of that machine;
    - ``pid``, ``started``: the hub's process, and when it started, in clock ticks since the boot.
    """

    address: str
    token: str = field(repr=False)
    host: str
    boot: str
    pid: int
    started: int | None

    @property
    def is_here(self) -> bool:
        """Whether the hub runs on this machine."""
        return self.host == socket.gethostname()

    @property
    def has_ended(self) -> bool:
        """Whether the hub's process is known to have ended. This is False for a hub on another machine.

        Nobody may send the token to the address of a process that has ended: another user may have the port by now.
        """
        if not self.is_here:
            return False
        return self.boot != boot_id() or self.started is None or start_time(self.pid) != self.started


def published_path(profile_dir: Path, cluster_id: str = "") -> Path:
    """Return the path of the file of a hub."""
    return profile_dir / "security" / (f"{_NAME}-{cluster_id}.json" if cluster_id else f"{_NAME}.json")


@contextmanager
def publish(path: Path | None, address: str, token: str) -> Iterator[None]:
    """Keep the file of this process's dashboard during a ``with`` statement. If the path is None, write no file."""
    if path is None:
        yield
        return
    pid = os.getpid()
    mine = PublishedDashboard(address, token, socket.gethostname(), boot_id(), pid, start_time(pid))
    try:
        write_private_file(path, json.dumps(asdict(mine)))
    except OSError as error:
        log.warning(
            "the address of the dashboard cannot be written for proxies", path=path, error=error.strerror or error
        )
    try:
        yield
    finally:
        if _read(path) == mine:  # another hub may have replaced it
            with suppress(OSError):
                path.unlink()


def find_dashboards(profile_dir: Path) -> dict[str, PublishedDashboard]:
    """Return the dashboards of the hubs of a profile by cluster id, the latest first, without those that have ended."""
    found = []
    for path in (profile_dir / "security").glob(f"{_NAME}*.json"):
        cluster_id = path.name.removeprefix(_NAME).removesuffix(".json").removeprefix("-")
        dashboard = _read(path)
        if dashboard is not None and not dashboard.has_ended:
            with suppress(OSError):
                found.append((path.stat().st_mtime, cluster_id, dashboard))
    found.sort(key=lambda one: one[:2], reverse=True)
    return {cluster_id: dashboard for _, cluster_id, dashboard in found}


def _read(path: Path) -> PublishedDashboard | None:
    """Return the content of a file; None if the file is not there, is not private to this user, or is damaged."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                return None  # another user could name an address and show pages of his own under this user's name
            found = PublishedDashboard(**json.load(file))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (found.address, found.token, found.host, found.boot)
    is_right = all(isinstance(one, str) for one in texts) and type(found.pid) is int
    return found if is_right and found.address.startswith("http://") else None
