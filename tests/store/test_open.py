from __future__ import annotations

import pytest
import trio

from trio_hub.errors import ConfigError, StoreError
from trio_hub.store import MemoryStore, NullStore, Query, open_store

from .contract import finished


def test_stores_by_name() -> None:
    store = open_store("memory", max_records=3, max_bytes=5)
    assert isinstance(store, MemoryStore)
    assert (store.max_records, store.max_bytes) == (3, 5)
    assert isinstance(open_store("none", trio.lowlevel.checkpoint), NullStore)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no task database 'mongodb'; there are 'memory' and 'none'"):
        open_store("mongodb")


async def test_a_store_gets_its_checkpoint() -> None:
    turns = []

    async def checkpoint() -> None:
        turns.append(1)

    store = open_store("memory", checkpoint)
    for number in range(1000):
        store.add(finished(str(number)))
    await store.drop(Query.everything())
    assert len(turns) == 2


async def test_none_keeps_nothing_and_says_so() -> None:
    store = open_store("none")
    store.add(finished("a"))
    store.update("a", {"queue": "task"})
    store.append("a", "stdout", "x")
    assert await store.get(["a"]) == {}
    assert await store.drop(Query.everything()) == 0
    with pytest.raises(StoreError, match=r"--db none.*--db memory"):
        await store.find(Query.everything())
    with pytest.raises(StoreError, match=r"--db none.*--db memory"):
        await store.history()
    await store.flush()
    await store.aclose()
