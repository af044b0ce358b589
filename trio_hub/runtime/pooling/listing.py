"""Descriptions of pools as JSON values, for queries, commands and pages."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from ...pools.sizing import Reason
from .blocks import PooledBlock
from .fixed import FixedPool
from .pool import COUNTS, ElasticPool

__all__ = ["listed_fixed", "listed_pool"]

_UNDECIDED = Reason("no_demand", "was not decided on yet")


def listed_pool(pool: ElasticPool, now: float) -> dict[str, Any]:
    """Return the description of a pool whose size follows the demand."""
    settings, decision, memory = pool.settings, pool.decision, pool.memory
    blocks = pool.blocks.values()
    useful = 0 if decision is None else decision.needed.useful
    grow, shrink = (_UNDECIDED, _UNDECIDED) if decision is None else (decision.grow, decision.shrink)
    supply = [block.as_supply(now) for block in blocks]
    return {
        "name": pool.name,
        "launcher": pool.pool.launcher,
        "min": settings.min,
        "max": settings.max,
        "engines_per_block": settings.engines_per_block,
        "backlog": settings.backlog,
        "idle_timeout": settings.idle_timeout,
        "configured_min": pool.pool.settings.min,
        "configured_max": pool.pool.settings.max,
        "fixed": False,
        "wanted": min(max(useful, settings.min), settings.max),
        "asked": sum(block.engines for block in blocks if block.state.is_queued),
        "coming": sum(block.coming(now, settings.startup_timeout) for block in supply if not block.state.is_queued),
        "there": len(pool.engines),
        "idle": sum(engine.is_idle and engine.stays for engine in pool.engines),
        "draining": sum(not engine.stays for engine in pool.engines),
        "engine_seconds": round(pool.engine_seconds(now), 1),
        "cost": settings.cost,
        "grow": _reason(grow),
        "shrink": _reason(shrink),
        "failures": memory.failures,
        "failed_words": memory.words,
        "paused_until": memory.paused_until if memory.paused_until > now and memory.failures else None,
        "is_stopped": memory.stopped(settings),
        "unanswered": pool.unanswered,
        "blocks": [_block(block) for block in sorted(blocks, key=lambda block: block.asked)],
        "counts": dict(pool.counts),
    }


def _reason(reason: Reason) -> dict[str, str]:
    return {"word": reason.word, "text": reason.text}


def _block(block: PooledBlock) -> dict[str, Any]:
    return {
        "block": block.name,
        "state": block.state.value,
        "engines": block.engines,
        "arrived": min(len(block.uuids), block.engines),
        "asked": block.asked,
        "started": block.started,
        "job": block.job_text,
        "words": block.words,
    }


def listed_fixed(pool: FixedPool, name: str, draining: Container[bytes]) -> dict[str, Any]:
    """Return the description of the pool of the setting ``engines``, with the same keys."""
    n, alive = pool.engines.n, pool.alive
    return {
        "name": name,
        "launcher": "local",
        "min": n,
        "max": n,
        "engines_per_block": 1,
        "backlog": None,
        "idle_timeout": None,
        "configured_min": pool.configured,
        "configured_max": pool.configured,
        "fixed": True,
        "wanted": n,
        "asked": 0,
        "coming": pool.coming,
        "there": len(alive),
        "idle": sum(not engine.pending and engine.ident not in draining for engine in alive),
        "draining": sum(engine.ident in draining for engine in alive),
        "engine_seconds": round(pool.engine_seconds(), 1),
        "cost": 1.0,
        "grow": _reason(Reason("at_max", f"has a fixed number of engines: {n:,} (engines)")),
        "shrink": _reason(Reason("at_min", f"has a fixed number of engines: {n:,} (engines)")),
        "failures": 0,
        "failed_words": "",
        "paused_until": None,
        "is_stopped": False,
        "unanswered": "",
        "blocks": [],
        "counts": dict.fromkeys(COUNTS, 0),
    }
