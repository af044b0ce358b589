"""The task database that keeps nothing, for hubs that should use as little memory as can be."""

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
    """A `trio_hub.records.Store` that forgets everything at once.

    No record is ever known, so `get` finds none and `drop` drops none. But an empty answer to `find` or
    `history` would look like "nothing has run", so those raise `trio_hub.errors.StoreError`.
    """

    durable = False
    crowded = False

    def statistics(self) -> StoreStatistics:
        """Nothing was kept, so each number is 0."""
        return StoreStatistics()

    async def run(self) -> None:
        """Nothing to do."""

    def add(self, record: TaskRecord) -> None:
        """Nothing is kept."""

    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        """Nothing is kept."""

    def append(self, msg_id: str, key: str, text: str) -> None:
        """Nothing is kept."""

    def discard(self, msg_id: str) -> None:
        """Nothing is kept."""

    def after_commit(self, call: Callable[[], None]) -> None:
        """Calls it."""
        call()

    async def get(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Always empty."""
        return {}

    async def fetch(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Always empty."""
        return {}

    async def find(self, query: Query, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Raises `trio_hub.errors.StoreError`."""
        _refuse()

    async def drop(self, query: Query) -> int:
        """Always 0."""
        return 0

    async def history(self) -> list[str]:
        """Raises `trio_hub.errors.StoreError`."""
        _refuse()

    async def unfinished(self) -> list[TaskRecord]:
        """Always empty."""
        return []

    async def notes(self) -> list[TaskRecord]:
        """Always empty."""
        return []

    async def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """Always empty."""
        return []

    async def flush(self) -> None:
        """Nothing to write."""

    async def flush_all(self) -> None:
        """Nothing to write."""

    async def aclose(self) -> None:
        """Nothing to release."""


def _refuse() -> NoReturn:
    raise StoreError("the hub runs with --db none, so there are no records; to keep them, leave out --db none")
