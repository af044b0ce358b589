"""A batch system without processes, and hubs whose pools use it, on a virtual clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from trio_hub.config import Pool
from trio_hub.hub.events import Event
from trio_hub.launching.launcher import Job, JobReport, JobState, LaunchError
from trio_hub.pools.demand import Demand, Queued
from trio_hub.pools.settings import PoolSettings
from trio_hub.pools.supply import Engine
from trio_hub.runtime.pooling.files import PoolFiles
from trio_hub.runtime.pooling.pool import ElasticPool
from trio_hub.runtime.pooling.pools import Pools
from trio_hub.runtime.pooling.restoring import take_up_blocks
from trio_hub.runtime.pooling.steering import Steering
from trio_hub.runtime.pooling.tending import Tending

EPOCH = 1.8e9


def now() -> float:
    return EPOCH + trio.current_time()


@dataclass
class FakeJob:
    """A job of the batch system."""

    number: int
    block: str
    engines: int
    state: JobState = JobState.WAITING
    words: str = ""
    failed: bool | None = None
    began: float = 0.0
    brings: int = 0
    killed: bool = False

    @property
    def is_over(self) -> bool:
        return self.state is JobState.ENDED


@dataclass
class Batch:
    """A batch system, and the engines of its jobs. It outlives hubs.

    - ``slots``: the number of engines that can run at the same time;
    - ``startup``: the seconds from the start of a job to the registration of its engines;
    - ``delays``: the seconds before and after the moment at which the batch system accepts a job, during a submission;
    - ``refusal``: why jobs are refused; empty if they are not;
    - ``silence``: why the batch system does not answer questions; empty if it does;
    - ``stuck``: why jobs cannot be cancelled; empty if they can;
    - ``brings``: how many engines of a job come; None: all.
    """

    slots: int = 100
    startup: float = 1.0
    delays: tuple[float, float] = (0.1, 0.1)
    refusal: str = ""
    silence: str = ""
    stuck: str = ""
    brings: int | None = None
    ending: float = 0.0
    limit: int = 10**6
    jobs: list[FakeJob] = field(default_factory=list)
    engines: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    looks: int = 0
    cancels: list[str] = field(default_factory=list)
    nursery: trio.Nursery | None = None

    def alive(self) -> list[FakeJob]:
        return [job for job in self.jobs if not job.is_over]

    def of(self, block: str) -> FakeJob | None:
        return next((job for job in self.jobs if job.block == block), None)

    def accept(self, block: str, engines: int) -> FakeJob:
        if self.refusal:
            raise LaunchError(self.refusal)
        assert self.of(block) is None, "submitted twice"
        job = FakeJob(len(self.jobs) + 1, block, engines, words="Resources")
        self.jobs.append(job)
        assert sum(job.engines for job in self.alive()) <= self.limit, "more engines than the pool may have"
        self.schedule()
        return job

    def schedule(self) -> None:
        """Start jobs that wait, as far as there are slots."""
        for job in self.jobs:
            used = sum(one.engines for one in self.jobs if one.state is JobState.RUNNING)
            if job.state is JobState.WAITING and used + job.engines <= self.slots:
                job.state, job.words, job.began = JobState.RUNNING, "", trio.current_time()
                assert self.nursery is not None
                self.nursery.start_soon(self._bring, job)

    async def _bring(self, job: FakeJob) -> None:
        await trio.sleep(self.startup)
        if job.state is JobState.RUNNING:
            for number in range(job.engines if self.brings is None else self.brings):
                self.register(job.block, number)

    def register(self, block: str, number: int) -> None:
        ident = f"{block}:{number}".encode()
        self.engines[ident] = {"block": block, "idle_since": now(), "busy_until": 0.0, "retiring": False}

    def end(self, job: FakeJob, words: str = "", *, failed: bool | None = None) -> None:
        """End a job. Its engines are gone at once."""
        job.state, job.words, job.failed = JobState.ENDED, words, failed
        for ident in [ident for ident, engine in self.engines.items() if engine["block"] == job.block]:
            del self.engines[ident]
        self.schedule()


class FakeLauncher:
    """The launcher of a pool that uses the batch system. A submission goes on when its hub is killed.

    With ``is_killed``, the hub has been killed: nothing is asked of the batch system any more.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.is_killed = False

    async def _alive(self) -> None:
        if self.is_killed:
            await trio.sleep_forever()

    async def submit(self, block: str, engines: int) -> Job:
        await self._alive()
        done = trio.Event()
        result: list[FakeJob | LaunchError] = []
        assert self._batch.nursery is not None

        async def carry_out() -> None:
            await trio.sleep(self._batch.delays[0])
            try:
                result.append(self._batch.accept(block, engines))
            except LaunchError as error:
                result.append(error)
            done.set()

        self._batch.nursery.start_soon(carry_out)
        await done.wait()
        (answer,) = result
        if isinstance(answer, LaunchError):
            raise answer
        await trio.sleep(self._batch.delays[1])
        return {"job": answer.number}

    async def look(self, jobs: Mapping[str, Job]) -> Mapping[str, JobReport]:
        self._batch.looks += 1
        await trio.sleep(0.05)
        if self._batch.silence:
            return dict.fromkeys(jobs, JobReport(JobState.UNKNOWN, self._batch.silence))
        reports = {}
        for block in jobs:
            job = self._batch.of(block)
            reports[block] = JobReport(JobState.ENDED) if job is None else JobReport(job.state, job.words, job.failed)
        return reports

    async def find(self, block: str) -> Job | None:
        await trio.sleep(0.05)
        job = self._batch.of(block)
        return None if job is None else {"job": job.number}

    def hurry(self) -> None:
        pass

    async def cancel(self, block: str, job: Job) -> None:
        await self._alive()
        await trio.sleep(0.05)
        if self._batch.stuck:
            raise LaunchError(self._batch.stuck)
        found = self._batch.of(block)
        self._batch.cancels.append(block)
        if found is not None and not found.is_over:
            found.killed = True
            await trio.sleep(self._batch.ending)
            self._batch.end(found, "CANCELLED", failed=True)


class FakeCore:
    """The queue and the engines, as far as pools see them. Each engine runs one task at a time."""

    def __init__(self, batch: Batch) -> None:
        self.measure = False
        self.batch = batch
        self.tasks = 0
        self.runtime = 1.0
        self.done = 0
        self.used: Sequence[PoolSettings] = ()
        self.orders: list[str] = []

    def use(self, pools: Sequence[PoolSettings]) -> None:
        self.used = pools

    def mark(self) -> Any:
        return None

    def has_changed(self, mark: Any) -> bool:
        return True

    def _work(self) -> None:
        for engine in self.batch.engines.values():
            if engine["busy_until"] and engine["busy_until"] <= now():
                engine["busy_until"], engine["idle_since"] = 0.0, now()
                self.done += 1
            if not engine["busy_until"] and not engine["retiring"] and self.tasks:
                self.tasks -= 1
                engine["busy_until"], engine["idle_since"] = now() + self.runtime, None

    def demand(self) -> Demand:
        self._work()
        return (Queued(self.tasks, runtime=self.runtime),) if self.tasks else ()

    def engines(self) -> Sequence[Engine]:
        self._work()
        return [
            Engine(
                ident,
                engine["block"],
                engine["idle_since"],
                max(engine["busy_until"] - now(), 0.0),
                draining=engine["retiring"],
                retiring=engine["retiring"],
            )
            for ident, engine in self.batch.engines.items()
        ]

    def retire(self, ident: bytes, by: str) -> bool:
        self.orders.append(f"retire by {by}")
        if ident in self.batch.engines:
            assert not self.batch.engines[ident]["busy_until"], "an engine with work is drained"
            self.batch.engines[ident]["retiring"] = True
        return ident in self.batch.engines

    def take_back(self, ident: bytes, by: str) -> bool:
        self.orders.append(f"take back by {by}")
        if ident in self.batch.engines:
            self.batch.engines[ident]["retiring"] = False
        return ident in self.batch.engines

    def shut_down(self, block: str) -> int:
        self.orders.append(f"shut down {block}")
        idents = [ident for ident, engine in self.batch.engines.items() if engine["block"] == block]
        for ident in idents:
            del self.batch.engines[ident]
        return len(idents)


class FrozenFiles(PoolFiles):
    """Files to which a hub writes nothing any more after it was killed."""

    is_frozen = False

    def _write(self, path: Path | None, content: Mapping[str, Any]) -> None:
        if not self.is_frozen:
            super()._write(path, content)

    def remove_record(self, block: str) -> None:
        if not self.is_frozen:
            super().remove_record(block)


@dataclass
class FakeHub:
    """A hub with pools."""

    pools: Pools
    steering: Steering
    core: FakeCore
    batch: Batch
    files: FrozenFiles
    failures: Counter[str]
    events: list[Event] = field(default_factory=list)
    ended: dict[bytes, float] = field(default_factory=dict)
    is_killed: bool = False

    @property
    def tending(self) -> Tending:
        return next(iter(self.pools.tended.values()))

    @property
    def pool(self) -> ElasticPool:
        return self.tending.pool

    def kill(self) -> None:
        """Have the hub end as after SIGKILL, when the ``async with`` block ends."""

        async def nothing() -> None:
            pass

        self.is_killed = self.files.is_frozen = True
        for tending in self.pools:
            assert isinstance(tending.launcher, FakeLauncher)
            tending.launcher.is_killed = True
        self.pools._stop = nothing  # type: ignore[method-assign]

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for a condition, which is looked at every 0.05 s of virtual time."""
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110  # the clock is virtual
                await trio.sleep(0.05)


def a_pool(name: str = "slurm", launcher: str = "slurm", keep: bool = False, **settings: Any) -> Pool:
    """Return a pool of at most eight engines, in blocks of two."""
    sizes = {"max": 8, "engines_per_block": 2, "backlog": 2, "idle_timeout": 8.0, "startup_timeout": 20.0} | settings
    return Pool(PoolSettings(name, **sizes), launcher=launcher, keep=keep)


@asynccontextmanager
async def a_hub(
    batch: Batch,
    *pools: Pool,
    directory: Path | None = None,
    returning: bool = True,
    grace: float = 5.0,
    core: FakeCore | None = None,
) -> AsyncGenerator[FakeHub, None]:
    """Run the pools of a hub. At the end they are stopped in good order, unless the hub is killed."""
    core = core or FakeCore(batch)
    failures: Counter[str] = Counter()
    files = FrozenFiles(directory)
    events: list[Event] = []
    ended: dict[bytes, float] = {}
    running = Pools(
        pools or (a_pool(),),
        core,
        lambda pool: FakeLauncher(batch),
        files=files,
        now=now,
        failures=failures,
        tell=events.append,
        note_end=ended.__setitem__,
        grace=grace,
    )
    steering = Steering(running, None, drained=(), now=now, tell=events.append)
    steering.restore(files.numbers())
    running.saving.numbers = steering.numbers
    take_up_blocks(running, now, returning=returning, timeout=5.0)
    hub = FakeHub(running, steering, core, batch, files, failures, events, ended)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        try:
            yield hub
        finally:
            nursery.cancel_scope.cancel()
    assert not failures or hub.is_killed, failures


@asynccontextmanager
async def a_batch(**settings: Any) -> AsyncGenerator[Batch, None]:
    """Run a batch system."""
    async with trio.open_nursery() as nursery:
        yield Batch(**settings, nursery=nursery)
        nursery.cancel_scope.cancel()
