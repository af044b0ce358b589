"""Services may fail in any way: the failure is logged and counted, and the hub goes on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
import trio.testing

from tests.databases.contract import finished, make
from tests.databases.fake import FakeBackend
from trio_hub import services
from trio_hub.config.connectionfiles import write_private_file
from trio_hub.databases import writer as recordwriter
from trio_hub.databases.backend import Retention
from trio_hub.databases.batches import write_batch
from trio_hub.databases.writebehind import WriteBehindStore
from trio_hub.hub.events import Event
from trio_hub.runtime import children, connections, restore
from trio_hub.runtime.children import LocalEngines
from trio_hub.runtime.restore import EngineStateFile, engine_state_path, read_engine_state
from trio_hub.services import LONGEST_PAUSE, going_on, keep_running
from trio_hub.testing import open_engine

from .runtime.support import cluster, eventually, within_limit


class Unexpected(Exception):
    """An unexpected exception."""


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == logging.ERROR]


def failing_first(function: Callable[..., Any], times: int = 1) -> Callable[..., Any]:
    """Return a function whose first calls raise."""
    left = [times]

    def called(*args: Any, **kwargs: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise Unexpected("as the test says")
        return function(*args, **kwargs)

    return called


# Starting anew


async def test_the_pauses_grow_and_begin_anew_after_a_long_run(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[float] = []
    failures: Counter[str] = Counter()

    async def service() -> None:
        starts.append(trio.current_time())
        if len(starts) == 9:
            await trio.sleep(LONGEST_PAUSE + 1)
        if len(starts) == 11:
            return
        raise Unexpected("no")

    began = trio.current_time()
    await keep_running("a service", service, failures)
    pauses = [round(after - before) for before, after in pairwise([began, *starts])]
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 60, 60, 62, 2]
    assert failures == {"a service": 10}
    told = errors(caplog)
    assert len(told) == 10
    assert {record.getMessage() for record in told} == {"a service has failed, and is started again after a pause"}
    assert all(record.exc_info is not None and record.exc_info[0] is Unexpected for record in told)
    assert [vars(record)["failures"] for record in told] == list(range(1, 11))


async def test_no_pause_is_longer_than_is_good_for_the_service(autojump_clock: trio.testing.MockClock) -> None:
    starts: list[float] = []

    async def service() -> None:
        starts.append(trio.current_time())
        if len(starts) < 4:
            raise Unexpected

    await keep_running("a service", service, Counter(), longest_pause=0.5)
    assert [after - before for before, after in pairwise(starts)] == pytest.approx([0.5] * 3)


async def test_an_error_in_a_nursery_is_told_as_itself(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def child() -> None:
        raise Unexpected

    calls = 0

    async def service() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
                nursery.start_soon(trio.sleep_forever)

    await keep_running("a service", service, Counter())
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert record.exc_info[0] is Unexpected


async def test_a_cancellation_ends_it_also_one_that_comes_with_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def clumsy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Unexpected

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clumsy)
            nursery.start_soon(trio.sleep_forever)

    failures: Counter[str] = Counter()
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(keep_running, "a service", service, failures)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert failures == {"a service": 1}
    assert len(errors(caplog)) == 1


async def test_a_cancellation_ends_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def service() -> NoReturn:
        raise Unexpected

    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(keep_running, "a service", service, Counter())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def test_what_ends_the_process_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt), going_on("a step", Counter()):
        raise KeyboardInterrupt


def test_a_step_that_fails_is_told_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    failures: Counter[str] = Counter()
    with going_on("a step", failures):
        raise Unexpected
    (record,) = errors(caplog)
    assert record.getMessage() == "a service has failed, and goes on"
    assert failures == {"a step": 1}


# Observers


class Careless:
    """An observer that raises at each event."""

    def __init__(self) -> None:
        self.events = 0
        self.messages = 0

    def happened(self, event: Event) -> None:
        self.events += 1
        raise Unexpected

    def handled(self, channel: str, seconds: float) -> None:
        self.messages += 1
        raise Unexpected


async def test_observers_that_raise_harm_nobody_and_are_told_about_once(caplog: pytest.LogCaptureFixture) -> None:
    async with cluster() as (hub, client, _):
        careless, other = Careless(), Careless()
        with hub.observed(careless), hub.observed(other):
            for _ in range(3):
                await client.reply(client.submit(b"work"))
        assert careless.events == other.events >= 9
        assert careless.messages == other.messages >= 6
        assert hub.statistics().service_failures == {"observer": 2 * (careless.events + careless.messages)}
        assert len(errors(caplog)) == 2
        with hub.observed(careless):
            await client.reply(client.submit(b"work"))
        assert len(errors(caplog)) == 3, "who comes again is told about again"


# The hub's own services


async def test_an_engine_state_file_that_fails_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(restore, "write_private_file", failing_first(write_private_file, 2))
    async with cluster(profile_dir=tmp_path, db="memory") as (hub, _, (engine,)):
        path = engine_state_path(tmp_path, "")
        await eventually(lambda: path.exists())
        state = read_engine_state(path)
        assert state is not None
        assert list(state.engines.values()) == [engine.uuid]
        assert hub.statistics().service_failures == {"engine state file": 2}
    assert len(errors(caplog)) == 2


async def test_clients_are_answered_though_the_files_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: EngineStateFile) -> NoReturn:
        raise Unexpected

    monkeypatch.setattr(EngineStateFile, "remove", fail)
    async with cluster(0, profile_dir=tmp_path, db="memory") as (hub, client, _):
        waiting = client.submit(b"work")
        await eventually(lambda: hub.statistics().tasks_queued == 1)
        hub.shutdown()
        assert (await client.reply(waiting)).content["ename"] == "EngineError"
        await hub.wait_stopped()
    assert len(errors(caplog)) == 1


async def test_retention_and_the_writer_go_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "FIRST_PAUSE", 0.01)
    backend = FakeBackend()
    monkeypatch.setattr(backend, "trim", failing_first(backend.trim))
    monkeypatch.setattr(recordwriter, "write_batch", failing_first(write_batch))
    store = WriteBehindStore(backend, delay=0, keep=Retention(records=1))
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        for number in range(3):
            store.add(finished(str(number)))
        store.add(make("unfinished"))
        await eventually(lambda: store.statistics().trimmed == 2)
        assert sorted(backend.kept) == ["2", "unfinished"]
        await store.aclose()
    assert store.failures == {"retention of records": 1, "record writer": 1}
    assert len(errors(caplog)) == 2


async def test_a_supervisor_of_an_engine_that_fails_starts_anew(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    runs = 0

    async def run_once(self: LocalEngines, place: object) -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise Unexpected
        return 0

    monkeypatch.setattr(children.LocalEngines, "_run_once", run_once)
    engines = LocalEngines(1, {}, command=("sleep", "1000"))
    await engines.run()
    assert runs == 2
    assert engines.failures == {"local engines": 1}


async def test_a_watcher_of_connections_that_fails_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(connections, "PAUSE", 0.0)
    async with cluster(0, ping=0.05) as (hub, client, _):
        monkeypatch.setattr(hub.core, "connection_lost", failing_first(hub.core.connection_lost))
        async with open_engine(hub.engine_info):
            await hub.wait_engines(1)
        await eventually(lambda: hub.statistics().service_failures.get(connections.WATCHER, 0) >= 1)
        async with open_engine(hub.engine_info):
            await hub.wait_engines(1)
            await client.reply(client.submit(b"work"))
        await eventually(lambda: not hub.engines)
