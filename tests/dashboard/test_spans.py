"""The series of the last hour and the last day, and rates, with a fake clock."""

from __future__ import annotations

import pytest

from trio_hub.dashboard.series import Rates
from trio_hub.dashboard.spans import DAY, FOLDS, HOUR, Span


def sample(**values: float) -> dict[str, float]:
    return dict.fromkeys(FOLDS, 0.0) | values


def test_a_row_keeps_peaks_least_engines_mean_rates_and_sums() -> None:
    span = Span(10, 3)
    for second, (queued, engines, rate, lost) in enumerate([(5, 4, 1.0, 0), (90, 3, 2.0, 1), (7, 4, 6.0, 2)]):
        span.note(100.0 + second, sample(queued=queued, engines=engines, finished=rate, lost=lost))
    series = span.series(105.0)
    found = {name: series[name] for name in ("t", "queued", "engines", "finished", "lost")}
    assert found == {"t": [100], "queued": [90], "engines": [3], "finished": [3.0], "lost": [3]}
    assert set(series) == {"t", *FOLDS}


def test_the_size_is_fixed_and_a_time_without_samples_has_no_row() -> None:
    span = Span(10, 3)
    for t in (0.0, 10.0, 20.0, 30.0):
        span.note(t, sample(lost=1))
    assert span.series(30.0)["t"] == [10, 20, 30]
    assert span.total("lost", 30.0) == 3
    assert span.total("lost", 45.0) == 2, "the first row is older than the span"
    span.note(1000.0, sample(lost=1))
    assert span.series(1000.0)["t"] == [1000]


@pytest.mark.parametrize(("step", "size", "seconds"), [(*HOUR, 3600), (*DAY, 86400)])
def test_the_spans_are_an_hour_and_a_day(step: int, size: int, seconds: int) -> None:
    span = Span(step, size)
    assert span.seconds == seconds
    for t in range(0, 2 * seconds, step):
        span.note(t, sample())
    assert len(span.rows()) == size


def test_a_clock_that_is_set_back_does_not_stop_the_series() -> None:
    span = Span(10, 10)
    for t in (100.0, 110.0, 120.0, 105.0, 112.0):
        span.note(t, sample(lost=1))
    assert span.series(112.0)["t"] == [100, 110]
    assert span.series(112.0)["lost"] == [2, 1]


def test_rows_are_taken_over_and_damaged_ones_are_not() -> None:
    old = Span(10, 10)
    for t in (100.0, 110.0, 110.5):
        old.note(t, sample(finished=t))
    new = Span(10, 10)
    rows = old.rows()
    new.restore([[1.0], rows[0], rows[0], rows[1], [9e9, *rows[0][1:]]], 120.0)
    assert new.rows() == rows
    new.note(111.0, sample(finished=110.0))
    assert new.series(111.0)["finished"][1] == pytest.approx((110.0 + 110.5 + 110.0) / 3)


def test_rates_cover_their_windows() -> None:
    rates = Rates((10, 60))
    rates.note(0.0, {"done": 0})
    assert rates.all() == {"10": {"done": 0.0}, "60": {"done": 0.0}}, "nothing is known yet"
    for second in range(1, 101):
        rates.note(float(second), {"done": second if second <= 90 else 90 + 11 * (second - 90)})
    assert rates.over(10) == {"done": pytest.approx(11.0)}
    assert rates.over(60) == {"done": pytest.approx((50 * 1 + 110) / 60)}


def test_rates_of_a_young_dashboard_cover_the_time_that_it_knows() -> None:
    rates = Rates((10, 60))
    rates.note(0.0, {"done": 100})
    rates.note(2.0, {"done": 110})
    assert rates.all() == {"10": {"done": 5.0}, "60": {"done": 5.0}}
