"""Reads the task database in PostgreSQL, from a snapshot."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, timedelta

from ...errors import StoreError
from ...records.history import EARLIEST, Place, place_of
from ...records.query import Query
from ...records.record import BUFFER_KEYS
from ..backend import Found, StoredRecord
from ..columns import from_text, text_column
from .connection import Address, Connection, Link
from .rows import ALL_KEYS, ROWS, look_up, matching, records, selected
from .schema import check

__all__ = ["PostgresReader"]


class PostgresReader:
    """A `trio_hub.databases.backend.Reader`. Made by `PostgresBackend.reader`."""

    def __init__(self, address: Address, owner: str) -> None:
        self._owner = owner
        self._link = Link(
            address,
            {"plan_cache_mode": "force_custom_plan"},  # for the same reason, but questions are of many kinds
            lambda connection: check(connection, address),
            snapshot=True,
        )
        self._begun = False

    def begin(self) -> None:
        """See `trio_hub.databases.backend.Reader.begin`. A connection that was lost since the last time is replaced."""
        was_open = self._link.is_open
        try:
            self._take_snapshot()
        except StoreError:
            if self._link.is_open or not was_open:
                raise
            self._take_snapshot()

    def get(self, msg_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """See `trio_hub.databases.backend.Reader.get`."""
        columns = list(dict.fromkeys(map(text_column, msg_ids)))
        with self._snapshot() as connection:
            return {kept.record.msg_id: kept for kept in look_up(connection, ALL_KEYS, "msg_id", columns)}

    def find(self, query: Query, keys: Sequence[str], skip: Collection[str] = ()) -> list[Found]:
        """See `trio_hub.databases.backend.Reader.find`."""
        found = []
        with self._snapshot() as connection:
            for kept in matching(connection, query, keys, skip=skip):
                for arrival, record in kept:
                    found.append(Found(place_of(record.submitted, arrival), record.as_dict(keys)))
        return found

    def history(self) -> list[tuple[Place, str]]:
        """See `trio_hub.databases.backend.Reader.history`."""
        found: list[tuple[Place, str]] = []
        with self._snapshot() as connection, connection.cursor("history", binary=True) as cursor:
            cursor.execute(
                "SELECT submitted, arrival, msg_id FROM trio_hub.records ORDER BY submitted NULLS LAST, arrival"
            )
            while rows := cursor.fetchmany(10 * ROWS):
                for submitted, arrival, msg_id in rows:
                    moment = None if submitted is None else submitted.replace(tzinfo=UTC)
                    found.append((place_of(moment, arrival), from_text(msg_id)))
        return found

    def unfinished(self) -> list[StoredRecord]:
        """See `trio_hub.databases.backend.Reader.unfinished`."""
        keys = [key for key in ALL_KEYS if key != "content" and key not in BUFFER_KEYS]
        found: list[StoredRecord] = []
        with self._snapshot() as connection, connection.cursor("unfinished", binary=True) as cursor:
            cursor.execute(
                f"SELECT {selected(keys)} FROM trio_hub.records"
                " WHERE owner = %s AND completed IS NULL ORDER BY arrival".encode(),
                [self._owner],
            )
            while rows := cursor.fetchmany(ROWS):
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

    def end(self) -> None:
        """See `trio_hub.databases.backend.Reader.end`."""
        self._begun = False
        self._link.rollback()

    def close(self) -> None:
        """See `trio_hub.databases.backend.Reader.close`."""
        self._begun = False
        self._link.close()

    def _take_snapshot(self) -> None:
        with self._link.call(ends=False) as connection:
            connection.execute("SELECT 1")  # not BEGIN, but the first query decides what is seen
            self._begun = True

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        if not self._begun:
            raise StoreError("the connection to the database was lost while it was read; ask again")
        try:
            with self._link.call(ends=False) as connection:
                yield connection
        except BaseException:
            self._begun = False
            raise
