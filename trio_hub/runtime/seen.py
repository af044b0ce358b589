"""The file `security/seen`: marks of the messages that a hub has seen, for the next hub with the same key.

Without the marks, a stranger who has a copy of a signed message could send it to the next hub as a new message. The
file is mapped into memory, and the system keeps it when the process is killed. So a mark costs one memory write. A
power cut may lose marks.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path

from ..config import HubConfig
from ..databases.filesystems import lacking, lock_file
from ..errors import ConnectionFileError
from ..logs import get_logger
from ..wire.messages import Session
from ..wire.signing import REPLAY_WINDOW
from .processes import boot_id

__all__ = ["SeenMessages", "open_seen"]

log = get_logger("trio_hub.runtime")

_MAGIC = b"trio_hub seen 1\n"
_FORGOTTEN = 48
"""Offset in bytes of the date, which is in microseconds since 1970."""
_BOOT = 56
"""Offset in bytes of the digest of the system's boot."""
_START = 64
_RING = 8 * (REPLAY_WINDOW + 1)  # bytes; one place is always empty
_SIZE = _START + 2 * _RING
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)


class SeenMessages:
    """The open file. It is created if it is missing, and emptied if it belongs to another key or is damaged.

    The file has a head and two rings of marks, see `trio_hub.wire.signing.ReplayWindow.keep_in`. The head has a digest
    of the key, a date, and a digest of the system's boot. All requests with a later date than that have their marks in
    the file, unless the system has crashed since; the digest of the boot shows that.

    ``forgotten`` is the date that the previous hub has left; None if no mark is missing.

    Args:
        path: the file's path.
        session: the session whose marks are read from the file, and written to it from now on.
        now: the time of the start.
        is_new_key: whether no hub has used the key before.

    Raises:
        ConnectionFileError: the file cannot be used.
        BlockingIOError: another process uses the file.
    """

    def __init__(self, path: Path, session: Session, now: datetime, *, is_new_key: bool) -> None:
        self.path = path
        self._session = session
        head = _MAGIC + blake2b(session.signer.key, digest_size=32, person=b"trio_hub seen").digest()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                is_intact = self._prepare(head)
                self._map = mmap.mmap(self._fd, _SIZE)
            except BaseException:
                os.close(self._fd)
                raise
        except BlockingIOError:
            raise
        except OSError as error:
            raise ConnectionFileError(
                f"cannot use {path}, which has marks of seen messages: {lacking(error) or error.strerror}"
            ) from error
        boot = _boot()
        if not is_intact:
            forgotten = 0 if is_new_key else _microseconds(now)
        elif self._map[_BOOT:_START] != boot:
            forgotten = _microseconds(now)
        else:
            forgotten = int.from_bytes(self._map[_FORGOTTEN:_BOOT], "little")
        self._map[:_START] = head + forgotten.to_bytes(8, "little") + boot
        # A damaged file may have any date. No hub notes a request that is dated more than a minute ahead.
        self.forgotten = _EPOCH + min(forgotten, _microseconds(now + _MINUTE)) * _MICROSECOND if forgotten else None
        self._view = memoryview(self._map)
        self._rings = [self._view[start : start + _RING].cast("Q") for start in (_START, _START + _RING)]
        for window, ring in zip((session.replays, session.lasting), self._rings, strict=True):
            window.keep_in(ring)

    def _prepare(self, head: bytes) -> bool:
        """Lock the file, if its file system has locks, and give it its size.

        Return whether the file already belonged to this key.
        """
        try:
            lock_file(self._fd)
        except OSError as error:
            if error.errno != errno.ENOLCK:
                raise
        os.fchmod(self._fd, 0o600)
        is_intact = os.pread(self._fd, len(head), 0) == head and os.fstat(self._fd).st_size == _SIZE
        if not is_intact:
            os.ftruncate(self._fd, 0)
            os.ftruncate(self._fd, _SIZE)
        # Reserve the space: writing to a mapped page without space on the disk ends the process by a signal.
        os.posix_fallocate(self._fd, 0, _SIZE)
        return is_intact

    def follow(self, latest: Callable[[], datetime]) -> None:
        """Update the date in the head when the ring forgets marks.

        ``latest`` returns a time after which no request is dated.
        """

        def lap() -> None:
            self._map[_FORGOTTEN:_BOOT] = _microseconds(latest()).to_bytes(8, "little")

        self._session.replays.on_lap = lap

    def close(self, *, keep: bool = True) -> None:
        """Close the file, and remove it unless ``keep``. Idempotent."""
        if self._map.closed:
            return
        if not keep:
            with suppress(OSError):
                self.path.unlink()
        for window in (self._session.replays, self._session.lasting):
            window.leave_ring()
        for view in (*self._rings, self._view):
            view.release()
        self._map.close()
        os.close(self._fd)


def open_seen(config: HubConfig, session: Session, now: datetime) -> SeenMessages | None:
    """Open the hub's file. None without a profile or key, or if another hub uses it. Raises `ConnectionFileError`."""
    if config.profile_dir is None or not session.signer.key:
        return None
    name = f"seen-{config.cluster_id}" if config.cluster_id else "seen"
    path = config.profile_dir / "security" / name
    try:
        return SeenMessages(path, session, now, is_new_key=config.key is None)
    except BlockingIOError:
        log.warning("another hub uses the file: the next hub will not know the messages of this hub", path=path)
        return None


def _microseconds(date: datetime) -> int:
    return (date - _EPOCH) // _MICROSECOND


def _boot() -> bytes:
    """Return 8 bytes that differ between boots of the system; zeros if the system does not tell."""
    boot = boot_id()
    # with the end of the line, as earlier versions have written it
    return blake2b(f"{boot}\n".encode(), digest_size=8).digest() if boot else bytes(8)
