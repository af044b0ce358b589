"""Notes of the results that were sent to clients. The notes outlive the process, and each costs one memory write.

A stock client fails when it gets a result twice. So a hub that is started after a crash must know which results the
previous hub has sent. The database does not know the latest ones. So the notes are in a file that is mapped into
memory: the system keeps the written memory when the process is killed.
"""

from __future__ import annotations

import mmap
import os
from hashlib import blake2b
from pathlib import Path

from ..errors import ConfigError
from .filesystems import lacking

__all__ = ["SentResultsFile"]

ENTRIES = 1 << 16
"""The number of results that are remembered: enough for several seconds."""
_MAGIC = b"trio_hub delivered 1\n\0\0\0"
_ENTRY = 8
_START = len(_MAGIC) + 8
_SIZE = _START + ENTRIES * _ENTRY


class SentResultsFile:
    """The notes in a file, which is created if it is missing.

    The file has a head with the place of the next note, and a ring of digests of msg_ids.

    Raises:
        ConfigError: The file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path, "a+b", opener=_private) as file:
                file.seek(0)
                intact = file.read(len(_MAGIC)) == _MAGIC and file.seek(0, 2) == _SIZE
                if not intact:
                    file.truncate(0)
                    file.truncate(_SIZE)
                # Reserve the space: writing to a mapped page without space on the disk ends the process by a signal.
                os.posix_fallocate(file.fileno(), 0, _SIZE)
                self._map = mmap.mmap(file.fileno(), _SIZE)
        except OSError as error:
            why = lacking(error) or error.strerror
            raise ConfigError(f"cannot use {path}, which has notes of sent results: {why}") from error
        self._map[: len(_MAGIC)] = _MAGIC
        kept = self._map[_START:]
        self._earlier = {kept[at : at + _ENTRY] for at in range(0, len(kept), _ENTRY)} - {bytes(_ENTRY)}
        place = int.from_bytes(self._map[len(_MAGIC) : _START], "little")
        self._at = place if place < ENTRIES else 0

    def note(self, msg_id: str) -> None:
        """Note that a result was sent to its client."""
        start = _START + self._at * _ENTRY
        self._map[start : start + _ENTRY] = _digest(msg_id)
        self._at = (self._at + 1) % ENTRIES
        self._map[len(_MAGIC) : _START] = self._at.to_bytes(8, "little")

    def was_delivered(self, msg_id: str) -> bool:
        """Return whether the previous hub has noted this result as sent."""
        return _digest(msg_id) in self._earlier

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._map.close()


def _digest(msg_id: str) -> bytes:
    return blake2b(msg_id.encode("utf-8", "surrogatepass"), digest_size=_ENTRY).digest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
