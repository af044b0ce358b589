"""`Pools`: keeps the pools of a hub at the size that the demand asks for."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import trio

from ...config import Pool
from ...hub.events import Event, PoolScaled
from ...launching.launcher import Launcher
from ...logs import get_logger
from ...pools.dividing import decide_all
from ...pools.settings import PoolSettings
from ...pools.sizing import Decision
from ...pools.supply import BlockState, Engine
from ...services import Failures, going_on, keep_running
from .blocks import PooledBlock, pool_of
from .files import PoolFiles
from .fixed import FixedPool
from .listing import listed_fixed, listed_pool
from .pool import ElasticPool
from .ports import Core
from .restoring import restore
from .scaling import Scale, read_scales
from .tending import Tending

__all__ = ["Pools"]

log = get_logger("trio_hub.runtime")

SERVICE = "pools"
"""The name under which unexpected errors are counted."""
PERIOD = 0.25
"""Seconds between two looks whether anything has changed."""
SHARE = 0.05
"""The part of a core that looks and decisions may take up."""
HURRIED = 2.0
"""Seconds that blocks have to be cancelled when the hub stops at once."""


class Pools:
    """The pools of a hub.

    Args:
        pools: the pools whose size follows the demand.
        core: what the hub knows of the queue and of the engines.
        make_launcher: makes the launcher of a pool. If it is an async context manager, it is entered.
        fixed: the engines of the setting ``engines``; None if there are none.
        files: the files of the pools.
        now: the time in seconds since 1970.
        failures: counts unexpected errors.
        tell: is called with each event.
        note_end: notes when an engine ends because of the time limit of its block: the engine, and when.
        grace: seconds within which blocks are cancelled when the hub stops.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        core: Core,
        make_launcher: Callable[[Pool], Launcher],
        *,
        fixed: FixedPool | None = None,
        files: PoolFiles | None = None,
        now: Callable[[], float] = time.time,
        failures: Failures,
        tell: Callable[[Event], None] = lambda event: None,
        note_end: Callable[[bytes, float], None] = lambda ident, at: None,
        grace: float = 5.0,
    ) -> None:
        self._core = core
        self._make_launcher = make_launcher
        self.fixed = fixed
        self._files = files or PoolFiles(None)
        self._now = now
        self._failures = failures
        self._tell = tell
        self._note_end = note_end
        self._grace = grace
        self._unsaved: set[str] = set()
        self._must_save = trio.Event()
        self._mark: Any = None
        self._due = -math.inf
        self._is_stopping = False
        self._nursery: trio.Nursery | None = None
        self._work: set[trio.CancelScope] = set()
        self._stop_scope = trio.CancelScope()
        self.tended: dict[str, Tending] = {}
        """The pools of the settings, by name."""
        self.former: list[Tending] = []
        """Pools of earlier hubs, with blocks that are to be cancelled."""
        self._scales: dict[str, Scale] = {}
        for pool in pools:
            self.tended[pool.name] = self._tend(pool)
        core.measure = bool(pools)

    def _tend(self, pool: Pool) -> Tending:
        return Tending(
            ElasticPool(pool, tell=self._tell, save=self._save),
            self._make_launcher(pool),
            files=self._files,
            core=self._core,
            failures=self._failures,
            now=self._now,
            changed=self._decide_soon,
        )
