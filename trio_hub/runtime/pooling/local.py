"""The launcher ``local``: the blocks of a pool are engines that the hub itself starts on its machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import trio

from ...launching.launcher import Job, JobReport, JobState
from ..children import LocalEngines
from ..places import Place

__all__ = ["LocalLauncher"]


class LocalLauncher:
    """Starts the blocks of one pool as local engines.

    Args:
        engines: the local engines of the pool.
    """

    def __init__(self, engines: LocalEngines) -> None:
        self._engines = engines
        self._came: defaultdict[str, set[str]] = defaultdict(set)
        self._ends: dict[str, str] = {}
        """By block: why an engine of the block has ended before it had registered."""
        self.block_ended: Callable[[], None] = lambda: None
        """Is called when all engines of a block have ended."""
        engines.place_ended = self._place_ended

    async def submit(self, block: str, engines: int) -> Job:
        """Start the engines of a block. An engine that ends before it has registered is not started again."""
        await trio.lowlevel.checkpoint()
        for _ in range(engines):
            self._engines.begin(self._engines.places.add(block))
        return {"launcher": "local"}

    async def look(self, jobs: Mapping[str, Job]) -> Mapping[str, JobReport]:
        """Return a report for each of these blocks."""
        await trio.lowlevel.checkpoint()
        return {block: self._report(block) for block in jobs}

    def _report(self, block: str) -> JobReport:
        if self._of(block):
            return JobReport(JobState.RUNNING)
        cause = self._ends.pop(block, "")
        return JobReport(JobState.ENDED, cause, True if cause else None)

    async def find(self, block: str) -> Job | None:
        """Return None: the hub that starts a local engine knows it, or a later hub knows its process."""
        await trio.lowlevel.checkpoint()
        return None

    def hurry(self) -> None:
        """Do nothing: `LocalGroup.hurry` leaves out the grace of local engines."""

    async def cancel(self, block: str, job: Job) -> None:
        """End the engines of a block. They are asked to end first."""
        await trio.lowlevel.checkpoint()
        for place in self._of(block):
            place.scope.cancel()

    def restarting(self, block: str) -> int:
        """Return how many engines of a block have died, and are started again."""
        return sum(bool(place.cause) and not place.is_registered for place in self._of(block))

    def came(self, block: str) -> set[str]:
        """Return the uuids of those engines of a block that have registered, and have ended since."""
        return self._came.pop(block, set())

    def _of(self, block: str) -> list[Place]:
        return [place for place in self._engines.places if place.block == block]

    def _place_ended(self, place: Place) -> None:
        if place.engine is not None:
            self._came[place.block].add(place.engine.uuid)
        elif not place.scope.cancelled_caught:
            self._ends[place.block] = place.cause
        if not self._of(place.block):
            self.block_ended()
