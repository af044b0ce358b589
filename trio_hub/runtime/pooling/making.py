"""Builds the pools of a hub from its settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...config import HubConfig, Pool
from ...config.connectionfiles import write_connection_file
from ...config.pools import LOCAL
from ...hub import EngineConnector, Hub
from ...hub.draining import SHUTDOWN
from ...hub.events import Event
from ...launching.agentlauncher import AgentLauncher
from ...launching.launcher import Launcher
from ...logs import get_logger
from ...services import Failures
from .files import PoolFiles, pool_directory
from .fixed import FixedPool
from .local import LocalLauncher
from .localgroup import LocalGroup
from .pools import Pools
from .queries import answer_queries
from .restoring import take_up_blocks
from .steering import Steering

__all__ = ["HubPools"]

log = get_logger("trio_hub.runtime")

BY = f"pool {LOCAL}"


class HubPools:
    """The pools of a hub: `pools` keeps their size, and `steering` lists and changes them.

    Args:
        config: the settings.
        hub: the hub's core.
        local: all local engines.
        engine_info: the connection info for engines.
        failures: counts unexpected errors.
        tell: is called with each event.
        changed: is called when something has changed that the next hub must know.
    """

    def __init__(
        self,
        config: HubConfig,
        hub: Hub,
        local: LocalGroup,
        *,
        engine_info: Mapping[str, Any],
        failures: Failures,
        tell: Callable[[Event], None],
        changed: Callable[[], None],
    ) -> None:
        self._config = config
        self._hub = hub
        self._local = local
        self._engine_info = dict(engine_info)
        self._changed = changed
        self._temporary: TemporaryDirectory[str] | None = None
        files = PoolFiles(pool_directory(config), config.cluster_id)
        self.pools = Pools(
            config.pools,
            hub.pooling,
            self._launcher,
            files=files,
            failures=failures,
            tell=tell,
            note_end=self._note_end,
            grace=config.stop_grace,
        )
        draining = hub.work.draining
        fixed = FixedPool(
            local.fixed,
            retire=lambda engine: draining.drain(engine, by=BY, then=SHUTDOWN),
            take_back=lambda engine: draining.undrain(engine, by=BY),
        )
        self.steering = Steering(
            self.pools, fixed if config.engines else None, drained=draining.drains, now=time.time, tell=tell
        )
        answer_queries(hub, self.steering)

    def _launcher(self, pool: Pool) -> Launcher:
        if pool.launcher == LOCAL:
            return LocalLauncher(self._local.pools.get(pool.name, self._local.former))
        directory, connection_file = pool_directory(self._config), None
        if directory is None:
            directory = self._temporary_directory()
            connection_file = directory / "engine.json"
        return AgentLauncher(
            pool,
            directory=directory,
            profile_dir=self._config.profile_dir,
            cluster_id=self._config.cluster_id,
            connection_file=connection_file,
        )

    def _temporary_directory(self) -> Path:
        """Return the directory for the blocks of a hub without a profile, with a connection file for their engines."""
        if self._temporary is None:
            self._temporary = TemporaryDirectory(prefix="trio-hub-pools-")
            write_connection_file(Path(self._temporary.name) / "engine.json", self._engine_info)
        return Path(self._temporary.name)

    def _note_end(self, ident: bytes, at: float) -> None:
        engine = self._hub.engines.by_ident.get(ident)
        if engine is not None and engine.leaves_at is None:
            engine.leaves_at = at
            self._changed()

    def restore(self) -> None:
        """Take up the blocks and the numbers of an earlier hub. Call this before `run`, after engines were restored."""
        config = self._config
        saving = self.pools.saving
        keeping = [tending.pool.name for tending in self.pools if tending.keeps]
        if keeping and not config.reuse:
            log.warning(
                "blocks stay when this hub stops, but no later hub can take up their engines: set restore or reuse",
                pools=" ".join(keeping),
            )
        if config.reuse:
            self.steering.restore(saving.files.numbers())
            saving.numbers = self.steering.numbers
        take_up_blocks(self.pools, time.time, returning=config.reuse, timeout=config.registration_timeout_seconds)

    def leaving(self) -> list[EngineConnector]:
        """Return the registered engines of the blocks that are cancelled when the hub stops."""
        cancelled = [tending for tending in self.pools if not (tending.is_local or tending.keeps)]
        blocks = {block for tending in cancelled for block in tending.pool.blocks}
        return [engine for engine in self._hub.engines.alive.values() if engine.block in blocks]

    def hurry(self) -> None:
        """Have the stop of the hub wait only a short time for the cancellation of blocks."""
        self.pools.hurry()

    async def run(self) -> None:
        """Keep all pools at their size until this is cancelled. Then cancel their blocks, unless they are to stay."""
        try:
            await self.pools.run()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
