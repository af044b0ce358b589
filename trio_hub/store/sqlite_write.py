"""How changes get into the rows of an SQLite database of records.

One row per task, which is written when the task comes and when its result does. What grows afterwards (output) or is
large (buffers) has rows of its own, *pieces*, so that none of it is written twice, nor read by who does not want it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, compress
from operator import attrgetter
from typing import Any

from .backend import Change
from .columns import (
    buffer_chunks,
    buffers_column,
    date_column,
    from_date,
    from_label,
    from_text,
    label_column,
    text_column,
)
from .record import BUFFER_KEYS, DATE_KEYS, HUB_KEYS, PACKED_KEYS, RECORD_KEYS, TEXT_KEYS, TaskRecord

__all__ = ["BYTES", "CODERS", "KEYS", "KINDS", "Statements", "forget", "from_utf8"]

# The kinds of pieces.
KINDS = {"stdout": 0, "stderr": 1, "buffers": 2, "result_buffers": 3}
# The keys that have a column.
KEYS = tuple(key for key in (*RECORD_KEYS, *HUB_KEYS) if key not in TEXT_KEYS)
_MSG_ID = KEYS.index("msg_id")  # it is always there
_TEXTS = frozenset(("msg_id", "client_uuid", "engine_uuid", "queue", "resubmitted"))
# The same few, again and again.
_REPEATED = frozenset(("client_uuid", "engine_uuid", "queue"))
_known_text = lru_cache(1024)(text_column)

# How many rows one statement takes. Before each, Python's lock goes to the event loop, and has to be won back.
_TOGETHER = (32, 8, 1)

# The keys whose length counts, beside that of their pieces.
_MEASURED = PACKED_KEYS | BUFFER_KEYS | {"execute_input", "custody"}

_ADD_PIECE = "INSERT INTO piece (task, kind, size, data) SELECT arrival, ?, ?, ? FROM task WHERE msg_id = ?"
_REMOVE_PIECES = "DELETE FROM piece WHERE kind = ? AND task = (SELECT arrival FROM task WHERE msg_id = ?)"
_FORGET_PIECES = "DELETE FROM piece WHERE task IN (SELECT value FROM json_each(?))"
_FORGET = "DELETE FROM task WHERE arrival IN (SELECT value FROM json_each(?))"
_ARRIVALS = "SELECT arrival FROM task WHERE msg_id IN (SELECT value FROM json_each(?))"
_ACCOUNT = "UPDATE account SET records = records + ?, bytes = bytes + ?"
# How much of the file a record takes up, as the account has it.
BYTES = "size + ifnull((SELECT sum(size) FROM piece WHERE task = task.arrival), 0)"
_FINISHED = f"""
SELECT count(*), ifnull(sum({BYTES}), 0) FROM task
WHERE {{}} IN (SELECT value FROM json_each(?)) AND completed IS NOT NULL"""
_FINISHED_BY_ID = _FINISHED.format("msg_id")
_FINISHED_BY_ARRIVAL = _FINISHED.format("arrival")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def from_utf8(column: bytes) -> str:
    return column.decode("utf-8", "surrogatepass")


def _coder(key: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]] | None:
    """How the values of a key, other than None, get into their column and back; None if they are there as they are."""
    if key in _TEXTS:
        return text_column, from_text
    if key in DATE_KEYS:
        return date_column, from_date
    others: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "label": (label_column, from_label),
        "execute_input": (_utf8, from_utf8),
        "owed": (int, bool),
    }
    return others.get(key)


# For each key whose values are not there as they are: how they get into their column, and back.
CODERS = {key: coder for key in KEYS if (coder := _coder(key)) is not None}


class _Plan:
    """How the values of some keys become those of their columns."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = [key for key in keys if key not in TEXT_KEYS]
        self.texts = [key for key in keys if key in TEXT_KEYS]
        self.buffers = [(index, key) for index, key in enumerate(self.keys) if key in BUFFER_KEYS]
        self._encoders = [
            (index, _known_text if key in _REPEATED else CODERS[key][0])
            for index, key in enumerate(self.keys)
            if key in CODERS and key != "msg_id"  # which whoever makes the row has encoded
        ]
        self._measured = [index for index, key in enumerate(self.keys) if key in _MEASURED]
        # (to the right of =, a column of the table has the value from before; columnN are SQLite's names in VALUES)
        sets = "".join(f"{key} = column{number}, " for number, key in enumerate(self.keys, 1))
        freed = "".join(f" - ifnull(length({key}), 0)" for key in self.keys if key in _MEASURED)
        width = len(self.keys)
        row = f"({'?, ' * width}?, ?, ?)"
        add = f"INSERT INTO task ({', '.join(self.keys)}, owner, size, arrival) VALUES "
        self.add = {rows: add + ", ".join([row] * rows) for rows in _TOGETHER}
        row = f"({'?, ' * width}?, ?)"
        update = f"UPDATE task SET {sets}size = size + column{width + 1}{freed} FROM (VALUES "
        self.update = {
            rows: f"{update}{', '.join([row] * rows)}) WHERE msg_id = column{width + 2}" for rows in _TOGETHER
        }

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


@lru_cache(256)
def _plan_where(there: tuple[bool, ...]) -> _Plan:
    return _Plan([key for key, is_there in zip(KEYS, there, strict=True) if is_there])


_values_of = attrgetter(*KEYS)


def forget(connection: sqlite3.Connection, arrivals: list[int]) -> int:
    """Forget these records, and say how many there were."""
    listed = (json.dumps(arrivals),)
    ((records, size),) = connection.execute(_FINISHED_BY_ARRIVAL, listed)
    connection.execute(_ACCOUNT, (-records, -size))
    connection.execute(_FORGET_PIECES, listed)
    return connection.execute(_FORGET, listed).rowcount


def _carry_out(connection: sqlite3.Connection, statements: dict[int, str], rows: list[list[Any]]) -> None:
    start = 0
    for number in _TOGETHER:
        while len(rows) - start >= number:
            connection.execute(statements[number], list(chain.from_iterable(rows[start : start + number])))
            start += number


class Statements:
    """Changes to different records, sorted by plan: SQLite carries out one statement for many rows at a fraction."""

    def __init__(self, owner: str) -> None:
        self.msg_ids: set[str] = set()
        self._owner = owner
        self._removed: list[str] = []
        self._added: dict[_Plan, list[list[Any]]] = {}
        self._arrivals = 0
        self._changed: list[str] = []
        self._maybe_finished: list[str] = []  # among the added
        self._updated: dict[_Plan, list[list[Any]]] = {}
        self._pieces_removed: list[tuple[int, str]] = []
        self._pieces: list[tuple[int, int, Any, str]] = []

    def take(self, change: Change) -> None:
        self.msg_ids.add(change.msg_id)
        msg_id = text_column(change.msg_id)
        if change.removed:
            self._removed.append(msg_id)
            return
        if change.record is None:
            self._changed.append(msg_id)
        else:
            self._add(msg_id, change.record)
            if change.record.completed is not None or change.changes:
                self._maybe_finished.append(msg_id)
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
            changed = (json.dumps(self._changed + self._maybe_finished),)
        for plan, rows in self._updated.items():
            _carry_out(connection, plan.update, rows)
        if self._pieces_removed:
            connection.executemany(_REMOVE_PIECES, self._pieces_removed)
        if self._pieces:
            connection.executemany(_ADD_PIECE, self._pieces)
        ((records, size),) = connection.execute(_FINISHED_BY_ID, changed)
        if records != records_before or size != size_before:
            connection.execute(_ACCOUNT, (records - records_before, size - size_before))

    def _remove(self, connection: sqlite3.Connection, msg_ids: list[str]) -> None:
        forget(connection, [row[0] for row in connection.execute(_ARRIVALS, (json.dumps(msg_ids),))])

    def _insert(self, connection: sqlite3.Connection) -> None:
        ((arrivals,),) = connection.execute("SELECT arrivals FROM account")
        for rows in self._added.values():
            for row in rows:
                row[-1] += arrivals
        connection.execute("UPDATE account SET arrivals = arrivals + ?", (self._arrivals,))
        # Hardly ever is one there already, so nobody looks first.
        connection.execute("SAVEPOINT added")
        try:
            self._insert_all(connection)
        except sqlite3.IntegrityError:
            connection.execute("ROLLBACK TO added")
            self._remove(connection, [row[0] for rows in self._added.values() for row in rows])
            self._insert_all(connection)
        connection.execute("RELEASE added")

    def _insert_all(self, connection: sqlite3.Connection) -> None:
        for plan, rows in self._added.items():
            _carry_out(connection, plan.add, rows)

    def _add(self, msg_id: str, record: TaskRecord) -> None:
        values = _values_of(record)
        # half of them are None, each of which would cost half a microsecond to tell SQLite
        there = tuple([value is not None for value in values])
        plan = _plan_where(there)
        row = list(compress(values, there))
        row[_MSG_ID] = msg_id
        self._keep_buffers(msg_id, plan, row)
        self._arrivals += 1
        row += (self._owner, plan.columns(row), self._arrivals)
        self._added.setdefault(plan, []).append(row)
        if record.stdout or record.stderr:
            for key in TEXT_KEYS:
                self._append(msg_id, key, getattr(record, key))

    def _update(self, msg_id: str, changes: dict[str, Any]) -> None:
        plan = _plan(*changes)
        row = [changes[key] for key in plan.keys]
        self._keep_buffers(msg_id, plan, row)
        row += (plan.columns(row), msg_id)
        self._updated.setdefault(plan, []).append(row)
        for key in plan.texts:
            self._pieces_removed.append((KINDS[key], msg_id))
            self._append(msg_id, key, changes[key])

    def _append(self, msg_id: str, key: str, text: str) -> None:
        if text:
            data = _utf8(text)
            self._pieces.append((KINDS[key], len(data), data, msg_id))

    def _keep_buffers(self, msg_id: str, plan: _Plan, row: list[Any]) -> None:
        for index, key in plan.buffers:
            buffers = row[index]
            row[index], large = buffers_column(buffers)
            if large:
                # (small ones leave those of large ones before them, which does not happen, where nobody looks)
                self._pieces_removed.append((KINDS[key], msg_id))
                self._pieces += ((KINDS[key], len(chunk), chunk, msg_id) for chunk in buffer_chunks(buffers))
