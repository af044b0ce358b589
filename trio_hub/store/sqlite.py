"""The records in an SQLite file.

One row per task, which is written when the task comes and when its result does. What grows afterwards (output) or is
large (buffers) has rows of its own, *pieces*, so that none of it is written twice, nor read by who does not want it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any
from weakref import WeakSet

from ..errors import ConfigError
from .backend import Change, Found, Keep, Kept, place_of
from .columns import (
    buffer_chunks,
    buffers_column,
    date_column,
    from_buffers,
    from_date,
    from_label,
    from_text,
    label_column,
    text_column,
)
from .prefilter import Prefilter, Term, prefilter
from .query import Query
from .record import BUFFER_KEYS, DATE_KEYS, HUB_KEYS, PACKED_KEYS, RECORD_KEYS, TEXT_KEYS, TaskRecord
from .sqlite_file import FileLock, connect, open_file, reporting

__all__ = ["SQLiteBackend", "SQLiteReader", "open_sqlite"]

# Rows that a reader has in hand at once.
_SLICE = 500
# What one transaction of `drop` and one step of `trim` forget at most: some milliseconds, and pages of the log.
_DROPPED = 500
_TRIMMED = 200
_TRIMMED_BYTES = 1 << 24
# Free pages are given back so many at a time.
_VACUUMED = 1000

_ALL_KEYS = frozenset((*RECORD_KEYS, *HUB_KEYS))
# The kinds of pieces.
_KINDS = {"stdout": 0, "stderr": 1, "buffers": 2, "result_buffers": 3}
_KEYS = tuple(key for key in (*RECORD_KEYS, *HUB_KEYS) if key not in TEXT_KEYS)
_TEXTS = frozenset(("msg_id", "client_uuid", "engine_uuid", "queue", "resubmitted"))
# What a hub takes up again has no use for these.
_UNFINISHED_KEYS = _ALL_KEYS - BUFFER_KEYS - {"content"}

# The keys whose length counts, beside that of their pieces.
_MEASURED = PACKED_KEYS | BUFFER_KEYS | {"execute_input", "custody"}

_ADD = f"INSERT INTO task ({', '.join(_KEYS)}, owner, size) VALUES ({', '.join('?' * len(_KEYS))}, ?, ?)"
_ADD_PIECE = "INSERT INTO piece (task, kind, size, data) SELECT arrival, ?, ?, ? FROM task WHERE msg_id = ?"
_REMOVE_PIECES = "DELETE FROM piece WHERE kind = ? AND task = (SELECT arrival FROM task WHERE msg_id = ?)"
_FORGET_PIECES = "DELETE FROM piece WHERE task IN (SELECT value FROM json_each(?))"
_FORGET = "DELETE FROM task WHERE arrival IN (SELECT value FROM json_each(?))"
_ARRIVALS = "SELECT arrival FROM task WHERE msg_id IN (SELECT value FROM json_each(?))"
_STILL_COMPLETED = (
    "SELECT arrival FROM task WHERE arrival IN (SELECT value FROM json_each(?)) AND completed IS NOT NULL"
)
_ACCOUNT = "UPDATE account SET records = records + ?, bytes = bytes + ?"
_BYTES = "size + ifnull((SELECT sum(size) FROM piece WHERE task = task.arrival), 0)"
_FINISHED = f"""
SELECT count(*), ifnull(sum({_BYTES}), 0) FROM task
WHERE {{}} IN (SELECT value FROM json_each(?)) AND completed IS NOT NULL"""
_FINISHED_BY_ID = _FINISHED.format("msg_id")
_FINISHED_BY_ARRIVAL = _FINISHED.format("arrival")
_AT = "WHERE arrival IN (SELECT value FROM json_each(?))"
_OLDEST = f"""
SELECT arrival, completed, {_BYTES} FROM task
WHERE completed IS NOT NULL ORDER BY completed, arrival LIMIT {_TRIMMED}"""
_PIECES = """
SELECT task, kind, data FROM piece
WHERE task IN (SELECT value FROM json_each(?)) AND (1 << kind) & ? ORDER BY task, number"""
_UNDELIVERED = """
SELECT received, arrival, msg_id, client_uuid FROM task
WHERE owed = 1 AND owner = :owner AND client_uuid IS NOT NULL
UNION
SELECT received, arrival, msg_id, client_uuid FROM task
WHERE received >= :since AND owner = :owner AND client_uuid IS NOT NULL
ORDER BY received, arrival"""


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _from_utf8(column: bytes) -> str:
    return column.decode("utf-8", "surrogatepass")


def _as_it_is(value: Any) -> Any:
    return value


def _coder(key: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]] | None:
    """How the values of a key, other than None, get into their column and back; None if they are there as they are."""
    if key in _TEXTS:
        return text_column, from_text
    if key in DATE_KEYS:
        return date_column, from_date
    others: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "label": (label_column, from_label),
        "execute_input": (_utf8, _from_utf8),
        "owed": (int, bool),
    }
    return others.get(key)


_CODERS = {key: coder for key in _KEYS if (coder := _coder(key)) is not None}


class _Plan:
    """How the values of some keys become those of their columns."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = [key for key in keys if key not in TEXT_KEYS]
        self.texts = [key for key in keys if key in TEXT_KEYS]
        self.buffers = [(index, key) for index, key in enumerate(self.keys) if key in BUFFER_KEYS]
        self._encoders = [(index, _CODERS[key][0]) for index, key in enumerate(self.keys) if key in _CODERS]
        self._measured = [index for index, key in enumerate(self.keys) if key in _MEASURED]
        # (to the right of =, a column has the value from before)
        sets = "".join(f"{key} = ?, " for key in self.keys)
        freed = "".join(f" - ifnull(length({key}), 0)" for key in self.keys if key in _MEASURED)
        self.update = f"UPDATE task SET {sets}size = size + ?{freed} WHERE msg_id = ?"

    def columns(self, row: list[Any]) -> int:
        """Turn values into columns, but buffers, and return how many bytes of those that count there are."""
        for index, encode in self._encoders:
            if row[index] is not None:
                row[index] = encode(row[index])
        size = 0
        for index in self._measured:
            if row[index] is not None:
                size += len(row[index])
        return size


@lru_cache(256)  # the hub changes the same keys together, again and again
def _plan(*keys: str) -> _Plan:
    return _Plan(keys)


_WHOLE = _Plan(_KEYS)
_values_of = attrgetter(*_KEYS)


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
    """See `trio_hub.store.backend.Backend`. Made by `open_sqlite`.

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
        """See `trio_hub.store.backend.Backend.write`."""
        batches = []
        batch = _Batch(self._owner)
        for change in changes:
            if change.msg_id in batch.msg_ids:  # what is done to one record keeps its order
                batches.append(batch)
                batch = _Batch(self._owner)
            batch.take(change)
        batches.append(batch)
        with self._transaction() as connection:
            for batch in batches:
                batch.carry_out(connection)

    def drop(self, query: Query) -> int:
        """See `trio_hub.store.backend.Backend.drop`. Records that come while it is at it stay."""
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
                dropped += _forget(connection, [row[0] for row in connection.execute(_STILL_COMPLETED, (listed,))])
        if dropped:
            self._give_space_back()
        return dropped

    def trim(self, keep: Keep, now: datetime) -> int:
        """See `trio_hub.store.backend.Backend.trim`. Gives some space back when there is much of it."""
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
            _forget(connection, leaving)
        if not leaving:
            self._give_some_space_back()
        return len(leaving)

    def reader(self) -> SQLiteReader:
        """See `trio_hub.store.backend.Backend.reader`."""
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
        """See `trio_hub.store.backend.Backend.size`."""
        total = 0
        for end in ("", "-wal"):
            with suppress(OSError):
                total += os.stat(f"{self.path}{end}").st_size
        return total

    def close(self) -> None:
        """See `trio_hub.store.backend.Backend.close`."""
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
        """All of it, to the disk."""
        while self._vacuum() > 0:
            pass
        with self._turns.one(), reporting(self.path):
            # a reader may be looking at what was there before: then the log shrinks later
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.execute("PRAGMA busy_timeout = 5000")

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


def _forget(connection: sqlite3.Connection, arrivals: list[int]) -> int:
    """Forget these records, and say how many there were."""
    listed = (json.dumps(arrivals),)
    ((records, size),) = connection.execute(_FINISHED_BY_ARRIVAL, listed)
    connection.execute(_ACCOUNT, (-records, -size))
    connection.execute(_FORGET_PIECES, listed)
    return connection.execute(_FORGET, listed).rowcount


class _Batch:
    """Changes to different records, sorted by statement: SQLite carries out one statement many times at a fraction."""

    def __init__(self, owner: str) -> None:
        self.msg_ids: set[str] = set()
        self._owner = owner
        self._removed: list[str] = []
        self._added: list[list[Any]] = []
        self._changed: list[str] = []
        self._updated: dict[str, list[list[Any]]] = {}
        self._pieces_removed: list[tuple[int, str]] = []
        self._pieces: list[tuple[int, int, Any, str]] = []

    def take(self, change: Change) -> None:
        self.msg_ids.add(change.msg_id)
        msg_id = text_column(change.msg_id)
        if change.removed:
            self._removed.append(msg_id)
            return
        if change.record is not None:
            self._add(msg_id, change.record)
        else:
            self._changed.append(msg_id)
        if change.changes:
            self._update(msg_id, change.changes)
        for key, texts in change.appended.items():
            self._append(msg_id, key, "".join(texts))

    def carry_out(self, connection: sqlite3.Connection) -> None:
        if self._removed:
            self._remove(connection, self._removed)
        changed = (json.dumps(self._changed),)
        ((records_before, size_before),) = connection.execute(_FINISHED_BY_ID, changed)
        if self._added:
            self._insert(connection)
            changed = (json.dumps([*self._changed, *(row[0] for row in self._added)]),)
        for statement, rows in self._updated.items():
            connection.executemany(statement, rows)
        if self._pieces_removed:
            connection.executemany(_REMOVE_PIECES, self._pieces_removed)
        if self._pieces:
            connection.executemany(_ADD_PIECE, self._pieces)
        ((records, size),) = connection.execute(_FINISHED_BY_ID, changed)
        if records != records_before or size != size_before:
            connection.execute(_ACCOUNT, (records - records_before, size - size_before))

    def _remove(self, connection: sqlite3.Connection, msg_ids: list[str]) -> None:
        _forget(connection, [row[0] for row in connection.execute(_ARRIVALS, (json.dumps(msg_ids),))])

    def _insert(self, connection: sqlite3.Connection) -> None:
        # Hardly ever is one there already, so nobody looks first.
        connection.execute("SAVEPOINT added")
        try:
            connection.executemany(_ADD, self._added)
        except sqlite3.IntegrityError:
            connection.execute("ROLLBACK TO added")
            self._remove(connection, [row[0] for row in self._added])
            connection.executemany(_ADD, self._added)
        connection.execute("RELEASE added")

    def _add(self, msg_id: str, record: TaskRecord) -> None:
        row = list(_values_of(record))
        self._keep_buffers(msg_id, _WHOLE, row)
        row += (self._owner, _WHOLE.columns(row))
        self._added.append(row)
        for key in TEXT_KEYS:
            self._append(msg_id, key, getattr(record, key))

    def _update(self, msg_id: str, changes: dict[str, Any]) -> None:
        plan = _plan(*changes)
        row = [changes[key] for key in plan.keys]
        self._keep_buffers(msg_id, plan, row)
        row += (plan.columns(row), msg_id)
        self._updated.setdefault(plan.update, []).append(row)
        for key in plan.texts:
            self._pieces_removed.append((_KINDS[key], msg_id))
            self._append(msg_id, key, changes[key])

    def _append(self, msg_id: str, key: str, text: str) -> None:
        if text:
            data = _utf8(text)
            self._pieces.append((_KINDS[key], len(data), data, msg_id))

    def _keep_buffers(self, msg_id: str, plan: _Plan, row: list[Any]) -> None:
        for index, key in plan.buffers:
            buffers = row[index]
            row[index], large = buffers_column(buffers)
            if large:
                # (small ones leave those of large ones before them, which does not happen, where nobody looks)
                self._pieces_removed.append((_KINDS[key], msg_id))
                self._pieces += ((_KINDS[key], len(chunk), chunk, msg_id) for chunk in buffer_chunks(buffers))


class SQLiteReader:
    """See `trio_hub.store.backend.Reader`. Made by `SQLiteBackend.reader`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, owner: str) -> None:
        self.path = path
        self._connection = connection
        self._owner = owner

    def begin(self) -> None:
        """See `trio_hub.store.backend.Reader.begin`."""
        with reporting(self.path):
            self._connection.execute("BEGIN")
            try:
                # what is seen is what is there at the first read
                self._connection.execute("SELECT records FROM account").fetchall()
            except BaseException:
                self.end()
                raise

    def get(self, msg_ids: Sequence[str]) -> dict[str, Kept]:
        """See `trio_hub.store.backend.Reader.get`."""
        listed = Term("msg_id", "in", tuple(dict.fromkeys(msg_ids)))
        with reporting(self.path):
            return {kept.record.msg_id: kept for kept in self._rows(*_where([listed]), _ALL_KEYS)}

    def find(self, query: Query, keys: Sequence[str], skip: Collection[str] = ()) -> list[Found]:
        """See `trio_hub.store.backend.Reader.find`."""
        filter = prefilter(query)
        wanted = frozenset((*keys, "submitted"))
        found: list[Found] = []
        with reporting(self.path):
            if filter.exact:
                found += _found(self._rows(*_where(filter.terms), wanted), keys, skip)
            else:
                # first no more than it takes to tell which match; they may be few
                matching = list(self._matching(query, filter))
                for start in range(0, len(matching), _SLICE):
                    arrivals = json.dumps(matching[start : start + _SLICE])
                    found += _found(self._rows(_AT, [arrivals], wanted), keys, skip)
        found.sort(key=lambda each: each.place)
        return found

    def history(self) -> list[tuple[tuple[bool, datetime, int], str]]:
        """See `trio_hub.store.backend.Reader.history`."""
        with reporting(self.path):
            found = []
            for condition in ("IS NOT NULL", "IS NULL"):
                found += [
                    (place_of(None if submitted is None else from_date(submitted), arrival), from_text(msg_id))
                    for submitted, arrival, msg_id in self._connection.execute(
                        f"SELECT submitted, arrival, msg_id FROM task WHERE submitted {condition} "
                        "ORDER BY submitted, arrival"
                    )
                ]
            return found

    def unfinished(self) -> list[Kept]:
        """See `trio_hub.store.backend.Reader.unfinished`."""
        with reporting(self.path):
            where = "WHERE completed IS NULL AND owner = ? ORDER BY arrival"
            return list(self._rows(where, [self._owner], _UNFINISHED_KEYS))

    def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """See `trio_hub.store.backend.Reader.undelivered`."""
        with reporting(self.path):
            latest = self._connection.execute(
                "SELECT received FROM task WHERE received IS NOT NULL AND owner = ? ORDER BY received DESC LIMIT 1",
                (self._owner,),
            ).fetchone()
            # (nothing is later than NULL)
            since = None if latest is None else max(latest[0] - window // timedelta(microseconds=1), -(1 << 63))
            rows = self._connection.execute(_UNDELIVERED, {"owner": self._owner, "since": since}).fetchall()
        return [(from_text(msg_id), from_text(client)) for _, _, msg_id, client in rows]

    def completed(self, query: Query) -> list[int]:
        """The numbers of arrival of the matching records that are completed."""
        filter = prefilter(query)
        filter = replace(filter, terms=(*filter.terms, Term("completed", "is not null")))
        with reporting(self.path):
            return list(self._matching(query, filter))

    def end(self) -> None:
        """See `trio_hub.store.backend.Reader.end`."""
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """See `trio_hub.store.backend.Reader.close`."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def _matching(self, query: Query, filter: Prefilter) -> Iterator[int]:
        """The numbers of arrival of the records that pass the terms and match."""
        where, values = _where(filter.terms)
        if filter.exact:
            for (arrival,) in self._connection.execute(f"SELECT arrival FROM task {where}", values):
                yield arrival
        else:
            for arrival, record in self._rows(where, values, filter.needs | {"msg_id"}, large=False):
                if query.matches(record):
                    yield arrival

    def _rows(self, where: str, values: Sequence[Any], keys: Collection[str], *, large: bool = True) -> Iterator[Kept]:
        """Records with these keys, and nothing in the others. If not ``large``, lists of large buffers are empty."""
        columns = [key for key in _KEYS if key in keys]
        decoders = [_CODERS[key][1] if key in _CODERS else _as_it_is for key in columns]
        texts = [(key, kind) for key, kind in _KINDS.items() if key in keys and key in TEXT_KEYS]
        buffers = [(key, kind) for key, kind in _KINDS.items() if key in keys and key in BUFFER_KEYS]
        mask = sum(1 << kind for _, kind in (*texts, *(buffers if large else ())))
        cursor = self._connection.execute(f"SELECT {', '.join(['arrival', *columns])} FROM task {where}", values)
        while rows := cursor.fetchmany(_SLICE):
            pieces = self._pieces([row[0] for row in rows], mask) if mask else {}
            for arrival, *row in rows:
                record = TaskRecord("")
                for key, decode, column in zip(columns, decoders, row, strict=True):
                    if column is not None:
                        setattr(record, key, decode(column))
                if pieces:
                    for key, kind in texts:
                        setattr(record, key, "".join(map(_from_utf8, pieces.get((arrival, kind), ()))))
                for key, kind in buffers:
                    packed = getattr(record, key)
                    if packed is not None:
                        chunks = pieces.get((arrival, kind), ())
                        setattr(record, key, from_buffers(packed, chunks) if large else ())
                yield Kept(arrival, record)

    def _pieces(self, arrivals: list[int], mask: int) -> dict[tuple[int, int], list[bytes]]:
        """The pieces of these records, of those kinds whose bit is set, by record and kind."""
        pieces: dict[tuple[int, int], list[bytes]] = {}
        for arrival, kind, data in self._connection.execute(_PIECES, (json.dumps(arrivals), mask)):
            pieces.setdefault((arrival, kind), []).append(data)
        return pieces


def _found(rows: Iterable[Kept], keys: Sequence[str], skip: Collection[str]) -> Iterator[Found]:
    for arrival, record in rows:
        if record.msg_id not in skip:
            yield Found(place_of(record.submitted, arrival), record.as_dict(keys))


def _where(terms: Iterable[Term]) -> tuple[str, list[Any]]:
    """These terms in SQL, and their values."""
    conditions = []
    values: list[Any] = []
    for column, comparison, value in terms:
        encode = _CODERS[column][0]
        match comparison:
            case "is null" | "is not null":
                conditions.append(f"{column} {comparison}")
            case "in" | "in or null":
                # (with one value, SQLite sees better which index to use)
                among = f"{column} = ?" if len(value) == 1 else f"{column} IN (SELECT value FROM json_each(?))"
                conditions.append(among if comparison == "in" else f"({among} OR {column} IS NULL)")
                columns = list(map(encode, value))
                values.append(columns[0] if len(columns) == 1 else json.dumps(columns))
            case _:
                conditions.append(f"{column} {comparison} ?")
                values.append(encode(value))
    return "WHERE " + " AND ".join(conditions) if conditions else "", values
