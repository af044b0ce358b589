"""The interface of a database on a disk or a server, as `trio_hub.databases.writebehind.WriteBehindStore` uses it.

All methods are synchronous, and may wait for a disk or a network, so they are called in threads. One thread at a time
writes. One thread at a time uses each `Reader`; other readers, and the writer, may work at the same time. Only
`interrupt` of a backend or a reader is called while another thread is in a call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

import msgspec

from ..records.history import Place
from ..records.query import Query
from ..records.record import TaskRecord

__all__ = [
    "LAST_ARRIVAL",
    "Backend",
    "Batch",
    "Change",
    "Found",
    "ListedBatch",
    "Reader",
    "Retention",
    "StoredRecord",
]

LAST_ARRIVAL = (1 << 63) - 1
"""The highest arrival number that a database can store, or compare with."""


class Change(msgspec.Struct, eq=False, gc=False):
    """The changes of one record: the sum of all calls for the record since the last `Backend.write`.

    If ``removed`` is true, an existing record is removed. Otherwise, if ``record`` is given, the record is added, and
    replaces an existing one. Otherwise, if the record exists, the keys in ``changes`` are set (to values as in
    `TaskRecord`), and then the texts in ``appended`` are appended to its ``stdout`` and ``stderr``.
    """

    msg_id: str
    record: TaskRecord | None = None
    changes: dict[str, Any] = {}  # msgspec makes a new dict for each change
    appended: dict[str, list[str]] = {}
    removed: bool = False


class StoredRecord(NamedTuple):
    """A record and its arrival number. Records that were added later have higher numbers."""

    arrival: int
    record: TaskRecord


class Found(NamedTuple):
    """A record that matches a query: its place in the history, and the decoded values of the wanted keys."""

    place: Place
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Retention:
    """The limits for finished records: their age since the hub received the result, their number, and their bytes.

    The age, and the order in which records are dropped, follow the hub's clock (``received``), since an engine's clock
    (``completed``) may be wrong. For a record without ``received``, ``completed`` is used.
    """

    age: timedelta | None = None
    records: int | None = None
    bytes: int | None = None


class Reader(Protocol):
    """Reads a snapshot of the database: what was written before `begin` was called. `end` ends the snapshot."""

    def begin(self) -> int:
        """Begin to read: take a snapshot, which later writes do not change.

        Returns the number of the last batch of the backend that this reader sees, or a lower number if that batch was
        written by an earlier hub.
        """

    def get(self, msg_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """Return the existing records with these msg_ids, notes included, with all keys, also those for the hub."""

    def find(self, query: Query, keys: Sequence[str], skip: Container[str] = ()) -> list[Found]:
        """Return the matching records in the order of history, without notes and without the msg_ids in ``skip``.

        ``keys`` is a result of `parse_keys`. Each record is looked up in ``skip``, so it should be a set or a dict.
        """

    def completed(self, query: Query) -> list[int]:
        """Return the arrival numbers of the matching records that are completed."""

    def history(self) -> list[tuple[Place, str]]:
        """Return all msg_ids except those of notes, in the order of history."""

    def recent(self, limit: int, before: Place | None, skip: Collection[str]) -> list[tuple[Place, str]]:
        """Return the last `limit` items of `history`, the newest first, without reading the others.

        Only items whose places come before `before` are returned, and none whose msg_ids are in ``skip``, a set or a
        dict. The arrival number in `before` is at most `LAST_ARRIVAL`.
        """

    def count(self) -> int:
        """Return the number of items of `history`, without reading them."""

    def unfinished(self) -> list[StoredRecord]:
        """Return the unfinished requests of this hub's owner, in the order of arrival, without content and buffers."""

    def notes(self) -> list[StoredRecord]:
        """Return the notes of this hub's owner (`TaskRecord.note`), with all keys, in the order of arrival."""

    def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """Return the msg_id and client session of each result that may not have reached its client, by time of receipt.

        These are the ``owed`` results of this hub's owner, and the results that were received within ``window`` before
        the latest result. The previous hub may have ended before these had left.
        """

    def interrupt(self) -> None:
        """Make the present call of another thread, if any, end soon with a `StoreError`. Never raises.

        The reader cannot be used after that, and has to be closed.
        """

    def end(self) -> None:
        """End the snapshot. Never raises."""

    def close(self) -> None:
        """Release the resources of the reader. Never raises."""


class Batch(Protocol):
    """A batch of changes that are prepared one by one, and then written together.

    - ``number``: higher than the number of every earlier batch; see `Reader.begin`.
    """

    @property
    def number(self) -> int: ...

    def take(self, change: Change) -> None:
        """Add a change, and do the part of writing that needs no database.

        An error of this method is the fault of the change. It may be called in any thread.
        """

    def write(self) -> None:
        """Write all changes, see `Backend.write`. Call this once."""


class ListedBatch:
    """A `Batch` that only lists its changes, for a backend that cannot prepare them without its database."""

    def __init__(self, number: int, write: Callable[[Sequence[Change], int], None]) -> None:
        self.number = number
        self._write = write
        self._changes: list[Change] = []

    def take(self, change: Change) -> None:
        """See `Batch.take`."""
        self._changes.append(change)

    def write(self) -> None:
        """See `Batch.write`."""
        self._write(self._changes, self.number)


class Backend(Protocol):
    """A database of records.

    Each method raises `trio_hub.errors.StoreError`, with the reason and the remedy, if the database cannot do it now.
    Then nothing has changed, and the method can be called again. It works when the reason is gone.
    """

    def write(self, changes: Sequence[Change]) -> None:
        """Write all changes in one transaction. When this returns, they are as durable as the database was told."""

    def batch(self) -> Batch:
        """Return a new, empty batch. Unlike the other methods, this may be called in any thread."""

    def drop(self, arrivals: Sequence[int]) -> int:
        """Do one step of a purge: drop the completed records among these, and return their number.

        ``arrivals`` are numbers from `Reader.completed`. A record that was added again meanwhile has another number,
        and stays.
        """

    def give_back(self) -> bool:
        """Do one step of giving the space of dropped records back. Return whether there is more to do.

        A step takes some milliseconds, if the database can do it in steps.
        """

    def tidy(self, *, done: bool) -> None:
        """Do the long work that a purge causes, so that commits need not do it.

        This is called between some steps of a purge, and with ``done`` between its last `drop` and `give_back`. Another
        thread may write, or call `close`, at the same time.
        """

    def trim(self, keep: Retention, now: datetime) -> int:
        """Do one step, of some milliseconds, of dropping the finished records that exceed the limits.

        The oldest records are dropped first, in the order of `Retention`, also if they are owed. Returns the number of
        dropped records; 0 means that no more have to be dropped.
        """

    def reader(self) -> Reader:
        """Return a new reader."""

    def interrupt(self) -> None:
        """Make the present write of another thread, if any, end soon with a `StoreError`. Never raises."""

    def size(self) -> int:
        """Return the size of the database in bytes, as far as it is known."""

    def close(self) -> None:
        """Release all resources. Idempotent. Never raises."""
