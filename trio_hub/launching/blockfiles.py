"""The facts about the job of each block on disk, so that a restarted agent, or a restarted hub, finds the job."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config.connectionfiles import write_private_file

__all__ = ["BlockFiles"]

_NAME = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*")
"""The names of blocks: they are names of directories, so they have no slash and are not ``..``."""


class BlockFiles:
    """The directory of a pool's blocks. The job of a block is in ``DIRECTORY/BLOCK/job.json``.

    The file is written before the batch system is asked for a job, without a job, and again with the job as soon as the
    batch system has given its answer. So a file without a job means that the agent has ended between these two writes:
    the job may exist.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, block: str) -> Path:
        """Return the directory of a block. Raises `ValueError` if the name cannot be the name of a directory."""
        if not _NAME.fullmatch(block):
            raise ValueError(f"{block!r} cannot be the name of a block")
        return self.directory / block

    def write(self, block: str, job: Mapping[str, Any]) -> None:
        """Write the job of a block. Raises `OSError`."""
        write_private_file(self.path(block) / "job.json", json.dumps(job, indent=1, default=str))

    def read(self, block: str) -> dict[str, Any] | None:
        """Return the job of a block; None if there is no file, or none that can be read."""
        with suppress(OSError, ValueError):
            job = json.loads((self.path(block) / "job.json").read_text("utf-8"))
            if isinstance(job, dict):
                return job
        return None

    def blocks(self) -> list[str]:
        """Return the names of all blocks that have a file."""
        with suppress(OSError):
            return sorted(path.parent.name for path in self.directory.glob("*/job.json"))
        return []

    def remove(self, block: str) -> None:
        """Remove the directory of a block."""
        with suppress(ValueError):
            shutil.rmtree(self.path(block), ignore_errors=True)
