"""Appends large buffers to segments, and gives the space of dropped ones back. One thread at a time uses this.

Segments are written without the cache of the system (``O_DIRECT``), through a buffer of our own that begins at a page.
The cache would cost more than all the rest: for each 4 KiB, the system would look for a page, clear it and write it
later. Large buffers are seldom read again. They are on the disk, apart from the disk's own cache, when a call returns.
A file system that cannot do that, such as tmpfs, is written in the usual way.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

from ...errors import StoreError
from ...logs import get_logger
from .file import reporting
from .segments import ChunkPlace, SegmentFiles, Snapshots

__all__ = ["SegmentWriter"]

log = get_logger("trio_hub.runtime")

SEGMENT = 1 << 28
"""A segment is full if it has at least this number of bytes. With smaller ones, summing up their sizes takes longer."""
BUFFER = 1 << 20
"""The maximum number of bytes that are written at a time."""
_BLOCK = 4096  # a multiple of the blocks of each usual disk and file system
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # the flags of fallocate(2)
_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
_CANNOT_PUNCH = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_END = "SELECT position + size FROM piece WHERE segment = ? ORDER BY position DESC LIMIT 1"
_LIVE = "SELECT position, size FROM piece WHERE segment = ? ORDER BY position"
# (DISTINCT would read the entries of all chunks.)
_USED = """
WITH RECURSIVE used (it) AS (
    SELECT min(segment) FROM piece WHERE segment IS NOT NULL
    UNION ALL
    SELECT (SELECT min(segment) FROM piece WHERE segment > used.it) FROM used WHERE it IS NOT NULL
)
SELECT it FROM used WHERE it IS NOT NULL"""


class SegmentWriter:
    """Writes the segments of a database.

    The database alone says which parts of the segments are used: all bytes of a segment that no row of ``piece`` names
    are free, however they came there. So this needs no repair after a crash. The space behind the last chunk of the
    current segment is written again by the next batch.

    Args:
        path: The path of the database.
        connection: The connection that writes.
        synchronous: Whether `appended` waits for the disk.

    Attributes:
        files: The files of the segments.
        snapshots: The snapshots of readers, and the freed space. Readers tell it when they begin and end, and the
            caller tells it after each commit which segments have freed space.
        number: The number of the current segment. The caller writes it to the account, in the transaction of the batch.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, synchronous: bool) -> None:
        self.files = SegmentFiles(path)
        self.snapshots = Snapshots()
        self._path = path
        self._connection = connection
        self._synchronous = synchronous
        self._descriptor: int | None = None
        self._direct = os.O_DIRECT
        self._buffer = memoryview(mmap.mmap(-1, BUFFER))
        self._filled = 0  # the bytes in the buffer
        self._end = 0  # the place in the current segment to which the buffer will be written: a multiple of _BLOCK
        self._committed = 0, 0  # the current segment and its end after the last commit
        self._interrupted = False
        self._punches = True
        self._resume()
        self._look_around()

    @contextmanager
    def appended(self, chunks: Sequence[memoryview]) -> Iterator[list[ChunkPlace]]:
        """Append chunks, and give their places. The block has to commit rows with these places.

        Raises:
            StoreError: The chunks cannot be written. The space that they took is free again.
        """
        self._interrupted = False
        try:
            with self._reporting():
                places = self._append(chunks)
            yield places
            self._committed = self.number, self._end
        except BaseException:
            # Whether the transaction was committed is not known for sure, so ask the database.
            with suppress(OSError, sqlite3.Error):
                self._resume()
            raise

    def interrupt(self) -> None:
        """Make `appended` in another thread end soon with a `StoreError`. Never raises."""
        self._interrupted = True

    def reclaim(self) -> bool:
        """Give the free space of one segment back, if there is one that no reader sees. Return whether there was one.

        A segment without chunks is removed; between chunks, holes are made, if the file system can do that.
        """
        segment = self.snapshots.take()
        if segment is None:
            return False
        try:
            with self._reporting(), reporting(self._path):
                # The rows must be gone for good before their chunks are. (After a checkpoint this costs nothing.)
                _sync(Path(f"{self._path}-wal"))
                self._give_back(segment)
        except BaseException:
            self.snapshots.freed([segment])
            raise
        return True

    def close(self) -> None:
        """Close the current segment. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # Appending

    def _append(self, chunks: Sequence[memoryview]) -> list[ChunkPlace]:
        places = []
        for chunk in chunks:
            if self._descriptor is None or self._end + self._filled >= SEGMENT:
                self._finish()
                self._begin_next()
            position, start, checksum = self._end + self._filled, 0, 0
            while start < len(chunk):
                part = chunk[start : start + BUFFER - self._filled]
                copy = self._buffer[self._filled : self._filled + len(part)]
                copy[:] = part
                checksum = crc32(copy, checksum)  # of the copy, which is in the processor's cache
                self._filled += len(part)
                start += len(part)
                if self._filled == BUFFER:
                    self._write()
            places.append(ChunkPlace(self.number, position, len(chunk), checksum))
        self._finish()
        return places

    def _write(self) -> None:
        """Write the filled part of the buffer, rounded up to whole blocks, at the end of the current segment."""
        if self._interrupted:
            raise StoreError(f"{self.files.directory}: writing was interrupted, since the hub is stopping")
        size = _rounded_up(self._filled)
        self._buffer[self._filled : size] = bytes(size - self._filled)
        assert self._descriptor is not None
        try:
            written = os.pwrite(self._descriptor, self._buffer[:size], self._end)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
            # The file system lets a file be opened so, but not written.
            self._direct = 0
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, 0)
            written = os.pwrite(self._descriptor, self._buffer[:size], self._end)
        if written != size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._end += size
        self._filled = 0

    def _finish(self) -> None:
        """Write the rest of the buffer, and wait for the disk if needed."""
        if self._filled:
            self._write()
        if self._synchronous and self._descriptor is not None:
            os.fdatasync(self._descriptor)

    def _begin_next(self) -> None:
        self.close()
        self.files.directory.mkdir(mode=0o700, exist_ok=True)
        self.number += 1
        self._descriptor = self._open(self.number, os.O_CREAT | os.O_TRUNC)
        self._end = 0
        if self._synchronous:  # otherwise the file itself might be lost
            _sync(self.files.directory)
            _sync(self.files.directory.parent)

    def _open(self, number: int, flags: int) -> int:
        flags |= os.O_WRONLY | os.O_CLOEXEC
        path = self.files.path_of(number)
        if self._direct:
            try:
                return os.open(path, flags | self._direct, 0o600)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._direct = 0
        return os.open(path, flags, 0o600)

    def _resume(self) -> None:
        """Go on behind the last chunk that was committed. A segment of which nothing was committed is removed."""
        self.close()
        self._filled = 0
        ((self.number,),) = self._connection.execute("SELECT segment FROM account")
        for number in self.files.numbers(self.number):
            if number > self.number:
                self.files.path_of(number).unlink()
        last = self._connection.execute(_END, (self.number,)).fetchone()
        if last is None:
            return
        self._end = _rounded_up(last[0])
        number, end = self._committed
        if number == self.number:  # the last chunks may have been dropped, while readers still see them
            self._end = max(self._end, end)
        with suppress(FileNotFoundError):
            descriptor = self._open(self.number, 0)
            if os.fstat(descriptor).st_size < self._end:  # it was damaged, so it is left as it is
                os.close(descriptor)
                return
            self._descriptor = descriptor
            os.ftruncate(descriptor, self._end)

    # Giving back

    def _look_around(self) -> None:
        """Warn of missing segments. Each existing one may have free space that the previous hub has not given back."""
        there = set(self.files.numbers(self.number))
        missing = {number for (number,) in self._connection.execute(_USED)} - there
        if missing:
            log.error(
                "files of large buffers are missing: requests for the buffers in them fail",
                directory=self.files.directory,
                files=len(missing),
                first=self.files.path_of(min(missing)).name,
            )
        self.snapshots.freed(there)

    def _give_back(self, segment: int) -> None:
        live = self._connection.execute(_LIVE, (segment,)).fetchall()
        path = self.files.path_of(segment)
        if not live:
            if segment == self.number:
                self.close()
            path.unlink(missing_ok=True)
            return
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                position, size = live[-1]
                if segment != self.number and os.fstat(descriptor).st_size > position + size:
                    os.ftruncate(descriptor, position + size)
                self._punches = self._punches and _punch(descriptor, live)
            finally:
                os.close(descriptor)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.files.directory}: {error.strerror}; {_remedy(error)}; nothing is lost, the hub tries again"
            ) from error


def _rounded_up(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "its disk is full, or files may not be so large: free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make sure that this user may write the directory and its files"
    return "check that its disk works and has space"


def _sync(path: Path) -> None:
    """Wait until a file or a directory is on the disk. A file that does not exist needs no waiting."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _punch(descriptor: int, live: list[tuple[int, int]]) -> bool:
    """Give the space before and between the live parts of a file back. Return whether the file system can do that."""
    start = 0
    for position, size in live:
        if position - start >= _BLOCK:
            where = ctypes.c_int64(start), ctypes.c_int64(position - start)
            if _fallocate is None or _fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, *where) != 0:
                number = errno.ENOSYS if _fallocate is None else ctypes.get_errno()
                if number in _CANNOT_PUNCH:
                    return False
                raise OSError(number, os.strerror(number))
        start = position + size
    return True
