"""Pools that a test makes up, in place of those of a hub."""

from __future__ import annotations

from typing import Any

from trio_hub import RunningHub
from trio_hub.errors import PoolError
from trio_hub.runtime.pooling.queries import answer_queries


def block(number: int, state: str = "running", **changes: Any) -> dict[str, Any]:
    """Return a block as ``pools_request`` lists it."""
    made = {
        "block": f"slurm-{number}",
        "state": state,
        "engines": 4,
        "arrived": 4 if state == "running" else 0,
        "asked": 1_790_000_000.0 + number,
        "started": 1_790_000_100.0 if state in ("running", "cancelled") else None,
        "job": str(4710 + number),
        "words": "Resources" if state == "waiting" else "",
    }
    assert changes.keys() <= made.keys()
    return made | changes


def pool(name: str = "slurm", **changes: Any) -> dict[str, Any]:
    """Return a pool as ``pools_request`` lists it: four engines are there, and four are asked for."""
    made = {
        "name": name,
        "launcher": "slurm",
        "min": 0,
        "max": 8,
        "engines_per_block": 4,
        "backlog": 1,
        "idle_timeout": 30.0,
        "configured_min": 0,
        "configured_max": 8,
        "fixed": False,
        "wanted": 7,
        "asked": 4,
        "coming": 0,
        "there": 4,
        "idle": 1,
        "draining": 0,
        "engine_seconds": 5400.0,
        "cost": 1.0,
        "grow": {"word": "backlog", "text": "has 1 block in the queue of the batch system; at most 1 (backlog)"},
        "shrink": {"word": "in_use", "text": "has tasks that could use more engines"},
        "failures": 0,
        "failed_words": "",
        "paused_until": None,
        "is_stopped": False,
        "unanswered": "",
        "blocks": [block(1), block(2, "waiting")],
        "counts": {"submitted": 3, "refused": 0, "failed": 1, "ended": 2, "cancelled": 1},
    }
    assert changes.keys() <= made.keys()
    return made | changes


def stopped_pool(name: str = "broken", **changes: Any) -> dict[str, Any]:
    """Return a pool that asks for no more blocks, since ten have failed."""
    words = "sbatch: error: invalid partition specified: nowhere"
    facts = {
        "wanted": 8,
        "asked": 0,
        "there": 0,
        "idle": 0,
        "engine_seconds": 0.0,
        "grow": {
            "word": "stopped",
            "text": f"asks for no more blocks, since 10 blocks in a row failed ({words}): mend the cause, then "
            "resume the pool",
        },
        "shrink": {"word": "empty", "text": "has no engines"},
        "failures": 10,
        "failed_words": words,
        "is_stopped": True,
        "blocks": [],
        "counts": {"submitted": 0, "refused": 10, "failed": 0, "ended": 0, "cancelled": 0},
    }
    return pool(name, **(facts | changes))


def fixed_pool(engines: int = 4) -> dict[str, Any]:
    """Return the pool of ``--engines N``."""
    facts: dict[str, Any] = {
        "min": engines,
        "max": engines,
        "configured_min": engines,
        "configured_max": engines,
        "wanted": engines,
    }
    facts |= {
        "asked": 0,
        "there": engines,
        "idle": engines,
        "engines_per_block": 1,
        "fixed": True,
        "idle_timeout": None,
        "blocks": [],
    }
    return pool("local", launcher="local", **facts)


class PretendedPools:
    """Pools that are scaled and resumed, and otherwise stay as the test has made them."""

    def __init__(self, *pools: dict[str, Any]) -> None:
        self.pools = list(pools)
        self.asked: list[tuple[Any, ...]] = []
        """What was asked for: ``("scale", name, engines, min, max, by)`` and ``("resume", name, by)``."""

    def listed(self) -> list[dict[str, Any]]:
        return self.pools

    def _of(self, name: str) -> dict[str, Any]:
        for one in self.pools:
            if one["name"] == name:
                return one
        raise PoolError(f"there is no pool {name!r}")

    def scale(
        self, name: str, engines: int | None = None, *, min: int | None = None, max: int | None = None, by: str
    ) -> tuple[int, int]:
        one = self._of(name)
        if engines is not None:
            least = most = engines
        elif min is not None and max is not None:
            least, most = min, max
        else:
            least, most = one["configured_min"], one["configured_max"]
        if least > most:
            raise PoolError(f"pool {name}: min is {least}, which is more than max, {most}: lower min or raise max")
        self.asked.append(("scale", name, engines, min, max, by))
        one |= {"min": least, "max": most}
        return least, most

    def resume(self, name: str, by: str) -> None:
        self._of(name).update(failures=0, failed_words="", is_stopped=False, paused_until=None)
        self.asked.append(("resume", name, by))


def pretend(hub: RunningHub, *pools: dict[str, Any]) -> PretendedPools:
    """Give a hub these pools."""
    made = PretendedPools(*pools)
    hub._host.pools.steering = made  # type: ignore[assignment]
    answer_queries(hub.core, made)  # type: ignore[arg-type]
    return made
