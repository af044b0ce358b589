"""Records of requests, the query language, the interface of task databases, and the databases without a disk."""

from __future__ import annotations

from .interface import Checkpoint, Store, StoreStatistics
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
    "StoreStatistics",
    "TaskRecord",
    "empty_record",
    "parse_keys",
    "parse_query",
]
