"""Notes the reports of the batch system about the blocks of a pool."""

from __future__ import annotations

from ...launching.launcher import JobReport, JobState
from ...logs import get_logger
from ...pools.supply import BlockState
from .blocks import PooledBlock
from .pool import ElasticPool

__all__ = ["Reports"]

log = get_logger("trio_hub.runtime")

UNCONFIRMED = 3.0
"""Seconds. For this long after a batch system has accepted a job, it may not list the job yet."""
FULL_TERM = 0.9
"""A block that ends after this part of its time limit has presumably ended because of the limit."""


class Reports:
    """Notes the states of the blocks of a pool, as the batch system reports them.

    Args:
        pool: the pool.
    """

    def __init__(self, pool: ElasticPool) -> None:
        self._pool = pool

    def reported(self, name: str, report: JobReport, began: float, now: float) -> None:
        """Note a report of the batch system about a block.

        Args:
            name: the block.
            report: the report.
            began: when the question was asked.
            now: the time.
        """
        block = self._pool.blocks.get(name)
        if block is None or block.is_submitting:
            return
        if report.state is JobState.UNKNOWN:
            block.unanswered = now if block.unanswered is None else block.unanswered
            return
        block.unanswered = None
        if report.state is JobState.ENDED:
            self._report_end(block, report, now)
            return
        block.is_ending = report.state is JobState.ENDING
        if block.is_ending:  # it is looked at again until its end is told with the reason
            return
        block.seen = began
        if block.state is BlockState.CANCELLED:
            return
        if report.state is JobState.WAITING:
            self._report_waiting(block, report, now)
        elif block.state.is_queued:
            block.words = report.words
            self._pool.started(block, now)

    def _report_waiting(self, block: PooledBlock, report: JobReport, now: float) -> None:
        block.is_unresolved = False
        if block.state is BlockState.RUNNING:
            if block.present:
                return  # its engines know better
            self._pool.spent += block.engine_seconds(now)
            block.started, block.uuids, block.left = None, set(), None
            log.warning(
                "a block waits in the queue of the batch system again", pool=self._pool.name, block=block.name,
                words=report.words,
            )  # fmt: skip
        if block.state is not BlockState.WAITING or block.words != report.words:
            block.state, block.words = BlockState.WAITING, report.words
            self._pool.changed(block, now)
        if block.begin_once(f"waits: {report.words}"):
            log.info(
                "a block waits in the queue of the batch system",
                pool=self._pool.name,
                block=block.name,
                words=report.words or None,
            )

    def _report_end(self, block: PooledBlock, report: JobReport, now: float) -> None:
        if block.present:  # its engines are still there, or it is about to be noticed that they are gone
            block.is_over = True
            return
        if block.state is BlockState.CANCELLED:
            self._pool.ended(block, now)
            return
        if block.is_unresolved:
            if now >= block.awaited:
                self._pool.give_up_unresolved(block, now)
            return
        has_words = bool(report.words) or report.failed is not None
        if block.state is BlockState.ASKED and not has_words and now - block.asked < UNCONFIRMED:
            return
        failed = self._has_failed(block, report, now)
        words = report.words or ("has ended" if block.uuids else "has ended before an engine has come")
        if failed:
            self._pool.fail(block, words, now)
        self._pool.ended(block, now, words=words)

    def _has_failed(self, block: PooledBlock, report: JobReport, now: float) -> bool:
        """Return whether the end of a block that nobody here has cancelled is a failure."""
        if not block.uuids:
            return True
        age = 0.0 if block.started is None else now - block.started
        limit = self._pool.settings.time_limit
        if limit is not None and age >= FULL_TERM * limit:
            return False
        return bool(report.failed)

    def answers(self, words: str) -> None:
        """Note whether the batch system answers: ``words`` says why it does not; empty if it does."""
        if words and not self._pool.unanswered:
            log.warning("the batch system of a pool does not answer", pool=self._pool.name, words=words)
        elif self._pool.unanswered and not words:
            log.info("the batch system of a pool answers again", pool=self._pool.name)
        self._pool.unanswered = words
