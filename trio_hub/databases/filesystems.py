"""Locks files, checks the file systems of the profile and the database, and warns if they are on the network.

A task database needs file locks and memory that processes share, and the notes of what a hub has seen and sent are
memory that the system writes to a file. Network file systems often lack both, or have them in a form that loses data.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..config import HubConfig
from ..logs import get_logger

__all__ = [
    "LOCAL_DATABASE",
    "file_system_of",
    "is_on_the_network",
    "lacking",
    "lacks",
    "lock_file",
    "warn_of_network_file_systems",
]

log = get_logger("trio_hub.runtime")

LOCAL = "/var/tmp/trio-hub"
"""A directory that is on a local disk nearly everywhere, for advice."""
LOCAL_DATABASE = f"--db sqlite:///{LOCAL}/tasks.sqlite"
LOCAL_PROFILE = f"use a profile on a local disk: --profile-dir {LOCAL}/profile"
MOUNTS = Path("/proc/self/mountinfo")
NETWORK = {
    "9p",
    "acfs",
    "afs",
    "beegfs",
    "beegfs_nodev",
    "ceph",
    "cifs",
    "coda",
    "gfs",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "panfs",
    "pvfs2",
    "smb3",
    "smbfs",
    "wekafs",
}
"""Types of file systems that several machines share."""


def is_on_the_network(kind: str) -> bool:
    """Return whether a file system of this type is, or may be, on the network. Anything may be behind FUSE."""
    return kind in NETWORK or kind == "fuse" or kind.startswith("fuse.")


def lock_file(descriptor: int) -> None:
    """Lock an open file, until it is closed.

    Raises:
        BlockingIOError: Another process, or another part of this process, has the lock.
        OSError: The file cannot be locked. The error number is ENOLCK if its file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from error
        raise


def lacking(error: OSError) -> str:
    """Return what a file system lacks, and the remedy; empty if a file cannot be used for another reason."""
    if error.errno == errno.ENOLCK:
        what = "has no file locks"
    elif error.errno in (errno.ENODEV, errno.EOPNOTSUPP, errno.ENOSYS):
        what = "cannot share memory between processes"
    else:
        return ""
    return lacks(what, LOCAL_PROFILE)


def lacks(what: str, remedy: str) -> str:
    """Return that a file system lacks something, and the remedy, for a message."""
    return f"its file system {what}, as is often the case in home directories on the network; {remedy}"


def file_system_of(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system that has a path, which need not exist; empty if it is not known.

    Args:
        path: an absolute path.
        mounts: what the system says of its mounts, see proc(5).
    """
    try:
        if mounts is None:
            mounts = MOUNTS.read_text("utf-8", "surrogateescape")
        path = path.resolve()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in mounts.splitlines():
        before, found, after = line.partition(" - ")
        fields = before.split(" ")
        if not found or len(fields) < 5:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        if len(point.parts) >= best and path.is_relative_to(point):  # the last mount at a place counts
            best, kind = len(point.parts), after.split(" ", 1)[0]
    return kind


def warn_of_network_file_systems(config: HubConfig) -> None:
    """Log a warning for each place of the hub's own files that is on the network, with what to do."""
    for path, remedy in _places(config):
        kind = file_system_of(path)
        if is_on_the_network(kind):
            log.warning(
                "files of the hub are on a network file system, which may lack locks and shared memory, or lose data",
                path=path,
                type=kind,
                remedy=remedy,
            )


def _places(config: HubConfig) -> Iterable[tuple[Path, str]]:
    database = config.database
    if database.path is not None:
        yield database.path, f"keep the task database on a local disk: {LOCAL_DATABASE}"
    if config.profile_dir is not None and (
        database.path is None or not _same_device(database.path, config.profile_dir)
    ):
        yield config.profile_dir, LOCAL_PROFILE


def _same_device(one: Path, other: Path) -> bool:
    """Return whether two paths, which need not exist yet, are on the same file system."""
    return _device(one) == _device(other)


def _device(path: Path) -> int | None:
    for place in (path, *path.parents):
        try:
            return os.stat(place).st_dev
        except OSError:
            continue
    return None
