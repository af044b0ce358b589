"""Makes an engine a worker of Dask. `Client.become_dask` of a stock client calls these functions on each engine.

The worker runs in a thread with an event loop of its own, so that the engine still carries out requests.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - Dask runs on it
import sys
import threading
from importlib import import_module
from typing import Any

__all__ = ["become_worker", "stop_worker"]

NAMES = ("dask_worker", "distributed_worker")
"""The worker's names in the user's namespace."""
_running: list[tuple[Any, asyncio.AbstractEventLoop]] = []


def become_worker(address: str, nanny: bool = False, **kwargs: Any) -> None:
    """Start a worker of Dask, unless there is one, and wait until it is ready.

    Args:
        address: the address of Dask's scheduler.
        nanny: whether the worker is a process of its own, which Dask looks after.
        kwargs: for `distributed.Worker`.
    """
    if _running:
        return
    worker_class = getattr(import_module("distributed"), "Nanny" if nanny else "Worker")
    ready = threading.Event()
    started: list[Any] = []
    failed: list[BaseException] = []

    async def work() -> None:
        async with worker_class(address, **kwargs) as worker:
            started.append(worker)
            _running.append((worker, asyncio.get_running_loop()))
            ready.set()
            await worker.finished()

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failed.append(error)
        finally:
            _running.clear()
            ready.set()

    threading.Thread(target=run, name="dask worker", daemon=True).start()
    ready.wait()
    if not started:
        raise failed[0]
    # The worker may have ended by now. Its names show that it did start.
    sys.modules["__main__"].__dict__.update(dict.fromkeys(NAMES, started[0]))


def stop_worker() -> None:
    """Stop the worker of Dask, if there is one, and remove its names from the user's namespace.

    The names are removed even if the worker has ended already, as it does with its scheduler.
    """
    for worker, loop in tuple(_running):
        closing = worker.close()
        try:
            asyncio.run_coroutine_threadsafe(closing, loop)
        except RuntimeError:  # the worker has just ended, and its event loop with it
            closing.close()
    namespace = sys.modules["__main__"].__dict__
    for name in NAMES:
        if type(namespace.get(name)).__module__.startswith("distributed."):
            del namespace[name]
