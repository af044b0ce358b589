"""The benchmark of whole clusters runs, and writes its page. No test checks a speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.end_to_end import contenders
from benchmarks.end_to_end_page import FIGURES, GOALS, IPCONTROLLER, goals, page

from .running import printed_by


def test_the_page_has_medians_and_says_what_failed() -> None:
    figures = [dict.fromkeys(FIGURES, 10.0 * number) for number in (1, 3, 2)]
    text = page({"good": figures, "bad": []}, {"date": "2024-05-01", "cores": "2"})
    (row,) = [line for line in text.splitlines() if line.startswith("| good")]
    assert row == "| good | 20.0 s | 20 (10 to 30) | 20.00 ms (10 to 30) | 20 MB/s (10 to 30) | 20 MB | 20 |"
    assert "| bad | failed |" in text
    assert "| date | 2024-05-01 |" in text
    assert "Medians of 3 rounds" in text


def test_ratios_compare_the_medians_of_our_best_contender() -> None:
    def rounds(*values: float) -> list[dict[str, float]]:
        return [dict.fromkeys(FIGURES, value) for value in values]

    found = {
        "trio-hub, own engines, connect": rounds(50.0, 1.0, 60.0),
        "trio-hub, own engines, Executor": rounds(40.0),
        "Ray": rounds(40.0, 20.0, 1000.0),
        IPCONTROLLER: rounds(10.0),
        "trio-hub, stock engines, stock client": [],
    }
    lines = goals(found).splitlines()
    assert lines == [
        "calls per second: trio-hub, own engines, connect, relative to: Ray: 1.25 (goal: at least 1.4: MISSED)",
        f"calls per second: trio-hub, own engines, connect, relative to: {IPCONTROLLER}: 5.00 (goal: at least 5: met)",
        "one call, median: trio-hub, own engines, Executor, relative to: Ray: 1.00 (goal: at most 0.7: MISSED)",
        "4 MiB arrays there and back: trio-hub, own engines, connect, relative to: "
        f"{IPCONTROLLER}: 5.00 (goal: at least 1.5: met)",
    ]
    assert "| calls per second | trio-hub, own engines, connect | Ray | 1.25 |" in page(found, {})


def test_goals_name_contenders_that_exist() -> None:
    named = {name for goal in GOALS for name in (*goal.ours, goal.other)}
    assert named - {one.name for one in contenders()} <= {"Ray"}


def test_what_is_not_installed_is_left_out() -> None:
    names = [one.name for one in contenders()]
    assert "ProcessPoolExecutor" in names
    assert "trio-hub, stock engines, Executor" in names
    assert len(set(names)) == len(names)


@pytest.mark.interop
def test_it_measures_and_writes_a_page(tmp_path: Path) -> None:
    only = ["trio-hub, stock engines", "Dask", "ProcessPool"]
    options = ["--rounds", "1", "--calls", "50", "--write", str(tmp_path / "page.md"), "--only", *only]
    printed_by("benchmarks.end_to_end", *options)
    text = (tmp_path / "page.md").read_text()
    for name in ("stock client", "connect", "Executor"):
        assert f"| trio-hub, stock engines, {name} | " in text
    assert "| Dask | " in text
