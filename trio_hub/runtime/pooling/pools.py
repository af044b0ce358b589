"""`Pools`: keeps the pools of a hub at the size that the demand asks for."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any

import trio

from ...config import Pool
from ...hub.events import Event
from ...launching.launcher import Launcher
from ...logs import get_logger
from ...pools.dividing import decide_all
from ...pools.sizing import Decision
from ...pools.supply import Engine
from ...services import Failures, going_on, keep_running
from .blocks import pool_of
from .files import PoolFiles
from .pool import ElasticPool
from .ports import Core
from .saving import Saving
from .tending import SERVICE, Tending

__all__ = ["Pools"]

log = get_logger("trio_hub.runtime")

PERIOD = 0.25
"""Seconds between two looks whether anything has changed."""
SHARE = 0.05
"""The part of a processor core that looks and decisions may take up."""
HURRIED = 2.0
"""Seconds within which blocks must be cancelled when the hub stops at once."""


class Pools:
    """The pools of a hub.

    Each pool of the settings has a `Tending`. So has each pool of an earlier hub whose blocks are to be cancelled.

    Args:
        pools: the pools whose size follows the demand.
        core: the part of the hub that reports the queue and the engines.
        make_launcher: makes the launcher of a pool. If that is an async context manager, it is entered while pools run.
        files: the files of the pools.
        now: the time in seconds since 1970.
        failures: counts unexpected errors.
        tell: is called with each event.
        note_end: notes when an engine ends because of the time limit of its block: the engine, and when.
        grace: the seconds within which blocks are cancelled when the hub stops.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        core: Core,
        make_launcher: Callable[[Pool], Launcher],
        *,
        files: PoolFiles,
        now: Callable[[], float] = time.time,
        failures: Failures,
        tell: Callable[[Event], None] = lambda event: None,
        note_end: Callable[[bytes, float], None] = lambda ident, at: None,
        grace: float = 5.0,
    ) -> None:
        self._core = core
        self._make_launcher = make_launcher
        self._now = now
        self._failures = failures
        self._tell = tell
        self._note_end = note_end
        self._grace = grace
        self._mark: Any = None
        self._due = -math.inf
        self._is_changed = False
        self._nursery: trio.Nursery | None = None
        self._works: set[trio.CancelScope] = set()
        self._stopping = trio.CancelScope()
        self.saving = Saving(files, self, now)
        self.tended: dict[str, Tending] = {pool.name: self.tend(pool) for pool in pools}
        """The pools of the settings, by name."""
        self.former: list[Tending] = []
        """The pools of earlier hubs."""
        core.measure = bool(pools)
        self.settings_changed()

    def __iter__(self) -> Iterator[Tending]:
        yield from self.tended.values()
        yield from self.former

    def tend(self, pool: Pool) -> Tending:
        """Return a `Tending` for a pool."""
        return Tending(
            ElasticPool(pool, tell=self._tell, save=self.saving.note),
            self._make_launcher(pool),
            files=self.saving.files,
            core=self._core,
            failures=self._failures,
            now=self._now,
            changed=self.decide_soon,
        )

    def settings_changed(self) -> None:
        """Tell the hub which engines the pools can bring. Call this after the settings of a pool have changed."""
        self._core.use([tending.pool.settings for tending in self.tended.values()])
        self.decide_soon()

    def decide_soon(self) -> None:
        """Have all pools decided on at the next look."""
        self._is_changed = True

    # Decisions

    async def _keep_deciding(self) -> None:
        """Look again and again whether something has changed, and decide. Runs for ever."""
        while True:
            began = time.perf_counter()
            with going_on(SERVICE, self._failures):
                self.step()
            await trio.sleep(max(PERIOD, (time.perf_counter() - began) / SHARE))

    def step(self) -> None:
        """Decide on all pools if something has changed, or if it is time, and carry out the decisions."""
        now = self._now()
        if not self._is_changed and now < self._due and not self._core.has_changed(self._mark):
            return
        self._is_changed = False
        self._mark = self._core.mark()
        others = self._meet(self._core.engines(), now)
        inputs = [tending.pool.as_input(now) for tending in self.tended.values()]
        plan = decide_all(inputs, self._core.demand(), now, others)
        self._due = plan.ask_again
        for name, decision in plan.decisions.items():
            self._carry_out(self.tended[name], decision, now)

    def _meet(self, engines: Sequence[Engine], now: float) -> list[Engine]:
        """Tell each pool which of its engines are registered. Return the engines that belong to no pool."""
        owners = {name: tending for tending in self for name in tending.pool.blocks}
        found: defaultdict[Tending, defaultdict[str, list[Engine]]] = defaultdict(lambda: defaultdict(list))
        others = []
        for engine in engines:
            owner = owners.get(engine.block) or self.tended.get(pool_of(engine.block) or "")
            if owner is None:
                others.append(engine)
            else:
                found[owner][engine.block].append(engine)
        for tending in self:
            tending.meet(found[tending], now)
            self._note_ends(tending.pool)
        self.former = [tending for tending in self.former if tending.pool.blocks]
        return others

    def _note_ends(self, pool: ElasticPool) -> None:
        """Note that engines which have not said when they end will end with the time limit of their block."""
        limit = pool.settings.time_limit
        if limit is not None:
            for engine in pool.engines:
                started = pool.blocks[engine.block].started
                if engine.ends == math.inf and started is not None:
                    self._note_end(engine.ident, started + limit)

    def _carry_out(self, tending: Tending, decision: Decision, now: float) -> None:
        pool = tending.pool
        by = f"pool {pool.name}"
        pool.decided(decision)
        for ident in decision.undrain:
            self._core.take_back(ident, by)
        for ident in decision.drain:
            self._core.retire(ident, by)
        for cancellation in decision.cancel:
            block = pool.cancel(cancellation, now)
            if block is None:
                tending.look_soon()
            else:
                self._start(partial(tending.cancel, block))
        for _ in range(decision.submit):
            self._start(partial(tending.submit, pool.begin(now)))

    # Tasks

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task that goes on when the hub stops, until all blocks are cancelled."""
        if self._nursery is not None:
            self._nursery.start_soon(self._shielded, work)

    async def _shielded(self, work: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope(shield=True) as scope:
            self._works.add(scope)
            try:
                await keep_running(SERVICE, work, self._failures)
            finally:
                self._works.discard(scope)

    async def run(self) -> None:
        """Keep all pools at their size until this is cancelled. Then cancel their blocks, unless they are to stay."""
        async with AsyncExitStack() as stack:
            for tending in self:
                if isinstance(tending.launcher, AbstractAsyncContextManager):
                    await stack.enter_async_context(tending.launcher)
            async with trio.open_nursery() as self._nursery:
                try:
                    for tending in self:
                        for block in tending.pool.cancelled():  # by an earlier hub, or because no hub needs them
                            self._start(partial(tending.cancel, block))
                    await self._run_services()
                finally:
                    with trio.CancelScope(shield=True):
                        await self._stop()
                    for scope in self._works:
                        scope.cancel()
            self._nursery = None

    async def _run_services(self) -> None:
        async with trio.open_nursery() as nursery:
            services = [self.saving.run, *(tending.watch for tending in self)]
            if self.tended or self.former:
                services.append(self._keep_deciding)
            for service in services:
                nursery.start_soon(keep_running, SERVICE, service, self._failures)

    # The stop

    def hurry(self) -> None:
        """Have the stop of the hub wait only `HURRIED` seconds for the cancellation of blocks."""
        self._grace = min(self._grace, HURRIED)
        self._stopping.deadline = min(self._stopping.deadline, trio.current_time() + HURRIED)
        for tending in self:
            tending.launcher.hurry()

    async def _stop(self) -> None:
        """Cancel all blocks, within the grace. For pools with ``keep``, only wait for submissions under way."""
        with going_on(SERVICE, self._failures):
            with self._stopping as scope:
                scope.deadline = trio.current_time() + self._grace
                async with trio.open_nursery() as nursery:
                    for tending in self:
                        for block in list(tending.pool.blocks.values()):
                            nursery.start_soon(tending.give_back, block)
            left = [block.name for tending in self for block in tending.left_over()]
            if left:
                for name in left:  # at least the engines end, and with them most jobs
                    self._core.shut_down(name)
                log.error(
                    "blocks could not be cancelled before the hub has stopped: cancel their jobs by hand, or start a "
                    "hub in this profile, which cancels them",
                    blocks=" ".join(left),
                )
            await self.saving.save()
