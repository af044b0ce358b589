"""Shows, without a hub, what a pool would submit for a block."""

from __future__ import annotations

from pathlib import Path

from ..config.pools import Pool
from .agentlauncher import AgentLauncher

__all__ = ["preview"]


async def preview(
    pool: Pool,
    engines: int | None = None,
    *,
    directory: Path,
    profile_dir: Path | None = None,
    cluster_id: str = "",
    connection_file: Path | None = None,
) -> str:
    """Return what a pool would submit for a block. Nothing is submitted.

    Args:
        pool: The pool, with any launcher except ``local``.
        engines: The number of engines of the block; by default, the pool's ``engines_per_block``.
        directory: As for `AgentLauncher`, and so are the others.
        profile_dir: The hub's profile directory.
        cluster_id: The hub's cluster id.
        connection_file: The connection file for engines.

    Raises:
        LaunchError: the settings of the pool cannot be used.
    """
    launcher = AgentLauncher(
        pool, directory=directory, profile_dir=profile_dir, cluster_id=cluster_id, connection_file=connection_file
    )
    async with launcher:
        number = pool.settings.engines_per_block if engines is None else engines
        return await launcher.preview(f"{pool.name}-preview", number)
