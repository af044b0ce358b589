"""Python's garbage collector, as a process wants it that does nothing but serve a hub.

Nearly all that a hub makes is freed without the collector, as soon as nobody refers to it. Looking for cycles among
what every task leaves for a while took up to a tenth of what a task costs.
"""

from __future__ import annotations

import gc

__all__ = ["collect_rarely"]

_THRESHOLDS = (10_000, 20, 20)
"""See `gc.set_threshold`. Python's own are 700, 10 and 10."""


def collect_rarely() -> None:
    """Collect what the start has left, look at the rest of it never again, and at what comes less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
