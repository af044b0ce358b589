"""Interrupts that name their request: what the control channel does, and what the handler of SIGINT does."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

import pytest

from trio_hub.engine.jobs import ABORTED, Job, Jobs
from trio_hub.engine.output import Printed
from trio_hub.engine.worker import Worker
from trio_hub.wire.messages import Session
from trio_hub.wire.packers import packer_named


def job(session: Session) -> Job:
    frames = session.write("apply_request", {})
    return Job(session.read_trusted([b"client"], frames), "shell")


@pytest.fixture
def session() -> Session:
    return Session(b"key", session_id="client", now=lambda: datetime.now(UTC))


def test_only_a_claimed_job_runs(session: Session) -> None:
    jobs = Jobs(lambda: None)
    first, second = job(session), job(session)
    jobs.put(first)
    jobs.put(second)
    assert not jobs.is_running(first.msg_id)
    assert jobs.next() is first
    assert jobs.is_running(first.msg_id)
    assert not jobs.is_running(second.msg_id)
    jobs.finish(first, ABORTED)
    assert not jobs.is_running(first.msg_id)


def worker_with(jobs: Jobs) -> Worker:
    return Worker("engine", jobs, Printed(lambda: None), packer_named("json"), lambda worker: None)


@pytest.mark.parametrize("aim", ["", "itself", "another"])
def test_a_signal_hits_only_the_job_that_it_is_meant_for(
    session: Session, aim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(lambda: None)
    worker = worker_with(jobs)
    runs = job(session)
    if aim:
        jobs.aims.append(runs.msg_id if aim == "itself" else "another")

    def answer(job: Job) -> None:
        worker.interrupt(signal.SIGINT, None)

    monkeypatch.setattr(worker, "_answer", answer)
    worker._carry_out(runs)
    assert not jobs.aims
    assert (runs.answer is None) == (aim == "another")
    if runs.answer is not None:
        assert runs.answer.content["ename"] == "KeyboardInterrupt"
