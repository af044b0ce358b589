"""Opens the task database that the configuration names."""

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
"""The default limits for records of finished tasks in memory: their number, and their size in bytes."""
LEAST_BACKLOG = 16 << 20
"""The smallest limit, in bytes, for records that wait for the disk, however small `queue_memory` is."""
RELAXED_DELAY = 0.04
"""Seconds for which records wait for others. With the time that writing takes, they are on disk within 50 ms."""


async def open_database(config: HubConfig, now: Callable[[], datetime], failures: Failures) -> Store:
    """Open the task database. A database on a disk or a server is opened in a thread.

    Args:
        config: The settings.
        now: Returns the current time, aware and in UTC.
        failures: Counts unexpected errors of the database's services.

    Raises:
        ConfigError: The database cannot be used. The text has the reason and the remedy.
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
            from ..databases.sqlite.database import open_sqlite  # imported late: only some hubs need it

            return open_sqlite(database.path, owner=owner, synchronous=strict)
        from ..databases.postgres.database import open_postgres  # imported late: few hubs need it

        return open_postgres(str(database), owner=owner, synchronous=strict)

    age = None if config.db_keep is None else timedelta(seconds=config.db_keep)
    try:
        backend = await trio.to_thread.run_sync(open_backend)
    except StoreError as error:  # at the start, the user has to change the setting
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
    """Open the notes of sent results. None if no hub can come after this hub. Raises `ConfigError`."""
    if config.profile_dir is None or not store.durable:
        return None
    name = f"delivered-{config.cluster_id}" if config.cluster_id else "delivered"
    return SentResultsFile(config.profile_dir / "db" / name)


def _owner(config: HubConfig) -> str:
    """Return the name that marks the records of this hub, and of later hubs with the same profile, in the database."""
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
            f"cannot read {path}, which has the name of this hub in its database: {error}. Without the file, a new hub "
            "does not find the unfinished tasks of the previous hub. If that is acceptable, remove the file."
        ) from error


def _new_owner(path: Path) -> str:
    owner = secrets.token_hex(16)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private_file(path, owner)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    return owner
