"""The metrics of pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time

from .pools import Pool, blocks_by_state
from .samples import HubMetric, Numbers, Samples

__all__ = ["POOL_METRICS"]

HOUR = 3600.0
OUTCOMES = ("refused", "failed", "ended", "cancelled")
"""What may become of a block."""


def _of(value: Callable[[Pool], float]) -> Callable[[Numbers], Samples]:
    """Return the function for a metric with one value per pool."""
    return lambda numbers: [((pool["name"],), value(pool)) for pool in numbers.pools]


def _each_of(values: Callable[[Pool], Mapping[str, float]]) -> Callable[[Numbers], Samples]:
    """Return the function for a metric with several values per pool, by a second label."""
    return lambda numbers: [
        ((pool["name"], label), value) for pool in numbers.pools for label, value in values(pool).items()
    ]


def _engines(pool: Pool) -> Mapping[str, float]:
    return {
        "asked": pool["asked"],
        "coming": pool["coming"],
        "busy": pool["there"] - pool["idle"] - pool["draining"],
        "idle": pool["idle"],
        "draining": pool["draining"],
    }


POOL_METRICS: tuple[HubMetric, ...] = (
    HubMetric(
        "trio_hub_pool_engines",
        "gauge",
        "Engines of each pool now: asked (for), coming (not registered yet), busy, idle, or draining (no new tasks).",
        ("pool", "state"),
        _each_of(_engines),
    ),
    HubMetric(
        "trio_hub_pool_engines_wanted",
        "gauge",
        "Engines that the tasks could use now, at least min and at most max.",
        ("pool",),
        _of(lambda pool: pool["wanted"]),
    ),
    HubMetric(
        "trio_hub_pool_engines_limit",
        "gauge",
        "The numbers of engines that each pool has at least (min) and at most (max).",
        ("pool", "limit"),
        _each_of(lambda pool: {"min": pool["min"], "max": pool["max"]}),
    ),
    HubMetric(
        "trio_hub_pool_blocks",
        "gauge",
        "Blocks of each pool now: asked, waiting (in the batch system's queue), running, or cancelled (not ended yet).",
        ("pool", "state"),
        _each_of(blocks_by_state),
    ),
    HubMetric(
        "trio_hub_pool_blocks_submitted_total",
        "counter",
        "Blocks that each pool has asked for, including blocks that were refused.",
        ("pool",),
        _of(lambda pool: pool["counts"]["submitted"]),
    ),
    HubMetric(
        "trio_hub_pool_blocks_finished_total",
        "counter",
        "Blocks of each pool that are over, by outcome: refused, failed, ended (in order) or cancelled.",
        ("pool", "outcome"),
        _each_of(lambda pool: {outcome: pool["counts"][outcome] for outcome in OUTCOMES}),
    ),
    HubMetric(
        "trio_hub_pool_engine_seconds_total",
        "counter",
        "The sum of the engines of each pool's blocks, times the seconds for which the block has run.",
        ("pool",),
        _of(lambda pool: pool["engine_seconds"]),
    ),
    HubMetric(
        "trio_hub_pool_cost_total",
        "counter",
        "Engine-hours of each pool times its setting cost.",
        ("pool",),
        _of(lambda pool: pool["engine_seconds"] / HOUR * pool["cost"]),
    ),
    HubMetric(
        "trio_hub_pool_failures",
        "gauge",
        "Blocks of each pool that have failed in a row. It is 0 again after a block has worked, or somebody has "
        "resumed the pool.",
        ("pool",),
        _of(lambda pool: pool["failures"]),
    ),
    HubMetric(
        "trio_hub_pool_paused",
        "gauge",
        "Whether the pool waits before it asks for another block, since a block has failed: 1 or 0.",
        ("pool",),
        _of(lambda pool: float((pool["paused_until"] or 0.0) > time())),
    ),
    HubMetric(
        "trio_hub_pool_stopped",
        "gauge",
        "Whether the pool asks for no more blocks until somebody resumes it: 1 or 0.",
        ("pool",),
        _of(lambda pool: float(pool["is_stopped"])),
    ),
)
