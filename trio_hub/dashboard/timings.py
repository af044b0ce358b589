"""How long tasks wait and run, how long messages take the hub, and how late its event loop is."""

from __future__ import annotations

import trio

from ..hub.answers import QUEUES
from .histogram import Histogram

__all__ = ["Timings", "watch_loop"]

TASK_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
"""Seconds that a task may wait or run: from a call of nothing to a night's work."""
MESSAGE_BOUNDS = (0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
"""Seconds that a message may take the hub."""
LOOP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
"""Seconds by which the event loop may be late."""
LOOP_PERIOD = 0.5
"""Seconds from one look at the event loop to the next."""


class Timings:
    """How long things took so far.

    - ``wait``: from a task's submission until it is sent to its first engine;
    - ``run``: by queue; from when a request is sent to an engine until it is answered;
    - ``messages``: by channel; from when a message was received until all that it asks for is done or on its way out;
    - ``loop``: by how much a task of the event loop was late, see `watch_loop`.
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


async def watch_loop(lag: Histogram) -> None:
    """Sleep, and see how late it wakes, for ever: so long did whoever else was ready have to wait."""
    while True:
        due = trio.current_time() + LOOP_PERIOD
        await trio.sleep_until(due)
        lag.observe(trio.current_time() - due)
