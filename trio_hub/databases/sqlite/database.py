"""The backend of an SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from heapq import merge
from itertools import islice
from pathlib import Path
from weakref import WeakSet

from ...errors import ConfigError
from ..backend import Change, Retention
from ..columns import date_column, text_column
from .appending import SegmentWriter
from .file import FileLock, connect, open_file, reporting
from .reading import SQLiteReader
from .segments import size_on_disk
from .writing import BYTES, Statements, forget

__all__ = ["SQLiteBackend", "open_sqlite"]

# The maximum number and bytes of records that one step of `trim` drops. A step takes some milliseconds.
_TRIMMED = 200
_TRIMMED_BYTES = 1 << 24
# The number of free pages that are given back at a time: in a step after a purge, and now and then without a purge.
_VACUUMED_IN_A_STEP = 250
_VACUUMED = 1000
# The maximum number of segments whose free space is given back at a time, now and then without a purge.
_RECLAIMED = 16

_STILL_COMPLETED = (
    "SELECT arrival FROM task WHERE arrival IN (SELECT value FROM json_each(?)) AND completed IS NOT NULL"
)
# Records with a date of receipt, and records without. (Without INDEXED BY, SQLite would sort all records.)
_OLDEST = [
    f"""
    SELECT {date}, arrival, {BYTES} FROM task INDEXED BY {index}
    WHERE completed IS NOT NULL AND received {condition} ORDER BY {date}, arrival LIMIT {_TRIMMED}"""
    for date, index, condition in (
        ("received", "task_received", "IS NOT NULL"),
        ("completed", "task_not_received", "IS NULL"),
    )
]


def open_sqlite(path: Path, *, owner: str = "", synchronous: bool = False) -> SQLiteBackend:
    """Open the database in a file. Create the file and its directory if they are missing.

    Args:
        path: The path of the file, on a local disk. SQLite has two more files beside it. The hub has a lock file, and
            a directory for large buffers.
        owner: The name of the owner of added records. A hub takes over only the records of its owner.
        synchronous: Whether each write waits for the disk, so that even a power failure does not lose it. If not, a
            power failure may lose the last writes; the end of the process loses nothing.

    Raises:
        ConfigError: Another hub uses the file, the file belongs to another program, or it cannot be opened.
        StoreError: The file is damaged.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(path)
    except OSError as error:
        raise _cannot_open(path, error) from error
    try:
        connection = open_file(path, synchronous=synchronous)
        try:
            return SQLiteBackend(path, connection, lock, owner, synchronous=synchronous)
        except BaseException:
            connection.close()
            raise
    except OSError as error:
        lock.release()
        raise _cannot_open(path, error) from error
    except BaseException:
        lock.release()
        raise


def _cannot_open(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path}: cannot be opened: {error.strerror}; name another file, or make sure that this user may write there"
    )


class SQLiteBackend:
    """See `trio_hub.databases.backend.Backend`. Made by `open_sqlite`."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: FileLock, owner: str, *, synchronous: bool
    ) -> None:
        self.path = path
        self._connection = connection
        self._synchronous = synchronous
        self._lock = lock
        self._owner = text_column(owner)
        with reporting(path, starting=True):
            ((self._number,),) = connection.execute("SELECT batch FROM account")
            self._segments = SegmentWriter(path, connection, synchronous=synchronous)
        self._readers: WeakSet[SQLiteReader] = WeakSet()

    def write(self, changes: Sequence[Change]) -> None:
        """See `trio_hub.databases.backend.Backend.write`."""
        batch = self.batch()
        for change in changes:
            batch.take(change)
        batch.write()

    def batch(self) -> SQLiteBatch:
        """See `trio_hub.databases.backend.Backend.batch`."""
        self._number += 1
        return SQLiteBatch(self._number, self._transaction, self._segments, self._owner)

    def drop(self, arrivals: Sequence[int]) -> int:
        """See `trio_hub.databases.backend.Backend.drop`.

        This does not wait for the disk, so that other writes do not have to wait, too: `give_back` waits for it.
        """
        if self._synchronous:
            self._connection.execute("PRAGMA synchronous = NORMAL")
        try:
            with self._transaction() as connection:
                # Some records may have been replaced meanwhile.
                still = connection.execute(_STILL_COMPLETED, (json.dumps(arrivals),))
                freed = set[int]()
                dropped = forget(connection, [row[0] for row in still], freed)
            self._segments.snapshots.freed(freed)
            return dropped
        finally:
            if self._synchronous:
                self._connection.execute("PRAGMA synchronous = FULL")

    def give_back(self) -> bool:
        """See `trio_hub.databases.backend.Backend.give_back`. At the end, SQLite's cache is given back, too."""
        if self._vacuum(_VACUUMED_IN_A_STEP) > 0 or self._segments.reclaim():
            return True
        with self._transaction() as connection:  # this commit also puts the steps of `drop` on the disk
            connection.execute("UPDATE account SET batch = batch")
        with reporting(self.path):
            # If a reader still has an earlier snapshot, the log shrinks later.
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.execute("PRAGMA busy_timeout = 5000")
            self._connection.execute("PRAGMA shrink_memory")
        return False

    def tidy(self, *, done: bool) -> None:
        """See `trio_hub.databases.backend.Backend.tidy`. Copies the log to the file, with a separate connection."""
        with reporting(self.path), closing(connect(self.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def trim(self, keep: Retention, now: datetime) -> int:
        """See `trio_hub.databases.backend.Backend.trim`. Gives some space back if much is free."""
        since = None if keep.age is None else date_column(now) - keep.age // timedelta(microseconds=1)
        with self._transaction() as connection:
            ((records, size),) = connection.execute("SELECT records, bytes FROM account")
            leaving: list[int] = []
            freed = 0
            oldest = merge(*[connection.execute(statement).fetchall() for statement in _OLDEST])
            for dated, arrival, bytes_ in islice(oldest, _TRIMMED):
                excess = keep.records is not None and records - len(leaving) > keep.records
                excess = excess or (keep.bytes is not None and size - freed > keep.bytes)
                if freed >= _TRIMMED_BYTES or not (excess or (since is not None and dated < since)):
                    break
                leaving.append(arrival)
                freed += bytes_
            segments = set[int]()
            forget(connection, leaving, segments)
        self._segments.snapshots.freed(segments)
        if not leaving:
            self._give_some_space_back()
        return len(leaving)

    def reader(self) -> SQLiteReader:
        """See `trio_hub.databases.backend.Backend.reader`."""
        with reporting(self.path):
            connection = connect(self.path)
            try:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("PRAGMA cache_size = -8000")
            except BaseException:
                connection.close()
                raise
        reader = SQLiteReader(self.path, connection, self._owner, self._segments.snapshots)
        self._readers.add(reader)
        return reader

    def interrupt(self) -> None:
        """See `trio_hub.databases.backend.Backend.interrupt`."""
        with suppress(sqlite3.Error):
            self._segments.interrupt()
            self._connection.interrupt()

    def size(self) -> int:
        """See `trio_hub.databases.backend.Backend.size`."""
        return size_on_disk(self.path)

    def close(self) -> None:
        """See `trio_hub.databases.backend.Backend.close`."""
        for reader in list(self._readers):
            if not reader.interrupted:  # otherwise a thread still uses it, and closes it
                reader.close()
        with suppress(sqlite3.Error):
            self._connection.close()
        self._segments.close()
        self._lock.release()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with reporting(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # Some errors have ended the transaction already.
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def _give_some_space_back(self) -> None:
        """Give some free pages back if there are more than new records are likely to fill soon, and free segments."""
        with reporting(self.path):
            ((free,),) = self._connection.execute("PRAGMA freelist_count")
            ((pages,),) = self._connection.execute("PRAGMA page_count")
        if free > max(_VACUUMED, pages // 4):
            self._vacuum(_VACUUMED)
        for _ in range(_RECLAIMED):
            if not self._segments.reclaim():
                break

    def _vacuum(self, pages: int) -> int:
        """Give some free pages back. Return the number of free pages that are left."""
        with reporting(self.path):
            # (SQLite gives back one page per step, and execute() does only one step of a statement without rows.)
            self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")
            ((free,),) = self._connection.execute("PRAGMA freelist_count")
        return int(free)


class SQLiteBatch:
    """See `trio_hub.databases.backend.Batch`. Made by `SQLiteBackend.batch`."""

    def __init__(
        self,
        number: int,
        transaction: Callable[[], AbstractContextManager[sqlite3.Connection]],
        segments: SegmentWriter,
        owner: str,
    ) -> None:
        self.number = number
        self._transaction = transaction
        self._segments = segments
        self._owner = owner
        self._statements = [Statements(owner)]

    def take(self, change: Change) -> None:
        """See `trio_hub.databases.backend.Batch.take`."""
        if change.msg_id in self._statements[-1].msg_ids:  # changes of one record keep their order
            self._statements.append(Statements(self._owner))
        self._statements[-1].take(change)

    def write(self) -> None:
        """See `trio_hub.databases.backend.Batch.write`."""
        chunks = [chunk for statements in self._statements for chunk in statements.chunks]
        with self._segments.appended(chunks) if chunks else nullcontext(()) as places:
            rest = iter(places)
            with self._transaction() as connection:
                for statements in self._statements:
                    statements.carry_out(connection, list(islice(rest, len(statements.chunks))))
                connection.execute("UPDATE account SET batch = ?, segment = ?", (self.number, self._segments.number))
        if freed := set[int]().union(*[statements.freed for statements in self._statements]):
            self._segments.snapshots.freed(freed)
