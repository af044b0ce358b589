"""Round after round, the hub, engines of ours, or both are killed at some moment of their work."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import trio

from trio_hub import Client, RemoteError, RequestLostError, connect

from ..engine.support import EngineProcess, is_there, open_engine_process, until
from .figures import FIGURES
from .processes import HubProcess, hub_process

pytestmark = pytest.mark.crash

ENGINES = 3
TASKS = 60
CALLS = 2
"""Direct calls to each engine in each round."""
ROUND_LIMIT = 90.0
"""The time limit of one round, in seconds. A round usually takes a small part of it."""
KILLS = ("hub", "engine", "nanny", "engine and nanny", "hub and engine", "hub and all engines")
"""What is killed in a round. The processes are killed within a millisecond."""
OPTIONS = (
    *("--hwm", "2", "--max-heartmonitor-misses", "14"),  # an engine whose death nobody reports is lost after 4 s
    *("--registration-timeout", "8", "--stranded-grace", "0.2"),
)
CAUSES = re.compile(
    r"killed by signal 9 \(SIGKILL\)|its nanny was killed|its heart was silent for|its result was lost"
    r"|its heart was not heard after the restart of the hub"
)
"""What the error of a call says has happened."""


def works(number: int, file: str) -> int:
    """Note that the call runs, and return the square of a number after a moment."""
    import os
    import time

    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b"%d\n" % number)
    os.close(descriptor)
    print(number)
    time.sleep(0.01)
    return number * number


class Place:
    """A place for an engine: whenever the engine in it has ended, another one is started."""

    def __init__(self) -> None:
        self.engine: EngineProcess | None = None
        self.child = 0

    async def keep(self, directory: Path, profile: Path, children: list[int]) -> None:
        options = (f"--profile-dir={profile}", "--timeout=30", "--IPEngine.wait_for_url_file=60")
        while True:
            async with open_engine_process(directory, *options) as engine:
                self.child = await engine.child()
                children.append(self.child)
                self.engine = engine
                await engine.process.wait()
                self.engine = None

    def kill(self, *, engine: bool = True, nanny: bool = False) -> None:
        assert self.engine is not None
        if nanny:
            self.engine.process.kill()
        if engine:
            os.kill(self.child, signal.SIGKILL)


class Rounds:
    """Plays rounds, and counts what has happened."""

    def __init__(self, hub: HubProcess, client: Client, places: list[Place], rng: Random, runs: Path) -> None:
        self.hub = hub
        self.client = client
        self.places = places
        self.rng = rng
        self.runs = runs
        self.killed: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        self.values = self.lost = self.run_twice = self.played = 0

    @property
    def figures(self) -> str:
        def told(counter: Counter[str]) -> str:
            return ", ".join(f"{what} {count}" for what, count in sorted(counter.items()))

        return (
            f"{self.played} rounds, killed: {told(self.killed)}; {self.values} values, {self.run_twice} run twice, "
            f"{self.lost} requests that were on no disk; errors: {told(self.causes) or 'none'}"
        )

    async def play(self, what: str) -> None:
        self.outcomes: dict[int, int | RemoteError | RequestLostError] = {}
        self.runs.unlink(missing_ok=True)
        asked = range(TASKS + CALLS * ENGINES)
        count = self.rng.randrange(1, TASKS)
        self.story = f"round {self.played}: {what} killed after {count} answers"
        print(self.story)
        targets = sorted(self.client.engines)
        async with trio.open_nursery() as nursery:
            for number in asked:
                target = None if number < TASKS else targets[number % ENGINES]
                nursery.start_soon(self.ask, number, target)
            await until(lambda: len(self.outcomes) >= count, "answers")
            await self.kill(what)
        self.check()
        await until(lambda: len(self.client.engines) == ENGINES and self.all_there(), "the engines")
        self.played += 1

    def all_there(self) -> bool:
        return all(place.engine is not None for place in self.places)

    async def ask(self, number: int, target: int | None) -> None:
        try:
            self.outcomes[number] = await self.client.apply(works, number, str(self.runs), targets=target)
        except (RemoteError, RequestLostError) as error:
            self.outcomes[number] = error

    async def kill(self, what: str) -> None:
        self.killed[what] += 1
        some = self.rng.sample(self.places, self.rng.randint(1, 2))
        if "hub" in what:
            self.hub.kill()
        for place in self.places if "all" in what else some:
            if "engine" in what or "nanny" in what:
                place.kill(engine="engine" in what, nanny="nanny" in what or self.rng.random() < 0.5)
        if "hub" in what:
            await self.hub.gone()
            await self.hub.start()
            await self.hub.ready()

    def check(self) -> None:
        """Check that each call has its value, or an error that says what has happened."""
        runs = Counter(map(int, self.runs.read_text().split()))
        for number, outcome in self.outcomes.items():
            is_task = number < TASKS
            if isinstance(outcome, int):
                assert outcome == number * number
                assert runs[number] >= 1
                self.values += 1
            elif isinstance(outcome, RemoteError):
                cause = CAUSES.search(outcome.evalue)
                assert outcome.ename == "EngineError", outcome
                assert cause, outcome
                self.causes[cause[0]] += 1
            else:
                assert not is_task, outcome
                self.lost += 1
            assert is_task or runs[number] <= 1, "a direct call is not run again"
        self.run_twice += sum(count > 1 for count in runs.values())


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
async def test_each_call_has_its_value_or_an_error_that_says_why(durability: str, tmp_path: Path, rounds: int) -> None:
    seed = int(os.environ.get("CRASH_SEED") or time.time_ns() % 1_000_000)
    print(f"CRASH_SEED={seed}")
    rng = Random(seed)
    places = [Place() for _ in range(ENGINES)]
    children: list[int] = []
    began = trio.current_time()
    with trio.fail_after(ROUND_LIMIT) as limit:
        async with (
            hub_process(tmp_path / "profile", *OPTIONS, "--durability", durability) as hub,
            connect(connection_info=hub.client_info) as client,
            trio.open_nursery() as nursery,
        ):
            for place in places:
                nursery.start_soon(place.keep, tmp_path, hub.profile, children)
            await until(lambda: len(client.engines) == ENGINES, "the engines")
            all_rounds = Rounds(hub, client, places, rng, tmp_path / "runs")
            kinds: list[str] = []
            for _ in range(max(rounds, len(KILLS))):
                kinds = kinds or rng.sample(KILLS, len(KILLS))
                limit.deadline = trio.current_time() + ROUND_LIMIT
                await all_rounds.play(kinds.pop())
            nursery.cancel_scope.cancel()
        await until(lambda: not any(map(is_there, children)), "the end of all engines")
    assert "Traceback" not in hub.log
    FIGURES.append(f"our engines, {durability}: {all_rounds.figures}, {trio.current_time() - began:.0f} s, seed {seed}")
