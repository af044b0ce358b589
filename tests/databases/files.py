"""SQLite databases in files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trio_hub.databases.sqlite.database import SQLiteBackend, open_sqlite
from trio_hub.databases.sqlite.reading import SQLiteReader
from trio_hub.records import TaskRecord

__all__ = ["opened", "reading", "whole"]


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[SQLiteBackend]:
    """Open a database for the length of the block."""
    backend = open_sqlite(path, **options)
    try:
        yield backend
    finally:
        backend.close()


@contextmanager
def reading(backend: SQLiteBackend) -> Iterator[SQLiteReader]:
    """Read from a snapshot for the length of the block."""
    reader = backend.reader()
    try:
        reader.begin()
        yield reader
        reader.end()
    finally:
        reader.close()


def whole(backend: SQLiteBackend, msg_id: str) -> TaskRecord:
    """Return a record with all its keys."""
    with reading(backend) as reader:
        return reader.get([msg_id])[msg_id].record
