"""The ring of ended tasks compared with a list of all tasks; series and percentiles compared with plain code."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.dashboard.bars import Bars
from trio_hub.dashboard.histogram import Histogram
from trio_hub.dashboard.series import LastMinute, Series, percentile

SIZE = 5


@pytest.mark.property
@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(-1, 3)), max_size=60), st.integers(0, 70))
def test_bars_against_a_list_of_all(steps: list[tuple[str, int]], since: int) -> None:
    """Each step starts a task, or ends it if it runs."""
    bars = Bars(SIZE)
    running: dict[str, tuple[int, int, float]] = {}
    ended: list[tuple[Any, ...]] = []
    for seq, (msg_id, row) in enumerate(steps, 1):
        now = float(seq)
        if msg_id in running:
            _, at, start = running.pop(msg_id)
            assert bars.end(msg_id, now, 1) is not None
            if at >= 0:
                ended.append((seq, at, start, now, "mux", "failed", 7, msg_id))
        else:
            running[msg_id] = seq, row, now
            bars.start(msg_id, row, now, 1, 7)
        assert bars.seq == seq
    kept = ended[-SIZE:]
    assert (bars.ended, len(bars)) == (len(ended), len(kept))
    first = bars.first_after(since)
    assert [bars.bar(number) for number in range(first, bars.ended)] == [bar for bar in kept if bar[0] > since]
    for start in range(bars.ended - len(bars), bars.ended + 1):
        for end in range(bars.ended - len(bars), bars.ended + 1):
            assert bars.between(start, end) == [bars.bar(number) for number in range(start, end)]
    live = [
        (seq, row, start, None, "mux", "running", 7, msg_id)
        for msg_id, (seq, row, start) in sorted(running.items(), key=lambda item: item[1])
        if row >= 0
    ]
    assert bars.running_after(0, 100) == live
    assert bars.running_after(since, 100) == [bar for bar in live if bar[0] > since]
    assert bars.running_after(0, 1) == live[-1:]
    for msg_id in "abcdefg":
        of_it = [bar for bar in kept if bar[-1] == msg_id]
        assert list(bars.of(msg_id)) == of_it + [bar for bar in live if bar[-1] == msg_id]
        assert bars.label_of(msg_id) == (7 if of_it else None)
    for row in range(4):
        runs = [bar for bar in live if bar[1] == row]
        of_row = [bar for bar in kept if bar[1] == row] + runs
        for limit in range(1, 4):
            assert bars.of_row(row, limit) == of_row[-limit:]
        assert bars.first_running_in(row) == (runs[0][-1] if runs else None)
        assert [bars.running_before(bar[-1]) for bar in runs] == list(range(len(runs)))
    assert set(bars._last_of_task) == {bar[-1] for bar in kept}
    assert set(bars._last_of_row) == {bar[1] for bar in kept}
    assert set(bars._running_in) == {row for _, row, _ in running.values()}


def test_a_task_that_starts_twice_runs_where_it_started_last() -> None:
    bars = Bars(SIZE)
    for row in (0, 1, 1):
        bars.start("a", row, 1.0, 0, 7)
    assert (bars.of_row(0, 9), [bar.row for bar in bars.of_row(1, 9)]) == ([], [1])
    bars.end("a", 2.0, 0)
    assert [bars.first_running_in(row) for row in (0, 1)] == [None, None]
    assert [(bar.row, bar.end) for bar in bars.of("a")] == [(1, 2.0)]


def test_a_task_that_starts_twice_takes_the_place_of_its_last_start() -> None:
    bars = Bars(SIZE)
    for msg_id in ("a", "b", "a"):
        bars.start(msg_id, 0, 1.0, 0, 7)
    assert [(bar.seq, bar.msg_id) for bar in bars.running_after(0, 9)] == [(2, "b"), (3, "a")]
    assert [bar.msg_id for bar in bars.running_after(2, 9)] == ["a"]


def test_a_task_that_never_began_has_no_bar() -> None:
    bars = Bars(SIZE)
    assert bars.end("a", 1.0, 0) is None
    assert (bars.seq, len(bars), bars.running_after(0, 10)) == (0, 0, [])


@pytest.mark.property
@given(st.lists(st.floats(0, 1e9), max_size=20))
def test_a_series_keeps_the_last(values: list[float]) -> None:
    series = Series(("one", "two"), SIZE)
    for value in values:
        series.note({"one": value, "two": -value, "another": 0.0})
    assert series.all() == {"one": values[-SIZE:], "two": [-value for value in values[-SIZE:]]}
    assert len(series) == len(values[-SIZE:])


@pytest.mark.property
@given(st.lists(st.floats(0, 20), min_size=1), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_in_the_bucket_of_the_value(values: list[float], part: float) -> None:
    bounds = (1.0, 2.0, 5.0, 10.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    exact = sorted(values)[max(0, math.ceil(part * len(values)) - 1)]
    found = percentile(bounds, histogram.counts, part)
    if exact > bounds[-1]:
        assert found == bounds[-1]
    else:
        upper = next(bound for bound in bounds if exact <= bound)
        lower = max((bound for bound in bounds if bound < upper), default=0.0)
        assert lower <= found <= upper


def test_percentiles_are_of_the_last_minute() -> None:
    bounds = (1.0, 2.0, 4.0)
    one, two = Histogram(bounds), Histogram(bounds)
    latency = LastMinute(bounds, window=2)
    assert latency.summary() is None
    latency.note([])
    assert latency.summary() is None
    for _ in range(100):
        one.observe(0.5)
        two.observe(3.0)
    latency.note([one, two])
    assert latency.summary() == {"p50": 1.0, "p95": 3.0, "p99": 3.0, "count": 200}, "nothing took longer than 3"
    latency.note([one, two])
    assert latency.summary() is not None
    latency.note([one, two])
    assert latency.summary() is None, "that was longer ago"
    two.observe(100.0)
    latency.note([one, two])
    assert latency.summary() == {"p50": 4.0, "p95": 4.0, "p99": 4.0, "count": 1}
