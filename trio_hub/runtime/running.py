"""`RunningHub`: a running hub, as a program that embeds it uses it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any

import trio

from ..config import HubConfig
from ..config.connectionfiles import connection_paths
from ..errors import ConfigError, EngineError, HubClosedError, WireError
from ..hub import EngineConnector, Hub
from ..hub.events import Event
from ..records import parse_query
from ..schedulers.policy import Policy
from ..services import Failures
from .factory import HubFactory
from .host import RuntimeHost, carry_out
from .observing import Observer
from .statistics import Statistics, statistics_of

__all__ = ["RunningHub"]


class RunningHub:
    """A running hub. `serve_hub` passes it to the program that embeds the hub.

    - ``config``: the settings; with ``reuse``, including those of the connection files;
    - ``client_info``, ``engine_info``: the contents of the connection files. ``ipyparallel.Client`` accepts the former;
    - ``client_file``, ``engine_file``: the paths of these files; None without a profile directory.
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
        """``encrypted`` if clients and engines connect with CURVE, else ``open``."""
        return "open" if self.client_info["curve_serverkey"] is None else "encrypted"

    @property
    def engines(self) -> dict[int, str]:
        """The uuids of the engines that are registered now, by id."""
        return {engine.id: engine.uuid for engine in self._host.hub.engines.alive.values()}

    @property
    def core(self) -> Hub:
        """The hub's core, for reading its state. Changing the state changes what the hub does."""
        return self._host.hub

    async def wait_engines(self, n: int) -> None:
        """Wait until at least `n` engines are registered at the same time. For a timeout, use a cancel scope.

        Raises:
            HubClosedError: The hub stops before, or has stopped.
        """
        await trio.lowlevel.checkpoint()
        while not self._host.stop_requested.is_set():
            if len(self._host.hub.engines.alive) >= n:
                return
            await self._host.engines_changed.wait()
        raise HubClosedError(f"the hub stopped before {n} engines were registered")

    def statistics(self) -> Statistics:
        """Return the hub's present numbers."""
        published = self._subscribers
        host = self._host
        return statistics_of(
            host.hub, self.config.database, self.connections, published, host.failures, host.local_engines
        )

    @property
    def service_failures(self) -> Failures:
        """The number of failures of each service, by name. A program can count its own services here, too."""
        return self._host.failures

    def events(self) -> AbstractAsyncContextManager[AsyncGenerator[Event, None]]:
        """Return a context manager for the events from now on.

        Use it as ``async with hub.events() as events: async for event in events: …``. The stream ends when the hub
        stops. A reader that is more than 10,000 events behind gets `EventsLost`.
        """
        return self._host.events()

    def observed(self, observer: Observer) -> AbstractContextManager[None]:
        """Return a context manager that has an observer called for each event, for the length of a ``with`` block."""
        return self._host.observed(observer)

    def abort(self, msg_ids: Sequence[str]) -> list[str]:
        """Abort tasks that are waiting or queued, and return the msg_ids of the aborted tasks.

        Their clients get the answer of an aborted task, and tasks that depend on them treat them as failed. A task that
        an engine has already goes on there, but is not sent to another engine.
        """
        return self.core.aborting.abort(msg_ids)

    async def cancel(
        self, msg_ids: Sequence[str], *, by: str = "the embedder", grace: float | None = None
    ) -> dict[str, str]:
        """Withdraw requests that wait, and interrupt requests that run. Their clients get `TaskCancelled`.

        If a request has not ended ``grace`` seconds after it was interrupted, its engine is killed; by default after
        10 s, or as its rules say.

        Returns:
            What is done to each request: ``"withdrawn"``, ``"interrupted"`` (it may not have ended yet), ``"finished"``
            before, or ``"unknown"``.

        Raises:
            StoreError: The task database does not answer. The requests are cancelled all the same.
        """
        return await carry_out(self.core.work.cancelling.cancel_and_look(list(msg_ids), by=by, grace=grace))

    def drain(
        self,
        engines: Sequence[int | str],
        *,
        deadline: float | None = None,
        then: str = "",
        by: str = "the embedder",
    ) -> None:
        """Give engines (ids or uuids) no new tasks. They finish what they run, and still answer direct requests.

        Args:
            engines: The engines.
            deadline: Seconds after which the tasks that still run are interrupted, and run on other engines. The
                attempts do not count. By default, nothing interrupts them.
            then: ``"shutdown"``: each engine is told to end when it is idle.
            by: Who asks for it.

        Raises:
            EngineError: An engine is not registered. Then no engine is drained.
            ValueError: ``then`` or the deadline cannot be used.
        """
        for engine in [self._engine(engine) for engine in engines]:
            self.core.work.draining.drain(engine, by=by, deadline=deadline, then=then)

    def undrain(self, engines: Sequence[int | str], *, by: str = "the embedder") -> None:
        """Give drained engines, named by ids or uuids, tasks again. Raises `EngineError` if one is not registered."""
        for engine in [self._engine(engine) for engine in engines]:
            self.core.work.draining.undrain(engine, by=by)

    async def resubmit(self, msg_ids: Sequence[str]) -> dict[str, str]:
        """Run recorded requests again, as new tasks, and return the new msg_ids by the old ones.

        Raises:
            KeyError: A request has no record. Then no request is run.
            StoreError: The task database does not answer.
        """
        return await carry_out(self.core.queries.resubmit(list(msg_ids)))

    async def purge(self, query: dict[str, Any]) -> int:
        """Forget the records of finished requests that match a query, and return their number. ``{}`` matches all.

        Raises:
            QueryError: The query is not in the hub's query language.
            StoreError: The task database does not answer.
        """
        return await self.core.store.drop(parse_query(query))

    async def drop_owed(self, session: str) -> int:
        """Give up the results that wait for a client that is away, and return their number. Their records stay.

        If the client comes back, it can still ask for these results, as with `Client.get_result`.
        """
        owed = self.core.owed
        msg_ids = owed.drop(session)
        for number, msg_id in enumerate(msg_ids):
            if self.core.store.durable:
                owed.settled(msg_id)
            if number % 100 == 0:
                await trio.lowlevel.checkpoint()
        return len(msg_ids)

    def shutdown_engine(self, uuid: str) -> None:
        """Ask an engine to end, as a client's ``shutdown`` does. Its running requests fail, or run elsewhere.

        Raises:
            EngineError: No engine with this uuid is registered.
        """
        self.core.control.shutdown_engine(self._engine(uuid))

    @property
    def policies(self) -> list[dict[str, Any]]:
        """The policies in the order in which they apply, each with its ``source``: ``configuration`` or ``added``."""
        return self.core.parts.policies.listed()

    def add_policy(self, policy: Policy | Mapping[str, Any]) -> None:
        """Add a policy in front of all others, for tasks that are submitted from now on.

        It replaces a policy of the same name. With ``reuse``, the next hub has it, too.

        Args:
            policy: the policy; or a mapping with its ``name``, conditions and rules, as in the configuration.

        Raises:
            ConfigError: The policy cannot be used.
        """
        try:
            self.core.parts.policies.add(policy.as_dict() if isinstance(policy, Policy) else policy)
        except WireError as error:
            raise ConfigError(str(error)) from None

    def remove_policy(self, name: str) -> None:
        """Remove a policy. A policy of the configuration comes back with the next hub.

        Raises:
            KeyError: There is no policy of this name.
        """
        self.core.parts.policies.remove(name)

    def explain(self, msg_id: str) -> dict[str, Any]:
        """Return the rules of an unfinished task, why it waits, and for each engine whether it could run it now.

        The keys are those of the answer to ``trio-hub explain --json``.

        Raises:
            KeyError: No unfinished task has this msg_id.
        """
        return self.core.parts.explanations.explain(msg_id)

    def tag(self, uuid: str, tags: Mapping[str, Any], *, remove: Sequence[str] = ()) -> dict[str, float | str]:
        """Set tags and amounts of an engine, remove others, and return all that it offers then.

        Raises:
            EngineError: No engine with this uuid is registered.
            ConfigError: A tag cannot be used.
        """
        try:
            return dict(self.core.parts.offers.tag(self._engine(uuid), tags, remove))
        except WireError as error:
            raise ConfigError(str(error)) from None

    @property
    def pools(self) -> list[dict[str, Any]]:
        """A description of each pool, with the keys of ``pools_reply``. Times are seconds since 1970."""
        return self._host.pools.steering.listed()

    def scale(
        self,
        pool: str,
        engines: int | None = None,
        *,
        min: int | None = None,
        max: int | None = None,
        by: str = "the embedder",
    ) -> None:
        """Change how many engines a pool has at least and at most. With ``reuse``, that holds for the next hub, too.

        Args:
            pool: The name of the pool.
            engines: The number of engines at least and at most, rounded up to whole blocks.
            min, max: Instead, the numbers of engines at least and at most; one that is None stays as it is. If
                ``engines`` is None, too, the numbers of the settings hold again.
            by: Who asks for it.

        Raises:
            PoolError: There is no such pool, or it cannot have so many engines.
        """
        self._host.pools.steering.scale(pool, engines, min=min, max=max, by=by)

    def resume_pool(self, pool: str, *, by: str = "the embedder") -> None:
        """Have a pool ask for blocks again that has paused or stopped, since blocks have failed.

        Raises:
            PoolError: There is no such pool.
        """
        self._host.pools.steering.resume(pool, by)

    def _engine(self, name: int | str) -> EngineConnector:
        """Return the engine with this id or uuid. Raises `EngineError`."""
        known = self.core.engines
        engine = known.by_ident.get(name.encode("utf-8", "replace")) if isinstance(name, str) else known.alive.get(name)
        if engine is None:
            kind = "uuid" if isinstance(name, str) else "id"
            raise EngineError(f"no engine with the {kind} {name!r} is registered (any more)")
        return engine

    def shutdown(self, reason: str = "the embedder's wish", *, at_once: bool = False) -> None:
        """Ask for an orderly stop: waiting clients get answers, and `serve_hub` returns. Idempotent.

        With ``at_once``, local engines get no time to end by themselves, even if the stop has begun already.
        """
        self._host.stop(reason)
        if at_once:
            self._host.hurried.set()

    def mark_stopped(self) -> None:
        self._stopped.set()

    @property
    def is_stopping(self) -> bool:
        """Whether the hub has been asked to stop, or has stopped."""
        return self._host.stop_requested.is_set()

    async def wait_stopping(self) -> None:
        """Wait until the hub is asked to stop."""
        await self._host.stop_requested.wait()

    async def wait_stopped(self) -> None:
        """Wait until the hub has stopped and released everything."""
        await self._stopped.wait()
