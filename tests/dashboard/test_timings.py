"""Histograms, and what is timed, with a clock that is told the time."""

from __future__ import annotations

import math

import trio
import trio.testing

from trio_hub.dashboard.histogram import Histogram
from trio_hub.dashboard.timings import LOOP_PERIOD, Timings, watch_loop
from trio_hub.hub.events import EngineRegistered, TaskAssigned, TaskFinished, TaskSubmitted


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_value_belongs_to_the_first_bound_that_is_not_below_it() -> None:
    histogram = Histogram((1, 2, 4))
    assert histogram.buckets() == [(1, 0), (2, 0), (4, 0), (math.inf, 0)]
    for value in (0.5, 1, 1.5, 4, 5):
        histogram.observe(value)
    assert histogram.buckets() == [(1, 2), (2, 3), (4, 4), (math.inf, 5)]
    assert (histogram.sum, histogram.count) == (12, 5)


def test_a_task_waits_and_then_runs() -> None:
    clock = Clock()
    timings = Timings(clock)
    timings.happened(EngineRegistered(0, "e"))
    timings.happened(TaskSubmitted("a", "task"))
    clock.time = 3.0
    timings.happened(TaskAssigned("a", "e"))
    clock.time = 10.0
    timings.happened(TaskFinished("a", "e", "ok"))
    assert (timings.wait.sum, timings.wait.count) == (3.0, 1)
    assert (timings.run["task"].sum, timings.run["task"].count) == (7.0, 1)


def test_a_task_that_is_tried_again_has_waited_once_and_runs_from_its_last_start() -> None:
    clock = Clock()
    timings = Timings(clock)
    timings.happened(TaskSubmitted("a", "task"))
    for clock.time in (1.0, 5.0):
        timings.happened(TaskAssigned("a", "e"))
    clock.time = 6.0
    timings.happened(TaskFinished("a", "e", "error"))
    assert (timings.wait.sum, timings.wait.count) == (1.0, 1)
    assert (timings.run["task"].sum, timings.run["task"].count) == (1.0, 1)


def test_direct_requests_and_broadcasts_only_run() -> None:
    clock = Clock()
    timings = Timings(clock)
    for queue in ("mux", "broadcast"):
        timings.happened(TaskSubmitted(queue, queue))
        clock.time += 2.0
        timings.happened(TaskFinished(queue, "e", "ok"))
        assert (timings.run[queue].sum, timings.run[queue].count) == (2.0, 1)
    assert timings.wait.count == timings.run["task"].count == 0


def test_nothing_is_kept_of_what_has_ended() -> None:
    timings = Timings(Clock())
    timings.happened(TaskSubmitted("failed while it waited", "task"))
    timings.happened(TaskFinished("failed while it waited", None, "error"))
    timings.happened(TaskFinished("from the time before", "e", "ok"))
    timings.happened(TaskAssigned("restored", "e"))
    timings.happened(TaskFinished("restored", "e", "ok"))
    assert not timings._waiting
    assert not timings._running
    assert timings.wait.count == 0
    assert timings.run["task"].count == 1


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
            autojump_clock.jump(LOOP_PERIOD + 0.2)  # as if something had not let others run
            await trio.lowlevel.checkpoint()
    assert lag.buckets()[0] == (0.1, 2)
    assert lag.count == 3
