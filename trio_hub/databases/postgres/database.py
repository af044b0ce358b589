"""The task database in PostgreSQL, which several hubs on several hosts can share.

Each hub writes records under the name of its owner, and takes over only the records of its owner from the previous hub.
Queries, `drop` and `trim` concern the records of all owners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from uuid import UUID

from ...errors import ConfigError, StoreError
from ...records.history import EARLIEST
from ..backend import Change, ListedBatch, Retention
from ..columns import text_column
from .connection import Address, Connection, LastingConnection, reason
from .reading import PostgresReader
from .schema import check, install
from .writing import Totals, carry_out, forget, segments

__all__ = ["PostgresBackend", "open_postgres"]

# The maximum number and bytes of records that one step of `trim` drops. A step takes some milliseconds.
TRIM_RECORDS = 200
TRIM_BYTES = 1 << 24
# After this many dropped records, `tidy` frees their space for other records.
VACUUM_FROM = 1000

# The lock that is held while records are dropped, so that two hubs do not wait for each other.
_CLEANING = int.from_bytes(b"trio_hub", "big") + 1
# Statements are planned once. A plan that was made while the tables are small must be good for large tables, too. So
# all statements for writing use indexes.
_BY_INDEX = dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_sort"), "off")


def open_postgres(url: str, *, owner: str, synchronous: bool = False) -> PostgresBackend:
    """Open the task database in the PostgreSQL database that a URL names. Create its tables if they are missing.

    Args:
        url: ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE?PARAMETERS``, as for libpq.
        owner: The name of the owner of added records. A hub and the next hub of its profile have the same owner.
        synchronous: Whether a write waits for the server's disk. If not, a server that crashes loses the writes of its
            last moments (some 0.6 s), but no earlier ones, and the database is not damaged.

    Raises:
        ConfigError: psycopg is not installed, the server cannot be reached or refuses the connection, or the existing
            tables cannot be used by this version of trio_hub.
    """
    if not 0 < len(owner) <= 200:
        raise ConfigError(f"the owner of records needs a name of 1 to 200 characters, not {len(owner)}")
    address = Address(url, application=f"trio_hub {owner}")
    import psycopg

    backend = PostgresBackend(address, owner, synchronous)
    try:
        backend.open()
    except (psycopg.Error, OSError, UnicodeError) as error:
        raise ConfigError(
            f"the database {address} cannot be opened: {reason(error)}; check that its server runs and can be reached, "
            "that user and password are right, and that the database exists (createdb NAME creates one)"
        ) from error
    return backend


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A batch for which it is not known whether it was committed, since the connection broke."""

    batch: int
    process: int
    texts: dict[str, dict[str, str]]


class PostgresBackend:
    """A `trio_hub.databases.backend.Backend` in a PostgreSQL database. Made by `open_postgres`."""

    def __init__(self, address: Address, owner: str, synchronous: bool) -> None:
        self._address = address
        self._owner = text_column(owner)
        self._connection = LastingConnection(
            address, _BY_INDEX | {"synchronous_commit": "on" if synchronous else "off"}, self._prepare
        )
        self._writer: UUID | None = None
        self._batches = count(1)
        self._dropped = 0  # records whose space is not freed yet
        self._doubt: _Doubt | None = None
        # Appended texts of a batch that was found to have been committed. They must not be appended again.
        self._already: dict[str, dict[str, str]] = {}

    def open(self) -> None:
        """Connect. Raises `ConfigError` and `psycopg.Error`."""
        self._connection.open()

    def write(self, changes: Sequence[Change]) -> None:
        """See `trio_hub.databases.backend.Backend.write`."""
        self._write(changes, next(self._batches))

    def _write(self, changes: Sequence[Change], batch: int) -> None:
        """Write a batch.

        If the connection breaks during the commit, it is not known whether the batch was committed. So each batch
        writes its number, by which that is found out: at once, or in the next call, which appends only later texts.

        A value that PostgreSQL cannot store, such as a text of more than 1 GB, causes a `ValueError`, or an error of
        the value's own type.
        """
        doubt: _Doubt | None = None
        try:
            with self._connection.call(writes=True) as connection:
                self._settle(connection)
                totals = Totals()
                for segment in segments(changes):
                    totals += carry_out(connection, self._owner, segment, self._already)
                self._add(connection, totals)
                connection.execute(
                    "INSERT INTO trio_hub.batches VALUES (%s, %s)"
                    " ON CONFLICT (writer) DO UPDATE SET batch = EXCLUDED.batch, noted = EXCLUDED.noted",
                    [self._writer, batch],
                )
                texts = {
                    change.msg_id: {key: "".join(pieces) for key, pieces in change.appended.items()}
                    for change in changes
                    if change.appended
                }
                doubt = self._doubt = _Doubt(batch, connection.info.backend_pid, texts)
                connection.commit()
        except StoreError:
            if doubt is None:
                raise
            if self._connection.is_open:
                self._doubt = None  # the server has refused the commit
                raise
            if not self._was_committed():
                raise
        self._doubt = None
        for change in changes:
            self._already.pop(change.msg_id, None)

    def batch(self) -> ListedBatch:
        """See `trio_hub.databases.backend.Backend.batch`."""
        return ListedBatch(next(self._batches), self._write)

    def drop(self, arrivals: Sequence[int]) -> int:
        """See `trio_hub.databases.backend.Backend.drop`."""
        with self._connection.call() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_CLEANING])
            gone, totals = forget(connection, arrivals, finished=True)
            self._add(connection, totals)
            connection.commit()
        self._dropped += gone
        return gone

    def give_back(self) -> bool:
        """See `trio_hub.databases.backend.Backend.give_back`. `tidy` does all of it."""
        return False

    def tidy(self, *, done: bool) -> None:
        """See `trio_hub.databases.backend.Backend.tidy`.

        After many dropped records, their space is freed for other records, and files with empty ends get shorter. After
        few, the server's autovacuum does that later.
        """
        if not done:
            return
        dropped, self._dropped = self._dropped, 0
        if dropped >= VACUUM_FROM:
            link = LastingConnection(self._address, {}, lambda connection: check(connection, self._address))
            try:
                _vacuum(link)
            finally:
                link.close()

    def trim(self, keep: Retention, now: datetime) -> int:
        """See `trio_hub.databases.backend.Backend.trim`. Does nothing while another hub drops records.

        The server's autovacuum frees the space for other records later.
        """
        before = None
        if keep.age is not None:
            try:
                before = now - keep.age
            except OverflowError:
                before = EARLIEST
        with self._connection.call() as connection:
            if connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [_CLEANING]).fetchone() != (True,):
                return 0
            ((number, size),) = connection.execute(
                "SELECT coalesce(sum(records), 0)::bigint, coalesce(sum(bytes), 0)::bigint FROM trio_hub.totals"
            )
            oldest = connection.execute(
                "SELECT arrival, coalesce(received, completed), bytes FROM trio_hub.records"
                " WHERE completed IS NOT NULL ORDER BY coalesce(received, completed), arrival LIMIT %s",
                [TRIM_RECORDS],
            )
            arrivals = []
            freed = 0
            for arrival, dated, held in oldest:
                too_many = keep.records is not None and number > keep.records
                too_large = keep.bytes is not None and size > keep.bytes
                too_old = before is not None and dated < before
                if not (too_many or too_large or too_old) or freed >= TRIM_BYTES:
                    break
                arrivals.append(arrival)
                number -= 1
                size -= held
                freed += held
            if not arrivals:
                return 0
            gone, totals = forget(connection, arrivals, finished=True)
            self._add(connection, totals)
            connection.commit()
        return gone

    def reader(self) -> PostgresReader:
        """Return a new reader, with its own connection."""
        return PostgresReader(self._address, self._owner, lambda: self._writer)

    def interrupt(self) -> None:
        """See `trio_hub.databases.backend.Backend.interrupt`."""
        self._connection.interrupt()

    def size(self) -> int:
        """See `trio_hub.databases.backend.Backend.size`: the size of tables and indexes, for all owners."""
        with self._connection.call() as connection:
            ((size,),) = connection.execute(
                "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
                " WHERE relnamespace = to_regnamespace('trio_hub') AND relkind = 'r'"
            )
        return int(size)

    def close(self) -> None:
        """See `trio_hub.databases.backend.Backend.close`."""
        if self._connection.is_open and self._doubt is None:
            try:
                with self._connection.call() as connection:
                    connection.execute("DELETE FROM trio_hub.batches WHERE writer = %s", [self._writer])
                    connection.commit()
            except StoreError:
                pass  # `_prepare` of a later hub removes the row
        self._connection.close()

    def _prepare(self, connection: Connection) -> None:
        if self._writer is not None:
            check(connection, self._address)
            return
        install(connection, self._address)
        connection.execute("DELETE FROM trio_hub.batches WHERE noted < now() - interval '30 days'")
        ((writer,),) = connection.execute("INSERT INTO trio_hub.batches VALUES (gen_random_uuid(), 0) RETURNING writer")
        connection.commit()
        self._writer = writer

    def _add(self, connection: Connection, totals: Totals) -> None:
        if totals != Totals():
            connection.execute(
                "INSERT INTO trio_hub.totals AS t VALUES (%s, %s, %s) ON CONFLICT (owner)"
                " DO UPDATE SET records = t.records + EXCLUDED.records, bytes = t.bytes + EXCLUDED.bytes",
                [self._owner, totals.records, totals.bytes],
            )

    def _was_committed(self) -> bool:
        """Return whether the batch in doubt was committed. If that is not known yet, the next call tries again."""
        try:
            with self._connection.call() as connection:
                return self._settle(connection)
        except StoreError:
            return False

    def _settle(self, connection: Connection) -> bool:
        """Find out whether the batch in doubt was committed. Return False if there is no such batch."""
        doubt = self._doubt
        if doubt is None:
            return False
        # The server may not know yet that the old connection is dead. This ends the old connection's transaction, and
        # FOR UPDATE waits for its end.
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid = %s AND pid <> pg_backend_pid() AND usename = current_user AND application_name = %s",
            [doubt.process, self._address.parameters["application_name"]],
        )
        connection.execute(
            "INSERT INTO trio_hub.batches VALUES (%s, 0) ON CONFLICT (writer) DO NOTHING", [self._writer]
        )
        last = connection.execute(
            "SELECT batch FROM trio_hub.batches WHERE writer = %s FOR UPDATE", [self._writer]
        ).fetchone()
        connection.commit()
        self._doubt = None
        if last != (doubt.batch,):
            return False
        self._already |= doubt.texts
        return True


def _vacuum(link: LastingConnection) -> None:
    import psycopg

    try:
        with link.call() as connection:
            connection.autocommit = True
            try:
                connection.execute("VACUUM (SKIP_LOCKED) trio_hub.records, trio_hub.output, trio_hub.chunks")
            finally:
                if not connection.closed:
                    connection.autocommit = False
    except (StoreError, psycopg.Error):
        pass  # the records are dropped nevertheless, and autovacuum frees the space later
