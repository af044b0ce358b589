"""Converts records to rows of a PostgreSQL database and back, and queries to conditions in SQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from datetime import UTC
from typing import Any, NamedTuple

from ...records.query import Query
from ...records.record import BUFFER_KEYS, DATE_KEYS, HUB_KEYS, PACKED_KEYS, RECORD_KEYS, TEXT_KEYS, TaskRecord
from ..backend import StoredRecord
from ..columns import buffers_column, from_buffers, from_label, from_text, label_column, text_column
from ..prefilter import Prefilter, prefilter
from .connection import Connection
from .schema import PREFIX

__all__ = [
    "ALL_KEYS",
    "COLUMNS",
    "FLAG_KEYS",
    "MEASURED",
    "ROWS",
    "Column",
    "condition",
    "look_up",
    "matching",
    "records",
    "selected",
    "text_bytes",
]

# The number of rows that are read at a time.
ROWS = 500

ALL_KEYS = (*RECORD_KEYS, *HUB_KEYS)
# Keys whose values count as bytes of a record.
MEASURED = PACKED_KEYS | BUFFER_KEYS | TEXT_KEYS | {"execute_input"}
# Keys whose values are true or false, and never NULL.
FLAG_KEYS = frozenset(("owed", "note"))
_FOUND_BY_PREFIX = frozenset(("client_uuid", "engine_uuid"))


class Column(NamedTuple):
    """A column: its type in SQL, and the function that converts a record's value to it."""

    type: str
    written: Callable[[Any], Any]


def _as_is(value: Any) -> Any:
    return value


def _text(value: str | None) -> str | None:
    return None if value is None else text_column(value)


def _column(key: str) -> Column:
    if key in PACKED_KEYS or key == "custody":
        return Column("bytea", _as_is)
    if key in BUFFER_KEYS:
        return Column("bytea", lambda buffers: buffers_column(buffers)[0])
    if key in DATE_KEYS:
        return Column("timestamptz", _as_is)
    if key in FLAG_KEYS:
        return Column("boolean", bool)
    return Column("text", label_column if key == "label" else _text)


# All keys except the texts that grow have a column.
COLUMNS = {key: _column(key) for key in ALL_KEYS if key not in TEXT_KEYS}


def text_bytes(column: str) -> int:
    """Return the size of a text in the database, in bytes."""
    return len(column) if column.isascii() else len(column.encode())


def condition(terms: Prefilter, *more: str) -> tuple[str, list[Any]]:
    """Return terms, and ``more`` conditions, as SQL, with the parameters."""
    parts, values = list(more), []
    for key, comparison, value in terms.terms:
        if comparison in ("is null", "is not null"):
            parts.append(f"{key} {comparison}")
        elif comparison in ("in", "in or null"):
            listed = list(value) if key in DATE_KEYS else [text_column(text) for text in value]
            part = f"{key} = ANY (%s::{COLUMNS[key].type}[])"
            values.append(listed)
            if key in _FOUND_BY_PREFIX:
                part += f" AND left({key}, {PREFIX}) = ANY (%s::text[])"
                values.append([text[:PREFIX] for text in listed])
            parts.append(f"({part} OR {key} IS NULL)" if comparison == "in or null" else part)
        else:
            parts.append(f"{key} {comparison} %s")
            values.append(value)
    return " AND ".join(parts) or "true", values


def records(connection: Connection, keys: Collection[str], rows: Iterable[Sequence[Any]]) -> list[StoredRecord]:
    """Return the records of rows, in their order. Each row has the columns that `selected` names for these keys."""
    names = _with_columns(keys)
    readers = [_READERS.get(name, _as_is) for name in names]
    kept = []
    for arrival, *values in rows:
        record = TaskRecord("")
        for name, read, value in zip(names, readers, values, strict=True):
            if value is not None:
                setattr(record, name, read(value))
        kept.append(StoredRecord(arrival, record))
    if texts := sorted(TEXT_KEYS.intersection(keys)):
        _read_output(connection, texts, kept)
    for key in BUFFER_KEYS.intersection(keys):
        _read_buffers(connection, key, kept)
    return kept


def selected(keys: Collection[str]) -> str:
    """Return the list of columns, in SQL, that `records` needs for these keys."""
    return ", ".join(("arrival", *_with_columns(keys)))


def _with_columns(keys: Collection[str]) -> list[str]:
    return [key for key in COLUMNS if key in keys]


_READERS: dict[str, Callable[[Any], Any]] = {
    **{key: from_text for key, column in COLUMNS.items() if column.type == "text"},
    "label": from_label,
    # The driver has its own object for UTC.
    **{key: lambda moment: moment.replace(tzinfo=UTC) for key in DATE_KEYS},
}


def _read_output(connection: Connection, keys: Sequence[str], kept: Sequence[StoredRecord]) -> None:
    pieces: dict[tuple[int, str], list[str]] = {}
    found = connection.cursor(binary=True).execute(
        "SELECT arrival, key, piece FROM trio_hub.output WHERE arrival = ANY (%s::bigint[]) AND key = ANY (%s::text[])"
        " ORDER BY arrival, number",
        [[arrival for arrival, _ in kept], list(keys)],
    )
    for arrival, key, piece in found:
        pieces.setdefault((arrival, key), []).append(from_text(piece))
    for arrival, record in kept:
        for key in keys:
            setattr(record, key, "".join(pieces.get((arrival, key), ())))


def _read_buffers(connection: Connection, key: str, kept: Sequence[StoredRecord]) -> None:
    """Decode the buffers in the rows, and read the large buffers that are not in the rows, record by record."""
    for arrival, record in kept:
        setattr(record, key, from_buffers(getattr(record, key), _chunks(connection, arrival, key)))


def _chunks(connection: Connection, arrival: int, key: str) -> Iterator[bytes]:
    # A generator, so that the query is made only if the row says that there are chunks.
    found = connection.cursor(binary=True).execute(
        "SELECT chunk FROM trio_hub.chunks WHERE arrival = %s AND key = %s ORDER BY number", [arrival, key]
    )
    for (chunk,) in found:
        yield chunk


def look_up(connection: Connection, keys: Collection[str], column: str, values: Sequence[Any]) -> list[StoredRecord]:
    """Return the records with one of these values in a column (``arrival`` or ``msg_id``)."""
    kind = "bigint" if column == "arrival" else "text"
    kept = []
    for start in range(0, len(values), ROWS):
        rows = connection.cursor(binary=True).execute(
            f"SELECT {selected(keys)} FROM trio_hub.records WHERE {column} = ANY (%s::{kind}[])".encode(),
            [list(values[start : start + ROWS])],
        )
        kept += records(connection, keys, rows.fetchall())
    return kept


def matching(
    connection: Connection, query: Query, keys: Collection[str], *more: str, skip: Container[str] = ()
) -> Iterator[list[StoredRecord]]:
    """Yield the records that match a query and meet ``more`` conditions, in slices, in the order of history.

    The records have at least these keys. Notes, and the msg_ids in ``skip``, are left out.
    """
    terms = prefilter(query)
    where, values = condition(terms, "NOT note", *more)
    wanted = {"msg_id", "submitted", *keys}
    first = wanted if terms.exact else {"msg_id", *terms.needs}
    columns = selected(first)
    if not terms.exact:
        # A query can only ask whether buffers exist, so an empty list (90 in MessagePack) is read in their place.
        for key in BUFFER_KEYS & first:
            columns = columns.replace(f" {key}", f" CASE WHEN {key} IS NOT NULL THEN '\\x90'::bytea END")
    with connection.cursor("matching", binary=True) as cursor:
        cursor.execute(
            f"SELECT {columns} FROM trio_hub.records WHERE {where} ORDER BY submitted NULLS LAST, arrival".encode(),
            values,
        )
        while rows := cursor.fetchmany(ROWS):
            kept = [each for each in records(connection, first, rows) if each.record.msg_id not in skip]
            if not terms.exact:
                arrivals = [arrival for arrival, record in kept if query.matches(record)]
                found = {each.arrival: each for each in look_up(connection, wanted, "arrival", arrivals)}
                kept = [found[arrival] for arrival in arrivals]
            if kept:
                yield kept
