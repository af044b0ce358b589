"""Questions and commands to the Slurm of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..interop import conftest
from ..interop.conftest import LIMIT

__all__ = ["LIMIT", "Job", "Slurm", "wait_until"]

PERIOD = 0.1
"""Seconds between two checks of a condition. Many of these checks start a command of Slurm."""

wait_until = partial(conftest.wait_until, period=PERIOD)
"""Wait until a condition is true, and return its value."""


@dataclass(frozen=True)
class Job:
    """A job as ``squeue`` shows it. ``state`` and ``reason`` are Slurm's words."""

    number: str
    name: str
    partition: str
    state: str
    reason: str
    cpus: int


class Slurm:
    """The Slurm of the tests. ``environment`` has what its commands need."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        settings = ("SLURM_", "SBATCH_", "SQUEUE_", "SINFO_", "SCANCEL_", "SALLOC_", "SRUN_")
        self.environment: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith(settings)},
            "SLURM_CONF": str(directory / "slurm.conf"),
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        }

    def run(self, *command: str) -> str:
        """Run a command of Slurm, and return what it prints."""
        ran = subprocess.run(
            command,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert ran.returncode == 0, f"{' '.join(command)}: {ran.stderr}"
        return ran.stdout

    def submit(self, *arguments: str) -> str:
        """Submit a job with sbatch, and return its number."""
        return self.run("sbatch", "--parsable", *arguments).strip()

    def jobs(self) -> list[Job]:
        """Return the jobs that wait, run or are ending, in the order of their submission."""
        jobs = []
        for line in self.run("squeue", "--noheader", "--sort=i", "--format=%i|%j|%P|%T|%r|%C").splitlines():
            number, name, partition, state, reason, cpus = line.split("|")
            jobs.append(Job(number, name, partition, state, reason, int(cpus)))
        return jobs

    def job(self, number: str) -> dict[str, str]:
        """Return what Slurm knows of a job, also of one that has ended, as ``scontrol show job`` tells it."""
        words = self.run("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for_state(self, number: str, *states: str) -> dict[str, str]:
        """Wait until a job is in one of these states, and return what Slurm knows of it."""

        def look() -> dict[str, str] | None:
            job = self.job(number)
            return job if job["JobState"] in states else None

        job: dict[str, str] = wait_until(look, f"job {number} in state {' or '.join(states)}")
        return job

    def wait_for_end(self, number: str) -> dict[str, str]:
        """Wait until a job has ended in any way, and return what Slurm knows of it."""
        return self.wait_for_state(number, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def wait_until_empty(self) -> None:
        wait_until(lambda: not self.jobs(), "the end of all jobs")

    def cancel_all(self) -> None:
        for job in self.jobs():
            self.run("scancel", job.number)
        self.wait_until_empty()
