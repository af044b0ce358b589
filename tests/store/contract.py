"""What the contract suite runs on: each backend that keeps records, by name.

A new backend joins by adding a function that opens a fresh, empty store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import trio

from trio_hub.runtime.recordwriter import RecordWriter
from trio_hub.store import MemoryStore, Store, TaskRecord, empty_record
from trio_hub.store.backend import Backend

from .fake import FakeBackend
from .strategies import NOON, packed

Opener = Callable[[], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def open_memory() -> AsyncIterator[Store]:
    store = MemoryStore()
    yield store
    await store.aclose()


@asynccontextmanager
async def open_writer(backend: Backend, **settings: Any) -> AsyncIterator[RecordWriter]:
    """A backend behind a `RecordWriter` that is at work."""
    store = RecordWriter(backend, **settings)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            yield store
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await store.aclose()


@asynccontextmanager
async def open_fake() -> AsyncIterator[Store]:
    async with open_writer(FakeBackend(), delay=0) as store:
        yield store


BACKENDS: dict[str, Opener] = {"memory": open_memory, "fake": open_fake}


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def make(msg_id: str, **values: Any) -> TaskRecord:
    """A record of decoded values."""
    return packed(empty_record() | values | {"msg_id": msg_id})


def finished(msg_id: str, **values: Any) -> TaskRecord:
    return make(msg_id, **({"submitted": at(0), "completed": at(1)} | values))
