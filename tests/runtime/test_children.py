"""Local engines: when they are started again, how their ends are reported, and which hub supervises them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trio_hub import HubConfig, RunningHub
from trio_hub.hub import EngineConnector, EngineState
from trio_hub.runtime import children, enginecommand, processes
from trio_hub.runtime.children import LocalEngines
from trio_hub.runtime.enginecommand import engine_command, warn_of_config_files
from trio_hub.runtime.places import SavedProcess
from trio_hub.runtime.processes import OutOfMemory, boot_id, how_it_ended, is_own_address, start_time
from trio_hub.runtime.restore import read_engine_state
from trio_hub.testing import ScriptedClient, open_client, open_hub

from ..cli.process import command
from .support import eventually, within_limit

COMMAND = (sys.executable, "-m", "tests.runtime.local_engine")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(children, "LAST_WORDS", 0.01)


@asynccontextmanager
async def hub_with_engines(n: int, **settings: Any) -> AsyncGenerator[tuple[RunningHub, ScriptedClient], None]:
    config = HubConfig(engines=n, engine_command=COMMAND, **({"stranded_grace": 0, "ping": 0.5} | settings))
    async with within_limit(), open_hub(config) as hub, open_client(hub.client_info) as client:
        await hub.wait_engines(n)
        yield hub, client


def pid_of(hub: RunningHub, engine_id: int) -> int:
    pid = hub.core.engines.alive[engine_id].pid
    assert pid is not None
    return pid


# The end of local engines, and their next start


async def test_an_engine_is_started_again_however_often_it_dies() -> None:
    async with hub_with_engines(1) as (hub, client):
        for death in range(5):
            reply = await client.reply(client.submit(b"exit 7"))
            assert reply.content["evalue"].startswith(f"Engine {death} died while running task ")
        assert (await client.reply(client.submit(b"work"))).content["status"] == "ok"
        assert list(hub.engines) == [5]


@pytest.mark.parametrize(
    ("how", "cause"),
    [("exit 7", "ended with exit status 7"), ("kill 9", "killed by signal 9 (SIGKILL)"), ("kill 11", "(SIGSEGV)")],
)
@pytest.mark.parametrize("queue", ["task", "mux"])
async def test_the_error_names_the_engine_and_the_cause(queue: str, how: str, cause: str) -> None:
    async with hub_with_engines(1) as (hub, client):
        direct = queue == "mux"
        msg_id = client.call(hub.engines[0], how.encode()) if direct else client.submit(how.encode())
        told = (await client.reply(msg_id)).content
        assert told["ename"] == "EngineError"
        assert told["evalue"].startswith(f"Engine 0 died while running task {msg_id}: ")
        assert cause in told["evalue"]
        assert hub.statistics().engines_lost["ended"] == 1, "without a nanny, nobody else tells the hub of its end"


async def test_pauses_grow_and_begin_anew_after_a_long_life(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 1.0)
    lives = [0.0] * 8 + [children.LONG_LIFE + 1, 0.0, 0.0]
    starts: list[float] = []

    async def run_once(self: LocalEngines, place: object) -> int:
        starts.append(trio.current_time())
        if not lives:
            return 0
        await trio.sleep(lives.pop(0))
        return 1

    monkeypatch.setattr(LocalEngines, "_run_once", run_once)
    await LocalEngines(1, {}, command=COMMAND).run()
    pauses = [after - before for before, after in pairwise(starts)]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, children.LONG_LIFE + 2, 2, 4])


async def test_a_command_that_cannot_be_run_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    program = tmp_path / "engine"
    async with within_limit(), open_hub(HubConfig(engines=1, engine_command=(str(program),))) as hub:
        await eventually(lambda: bool(hub.statistics().local_engines_missing))
        await eventually(lambda: caplog.text.count("No such file or directory") >= 2)
        (missing,) = hub.statistics().local_engines_missing
        assert missing.startswith(f"local engine 0 cannot be started: {program}: No such file or directory")
        program.write_text(f"#!/bin/sh\nexec {' '.join(COMMAND)}\n")
        program.chmod(0o700)
        await hub.wait_engines(1)
        assert hub.statistics().local_engines_missing == ()


async def test_an_engine_that_never_registers_is_told_as_such(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        within_limit(),
        open_hub(HubConfig(engines=1, engine_command=(sys.executable, "-c", "raise SystemExit(3)"))),
    ):
        await eventually(lambda: caplog.text.count("local engine ended before it had registered") >= 2)
    assert 'cause="ended with exit status 3"' in caplog.text
    assert "local engine died" not in caplog.text


@pytest.mark.parametrize("by", ["client", "page"])
async def test_an_engine_that_was_told_to_stop_stays_away(by: str) -> None:
    async with hub_with_engines(2) as (hub, client):
        if by == "client":
            client.control(hub.engines[0], "shutdown_request", {"restart": False})
        else:
            hub.shutdown_engine(hub.engines[0])
        await eventually(lambda: "was told to stop" in "".join(hub.statistics().local_engines_missing))
        assert list(hub.engines) == [1]
        client.control(hub.engines[1], "shutdown_request", {"restart": True})
        await eventually(lambda: list(hub.engines) == [2])


async def test_what_is_missing_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 20.0)
    async with hub_with_engines(2) as (hub, _):
        assert (hub.statistics().local_engines, hub.statistics().local_engines_missing) == (2, ())
        os.kill(pid_of(hub, 0), signal.SIGKILL)
        await eventually(lambda: len(hub.engines) == 1)
        (missing,) = hub.statistics().local_engines_missing
        assert "was killed by signal 9 (SIGKILL)" in missing
        assert "; it is started again in " in missing


# The next hub


def gone(pid: int) -> bool:
    return start_time(pid) is None


async def test_engines_of_a_killed_hub_count_and_stop_with_the_next_one(tmp_path: Path) -> None:
    state = tmp_path / "log" / "engines.json"
    options = [f"--profile-dir={tmp_path}", "--restore=true", "--engines=2", f"--engine-command={' '.join(COMMAND)}"]
    pids: list[int] = []
    try:
        with command("serve", *options) as killed:
            killed.wait_line("stdout", "^trio-hub ready: ")

            def saved() -> bool:
                found = read_engine_state(state) if state.exists() else None
                pids[:] = found.local if found is not None else ()
                return found is not None and len(found.engines) == 2 and all(one.uuid for one in found.local.values())

            async with within_limit():
                await eventually(saved)
        assert len(pids) == 2
        config = HubConfig(profile_dir=tmp_path, restore=True, engines=3, engine_command=COMMAND, ping=0.5)
        async with within_limit(), open_hub(config) as hub:
            await eventually(lambda: len(hub.engines) == 3 and not hub.core.hearts.awaits_hearts)
            assert {pid_of(hub, engine_id) for engine_id in (0, 1)} == set(pids)
            assert hub.statistics().local_engines_missing == ()
            os.kill(pid_of(hub, 0), signal.SIGTERM)  # not pids[0], since either may have registered first
            await eventually(lambda: sorted(hub.engines) == [1, 2, 3])
            hub.shutdown()
            await hub.wait_stopped()
        assert all(map(gone, pids))
        assert not state.exists() or not read_engine_state(state).local  # type: ignore[union-attr]
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_more_engines_than_asked_for_are_kept_but_not_started_again() -> None:
    processes_ = [await trio.lowlevel.open_process(["sleep", "1000"]) for _ in range(2)]
    saved = {process.pid: SavedProcess(start_time(process.pid) or 0, None) for process in processes_}
    saved[os.getpid()] = SavedProcess(0, None)  # an id that another process has by now
    engines = LocalEngines(1, {}, command=("sleep", "1000"), grace=0.0)
    engines.adopt(saved)
    async with within_limit(), trio.open_nursery() as nursery:
        for process in processes_:
            nursery.start_soon(process.wait)
        nursery.start_soon(engines.run)
        assert set(engines.saved) == set(saved) - {os.getpid()}
        processes_[1].kill()
        await eventually(lambda: len(engines.saved) == 1 and bool([*engines._places][1].stays_away))
        processes_[0].kill()
        await eventually(lambda: len(engines.saved) == 1 and processes_[0].pid not in engines.saved)
        nursery.cancel_scope.cancel()
    assert not engines.saved


# Causes of death that the system reports


def test_how_a_process_ended() -> None:
    assert how_it_ended(3) == "ended with exit status 3"
    assert how_it_ended(-9) == "killed by signal 9 (SIGKILL)"
    assert how_it_ended(-60) == "killed by signal 60"


def test_a_process_is_named_by_its_start() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid())
    assert start_time(2**22 + 1) is None
    assert boot_id()


def test_own_addresses() -> None:
    assert is_own_address("127.0.0.1")
    assert not is_own_address("192.0.2.1")
    assert not is_own_address(None)


@pytest.mark.parametrize(
    ("group", "machine", "told"),
    [(0, 0, ""), (1, 1, ", out of memory"), (0, 1, ", probably out of memory")],
)
def test_a_lack_of_memory_is_told(monkeypatch: pytest.MonkeyPatch, group: int, machine: int, told: str) -> None:
    def counts(value: int) -> Callable[[], int]:
        return lambda: value

    monkeypatch.setattr(processes, "_kills_in_group", counts(5))
    monkeypatch.setattr(processes, "_kills_on_machine", counts(7))
    memory = OutOfMemory()
    monkeypatch.setattr(processes, "_kills_in_group", counts(5 + group))
    monkeypatch.setattr(processes, "_kills_on_machine", counts(7 + machine))
    assert memory.look() == told
    assert memory.look() == "", "each kill is told once"


def test_the_counts_of_control_groups_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert processes._count_in(events) == 2
    assert processes._count_in(tmp_path / "none") == 0


def test_an_engine_of_another_machine_is_not_taken_for_a_local_one() -> None:
    engines = LocalEngines(1, {}, command=COMMAND)
    place = next(iter(engines._places))
    engines._places.has_started(place, os.getpid())
    for host, own in (("192.0.2.1", False), ("127.0.0.1", True)):
        engine = EngineConnector(0, "a")
        engine.host, engine.pid = host, os.getpid()
        engines.meet(engine)
        assert (place.engine is engine) is own


async def test_an_engine_is_known_by_the_process_that_has_started_it() -> None:
    """A nanny or a shell may have started the engine. An engine that user code has started is no local engine."""
    engines = LocalEngines(1, {}, command=COMMAND)
    (place,) = engines._places
    engines._places.has_started(place, os.getpid())
    first, second = [await trio.lowlevel.open_process(["sleep", "1000"]) for _ in range(2)]

    def met(process: trio.Process, uuid: str, state: EngineState = EngineState.ALIVE) -> bool:
        engine = EngineConnector(0, uuid)
        engine.host, engine.pid, engine.state = "127.0.0.1", process.pid, state
        engines.meet(engine)
        return place.engine is engine

    try:
        assert met(first, "a")
        assert not met(second, "b")
        assert met(first, "a", EngineState.LOST), "its heart was silent"
        assert met(first, "a"), "it is back"
        assert met(first, "a", EngineState.LOST)
        assert met(second, "b"), "the first is gone"
    finally:
        for process in (first, second):
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("command", "begins"),
    [
        ((), [sys.executable, "-P", "-m", "trio_hub", "engine"]),
        (("ipengine",), [sys.executable, "-m", "ipyparallel.engine"]),
    ],
)
def test_the_commands_of_both_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], begins: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [f"--profile-dir={tmp_path}", "--cluster-id=c"]
    assert engine_command(HubConfig(engine_command=command)) == begins
    assert engine_command(HubConfig(engine_command=command, profile_dir=tmp_path, cluster_id="c")) == begins + options
    monkeypatch.chdir(Path(enginecommand.__file__).parents[2])
    assert ("-P" in engine_command(HubConfig(engine_command=command))) is False, "the package may be found only here"


def test_a_stock_engine_may_be_installed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enginecommand, "find_spec", lambda name: None)
    assert engine_command(HubConfig(engine_command=("ipengine",), cluster_id="c")) == ["ipengine", "--cluster-id=c"]
    assert engine_command(HubConfig(engine_command=("mpirun", "ipengine"))) == ["mpirun", "ipengine"]


def test_settings_of_ipengine_that_are_not_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = HubConfig(profile_dir=tmp_path, engines=1)
    file = tmp_path / "ipengine_config.py"
    file.write_text("c = get_config()  # noqa\n# c.IPEngine.work_dir = '/'\n")
    warn_of_config_files(config)
    assert caplog.text == ""
    file.write_text("c.IPEngine.work_dir = '/'\n")
    warn_of_config_files(HubConfig(profile_dir=tmp_path, engines=1, engine_command=("ipengine",)))
    warn_of_config_files(HubConfig(profile_dir=tmp_path))
    assert caplog.text == ""
    warn_of_config_files(config)
    assert "local engines do not read the config file of ipengine" in caplog.text
