"""The task database on a PostgreSQL server."""

from .database import open_postgres

__all__ = ["open_postgres"]
