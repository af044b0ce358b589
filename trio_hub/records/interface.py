"""What a task database is to the hub: one interface for all backends.

Writing never waits: `add`, `update` and `append` take effect in the order they were called, at once for
whoever reads through the same store, and on disk (where there is one) after `flush`. Reading may wait for a
disk, so it is `async`; a backend without one just does not wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

from .query import Query
from .record import TaskRecord

__all__ = ["Checkpoint", "Store", "StoreStatistics", "no_checkpoint"]

# What a long computation awaits now and then, so that others get their turn: `trio.lowlevel.checkpoint`, say.
# The store may have changed when it returns.
Checkpoint: TypeAlias = Callable[[], Awaitable[None]]


async def no_checkpoint() -> None:
    """A `Checkpoint` for callers that need none: does not wait."""


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """How a task database does. Counts are since it was opened. Without a disk behind it, nothing waits to be written.

    See `trio_hub.DatabaseStatistics` for what each number says; ``size`` is None for a database that does not know its
    own size, in bytes.
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

    `get`, `find`, `history` and `drop` are for users' queries. `fetch`, `unfinished`, `undelivered` and `notes` are for
    the hub itself: they never wait for users' queries, however many and slow these are.

    - ``durable``: whether it outlives this process;
    - ``crowded``: whether so much is still to be written that the hub should take nothing more for now.
    """

    @property
    def durable(self) -> bool: ...

    @property
    def crowded(self) -> bool: ...

    def statistics(self) -> StoreStatistics:
        """Return the database's numbers now."""

    async def run(self) -> None:
        """Do what the database has to do beside its calls, until it is closed or this is cancelled.

        A database without such work returns at once. Called once, in the hub's nursery.
        """

    def add(self, record: TaskRecord) -> None:
        """Keep a new record; one that exists under its msg_id is replaced, and arrives anew.

        The store keeps the values of this moment: what is done to the object later does not reach it.
        """

    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        """Change keys of a record (values as in `TaskRecord`); an unknown msg_id changes nothing.

        Raises `AttributeError`, and changes nothing, for ``msg_id`` and for a key that no record has.
        """

    def append(self, msg_id: str, key: str, text: str) -> None:
        """Append to ``stdout`` or ``stderr`` without rewriting what is there; an unknown msg_id: nothing.

        What goes beyond `trio_hub.records.output.MAX_OUTPUT` characters of one record is not kept; the text says so.

        Raises `AttributeError` for any other key.
        """

    def discard(self, msg_id: str) -> None:
        """Forget a record, completed or not; an unknown msg_id: nothing."""

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call that when all that was written before is as durable as this backend can make it; in the order of calls.

        Without a disk to wait for, that is at once. It is not called if the hub ends before.
        """

    async def get(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """The records that exist among those asked for, by msg_id: copies, which no later write changes.

        Without notes (`TaskRecord.note`), as everything that users see.
        """

    async def fetch(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """`get` for the hub itself: finds notes as well, and does not wait for users' queries."""

    async def find(self, query: Query, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """All matching records in the order of `history`, as dicts of decoded values.

        ``keys=None`` gives every key but the buffers; ``msg_id`` is always among them. The dicts are the
        caller's own. Raises `trio_hub.errors.QueryError` for a key that no record has.
        """

    async def drop(self, query: Query) -> int:
        """Forget all matching records **that are completed**, and say how many they were.

        Done step by step: others read and write in between. Records that come while this is at work stay.
        """

    async def history(self) -> list[str]:
        """All msg_ids, by time of submission (then by arrival); those without one come last."""

    async def unfinished(self) -> list[TaskRecord]:
        """Requests of the hub before that are not completed, in the order of arrival, without content and buffers."""

    async def notes(self) -> list[TaskRecord]:
        """Notes of the hub before (`TaskRecord.note`), in the order of arrival."""

    async def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """msg_id and client session of results of the hub before that may not have reached their clients.

        They were marked as ``owed``, or were received within the window before that hub's last result.
        """

    async def flush(self) -> None:
        """Return when everything written so far is as durable as this backend can make it."""

    async def flush_all(self) -> None:
        """Flush, and flush again what calls of `after_commit` have written meanwhile, until nothing is left.

        After several rounds in which something was left, this returns all the same.
        """

    async def aclose(self) -> None:
        """Flush and release what the backend holds. Idempotent.

        Whoever reads at that time gets a `trio_hub.errors.StoreError`.
        """
