"""The picture that `top` draws from snapshots. The function is pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trio_hub.cli.top.picture import SORTS, View, draw, engine_lines
from trio_hub.cli.top.snapshot import EngineRow, PoolRow, Snapshot

AT = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
UUID = "aabb0697-20a000d6438a61c77ecedc20"
MSG_ID = "2fb4e7e7-7b9ead147beca09ecb96f752_15145_"


def engine(id: int, **values: Any) -> EngineRow:
    busy = {
        "tasks": 1,
        "direct": 12,
        "completed": 1_234_567 - id,
        "rate": 1234.5 + id,
        "running": f"{MSG_ID}{id}",
        "label": "tides of the northern sea",
        "since": AT - timedelta(seconds=14),
    }
    return EngineRow(**{"id": id, "uuid": UUID, **busy, **values})


def request(number: int, state: str = "ok", **values: Any) -> dict[str, Any]:
    error = {"ename": "ValueError", "evalue": "no tide\nat noon, 汐"} if state == "failed" else None
    told = {"msg_id": f"{MSG_ID}{number}", "state": state, "label": "tides", "engine_id": 3, "seconds": 1.234}
    return told | {"name": None, "received": AT - timedelta(seconds=number), "error": error} | values


def snapshot(number: int = 4, latest: int = 100, failures: int = 3, **values: Any) -> Snapshot:
    told: dict[str, Any] = {
        "address": "tcp://127.0.0.1:33301",
        "at": AT,
        "seconds": 2.0,
        "engines": tuple(engine(id) for id in range(number)),
        "unassigned": 1_234_567,
        "finished": 12_345.6,
        "submitted": 12_345.6,
        "failed": 12.3,
        "latest": tuple(request(number) for number in range(latest)),
        "failures": tuple(request(number, "failed") for number in range(failures)),
    }
    return Snapshot(**(told | values))


def lines_of(drawn: Snapshot, width: int, height: int, view: View | None = None) -> list[str]:
    lines = draw(drawn, view or View(), width, height)
    assert len(lines) == height
    assert max(line.cell_len for line in lines) <= width
    return [line.plain for line in lines]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
@pytest.mark.parametrize("engines", [0, 1, 4, 1000])
@pytest.mark.parametrize("requests", [0, 100])
def test_the_screen_is_filled_and_not_overrun(width: int, height: int, engines: int, requests: int) -> None:
    lines = lines_of(snapshot(engines, requests, requests), width, height)
    assert lines[-1].startswith("q quit  p pause  s sort")
    assert not [line for line in lines[:3] if "…" in line]
    assert sum(line.startswith("12:") for line in lines) == (0 if not requests else lines_below(engines, height) - 2)


def lines_below(engines: int, height: int) -> int:
    """Lines for the two tables of requests: below the header, the engines with their titles, and a line between."""
    shown = engine_lines(snapshot(engines), height) if engines else 0
    return height - 4 - 1 - shown - 1 - 1


def test_what_matters_is_there_at_80_columns() -> None:
    lines = lines_of(snapshot(), 80, 24)
    assert lines[0].startswith("trio-hub top  tcp://127.0.0.1:33301  4 engines, 4 busy  ")
    assert lines[1] == "unassigned 1,234,567  at engines 4  direct 48  completed 4,938,262"
    assert lines[2] == "submitted 12,345.6/s  finished 12,345.6/s  failed 12.3/s"
    assert lines[4].split() == ["ID", "STATE", "TASKS", "DIRECT", "COMPLETED", "RATE/s", "FOR", "RUNNING", "LABEL"]
    assert lines[5].split()[:7] == ["0", "busy", "1", "12", "1,234,567", "1,234.5", "14s"]
    assert lines[5].split()[7] == "…b96f752_15145_0"
    assert lines[10].split()[-2:] == ["LAST", "FAILURES"]
    assert lines[11].split()[:5] == ["12:00:30", "failed", "3", "1.23s", "…b96f752_15145_0"]
    assert lines[11].endswith("tides  ValueError: no tide at …")
    assert lines[14].split()[-2:] == ["LAST", "FINISHED"]
    assert lines[15].split()[:5] == ["12:00:30", "ok", "3", "1.23s", "…b96f752_15145_0"]


def a_pool(name: str = "slurm", **values: Any) -> PoolRow:
    told = {"state": "steady", "min": 0, "max": 8, "wanted": 7, "asked": 4, "coming": 0, "there": 4, "idle": 1}
    return PoolRow(**{"name": name, "why": "has a block in the queue\nof the batch system", **told, **values})


def test_pools_have_lines_above_the_engines() -> None:
    full = a_pool(
        "local", min=4, max=4, state="growing", wanted=4, asked=0, coming=2, idle=0, why="has no queued tasks"
    )
    lines = lines_of(snapshot(1000, pools=(a_pool(), full)), 200, 24)
    why = "has a block in the queue of the batch system"
    assert lines[4] == f"pool slurm 0..8  steady  wanted 7  asked for 4  there 4  idle 1  {why}"
    assert lines[5] == "pool local 4  growing  wanted 4  coming 2  there 4  has no queued tasks"
    assert lines[6].split()[:2] == ["ID", "STATE"]
    assert sum("12:00:30" in line or "12:00:29" in line for line in lines) > 2, "there is room for requests"
    many = lines_of(snapshot(1000, pools=tuple(a_pool(f"pool{number}") for number in range(6))), 80, 24)
    assert [line.split()[1] for line in many[4:8]] == ["pool0", "pool1", "pool2", "3"]
    assert many[4].endswith("…")
    assert many[7] == "and 3 more pools: see trio-hub pools"


def test_nothing_is_cut_at_200_columns() -> None:
    lines = lines_of(snapshot(30), 200, 50)
    assert not [line for line in lines if "…" in line]
    assert f"{MSG_ID}7 " in lines[12]
    assert f"{UUID} " in lines[12]
    assert lines[12].endswith("tides of the northern sea")
    assert any(line.endswith("tides  ValueError: no tide at noon, 汐") for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_a_long_label_does_not_hide_the_error(width: int, height: int) -> None:
    drawn = snapshot(latest=0, failures=3)
    failed = tuple({**row, "label": "label " * 40} for row in drawn.failures)
    lines = lines_of(replace(drawn, failures=failed, latest=failed), width, height)
    (first, *_) = (line for line in lines if "ValueError" in line)
    assert "ValueError: no ti" in first
    assert "label" in first


def test_a_request_without_a_label_has_the_name_of_its_function() -> None:
    drawn = snapshot(0, engines=(engine(0, label=None, name="tide_at"),), latest=1, failures=2)
    rows = tuple({**row, "label": None, "name": "tide_at"} for row in (*drawn.latest, drawn.failures[1]))
    lines = lines_of(replace(drawn, latest=rows, failures=()), 80, 24)
    assert lines[5].endswith(" tide_at")
    assert any(line.endswith("0 tide_at") for line in lines)
    assert any("1 tide_at  ValueError: no tide" in line for line in lines)


def test_what_is_not_known_is_a_dash() -> None:
    row = engine(0, running=None, rate=None, since=None, label=None)
    unknown = snapshot(
        0,
        0,
        0,
        engines=(row,),
        unassigned=None,
        finished=None,
        submitted=None,
        failed=None,
        seconds=None,
        trouble="StoreError:\nnone",
    )
    lines = lines_of(unknown, 80, 24)
    assert lines[1].startswith("unassigned -  ")
    assert lines[2] == "submitted -  finished -  failed -"
    assert lines[5].split() == ["0", "busy", "1", "12", "1,234,567", "-", "-", "-"]
    assert lines[7] == "no records: StoreError: none"


def test_an_estimate_says_so() -> None:
    assert lines_of(snapshot(sampled=True), 80, 24)[2].endswith("failed about 12.3/s")


@pytest.mark.parametrize(
    ("since", "earlier", "told"),
    [(0, False, "<2.00s"), (0, True, "-"), (14, True, ">14s"), (14, False, "14s"), (3720, False, "1h02m")],
)
def test_how_long_it_has_run(since: float, earlier: bool, told: str) -> None:
    row = engine(0, since=AT - timedelta(seconds=since), earlier=earlier)
    assert lines_of(snapshot(0, engines=(row,)), 80, 24)[5].split()[6] == told


@pytest.mark.parametrize(("width", "word"), [(80, "drain"), (200, "drained")])
def test_what_is_controlled(width: int, word: str) -> None:
    assert lines_of(snapshot(), width, 24)[3] == ""
    assert lines_of(snapshot(priorities={0: 7}, paused=0), width, 24)[3] == ""
    engines = (engine(0, drained=True), engine(1))
    lines = lines_of(snapshot(0, engines=engines, paused=3, cancelling=1, priorities={5: 1200, -1: 4}), width, 24)
    assert lines[3] == "paused 3  cancelling 1  drained 1 engine  queued by priority 5: 1,200, -1: 4"
    assert [line.split()[1] for line in lines[5:7]] == [word, "busy"]
    many = lines_of(snapshot(2, priorities={9 - level: level for level in range(9)}), width, 24)[3]
    assert many == "queued by priority 9: 0, 8: 1, 7: 2 … 1: 8"


def test_sorting() -> None:
    rows = (
        engine(0, tasks=1, rate=3.0, completed=20),
        engine(1, tasks=9, rate=None, completed=10),
        engine(2, tasks=4, rate=7.0, completed=30),
    )
    view, orders = View(), {}
    for _ in SORTS:
        lines = lines_of(snapshot(0, engines=rows), 80, 24, view)
        assert lines[-1].endswith(f"by {view.sort}")
        orders[view.sort] = [line.split()[0] for line in lines[5:8]]
        view.next_sort()
    assert view.sort == "id"
    assert {name: "".join(order) for name, order in orders.items()} == {
        "id": "012",
        "load": "120",
        "rate": "201",
        "completed": "201",
    }


def test_scrolling() -> None:
    many, view = snapshot(100), View()
    page = engine_lines(many, 24)

    def first() -> int:
        return int(lines_of(many, 80, 24, view)[5].split()[0])

    for lines, expected in ((1, 1), (page, 1 + page), (1000, 100 - page), (1, 100 - page), (-page, 100 - 2 * page)):
        view.scroll(lines, many, 24)
        assert first() == expected
    assert lines_of(many, 80, 24, view)[-1].endswith(f"engines {101 - 2 * page}-{100 - page} of 100, by id")
    assert lines_of(snapshot(3), 80, 24, view)[5].split()[0] == "0", "when most engines have left"
    view.scroll(-1000, many, 24)
    assert first() == 0


def test_paused() -> None:
    lines = lines_of(snapshot(), 80, 24, View(paused=True))
    assert lines[0].endswith("  paused")
    assert "p continue" in lines[-1]


@pytest.mark.parametrize(("width", "height"), [(20, 5), (1, 1), (80, 3)])
def test_a_tiny_screen_is_no_error(width: int, height: int) -> None:
    assert len(lines_of(snapshot(), width, height)) == height
