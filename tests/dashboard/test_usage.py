"""What engines use: reported by ours, and seen by the hub for processes that it has started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import HubConfig, connect
from trio_hub.dashboard.usage import UsageBook
from trio_hub.engine.usage import HostUsage, ProcessUsage, UsageReporter
from trio_hub.hub.connector import EngineConnector
from trio_hub.hub.usage import EngineUsage
from trio_hub.runtime import serve
from trio_hub.testing import open_engine, open_hub

from ..engine.support import open_engine_process
from ..runtime.support import eventually, within_limit
from .support import Site, open_dashboard


def engine_at(host: str | None, pid: int | None) -> EngineConnector:
    engine = EngineConnector(0, "e")
    engine.host, engine.pid = host, pid
    return engine


def test_a_process_and_its_machine() -> None:
    process, machine = ProcessUsage(), HostUsage()
    first, on = process.look(1.0), machine.look()
    assert first is not None
    assert first["cpu"] is None
    assert first["rss"] > 1 << 20
    assert on["host_cpu"] is None
    now, cpu = 1.0, None
    while not cpu:  # until the system has counted a tick of this loop
        now += 1.0
        cpu = (process.look(now) or {})["cpu"]
    assert 0 < on["host_memory"] < on["host_memory_total"]
    assert on["host_cores"] == os.cpu_count()
    assert machine.look().keys() == {"host", "host_cpu", "host_cores", "host_memory", "host_memory_total"}
    assert ProcessUsage(2**22 + 1).look(1.0) is None


def test_only_processes_of_this_hub_are_looked_at() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            for host, pid, known in (
                ("127.0.0.1", child.pid, True),
                ("127.0.0.1", os.getppid(), False),
                ("192.0.2.1", child.pid, False),
                ("127.0.0.1", None, False),
                (None, child.pid, False),
            ):
                book = UsageBook()
                usage = book.of(engine_at(host, pid), 10.0)
                assert (usage is not None) is known, (host, pid)
                if usage is not None:
                    assert usage["rss"] > 0
                    assert usage["host_cores"] == os.cpu_count()
                    assert book.of(engine_at(host, pid), 10.1) == usage, "it is not looked at again so soon"
                    assert book.of(engine_at(host, pid), 12.0)["cpu"] >= 0  # type: ignore[index]
                    book.keep(())
                    assert not book._processes
        finally:
            child.communicate(b"\n")


def test_a_report_is_worth_more_than_a_look() -> None:
    engine = engine_at("127.0.0.1", os.getpid())
    engine.usage = EngineUsage(cpu=0.5, rss=7)
    usage = UsageBook().of(engine, 10.0)
    assert usage is not None
    assert (usage["cpu"], usage["rss"], usage["host"]) == (0.5, 7, None)


async def test_an_engine_reports_only_if_it_is_asked(autojump_clock: trio.testing.MockClock) -> None:
    reports: list[Any] = []
    reporter = UsageReporter(lambda usage: reports.append((trio.current_time(), usage)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        for nothing in (None, 0, -1, "5", True, float("nan")):
            reporter.asked(nothing)
            await trio.sleep(100)
        assert reports == []
        began = trio.current_time()
        reporter.asked(10)
        await trio.sleep(25)
        assert [at - began for at, _ in reports] == [1.0, 11.0, 21.0]
        assert reports[-1][1]["rss"] > 0
        assert reports[0][1].keys() >= {"cpu", "host", "host_memory"}
        reporter.asked(None)  # another hub, which does not ask
        await trio.sleep(100)
        assert len(reports) == 3
        nursery.cancel_scope.cancel()


@pytest.mark.interop
async def test_our_engine_tells_a_hub_with_a_dashboard_what_it_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "USAGE_PERIOD", 0.2)
    async with (
        within_limit(),
        open_hub(HubConfig(dashboard="0")) as hub,
        open_engine_process(tmp_path, info=hub.engine_info) as process,
        open_dashboard(hub) as dashboard,
    ):
        await hub.wait_engines(1)
        engine = next(iter(hub.core.engines.alive.values()))
        await eventually(lambda: engine.usage is not None and engine.usage.cpu is not None)
        async with connect(connection_info=hub.client_info) as client:
            at = Site(hub, None, None, dashboard)  # type: ignore[arg-type]
            (row,) = (await at.get("/api/engines"))["engines"]
            assert row["usage"]["rss"] > 10 << 20
            assert row["usage"]["host"]
            assert row["pid"] == await process.child()
            assert await client.apply(int, "7", targets=0) == 7


async def test_without_a_dashboard_engines_are_not_asked() -> None:
    for config, asks in ((HubConfig(), False), (HubConfig(dashboard="0"), True)):
        async with within_limit(), open_hub(config) as hub, open_engine(hub.engine_info) as engine:
            assert ("usage_period" in engine.registration) is asks
