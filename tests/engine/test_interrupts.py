"""Interrupts that name their request: what the control channel does, and what the handler of SIGINT does."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from trio_hub import RemoteError
from trio_hub.engine.jobs import ABORTED, Job, Jobs
from trio_hub.engine.output import Printed
from trio_hub.engine.turns import ShellReader, Turn
from trio_hub.engine.worker import Worker
from trio_hub.wire.messages import Session
from trio_hub.wire.packers import packer_named

from .support import LIMIT, cluster, until


def job(session: Session) -> Job:
    frames = session.write("apply_request", {})
    return Job(session.read_trusted([b"client"], frames), "shell")


@pytest.fixture
def session() -> Session:
    return Session(b"key", session_id="client", now=lambda: datetime.now(UTC))


class Threads:
    """The jobs of an engine without sockets, and what both threads use."""

    def __init__(self) -> None:
        self.printed = Printed(lambda: None)
        self.turn = Turn(self.printed)
        self.jobs = Jobs(self.turn, ShellReader(self.turn), lambda: None)
        self.worker = Worker("engine", self.jobs, self.printed, packer_named("json"), lambda worker: None)

    def begin(self, session: Session) -> Job:
        """Return a new job that the main thread has claimed."""
        with self.turn:
            self.jobs.put(job(session))
        begun = self.jobs.next()
        assert begun is not None
        return begun


@pytest.fixture
def threads() -> Threads:
    return Threads()


def test_a_signal_is_aimed_only_at_a_claimed_job(session: Session, threads: Threads) -> None:
    jobs = threads.jobs
    first, second = job(session), job(session)
    with threads.turn:
        jobs.put(first)
        jobs.put(second)
        assert not jobs.aim(first.msg_id)
    assert jobs.next() is first
    with threads.turn:
        assert jobs.aim(first.msg_id)
        assert not jobs.aim(second.msg_id)
    jobs.finish(first, ABORTED)
    with threads.turn:
        assert not jobs.aim(first.msg_id)
    assert list(jobs.aims) == [first]


def test_an_abort_says_whether_the_job_runs(session: Session, threads: Threads) -> None:
    runs = threads.begin(session)
    waits, comes = job(session), job(session)
    with threads.turn:
        threads.jobs.put(waits)
        assert not threads.jobs.abort(runs.msg_id)
        assert threads.jobs.abort(waits.msg_id)
        assert threads.jobs.abort(comes.msg_id)
        threads.jobs.put(comes)
    assert [done.msg_id for done in threads.jobs.finished] == [waits.msg_id, comes.msg_id]


@pytest.mark.parametrize("aim", ["", "itself", "another", "another and itself"])
def test_a_signal_hits_only_the_job_that_it_is_meant_for(
    session: Session, threads: Threads, aim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, worker = threads.jobs, threads.worker
    another = threads.begin(session)
    if "another" in aim:
        with threads.turn:
            assert jobs.aim(another.msg_id)
    jobs.finish(another, ABORTED)  # its signal is late, or was handled by user code
    runs = threads.begin(session)
    if "itself" in aim:
        with threads.turn:
            assert jobs.aim(runs.msg_id)

    def answer(job: Job) -> None:
        worker.interrupt(signal.SIGINT, None)

    monkeypatch.setattr(worker, "_answer", answer)
    worker._carry_out(runs)
    assert not jobs.aims
    assert (runs.answer is None) == (aim == "another")
    if runs.answer is not None:
        assert runs.answer.content["ename"] == "KeyboardInterrupt"


def test_a_signal_that_comes_before_its_job_begins_is_not_lost(
    session: Session, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = threads.begin(session)
    with threads.turn:
        assert threads.jobs.aim(runs.msg_id)
    threads.worker.interrupt(signal.SIGINT, None)
    monkeypatch.setattr(threads.worker, "_answer", lambda job: pytest.fail("the job has begun"))
    threads.worker._carry_out(runs)
    assert runs.answer is not None
    assert runs.answer.content["ename"] == "KeyboardInterrupt"
    after = threads.begin(session)
    monkeypatch.setattr(threads.worker, "_answer", lambda job: ABORTED)
    threads.worker._carry_out(after)
    assert after.answer is ABORTED


# A real engine


async def test_a_cancel_interrupts_the_call_that_runs_and_nothing_else(tmp_path: Path) -> None:
    def waits(flag: str) -> None:
        import time
        from pathlib import Path

        Path(flag).touch()
        while True:
            time.sleep(0.01)

    values: list[int] = []
    async with cluster(tmp_path, hwm=2) as (hub, client, engine):

        async def is_cancelled(flag: Path) -> None:
            with pytest.raises(RemoteError, match="TaskCancelled"):
                await client.apply(waits, str(flag))

        async def collect() -> None:
            values.append(await client.apply(abs, -1))

        child, tasks = await engine.child(), hub.core.tasks.scheduler.tasks
        for number in range(3):
            flag = tmp_path / f"flag{number}"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(is_cancelled, flag)
                await until(flag.exists, "the call that is to be interrupted")
                [runs] = tasks
                nursery.start_soon(collect)
                await until(lambda: len(tasks) == 2, "the call behind it")
                assert await client.cancel([runs], grace=LIMIT) == {runs: "interrupted"}
        assert values == [1, 1, 1]
        assert await engine.child() == child, "it was not killed"
