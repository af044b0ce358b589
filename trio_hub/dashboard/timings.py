"""Histograms of waiting times and running times of tasks, of handling times of messages, and of event loop lag."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..hub.answers import QUEUES
from .histogram import Histogram

__all__ = ["Timings", "watch_loop"]

TASK_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
"""The upper bounds for waiting times and running times of tasks, in seconds."""
MESSAGE_BOUNDS = (0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
"""The upper bounds for handling times of messages, in seconds."""
LOOP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
"""The upper bounds for the lag of the event loop, in seconds."""
LOOP_PERIOD = 0.5
"""Seconds between two measurements of the lag of the event loop."""


class Timings:
    """Histograms of durations.

    - ``wait``: from the submission of a task until it is sent to its first engine;
    - ``run``: by queue, from the sending of a request to an engine until its answer;
    - ``messages``: by channel, from the receipt of a message until it is handled and its consequences are sent;
    - ``loop``: the lag of the event loop, see `watch_loop`.
    """

    def __init__(self) -> None:
        self.wait = Histogram(TASK_BOUNDS)
        self.run = {queue: Histogram(TASK_BOUNDS) for queue in QUEUES}
        self.messages: dict[str, Histogram] = {}
        self.loop = Histogram(LOOP_BOUNDS)

    def handled(self, channel: str, seconds: float) -> None:
        """See `trio_hub.runtime.observing.Observer`."""
        histogram = self.messages.get(channel)
        if histogram is None:
            histogram = self.messages[channel] = Histogram(MESSAGE_BOUNDS)
        histogram.observe(seconds)


async def _no_rest() -> None:
    """Return at once."""


async def watch_loop(
    lag: Histogram,
    tick: Callable[[float], object] = lambda late: None,
    period: float = LOOP_PERIOD,
    rest: Callable[[], Awaitable[None]] = _no_rest,
) -> None:
    """Measure how late a sleeping task wakes up. That is how long other ready tasks had to wait. Never returns.

    Args:
        lag: Counts how late the task wakes up, in seconds.
        tick: Is called after each measurement, with the lag in seconds. So work that is due in each period needs no
            task of its own, which would wake an idle process more often.
        period: Seconds between two measurements.
        rest: Is awaited before each period, and may wait while nobody needs measurements, so that an idle process
            sleeps longer. The period begins when the rest is over.
    """
    due = trio.current_time()
    while True:
        began = trio.current_time()
        await rest()
        due += trio.current_time() - began + period
        await trio.sleep_until(due)
        late = trio.current_time() - due
        lag.observe(late)
        if late > period:  # missed ticks are not made up for
            due += late
        tick(late)
