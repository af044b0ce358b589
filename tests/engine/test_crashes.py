"""User code that does what it should not: the client always gets an answer that says what happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import RemoteError, connect
from trio_hub.records.output import MAX_OUTPUT, NOT_RECORDED
from trio_hub.testing import open_client

from ..crash.processes import hub_process
from .support import LIMIT, cluster, is_there, open_engine_process, until
from .test_nanny import dies
from .test_process import busy, output_of, pss

pytestmark = pytest.mark.crash


def segfaults() -> None:
    import ctypes

    ctypes.string_at(0)


def eats_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


def closes_descriptors() -> None:
    import os
    import time

    os.closerange(0, 4096)
    time.sleep(60)


def closes_descriptors_and_returns() -> None:
    import os

    os.closerange(3, 4096)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (segfaults, "killed by signal 11"),
        (closes_descriptors, "exit code"),
        (closes_descriptors_and_returns, "died while running"),
        (lambda: os._exit(5), "exit code 5"),
    ],
)
async def test_code_that_ends_the_engine(tmp_path: Path, function: Callable[[], Any], says: str) -> None:
    async with cluster(tmp_path) as (_, client, engine):
        assert says in await dies(client, function)
        await engine.wait()


@pytest.fixture
def small_group() -> Iterator[Path]:
    """Give a control group whose processes have 400 MB of memory together, if the system allows to make one."""
    controllers = Path("/proc/self/cgroup").read_text().splitlines()
    paths = {names: path for _, names, path in (line.split(":", 2) for line in controllers)}
    old = "memory" in paths  # each controller has a tree of its own
    root = Path("/sys/fs/cgroup/memory" if old else "/sys/fs/cgroup")
    group = root / paths["memory" if old else ""].lstrip("/") / f"trio-hub-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group: {error}")
    try:
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text("400000000")
        yield group
    except OSError as error:
        pytest.skip(f"cannot limit the memory of a control group: {error}")
    finally:
        group.rmdir()


async def test_memory_that_the_system_does_not_have(tmp_path: Path, small_group: Path) -> None:
    """The system kills the engine; the nanny, which is in another group, tells the hub."""

    def eats_real_memory() -> None:
        kept = []
        while True:
            kept.append(b"x" * (16 << 20))

    async with cluster(tmp_path) as (_, client, engine):
        (small_group / "cgroup.procs").write_text(str(await engine.child()))
        assert "killed by signal 9 (SIGKILL)" in await dies(client, eats_real_memory)
        await engine.wait()


async def test_memory_that_is_not_there_is_an_error_like_others(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client, _):
        with pytest.raises(RemoteError) as caught:
            await client.apply(eats_memory)
        assert caught.value.ename in ("MemoryError", "EngineError")


def forks_and_comes_back() -> int:
    """Fork; the child returns from the call, as the parent does."""
    import os

    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    else:
        print("from the child", flush=True)
    return 1


def pools() -> list[int]:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, range(-3, 0))


async def test_code_that_forks(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (hub, client, engine), open_client(hub.client_info) as raw:
        assert (await output_of(raw, forks_and_comes_back))["stdout"] == "from the child\n"
        assert await client.apply(pools) == [3, 2, 1]
        assert await client.apply(os.getpid) == await engine.child(), "there is one engine"


def forks_and_terminates_at_once() -> set[int]:
    import os
    import signal
    import time

    ends = set()
    for _ in range(100):
        pid = os.fork()
        if not pid:
            time.sleep(600)
        os.kill(pid, signal.SIGTERM)
        ends.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return ends


async def test_a_signal_that_comes_while_python_forks_is_not_lost(tmp_path: Path) -> None:
    """The end of a pool of processes waits for the end of each of them."""
    async with cluster(tmp_path) as (_, client, _):
        assert await client.apply(forks_and_terminates_at_once) == {-signal.SIGTERM}


def replaces_handlers() -> None:
    import signal

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


async def test_code_that_replaces_signal_handlers(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--kill-grace=0.5") as (_, client, engine):
        await client.apply(replaces_handlers)
        os.kill(await engine.child(), signal.SIGINT)
        assert await client.apply(abs, -1) == 1
        engine.process.terminate()
        assert await engine.wait() in (0, -signal.SIGKILL)


def starts_a_daemon() -> int:
    """Start a process that is in a session of its own, and whose parent has ended. Return its process id."""
    import os
    import time

    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
        os.write(writing, b"%d" % pid)
        os._exit(0)
    os.wait()
    return int(os.read(reading, 100))


@pytest.mark.parametrize("nanny_dies", [False, True])
async def test_daemons_that_code_starts_do_not_hide_the_death_of_the_engine(tmp_path: Path, nanny_dies: bool) -> None:
    """A daemon that was forked has copies of the engine's sockets, so the engine's connections stay open."""
    started = tmp_path / "started"
    misses = 20 if nanny_dies else 600  # the nanny, which first loads ZeroMQ, has time to say what has happened
    async with cluster(tmp_path, ping=0.1, max_heartmonitor_misses=misses) as (_, client, engine):
        daemon = await client.apply(starts_a_daemon)
        assert await client.apply(abs, -1) == 1
        child = await engine.child()

        async def call() -> None:
            said = await dies(client, busy, str(started))
            assert ("its heart was silent" if nanny_dies else "killed by signal 9") in said
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await until(started.exists, "the call")
            if nanny_dies:
                os.kill(child, signal.SIGSTOP)  # otherwise it might notice, and say, that its nanny was killed
                engine.process.kill()
            os.kill(child, signal.SIGKILL)
            await trio.sleep_forever()
        await engine.process.wait()
        if nanny_dies:  # nobody is left who ends it
            os.kill(daemon, signal.SIGKILL)
        await until(lambda: not is_there(daemon), "the daemon's end")


def starts_threads() -> int:
    import threading

    for daemon in (True, False):
        threading.Thread(target=threading.Event().wait, daemon=daemon).start()
    return threading.active_count()


async def test_threads_that_never_end_do_not_keep_the_engine(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client, engine):
        assert await client.apply(starts_threads) > 2
        assert await client.apply(abs, -1) == 1
        engine.process.terminate()
        assert await engine.wait() == 0


def holds_the_lock(seconds: int) -> int:
    """Keep every other thread of Python from running."""
    import ctypes

    return int(ctypes.PyDLL(None).sleep(seconds))


async def test_a_heart_beats_while_user_code_holds_the_lock(tmp_path: Path, full_size: bool) -> None:
    """User code holds the lock for four times as long as this hub waits for a heart. By default, a hub waits 33 s."""
    seconds = 60 if full_size else 8
    hub_waits = {"ping": seconds / 80, "max_heartmonitor_misses": 19}
    async with cluster(tmp_path, limit=LIMIT + seconds, **hub_waits) as (hub, client, _):
        began = trio.current_time()
        assert await client.apply(holds_the_lock, seconds) == 0
        assert trio.current_time() - began >= seconds
        assert await client.apply(abs, -1) == 1
        assert not any(hub.statistics().engines_lost.values())


async def test_code_that_prints_much(tmp_path: Path, full_size: bool) -> None:
    """The call has its answer, the engine has bounded memory, and the record has the beginning of the output."""
    megabytes = 100 if full_size else 20
    async with cluster(tmp_path, limit=LIMIT + 3 * megabytes) as (_, client, engine):
        assert await client.apply(prints_megabytes, megabytes) == megabytes
        assert pss(await engine.child()) < 150_000
        while not (record := (await client.db_query({}, ["stdout"]))[0])["stdout"].endswith(NOT_RECORDED):
            await trio.lowlevel.checkpoint()
        assert len(record["stdout"]) == MAX_OUTPUT + len(NOT_RECORDED)


def prints_megabytes(megabytes: int) -> int:
    for _ in range(megabytes * 10_000):
        print("x" * 99)
    return megabytes


async def test_code_that_removes_its_directory(tmp_path: Path) -> None:
    """IPython is loaded after that."""
    gone = tmp_path / "gone"
    gone.mkdir()

    def removes(directory: str) -> None:
        import os

        os.chdir(directory)
        os.rmdir(directory)

    async with cluster(tmp_path) as (hub, client, _), open_client(hub.client_info) as raw:
        await client.apply(removes, str(gone))
        assert await client.apply(abs, -1) == 1
        with pytest.raises(RemoteError, match="FileNotFoundError"):
            await client.apply(os.getcwd)
        uuid = client.engines[0]
        asked = raw.send("mux", "execute_request", {"code": "x = 1", "silent": False}, to=uuid)
        assert (await raw.reply(asked)).content["status"] == "ok"
        with pytest.raises(RemoteError, match="FileNotFoundError"):
            await client.apply(os.getcwd)


async def test_code_that_changes_directory_and_closes_its_output(tmp_path: Path) -> None:
    def odd(directory: str) -> str:
        import os
        import sys

        os.chdir(directory)
        sys.stdout.close()
        sys.stderr = None
        os.close(1)
        return os.getcwd()

    async with cluster(tmp_path) as (_, client, engine):
        assert await client.apply(odd, str(tmp_path)) == str(tmp_path)
        assert await client.apply(abs, -1) == 1
        engine.process.terminate()
        assert await engine.wait() == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException])
async def test_errors_that_are_no_exceptions(tmp_path: Path, error: type[BaseException]) -> None:
    def fails() -> None:
        raise error("as the test says")

    async with cluster(tmp_path) as (_, client, _):
        with pytest.raises(RemoteError) as caught:
            await client.apply(fails)
        assert caught.value.ename == error.__name__
        assert await client.apply(abs, -1) == 1


async def test_results_and_errors_that_cannot_be_sent(tmp_path: Path) -> None:
    def unsendable() -> Any:
        return iter(lambda: 1, 2)

    def unspeakable() -> None:
        class Odd(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        raise Odd

    async with cluster(tmp_path) as (_, client, _):
        with pytest.raises(RemoteError, match="pickle"):
            await client.apply(unsendable)
        with pytest.raises(RemoteError, match="no words"):
            await client.apply(unspeakable)
        with pytest.raises(RemoteError):
            await client.apply(lambda: "\ud800".encode())
        assert await client.apply(abs, -1) == 1


def prints_for_ever(started: str) -> None:
    open(started, "w").close()
    while True:
        print("x" * 1000)


async def test_a_loop_that_prints_for_ever_does_not_fill_the_memory(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with cluster(tmp_path) as (_, client, engine):
        child = await engine.child()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.apply, prints_for_ever, str(started))
            await until(started.exists, "the call")  # before, it could not be interrupted
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
        assert pss(child) < 150_000
        os.kill(child, signal.SIGINT)
        assert await client.apply(abs, -1) == 1


async def test_hub_and_engine_are_killed_at_once(tmp_path: Path) -> None:
    """The next hub knows the request, waits for the engine, and answers that it has not come back."""
    profile, started = tmp_path / "profile", tmp_path / "started"
    options = ("--durability=strict", "--registration-timeout=1", "--stranded-grace=0")
    with trio.fail_after(LIMIT):
        async with (
            hub_process(profile, *options) as hub,
            open_engine_process(tmp_path, f"--profile-dir={profile}") as engine,
            connect(connection_info=hub.client_info) as client,
            trio.open_nursery() as nursery,
        ):
            await until(lambda: client.engines, "the engine")

            async def call() -> None:
                await dies(client, busy, str(started))
                nursery.cancel_scope.cancel()

            nursery.start_soon(call)
            await until(started.exists, "the call")
            child = await engine.child()
            hub.kill()
            engine.process.kill()
            os.kill(child, signal.SIGKILL)
            await hub.gone()
            await hub.start()
            await trio.sleep_forever()
