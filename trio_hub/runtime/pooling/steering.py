"""Lists the pools for users, and changes pools while the hub runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from dataclasses import replace
from typing import Any

from ...config.pools import LOCAL
from ...errors import ConfigError, PoolError
from ...hub.askers import named
from ...hub.events import Event, PoolScaled
from ...logs import get_logger
from ...pools.settings import PoolSettings
from .fixed import FixedPool
from .listing import listed_fixed, listed_pool
from .pool import COUNTS, ElasticPool
from .pools import Pools

__all__ = ["Steering"]

log = get_logger("trio_hub.runtime")


class Steering:
    """Lists the pools of a hub, and changes their sizes.

    Args:
        pools: the pools whose size follows the demand.
        fixed: the engines of the setting ``engines``; None if it is 0.
        drained: the identities of engines that are drained.
        now: the time in seconds since 1970.
        tell: is called with each event.
    """

    def __init__(
        self,
        pools: Pools,
        fixed: FixedPool | None,
        *,
        drained: Container[bytes],
        now: Callable[[], float],
        tell: Callable[[Event], None],
    ) -> None:
        self._pools = pools
        self._fixed = fixed
        self._drained = drained
        self._now = now
        self._tell = tell

    def listed(self) -> list[dict[str, Any]]:
        """Return a description of each pool, as JSON values, in the order of the settings."""
        found = [] if self._fixed is None else [listed_fixed(self._fixed, LOCAL, self._drained)]
        return found + [listed_pool(tending.pool, self._now()) for tending in self._pools.tended.values()]

    # Changes

    def scale(
        self,
        name: str,
        engines: int | None = None,
        *,
        min: int | None = None,
        max: int | None = None,
        by: str = "the embedder",
    ) -> tuple[int, int]:
        """Change how many engines a pool has at least and at most, and return both numbers.

        Args:
            name: the pool.
            engines: the number of engines, which is rounded up to whole blocks; None: see the others.
            min, max: the numbers of engines that the pool has at least and at most; one that is None stays. If
                ``engines`` is None, too, the numbers of the settings hold again.
            by: who asks for the change.

        Raises:
            PoolError: there is no such pool, or it cannot have so many engines.
        """
        if engines is not None and (min is not None or max is not None):
            raise PoolError("give either the number of engines, or min and max")
        by = named(by)
        if self._fixed is not None and name == LOCAL:
            low = high = self._scale_fixed(self._fixed, engines, min, max)
        else:
            low, high = self._scale(self._pool(name), engines, min, max)
        log.info("a pool was scaled", pool=name, min=low, max=high, by=by)
        self._tell(PoolScaled(name, low, high, by))
        self._pools.saving.note()
        return low, high

    def _scale_fixed(self, fixed: FixedPool, engines: int | None, min: int | None, max: int | None) -> int:
        if min != max:
            raise PoolError(f"the pool {LOCAL} has a fixed number of engines: give one number")
        n = engines if engines is not None else min if min is not None else fixed.configured
        try:
            PoolSettings(LOCAL, max=n)
        except ConfigError:
            raise PoolError(f"pool {LOCAL}: the number of engines must be a whole number from 0, not {n!r}") from None
        fixed.resize(n)
        return n

    def _scale(self, pool: ElasticPool, engines: int | None, min: int | None, max: int | None) -> tuple[int, int]:
        configured = pool.pool.settings
        try:
            if engines is not None:
                if type(engines) is not int or engines < 0:
                    raise PoolError(f"pool {pool.name}: the number of engines must be a whole number from 0")
                settings = configured.scaled(engines)
            elif min is None and max is None:
                settings = configured
            else:
                low = pool.settings.min if min is None else min
                high = pool.settings.max if max is None else max
                settings = replace(configured, min=low, max=high)
        except ConfigError as error:
            raise PoolError(str(error)) from None
        self._use(pool, settings)
        return settings.min, settings.max

    def _use(self, pool: ElasticPool, settings: PoolSettings) -> None:
        pool.settings = settings
        self._pools.settings_changed()

    def resume(self, name: str, by: str = "the embedder") -> None:
        """Have a pool ask for blocks again that has paused, or stopped, since blocks have failed.

        Raises:
            PoolError: there is no such pool.
        """
        if self._fixed is not None and name == LOCAL:
            return
        pool = self._pool(name)
        pool.memory = pool.memory.resumed()
        log.info("a pool was resumed", pool=name, by=named(by))
        self._pools.decide_soon()

    def _pool(self, name: str) -> ElasticPool:
        tending = self._pools.tended.get(name)
        if tending is not None:
            return tending.pool
        names = ([] if self._fixed is None else [LOCAL]) + list(self._pools.tended)
        told = f"the pools are {', '.join(names)}" if names else "this hub has no pools"
        raise PoolError(f"there is no pool {str(name)[:100]!r}: {told}")

    # The next hub

    def numbers(self) -> dict[str, Any]:
        """Return the facts about the pools for the next hub, besides their blocks, as JSON values for `restore`."""
        found: dict[str, Any] = {}
        for name, tending in self._pools.tended.items():
            pool = tending.pool
            found[name] = {"engine_seconds": round(pool.spent, 3), "counts": dict(pool.counts)}
            if pool.settings != pool.pool.settings:
                found[name]["scaled"] = [pool.settings.min, pool.settings.max]
                found[name]["configured"] = [pool.pool.settings.min, pool.pool.settings.max]
        if self._fixed is not None:
            found[LOCAL] = {"engine_seconds": round(self._fixed.engine_seconds(), 3)}
            if self._fixed.engines.n != self._fixed.configured:
                found[LOCAL] |= {"scaled": [self._fixed.engines.n] * 2, "configured": [self._fixed.configured] * 2}
        return found

    def restore(self, saved: dict[str, Any]) -> None:
        """Take up the numbers of the previous hub. Call this before the pools run.

        A size that somebody has given a pool holds on, unless the settings have changed since.
        """
        for name, numbers in saved.items():
            try:
                self._restore(name, numbers)
            except (PoolError, ConfigError, LookupError, TypeError, ValueError, OverflowError) as error:
                log.warning("the numbers of a pool are not restored", pool=str(name)[:100], error=error)

    def _restore(self, name: str, numbers: Any) -> None:
        if not isinstance(numbers, dict):
            raise TypeError("they are not a table")
        fixed = self._fixed if name == LOCAL else None
        tending = self._pools.tended.get(name)
        configured, scaled, spent = numbers.get("configured"), numbers.get("scaled"), float(numbers["engine_seconds"])
        if not math.isfinite(spent):
            raise ValueError("the engine-seconds are not a number")
        if fixed is not None:
            fixed.spent = spent
            if scaled and configured == [fixed.configured] * 2:
                fixed.resize(int(scaled[0]))
        elif tending is not None:
            pool = tending.pool
            pool.spent = spent
            for key in COUNTS:
                pool.counts[key] = int(numbers["counts"][key])
            if scaled and configured == [pool.pool.settings.min, pool.pool.settings.max]:
                self._use(pool, replace(pool.pool.settings, min=int(scaled[0]), max=int(scaled[1])))
