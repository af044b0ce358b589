"""The launcher ``command``: shell commands of the user submit blocks, cancel them, and tell their state."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..config.pools import Pool
from . import statuses
from .asking import Answer, run_command
from .blockfiles import BlockFiles
from .commands import Places, block_environment
from .launcher import Job, JobReport, JobState, LaunchError

__all__ = ["UserCommands"]

MAX_JOB = 10_000
"""The most characters of a job. With a longer variable, the system may refuse to run ``cancel_command``."""


class UserCommands:
    """Runs the shell commands of a pool. `agent.Starter` describes the methods."""

    def __init__(self, pool: Pool, places: Places, files: BlockFiles) -> None:
        self.pool = pool
        self.places = places
        self.files = files
        if not pool.submit_command:
            raise LaunchError(f"pool {pool.name}: the launcher command needs submit_command, a shell command")

    def submit(self, block: str, engines: int) -> Job:
        self.files.write(block, {"launcher": "command", "job": "", "engines": engines, "submitted": False})
        answer = self._run(self.pool.submit_command, self._environment(block, engines))
        if answer.status != 0:
            self.files.remove(block)
            raise LaunchError(f"submit_command has failed with exit status {answer.status}: {answer.words}")
        job = {"launcher": "command", "job": _as_variable(answer.out), "engines": engines, "submitted": True}
        self.files.write(block, job)
        return job

    def look(self, jobs: Mapping[str, Job]) -> dict[str, JobReport]:
        return {block: self._look(block, job) for block, job in jobs.items()}

    def _look(self, block: str, job: Job) -> JobReport:
        if not self.pool.status_command:
            return JobReport(JobState.UNKNOWN)
        answer = self._run(self.pool.status_command, self._of_job(block, job))
        if answer.status is None:
            return JobReport(JobState.UNKNOWN, answer.words)
        return statuses.user_command(answer.out or answer.err, answer.status)

    def cancel(self, block: str, job: Job) -> None:
        if not self.pool.cancel_command:
            raise LaunchError(f"pool {self.pool.name} has no cancel_command, so nothing ends the job of {block}")
        answer = self._run(self.pool.cancel_command, self._of_job(block, job))
        if answer.status != 0:
            raise LaunchError(f"cancel_command has failed with exit status {answer.status}: {answer.words}")

    def recover(self, block: str) -> Job | None:
        """Return the job of a block whose submission was interrupted; None if there is no such job.

        Without a status command, nobody can say whether there is a job. Then the job is cancelled, if that is possible.
        """
        job = self.files.read(block)
        if job is None or job.get("submitted"):
            return job
        report = self._look(block, job)
        if report.state in (JobState.WAITING, JobState.RUNNING):
            found = {**job, "launcher": "command", "submitted": True}
            self.files.write(block, found)
            return found
        if report.state is JobState.UNKNOWN and self.pool.cancel_command:
            self.cancel(block, job)
        self.files.remove(block)
        return None

    def preview(self, block: str, engines: int) -> str:
        variables = "\n".join(f"{name}={value}" for name, value in self._environment(block, engines).items())
        parts = [("submit", self.pool.submit_command), ("cancel", self.pool.cancel_command)]
        parts.append(("status", self.pool.status_command))
        commands = "\n".join(f"# {what}_command\n{command}" for what, command in parts if command)
        return f"# variables\n{variables}\n\n{commands}\n"

    def _environment(self, block: str, engines: int) -> dict[str, str]:
        return block_environment(self.pool, block, engines, self.places)

    def _of_job(self, block: str, job: Job) -> dict[str, str]:
        return {
            **self._environment(block, int(job.get("engines") or 0)),
            "TRIO_HUB_JOB": _as_variable(str(job.get("job", ""))),
        }

    def _run(self, command: str, variables: Mapping[str, str]) -> Answer:
        return run_command(["sh", "-c", command], env={**os.environ, **variables}, limit=None)


def _as_variable(printed: str) -> str:
    """Return what a command has printed in a form that an environment variable can have."""
    return printed.replace("\0", "").strip()[:MAX_JOB]
