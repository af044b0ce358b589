"""Local engines: the hub starts engines of ours, and looks after them as it does after stock engines."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import Client, HubConfig, RemoteError, RunningHub, connect
from trio_hub.runtime import children
from trio_hub.runtime.processes import ancestors
from trio_hub.runtime.restore import read_engine_state
from trio_hub.testing import open_client, open_hub

from ..cli.process import command
from .support import LIMIT, children_of, is_there, until

pytestmark = pytest.mark.interop

OURS: tuple[str, ...] = ()
STOCK = ("ipengine",)
BOTH = pytest.mark.parametrize("engine", [OURS, STOCK], ids=["ours", "stock"])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.02)


@asynccontextmanager
async def local(
    directory: Path, engine: tuple[str, ...] = OURS, n: int = 1, **settings: Any
) -> AsyncGenerator[tuple[RunningHub, Client], None]:
    given: dict[str, Any] = {"db": "memory", "stranded_grace": 0, "profile_dir": directory / "profile"} | settings
    with trio.fail_after(LIMIT):
        async with open_hub(HubConfig(engines=n, engine_command=engine, **given)) as hub:
            await hub.wait_engines(n)
            async with connect(connection_info=hub.client_info) as client:
                yield hub, client


def pid_of(hub: RunningHub, engine_id: int) -> int:
    pid = hub.core.engines.alive[engine_id].pid
    assert pid is not None
    return pid


def killed(number: int) -> None:
    import os

    os.kill(os.getpid(), number)


def process_of(_: object = None) -> int:
    import os

    return os.getpid()


async def works(hub: RunningHub, client: Client, engine_id: int) -> None:
    """Wait until the engine with this id is there, alone; check that it works and that none is missing."""
    await until(lambda: list(hub.engines) == [engine_id], f"engine {engine_id}")
    assert await client.apply(process_of, targets=engine_id) == pid_of(hub, engine_id)
    assert hub.statistics().local_engines_missing == ()


@BOTH
async def test_an_engine_that_dies_is_started_again(tmp_path: Path, engine: tuple[str, ...]) -> None:
    async with local(tmp_path, engine) as (hub, client):
        for death, (function, argument, cause) in enumerate(
            [
                (killed, 9, r"killed by signal 9 \(SIGKILL\)"),
                (killed, 11, r"killed by signal 11 \(SIGSEGV\)"),
                (os._exit, 7, "exit (status|code) 7"),
                (os._exit, 0, "exit (status|code) 0"),
            ]
        ):
            await works(hub, client, death)
            with pytest.raises(RemoteError, match=rf"Engine {death} died while running task .*: .*{cause}"):
                await client.apply(function, argument, targets=death)
        await works(hub, client, 4)


@BOTH
async def test_only_an_engine_that_was_told_to_stop_stays_away(
    tmp_path: Path, engine: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with local(tmp_path, engine) as (hub, client), open_client(hub.client_info) as scripted:
        os.kill(pid_of(hub, 0), signal.SIGTERM)
        await works(hub, client, 1)
        said = "ended with exit status 0: it received signal 15" if engine == OURS else "ended with exit status 1"
        assert f'cause="{said}"' in caplog.text
        scripted.control(hub.engines[1], "shutdown_request", {"restart": True})
        await works(hub, client, 2)
        await client.shutdown(targets=[2])
        missing = ("local engine 0 (engine 2) was told to stop",)
        await until(lambda: hub.statistics().local_engines_missing == missing, "the end of the engine")
        await until(lambda: not hub.engines, "the loss of the engine")


async def test_a_nanny_that_is_killed_is_replaced_with_its_engine(tmp_path: Path) -> None:
    async with local(tmp_path) as (hub, client):
        await works(hub, client, 0)
        engine = pid_of(hub, 0)
        nanny = ancestors(engine)[0]
        assert children_of(nanny) == [engine]
        os.kill(nanny, signal.SIGKILL)
        await works(hub, client, 1)
        await until(lambda: not is_there(engine), "the end of the engine whose nanny was killed")


@BOTH
async def test_engines_of_a_killed_hub_belong_to_the_next(tmp_path: Path, engine: tuple[str, ...]) -> None:
    profile = tmp_path / "profile"
    state = profile / "log" / "engines.json"
    pids: list[int] = []
    options = ["--restore=true", "--engines=2", "--ping=0.5", f"--engine-command={' '.join(engine)}"]
    try:
        with command("serve", f"--profile-dir={profile}", *options) as killed_hub:
            killed_hub.wait_line("stdout", "^trio-hub ready: ")

            def saved() -> bool:
                found = read_engine_state(state) if state.exists() else None
                pids[:] = found.local if found is not None else ()
                return found is not None and len(found.engines) == 2 and all(one.uuid for one in found.local.values())

            await until(saved, "what the next hub has to know")
        async with local(tmp_path, engine, 2, ping=0.5, restore=True) as (hub, client):
            await until(lambda: not hub.core.hearts.awaits_hearts, "the hearts of both engines")
            assert sorted(hub.engines) == [0, 1]
            assert hub.statistics().local_engines_missing == ()
            engines = [pid_of(hub, 0), pid_of(hub, 1)]
            assert {ancestors(pid)[0] if engine == OURS else pid for pid in engines} == set(pids)
            says = r"killed by signal 9 \(SIGKILL\)" if engine == OURS else "its process has ended"
            with pytest.raises(RemoteError, match=f"Engine 0 died while running task .*: {says}$"):
                await client.apply(killed, 9, targets=0)
            await until(lambda: sorted(hub.engines) == [1, 2], "a new engine")
            hub.shutdown()
            await hub.wait_stopped()
        assert not any(map(is_there, pids + engines))
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def holds_the_lock(started: str) -> None:
    """Keep Python's lock for longer than any test lasts, in a library in C."""
    import pathlib
    import re

    pathlib.Path(started).touch()
    re.match(r"(a+)+$", "a" * 100 + "b")


async def test_a_hub_that_stops_leaves_no_engine_that_holds_the_lock(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with local(tmp_path, stop_grace=1) as (hub, client), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(RemoteError):
                await client.apply(holds_the_lock, str(started), targets=0)

        nursery.start_soon(call)
        await until(started.exists, "the call")
        engine = pid_of(hub, 0)
        nanny = ancestors(engine)[0]
        began = time.monotonic()
        hub.shutdown()
        await hub.wait_stopped()
        assert time.monotonic() - began < 50
        assert not is_there(engine)
        assert not is_there(nanny)


async def test_an_engine_needs_no_ipyparallel_and_nothing_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("path/sitecustomize.py", "import sys\nsys.modules['ipyparallel'] = sys.modules['IPython'] = None"),
        ("work/selectors.py", "raise SystemExit('this is no part of Python')"),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.chdir(tmp_path / "work")
    async with local(tmp_path) as (hub, client):
        await works(hub, client, 0)
