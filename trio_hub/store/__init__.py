"""Task databases: one interface, several backends, one query language."""

from __future__ import annotations

from ..errors import ConfigError
from .interface import Checkpoint, Store, no_checkpoint
from .memory import MemoryStore
from .none import NullStore
from .query import Query, parse_keys, parse_query
from .record import RECORD_KEYS, TaskRecord, empty_record

__all__ = [
    "RECORD_KEYS",
    "Checkpoint",
    "MemoryStore",
    "NullStore",
    "Query",
    "Store",
    "TaskRecord",
    "empty_record",
    "open_store",
    "parse_keys",
    "parse_query",
]


def open_store(
    url: str, checkpoint: Checkpoint = no_checkpoint, *, max_records: int = 100_000, max_bytes: int = 1 << 30
) -> Store:
    """Open a task database: ``"memory"`` or ``"none"``.

    Args:
        url: Its name.
        checkpoint: Awaited now and then by reads that take long, so that they do not hog an event loop.
        max_records, max_bytes: Bounds of a database in memory, see `MemoryStore`.

    Raises:
        ConfigError: There is no such database.
    """
    if url == "memory":
        return MemoryStore(max_records=max_records, max_bytes=max_bytes, checkpoint=checkpoint)
    if url == "none":
        return NullStore()
    raise ConfigError(f"there is no task database {url!r}; there are 'memory' and 'none'")
