"""How local engines are ended: asked first, then by signals, all at once, and in bounded time."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_hub import HubConfig
from trio_hub.runtime.ending import ASKED_FOR, Endings
from trio_hub.runtime.processes import ancestors, is_descendant, start_time
from trio_hub.testing import open_hub

from .support import eventually, within_limit

ENGINE = (sys.executable, "-m", "tests.runtime.local_engine")
DEAF = ("sh", "-c", "trap '' TERM; exec \"$@\"", "sh", *ENGINE)
"""A local engine that ignores SIGTERM, and ends when it is asked to."""


class Process:
    """A process that ends when it gets one of the requests or signals in ``heeds``."""

    def __init__(self, *heeds: str) -> None:
        self.heeds = heeds
        self.got: list[tuple[str, float]] = []
        self.has_ended = trio.Event()
        self.began = trio.current_time()

    def get(self, what: str) -> bool:
        self.got.append((what, trio.current_time() - self.began))
        if what in self.heeds:
            self.has_ended.set()
        return True

    async def ended(self) -> None:
        await self.has_ended.wait()

    async def end(self, endings: Endings) -> None:
        await endings.end(1, lambda number: self.get(number.name), self.ended, ask=partial(self.get, "asked"))


@pytest.mark.parametrize(
    ("grace", "heeds", "got"),
    [
        (5.0, "asked", [("asked", 0)]),
        (5.0, "SIGTERM", [("asked", 0), ("SIGTERM", ASKED_FOR)]),
        (5.0, "SIGKILL", [("asked", 0), ("SIGTERM", ASKED_FOR), ("SIGKILL", 5.0)]),
        (0.5, "SIGKILL", [("asked", 0), ("SIGTERM", 0.25), ("SIGKILL", 0.5)]),
        (0.0, "SIGKILL", [("SIGTERM", 0), ("SIGKILL", 0)]),
    ],
)
async def test_a_process_is_asked_before_it_gets_signals(
    autojump_clock: trio.testing.MockClock, grace: float, heeds: str, got: list[tuple[str, float]]
) -> None:
    process = Process(heeds)
    await process.end(Endings(grace))
    assert [what for what, _ in process.got] == [what for what, _ in got]
    assert [when for _, when in process.got] == pytest.approx([when for _, when in got])


async def test_an_engine_that_cannot_be_asked_gets_sigterm_at_once(autojump_clock: trio.testing.MockClock) -> None:
    process = Process("SIGTERM")
    await Endings(5.0).end(1, lambda number: process.get(number.name), process.ended)
    assert process.got == [("SIGTERM", 0)]


async def test_all_processes_have_the_same_time(autojump_clock: trio.testing.MockClock) -> None:
    endings, began = Endings(5.0), trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(Process("SIGKILL").end, endings)
    assert trio.current_time() - began == pytest.approx(5.0)


@pytest.mark.parametrize("after", [0.5, 2.0])
async def test_a_hurry_leaves_out_what_is_left_of_the_grace(
    autojump_clock: trio.testing.MockClock, after: float
) -> None:
    endings, process = Endings(3600.0), Process("SIGKILL")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.end, endings)
        await trio.sleep(after)
        endings.hurry()
    assert [what for what, _ in process.got] == ["asked", "SIGTERM", "SIGKILL"]
    assert process.got[-1][1] == pytest.approx(after)


NANNY = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
engine = os.fork()
if engine == 0:
    signal.pause()
print(engine, flush=True)
assert os.waitstatus_to_exitcode(os.waitpid(engine, 0)[1]) == -signal.SIGKILL
os._exit(5)
"""


async def test_a_nanny_is_left_to_see_its_engine_die() -> None:
    async with within_limit():
        process = await trio.lowlevel.open_process([sys.executable, "-c", NANNY], stdout=-1)
        assert process.stdout is not None
        engine = int(await process.stdout.receive_some())
        assert ancestors(engine)[0] == process.pid
        assert is_descendant(engine, of=process.pid)
        assert not is_descendant(process.pid, of=engine)

        async def ended() -> None:
            await process.wait()

        await Endings(0.0).end(process.pid, process.send_signal, ended, engine_pid=engine)
        assert process.returncode == 5, "it has not been killed itself"
        assert start_time(engine) is None
        await process.stdout.aclose()


async def test_a_hub_that_stops_asks_its_engines(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, db="memory", engines=2, engine_command=DEAF, stop_grace=3600)
    async with within_limit(), open_hub(config) as hub:
        await hub.wait_engines(2)
        pids = [engine.pid for engine in hub.core.engines.alive.values()]
        hub.shutdown()
        await hub.wait_stopped()
        assert [start_time(pid or 0) for pid in pids] == [None, None]


async def test_engines_of_a_hub_that_is_cancelled_end_as_well() -> None:
    pids: list[int | None] = []
    async with within_limit():
        with trio.CancelScope() as scope:
            async with open_hub(HubConfig(engines=2, engine_command=ENGINE, stop_grace=3600)) as hub:
                await hub.wait_engines(2)
                pids += [engine.pid for engine in hub.core.engines.alive.values()]
                scope.cancel()
                await trio.sleep_forever()
        await eventually(lambda: [start_time(pid or 0) for pid in pids] == [None, None])
