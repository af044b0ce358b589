"""What a database on disk has to do, so that the hub can keep its records there.

All of it is synchronous and may wait for a disk or a network: it is called in threads. Writing is done by one
thread at a time; each `Reader` is used by one thread at a time, beside the others and beside writing. Only
`interrupt` of a backend and of a reader is called while another thread is in a call.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

import msgspec

from ..records.history import Place
from ..records.query import Query
from ..records.record import TaskRecord

__all__ = [
    "Backend",
    "Batch",
    "Change",
    "Found",
    "ListedBatch",
    "Reader",
    "Retention",
    "StoredRecord",
]


class Change(msgspec.Struct, eq=False, gc=False):
    """What is to be done to one record: the sum of all calls about it since the last `Backend.write`.

    Either ``removed`` is true: the record, if it is there, is forgotten. Or ``record`` is given: it was added, and
    takes the place of one that is there. Else, if the record is there, its keys named in ``changes`` are set (values
    as in `TaskRecord`), and then the texts in ``appended`` are appended to its ``stdout`` and ``stderr``.
    """

    msg_id: str
    record: TaskRecord | None = None
    changes: dict[str, Any] = {}  # one of its own for each, as msgspec has it
    appended: dict[str, list[str]] = {}
    removed: bool = False


class StoredRecord(NamedTuple):
    """A record, and the number of its arrival: later ones have higher numbers."""

    arrival: int
    record: TaskRecord


class Found(NamedTuple):
    """An answer to a query: a record's place in the history, and the keys asked for, decoded."""

    place: Place
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Retention:
    """How many finished records are kept: by age since the hub received the result, by number, and by size in bytes.

    Ages, and the order in which records go, are by the hub's clock (``received``), since an engine's clock, which says
    when a task was ``completed``, may be wrong. A record without ``received`` goes by ``completed``.
    """

    age: timedelta | None = None
    records: int | None = None
    bytes: int | None = None


class Reader(Protocol):
    """Reads what was written when `begin` was called, and nothing later, until `end`."""

    def begin(self) -> int:
        """Begin to read: from here on, nothing that is written changes what this reader sees.

        Returns the number of the last batch of the backend that this reader sees, or a lower number if that batch was
        written by an earlier hub.
        """

    def get(self, msg_ids: Sequence[str]) -> dict[str, StoredRecord]:
        """Return the records among those asked for that exist, whole, hub keys included; notes as well."""

    def find(self, query: Query, keys: Sequence[str], skip: Container[str] = ()) -> list[Found]:
        """Return the matching records in the order of history, without notes and without the msg_ids to skip.

        ``keys`` have been through `parse_keys`. Each record is looked up in ``skip``: pass a set or a dict.
        """

    def completed(self, query: Query) -> list[int]:
        """Return the numbers of arrival of the matching records that are completed."""

    def history(self) -> list[tuple[Place, str]]:
        """Return all msg_ids but those of notes, in order."""

    def unfinished(self) -> list[StoredRecord]:
        """Return this hub's unfinished requests in the order of arrival, without content and buffers."""

    def notes(self) -> list[StoredRecord]:
        """Return the notes of this hub (`TaskRecord.note`), whole, in the order of arrival."""

    def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """msg_id and client session of results that may not have reached their clients, by time of receipt.

        That is, of this hub's records: those that are ``owed``, and those received within the window before the latest
        that was received, which may have died with the hub on their way.
        """

    def interrupt(self) -> None:
        """End the call that another thread is in, if there is one, with a `StoreError`, soon. Never raises.

        The reader is of no use after that, and is to be closed.
        """

    def end(self) -> None:
        """The opposite of `begin`. Never raises."""

    def close(self) -> None:
        """Release what the reader holds. Never raises."""


class Batch(Protocol):
    """Changes that `Backend.write` will carry out, taken one by one.

    - ``number``: higher than that of every batch before; see `Reader.begin`.
    """

    @property
    def number(self) -> int: ...

    def take(self, change: Change) -> None:
        """Do of writing it what needs no database.

        It raises only what is the fault of the change. May be called in any thread.
        """

    def write(self) -> None:
        """See `Backend.write`. Called once."""


class ListedBatch:
    """A `Batch` for a backend that can do nothing without its database."""

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

    Every method raises `trio_hub.errors.StoreError` for what the database cannot do now, with the reason and the
    remedy, and then nothing has changed; it may be called again, and works again when the reason is gone.
    """

    def write(self, changes: Sequence[Change]) -> None:
        """Carry out all changes, in one transaction; when it returns they are as durable as the database was told."""

    def batch(self) -> Batch:
        """Nothing to be written yet. Unlike all others, it may be called in any thread."""

    def drop(self, arrivals: Sequence[int]) -> int:
        """One step of a purge: forget those of these records that are completed, and return how many they were.

        The numbers are of `Reader.completed`. A record that was added anew since then has another number, and stays.
        """

    def give_back(self) -> bool:
        """One step towards giving the space of dropped records back; return whether there is more to do.

        Each step takes some milliseconds, if the database can do that.
        """

    def tidy(self, *, done: bool) -> None:
        """Do what a purge makes necessary and what may take long, so that a commit need not do it.

        Called between some steps of a purge, and with ``done`` between its last `drop` and `give_back`. May be called
        while another thread writes.
        """

    def trim(self, keep: Retention, now: datetime) -> int:
        """One step, of at most some milliseconds, towards keeping no more finished records than that.

        The oldest go first, as `Retention` has it; the owed ones as well. Returns how many went; 0 means that it is
        done.
        """

    def reader(self) -> Reader:
        """Another reader."""

    def interrupt(self) -> None:
        """End what another thread writes, if there is one, with a `StoreError`, soon. Never raises."""

    def size(self) -> int:
        """Bytes that the database takes up, as far as it can tell."""

    def close(self) -> None:
        """Release everything. Idempotent. Never raises."""
