"""The error of a failed measurement, and a function that waits with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Failed", "wait_until"]


class Failed(Exception):
    """A measurement has failed. The text says why."""


def wait_until(condition: Callable[[], bool], what: str, limit: float = 60.0, period: float = 0.05) -> None:
    """Wait until a condition holds, and check it every so many seconds.

    Raises:
        Failed: The condition does not hold within the limit.
    """
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {limit:g} s")
        time.sleep(period)
