"""A hub with computing engines in a thread of its own, for tests of clients that block."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import trio

from trio_hub import Executor, HubConfig, RunningHub
from trio_hub.testing import ScriptedEngine, open_engines, open_hub

from ..runtime.support import LIMIT, eventually
from .support import compute

__all__ = ["Background", "background", "connected"]

T = TypeVar("T")


class Background:
    """A cluster, and methods that call functions in its thread. ``info`` is the connection info for clients."""

    hub: RunningHub
    engines: list[ScriptedEngine]

    def __init__(self, engines: int, settings: dict[str, Any]) -> None:
        self._config = HubConfig(**settings)
        self._number = engines
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="cluster of a test")

    def start(self) -> None:
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        self.call(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self._end = trio.Event()
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._serve_hub)
            self.info: dict[str, Any] = self.hub.client_info
            async with open_engines(self.hub.engine_info, self._number, behaviour=compute) as self.engines:
                await self.hub.wait_engines(self._number)
                self._ready.set_result(None)
                await self._end.wait()
            self.hub.shutdown()

    async def _serve_hub(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_hub(self._config) as self.hub:
            task_status.started()
            await self.hub.wait_stopped()

    async def _restart_hub(self) -> None:
        self.hub.shutdown()
        await self.hub.wait_stopped()
        await self._nursery.start(self._serve_hub)

    # From the test's thread

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the cluster's thread."""
        return trio.from_thread.run_sync(function, *args, trio_token=self.token)

    def wait(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await a function in the cluster's thread."""

        async def within_limit() -> T:
            with trio.fail_after(LIMIT):
                return await function(*args)

        return trio.from_thread.run(within_limit, trio_token=self.token)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds in the cluster's thread."""
        self.wait(eventually, condition)

    def restart_hub(self) -> None:
        self.wait(self._restart_hub)


@contextmanager
def background(engines: int = 1, **settings: Any) -> Iterator[Background]:
    cluster = Background(engines, settings)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def connected(cluster: Background, **settings: Any) -> Iterator[Executor]:
    """Give an executor during the block. If the block fails, do not wait for calls, which engines may hold."""
    executor = Executor(connection_info=cluster.info, **settings)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()
