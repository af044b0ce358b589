"""Takes up the blocks of an earlier hub, or has them cancelled."""

from __future__ import annotations

from collections.abc import Callable

from ...config.pools import Pool, parse_pool
from ...errors import ConfigError
from ...logs import get_logger
from ...pools.supply import BlockState
from .blocks import PooledBlock
from .pools import Pools
from .tending import Tending

__all__ = ["take_up_blocks"]

log = get_logger("trio_hub.runtime")

UNRESOLVED = 30.0
"""Seconds. The least time for which a block is awaited whose submission an earlier hub has begun, and not finished."""


def take_up_blocks(pools: Pools, now: Callable[[], float], *, returning: bool, timeout: float) -> None:
    """Take up the blocks of an earlier hub, by their records. Call this before the pools run.

    Args:
        pools: the pools.
        now: the time in seconds since 1970.
        returning: whether the engines of these blocks can come back to this hub. If not, the blocks are cancelled.
        timeout: the seconds within which engines that are still there come back.
    """
    former: dict[Pool, Tending] = {}
    for record in pools.saving.files.records():
        try:
            block = PooledBlock.from_record(record)
            pool = parse_pool(record["pool"])
        except (ValueError, KeyError, ConfigError) as error:
            path = pools.saving.files.path(str(record["block"]))
            if path is not None:
                pools.saving.files.put_aside(path, str(error))
            continue
        tending = pools.tended.get(pool.name)
        if tending is not None and tending.pool.pool.launcher != pool.launcher:
            tending = None
        if tending is not None and returning:
            _take_up(tending, block, now(), timeout)
        elif tending is None and returning and pool.keep:
            log.info(
                "a block stays, although its pool is not in the settings any more", pool=pool.name, block=block.name
            )
        else:
            _write_off(pools, former, pool, block, now(), is_known=tending is not None)


def _take_up(tending: Tending, block: PooledBlock, now: float, timeout: float) -> None:
    block.awaited = now + timeout
    if block.state is BlockState.ASKED and not block.job:  # the launcher looks whether there is a job
        block.awaited = now + max(UNRESOLVED, timeout)
        block.job, block.is_unresolved = {}, True
    tending.pool.blocks[block.name] = block
    log.info("a block of an earlier hub is taken up", pool=tending.pool.name, block=block.name, state=block.state.value)


def _write_off(
    pools: Pools, former: dict[Pool, Tending], pool: Pool, block: PooledBlock, now: float, *, is_known: bool
) -> None:
    """Have a block cancelled that is of no use to this hub."""
    tending = former.get(pool)
    if tending is None:
        tending = former[pool] = pools.tend(pool)
        pools.former.append(tending)
    if block.job is None:
        block.job = {}  # the launcher looks whether there is a job
    if is_known:
        log.warning(
            "a block of an earlier hub is cancelled: its engines cannot come back to a hub that was not started with "
            "restore or reuse",
            pool=pool.name,
            block=block.name,
        )
    else:
        log.warning(
            "a block of an earlier hub is cancelled: its pool is not in the settings any more",
            pool=pool.name,
            block=block.name,
        )
    tending.pool.blocks[block.name] = block
    tending.pool.give_up(block, "no hub needs it any more", now)
