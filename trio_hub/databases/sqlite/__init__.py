"""The task database in an SQLite file."""

from .database import open_sqlite

__all__ = ["open_sqlite"]
