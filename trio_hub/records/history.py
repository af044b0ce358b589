"""The order of the history: by time of submission, then by arrival."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeAlias

__all__ = ["EARLIEST", "Place", "place_of"]

Place: TypeAlias = tuple[bool, datetime, int]
"""A record's place in the history: whether its time of submission is unknown, that time, and its arrival's number."""

EARLIEST = datetime.min.replace(tzinfo=UTC)


def place_of(submitted: datetime | None, arrival: int) -> Place:
    """Return a record's place in the history."""
    return submitted is None, submitted or EARLIEST, arrival
