"""Where the output of local engines goes: a file for each engine, the hub's own stderr, or nowhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config import HubConfig
from ..logs import get_logger

__all__ = ["ROTATED_ABOVE", "EngineLogs", "engine_logs"]

log = get_logger("trio_hub.runtime")

ROTATED_ABOVE = 8 * 2**20
"""Bytes. When an engine starts and its log file is larger, the file gets the ending ``.1``, and a new file is begun."""
_STDERR = 2


class EngineLogs:
    """Opens the output of local engines.

    Args:
        where: ``file``, ``inherit`` or ``none``.
        directory: where the files are; None only if there are no files.
        cluster_id: part of the files' names, since two hubs of one profile may each have an engine 0.
        pool: part of the files' names, for engines of a pool.
    """

    def __init__(
        self, where: str = "inherit", directory: Path | None = None, cluster_id: str = "", pool: str = ""
    ) -> None:
        self._where = where
        self._directory = directory
        self._stem = "-".join(filter(None, ("pool" if pool else "engine", cluster_id, pool)))

    def path(self, number: int) -> Path | None:
        """Return the file with the output of the local engine with this number; None if there is no file."""
        if self._where != "file" or self._directory is None:
            return None
        return self._directory / f"{self._stem}-{number}.log"

    @contextmanager
    def output(self, number: int) -> Iterator[int]:
        """Open the output of a local engine that is about to start, as `subprocess` takes it, and close it again.

        If the file cannot be opened, the output goes to the hub's stderr: an engine is worth more than its log.
        """
        path = self.path(number)
        if path is None:
            # All output of the engine goes to the hub's stderr. The hub's stdout may be read by programs that wait for
            # the hub's own lines.
            yield subprocess.DEVNULL if self._where == "none" else _STDERR
            return
        try:
            descriptor = _open(path)
        except OSError as error:
            log.warning(
                "cannot open the log file of a local engine: the output goes to the hub's stderr",
                number=number,
                path=path,
                error=error.strerror or error,
            )
            yield _STDERR
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def engine_logs(config: HubConfig, pool: str = "") -> EngineLogs:
    """Return the logs that the settings ask for, for the engines of a pool or, without a name, of ``engines``."""
    directory = None if config.profile_dir is None else config.profile_dir / "log"
    return EngineLogs(config.engine_output, directory, config.cluster_id, pool)


def _open(path: Path) -> int:
    """Open a log file to append to it, readable by its owner only. A large file is put aside first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > ROTATED_ABOVE:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
