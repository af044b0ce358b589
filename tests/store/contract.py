"""What the contract suite runs on: each backend that keeps records, by name.

A new backend joins by adding a function that opens a fresh, empty store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from trio_hub.store import MemoryStore, Store, TaskRecord, empty_record

from .strategies import NOON, packed

Opener = Callable[[], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def open_memory() -> AsyncIterator[Store]:
    store = MemoryStore()
    yield store
    await store.aclose()


BACKENDS: dict[str, Opener] = {"memory": open_memory}


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def make(msg_id: str, **values: Any) -> TaskRecord:
    """A record of decoded values."""
    return packed(empty_record() | values | {"msg_id": msg_id})


def finished(msg_id: str, **values: Any) -> TaskRecord:
    return make(msg_id, **({"submitted": at(0), "completed": at(1)} | values))
