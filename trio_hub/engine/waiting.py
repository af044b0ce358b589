"""Waits for messages of the hub, for a limited time."""

from __future__ import annotations

import trio

__all__ = ["happens_within"]

RECEIVER_FIRST = 0.1
"""Seconds that a message may take from the socket to the task that waits for it."""


async def happens_within(event: trio.Event, seconds: float) -> bool:
    """Wait for an event that a message sets, for so many seconds, and return whether the event is set.

    If this process was paused until the time was over, the message may be in the socket already. So the receiver has
    its turn first.
    """
    with trio.move_on_after(seconds):
        await event.wait()
    if not event.is_set():
        with trio.move_on_after(RECEIVER_FIRST):
            await event.wait()
    return event.is_set()
