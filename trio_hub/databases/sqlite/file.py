"""The file of an SQLite database of records: what is in it, who may open it, and what is said when it cannot be used.

A file that is not this package's is never written to. One hub at a time has it: SQLite alone would let two write in
turns, and each would take the other's unfinished tasks for its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ...errors import ConfigError, StoreError
from .schema import APPLICATION_ID, STEPS

__all__ = ["FileLock", "connect", "open_file", "reporting"]

LOCAL = "sqlite:////var/tmp/trio-hub/tasks.sqlite"
"""A file that is on a local disk nearly everywhere, for advice."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What the system says of `flock` where a file system has no locks."""
# Files up to this size are checked as a whole when they are opened: some 100 ms.
CHECKED_AS_A_WHOLE = 1 << 24


class FileLock:
    """A lock that its holder has until it is released, or until the process ends, however that ends.

    Raises:
        ConfigError: somebody else has it.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + "-lock")
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ConfigError(
                f"{database}: another hub keeps its records in this file; give each hub a file of its own, "
                "or end the other one first"
            ) from None
        except OSError as error:
            self.release()
            if error.errno in NO_LOCKS:
                raise ConfigError(f"{database}: {_lacks('has no file locks')}") from error
            raise
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Idempotent. The lock's file stays: somebody may be waiting to lock it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def reporting(path: Path, *, starting: bool = False) -> Iterator[None]:
    """What goes wrong with the database becomes a `StoreError` with the file, the reason, and the remedy.

    A hub that is ``starting`` does not try again.
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
    match code & 0xFF:  # the kind of error; the rest tells more about where
        case sqlite3.SQLITE_FULL:
            return f"free some space on its disk{again}"
        case sqlite3.SQLITE_IOERR:
            return f"see that its disk works and has space{again}"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return f"see that this user may write the file and its directory{again}"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"end the program that has it locked{again}"
        case sqlite3.SQLITE_INTERRUPT:
            return "the hub has interrupted it, since it stops or nobody waits for it any more"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "the file is damaged: " + _AFTER_DAMAGE
        case _:
            return "if it says so again, the file may be damaged: " + _AFTER_DAMAGE


def _lacks(what: str) -> str:
    """Return what the file system lacks, and the remedy."""
    return (
        f"its file system {what}, as is often the case in home directories on the network; name a file on a local "
        f"disk: --db {LOCAL}"
    )


_CANNOT_SHARE = "cannot share memory between processes, which SQLite needs to write a log"
_NO_SHARED_MEMORY = {
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
}
_NO_LOCKS = {sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_RDLOCK, sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK}
_AFTER_DAMAGE = (
    "stop the hub, and put back a copy of it, or save what can be read with the sqlite3 command's .recover, or move it "
    "away to begin with an empty one"
)


def open_file(path: Path, *, synchronous: bool) -> sqlite3.Connection:
    """The connection that writes, to a file that is there and up to date from now on. The caller holds its lock.

    Raises:
        ConfigError: the file is not ours, or of a newer version, or cannot be opened by this user.
        StoreError: it is damaged.
    """
    _check(path)
    # with these permissions before there is anything in it; what SQLite puts beside it gets the same
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with reporting(path, starting=True):
        connection = connect(path)
        try:
            # Debian's SQLite overwrites with zeros what is deleted: twice the work of giving it back
            connection.execute("PRAGMA secure_delete = OFF")
            # what one great transaction made of the log is not kept
            connection.execute(f"PRAGMA journal_size_limit = {1 << 26}")
            _prepare(connection, path)
            connection.execute(f"PRAGMA synchronous = {'FULL' if synchronous else 'NORMAL'}")
            connection.execute("PRAGMA cache_size = -32000")  # KiB
            # Pages are copied from the log to the file after so many. Those of the indexes are in it again and
            # again, so it pays to wait a little.
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
        except BaseException:
            connection.close()
            raise
    return connection


def connect(path: Path, how: str = "mode=rw") -> sqlite3.Connection:
    """A connection, for one thread at a time, that begins and ends transactions only when it is told to.

    No memory map: a file that is cut short under the hub would end its process, with a signal.
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
    """Refuse what is not ours, or damaged, before anything could change it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(108)
    except FileNotFoundError:
        return
    if not head:
        return
    if not path.is_file() or not head.startswith(b"SQLite format 3\0"):
        raise ConfigError(f"{path}: not an SQLite database; name another file, or move this one away")

    def number(start: int, length: int = 4) -> int:
        return int.from_bytes(head[start : start + length], "big")

    logged = path.with_name(path.name + "-wal")
    has_log = logged.exists() and logged.stat().st_size > 0
    if number(68) not in (0, APPLICATION_ID):
        raise _foreign(path)
    # 1 stands for 65536. What is in the log may be more than what is in the file.
    page = 65536 if number(16, 2) == 1 else number(16, 2)
    if size < page or (not has_log and size < page * number(28) and number(24) == number(92)):
        raise StoreError(f"{path}: the file is shorter than it should be, so it is damaged: {_AFTER_DAMAGE}")
    # without a log, SQLite needs to put nothing beside the file, where it would stay
    how = "mode=ro" if has_log else "mode=ro&immutable=1"
    with reporting(path, starting=True), closing(connect(path, how)) as connection:
        _version(connection, path)
        if size <= CHECKED_AS_A_WHOLE:
            ((told,),) = connection.execute("PRAGMA quick_check(1)")
            if told != "ok":
                raise StoreError(f"{path}: {told.splitlines()[-1]}; the file is damaged: {_AFTER_DAMAGE}")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of what is in the file; 0 if there is nothing in it."""
    ((program,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((things,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if program == 0 and version == 0 and things == 0:
        return 0
    if program != APPLICATION_ID:
        raise _foreign(path)
    if version > len(STEPS):
        raise ConfigError(
            f"{path}: written by a newer trio_hub (version {version} of its tables; this one knows those up to "
            f"{len(STEPS)}); use that one, or name another file"
        )
    return int(version)


def _foreign(path: Path) -> ConfigError:
    return ConfigError(f"{path}: the SQLite database of another program; name another file")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection, path)
    if version == 0:
        connection.execute("PRAGMA page_size = 8192")  # a usual record has some 2 kB, so three fit
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")  # or else it would not be, where the file was there already
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
    # The log of these steps is as large as the file. (The pages that they have freed are used by what comes.)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
