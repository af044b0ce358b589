"""Reads records from an SQLite database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from ...errors import StoreError
from ...records.history import Place, place_of
from ...records.query import Query
from ...records.record import BUFFER_KEYS, HUB_KEYS, RECORD_KEYS, TEXT_KEYS, TaskRecord
from ..backend import LAST_ARRIVAL, Found, StoredRecord
from ..columns import from_buffers, from_date, from_text
from ..prefilter import Prefilter, Term, prefilter
from .file import reporting
from .schema import BODIES, TASK_KEYS
from .segments import ChunkLost, ChunkPlace, SegmentFiles, Snapshots, UnreadableBuffers
from .writing import CODERS, KINDS, from_utf8

__all__ = ["SQLiteReader"]

# The number of rows that are read at a time.
_SLICE = 500

_ALL_KEYS = frozenset((*RECORD_KEYS, *HUB_KEYS))
# A hub that takes over unfinished requests does not need content and buffers yet.
_UNFINISHED_KEYS = _ALL_KEYS - BUFFER_KEYS - {"content"}

_AT = "WHERE arrival IN (SELECT value FROM json_each(?))"
_PIECES = """
SELECT task, kind, data, segment, position, size, checksum FROM piece
WHERE task IN (SELECT value FROM json_each(?)) AND (1 << kind) & ? ORDER BY task, number"""
_UNDELIVERED = """
SELECT received, arrival, msg_id, client_uuid FROM task
WHERE owed = 1 AND owner = :owner AND client_uuid IS NOT NULL
UNION
SELECT received, arrival, msg_id, client_uuid FROM task
WHERE received >= :since AND owner = :owner AND client_uuid IS NOT NULL
ORDER BY received, arrival"""


class SQLiteReader:
    """See `trio_hub.databases.backend.Reader`. Made by `SQLiteBackend.reader`."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, owner: str, snapshots: Snapshots | None = None
    ) -> None:
        self.path = path
        self._files = SegmentFiles(path)
        self._snapshots = Snapshots() if snapshots is None else snapshots
        self._connection = connection
        self._owner = owner
        self.interrupted = False

    def begin(self) -> int:
        """See `trio_hub.databases.backend.Reader.begin`."""
        self._snapshots.begin(self)
        with reporting(self.path):
            self._connection.execute("BEGIN")
            try:
                # The first read takes the snapshot.
                ((batch,),) = self._connection.execute("SELECT batch FROM account").fetchall()
            except BaseException:
                self.end()
                raise
        return int(batch)

    def get(self, msg_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """See `trio_hub.databases.backend.Reader.get`."""
        listed = Term("msg_id", "in", tuple(dict.fromkeys(msg_ids)))
        with reporting(self.path):
            return {kept.record.msg_id: kept for kept in self._rows(*_where([listed]), _ALL_KEYS)}

    def find(self, query: Query, keys: Sequence[str], skip: Container[str] = ()) -> list[Found]:
        """See `trio_hub.databases.backend.Reader.find`."""
        filter = prefilter(query)
        wanted = frozenset((*keys, "submitted"))
        found: list[Found] = []
        with reporting(self.path):
            if filter.exact:
                found += _found(self._rows(*_where(filter.terms, "note = 0"), wanted), keys, skip)
            else:
                # First read only the keys that show which records match, since few may match.
                matching = list(self._matching(query, filter))
                for start in range(0, len(matching), _SLICE):
                    arrivals = json.dumps(matching[start : start + _SLICE])
                    found += _found(self._rows(_AT, [arrivals], wanted), keys, skip)
        found.sort(key=lambda each: each.place)
        return found

    def history(self) -> list[tuple[Place, str]]:
        """See `trio_hub.databases.backend.Reader.history`."""
        with reporting(self.path):
            found = []
            for condition in ("IS NOT NULL", "IS NULL"):
                found += [
                    (_place(submitted, arrival), from_text(msg_id))
                    for submitted, arrival, msg_id in self._connection.execute(
                        f"SELECT submitted, arrival, msg_id FROM task WHERE submitted {condition} AND note = 0 "
                        "ORDER BY submitted, arrival"
                    )
                ]
            return found

    def recent(self, limit: int, before: Place | None, skip: Collection[str]) -> list[tuple[Place, str]]:
        """See `trio_hub.databases.backend.Reader.recent`. Reads along the index of the times of submission."""
        unknown, moment, arrival = (True, None, LAST_ARRIVAL) if before is None else before
        if not unknown:
            values = [CODERS["submitted"][0](moment), arrival]
            return self._backwards("(submitted, arrival) < (?, ?)", values, limit, skip)
        found = self._backwards("submitted IS NULL AND arrival < ?", [arrival], limit, skip)
        if len(found) < limit:
            found += self._backwards("submitted IS NOT NULL", [], limit - len(found), skip)
        return found

    def _backwards(
        self, where: str, values: Sequence[Any], limit: int, skip: Collection[str]
    ) -> list[tuple[Place, str]]:
        found: list[tuple[Place, str]] = []
        with reporting(self.path), closing(self._connection.cursor()) as rows:
            rows.execute(
                f"SELECT submitted, arrival, msg_id FROM task WHERE {where} AND note = 0 "
                "ORDER BY submitted DESC, arrival DESC LIMIT ?",
                [*values, limit + len(skip)],
            )
            for submitted, arrival, msg_id in rows:
                self._go_on()
                text = from_text(msg_id)
                if text not in skip:
                    found.append((_place(submitted, arrival), text))
                if len(found) == limit:
                    break
        return found

    def count(self) -> int:
        """See `trio_hub.databases.backend.Reader.count`. The finished records were counted when they were written."""
        with reporting(self.path):
            ((number,),) = self._connection.execute(
                "SELECT records + (SELECT count(*) FROM task WHERE completed IS NULL) "
                "- (SELECT count(*) FROM task WHERE note = 1) FROM account"
            ).fetchall()
        return int(number)

    def unfinished(self) -> list[StoredRecord]:
        """See `trio_hub.databases.backend.Reader.unfinished`."""
        with reporting(self.path):
            where = "WHERE completed IS NULL AND owner = ? AND note = 0 ORDER BY arrival"
            return list(self._rows(where, [self._owner], _UNFINISHED_KEYS))

    def notes(self) -> list[StoredRecord]:
        """See `trio_hub.databases.backend.Reader.notes`."""
        with reporting(self.path):
            return list(self._rows("WHERE note = 1 AND owner = ? ORDER BY arrival", [self._owner], _ALL_KEYS))

    def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """See `trio_hub.databases.backend.Reader.undelivered`."""
        with reporting(self.path):
            latest = self._connection.execute(
                "SELECT received FROM task WHERE received IS NOT NULL AND owner = ? ORDER BY received DESC LIMIT 1",
                (self._owner,),
            ).fetchone()
            # (With NULL, no record is within the window.)
            since = None if latest is None else max(latest[0] - window // timedelta(microseconds=1), -(1 << 63))
            rows = self._connection.execute(_UNDELIVERED, {"owner": self._owner, "since": since}).fetchall()
        return [(from_text(msg_id), from_text(client)) for _, _, msg_id, client in rows]

    def completed(self, query: Query) -> list[int]:
        """See `trio_hub.databases.backend.Reader.completed`."""
        filter = prefilter(query)
        filter = replace(filter, terms=(*filter.terms, Term("completed", "is not null")))
        with reporting(self.path):
            return list(self._matching(query, filter))

    def interrupt(self) -> None:
        """See `trio_hub.databases.backend.Reader.interrupt`. The call first handles the row that it has read."""
        self.interrupted = True
        with suppress(sqlite3.Error):
            self._connection.interrupt()

    def end(self) -> None:
        """See `trio_hub.databases.backend.Reader.end`."""
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        self._snapshots.end(self)

    def close(self) -> None:
        """See `trio_hub.databases.backend.Reader.close`."""
        with suppress(sqlite3.Error):
            self._connection.close()
        self._snapshots.end(self)

    def _matching(self, query: Query, filter: Prefilter) -> Iterator[int]:
        """Yield the arrival numbers of the records that pass the terms and match."""
        where, values = _where(filter.terms, "note = 0")
        if filter.exact:
            for (arrival,) in self._connection.execute(f"SELECT arrival FROM task {where}", values):
                self._go_on()
                yield arrival
        else:
            if not filter.terms:
                # Without ORDER BY, SQLite may read in the order of the index of msg_ids, and so jump about in the file.
                where += " ORDER BY arrival"
            for arrival, record in self._rows(where, values, filter.needs | {"msg_id"}, large=False):
                if query.matches(record):
                    yield arrival

    def _rows(
        self, where: str, values: Sequence[Any], keys: Collection[str], *, large: bool = True
    ) -> Iterator[StoredRecord]:
        """Yield records with only these keys set. Unless ``large``, lists of large buffers are empty."""
        columns = [key for key in TASK_KEYS if key in keys]
        tables = "task"
        for table, of in BODIES.items():
            if there := [key for key in of if key in keys]:
                columns += there
                tables += f" LEFT JOIN {table} ON {table}.task = arrival"
        decoders = [CODERS[key][1] if key in CODERS else None for key in columns]
        texts = [(key, kind) for key, kind in KINDS.items() if key in keys and key in TEXT_KEYS]
        buffers = [(key, kind) for key, kind in KINDS.items() if key in keys and key in BUFFER_KEYS]
        mask = sum(1 << kind for _, kind in (*texts, *(buffers if large else ())))
        cursor = self._connection.execute(f"SELECT {', '.join(['arrival', *columns])} FROM {tables} {where}", values)
        while rows := cursor.fetchmany(_SLICE):
            pieces, unreadable = self._pieces([row[0] for row in rows], mask) if mask else ({}, {})
            for arrival, *row in rows:
                self._go_on()
                record = TaskRecord("")
                for key, decode, column in zip(columns, decoders, row, strict=True):
                    if column is not None:
                        setattr(record, key, column if decode is None else decode(column))
                if pieces:
                    for key, kind in texts:
                        setattr(record, key, "".join(map(from_utf8, pieces.get((arrival, kind), ()))))
                for key, kind in buffers:
                    packed = getattr(record, key)
                    if (arrival, kind) in unreadable:
                        setattr(record, key, UnreadableBuffers(key, record.msg_id, unreadable[arrival, kind]))
                    elif packed is not None:
                        chunks = pieces.get((arrival, kind), ())
                        setattr(record, key, from_buffers(packed, chunks) if large else ())
                yield StoredRecord(arrival, record)

    def _go_on(self) -> None:
        """Raise `StoreError` if the reader was interrupted. `sqlite3` does not notice that between two rows."""
        if self.interrupted:
            raise StoreError(f"{self.path}: the query was interrupted")

    def _pieces(
        self, arrivals: list[int], mask: int
    ) -> tuple[dict[tuple[int, int], list[bytes]], dict[tuple[int, int], ChunkLost]]:
        """Return the pieces of these records, and why some cannot be read, each by record and kind.

        ``mask`` has a bit for each wanted kind.
        """
        pieces: dict[tuple[int, int], list[bytes]] = {}
        unreadable: dict[tuple[int, int], ChunkLost] = {}
        for arrival, kind, data, *place in self._connection.execute(_PIECES, (json.dumps(arrivals), mask)):
            if place[0] is not None:
                self._go_on()
                try:
                    data = self._files.read(ChunkPlace(*place))
                except ChunkLost as error:
                    unreadable[arrival, kind] = error
                    continue
            pieces.setdefault((arrival, kind), []).append(data)
        return pieces, unreadable


def _place(submitted: int | None, arrival: int) -> Place:
    """Return the place of a row in the history."""
    return place_of(None if submitted is None else from_date(submitted), arrival)


def _found(rows: Iterable[StoredRecord], keys: Sequence[str], skip: Container[str]) -> Iterator[Found]:
    for arrival, record in rows:
        if record.msg_id not in skip:
            yield Found(place_of(record.submitted, arrival), record.as_dict(keys))


def _where(terms: Iterable[Term], *more: str) -> tuple[str, list[Any]]:
    """Return terms and ``more`` conditions in SQL, and the values of the terms."""
    conditions = list(more)
    values: list[Any] = []
    for column, comparison, value in terms:
        encode = CODERS[column][0]
        match comparison:
            case "is null" | "is not null":
                conditions.append(f"{column} {comparison}")
            case "in" | "in or null":
                # (With one value, SQLite chooses the index better.)
                among = f"{column} = ?" if len(value) == 1 else f"{column} IN (SELECT value FROM json_each(?))"
                conditions.append(among if comparison == "in" else f"({among} OR {column} IS NULL)")
                columns = list(map(encode, value))
                values.append(columns[0] if len(columns) == 1 else json.dumps(columns))
            case _:
                conditions.append(f"{column} {comparison} ?")
                values.append(encode(value))
    return "WHERE " + " AND ".join(conditions) if conditions else "", values
