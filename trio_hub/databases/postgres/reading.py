"""Reads the task database in PostgreSQL, from a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from ...errors import StoreError
from ...records.history import EARLIEST, Place, place_of
from ...records.query import Query
from ...records.record import BUFFER_KEYS
from ..backend import LAST_ARRIVAL, Found, StoredRecord
from ..columns import from_text, text_column
from .connection import Address, Connection, LastingConnection
from .rows import ALL_KEYS, ROWS, look_up, matching, records, selected
from .schema import check

__all__ = ["PostgresReader"]


class PostgresReader:
    """A `trio_hub.databases.backend.Reader`. Made by `PostgresBackend.reader`.

    Args:
        address: The database.
        owner: The owner whose unfinished requests, undelivered results and notes are read.
        writer: Returns the name under which the backend notes the number of its last batch.
    """

    def __init__(self, address: Address, owner: str, writer: Callable[[], UUID | None]) -> None:
        self._owner = owner
        self._writer = writer
        self._interrupted = False
        self._connection = LastingConnection(
            address,
            {"plan_cache_mode": "force_custom_plan"},  # queries are of many kinds, so each is planned anew
            lambda connection: check(connection, address),
            snapshot=True,
        )
        self._begun = False

    def begin(self) -> int:
        """See `trio_hub.databases.backend.Reader.begin`. A connection that was lost since the last time is replaced."""
        was_open = self._connection.is_open
        try:
            return self._take_snapshot()
        except StoreError:
            if self._connection.is_open or not was_open:
                raise
            return self._take_snapshot()

    def get(self, msg_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """See `trio_hub.databases.backend.Reader.get`."""
        columns = list(dict.fromkeys(map(text_column, msg_ids)))
        with self._snapshot() as connection:
            return {kept.record.msg_id: kept for kept in look_up(connection, ALL_KEYS, "msg_id", columns)}

    def find(self, query: Query, keys: Sequence[str], skip: Container[str] = ()) -> list[Found]:
        """See `trio_hub.databases.backend.Reader.find`."""
        found = []
        with self._snapshot() as connection:
            for kept in matching(connection, query, keys, skip=skip):
                self._go_on()
                for arrival, record in kept:
                    found.append(Found(place_of(record.submitted, arrival), record.as_dict(keys)))
        return found

    def completed(self, query: Query) -> list[int]:
        """See `trio_hub.databases.backend.Reader.completed`."""
        found: list[int] = []
        with self._snapshot() as connection:
            for kept in matching(connection, query, (), "completed IS NOT NULL"):
                self._go_on()
                found += [arrival for arrival, _ in kept]
        return found

    def history(self) -> list[tuple[Place, str]]:
        """See `trio_hub.databases.backend.Reader.history`."""
        found: list[tuple[Place, str]] = []
        with self._snapshot() as connection, connection.cursor("history", binary=True) as cursor:
            cursor.execute(
                "SELECT submitted, arrival, msg_id FROM trio_hub.records WHERE NOT note"
                " ORDER BY submitted NULLS LAST, arrival"
            )
            while rows := cursor.fetchmany(10 * ROWS):
                self._go_on()
                found += [(_place(submitted, arrival), from_text(msg_id)) for submitted, arrival, msg_id in rows]
        return found

    def recent(self, limit: int, before: Place | None, skip: Collection[str]) -> list[tuple[Place, str]]:
        """See `trio_hub.databases.backend.Reader.recent`. Reads along the index of the history."""
        unknown, moment, arrival = (True, None, LAST_ARRIVAL) if before is None else before
        if not unknown:
            return self._backwards("(submitted, arrival) < (%s, %s)", [moment, arrival], limit, skip)
        found = self._backwards("submitted IS NULL AND arrival < %s", [arrival], limit, skip)
        if len(found) < limit:
            found += self._backwards("submitted IS NOT NULL", [], limit - len(found), skip)
        return found

    def _backwards(
        self, where: str, values: Sequence[Any], limit: int, skip: Collection[str]
    ) -> list[tuple[Place, str]]:
        found: list[tuple[Place, str]] = []
        with self._snapshot() as connection, connection.cursor("recent", binary=True) as cursor:
            cursor.execute(
                f"SELECT submitted, arrival, msg_id FROM trio_hub.records WHERE {where} AND NOT note"
                " ORDER BY submitted DESC, arrival DESC LIMIT %s".encode(),
                [*values, limit + len(skip)],
            )
            while len(found) < limit and (rows := cursor.fetchmany(ROWS)):
                self._go_on()
                for submitted, arrival, msg_id in rows:
                    text = from_text(msg_id)
                    if text not in skip:
                        found.append((_place(submitted, arrival), text))
        return found[:limit]

    def count(self) -> int:
        """See `trio_hub.databases.backend.Reader.count`. The finished records were counted when they were written."""
        with self._snapshot() as connection:
            ((number,),) = connection.execute(
                "SELECT (SELECT coalesce(sum(records), 0) FROM trio_hub.totals)::bigint"
                " + (SELECT count(*) FROM trio_hub.records WHERE completed IS NULL)"
                " - (SELECT count(*) FROM trio_hub.records WHERE note)"
            ).fetchall()
        return int(number)

    def unfinished(self) -> list[StoredRecord]:
        """See `trio_hub.databases.backend.Reader.unfinished`."""
        keys = [key for key in ALL_KEYS if key != "content" and key not in BUFFER_KEYS]
        return self._own(keys, "completed IS NULL AND NOT note")

    def notes(self) -> list[StoredRecord]:
        """See `trio_hub.databases.backend.Reader.notes`."""
        return self._own(ALL_KEYS, "note")

    def _own(self, keys: Sequence[str], condition: str) -> list[StoredRecord]:
        """Return the records of this owner that meet a condition, in the order of arrival, with these keys."""
        found: list[StoredRecord] = []
        with self._snapshot() as connection, connection.cursor("own", binary=True) as cursor:
            cursor.execute(
                f"SELECT {selected(keys)} FROM trio_hub.records"
                f" WHERE owner = %s AND {condition} ORDER BY arrival".encode(),
                [self._owner],
            )
            while rows := cursor.fetchmany(ROWS):
                self._go_on()
                found += records(connection, keys, rows)
        return found

    def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """See `trio_hub.databases.backend.Reader.undelivered`."""
        with self._snapshot() as connection:
            ((latest,),) = connection.execute(
                "SELECT max(received) FROM trio_hub.records WHERE owner = %s AND received IS NOT NULL", [self._owner]
            )
            since = None
            if latest is not None:
                try:
                    since = latest.replace(tzinfo=UTC) - window
                except OverflowError:
                    since = EARLIEST
            found = connection.execute(
                "SELECT msg_id, client_uuid FROM ("
                " SELECT * FROM trio_hub.records WHERE owner = %s AND owed"
                " UNION ALL SELECT * FROM trio_hub.records WHERE owner = %s AND received >= %s AND NOT owed"
                ") AS late WHERE client_uuid IS NOT NULL ORDER BY received NULLS FIRST, arrival",
                [self._owner, self._owner, since],
            )
            return [(from_text(msg_id), from_text(client)) for msg_id, client in found]

    def interrupt(self) -> None:
        """See `trio_hub.databases.backend.Reader.interrupt`. The call first handles the rows that it has read."""
        self._interrupted = True
        self._connection.interrupt()

    def end(self) -> None:
        """See `trio_hub.databases.backend.Reader.end`."""
        self._begun = False
        self._connection.rollback()

    def close(self) -> None:
        """See `trio_hub.databases.backend.Reader.close`."""
        self._begun = False
        self._connection.close()

    def _take_snapshot(self) -> int:
        with self._connection.call(ends=False) as connection:
            # The first query, not BEGIN, takes the snapshot.
            row = connection.execute(
                "SELECT batch FROM trio_hub.batches WHERE writer = %s", [self._writer()]
            ).fetchone()
            self._begun = True
        return int(row[0]) if row is not None else 0

    def _go_on(self) -> None:
        if self._interrupted:
            raise StoreError("the query of the database was interrupted")

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        if not self._begun:
            raise StoreError("the connection to the database broke during the query; try again")
        try:
            with self._connection.call(ends=False) as connection:
                yield connection
        except BaseException:
            self._begun = False
            raise


def _place(submitted: datetime | None, arrival: int) -> Place:
    """Return the place of a row in the history."""
    return place_of(None if submitted is None else submitted.replace(tzinfo=UTC), arrival)
