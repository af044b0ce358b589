"""The files of large buffers beside an SQLite database, and how they are read.

SQLite writes each byte of a large value twice, page by page, first to its log and later to its file. So large buffers
are outside the database, in *segments*: files to which `trio_hub.databases.sqlite.appending` only appends. A row of
``piece`` says where a chunk is: the number of the segment, the position in it, the size and a checksum.

A chunk is in its segment before the row is committed, and no committed chunk is ever overwritten. So readers need no
lock. The space of dropped records is given back later, when no reader has a snapshot that may still show them.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from zlib import crc32

from ...errors import StoreError

__all__ = ["COUNTED", "ChunkLost", "ChunkPlace", "SegmentFiles", "Snapshots", "UnreadableBuffers", "size_on_disk"]

# A segment number has a random part, which is different for each database, and this many bits that count.
COUNTED = 22
_NAME = re.compile("[0-9a-f]{16}")
# Errors that say nothing about a certain file, and go away.
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)


class ChunkPlace(NamedTuple):
    """Where a chunk of a buffer is."""

    segment: int
    position: int
    size: int
    checksum: int


class ChunkLost(StoreError):
    """A chunk cannot be read, now or later, since its segment is missing or damaged."""


class UnreadableBuffers(tuple[bytes, ...]):
    """Stands for buffers that cannot be read. Each use raises the `StoreError` that says why.

    So the record still has its other keys, and can be listed and dropped. Only a request for the buffers fails.
    """

    _text: str

    def __new__(cls, key: str, msg_id: str, error: ChunkLost) -> UnreadableBuffers:
        """Return the value of a record's key that cannot be read. ``msg_id`` may be empty, if it is not known."""
        self = super().__new__(cls)
        self._text = f"the {key} of {msg_id or 'a record'} cannot be read: {error}"
        return self

    def _fail(self, *_: Any) -> NoReturn:
        raise StoreError(self._text)

    __len__ = __iter__ = __getitem__ = _fail

    def __repr__(self) -> str:
        return f"<UnreadableBuffers: {self._text}>"


class SegmentFiles:
    """The segments of one database: their names, and reading from them. All methods may be called in any thread."""

    def __init__(self, database: Path) -> None:
        self.directory = database.with_name(database.name + "-buffers")

    def path_of(self, segment: int) -> Path:
        """Return the path of a segment, which need not exist."""
        return self.directory / f"{segment:016x}"

    def numbers(self, like: int) -> list[int]:
        """Return the numbers of the existing segments of the database to which the segment ``like`` belongs, in order.

        The directory may also have segments of a database whose file was moved away.
        """
        with suppress(FileNotFoundError):
            found = [int(name, 16) for name in os.listdir(self.directory) if _NAME.fullmatch(name)]
            return sorted(number for number in found if number >> COUNTED == like >> COUNTED)
        return []

    def size(self) -> int:
        """Return the bytes that all segments take up on the disk."""
        total = 0
        with suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
        return total

    def read(self, place: ChunkPlace) -> bytes:
        """Return a chunk.

        Raises:
            ChunkLost: The file is missing, shorter than it was, or damaged.
            StoreError: The file cannot be read now.
        """
        path = self.path_of(place.segment)
        try:
            data = _read(path, place)
        except OSError as error:
            if error.errno in _PASSING:
                raise StoreError(f"{path}: {error.strerror}; try again later") from error
            missing = isinstance(error, FileNotFoundError)
            what = "is missing" if missing else f"cannot be read: {error.strerror}"
            raise self._lost(path, what) from error
        if len(data) < place.size:
            raise self._lost(path, "is shorter than it should be")
        if crc32(data) != place.checksum:
            raise self._lost(path, "is damaged")
        return data

    def _lost(self, path: Path, what: str) -> ChunkLost:
        return ChunkLost(f"{path}: this file of large buffers {what}; stop the hub, and put back a copy of the file")


def size_on_disk(database: Path) -> int:
    """Return the size in bytes of an SQLite file, its log and its large buffers."""
    total = SegmentFiles(database).size()
    for end in ("", "-wal"):
        with suppress(OSError):
            total += os.stat(f"{database}{end}").st_size
    return total


def _read(path: Path, place: ChunkPlace) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, place.size, place.position)
    finally:
        os.close(descriptor)


class Snapshots:
    """Tells which freed space no reader can see any more.

    Space is *freed* when the commit that drops its rows is done. A reader whose snapshot is older still sees the rows.
    All methods may be called in any thread.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._moment = 0
        self._begun: dict[object, int] = {}  # by reader, the moment at which its snapshot began
        self._freed: dict[int, int] = {}  # by segment, the moment after which something in it was freed last

    def begin(self, reader: object) -> None:
        """Note that a reader takes a snapshot now. Call this before it does."""
        with self._guard:
            self._begun[reader] = self._moment

    def end(self, reader: object) -> None:
        """Note that a reader has no snapshot any more. Idempotent."""
        with self._guard:
            self._begun.pop(reader, None)

    def freed(self, segments: Iterable[int]) -> None:
        """Note that something in these segments was freed. Call this after the commit."""
        with self._guard:
            self._moment += 1
            self._freed.update(dict.fromkeys(segments, self._moment))

    def take(self) -> int | None:
        """Return a segment with freed space that no reader sees, and forget it; None if there is none."""
        with self._guard:
            oldest = min(self._begun.values(), default=self._moment)
            for segment, moment in self._freed.items():
                if moment <= oldest:
                    del self._freed[segment]
                    return segment
        return None
