"""The task database that a configuration asks for."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import trio

from ..config import HubConfig
from ..config.connectionfiles import write_private_file
from ..databases.backend import Backend, Retention
from ..databases.sentresults import SentResultsFile
from ..databases.writebehind import WriteBehindStore
from ..errors import ConfigError, StoreError
from ..logs import get_logger
from ..records import MemoryStore, NullStore, Store
from ..services import Failures

__all__ = ["open_database", "open_sent_results"]

log = get_logger("trio_hub.runtime")

MEMORY_RECORDS, MEMORY_BYTES = 100_000, 1 << 30
"""What is kept in memory of finished tasks, unless the configuration says something else."""
LEAST_BACKLOG = 16 << 20
"""Bytes of records that may wait for the disk, however little memory there shall be for queued tasks."""
RELAXED_DELAY = 0.04
"""Seconds for which records wait for others; with the time it takes to write them, they are on disk within 50 ms."""


async def open_database(config: HubConfig, now: Callable[[], datetime], failures: Failures) -> Store:
    """Open the task database; with a disk or a server behind it, in a thread.

    Args:
        config: Says which.
        now: The time.
        failures: Where errors of its services are counted that nobody expected.

    Raises:
        ConfigError: it cannot be used, with the reason and the remedy.
    """
    database = config.database
    if database.scheme == "none":
        return NullStore()
    if database.scheme == "memory":
        return MemoryStore(
            max_records=config.db_max_records or MEMORY_RECORDS,
            max_bytes=config.db_max_bytes or MEMORY_BYTES,
            checkpoint=trio.lowlevel.checkpoint,
        )
    strict = config.durability == "strict"

    def open_backend() -> Backend:
        owner = _owner(config)
        if database.path is not None:
            from ..databases.sqlite.database import open_sqlite  # late: a hub whose records are in memory does without

            return open_sqlite(database.path, owner=owner, synchronous=strict)
        from ..databases.postgres.database import open_postgres  # late: most hubs do without

        return open_postgres(str(database), owner=owner, synchronous=strict)

    age = None if config.db_keep is None else timedelta(seconds=config.db_keep)
    try:
        backend = await trio.to_thread.run_sync(open_backend)
    except StoreError as error:  # at the start it is the setting that cannot be used
        raise ConfigError(f"db: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"db: {error}") from error.__cause__
    log.info("task database opened", database=database.shown, durability=config.durability)
    return WriteBehindStore(
        backend,
        delay=0.0 if strict else RELAXED_DELAY,
        max_backlog=max(config.queue_memory // 4, LEAST_BACKLOG),
        keep=Retention(age, config.db_max_records, config.db_max_bytes),
        now=now,
        failures=failures,
    )


def open_sent_results(config: HubConfig, store: Store) -> SentResultsFile | None:
    """The notes on sent_results of a hub that another may come after. Raises `ConfigError`."""
    if config.profile_dir is None or not store.durable:
        return None
    name = f"delivered-{config.cluster_id}" if config.cluster_id else "delivered"
    return SentResultsFile(config.profile_dir / "db" / name)


def _owner(config: HubConfig) -> str:
    """The name under which this hub, and whoever comes after it in its profile, knows its own tasks in a database."""
    if config.profile_dir is None:
        return secrets.token_hex(16)
    name = f"owner-{config.cluster_id}" if config.cluster_id else "owner"
    path = config.profile_dir / "db" / name
    try:
        return path.read_text("ascii").strip() or _new_owner(path)
    except FileNotFoundError:
        return _new_owner(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {path}, which names this hub in its database: {error}. Without it, a new hub does not find "
            "the unfinished tasks of the last one; if that is all right, remove the file."
        ) from error


def _new_owner(path: Path) -> str:
    owner = secrets.token_hex(16)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private_file(path, owner)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    return owner
