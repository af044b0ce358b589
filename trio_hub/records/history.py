"""The order of the history: records are ordered by time of submission, then by arrival."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeAlias

__all__ = ["EARLIEST", "Place", "place_of"]

Place: TypeAlias = tuple[bool, datetime, int]
"""The sort key of a record in the history: whether its time of submission is unknown, that time, its arrival number."""

EARLIEST = datetime.min.replace(tzinfo=UTC)


def place_of(submitted: datetime | None, arrival: int) -> Place:
    """Return the sort key of a record in the history."""
    return submitted is None, submitted or EARLIEST, arrival
