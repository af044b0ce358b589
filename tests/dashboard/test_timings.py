"""Histograms, how long messages take, and how late the event loop is."""

from __future__ import annotations

import math

import trio
import trio.testing

from trio_hub.dashboard.histogram import Histogram
from trio_hub.dashboard.timings import LOOP_PERIOD, Timings, watch_loop


def test_a_value_belongs_to_the_first_bound_that_is_not_below_it() -> None:
    histogram = Histogram((1, 2, 4))
    assert histogram.buckets() == [(1, 0), (2, 0), (4, 0), (math.inf, 0)]
    for value in (0.5, 1, 1.5, 4, 5):
        histogram.observe(value)
    assert histogram.buckets() == [(1, 2), (2, 3), (4, 4), (math.inf, 5)]
    assert (histogram.sum, histogram.count, histogram.largest) == (12, 5, 5)


def test_messages_are_timed_by_channel() -> None:
    timings = Timings()
    for channel, seconds in (("task_in", 0.5), ("task_in", 0.25), ("iopub", 1.0)):
        timings.handled(channel, seconds)
    assert {channel: one.sum for channel, one in timings.messages.items()} == {"task_in": 0.75, "iopub": 1.0}


async def test_an_event_loop_that_is_late_is_seen(autojump_clock: trio.testing.MockClock) -> None:
    lag = Histogram((0.1, 1))
    with trio.move_on_after(2.25 * LOOP_PERIOD):
        await watch_loop(lag)
    assert lag.buckets() == [(0.1, 2), (1, 2), (math.inf, 2)]
    with trio.move_on_after(1.5 * LOOP_PERIOD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_loop, lag)
            await trio.testing.wait_all_tasks_blocked()
            autojump_clock.jump(LOOP_PERIOD + 0.2)  # as if a task had blocked the event loop
            await trio.lowlevel.checkpoint()
    assert lag.buckets()[0] == (0.1, 2)
    assert lag.count == 3


async def test_a_rest_is_no_lag(autojump_clock: trio.testing.MockClock) -> None:
    lag = Histogram((0.1, 1))
    rests = [10.0, 0.0]

    async def rest() -> None:
        await trio.sleep(rests.pop(0) if rests else 0)

    with trio.move_on_after(10 + 3.5 * LOOP_PERIOD):
        await watch_loop(lag, rest=rest)
    assert lag.buckets() == [(0.1, 3), (1, 3), (math.inf, 3)]
