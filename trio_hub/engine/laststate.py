"""The engine's last state, by which its nanny can tell the hub that the engine has died."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["last_state", "open_state", "write_state"]

MAX_STATE = 1 << 20
"""The maximum number of bytes that are read of a state."""


def open_state() -> int:
    """Return the descriptor of a file in memory, to which the engine writes its state for the nanny.

    A pipe would be full after some hundred registrations, since the nanny reads it only at the end.
    """
    return os.memfd_create("state")


def write_state(descriptor: int, state: dict[str, Any] | None) -> None:
    """Write the engine's state over its last one: how it is known at the hub; None when it has said goodbye."""
    import json

    os.pwrite(descriptor, json.dumps(state).encode() + b"\n", 0)  # the rest of a longer state stays behind the newline


def last_state(descriptor: int) -> dict[str, Any] | None:
    """Return the last state that the engine wrote; None if it has never registered, or has said goodbye."""
    written, newline, _ = os.pread(descriptor, MAX_STATE, 0).partition(b"\n")
    if not newline:
        return None
    import json

    state: dict[str, Any] | None = json.loads(written)
    return state
