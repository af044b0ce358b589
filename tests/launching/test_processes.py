"""Blocks that are processes of this machine: they outlive the agent, and are found again. A script is ``mpiexec``."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from trio_hub.launching.agentlauncher import AgentLauncher
from trio_hub.launching.launcher import JobReport, JobState, LaunchError
from trio_hub.launching.processes import process_key

from ..runtime.support import eventually
from .support import LIMIT, a_pool

MPIEXEC = """\
#!/bin/sh
# mpiexec -n N PROGRAM ...: waits for the end of a file
[ "$1" = -n ] || exit 2
echo "$*" > words; mv words started
[ ! -e broken ] || { echo "-----"; echo "There are not enough slots"; echo "-----"; exit 7; }
while [ -e going ]; do sleep 0.05; done
"""


class Site:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pids: list[int] = []

    def launcher(self) -> AgentLauncher:
        pool = a_pool("mpi", python="/usr/bin/my-python", traits={"mpi_cmd": [str(self.directory / "mpiexec")]})
        return AgentLauncher(pool, directory=self.directory / "pools", profile_dir=self.directory / "profile")

    def file(self, name: str) -> Path:
        return self.directory / name


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "mpiexec"
    program.write_text(MPIEXEC)
    program.chmod(0o755)
    going = tmp_path / "going"
    going.touch()
    made = Site(tmp_path)
    yield made
    going.unlink(missing_ok=True)
    for pid in made.pids:
        await eventually(lambda pid=pid: process_key(pid) is None)  # type: ignore[misc]


async def state_of(launcher: AgentLauncher, block: str, job: object) -> JobReport:
    return (await launcher.look({block: job}))[block]  # type: ignore[dict-item]


async def test_a_block_outlives_the_agent(site: Site) -> None:
    with trio.fail_after(LIMIT):
        async with site.launcher() as launcher:
            assert not launcher.pool.has_queue
            job = await launcher.submit("p-1", 4)
            pid = int(job["job"])
            site.pids.append(pid)
            assert await state_of(launcher, "p-1", job) == JobReport(JobState.RUNNING)
            await eventually(site.file("started").exists)
            words = site.file("started").read_text()
            profile = f"--profile-dir={site.directory}/profile"
            assert words == f"-n 4 /usr/bin/my-python -m trio_hub engine --mpi --block=p-1 {profile}\n"
            assert launcher.agent_pid is not None
            os.killpg(launcher.agent_pid, signal.SIGKILL)
            assert await state_of(launcher, "p-1", job) == JobReport(JobState.RUNNING)
        assert process_key(pid) is not None
        async with site.launcher() as launcher:
            assert await state_of(launcher, "p-1", {}) == JobReport(JobState.RUNNING)
            # a process with this id, but another one
            other = {**job, "processes": {str(pid): "1"}}
            assert await state_of(launcher, "p-2", other) == JobReport(JobState.ENDED)
            await launcher.cancel("p-2", other)
            assert process_key(pid) is not None
            await launcher.cancel("p-1", job)
            await launcher.cancel("p-1", job)
            assert process_key(pid) is None
            assert (await state_of(launcher, "p-1", job)).state is JobState.ENDED


async def test_a_submission_whose_answer_got_lost(site: Site) -> None:
    with trio.fail_after(LIMIT):
        async with site.launcher() as launcher:
            job = await launcher.submit("p-1", 4)
            site.pids.append(int(job["job"]))
            launcher.files.write("p-1", {"launcher": "mpi", "job": "", "engines": 4, "submitted": False})
        async with site.launcher() as launcher:
            assert (await launcher.find("p-1") or {})["job"] == job["job"]
            await launcher.cancel("p-1", {})
            assert process_key(int(job["job"])) is None


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="mpiexec is not installed")
async def test_a_real_mpiexec(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):  # OpenMPI asks for both
        monkeypatch.setenv(variable, "1")
    program = site.file("engine")
    program.write_text('#!/bin/sh\ntouch "rank-$$"\nexec sleep 600\n')
    program.chmod(0o755)
    pool = a_pool("mpi", python=str(program))
    with trio.fail_after(LIMIT):
        async with AgentLauncher(pool, directory=site.file("pools"), profile_dir=site.file("profile")) as launcher:
            job = await launcher.submit("p-1", 2)
            await eventually(lambda: len(list(site.directory.glob("rank-*"))) == 2)
            engines = [int(path.name.partition("-")[2]) for path in site.directory.glob("rank-*")]
            assert await state_of(launcher, "p-1", job) == JobReport(JobState.RUNNING)
            await launcher.cancel("p-1", job)
            await eventually(lambda: all(process_key(pid) is None for pid in engines))
            while (await state_of(launcher, "p-1", job)).state is not JobState.ENDED:
                await trio.lowlevel.checkpoint()


async def test_how_a_block_has_ended(site: Site) -> None:
    site.file("broken").touch()
    with trio.fail_after(LIMIT):
        async with site.launcher() as launcher:
            job = await launcher.submit("p-1", 4)
            while (report := await state_of(launcher, "p-1", job)).state is JobState.RUNNING:
                await trio.lowlevel.checkpoint()
            assert report == JobReport(JobState.ENDED, "exit status 7: There are not enough slots", failed=True)
            site.file("broken").unlink()
            site.file("going").unlink()
            job = await launcher.submit("p-2", 4)
            while (report := await state_of(launcher, "p-2", job)).state is JobState.RUNNING:
                await trio.lowlevel.checkpoint()
            assert report == JobReport(JobState.ENDED, failed=False)
            site.file("mpiexec").unlink()
            with pytest.raises(LaunchError, match="No such file or directory"):
                await launcher.submit("p-3", 4)
            assert "p-3" not in launcher.known()
