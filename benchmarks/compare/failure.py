"""The one error of a measurement, and waiting with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Failed", "wait_until"]


class Failed(Exception):
    """Something did not happen that must; the message says what."""


def wait_until(condition: Callable[[], bool], what: str, limit: float = 60.0, period: float = 0.05) -> None:
    """Look every so many seconds whether the condition holds.

    Raises:
        Failed: if it does not within the limit.
    """
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {limit:g} s")
        time.sleep(period)
