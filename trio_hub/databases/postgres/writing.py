"""Writes changes of records to PostgreSQL, by a few statements per batch, each with arrays of values.

One statement per record would take three times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from ...records.record import BUFFER_KEYS, PACKED_KEYS, TEXT_KEYS, TaskRecord
from ...wire.frames import Buffer
from ..backend import Change
from ..columns import buffer_chunks, buffers_column, text_column
from .connection import Connection
from .rows import COLUMNS, FLAG_KEYS, MEASURED, text_bytes

__all__ = ["Totals", "carry_out", "forget", "segments"]

# The server accepts no message of a gigabyte, and a batch should not be in memory twice.
_SEGMENT_BYTES = 1 << 25
_PIECE = 1 << 24  # characters, each of which may be escaped as ten


class Totals(NamedTuple):
    """The number and bytes of finished records, or a change of these numbers."""

    records: int = 0
    bytes: int = 0

    def __add__(self, other: object) -> Totals:
        assert isinstance(other, Totals)
        return Totals(self.records + other.records, self.bytes + other.bytes)


class _Row(NamedTuple):
    """An existing row, which is locked."""

    arrival: int
    finished: bool
    bytes: int
    has_buffers: bool


def segments(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Yield the changes in groups of bounded size. No group has two changes of one record."""
    segment: dict[str, Change] = {}
    size = 0
    for change in changes:
        if change.msg_id in segment or size > _SEGMENT_BYTES:
            yield list(segment.values())
            segment.clear()
            size = 0
        segment[change.msg_id] = change
        record = change.record
        values = [getattr(record, key) for key in MEASURED] if record is not None else change.changes.values()
        size += sum(len(value) for value in values if isinstance(value, bytes | str))
        size += sum(len(piece) for pieces in change.appended.values() for piece in pieces)
    if segment:
        yield list(segment.values())


def carry_out(
    connection: Connection, owner: str, changes: Sequence[Change], already: Mapping[str, Mapping[str, str]]
) -> Totals:
    """Write changes of different records, and return the change of the totals.

    ``already`` has the texts that were appended before, by msg_id and key. They are not appended again.
    """
    rows = _lock(connection, [text_column(change.msg_id) for change in changes])
    added: list[TaskRecord] = []
    gone: list[int] = []
    sides = _Sides()
    # The rows to be changed, by the keys that are set.
    groups: dict[tuple[str, ...], list[tuple[_Row, Change, int]]] = {}
    for change in changes:
        row = rows.get(text_column(change.msg_id))
        if change.removed or change.record is not None:
            if row is not None:
                gone.append(row.arrival)
            if not change.removed and change.record is not None:
                added.append(change.record)
        elif row is not None:
            grown = 0
            for key, pieces in change.appended.items():
                text = "".join(pieces)
                known = already.get(change.msg_id, {}).get(key, "")
                if key not in change.changes and text.startswith(known):
                    text = text[len(known) :]
                grown += sides.append(row.arrival, key, text)
            if change.changes or grown:
                groups.setdefault(tuple(sorted(change.changes)), []).append((row, change, grown))
    _, totals = forget(connection, gone) if gone else (0, Totals())
    if added:
        totals += _insert(connection, owner, added, sides)
    for keys, group in groups.items():
        totals += _update(connection, keys, group, sides)
    sides.write(connection)
    return totals


def forget(connection: Connection, arrivals: Sequence[int], *, finished: bool = False) -> tuple[int, Totals]:
    """Delete rows, with ``finished`` only finished ones. Return their number, and the change of the totals."""
    if finished:  # otherwise the rows are locked already
        connection.execute(
            "SELECT FROM trio_hub.records WHERE arrival = ANY (%s::bigint[]) ORDER BY msg_id FOR UPDATE",
            [list(arrivals)],
        )
    # A comparison, so that the planner does not scan the index of all finished records.
    gone = connection.execute(
        "DELETE FROM trio_hub.records WHERE arrival = ANY (%s::bigint[]) AND (completed IS NOT NULL) >= %s"
        " RETURNING arrival, completed IS NOT NULL, bytes",
        [list(arrivals), finished],
    ).fetchall()
    # After the rows: a hub that appends output locks the row first, so no output of these records can come any more.
    for table in ("output", "chunks"):
        connection.execute(
            f"DELETE FROM trio_hub.{table} WHERE arrival = ANY (%s::bigint[])".encode(), [[row[0] for row in gone]]
        )
    sizes = [size for _, is_finished, size in gone if is_finished]
    return len(gone), Totals(-len(sizes), -sum(sizes))


def _lock(connection: Connection, msg_ids: Sequence[str]) -> dict[str, _Row]:
    # Always in the same order, so that two hubs never wait for each other.
    found = connection.execute(
        "SELECT msg_id, arrival, completed IS NOT NULL, bytes, buffers IS NOT NULL OR result_buffers IS NOT NULL"
        " FROM trio_hub.records WHERE msg_id = ANY (%s::text[]) ORDER BY msg_id FOR UPDATE",
        [list(msg_ids)],
    )
    return {msg_id: _Row(*rest) for msg_id, *rest in found}


def _insert(connection: Connection, owner: str, added: Sequence[TaskRecord], sides: _Sides) -> Totals:
    numbers = connection.execute(
        "SELECT nextval('trio_hub.records_arrival_seq') FROM generate_series(1, %s)", [len(added)]
    ).fetchall()
    arrivals = [number for (number,) in numbers]
    keys = []
    arrays: list[list[Any]] = []
    for key, column in COLUMNS.items():
        values = [getattr(record, key) for record in added]
        # Keys without values, half of all keys, need not be sent.
        blank = False if key in FLAG_KEYS else None
        if any(value is not blank for value in values):
            keys.append(key)
            arrays.append([column.written(value) for value in values])
    sizes = []
    for arrival, record in zip(arrivals, added, strict=True):
        sizes.append(sum(sides.put(arrival, key, getattr(record, key)) for key in MEASURED))
    connection.execute(_insert_statement(tuple(keys)), [owner, arrivals, sizes, *arrays])
    finished = [size for size, record in zip(sizes, added, strict=True) if record.completed is not None]
    return Totals(len(finished), sum(finished))


def _update(
    connection: Connection, keys: tuple[str, ...], group: Sequence[tuple[_Row, Change, int]], sides: _Sides
) -> Totals:
    arrays: list[list[Any]] = [
        [COLUMNS[key].written(change.changes[key]) for _, change, _ in group] for key in keys if key in COLUMNS
    ]
    before = {}
    sizes = []
    for row, change, grown in group:
        before[row.arrival] = row
        for key in keys:
            if key in TEXT_KEYS or (key in BUFFER_KEYS and row.has_buffers):
                sides.reset(row.arrival, key)
        sizes.append(grown + sum(sides.put(row.arrival, key, change.changes[key]) for key in keys if key in MEASURED))
    after = connection.execute(_update_statement(keys), [list(before), sizes, *arrays])
    totals = Totals()
    for arrival, finished, size in after:
        was = before[arrival]
        totals += Totals(finished - was.finished, finished * size - was.finished * was.bytes)
    return totals


class _Sides:
    """The changes of the tables other than ``records``."""

    def __init__(self) -> None:
        self._reset: list[tuple[int, str]] = []
        self._set: list[tuple[int, str, str]] = []
        self._appended: list[tuple[int, str, str]] = []
        self._buffers: list[tuple[int, str, Sequence[Buffer]]] = []

    def put(self, arrival: int, key: str, value: Any) -> int:
        """Note the part of a value that is not stored in the row, for a key of `MEASURED`. Return the value's bytes."""
        if not value:
            return 0
        if key in PACKED_KEYS:
            return len(value)
        if key in BUFFER_KEYS:
            column, large = buffers_column(value)
            if large:
                self._buffers.append((arrival, key, value))
            return len(column or b"") + (sum(map(len, value)) if large else 0)
        if key in TEXT_KEYS:
            return _divide(self._set, arrival, key, value)
        return text_bytes(text_column(value))

    def append(self, arrival: int, key: str, text: str) -> int:
        """Note a text to be appended. Return its size in bytes."""
        return _divide(self._appended, arrival, key, text)

    def reset(self, arrival: int, key: str) -> None:
        """Note that the earlier value of a key is to be deleted."""
        self._reset.append((arrival, key))

    def write(self, connection: Connection) -> None:
        if self._reset:
            arrays = [list(array) for array in zip(*self._reset, strict=True)]
            for table in ("output", "chunks"):
                connection.execute(
                    f"DELETE FROM trio_hub.{table} AS side USING unnest(%s::bigint[], %s::text[]) AS old (arrival, key)"
                    " WHERE side.arrival = old.arrival AND side.key = old.key".encode(),
                    arrays,
                )
        if texts := [*self._set, *self._appended]:
            # Texts that were set come before appended texts. Their numbers follow this order.
            connection.execute(
                "INSERT INTO trio_hub.output (arrival, key, piece)"
                " SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[])",
                [list(array) for array in zip(*texts, strict=True)],
            )
        for arrival, key, buffers in self._buffers:
            for number, chunk in enumerate(buffer_chunks(buffers)):
                connection.execute("INSERT INTO trio_hub.chunks VALUES (%s, %s, %s, %b)", [arrival, key, number, chunk])


def _divide(pieces: list[tuple[int, str, str]], arrival: int, key: str, text: str) -> int:
    size = 0
    for start in range(0, len(text), _PIECE):
        column = text_column(text[start : start + _PIECE])
        pieces.append((arrival, key, column))
        size += text_bytes(column)
    return size


@cache
def _insert_statement(keys: tuple[str, ...]) -> bytes:
    names = ", ".join(("owner", "arrival", "bytes", *keys))
    arrays = ", ".join(("%b::bigint[]", "%b::bigint[]", *(f"%b::{COLUMNS[key].type}[]" for key in keys)))
    return f"INSERT INTO trio_hub.records ({names}) SELECT %s, * FROM unnest({arrays})".encode()


@cache
def _update_statement(keys: tuple[str, ...]) -> bytes:
    """Return the statement that sets the columns of these keys, and the size."""
    with_columns = [key for key in keys if key in COLUMNS]
    names = ", ".join(("arrival", "grown", *with_columns))
    arrays = ", ".join(("%b::bigint[]", "%b::bigint[]", *(f"%b::{COLUMNS[key].type}[]" for key in with_columns)))
    shrunk = "".join(f" - {_held(key)}" for key in keys if key in MEASURED)
    settings = "".join(f", {key} = new.{key}" for key in with_columns)
    return (
        f"UPDATE trio_hub.records AS r SET bytes = r.bytes + new.grown{shrunk}{settings}"
        f" FROM unnest({arrays}) AS new ({names}) WHERE r.arrival = new.arrival"
        " RETURNING r.arrival, r.completed IS NOT NULL, r.bytes"
    ).encode()


def _held(key: str) -> str:
    """Return SQL for the present bytes of a measured key."""
    if key in TEXT_KEYS:
        return (
            "coalesce((SELECT sum(octet_length(piece)) FROM trio_hub.output AS o"
            f" WHERE o.arrival = r.arrival AND o.key = '{key}'), 0)"
        )
    if key in BUFFER_KEYS:
        return (
            f"CASE WHEN r.{key} IS NULL THEN 0 ELSE octet_length(r.{key}) + coalesce((SELECT sum(octet_length(chunk))"
            f" FROM trio_hub.chunks AS c WHERE c.arrival = r.arrival AND c.key = '{key}'), 0) END"
        )
    return f"coalesce(octet_length(r.{key}), 0)"
