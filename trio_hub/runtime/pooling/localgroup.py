"""All local engines of a hub: those of the setting ``engines``, and those of pools that grow and shrink."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import trio

from ...hub import EngineConnector
from ...logs import get_logger
from ..children import LocalEngines
from ..places import SavedProcess
from .blocks import pool_of

__all__ = ["LocalGroup"]

log = get_logger("trio_hub.runtime")


class LocalGroup:
    """All local engines of a hub.

    Args:
        fixed: the engines of the setting ``engines``.
        pools: the engines of each pool with the launcher ``local``, by the name of the pool.
        former: the engines of pools that the settings do not have any more.
    """

    def __init__(self, fixed: LocalEngines, pools: Mapping[str, LocalEngines], former: LocalEngines) -> None:
        self.fixed = fixed
        self.pools = dict(pools)
        self.former = former

    def __iter__(self) -> Iterator[LocalEngines]:
        yield self.fixed
        yield from self.pools.values()
        yield self.former

    @property
    def n(self) -> int:
        """The number of engines that the setting ``engines`` asks for."""
        return self.fixed.n

    def missing(self) -> tuple[str, ...]:
        """Return a sentence for each engine of the setting ``engines`` that cannot be used now."""
        return self.fixed.missing()

    @property
    def registered(self) -> int:
        """The number of local engines that are registered and alive."""
        return sum(engines.registered for engines in self)

    @property
    def saved(self) -> dict[int, SavedProcess]:
        """The processes that run now, by process id, for the next hub."""
        return {pid: process for engines in self for pid, process in engines.saved.items()}

    def adopt(self, processes: Mapping[int, SavedProcess], *, returning: bool = True) -> None:
        """Supervise the local engines of an earlier hub that still run. Call this before `run`.

        Args:
            processes: their processes.
            returning: whether these engines can work for this hub. If not, those of pools are ended, and the others
                are left alone.
        """
        for engines, some in self._sorted(processes, returning=returning).items():
            engines.adopt(some)
        for place in self.former.places:
            log.warning(
                "a local engine of an earlier hub is ended: its pool is not in the settings any more, or this hub was "
                "not started with restore or reuse",
                block=place.block,
                pid=place.pid,
            )
            place.scope.cancel()

    def _sorted(
        self, processes: Mapping[int, SavedProcess], *, returning: bool
    ) -> dict[LocalEngines, dict[int, SavedProcess]]:
        found: defaultdict[LocalEngines, dict[int, SavedProcess]] = defaultdict(dict)
        for pid, process in processes.items():
            if process.block:
                pool = self.pools.get(pool_of(process.block) or "") if returning else None
                found[self.former if pool is None else pool][pid] = process
            elif returning:
                found[self.fixed][pid] = process
        return found

    def meet(self, engine: EngineConnector) -> None:
        """Note that an engine registers, or is taken over from an earlier hub, if it is a local engine."""
        for engines in self:
            engines.meet(engine)

    def kill(self, engine: EngineConnector) -> bool:
        """Kill the process of a local engine at once. Return False if the engine is not local, or has no process."""
        return any(engines.kill(engine) for engines in self)

    def hurry(self) -> None:
        """Leave out the grace from now on, for engines that are being ended and for engines that are ended later."""
        for engines in self:
            engines.hurry()

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Run all local engines until this is cancelled. Then end them all."""
        async with trio.open_nursery() as nursery:
            for engines in self:
                engines.start(nursery)
            started()
            await trio.sleep_forever()
