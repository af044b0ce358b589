"""The interface of a task database, which all backends implement.

Writing never waits. `add`, `update` and `append` take effect in the order of the calls: at once for readers of the
same store, and on disk (if there is one) at the latest when `flush` returns. Reading is `async`, since it may wait for
a disk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

from .query import Query
from .record import TaskRecord

__all__ = ["Checkpoint", "Store", "StoreStatistics", "no_checkpoint"]

# A function that a long computation awaits now and then, so that other tasks can run, such as
# `trio.lowlevel.checkpoint`. The store may have changed when it returns.
Checkpoint: TypeAlias = Callable[[], Awaitable[None]]


async def no_checkpoint() -> None:
    """Return at once. A `Checkpoint` for callers that need none."""


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """The numbers of a task database. Counters start at 0 when it is opened.

    `trio_hub.DatabaseStatistics` describes each number. ``size`` is in bytes; None if the database does not know it.
    In a database without a disk, no changes wait to be written.
    """

    size: int | None = 0
    pending: int = 0
    pending_bytes: int = 0
    lag: float = 0.0
    batches: int = 0
    written: int = 0
    trimmed: int = 0
    not_persisted: int = 0
    last_error: str | None = None


class Store(Protocol):
    """A task database.

    `get`, `find`, `history`, `recent`, `count` and `drop` are for users' queries. `fetch`, `unfinished`, `undelivered`
    and `notes` are for the hub itself: they never wait for users' queries, however many and slow these are.

    - ``durable``: whether its records outlive this process;
    - ``crowded``: whether so many changes wait to be written that the hub should accept no new requests for now.
    """

    @property
    def durable(self) -> bool: ...

    @property
    def crowded(self) -> bool: ...

    def statistics(self) -> StoreStatistics:
        """Return the present numbers of the database."""

    async def run(self) -> None:
        """Do the background work of the database until it is closed or this call is cancelled.

        A database without background work returns at once. The hub calls this once, in its nursery.
        """

    def add(self, record: TaskRecord) -> None:
        """Add a new record. It replaces a record with the same msg_id, and gets a new arrival number.

        The store keeps the present values. Later changes of the object do not affect the stored record.
        """

    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        """Change keys of a record. The values have the types of `TaskRecord`. An unknown msg_id is ignored.

        Raises `AttributeError`, and changes nothing, for the key ``msg_id`` and for keys that records do not have.
        """

    def append(self, msg_id: str, key: str, text: str) -> None:
        """Append a text to ``stdout`` or ``stderr`` of a record without rewriting it. An unknown msg_id is ignored.

        Output beyond `trio_hub.records.output.MAX_OUTPUT` characters is not kept; a note in the record says so.

        Raises `AttributeError` for any other key.
        """

    def discard(self, msg_id: str) -> None:
        """Forget a record, completed or not. An unknown msg_id is ignored."""

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call a function when all earlier changes are as durable as this backend can make them.

        Without a disk, the function is called at once. Functions are called in the order in which they were passed.
        They are not called if the hub ends before.
        """

    async def get(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Return the records with these msg_ids, by msg_id. Unknown msg_ids and notes (`TaskRecord.note`) are left out.

        The records are copies, which later changes do not affect.
        """

    async def fetch(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Like `get`, but for the hub itself: finds notes as well, and does not wait for users' queries."""

    async def find(self, query: Query, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return all matching records, in the order of `history`, as dicts of decoded values.

        Args:
            query: The conditions.
            keys: The keys of the dicts, to which ``msg_id`` is added. None means all keys except the buffers.

        Raises:
            QueryError: A key that records do not have.
        """

    async def drop(self, query: Query) -> int:
        """Forget all matching records **that are completed**. Return their number.

        This is done step by step: others read and write in between. Records that come meanwhile stay.
        """

    async def history(self) -> list[str]:
        """Return all msg_ids, by time of submission, then by arrival.

        Records without a time of submission come last.
        """

    async def recent(self, limit: int, before: str | None = None) -> list[str]:
        """Return the last `limit` msg_ids of `history`, the newest first, without reading the rest of the history.

        Args:
            limit: The maximum number of msg_ids, at least 1.
            before: Return only msg_ids that `history` lists before this one. None for no such limit.

        Raises:
            KeyError: There is no record with the msg_id `before`.
        """

    async def count(self) -> int:
        """Return the number of msg_ids in `history`, without reading the history."""

    async def unfinished(self) -> list[TaskRecord]:
        """Return the records of the earlier hub that are not completed, by arrival, without content and buffers."""

    async def notes(self) -> list[TaskRecord]:
        """Return the notes of the previous hub (`TaskRecord.note`), in the order of arrival."""

    async def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """Return the msg_id and client session of each result of the earlier hub that may not have reached its client.

        Such a result is marked as ``owed``, or was received within `window` before the last result of that hub.
        """

    async def flush(self) -> None:
        """Wait until all changes so far are as durable as this backend can make them."""

    async def flush_all(self) -> None:
        """Flush repeatedly, until the functions passed to `after_commit` have made no further changes.

        Returns after several rounds even if there are further changes.
        """

    async def aclose(self) -> None:
        """Flush, and release all resources of the backend. Idempotent.

        Calls that read at that time raise a `trio_hub.errors.StoreError`.
        """
