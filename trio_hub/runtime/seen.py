"""The marks of the messages that a hub has seen, in a file, for the hub that comes after it with the same key.

Without them, a stranger who has got hold of a signed message could send it to the next hub as a new one. The file is
memory that the system keeps when the process is killed, so a mark costs a memory write. A power cut may lose marks.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from ..config import HubConfig
from ..errors import ConfigError
from ..logs import get_logger
from ..wire.messages import Session
from ..wire.signing import REPLAY_WINDOW

__all__ = ["SeenMessages", "open_seen"]

log = get_logger("trio_hub.runtime")

_MAGIC = b"trio_hub seen 1\n"
_START = 64
_RING = 8 * (REPLAY_WINDOW + 1)  # one place is always empty
_SIZE = _START + 2 * _RING


class SeenMessages:
    """The file, which is made if it is missing, and begun anew if it belongs to another key, or is damaged.

    It has two rings of marks, see `trio_hub.wire.signing.ReplayWindow.keep_in`, behind a head that tells the key by its
    digest.

    Args:
        path: of the file.
        session: whose marks the file has, and gets from now on.

    Raises:
        ConfigError: the file cannot be used.
        BlockingIOError: another process uses the file.
    """

    def __init__(self, path: Path, session: Session) -> None:
        self.path = path
        self._session = session
        head = (_MAGIC + _fingerprint(session.signer.key)).ljust(_START, b"\0")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._map = self._open(head)
            except BaseException:
                os.close(self._fd)
                raise
        except BlockingIOError:
            raise
        except OSError as error:
            raise ConfigError(
                f"cannot use {path}, which notes what this hub has been sent: {error.strerror}"
            ) from error
        self._map[:_START] = head
        self._view = memoryview(self._map)
        self._rings = [self._view[start : start + _RING].cast("Q") for start in (_START, _START + _RING)]
        for window, ring in zip((session.replays, session.lasting), self._rings, strict=True):
            window.keep_in(ring)

    def _open(self, head: bytes) -> mmap.mmap:
        _lock(self._fd)
        os.fchmod(self._fd, 0o600)
        if os.pread(self._fd, _START, 0) != head or os.fstat(self._fd).st_size != _SIZE:
            os.ftruncate(self._fd, 0)
            os.ftruncate(self._fd, _SIZE)
        # what has no place on the disk yet, and finds none when it is written to, ends the process by a signal
        os.posix_fallocate(self._fd, 0, _SIZE)
        return mmap.mmap(self._fd, _SIZE)

    def close(self, *, keep: bool = True) -> None:
        """Release the file, and remove it unless it is to be kept. Idempotent."""
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


def open_seen(config: HubConfig, session: Session) -> SeenMessages | None:
    """The file of a hub that another may come after. Raises `ConfigError`."""
    if config.profile_dir is None or not session.signer.key:
        return None
    name = f"seen-{config.cluster_id}" if config.cluster_id else "seen"
    path = config.profile_dir / "db" / name
    try:
        return SeenMessages(path, session)
    except BlockingIOError:
        log.warning("another hub uses the file: this hub's messages are not known to the hub after it", path=path)
        return None


def _fingerprint(key: bytes) -> bytes:
    return blake2b(key, digest_size=32, person=b"trio_hub seen").digest()


def _lock(fd: int) -> None:
    """Raises `BlockingIOError` if another process has the file. Where there are no locks, two hubs are not noticed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
