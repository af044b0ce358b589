"""Allows one hub at a time for each profile and cluster id, by a lock and by a check of the connection files.

Two hubs of the same name would overwrite and remove each other's connection files. So a hub locks a file before it
writes anything else. The lock ends with the process, however the process ends. Another kind of controller, such as
ipcontroller, does not use this lock. The hub notices it by the ports in its connection files.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from ..config import HubConfig
from ..config.connectionfiles import CLIENT_CHANNELS, connection_paths, read_connection_files
from ..databases.filesystems import lacking, lock_file
from ..errors import ConfigError, ConnectionFileError
from ..logs import get_logger

__all__ = ["ProfileLock", "lock_profile"]

log = get_logger("trio_hub.runtime")

CONNECT_LIMIT = 0.5
"""Seconds within which a controller on another machine must accept connections to be noticed."""
_LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""
_REMEDY = (
    "Stop it first, or give this hub a cluster id of its own (--cluster-id). With --force (TRIO_HUB_FORCE=1) this hub "
    "starts nevertheless, and new clients and engines find this hub only."
)


class ProfileLock:
    """The lock of one profile and cluster id. The constructor tries to take it; `release` releases it.

    - ``is_held``: whether this hub has the lock. False if another hub has it, or the file system has no locks;
    - ``owner``: which other hub has the lock, in words; empty if no other hub has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_held = False
        self.owner = ""
        self._descriptor: int | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            while not self._try():
                pass
        except OSError as error:
            self.release()
            # If the directory is not writable, writing the other files of the profile reports an error later.
            log.warning(
                "the profile cannot be locked: a second hub of the same name would not be noticed",
                path=path,
                error=lacking(error) or error.strerror or error,
            )

    def _try(self) -> bool:
        """Lock the file; False if its last owner has removed it meanwhile. Raises `OSError`."""
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock_file(self._descriptor)
        except BlockingIOError:
            self.owner = _described(os.pread(self._descriptor, 4096, 0))
            self.release()
            return True
        if not self._is_current():
            self.release()
            return False
        self.is_held = True
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(about).encode(), 0)
        return True

    def _is_current(self) -> bool:
        """Return whether the locked file is still the one that others will find."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let another hub have the lock. Idempotent."""
        if self._descriptor is None:
            return
        if self.is_held:
            with suppress(OSError):
                self.path.unlink()  # while it is locked, so that a process that has opened it finds that it is gone
        os.close(self._descriptor)
        self._descriptor = None
        self.is_held = False


async def lock_profile(config: HubConfig) -> ProfileLock | None:
    """Lock the profile of a hub, before anything is written there. None without a profile.

    Raises:
        ConfigError: another hub is running there, and ``force`` is off; the text names that hub.
    """
    if config.profile_dir is None:
        return None
    name = f"trio-hub-{config.cluster_id}.lock" if config.cluster_id else "trio-hub.lock"
    lock = ProfileLock(config.profile_dir / "pid" / name)
    try:
        other = lock.owner or await _other_controller(config)
        if other:
            where = f"profile {config.profile_dir}" + (f", cluster id {config.cluster_id!r}" * bool(config.cluster_id))
            if not config.force:
                raise ConfigError(f"a hub is running in this {where}: {other}. {_REMEDY}")
            log.warning("another hub is running in this profile, and loses its connection files", owner=other)
    except BaseException:
        lock.release()
        raise
    return lock


def _described(content: bytes) -> str:
    """Return which hub has a lock, in words, from the content of the lock file."""
    try:
        about = json.loads(content)
        since = datetime.fromisoformat(about["since"]).astimezone().isoformat(" ", "seconds")
        where = "" if about["host"] == socket.gethostname() else f" on {about['host']}"
        return f"trio-hub with pid {int(about['pid'])}{where}, since {since}"
    except (ValueError, TypeError, KeyError):  # the hub has not written the file yet
        return "a trio-hub that is starting"


async def _other_controller(config: HubConfig) -> str:
    """Return which controller listens on the ports in the connection files, in words; empty if there is none."""
    assert config.profile_dir is not None
    client_file, engine_file = connection_paths(config.profile_dir, config.cluster_id)
    try:
        infos = read_connection_files(client_file, engine_file)
    except ConnectionFileError:  # no running hub has written them; if the hub needs them, it reports the error later
        return ""
    if infos is None:
        return ""
    client = infos[0]
    ports = sorted({client[name] for name in CLIENT_CHANNELS})
    here = client["location"] in ("", socket.gethostname(), "localhost", "127.0.0.1")
    if not (_all_listening(ports) if here else await _all_accept(_host_of(client), ports)):
        return ""
    pid = _owner_of(client["registration"]) if here else None
    who = f"pid {pid}, {_command_of(pid)}" if pid is not None else f"at {client['location']}:{client['registration']}"
    since = datetime.fromtimestamp(client_file.stat().st_mtime).astimezone().isoformat(" ", "seconds")
    return f"the controller that wrote {client_file} ({who}; since {since})"


def _host_of(info: dict[str, Any]) -> str:
    """Return the name by which clients on this machine reach a controller on another machine."""
    address = str(info["interface"]).removeprefix("tcp://").strip("[]")
    return str(info["location"]) if address in ("*", "0.0.0.0", "::") else address


async def _all_accept(host: str, ports: list[int]) -> bool:
    """Return whether a host accepts connections on all these ports."""
    accepted = 0

    async def knock(port: int) -> None:
        nonlocal accepted
        with suppress(OSError):
            stream = await trio.open_tcp_stream(host, port)
            accepted += 1
            await stream.aclose()

    with trio.move_on_after(CONNECT_LIMIT):
        async with trio.open_nursery() as nursery:
            for port in ports:
                nursery.start_soon(knock, port)
    return accepted == len(ports)


def _listeners() -> dict[int, str]:
    """Return the inodes of the listening TCP sockets of this machine, by port."""
    found = {}
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", name).read_text("ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN:
                    found[int(words[1].rpartition(":")[2], 16)] = words[9]
    return found


def _all_listening(ports: list[int]) -> bool:
    """Return whether this machine listens on all these ports. A single port may belong to another program by now."""
    return set(ports) <= _listeners().keys()


def _owner_of(port: int) -> int | None:
    """Return the id of the process that listens on a port; None if it is not a process of this user."""
    link = f"socket:[{_listeners().get(port)}]"
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(directory / "fd" / entry) == link for entry in os.listdir(directory / "fd")):
                return int(directory.name)
    return None


def _command_of(pid: int) -> str:
    """Return the program of a process, as ``ps`` shows it, cut short."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "ended"
    return " ".join(word for word in words[:3] if word)[:120]
