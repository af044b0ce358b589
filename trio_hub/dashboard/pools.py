"""The pools of a hub, for the pages: one row per pool, and the concerns about pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ..pools.supply import BlockState
from .sentences import plural, without_stop

__all__ = [
    "Pool",
    "blocks_by_state",
    "bringing",
    "failing",
    "is_elastic",
    "pool_details",
    "pool_rows",
    "stopped",
    "unanswered",
]

Pool: TypeAlias = Mapping[str, Any]
"""A pool as `RunningHub.pools` lists it."""

BLOCK_STATES = tuple(state.value for state in BlockState)
"""The states of blocks, in the order in which a block goes through them."""


def pool_rows(pools: Sequence[Pool]) -> list[dict[str, Any]]:
    """Return the pools for the overview. In place of its blocks, each has their number by state."""
    return [dict(pool) | {"blocks": blocks_by_state(pool)} for pool in pools]


def pool_details(pools: Sequence[Pool], name: str) -> Pool | None:
    """Return the pool of a name with its blocks; None if there is no such pool."""
    return next((pool for pool in pools if pool["name"] == name), None)


def blocks_by_state(pool: Pool) -> dict[str, int]:
    """Return the number of a pool's blocks, by state."""
    return dict.fromkeys(BLOCK_STATES, 0) | Counter(block["state"] for block in pool["blocks"])


def bringing(pools: Sequence[Pool]) -> bool:
    """Return whether engines are on their way, so that a hub without engines need not worry anybody."""
    return any(pool["asked"] or pool["coming"] or pool["grow"]["word"] == "grows" for pool in pools)


def is_elastic(pools: Sequence[Pool]) -> bool:
    """Return whether the number of engines follows the demand, so that engines may come when tasks do."""
    return any(not pool["fixed"] and pool["max"] for pool in pools)


def failing(pools: Sequence[Pool], now: float) -> Iterable[tuple[str, str]]:
    """Yield the name of each pool whose last blocks have failed, and that is not stopped, with a sentence about it."""
    for pool in pools:
        if pool["failures"] and not pool["is_stopped"]:
            number = pool["failures"]
            blocks = "The last block" if number == 1 else f"The last {number:,} blocks"
            has = "has" if number == 1 else "have"
            text = f"{blocks} of pool {pool['name']} {has} failed{_words(pool)}."
            left = 0.0 if pool["paused_until"] is None else pool["paused_until"] - now
            yield pool["name"], text + (f" It may ask for the next block in {left:.0f} s." if left >= 1 else "")


def stopped(pools: Sequence[Pool]) -> Iterable[tuple[str, str]]:
    """Yield the name of each pool that asks for no more blocks, since too many have failed, and a sentence about it."""
    for pool in pools:
        if pool["is_stopped"]:
            yield (
                pool["name"],
                f"Pool {pool['name']} asks for no more blocks: {plural(pool['failures'], 'block')} in a row failed"
                f"{_words(pool)}. Mend the cause, then resume the pool.",
            )


def unanswered(pools: Sequence[Pool]) -> Iterable[tuple[str, str]]:
    """Yield the name of each pool whose batch system does not tell the states of blocks, with a sentence about it."""
    for pool in pools:
        if pool["unanswered"]:
            words = without_stop(pool["unanswered"])
            yield pool["name"], f"The batch system of pool {pool['name']} does not answer: {words}."


def _words(pool: Pool) -> str:
    words = without_stop(pool["failed_words"])
    return f" ({words})" if words else ""
