"""The Slurm of the tests: it schedules as a Slurm does, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..cli.process import processes_with
from . import node
from .support import Slurm, wait_until

pytestmark = pytest.mark.slurm

SLEEP = ("--output=/dev/null", "--wrap=sleep 600")


def test_a_job_runs_with_as_many_tasks_as_it_asked_for(slurm: Slurm) -> None:
    assert slurm.run("srun", "--ntasks=3", "sh", "-c", "echo $SLURM_NTASKS").split() == ["3"] * 3
    slurm.wait_until_empty()  # srun may return while its job is still completing


def test_a_partition_that_is_full_has_jobs_that_wait(slurm: Slurm) -> None:
    first = slurm.submit("--partition=tiny", "--ntasks=2", *SLEEP)
    slurm.wait_for_state(first, "RUNNING")
    second = slurm.submit("--partition=tiny", "--ntasks=2", *SLEEP)
    wait_until(lambda: slurm.job(second)["Reason"] in ("Resources", "MaxCpuPerNode"), "the reason to wait")
    assert slurm.job(second)["JobState"] == "PENDING"
    slurm.run("scancel", first)
    slurm.wait_for_state(second, "RUNNING")
    slurm.cancel_all()


def test_a_job_is_preempted(slurm: Slurm) -> None:
    cheap = slurm.submit("--partition=cheap", "--ntasks=4", *SLEEP)
    slurm.wait_for_state(cheap, "RUNNING")
    again = slurm.submit("--partition=requeue", "--ntasks=4", *SLEEP)
    slurm.wait_for_state(again, "RUNNING")
    urgent = slurm.submit("--partition=urgent", f"--ntasks={node.CPUS}", *SLEEP)
    slurm.wait_for_state(urgent, "RUNNING")
    assert slurm.job(cheap)["JobState"] == "PREEMPTED"
    assert slurm.job(again)["JobState"] == "PENDING"
    slurm.cancel_all()


PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(node.__file__).parent)!r})
from node import running
with running() as directory:
    print(directory, flush=True)
    sys.stdin.read()
"""


@pytest.mark.usefixtures("slurm")
def test_nothing_is_left_if_the_tests_are_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        directory = Path(tests.stdout.readline().strip())
        another = Slurm(directory)
        # a process that has left its job, and that does not end by itself
        job = another.submit("--output=/dev/null", "--wrap=setsid sh -c 'trap : TERM; sleep 600' & srun sleep 600")
        another.wait_for_state(job, "RUNNING")
        wait_until(lambda: len(processes_with(str(directory))) > 5, "the processes of the job")
        tests.kill()
    wait_until(lambda: not processes_with(str(directory)), "the end of all processes")
    wait_until(lambda: not directory.exists(), "the end of the directory")


def test_a_command_has_the_slurm_and_gives_its_exit_code(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    script = f'echo "$SLURM_CONF"; test -d {folder} && srun true && exit 7'
    command = [sys.executable, node.__file__, "--folder", str(folder), "--", "sh", "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if node.missing():
        pytest.skip(node.missing())
    assert ran.returncode == 7, ran.stderr
    directory = Path(ran.stdout.strip()).parent
    assert not processes_with(str(directory))
    assert not directory.exists()
    assert not folder.exists()


def test_a_signal_to_the_program_ends_the_command_and_the_slurm() -> None:
    if node.missing():
        pytest.skip(node.missing())
    command = [sys.executable, node.__file__, "--", "sh", "-c", 'echo "$SLURM_CONF"; exec sleep 600']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ran:
        assert ran.stdout is not None
        directory = Path(ran.stdout.readline().strip()).parent
        os.kill(ran.pid, signal.SIGTERM)
    assert ran.returncode == 1
    assert not processes_with(str(directory))
    assert not directory.exists()
