"""The records in an SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from weakref import WeakSet

from ...errors import ConfigError
from ...records.query import Query
from ..backend import Change, Retention
from ..columns import date_column, text_column
from .file import FileLock, connect, open_file, reporting
from .reading import SQLiteReader
from .writing import BYTES, Statements, forget

__all__ = ["SQLiteBackend", "open_sqlite"]

# What one transaction of `drop` and one step of `trim` forget at most: some milliseconds, and pages of the log.
_DROPPED = 500
_TRIMMED = 200
_TRIMMED_BYTES = 1 << 24
# Free pages are given back so many at a time.
_VACUUMED = 1000

_STILL_COMPLETED = (
    "SELECT arrival FROM task WHERE arrival IN (SELECT value FROM json_each(?)) AND completed IS NOT NULL"
)
_OLDEST = f"""
SELECT arrival, completed, {BYTES} FROM task
WHERE completed IS NOT NULL ORDER BY completed, arrival LIMIT {_TRIMMED}"""


def open_sqlite(path: Path, *, owner: str = "", synchronous: bool = False) -> SQLiteBackend:
    """Open the database in a file, or make it, and its directory.

    Args:
        path: On a local disk. SQLite puts two more files beside it, and the hub one that it locks.
        owner: The hub whose records these are. It is noted with each, and a hub takes up its own only.
        synchronous: Whether each write waits until the disk has it, so that not even a power failure loses it. If
            not, a power failure may cost the last of them; the end of the hub or of its process costs nothing.

    Raises:
        ConfigError: another hub has it, or it is not a file of this hub's, or it cannot be opened.
        StoreError: it is damaged.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(path)
    except OSError as error:
        raise _cannot_open(path, error) from error
    try:
        return SQLiteBackend(path, open_file(path, synchronous=synchronous), lock, owner)
    except OSError as error:
        lock.release()
        raise _cannot_open(path, error) from error
    except BaseException:
        lock.release()
        raise


def _cannot_open(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path}: cannot be opened: {error.strerror}; name another file, or see that this user may write there"
    )


class SQLiteBackend:
    """See `trio_hub.databases.backend.Backend`. Made by `open_sqlite`.

    What `drop` does, it does bit by bit: when it raises, what it has forgotten by then is gone. In between, `write` and
    `trim` may be called in another thread.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: FileLock, owner: str) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._owner = text_column(owner)
        self._turns = _Turns()
        self._readers: WeakSet[SQLiteReader] = WeakSet()

    def write(self, changes: Sequence[Change]) -> None:
        """See `trio_hub.databases.backend.Backend.write`."""
        batch = self.batch()
        for change in changes:
            batch.take(change)
        batch.write()

    def batch(self) -> SQLiteBatch:
        """See `trio_hub.databases.backend.Backend.batch`."""
        return SQLiteBatch(self._transaction, self._owner)

    def drop(self, query: Query) -> int:
        """See `trio_hub.databases.backend.Backend.drop`. Records that come while it is at it stay."""
        reader = self.reader()
        try:
            reader.begin()
            matching = reader.completed(query)
        finally:
            reader.close()
        dropped = 0
        for start in range(0, len(matching), _DROPPED):
            with self._transaction() as connection:
                listed = json.dumps(matching[start : start + _DROPPED])
                # meanwhile, some may have been added anew, or taken up again
                dropped += forget(connection, [row[0] for row in connection.execute(_STILL_COMPLETED, (listed,))])
        if dropped:
            self._give_space_back()
        return dropped

    def trim(self, keep: Retention, now: datetime) -> int:
        """See `trio_hub.databases.backend.Backend.trim`. Gives some space back when there is much of it."""
        since = None if keep.age is None else date_column(now) - keep.age // timedelta(microseconds=1)
        with self._transaction() as connection:
            ((records, size),) = connection.execute("SELECT records, bytes FROM account")
            leaving: list[int] = []
            freed = 0
            for arrival, completed, bytes_ in connection.execute(_OLDEST).fetchall():
                excess = keep.records is not None and records - len(leaving) > keep.records
                excess = excess or (keep.bytes is not None and size - freed > keep.bytes)
                if freed >= _TRIMMED_BYTES or not (excess or (since is not None and completed < since)):
                    break
                leaving.append(arrival)
                freed += bytes_
            forget(connection, leaving)
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
        reader = SQLiteReader(self.path, connection, self._owner)
        self._readers.add(reader)
        return reader

    def size(self) -> int:
        """See `trio_hub.databases.backend.Backend.size`."""
        total = 0
        for end in ("", "-wal"):
            with suppress(OSError):
                total += os.stat(f"{self.path}{end}").st_size
        return total

    def close(self) -> None:
        """See `trio_hub.databases.backend.Backend.close`."""
        for reader in list(self._readers):
            reader.close()
        with suppress(sqlite3.Error):
            self._connection.close()
        self._lock.release()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with self._turns.one(), reporting(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # some errors have ended the transaction already
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def _give_space_back(self) -> None:
        """All of it, to the disk, and the pages that were read for it to the system."""
        while self._vacuum() > 0:
            pass
        with self._turns.one(), reporting(self.path):
            # a reader may be looking at what was there before: then the log shrinks later
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.execute("PRAGMA busy_timeout = 5000")
            self._connection.execute("PRAGMA shrink_memory")

    def _give_some_space_back(self) -> None:
        """A little, if more is free than what comes is likely to fill again soon."""
        with self._turns.one(), reporting(self.path):
            ((free,),) = self._connection.execute("PRAGMA freelist_count")
            ((pages,),) = self._connection.execute("PRAGMA page_count")
        if free > max(_VACUUMED, pages // 4):
            self._vacuum()

    def _vacuum(self) -> int:
        """Give some free pages back, and say how many are left."""
        with self._turns.one(), reporting(self.path):
            # (it does one page per step, of which execute() takes no more than one, since there is no row to give)
            self._connection.executescript(f"PRAGMA incremental_vacuum({_VACUUMED})")
            ((free,),) = self._connection.execute("PRAGMA freelist_count")
        return int(free)


class SQLiteBatch:
    """See `trio_hub.databases.backend.Batch`. Made by `SQLiteBackend.batch`."""

    def __init__(self, transaction: Callable[[], AbstractContextManager[sqlite3.Connection]], owner: str) -> None:
        self._transaction = transaction
        self._owner = owner
        self._statements = [Statements(owner)]

    def take(self, change: Change) -> None:
        """See `trio_hub.databases.backend.Batch.take`."""
        if change.msg_id in self._statements[-1].msg_ids:  # what is done to one record keeps its order
            self._statements.append(Statements(self._owner))
        self._statements[-1].take(change)

    def write(self) -> None:
        """See `trio_hub.databases.backend.Batch.write`."""
        with self._transaction() as connection:
            for statements in self._statements:
                statements.carry_out(connection)


class _Turns:
    """A lock that nobody takes twice while another waits for it."""

    def __init__(self) -> None:
        self._next = threading.Lock()
        self._now = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._next:
            self._now.acquire()
        try:
            yield
        finally:
            self._now.release()
