"""What the rules of a pool remember from one decision to the next."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .settings import PoolSettings
from .supply import Block, Supply

__all__ = ["MAX_PAUSE", "STEADY", "PoolMemory"]

MAX_PAUSE = 600.0
"""Seconds. The longest pause after a block has failed."""
STEADY = 30.0
"""Seconds. A block whose engines are there for this long has not failed."""
STEPS = 8
"""The number of steps of the time for which a pool remembers how many engines were needed."""
WEIGHT = 0.3
"""The weight of the newest block in the averages of how long blocks take."""


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What the rules of a pool remember. A new pool begins with `PoolMemory()`; each decision returns the next one.

    - ``began``: when the first decision was made; None before it;
    - ``peaks``: the largest numbers of engines that were needed, each with the time at which its step began;
    - ``queued_since``: since when tasks are queued without a break; None if none are;
    - ``failures``: the number of blocks that have failed in a row;
    - ``failed``: when the last of them failed;
    - ``words``: the reason of the last failure, in the batch system's own words;
    - ``paused_until``: when a block may be asked for again;
    - ``wait``: the average seconds from asking for a block to its start; None if no block has started yet;
    - ``startup``: the average seconds from the start of a block to its first engine; None if there was none yet;
    - ``measured``: the blocks that count in the average ``wait``, and the blocks that count in the average ``startup``.
    """

    began: float | None = None
    peaks: tuple[tuple[float, float], ...] = ()
    queued_since: float | None = None
    failures: int = 0
    failed: float = -math.inf
    words: str = ""
    paused_until: float = -math.inf
    wait: float | None = None
    startup: float | None = None
    measured: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    def after_failure(self, settings: PoolSettings, now: float, words: str, asked: float) -> PoolMemory:
        """Return what is remembered after a block has failed: it was refused, or has ended without being cancelled.

        Blocks that were asked for before the last failure fail for the same cause, so they count as one failure.

        Args:
            settings: the settings of the pool.
            now: the time.
            words: the reason, in the batch system's own words.
            asked: when the block was asked for.
        """
        if self.failures and asked <= self.failed:
            return replace(self, words=words)
        pause = min(settings.retry_pause * 2.0 ** min(self.failures, 30), MAX_PAUSE)
        return replace(self, failures=self.failures + 1, failed=now, words=words, paused_until=now + pause)

    def resumed(self) -> PoolMemory:
        """Return what is remembered after somebody has said that the pool is to ask for blocks again."""
        return replace(self, failures=0, words="", paused_until=-math.inf)

    def stopped(self, settings: PoolSettings) -> bool:
        """Return whether too many blocks in a row have failed, so that the pool asks for no more."""
        return self.failures >= settings.max_failures

    def peak(self, now: float, seconds: float, width: float) -> float:
        """Return the largest number of engines that were needed at any time within the last ``seconds``.

        Args:
            now: the time.
            seconds: how far to look back.
            width: the seconds of one step.
        """
        return max((peak for start, peak in self.peaks if now - start < seconds + width), default=0.0)

    def observed(self, supply: Supply, needed: float, queued: int, now: float, seconds: float) -> PoolMemory:
        """Return what is remembered after a look at the pool.

        Args:
            supply: what the pool has.
            needed: the number of engines that are needed now.
            queued: the number of queued tasks.
            now: the time.
            seconds: for how long to remember how many engines were needed.
        """
        began = now if self.began is None else self.began
        failures = self.failures
        if failures and any(self._is_steady(block, now) for block in supply.blocks):
            failures = 0
        wait, startup, measured = self._durations(supply.blocks, now)
        return replace(
            self,
            began=began,
            peaks=self._peaks(needed, now, seconds),
            queued_since=(now if self.queued_since is None else self.queued_since) if queued else None,
            failures=failures,
            words=self.words if failures else "",
            wait=wait,
            startup=startup,
            measured=measured,
        )

    def _is_steady(self, block: Block, now: float) -> bool:
        return (
            block.started is not None
            and block.arrived > 0
            and block.started >= self.failed
            and now - block.started >= STEADY
        )

    def _peaks(self, needed: float, now: float, seconds: float) -> tuple[tuple[float, float], ...]:
        width = seconds / STEPS
        kept = tuple(one for one in self.peaks if now - one[0] < seconds + width)
        if kept and now - kept[-1][0] < width:
            start, peak = kept[-1]
            return (*kept[:-1], (start, max(peak, needed)))
        return (*kept, (now, needed))

    def _durations(
        self, blocks: Iterable[Block], now: float
    ) -> tuple[float | None, float | None, tuple[frozenset[str], frozenset[str]]]:
        wait, startup = self.wait, self.startup
        started = {block.ident: block for block in blocks if block.started is not None}
        arrived = {ident: block for ident, block in started.items() if block.arrived}
        if self.began is None:
            # The blocks of an earlier hub: nobody knows when their engines came.
            return wait, startup, (frozenset(started), frozenset(arrived))
        for ident in sorted(started.keys() - self.measured[0]):
            block = started[ident]
            assert block.started is not None
            wait = _average(wait, max(block.started - block.asked, 0.0))
        for ident in sorted(arrived.keys() - self.measured[1]):
            block = arrived[ident]
            assert block.started is not None
            startup = _average(startup, max(now - block.started, 0.0))
        return wait, startup, (frozenset(started), frozenset(arrived))


def _average(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + (seconds - before) * WEIGHT
