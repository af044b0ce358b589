"""The interface of launchers, which submit, observe and cancel the blocks of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from ..errors import HubError

__all__ = ["Job", "JobReport", "JobState", "LaunchError", "Launcher"]

Job = Mapping[str, Any]
"""The facts by which a launcher finds a block again, as JSON values, also after a restart of the hub."""


class LaunchError(HubError):
    """A block could not be submitted or cancelled, or was not found. The text has the batch system's own words."""


class JobState(Enum):
    """The state of a job, as far as the batch system tells it."""

    WAITING = "waiting"
    """The job waits in the batch system's queue."""
    RUNNING = "running"
    """The job has its nodes."""
    ENDING = "ending"
    """The job is about to end, or to wait again. Which of them happens, and why, is known only later."""
    ENDED = "ended"
    """The job has ended, for any reason, or the batch system does not know it any more."""
    UNKNOWN = "unknown"
    """The batch system did not answer, or there is no way to ask it."""


@dataclass(frozen=True, slots=True)
class JobReport:
    """What the batch system says of a job.

    - ``state``: see `JobState`;
    - ``words``: the reason, in the batch system's own words: why the job waits, or how it ended. May be empty;
    - ``failed``: of a job that has ended: whether it failed, was preempted or was cancelled by somebody else. None if
      the batch system does not say.
    """

    state: JobState
    words: str = ""
    failed: bool | None = None


class Launcher(Protocol):
    """Starts the blocks of one pool. All methods may be cancelled at any checkpoint."""

    async def submit(self, block: str, engines: int) -> Job:
        """Ask for a block. Return as soon as the batch system has accepted it.

        Raises:
            LaunchError: the block was refused.
        """
        ...

    async def look(self, jobs: Mapping[str, Job]) -> Mapping[str, JobReport]:
        """Return a report for each of these jobs, by block: `JobState.UNKNOWN` if the batch system did not answer."""
        ...

    async def find(self, block: str) -> Job | None:
        """Return the job of a block whose submission was interrupted; None if no job is known.

        Raises:
            LaunchError: nobody can say whether there is a job.
        """
        ...

    def hurry(self) -> None:
        """Be quick from now on when the launcher is closed, since the hub stops at once."""
        ...

    async def cancel(self, block: str, job: Job) -> None:
        """Have the batch system end a block. A block that has ended already is no error.

        Raises:
            LaunchError: the batch system did not accept the cancellation.
        """
        ...
