"""`RunningHub`: the handle by which an embedder holds a hub that is at work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any

import trio

from ..config import HubConfig
from ..config.connectionfiles import connection_paths
from ..errors import EngineError, HubClosedError
from ..hub import Hub
from ..hub.events import Event
from ..records import parse_query
from ..services import Failures
from .factory import HubFactory
from .host import RuntimeHost, carry_out
from .observing import Observer
from .statistics import Statistics, statistics_of

__all__ = ["RunningHub"]


class RunningHub:
    """A hub that is at work, as `serve_hub` hands it to its embedder.

    - ``config``: what it was started with; with ``reuse``, what the connection files have made of that;
    - ``client_info``, ``engine_info``: what connection files say; ``ipyparallel.Client`` takes the former as it is;
    - ``client_file``, ``engine_file``: the paths of these files, or None without a profile directory.
    """

    def __init__(self, config: HubConfig, factory: HubFactory, host: RuntimeHost) -> None:
        self.config = config
        self.client_info: dict[str, Any] = dict(factory.client_info)
        self.engine_info: dict[str, Any] = dict(factory.engine_info)
        self.client_file: Path | None = None
        self.engine_file: Path | None = None
        if config.profile_dir is not None:
            self.client_file, self.engine_file = connection_paths(config.profile_dir, config.cluster_id)
        self._host = host
        self._subscribers = [publisher.subscribers for publisher in factory.publishers.values()]
        self._stopped = trio.Event()

    def __repr__(self) -> str:
        state = "stopped" if self._stopped.is_set() else "running"
        return f"<RunningHub {state} at {self.client_info['interface']}:{self.client_info['registration']}>"

    @property
    def connections(self) -> str:
        """``encrypted``, if clients and engines talk to it over CURVE, or ``open``."""
        return "open" if self.client_info["curve_serverkey"] is None else "encrypted"

    @property
    def engines(self) -> dict[int, str]:
        """The engines that are usable now: their uuids, by id."""
        return {engine.id: engine.uuid for engine in self._host.hub.engines.alive.values()}

    @property
    def core(self) -> Hub:
        """The hub's state, to look at: whoever changes it changes what the hub does."""
        return self._host.hub

    async def wait_engines(self, n: int) -> None:
        """Wait until at least `n` engines are usable at the same time. Put it in a cancel scope for a timeout.

        Raises:
            HubClosedError: if the hub stops before, or has stopped.
        """
        await trio.lowlevel.checkpoint()
        while not self._host.stop_requested.is_set():
            if len(self._host.hub.engines.alive) >= n:
                return
            await self._host.engines_changed.wait()
        raise HubClosedError(f"the hub stopped while {n} engines were waited for")

    def statistics(self) -> Statistics:
        """Its numbers now."""
        published = self._subscribers
        host = self._host
        return statistics_of(
            host.hub, self.config.database, self.connections, published, host.failures, host.local_engines
        )

    @property
    def service_failures(self) -> Failures:
        """How often each service has failed, by name: for a program that runs services of its own beside the hub."""
        return self._host.failures

    def events(self) -> AbstractAsyncContextManager[AsyncGenerator[Event, None]]:
        """What happens from now on: ``async with hub.events() as events: async for event in events: …``.

        The stream ends when the hub does. A reader that falls 10,000 events behind gets `EventsLost`.
        """
        return self._host.events()

    def observed(self, observer: Observer) -> AbstractContextManager[None]:
        """Tell an observer what happens, as it happens, for the length of a ``with`` block."""
        return self._host.observed(observer)

    def abort(self, msg_ids: Sequence[str]) -> list[str]:
        """Withdraw load-balanced tasks that wait, or are queued, here; which of them did.

        Their clients get the answer of an aborted task, and what depends on them is told of a failure. What an engine
        has already is left alone.
        """
        return self.core.aborting.abort(msg_ids)

    async def resubmit(self, msg_ids: Sequence[str]) -> dict[str, str]:
        """Run recorded requests again, as new tasks: their new msg_ids, by the old ones.

        Raises:
            KeyError: there is no record of one of them; then none is run.
            StoreError: the task database does not answer.
        """
        return await carry_out(self.core.queries.resubmit(list(msg_ids)))

    async def purge(self, query: dict[str, Any]) -> int:
        """Forget the records of finished requests that match a query, ``{}`` all of them; how many they were.

        Raises:
            QueryError: it is not in the hub's query language.
            StoreError: the task database does not answer.
        """
        return await self.core.store.drop(parse_query(query))

    def shutdown_engine(self, uuid: str) -> None:
        """Ask an engine to end, as a client's ``shutdown`` does. What it runs is given up, or run elsewhere.

        Raises:
            EngineError: there is no engine of this uuid.
        """
        engine = self.core.engines.by_ident.get(uuid.encode("utf-8", "replace"))
        if engine is None:
            raise EngineError(f"there is no engine of the uuid {uuid!r} (any more)")
        self.core.control.shutdown_engine(engine)

    def shutdown(self, reason: str = "the embedder's wish", *, at_once: bool = False) -> None:
        """Ask for an orderly stop: whoever waits is answered, and `serve_hub` returns. Idempotent.

        ``at_once`` gives local engines no time to end by themselves, also in a stop that is under way.
        """
        self._host.stop(reason)
        if at_once:
            self._host.hurried.set()

    def mark_stopped(self) -> None:
        self._stopped.set()

    @property
    def is_stopping(self) -> bool:
        """Whether it has been asked to stop, or has stopped."""
        return self._host.stop_requested.is_set()

    async def wait_stopping(self) -> None:
        """Wait until it is asked to stop, by whomever."""
        await self._host.stop_requested.wait()

    async def wait_stopped(self) -> None:
        """Wait until everything is released."""
        await self._stopped.wait()
