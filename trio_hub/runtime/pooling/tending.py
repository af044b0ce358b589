"""Carries out the decisions for a pool: submits and cancels blocks, and asks the batch system for their states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import trio

from ...launching.launcher import JobReport, JobState, Launcher, LaunchError
from ...logs import get_logger
from ...pools.supply import BlockState, Engine
from ...services import Failures, failed
from .blocks import PooledBlock
from .files import PoolFiles
from .local import LocalLauncher
from .pool import ElasticPool
from .ports import Core
from .reports import Reports

__all__ = ["SERVICE", "Tending"]

log = get_logger("trio_hub.runtime")

SERVICE = "pools"
"""The name under which unexpected errors of pools are counted."""
AT_ONCE = 8
"""The number of blocks of a pool that are submitted, or cancelled, at the same time."""
LOOK_SOON, LOOK_LATE = 1.0, 10.0
"""Seconds between two questions to the batch system: soon after a change, and while nothing changes."""
SETTLING = 60.0
"""Seconds. For this long after a change, the batch system is asked every `LOOK_SOON` seconds; later, less often."""
ANSWER_LIMIT = 60.0
"""Seconds within which the batch system must tell the states of the blocks."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two attempts to cancel a block: the first pause and the longest. Each pause is twice the last."""
CANCEL_AGAIN = 60.0
"""Seconds after which a block that was cancelled, and is still there, is cancelled once more."""


class Tending:
    """Carries out the decisions for one pool.

    Args:
        pool: the state of the pool.
        launcher: starts its blocks.
        files: the records of blocks.
        core: access to the engines.
        failures: counts unexpected errors.
        now: the time in seconds since 1970.
        changed: is called when the state of the pool has changed.
    """

    def __init__(
        self,
        pool: ElasticPool,
        launcher: Launcher,
        *,
        files: PoolFiles,
        core: Core,
        failures: Failures,
        now: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self.pool = pool
        self.launcher = launcher
        self._files = files
        self._core = core
        self._failures = failures
        self._now = now
        self._changed = changed
        self._submits = trio.CapacityLimiter(AT_ONCE)
        self._cancels = trio.CapacityLimiter(AT_ONCE)
        self._wake = trio.Event()
        self._reports = Reports(pool)
        self._submitting: dict[str, trio.Event] = {}
        if isinstance(launcher, LocalLauncher):
            launcher.block_ended = self.look_soon

    def look_soon(self) -> None:
        """Have `watch` ask the batch system soon."""
        self._wake.set()

    def meet(self, engines: Mapping[str, Sequence[Engine]], now: float) -> None:
        """Note which engines of the pool are registered now, by block."""
        if isinstance(self.launcher, LocalLauncher):
            for block in self.pool.blocks.values():
                block.restarting = self.launcher.restarting(block.name)
        if self.pool.meet(engines, now):
            self.look_soon()

    async def submit(self, block: PooledBlock) -> None:
        """Submit a block. The record is written first, so that a later hub knows of the attempt."""
        done = self._submitting[block.name] = trio.Event()
        try:
            await self._submit(block)
        finally:
            block.is_submitting = False
            del self._submitting[block.name]
            done.set()
        self._changed()
        self.look_soon()

    async def _submit(self, block: PooledBlock) -> None:
        async with self._submits:
            if block.state is BlockState.CANCELLED:  # the hub stops
                self.pool.ended(block, self._now())
                return
            record = self.pool.record(block, self._now())
            await trio.to_thread.run_sync(self._files.write_record, block.name, record)
            try:
                job = await self.launcher.submit(block.name, block.engines)
            except LaunchError as error:
                self.pool.refused(block, str(error), self._now())
            except Exception as error:
                failed(SERVICE, error, self._failures)
                self.pool.refused(block, f"{type(error).__name__}: {error}", self._now())
            else:
                self.pool.submitted(block, job, self._now())

    @property
    def is_local(self) -> bool:
        """Whether the hub itself starts the engines."""
        return isinstance(self.launcher, LocalLauncher)

    @property
    def keeps(self) -> bool:
        """Whether the blocks stay when the hub stops. Engines that the hub itself has started never do."""
        return self.pool.pool.keep and not self.is_local

    async def give_back(self, block: PooledBlock) -> None:
        """Cancel a block since the hub stops, unless it is to stay. Return when the batch system has accepted that."""
        if not self.keeps:
            self.pool.give_up(block, "the hub stops", self._now())
        while block.name in self._submitting:
            await self._submitting[block.name].wait()
        if self.keeps or self.pool.blocks.get(block.name) is not block:
            return
        if block.released is None:
            await self.cancel(block, until_gone=False)
        self.pool.ended(block, self._now())

    def left_over(self) -> list[PooledBlock]:
        """Return the blocks that are still there although they were to be given back."""
        return [] if self.keeps else list(self.pool.blocks.values())

    async def cancel(self, block: PooledBlock, *, until_gone: bool = True) -> None:
        """Cancel a block: again and again until the batch system accepts that, and until the block is gone.

        Args:
            block: the block.
            until_gone: False: return when the batch system has accepted it.
        """
        pause = FIRST_PAUSE
        while self.pool.blocks.get(block.name) is block:
            words = await self._try_to_cancel(block)
            if not words:
                block.released = self._now()
                self.look_soon()
                self._changed()
                if not until_gone:
                    return
                await trio.sleep(CANCEL_AGAIN)
                continue
            if block.begin_once("not cancelled"):
                log.error(
                    "a block could not be cancelled: the hub tries again", pool=self.pool.name, block=block.name,
                    words=words,
                )  # fmt: skip
                self._core.shut_down(block.name)  # so that at least its engines end
            block.words = words
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _try_to_cancel(self, block: PooledBlock) -> str:
        """Cancel a block, and return why that has failed; empty if it has not.

        If nobody knows the job, or if the engines are still there long after the job was cancelled, the engines are
        told to end.
        """
        if block.job is None or block.is_over or block.released is not None:
            self._core.shut_down(block.name)
        if block.job is None:
            return ""
        try:
            async with self._cancels:
                await self.launcher.cancel(block.name, block.job)
        except LaunchError as error:
            return str(error) or "the launcher gives no reason"
        except Exception as error:
            failed(SERVICE, error, self._failures)
            return f"{type(error).__name__}: {error}"
        return ""

    async def watch(self) -> None:
        """Ask the batch system again and again for the states of the blocks. Runs for ever."""
        while True:
            if self.pool.blocks:
                await self.look()
                self._changed()
                with trio.move_on_after(self._interval()):
                    await self._wake.wait()
            else:
                await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(LOOK_SOON / 4)  # several blocks may change their states at the same time

    def _interval(self) -> float:
        """Return the seconds until the batch system is asked again."""
        now = self._now()
        if self.pool.is_settled(now):
            return LOOK_LATE
        calm = (now - self.pool.steady_since) / SETTLING
        return min(max(LOOK_SOON * calm, LOOK_SOON), LOOK_LATE)

    async def look(self) -> None:
        """Ask the batch system once for the states of the blocks."""
        await self._find_jobs()
        began = self._now()
        jobs = {block.name: block.job for block in self.pool.blocks.values() if block.job is not None}
        if not jobs:
            return
        reports: Mapping[str, JobReport] = {}
        words = f"no answer within {ANSWER_LIMIT:g} s"
        with trio.move_on_after(ANSWER_LIMIT):
            try:
                reports = await self.launcher.look(jobs)
                words = ""
            except LaunchError as error:
                words = str(error) or "the launcher gives no reason"
            except Exception as error:
                failed(SERVICE, error, self._failures)
                words = f"{type(error).__name__}: {error}"
        now = self._now()
        unknown = JobReport(JobState.UNKNOWN, words)
        said = [(name, reports.get(name, unknown)) for name in jobs]
        answered = [report for _, report in said if report.state is not JobState.UNKNOWN]
        silent = [report.words for _, report in said if report.state is JobState.UNKNOWN]
        if not self.pool.is_asked_in_vain:
            self._reports.answers("" if answered else (silent[0] or "no reason is known"))
        if isinstance(self.launcher, LocalLauncher):  # an engine may have come and gone between two decisions
            for block in self.pool.blocks.values():
                block.uuids |= self.launcher.came(block.name)
        for name, report in said:
            self._reports.reported(name, report, began, now)

    async def _find_jobs(self) -> None:
        """Find the jobs of blocks whose submission an earlier hub has begun: its agent may have finished it since."""
        for block in list(self.pool.blocks.values()):
            if block.job is None or block.job or block.is_submitting:
                continue
            try:
                found = await self.launcher.find(block.name)
            except LaunchError:  # `look` tells why the batch system does not answer
                continue
            if found:
                self.pool.found(block, found, self._now())
