"""Estimates of run times."""

from __future__ import annotations

import math

import pytest

from trio_hub.pools.demand import RunTimes


def test_nothing_is_expected_of_an_unknown_label() -> None:
    times = RunTimes()
    assert times.expected("fit") is None
    assert times.expected("fit", longest_running=10.0) is None
    assert times.remaining("fit", 50.0) == math.inf


def test_a_task_that_has_been_running_for_long_tells_of_the_others() -> None:
    assert RunTimes().expected("fit", longest_running=500.0) == 500.0


def test_the_average_follows_the_run_times() -> None:
    times = RunTimes()
    times.note("fit", 2.0)
    times.note("fit", 4.0)
    assert times.expected("fit", longest_running=500.0) == 3.0
    for _ in range(100):
        times.note("fit", 10.0)
    assert times.expected("fit") == pytest.approx(10.0, abs=0.1)


def test_a_task_that_takes_longer_than_expected_is_expected_to_go_on() -> None:
    times = RunTimes()
    times.note("fit", 10.0)
    assert [times.remaining("fit", elapsed) for elapsed in (0.0, 5.0, 10.0, 100.0)] == [10.0, 5.0, 5.0, 50.0]


def test_the_label_that_was_used_least_recently_is_forgotten() -> None:
    times = RunTimes(most=2)
    times.note("a", 1.0)
    times.note("b", 1.0)
    times.expected("a")
    times.note("c", 1.0)
    assert [times.expected(label) for label in "abc"] == [1.0, None, 1.0]
