"""Python's interpreter, as a process wants it that does nothing but serve a hub."""

from __future__ import annotations

import gc
import sys

__all__ = ["collect_rarely", "switch_often"]

_THRESHOLDS = (10_000, 20, 20)
"""See `gc.set_threshold`. Python's own are 700, 10 and 10."""
_SWITCH_INTERVAL = 1e-4
"""Seconds, see `sys.setswitchinterval`. Python's own is 0.005."""


def collect_rarely() -> None:
    """Collect what the start has left, look at the rest of it never again, and at what comes less often.

    Nearly all that a hub makes is freed without the collector, as soon as nobody refers to it. Looking for cycles among
    what every task leaves for a while took up to a tenth of what a task costs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def switch_often() -> None:
    """Let a thread that runs Python give way to another within a moment.

    Each call of ZeroMQ lets other threads run. One that decodes ten thousand records for somebody's query would have
    the event loop wait for Python's five milliseconds after each frame.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
