"""What a database on disk has to do, so that the hub can keep its records there.

All of it is synchronous and may wait for a disk or a network: it is called in threads. Writing is done by one
thread at a time; each `Reader` is used by one thread at a time, beside the others and beside writing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from .query import Query
from .record import TaskRecord

__all__ = [
    "EARLIEST",
    "Backend",
    "Batch",
    "Change",
    "Found",
    "Keep",
    "Kept",
    "ListedBatch",
    "Place",
    "Reader",
    "place_of",
]

# What history is ordered by: whether the time of submission is unknown, that time, and the number of arrival.
Place: TypeAlias = tuple[bool, datetime, int]

EARLIEST = datetime.min.replace(tzinfo=UTC)


def place_of(submitted: datetime | None, arrival: int) -> Place:
    """Where a record stands in the history."""
    return submitted is None, submitted or EARLIEST, arrival


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


class Kept(NamedTuple):
    """A record, and the number of its arrival: later ones have higher numbers."""

    arrival: int
    record: TaskRecord


class Found(NamedTuple):
    """An answer to a query: a record's place in the history, and the keys asked for, decoded."""

    place: Place
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of what is finished is kept: its age since it was completed, its number, and its size in bytes."""

    age: timedelta | None = None
    records: int | None = None
    bytes: int | None = None


class Reader(Protocol):
    """Reads what was written when `begin` was called, and nothing later, until `end`."""

    def begin(self) -> None:
        """From here on, nothing that is written changes what this reader sees."""

    def get(self, msg_ids: Sequence[str]) -> dict[str, Kept]:
        """The records there are among those asked for, whole, hub keys included."""

    def find(self, query: Query, keys: Sequence[str], skip: Collection[str] = ()) -> list[Found]:
        """The matching records, but those of the msg_ids to skip, in the order of history.

        ``keys`` have been through `parse_keys`.
        """

    def history(self) -> list[tuple[Place, str]]:
        """All msg_ids, in order."""

    def unfinished(self) -> list[Kept]:
        """The records of this hub's unfinished requests in the order of arrival, without content and buffers."""

    def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """msg_id and client session of results that may not have reached their clients, by time of receipt.

        That is, of this hub's records: those that are ``owed``, and those received within the window before the latest
        that was received, which may have died with the hub on their way.
        """

    def end(self) -> None:
        """The opposite of `begin`. Never raises."""

    def interrupt(self) -> None:
        """Have the reading that is under way raise `StoreError` soon. Called in another thread than that. Never raises.

        The reader is not used for anything else afterwards than `end` and `close`.
        """

    def close(self) -> None:
        """Release what the reader holds. Never raises."""


class Batch(Protocol):
    """Changes that `Backend.write` will carry out, taken one by one."""

    def take(self, change: Change) -> None:
        """Do of writing it what needs no database.

        It raises only what is the fault of the change. May be called in any thread.
        """

    def write(self) -> None:
        """See `Backend.write`. Called once."""


class ListedBatch:
    """A `Batch` for a backend that can do nothing without its database."""

    def __init__(self, write: Callable[[Sequence[Change]], None]) -> None:
        self._write = write
        self._changes: list[Change] = []

    def take(self, change: Change) -> None:
        """See `Batch.take`."""
        self._changes.append(change)

    def write(self) -> None:
        """See `Batch.write`."""
        self._write(self._changes)


class Backend(Protocol):
    """A database of records.

    Every method raises `trio_hub.errors.StoreError` for what the database cannot do now, with the reason and the
    remedy, and then nothing has changed; it may be called again, and works again when the reason is gone.
    """

    def write(self, changes: Sequence[Change]) -> None:
        """Carry out all changes, in one transaction; when it returns they are as durable as the database was told."""

    def batch(self) -> Batch:
        """Nothing to be written yet. Unlike all others, it may be called in any thread."""

    def drop(self, query: Query) -> int:
        """Forget all matching records that are completed, give their space back, and say how many they were."""

    def trim(self, keep: Keep, now: datetime) -> int:
        """One step, of at most some milliseconds, towards keeping no more finished records than that.

        The oldest (by completion) go first; the owed ones as well. Returns how many went; 0 means that it is done.
        """

    def reader(self) -> Reader:
        """Another reader."""

    def size(self) -> int:
        """Bytes that the database takes up, as far as it can tell."""

    def close(self) -> None:
        """Release everything. Idempotent. Never raises."""
