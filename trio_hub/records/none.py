"""The task database that keeps nothing, for hubs that should use as little memory as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from ..errors import StoreError
from .interface import StoreStatistics
from .query import Query
from .record import TaskRecord

__all__ = ["NullStore"]


class NullStore:
    """A `trio_hub.records.Store` that keeps no records.

    `get` finds no records and `drop` drops none. `find`, `history`, `recent` and `count` raise
    `trio_hub.errors.StoreError`, since an empty result would suggest that nothing has run.
    """

    durable = False
    crowded = False

    def statistics(self) -> StoreStatistics:
        """Return statistics in which each number is 0."""
        return StoreStatistics()

    async def run(self) -> None:
        """Return at once. There is no background work."""

    def add(self, record: TaskRecord) -> None:
        """Do nothing."""

    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        """Do nothing."""

    def append(self, msg_id: str, key: str, text: str) -> None:
        """Do nothing."""

    def discard(self, msg_id: str) -> None:
        """Do nothing."""

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call the function at once."""
        call()

    async def get(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Return an empty dict."""
        return {}

    async def fetch(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Return an empty dict."""
        return {}

    async def find(self, query: Query, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Raise `trio_hub.errors.StoreError`."""
        _refuse()

    async def drop(self, query: Query) -> int:
        """Return 0."""
        return 0

    async def history(self) -> list[str]:
        """Raise `trio_hub.errors.StoreError`."""
        _refuse()

    async def recent(self, limit: int, before: str | None = None) -> list[str]:
        """Raise `trio_hub.errors.StoreError`."""
        _refuse()

    async def count(self) -> int:
        """Raise `trio_hub.errors.StoreError`."""
        _refuse()

    async def unfinished(self) -> list[TaskRecord]:
        """Return an empty list."""
        return []

    async def notes(self) -> list[TaskRecord]:
        """Return an empty list."""
        return []

    async def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """Return an empty list."""
        return []

    async def flush(self) -> None:
        """Return at once. There is nothing to write."""

    async def flush_all(self) -> None:
        """Return at once. There is nothing to write."""

    async def aclose(self) -> None:
        """Return at once. There is nothing to release."""


def _refuse() -> NoReturn:
    raise StoreError("the hub runs with --db none, so there are no records; to keep them, leave out --db none")
