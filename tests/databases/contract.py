"""The backends that the contract suite tests, by name.

A new backend joins by adding a function that gives an opener of fresh, empty stores.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub.databases.backend import Backend, Change
from trio_hub.databases.postgres.database import open_postgres
from trio_hub.databases.sqlite.database import open_sqlite
from trio_hub.databases.writebehind import WriteBehindStore
from trio_hub.records import MemoryStore, Query, Store, TaskRecord, empty_record

from ..records.strategies import NOON, packed
from .fake import FakeBackend

Opener = Callable[[], AbstractAsyncContextManager[Store]]


def memory(request: pytest.FixtureRequest) -> Opener:
    @asynccontextmanager
    async def open_memory() -> AsyncIterator[Store]:
        store = MemoryStore()
        yield store
        await store.aclose()

    return open_memory


@asynccontextmanager
async def open_writer(backend: Backend, **settings: Any) -> AsyncIterator[WriteBehindStore]:
    """Give a running `WriteBehindStore` on top of a backend."""
    store = WriteBehindStore(backend, **settings)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            yield store
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await store.aclose()


def fake(request: pytest.FixtureRequest) -> Opener:
    return lambda: open_writer(FakeBackend(), delay=0)


def sqlite(request: pytest.FixtureRequest) -> Opener:
    @asynccontextmanager
    async def open_file() -> AsyncIterator[Store]:
        with tempfile.TemporaryDirectory() as directory:
            backend = await trio.to_thread.run_sync(open_sqlite, Path(directory, "tasks.db"))
            async with open_writer(backend, delay=0) as store:
                yield store

    return open_file


def postgres(request: pytest.FixtureRequest) -> Opener:
    """Give an opener of stores in one database, since creating a database takes long. Each store has its own owner."""
    server = request.getfixturevalue("postgres_server")
    url = server.url(server.new_database())
    owners = map("hub {}".format, count())

    def open_emptied() -> Backend:
        backend = open_postgres(url, owner=next(owners))
        reader = backend.reader()
        reader.begin()
        left = [Change(msg_id, removed=True) for _, msg_id in reader.history()]
        reader.end()
        reader.close()
        if left:
            backend.write(left)
        return backend

    @asynccontextmanager
    async def open_database() -> AsyncIterator[Store]:
        async with open_writer(await trio.to_thread.run_sync(open_emptied), delay=0) as store:
            yield store

    return open_database


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], Opener]] = {
    "memory": memory,
    "fake": fake,
    "sqlite": sqlite,
    "postgres": postgres,
}


def drop(backend: Backend, query: Query, *, step: int = 100) -> int:
    """Purge the matching records step by step, as a `WriteBehindStore` does. Return the number of dropped records."""
    reader = backend.reader()
    try:
        reader.begin()
        arrivals = reader.completed(query)
        reader.end()
    finally:
        reader.close()
    dropped = sum(backend.drop(arrivals[start : start + step]) for start in range(0, len(arrivals), step))
    if dropped:
        backend.tidy(done=True)
        while backend.give_back():
            pass
    return dropped


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def make(msg_id: str, **values: Any) -> TaskRecord:
    """Return a record with these values, which are given in decoded form."""
    return packed(empty_record() | values | {"msg_id": msg_id})


def finished(msg_id: str, **values: Any) -> TaskRecord:
    return make(msg_id, **({"submitted": at(0), "completed": at(1)} | values))
