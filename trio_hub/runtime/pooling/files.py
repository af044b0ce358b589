"""The files of pools in a profile: a record for each block, and the numbers of the pools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...config import HubConfig
from ...config.connectionfiles import write_private_file
from ...launching.blockfiles import BlockFiles
from ...logs import get_logger
from .blocks import pool_of

__all__ = ["PoolFiles", "pool_directory"]

log = get_logger("trio_hub.runtime")

NUMBERS = "pools.json"
"""The name of the file with the numbers of the pools. A block has another name."""
DAMAGED = ".damaged"
"""The ending that a damaged file gets."""


def pool_directory(config: HubConfig) -> Path | None:
    """Return the directory of the files of pools; None without a profile directory."""
    return None if config.profile_dir is None else config.profile_dir / "pools" / (config.cluster_id or "default")


class PoolFiles:
    """Reads and writes the files of the pools of one hub. Without a directory, there are none.

    Args:
        directory: the directory.
        cluster_id: the cluster id of the hub. Files of another cluster id are left alone.
    """

    def __init__(self, directory: Path | None, cluster_id: str = "") -> None:
        self.directory = directory
        self._cluster_id = cluster_id

    def path(self, block: str) -> Path | None:
        """Return the path of the record of a block; None if there is none."""
        return None if self.directory is None else self.directory / f"{block}.json"

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records of all blocks. A damaged file is logged, and renamed."""
        if self.directory is None:
            return
        paths: list[Path] = []
        with suppress(OSError):
            paths = sorted(self.directory.glob("*.json"))
        for path in paths:
            if pool_of(path.stem) is not None and (record := self._read(path)) is not None:
                if record.get("block") != path.stem:
                    self.put_aside(path, "it names another block")
                else:
                    yield record

    def record(self, block: str) -> dict[str, Any] | None:
        """Return the record of a block; None if there is none."""
        path = self.path(block)
        return None if path is None else self._read(path)

    def write_record(self, block: str, record: Mapping[str, Any]) -> None:
        """Write the record of a block. An error is logged."""
        self._write(self.path(block), record)

    def remove_record(self, block: str) -> None:
        """Remove the record of a block that has ended, and what its launcher has written."""
        path = self.path(block)
        if path is not None and self.directory is not None:
            BlockFiles(self.directory).remove(block)
            with suppress(OSError):
                path.unlink()

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of the pools, by name."""
        found = None if self.directory is None else self._read(self.directory / NUMBERS)
        pools = None if found is None else found.get("pools")
        return pools if isinstance(pools, dict) else {}

    def write_numbers(self, pools: Mapping[str, Any]) -> None:
        """Write the numbers of the pools. An error is logged."""
        self._write(None if self.directory is None else self.directory / NUMBERS, {"pools": pools})

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Return the content of a file; None if there is none, if it is damaged, or if it is of another cluster."""
        try:
            content = json.loads(path.read_bytes())
            if not isinstance(content, dict):
                raise ValueError("it is not a table")
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("a file of pools cannot be read", path=path, error=error.strerror or error)
            return None
        except (ValueError, RecursionError) as error:
            self.put_aside(path, str(error))
            return None
        return content if content.get("cluster_id", self._cluster_id) == self._cluster_id else None

    def put_aside(self, path: Path, why: str) -> None:
        """Rename a damaged file, so that nobody reads it again."""
        log.error("a file of pools is damaged, and is renamed", path=path, error=why)
        with suppress(OSError):
            path.replace(path.with_name(path.name + DAMAGED))

    def _write(self, path: Path | None, content: Mapping[str, Any]) -> None:
        if path is None:
            return
        try:
            write_private_file(path, json.dumps({"cluster_id": self._cluster_id, **content}))
        except OSError as error:
            log.error(
                "cannot write a file of pools: a later hub may not find the blocks",
                kind="pool_file",
                path=path,
                error=error.strerror or error,
            )
