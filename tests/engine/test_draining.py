"""Engines that drain by themselves: the rules with a clock of the test, and real engines that get signals."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_hub import Client, HubConfig, RemoteError, connect
from trio_hub.engine import draining as draining_module
from trio_hub.engine.draining import LONGEST_REST, SAME_SIGNAL, Draining, Signals
from trio_hub.engine.options import EngineOptions, parse_options
from trio_hub.testing import open_hub

from .support import LIMIT, EngineProcess, cluster, open_engine_process, until


class World:
    """An engine's drain, with what it needs. It is also the engine's jobs, and its registrar."""

    def __init__(self, **options: float) -> None:
        self.options = EngineOptions()
        for name, value in options.items():
            setattr(self.options, name, value)
        self.hub_is_there = self.hub_drains = True
        self.running: object | None = object()
        self.pending = 1
        self.is_drained = False
        self.refuses = False
        self.asked: list[dict[str, Any]] = []
        self.was_asked = trio.Event()
        self.stopped: list[str] = []
        self.stopped_work = 0
        self.ended = math.inf
        self.draining = Draining(
            self.options,
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            hub_is_there=lambda: self.hub_is_there,
            hub_drains=lambda: self.hub_drains,
            stop=self.stop,
            stop_work=self.stop_work,
        )

    @property
    def is_idle(self) -> bool:
        return self.running is None

    async def drain(self, content: dict[str, Any]) -> dict[str, Any] | None:
        self.asked.append(content)
        self.was_asked.set()
        await trio.lowlevel.checkpoint()
        if self.refuses:
            return {"status": "error"}
        self.is_drained = self.is_drained or content.get("drain") is not False
        return {"status": "ok", "draining": self.is_drained, "pending": self.pending}

    @property
    def told(self) -> list[dict[str, Any]]:
        return [content for content in self.asked if content.get("drain") is not False]

    def stop(self, reason: str) -> None:
        self.stopped.append(reason)
        self.ended = min(self.ended, trio.current_time())

    def stop_work(self) -> None:
        self.stopped_work += 1

    def finish(self) -> None:
        self.running = None


@asynccontextmanager
async def drained(world: World) -> AsyncGenerator[trio.Nursery, None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.draining.run)
        yield nursery
        nursery.cancel_scope.cancel()


def later(nursery: trio.Nursery, seconds: float, call: Callable[[], object]) -> None:
    async def wait() -> None:
        await trio.sleep(seconds)
        call()

    nursery.start_soon(wait)


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=0.2)


async def test_a_drain_ends_when_the_hub_says_that_nothing_is_under_way(autojump_clock: MockClock) -> None:
    world = World()
    async with drained(world) as nursery:
        began = trio.current_time()
        world.draining.begin("reason")
        later(nursery, 100, world.finish)
        later(nursery, 110, lambda: setattr(world, "pending", 0))
        await trio.sleep(90)
        assert world.told == world.asked == [{"by": "the engine itself: reason"}]
        await trio.sleep(15)
        assert not world.stopped
        await trio.sleep(15)
        assert world.stopped == ["reason"]
        assert world.ended - began == about(110)
        assert not world.stopped_work


@pytest.mark.parametrize(("grace", "rest"), [(4.0, 1.0), (600.0, LONGEST_REST)])
async def test_what_does_not_end_within_the_grace_is_stopped(
    autojump_clock: MockClock, grace: float, rest: float
) -> None:
    world = World(kill_grace=grace)
    async with drained(world):
        began = trio.current_time()
        world.draining.within_grace("reason")
        await trio.sleep(grace)
        [told] = world.told
        assert told["seconds_left"] == about(grace - 2 * rest)
        assert world.ended - began == about(grace - rest)
        assert world.stopped_work == 1


async def test_a_signal_in_a_drain_without_a_limit_sets_one(autojump_clock: MockClock) -> None:
    world = World(kill_grace=4.0)
    async with drained(world):
        world.draining.begin("first")
        await trio.sleep(50)
        world.draining.within_grace("second")
        await trio.sleep(4)
        assert world.stopped == ["second"]
        assert ["seconds_left" in told for told in world.told] == [False, True]


async def test_without_a_hub_a_drain_within_the_grace_ends_at_once(autojump_clock: MockClock) -> None:
    world = World()
    async with drained(world):
        world.hub_is_there = False
        world.draining.within_grace("reason")
        assert (world.stopped, world.stopped_work) == (["reason"], 1)
    world = World(kill_grace=600)
    async with drained(world):
        world.draining.within_grace("reason")
        await trio.sleep(1)
        assert not world.stopped
        world.hub_is_there = False
        await trio.sleep(1)
        assert world.stopped_work == 1


async def test_without_a_hub_a_drain_without_a_limit_waits_for_it(autojump_clock: MockClock) -> None:
    world = World()
    world.hub_is_there, world.running, world.pending = False, None, 0
    async with drained(world):
        world.draining.begin("reason")
        await trio.sleep(50)
        assert not world.asked
        assert not world.stopped
        world.hub_is_there = True
        await trio.sleep(1)
        assert world.stopped == ["reason"]


async def test_a_hub_that_is_back_is_told_again(autojump_clock: MockClock) -> None:
    world = World()
    async with drained(world):
        world.draining.begin("reason")
        world.refuses = True  # it does not know the engine yet
        await trio.sleep(1)
        world.refuses = False
        await trio.sleep(3)
        number = len(world.told)
        assert number > 1
        world.draining.tell_again()
        await trio.sleep(1)
        assert len(world.told) == number + 1


async def test_at_a_hub_without_drains_what_runs_is_finished(autojump_clock: MockClock) -> None:
    world = World()
    world.hub_drains = False
    async with drained(world):
        world.draining.begin("reason")
        await trio.sleep(10)
        assert not world.stopped
        world.running = object()
        await trio.sleep(1)
        assert world.stopped == ["reason"]
        assert not world.asked


async def test_somebody_ends_the_drain(autojump_clock: MockClock) -> None:
    world = World()
    async with drained(world):
        world.draining.begin("reason", 100)
        await trio.sleep(1)
        world.is_drained, world.running = False, None
        await trio.sleep(1000)
        assert not world.stopped
        world.pending = 0
        world.draining.begin("again")
        await trio.sleep(1)
        assert world.stopped == ["again"]
        assert world.told[-1] == {"by": "the engine itself: again"}


async def test_nobody_ends_a_drain_within_the_grace(autojump_clock: MockClock) -> None:
    world = World(kill_grace=600)
    async with drained(world):
        world.draining.within_grace("reason")
        await trio.sleep(1)
        world.is_drained, world.running = False, None
        await trio.sleep(1)
        assert len(world.told) == 2
        world.pending = 0
        await trio.sleep(1)
        assert world.stopped == ["reason"]


@pytest.mark.parametrize(
    ("left", "drain_before", "begins", "deadline"),
    [(3600.0, 60.0, 3540.0, 45.0), (100.0, 60.0, 90.0, 7.5), (0.0, 60.0, 0.0, 0.0), (3600.0, 0.0, None, 0.0)],
)
async def test_an_engine_drains_before_its_job_ends(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    left: float,
    drain_before: float,
    begins: float | None,
    deadline: float,
) -> None:
    monkeypatch.setattr(draining_module, "seconds_left", lambda now: left)
    world = World(drain_before=drain_before)
    async with drained(world) as nursery:
        began = trio.current_time()
        nursery.start_soon(world.draining.watch_job)
        if begins is None:
            await trio.sleep(10000)
            assert not world.told
            return
        await world.was_asked.wait()
        assert trio.current_time() - began == about(begins)
        assert world.told[0]["seconds_left"] == about(deadline)
        assert world.told[0]["by"] == "the engine itself: its Slurm job ends soon"
        assert world.told[0]["final"] is True


def test_only_a_later_sigterm_is_a_second_one() -> None:
    signals = Signals()
    assert not signals.ends_at_once(100)
    assert not signals.ends_at_once(100 + SAME_SIGNAL)
    assert signals.ends_at_once(100.1 + SAME_SIGNAL)
    signals = Signals()
    signals.at_once = True
    assert signals.ends_at_once(100)


def test_an_option_says_when_an_engine_drains() -> None:
    assert parse_options([]).drain_before == 60
    assert parse_options(["--drain-before=0"]).drain_before == 0


# Real engines


def works(directory: str, seconds: float) -> int:
    """Say that this has begun, and work until there is the file "gate", or the time is over. Return the process id."""
    import os
    import time

    open(f"{directory}/begun-{os.getpid()}", "w").close()
    until = time.monotonic() + seconds
    while time.monotonic() < until and not os.path.exists(f"{directory}/gate"):
        time.sleep(0.01)
    return os.getpid()


def begun(directory: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in directory.glob("begun-*")]


class Pair:
    """A hub with two engines."""

    def __init__(self, client: Client, engines: list[EngineProcess], pids: list[int]) -> None:
        self.client = client
        self.engines = engines
        self.pids = pids

    def of(self, pid: int) -> EngineProcess:
        return self.engines[self.pids.index(pid)]


@asynccontextmanager
async def pair(
    directory: Path, *options: str, program: Sequence[str] = ("-m", "trio_hub", "engine")
) -> AsyncGenerator[Pair, None]:
    with trio.fail_after(LIMIT):
        async with (
            open_hub(HubConfig()) as hub,
            open_engine_process(directory, *options, info=hub.engine_info, program=program) as first,
            open_engine_process(directory, *options, info=hub.engine_info, program=program) as second,
            connect(connection_info=hub.client_info) as client,
        ):
            await hub.wait_engines(2)
            yield Pair(client, [first, second], [await first.child(), await second.child()])


@pytest.mark.interop
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
async def test_a_signal_drains_an_engine(tmp_path: Path, number: signal.Signals) -> None:
    """What runs is finished, what comes later goes elsewhere, and the engine ends by itself."""
    async with pair(tmp_path, "--kill-grace=60") as engines, trio.open_nursery() as nursery:
        answers: list[int] = []

        async def call() -> None:
            answers.append(await engines.client.apply(works, str(tmp_path), LIMIT))

        nursery.start_soon(call)
        await until(lambda: begun(tmp_path), "the task has begun")
        [pid] = begun(tmp_path)
        engine = engines.of(pid)
        engine.process.send_signal(number)
        os.kill(pid, number)  # Slurm sends it to both processes
        await until(lambda: "draining" in engine.log, "the drain")
        others = {await engines.client.apply(os.getpid) for _ in range(5)}
        assert others == set(engines.pids) - {pid}
        (tmp_path / "gate").touch()
        assert await engine.wait() == 0
        await until(lambda: answers, "the result")
        assert answers == [pid]


@pytest.mark.interop
async def test_a_task_that_outlasts_the_grace_runs_elsewhere(tmp_path: Path) -> None:
    async with pair(tmp_path, "--kill-grace=16") as engines, trio.open_nursery() as nursery:
        answers: list[int] = []

        async def call() -> None:
            answers.append(await engines.client.apply(works, str(tmp_path), LIMIT, max_attempts=1))

        nursery.start_soon(call)
        await until(lambda: begun(tmp_path), "the task has begun")
        [pid] = begun(tmp_path)
        engines.of(pid).process.terminate()
        await until(lambda: len(begun(tmp_path)) == 2, "the task has begun elsewhere")
        (tmp_path / "gate").touch()
        await until(lambda: answers, "the result")
        assert {*answers, pid} == set(engines.pids)


@pytest.mark.interop
async def test_a_second_sigterm_ends_an_engine_at_once(tmp_path: Path) -> None:
    change = "import sys, trio_hub.engine.draining as d, trio_hub.engine.nanny as n\nd.SAME_SIGNAL = 0"
    program = ["-c", f"{change}\nn.main(sys.argv[1:])"]
    options = ("--kill-grace=600",)
    async with pair(tmp_path, *options, program=program) as engines, trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(RemoteError, match="received signal 15"):
                await engines.client.apply(works, str(tmp_path), LIMIT, targets=0)

        nursery.start_soon(call)
        await until(lambda: begun(tmp_path), "the call has begun")
        engine = engines.of(*begun(tmp_path))
        engine.process.terminate()
        await until(lambda: "draining" in engine.log, "the drain")
        engine.process.terminate()
        assert await engine.wait() == 0


def ends_children() -> list[int]:
    """Fork processes, and end them by signals. Return how they have ended, as `os.waitpid` does."""
    import os
    import signal
    import time

    found = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, b"x")  # a signal that comes while Python forks is lost
            time.sleep(30)
            os._exit(7)
        os.read(read, 1)
        os.kill(child, number)
        found.append(os.waitpid(child, 0)[1])
    return found


@pytest.mark.interop
async def test_signals_end_processes_that_user_code_has_forked(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client, engine):
        assert await client.apply(ends_children) == [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]
        assert "draining" not in engine.log


@pytest.mark.interop
async def test_an_idle_engine_ends_before_its_job(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with open_hub(HubConfig()) as hub:
            environ = {"SLURM_JOB_END_TIME": str(int(time.time()) + 5)}
            async with open_engine_process(tmp_path, info=hub.engine_info, environ=environ) as engine:
                assert await engine.wait() == 0
                assert "its Slurm job ends soon" in engine.log
            await until(lambda: not hub.engines, "the loss of the engine")
