"""The file of an SQLite database: checking, locking and opening it, and the errors if it cannot be used.

A file of another program is never written to. One hub at a time has the file. SQLite alone would let two hubs write in
turns, and each would take the other's unfinished tasks for its own.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ...errors import ConfigError, StoreError
from ..filesystems import LOCAL_DATABASE, lacks, lock_file
from .schema import APPLICATION_ID, STEPS

__all__ = ["FileLock", "connect", "open_file", "reporting"]

# Files up to this size, in bytes, are checked as a whole when they are opened. It takes some 100 ms.
CHECKED_AS_A_WHOLE = 1 << 24


class FileLock:
    """A lock, which is held until it is released or the process ends, however the process ends.

    Raises:
        ConfigError: Another hub has the lock, or the file system has no locks.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + "-lock")
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            lock_file(self._descriptor)
        except BlockingIOError:
            self.release()
            raise ConfigError(
                f"{database}: another hub keeps its records in this file; give each hub a file of its own, "
                "or end the other one first"
            ) from None
        except OSError as error:
            self.release()
            if error.errno == errno.ENOLCK:
                raise ConfigError(f"{database}: {_lacks('has no file locks')}") from error
            raise
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock. Idempotent. The lock file stays, since another hub may be about to lock it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def reporting(path: Path, *, starting: bool = False) -> Iterator[None]:
    """Turn errors of SQLite into `StoreError`, with the file, the reason and the remedy.

    With ``starting``, the text does not say that the hub tries again.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; {_remedy(error, starting=starting)}") from error


def _remedy(error: sqlite3.Error, *, starting: bool) -> str:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    again = "" if starting else "; nothing is lost, the hub tries again"
    if code in _NO_SHARED_MEMORY and starting:
        return _lacks(_CANNOT_SHARE)
    if (code in _NO_LOCKS or code == sqlite3.SQLITE_PROTOCOL) and starting:
        return _lacks("has no file locks that SQLite can use")
    match code & 0xFF:  # the primary error code
        case sqlite3.SQLITE_FULL:
            return f"free some space on its disk{again}"
        case sqlite3.SQLITE_IOERR:
            return f"check that its disk works and has space{again}"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return f"make sure that this user may write the file and its directory{again}"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"end the program that has locked the file{again}"
        case sqlite3.SQLITE_INTERRUPT:
            return "the hub has interrupted it, since the hub is stopping or nobody waits for the answer any more"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "the file is damaged: " + _AFTER_DAMAGE
        case _:
            return "if this error comes again, the file may be damaged: " + _AFTER_DAMAGE


def _lacks(what: str) -> str:
    """Return what the file system lacks, and the remedy."""
    return lacks(what, f"name a file on a local disk: {LOCAL_DATABASE}")


_CANNOT_SHARE = "cannot share memory between processes, which SQLite needs to write a log"
_NO_SHARED_MEMORY = {
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
}
_NO_LOCKS = {sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_RDLOCK, sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK}
_AFTER_DAMAGE = (
    "stop the hub, and put back a copy of the file, or save the readable part with the sqlite3 command's .recover, or "
    "move the file away to begin with an empty one"
)


def open_file(path: Path, *, synchronous: bool) -> sqlite3.Connection:
    """Return the connection that writes. Create the file, or update it to this version. The caller must hold its lock.

    Raises:
        ConfigError: The file belongs to another program or a newer version, or this user cannot open it.
        StoreError: The file is damaged.
    """
    _check(path)
    # Create the file with these permissions before it has any content. SQLite's further files get the same ones.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with reporting(path, starting=True):
        connection = connect(path)
        try:
            # By default, Debian's SQLite overwrites deleted data with zeros, which doubles the work.
            connection.execute("PRAGMA secure_delete = OFF")
            # After one large transaction, the log gets shorter again.
            connection.execute(f"PRAGMA journal_size_limit = {1 << 26}")
            _prepare(connection, path)
            connection.execute(f"PRAGMA synchronous = {'FULL' if synchronous else 'NORMAL'}")
            connection.execute("PRAGMA cache_size = -32000")  # KiB
            # The log is copied to the file after this many pages. Pages of indexes come again and again, so waiting a
            # little saves work.
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
        except BaseException:
            connection.close()
            raise
    return connection


def connect(path: Path, how: str = "mode=rw") -> sqlite3.Connection:
    """Return a connection for one thread at a time, without automatic transactions.

    The file is not mapped into memory: if another program cut it short, a signal would end the hub's process.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}",
        uri=True,
        timeout=5.0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: Path) -> None:
    """Refuse a file that is damaged or belongs to another program, before anything could change it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(108)
    except FileNotFoundError:
        return
    if not head:
        return
    if not path.is_file() or not head.startswith(b"SQLite format 3\0"):
        raise ConfigError(f"{path}: not an SQLite database; name another file, which need not exist")

    def number(start: int, length: int = 4) -> int:
        return int.from_bytes(head[start : start + length], "big")

    logged = path.with_name(path.name + "-wal")
    has_log = logged.exists() and logged.stat().st_size > 0
    if number(68) not in (0, APPLICATION_ID):
        raise _foreign(path)
    # 1 stands for 65536. With a log, the file may be shorter than its head says.
    page = 65536 if number(16, 2) == 1 else number(16, 2)
    if size < page or (not has_log and size < page * number(28) and number(24) == number(92)):
        raise StoreError(f"{path}: the file is shorter than it should be, so it is damaged: {_AFTER_DAMAGE}")
    # Without a log, SQLite need not create files beside the file, which would stay there.
    how = "mode=ro" if has_log else "mode=ro&immutable=1"
    with reporting(path, starting=True), closing(connect(path, how)) as connection:
        _version(connection, path)
        if size <= CHECKED_AS_A_WHOLE:
            ((told,),) = connection.execute("PRAGMA quick_check(1)")
            if told != "ok":
                raise StoreError(f"{path}: {told.splitlines()[-1]}; the file is damaged: {_AFTER_DAMAGE}")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the tables in the file; 0 if the file is empty."""
    ((program,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((things,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if program == 0 and version == 0 and things == 0:
        return 0
    if program != APPLICATION_ID:
        raise _foreign(path)
    if version > len(STEPS):
        raise ConfigError(
            f"{path}: written by a newer trio_hub (version {version} of the tables; this version supports versions up "
            f"to {len(STEPS)}); use the newer trio_hub, or name another file"
        )
    return int(version)


def _foreign(path: Path) -> ConfigError:
    return ConfigError(f"{path}: the SQLite database of another program; name another file")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection, path)
    if version == 0:
        connection.execute("PRAGMA page_size = 8192")  # a usual record has some 2 kB, so three fit
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")  # otherwise the pragmas would not apply to an existing file
    ((mode,),) = connection.execute("PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise ConfigError(f"{path}: {_lacks(_CANNOT_SHARE)}")
    if version == len(STEPS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in STEPS[version:]:
            if callable(step):
                step(connection)
            else:
                for statement in step:
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    # The log of these steps is as large as the file. (New records will use the pages that the steps have freed.)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
