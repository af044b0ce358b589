"""The nanny: signals, the end of an engine, and what the hub and the clients hear of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import Client, RemoteError, connect
from trio_hub.engine.laststate import last_state, open_state, write_state
from trio_hub.testing import open_hub

from .support import LIMIT, cluster, is_there, open_engine_process, until
from .test_process import busy

pytestmark = pytest.mark.interop


async def dies(client: Client, function: Callable[..., Any], *args: Any) -> str:
    """Call a function that ends the engine. Return what the error of the call says."""
    with pytest.raises(RemoteError) as caught:
        await client.apply(function, *args, targets=0)
    assert caught.value.ename == "EngineError"
    return caught.value.evalue


def killed(number: int) -> None:
    import os

    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGABRT, "SIGABRT")]
)
async def test_the_client_hears_by_which_signal_the_engine_died(tmp_path: Path, number: int, name: str) -> None:
    async with cluster(tmp_path) as (hub, client, engine):
        assert f"killed by signal {number:d} ({name})" in await dies(client, killed, int(number))
        assert await engine.wait() == -number, "the nanny ends as the engine has"
        assert hub.statistics().engines == 0
        assert hub.statistics().engines_lost["died"] == 1, "the alert for dead engines counts this"


async def test_the_client_hears_with_which_status_it_has_ended(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client, engine):
        assert "exit code 7" in await dies(client, os._exit, 7)
        assert await engine.wait() == 7


async def test_whoever_kills_the_nanny_means_the_engine(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with cluster(tmp_path) as (hub, client, engine), trio.open_nursery() as nursery:
        child = await engine.child()

        async def call() -> None:
            assert "its nanny was killed" in await dies(client, busy, str(started))

        nursery.start_soon(call)
        await until(started.exists, "the call")
        engine.process.kill()
        await until(lambda: not is_there(child), "the engine's end")
        await until(lambda: hub.statistics().engines_lost["died"] == 1, "the count of dead engines")


def ignores_signals(started: str) -> None:
    import signal
    import time

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    open(started, "w").close()
    while True:
        time.sleep(60)


async def test_an_engine_that_does_not_end_is_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with cluster(tmp_path, "--kill-grace=1") as (_, client, engine), trio.open_nursery() as nursery:

        async def call() -> None:
            assert "killed by signal 9 (SIGKILL)" in await dies(client, ignores_signals, str(started))

        nursery.start_soon(call)
        await until(started.exists, "the call")
        engine.process.terminate()
        assert await engine.wait() == -signal.SIGKILL


async def test_sighup_stops_what_runs_and_says_goodbye(tmp_path: Path) -> None:
    started, cleaned = tmp_path / "started", tmp_path / "cleaned"

    def cleans(started: str, cleaned: str) -> None:
        import time

        try:
            open(started, "w").close()  # the signal may come as soon as the file is there
            time.sleep(60)
        finally:
            open(cleaned, "w").close()

    async with cluster(tmp_path) as (_, client, engine), trio.open_nursery() as nursery:

        async def call() -> None:
            assert "signal 1" in await dies(client, cleans, str(started), str(cleaned))

        nursery.start_soon(call)
        await until(started.exists, "the call")
        engine.process.send_signal(signal.SIGHUP)
        assert await engine.wait() == 0
        assert cleaned.exists()


async def test_a_stop_before_there_is_a_hub(tmp_path: Path) -> None:
    options = (f"--profile-dir={tmp_path}", "--IPEngine.wait_for_url_file=60", f"--kill-grace={LIMIT}")
    async with open_engine_process(tmp_path, *options) as engine:
        await until(lambda: "waits for the hub's connection file" in engine.log, "the wait")
        engine.process.terminate()
        assert await engine.wait() == 0


def leaves_processes() -> list[int]:
    """Start a process, and a daemon in a session of its own whose parent has ended."""
    import subprocess

    plain = subprocess.Popen(["sleep", "1000"])
    daemon = subprocess.run(
        ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"], capture_output=True, check=True
    )
    return [plain.pid, int(daemon.stdout)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_what_the_engine_leaves_behind_is_ended(tmp_path: Path, number: int) -> None:
    async with cluster(tmp_path) as (_, client, engine):
        left = await client.apply(leaves_processes)
        assert all(map(is_there, left))
        os.kill(await engine.child(), number)
        await engine.wait()
        await until(lambda: not any(map(is_there, left)), "the end of what the engine has left")


def ignores_sigterm() -> int:
    """Start a process that SIGTERM does not end. Return its process id."""
    import subprocess

    shell = subprocess.Popen(["sh", "-c", "trap '' TERM; echo ready; exec sleep 1000"], stdout=subprocess.PIPE)
    assert shell.stdout is not None
    assert shell.stdout.readline() == b"ready\n"
    return shell.pid


def nanny_with(change: str) -> list[str]:
    """Return the arguments of Python for an engine whose nanny has been changed by this statement."""
    return ["-c", f"import sys, trio_hub.engine.nanny as nanny\n{change}\nnanny.main(sys.argv[1:])"]


async def test_the_hub_hears_of_a_death_before_what_is_left_has_ended(tmp_path: Path) -> None:
    program = nanny_with("nanny.LEFT_BEHIND_GRACE = nanny.LEFT_BEHIND_WITHIN = 1000")
    async with open_hub() as hub, open_engine_process(tmp_path, info=hub.engine_info, program=program) as engine:
        await hub.wait_engines(1)
        async with connect(connection_info=hub.client_info) as client:
            left = await client.apply(ignores_sigterm)
            with trio.fail_after(LIMIT):
                assert "killed by signal 9" in await dies(client, killed, int(signal.SIGKILL))
            assert is_there(left)
            assert engine.process.poll() is None
            os.kill(left, signal.SIGKILL)
            assert await engine.wait() == -signal.SIGKILL


async def test_a_nanny_does_not_wait_for_a_process_that_cannot_be_ended(tmp_path: Path) -> None:
    program = nanny_with("nanny._kill = nanny._signal_group = lambda pid, signum: None")
    async with open_hub() as hub, open_engine_process(tmp_path, info=hub.engine_info, program=program) as engine:
        await hub.wait_engines(1)
        async with connect(connection_info=hub.client_info) as client:
            left = await client.apply(ignores_sigterm)
            try:
                await dies(client, killed, int(signal.SIGKILL))
                assert await engine.wait() == -signal.SIGKILL
                assert is_there(left)
            finally:
                os.kill(left, signal.SIGKILL)


def test_a_nanny_knows_the_last_state_of_an_engine_that_has_registered_often() -> None:
    descriptor = open_state()
    try:
        assert last_state(descriptor) is None
        for number in range(1000):
            write_state(descriptor, {"id": number, "url": "tcp://127.0.0.1:1" * (20 if number % 2 else 30)})
        state = last_state(descriptor)
        assert state is not None
        assert state["id"] == 999
        write_state(descriptor, None)
        assert last_state(descriptor) is None
    finally:
        os.close(descriptor)


def test_the_nanny_loads_nothing_heavy() -> None:
    program = "import sys, trio_hub.__main__, trio_hub.engine.nanny; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"trio", "zmq", "msgspec", "click", "logging", "dataclasses", "asyncio", "json"} & {*loaded}


async def test_without_a_nanny_there_is_one_process(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--IPEngine.enable_nanny=False") as (_, client, engine):
        assert await client.apply(os.getpid) == engine.nanny
        engine.process.terminate()
        assert await engine.wait() == 0
