"""SQLite databases in files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trio_hub.databases.sqlite.database import SQLiteBackend, open_sqlite

__all__ = ["opened"]


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[SQLiteBackend]:
    """Open a database for the length of the block."""
    backend = open_sqlite(path, **options)
    try:
        yield backend
    finally:
        backend.close()
