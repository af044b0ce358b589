"""Writes changes to the rows of an SQLite database. `trio_hub.databases.sqlite.schema` has the tables."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, count, product
from operator import attrgetter
from typing import Any, TypeAlias

from ...records.record import BUFFER_KEYS, DATE_KEYS, PACKED_KEYS, TEXT_KEYS, TaskRecord
from ..backend import Change
from ..columns import (
    buffer_chunks,
    buffers_column,
    date_column,
    from_date,
    from_label,
    from_text,
    label_column,
    text_column,
)
from .schema import BODIES, TASK_KEYS
from .segments import ChunkPlace

__all__ = ["BYTES", "CODERS", "KINDS", "Statements", "forget", "from_utf8"]

# The kinds of pieces, by key.
KINDS = {"stdout": 0, "stderr": 1, "buffers": 2, "result_buffers": 3}
_TEXTS = frozenset(("msg_id", "client_uuid", "engine_uuid", "queue", "resubmitted"))
# Keys with few different values, which come again and again.
_REPEATED = frozenset(("client_uuid", "engine_uuid", "queue"))
_known_text = lru_cache(1024)(text_column)
# Keys whose columns are bytes. They are bound as `bytearray`: for each `bytes` and each None, sqlite3 would search for
# an adapter, which takes longer than the rest of binding and writing it. (A registered one would be for all programs.)
_BLOBS = PACKED_KEYS | BUFFER_KEYS | {"custody"}

# The numbers of rows per statement. At each statement, Python's lock goes to the event loop, and has to be taken back.
_TOGETHER = (64, 16, 4, 1)

# The keys whose lengths count, in addition to the lengths of pieces.
_MEASURED = PACKED_KEYS | BUFFER_KEYS | {"execute_input", "custody"}

# The bytes that a record counts in the account.
BYTES = "size + ifnull((SELECT sum(size) FROM piece WHERE task = task.arrival), 0)"
_LISTED = "IN (SELECT value FROM json_each(?))"
_ADD_PIECE = "INSERT INTO piece (task, kind, size, data) VALUES (?, ?, ?, ?)"
_ADD_CHUNK = "INSERT INTO piece (task, kind, data, segment, position, size, checksum) VALUES (?, ?, x'', ?, ?, ?, ?)"
_SEGMENTS = f"SELECT DISTINCT segment FROM piece WHERE segment IS NOT NULL AND task {_LISTED}"
_REMOVE_PIECES = "DELETE FROM piece WHERE task = ? AND kind = ?"
_ACCOUNT = "UPDATE account SET records = records + ?, bytes = bytes + ?"
_FINISHED = f"""
SELECT count(*), ifnull(sum({BYTES}), 0) FROM task WHERE arrival {_LISTED} AND completed IS NOT NULL"""
# The answer is one row, since Python's lock would go to the event loop between two rows, too. Most are not finished.
_ARRIVALS = f"""
SELECT json_group_object(msg_id, arrival), count(completed),
    ifnull(sum(CASE WHEN completed IS NOT NULL THEN {BYTES} END), 0)
FROM task WHERE msg_id {_LISTED}"""
_FORGET = [f"DELETE FROM {table} WHERE task {_LISTED}" for table in ("piece", *BODIES)]
_FORGET_TASK = f"DELETE FROM task WHERE arrival {_LISTED}"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def from_utf8(column: bytes) -> str:
    return column.decode("utf-8", "surrogatepass")


def _coder(key: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]] | None:
    """Return the functions that convert a key's values to its column and back; None if they need no conversion."""
    if key in _TEXTS:
        return text_column, from_text
    if key in DATE_KEYS:
        return date_column, from_date
    others: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "label": (label_column, from_label),
        "execute_input": (_utf8, from_utf8),
        "owed": (int, bool),
        "note": (int, bool),
    }
    return others.get(key)


# For each key whose values are converted, the functions to the column and back. They are not called for None.
CODERS = {
    key: coder for key in (*TASK_KEYS, *chain.from_iterable(BODIES.values())) if (coder := _coder(key)) is not None
}


def _encoder(key: str) -> Callable[[Any], Any] | None:
    if key in _BLOBS:
        return bytearray
    if key in _REPEATED:
        return _known_text
    return CODERS[key][0] if key in CODERS else None


class _Plan:
    """Converts the values of some keys to a row, and has the statements that write so many such rows to a table."""

    def __init__(self, keys: Sequence[str], statements: dict[int, str]) -> None:
        self.keys = keys
        self.statements = statements
        self.buffers = [(index, key) for index, key in enumerate(keys) if key in BUFFER_KEYS]
        self._encoders = [
            (index, encoder)
            for index, key in enumerate(keys)
            if key != "msg_id" and (encoder := _encoder(key)) is not None  # the caller has encoded the msg_id
        ]
        self._measured = [index for index, key in enumerate(keys) if key in _MEASURED]

    def encode(self, row: list[Any]) -> int:
        """Convert the values of a row, except buffers, in place. Return the bytes of the values whose lengths count."""
        for index, encode in self._encoders:
            value = row[index]
            if value is not None:
                row[index] = encode(value)
        size = 0
        for index in self._measured:
            value = row[index]
            if value is not None:
                size += len(value)
        return size


class _ChangePlan(_Plan):
    """A plan for the changes of an existing record, given all keys that change, in all tables.

    The row for ``task`` begins with the arrival number. It ends with the new bytes of the changed keys whose lengths
    count, if there are such keys.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        own = [key for key in TASK_KEYS if key in keys]
        self.texts = [key for key in keys if key in TEXT_KEYS]
        self.bodies = {
            table: _body_plan(table, *there)
            for table, of in BODIES.items()
            if (there := [key for key in of if key in keys])
        }
        self.resizes = not _MEASURED.isdisjoint(keys)
        # (to the right of =, a column of the table has the value from before; columnN are SQLite's names in VALUES)
        sets = [f"{key} = column{number}" for number, key in enumerate(own, 2)]
        if self.resizes:
            freed = "".join(f" - ifnull(length({key}), 0)" for key in own if key in _MEASURED)
            for table, plan in self.bodies.items():
                length = " + ".join(f"ifnull(length({key}), 0)" for key in plan.keys)
                freed += f" - ifnull((SELECT {length} FROM {table} WHERE task = column1), 0)"
            sets.append(f"size = size + column{2 + len(own)}{freed}")
        before = f"UPDATE task SET {', '.join(sets)} FROM (VALUES "
        statements = _statements(before, 1 + len(sets), ") WHERE arrival = column1") if sets else {}
        super().__init__(own, statements)


def _statements(before: str, width: int, after: str = "") -> dict[int, str]:
    row = f"({', '.join('?' * width)})"
    return {rows: before + ", ".join([row] * rows) + after for rows in _TOGETHER}


@lru_cache(256)  # the hub changes the same keys together, again and again
def _change_plan(*keys: str) -> _ChangePlan:
    return _ChangePlan(keys)


@lru_cache(256)
def _body_plan(table: str, *keys: str) -> _Plan:
    """Return the plan that writes a row of the table ``request`` or ``result``: it adds the row, or changes it.

    The first value of a row is the arrival number of its task. The values of `keys` follow.
    """
    changes = ", ".join(f"{key} = excluded.{key}" for key in keys)
    before = f"INSERT INTO {table} (task, {', '.join(keys)}) VALUES "
    return _Plan(keys, _statements(before, 1 + len(keys), f" ON CONFLICT (task) DO UPDATE SET {changes}"))


def _new_plan(table: str, *left_out: str) -> tuple[_Plan, Callable[[TaskRecord], tuple[Any, ...]]]:
    """Return the plan for a new record's row in a table without some keys, and the function that gets the others.

    The row for ``task`` begins with the arrival number and the owner, and ends with the size.
    """
    keys = [key for key in BODIES.get(table, TASK_KEYS) if key not in left_out]
    if table in BODIES:
        return _body_plan(table, *keys), attrgetter(*keys)
    before = f"INSERT INTO task (arrival, owner, {', '.join(keys)}, size) VALUES "
    return _Plan(keys, _statements(before, 3 + len(keys))), attrgetter(*keys)


# The plans for new rows. Keys that a new record seldom has are left out if it has none of them, see `_BLOBS`.
_OF_THE_END = ("started", "completed", "received")
_OF_OUTPUT = ("execute_input", "execute_result", "error")
_SELDOM = ("resubmitted", "label")
_NEW_TASK = {
    (seldom, finished, sent): _new_plan(
        "task",
        *(() if seldom else _SELDOM),
        *(() if finished else _OF_THE_END),
        *(() if sent else ("engine_uuid",)),
    )
    for seldom, finished, sent in product((False, True), repeat=3)
}
_MSG_ID = TASK_KEYS.index("msg_id")  # it is the first key, so its place is the same in all plans
_NEW_REQUEST = _new_plan("request")
_NEW_RESULT = {output: _new_plan("result", *(() if output else _OF_OUTPUT)) for output in (False, True)}
_Rows: TypeAlias = dict[_Plan, list[list[Any]]]


def forget(connection: sqlite3.Connection, arrivals: list[int], freed: set[int]) -> int:
    """Delete the records with these arrival numbers. Return the number of deleted records.

    The segments that have buffers of these records are added to ``freed``.
    """
    listed = (json.dumps(arrivals),)
    freed |= _segments_of(connection, arrivals)
    ((records, size),) = connection.execute(_FINISHED, listed)
    connection.execute(_ACCOUNT, (-records, -size))
    for statement in _FORGET:
        connection.execute(statement, listed)
    return connection.execute(_FORGET_TASK, listed).rowcount


def _segments_of(connection: sqlite3.Connection, arrivals: list[int]) -> set[int]:
    """Return the segments that have buffers of these records."""
    return {number for (number,) in connection.execute(_SEGMENTS, (json.dumps(arrivals),))}


class Statements:
    """Changes of different records, grouped by plan: one statement for many rows costs a fraction of many statements.

    Until the changes are carried out, each row begins with the encoded msg_id instead of the arrival number.

    Attributes:
        msg_ids: The records that change.
        chunks: The chunks of large buffers, which have to be in segments before `carry_out` is called.
        freed: After `carry_out`, the segments in which records had buffers that were dropped.
    """

    def __init__(self, owner: str) -> None:
        self.msg_ids: set[str] = set()
        self.chunks: list[memoryview] = []
        self.freed: set[int] = set()
        self._owner = owner
        self._removed: list[str] = []
        self._added: list[str] = []
        self._changed: list[str] = []
        self._finished: list[str] = []  # among the added
        self._new: _Rows = {}
        self._changes: _Rows = {}
        self._bodies: _Rows = {}  # rows of requests and of results
        self._pieces_removed: list[list[Any]] = []
        self._pieces: list[list[Any]] = []
        self._chunks: list[list[Any]] = []  # of `chunks`, the records and kinds

    def take(self, change: Change) -> None:
        self.msg_ids.add(change.msg_id)
        msg_id = text_column(change.msg_id)
        if change.removed:
            self._removed.append(msg_id)
            return
        if change.record is not None:
            self._added.append(msg_id)
            self._add(msg_id, change.record)
            if change.record.completed is not None:
                self._finished.append(msg_id)
        else:
            self._changed.append(msg_id)
            if change.changes:
                self._change(msg_id, change.changes)
        for key, texts in change.appended.items():
            self._append(msg_id, key, "".join(texts))

    def carry_out(self, connection: sqlite3.Connection, places: Sequence[ChunkPlace]) -> None:
        """Write all changes. ``places`` are the places of the `chunks`. Call this once."""
        if self._removed:
            forget(connection, list(_find(connection, self._removed)[0].values()), self.freed)
        arrivals, records_before, size_before = _find(connection, self._changed)
        finished = list(arrivals.values())
        if self._added:
            self._insert(connection, arrivals)
            finished += [arrivals[msg_id] for msg_id in self._finished]
        # Rows of `task` first: their statements read the sizes of the values that the other rows replace.
        for plan, rows in chain(self._changes.items(), self._bodies.items()):
            _carry_out(connection, plan.statements, _numbered(rows, arrivals))
        if self._pieces_removed:
            removed = _numbered(self._pieces_removed, arrivals)
            self.freed |= _segments_of(connection, [row[0] for row in removed])
            connection.executemany(_REMOVE_PIECES, removed)
        if self._pieces:
            connection.executemany(_ADD_PIECE, _numbered(self._pieces, arrivals))
        if self._chunks:
            rows = [[*row, *place] for row, place in zip(self._chunks, places, strict=True)]
            existing = _numbered(rows, arrivals)
            if len(existing) < len(rows):  # some records were removed before, so nothing needs their chunks
                self.freed |= {place.segment for place in places}
            connection.executemany(_ADD_CHUNK, existing)
        ((records, size),) = connection.execute(_FINISHED, (json.dumps(finished),))
        if records != records_before or size != size_before:
            connection.execute(_ACCOUNT, (records - records_before, size - size_before))

    def _insert(self, connection: sqlite3.Connection, arrivals: dict[str, int]) -> None:
        """Insert the rows of ``task``, and add their arrival numbers to ``arrivals``."""
        ((arrived,),) = connection.execute("SELECT arrivals FROM account")
        connection.execute("UPDATE account SET arrivals = arrivals + ?", (len(self._added),))
        arrivals.update(zip(self._added, count(arrived + 1)))
        new = [(plan.statements, _numbered(rows, arrivals)) for plan, rows in self._new.items()]
        # A record hardly ever exists already, so this is not checked first.
        connection.execute("SAVEPOINT added")
        try:
            for statements, rows in new:
                _carry_out(connection, statements, rows)
        except sqlite3.IntegrityError:
            connection.execute("ROLLBACK TO added")
            forget(connection, list(_find(connection, self._added)[0].values()), self.freed)
            for statements, rows in new:
                _carry_out(connection, statements, rows)
        connection.execute("RELEASE added")

    def _add(self, msg_id: str, record: TaskRecord) -> None:
        seldom = record.resubmitted is not None or record.label is not None
        finished = record.started is not None or record.completed is not None or record.received is not None
        output = record.execute_input is not None or record.execute_result is not None or record.error is not None
        plan, values_of = _NEW_TASK[seldom, finished, record.engine_uuid is not None]
        row = list(values_of(record))
        size = plan.encode(row)
        row[_MSG_ID] = msg_id
        for body, body_of in (_NEW_REQUEST, _NEW_RESULT[output]):
            values = body_of(record)
            if values.count(None) < len(values):
                size += self._put(body, msg_id, list(values))
        self._new.setdefault(plan, []).append([msg_id, self._owner, *row, size])
        if record.stdout or record.stderr:
            for key in TEXT_KEYS:
                self._append(msg_id, key, getattr(record, key))

    def _change(self, msg_id: str, changes: dict[str, Any]) -> None:
        plan = _change_plan(*changes)
        row = [changes[key] for key in plan.keys]
        size = plan.encode(row)
        for body in plan.bodies.values():
            size += self._put(body, msg_id, [changes[key] for key in body.keys])
        if plan.resizes:
            row.append(size)
        if row:
            self._changes.setdefault(plan, []).append([msg_id, *row])
        for key in plan.texts:
            self._pieces_removed.append([msg_id, KINDS[key]])
            self._append(msg_id, key, changes[key])

    def _put(self, plan: _Plan, msg_id: str, row: list[Any]) -> int:
        """Note a row of ``request`` or ``result``. Return its size in bytes."""
        for index, key in plan.buffers:
            buffers = row[index]
            row[index], large = buffers_column(buffers)
            if large:
                # (Small buffers leave the chunks of earlier large ones. That does not happen, and would do no harm.)
                kind = KINDS[key]
                self._pieces_removed.append([msg_id, kind])
                chunks = list(buffer_chunks(buffers))
                self.chunks += chunks
                self._chunks += ([msg_id, kind] for _ in chunks)
        size = plan.encode(row)
        self._bodies.setdefault(plan, []).append([msg_id, *row])
        return size

    def _append(self, msg_id: str, key: str, text: str) -> None:
        if text:
            data = _utf8(text)
            self._pieces.append([msg_id, KINDS[key], len(data), data])


def _find(connection: sqlite3.Connection, msg_ids: list[str]) -> tuple[dict[str, int], int, int]:
    """Return the arrival numbers of existing records, by msg_id, and the number and bytes of the finished ones."""
    if not msg_ids:
        return {}, 0, 0
    ((arrivals, records, size),) = connection.execute(_ARRIVALS, (json.dumps(msg_ids),))
    return json.loads(arrivals), records, size


def _numbered(rows: list[list[Any]], arrivals: dict[str, int]) -> list[list[Any]]:
    """Return the rows of existing records, with arrival numbers instead of msg_ids."""
    for row in rows:
        row[0] = arrivals.get(row[0])
    return [row for row in rows if row[0] is not None]


def _carry_out(connection: sqlite3.Connection, statements: dict[int, str], rows: list[list[Any]]) -> None:
    start = 0
    for number in _TOGETHER:
        while len(rows) - start >= number:
            connection.execute(statements[number], list(chain.from_iterable(rows[start : start + number])))
            start += number
