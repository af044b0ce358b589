"""The start of a worker of Dask, with workers that end when they like; Dask itself is not needed."""

from __future__ import annotations

import asyncio  # noqa: TID251 - Dask runs on it
import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from trio_hub.engine import dask
from trio_hub.engine.dask import NAMES, become_worker, stop_worker


class ShortLived:
    """A worker that ends at once. Its start fails if its address says so."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def __aenter__(self) -> ShortLived:
        if self.address == "bad":
            raise OSError("no scheduler there")
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def close(self) -> None:
        pass

    async def finished(self) -> None:
        if self.address == "lost":
            raise OSError("the scheduler is gone")


class Ready(threading.Event):
    """An event whose waiter goes on only when the thread that sets the event has ended."""

    def wait(self, timeout: float | None = None) -> bool:
        found = super().wait(timeout)
        for thread in threading.enumerate():
            if thread.name == "dask worker":
                thread.join(10)
        return found


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    distributed, main = ModuleType("distributed"), ModuleType("__main__")
    distributed.__dict__["Worker"] = ShortLived
    monkeypatch.setitem(sys.modules, "distributed", distributed)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(threading, "Event", Ready)
    return main.__dict__


@pytest.mark.parametrize("address", ["good", "lost"])
def test_a_worker_that_ends_at_once_has_started(address: str, namespace: dict[str, Any]) -> None:
    become_worker(address)
    assert [namespace[name].address for name in NAMES] == [address, address]
    become_worker("again")
    assert namespace[NAMES[0]].address == "again", "the worker before it has ended"


def test_a_worker_that_cannot_start(namespace: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="no scheduler there"):
        become_worker("bad")
    assert not set(NAMES) & set(namespace)


def test_a_worker_that_has_just_ended_is_stopped(namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    monkeypatch.setattr(dask, "_running", [(ShortLived("good"), loop)])
    stop_worker()
