"""The state of one pool whose size follows the demand: its blocks, what has become of them, and what it has cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...config.pools import Pool
from ...hub.events import BlockEnded, BlockStarted, BlockSubmitted, Event
from ...launching.launcher import Job
from ...logs import get_logger
from ...pools import dividing
from ...pools.memory import PoolMemory
from ...pools.settings import PoolSettings
from ...pools.sizing import Cancellation, Decision
from ...pools.supply import BlockState, Engine, Supply
from .blocks import PooledBlock, new_name

__all__ = ["COUNTS", "ElasticPool"]

log = get_logger("trio_hub.runtime")

COUNTS = ("submitted", "refused", "failed", "ended", "cancelled")
"""The numbers of blocks that are counted. Each submitted block ends in one of the other four ways."""
PRESUMED_GONE = 30.0
"""Seconds. A cancelled block whose engines are gone is presumed to have ended if the batch system does not say."""
LEAVING = 5.0
"""Seconds that a block may still be there after its engines have left: their processes end later than they say so."""
PATIENCE = 15.0
"""Seconds. A block that has lost its engines is cancelled if the batch system has not told its state by then."""
LONG_PATIENCE = 300.0
"""Seconds. The same for a block that the batch system is ending: what a site runs after each job can take minutes."""


class ElasticPool:
    """A pool whose size follows the demand.

    Args:
        pool: its settings.
        tell: is called with each event.
        save: is called with the name of each block whose record has changed or is to be removed.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        tell: Callable[[Event], None] = lambda event: None,
        save: Callable[[str], None] = lambda block: None,
    ) -> None:
        self.pool = pool
        self.settings: PoolSettings = pool.settings
        self.blocks: dict[str, PooledBlock] = {}
        self.memory = PoolMemory()
        self.decision: Decision | None = None
        self.counts = Counter(dict.fromkeys(COUNTS, 0))
        self.spent = 0.0
        """The engine-seconds of the blocks that have ended."""
        self.steady_since = 0.0
        """Since when no block has come, gone, or changed its state."""
        self.engines: tuple[Engine, ...] = ()
        self.unanswered = ""
        """Why the batch system does not answer; empty if it does. See `reports.Reports`."""
        self._tell = tell
        self._save = save

    @property
    def name(self) -> str:
        return self.pool.name

    @property
    def is_asked_in_vain(self) -> bool:
        """Whether there is no way to ask for the states of blocks, since the pool has no ``status_command``."""
        return self.pool.launcher == "command" and not self.pool.status_command

    def as_input(self, now: float) -> dividing.Pool:
        """Return the pool as the rules of sizing see it."""
        blocks = tuple(block.as_supply(now) for block in self.blocks.values())
        return dividing.Pool(self.settings, Supply(self.engines, blocks), self.memory)

    def record(self, block: PooledBlock, now: float) -> dict[str, Any]:
        """Return the record of a block, with the settings of the pool, for the next hub."""
        return block.as_record(now) | {"pool": self.pool.as_dict()}

    def engine_seconds(self, now: float) -> float:
        """Return the engine-seconds of the pool so far: engines times seconds, summed over its blocks."""
        return self.spent + sum(block.engine_seconds(now) for block in self.blocks.values())

    def is_settled(self, now: float) -> bool:
        """Return whether nothing is expected of the batch system soon."""
        return all(block.state is BlockState.RUNNING and block.present for block in self.blocks.values())

    def cancelled(self) -> list[PooledBlock]:
        """Return the blocks that are to end."""
        return [block for block in self.blocks.values() if block.state is BlockState.CANCELLED]

    # Engines

    def meet(self, engines: Mapping[str, Sequence[Engine]], now: float) -> bool:
        """Note which engines of the pool are registered now, by block. Return whether a block has lost its last one.

        A block of which an engine has registered runs, whatever the batch system says. A block that this hub does not
        know was submitted by an earlier hub, and its record is lost. It belongs to the pool all the same.
        """
        for name in engines.keys() - self.blocks.keys():
            self._adopt(name, len(engines[name]), now)
        self.engines = tuple(engine for group in engines.values() for engine in group)
        has_lost = False
        for block in list(self.blocks.values()):
            group = engines.get(block.name, ())
            block.present = len(group)
            if group:
                block.left = None
                uuids = {engine.ident.decode("utf-8", "replace") for engine in group}
                if not uuids <= block.uuids:
                    block.uuids |= uuids
                    self.changed(block, now)
                if block.state.is_queued:
                    self.started(block, now)
            elif block.uuids and block.left is None and now >= block.awaited:
                block.left, has_lost = now, True
            self._look_at(block, now)
        return has_lost

    def _adopt(self, name: str, engines: int, now: float) -> None:
        size = max(engines, self.settings.engines_per_block)
        block = PooledBlock(name, size, BlockState.RUNNING, asked=now, started=now)
        self.blocks[name] = block
        log.warning(
            "an engine of a block that this hub does not know has registered: the hub takes the block up",
            pool=self.name,
            block=name,
        )
        self.changed(block, now)

    def _look_at(self, block: PooledBlock, now: float) -> None:
        """Note what the presence or absence of its engines says about a block."""
        if block.state is BlockState.CANCELLED:
            if not block.present and self._is_presumed_gone(block, now):
                self.ended(block, now)
            return
        if block.is_known_by_its_engines_only and block.left is not None:
            self.ended(block, now)
        elif block.is_unresolved and block.unanswered is not None and now >= block.awaited:
            self.give_up_unresolved(block, now)
        elif block.started is not None and now - block.started >= self.settings.startup_timeout:
            missing = block.engines - len(block.uuids)
            if block.present and missing > 0 and block.begin_once("fewer engines"):
                block.words = block.words or f"has brought {len(block.uuids)} of {block.engines} engines"
                log.warning(
                    "a block has brought fewer engines than were asked for",
                    pool=self.name,
                    block=block.name,
                    engines=len(block.uuids),
                    wanted=block.engines,
                    seconds=self.settings.startup_timeout,
                )

    def give_up_unresolved(self, block: PooledBlock, now: float) -> None:
        """Forget a block that was presumably never accepted."""
        log.warning(
            "the hub gives up a block that an earlier hub has begun to submit: neither a job nor an engine was found",
            pool=self.name,
            block=block.name,
        )
        self.ended(block, now)

    def _is_presumed_gone(self, block: PooledBlock, now: float) -> bool:
        """Return whether a cancelled block without engines has ended, although no batch system says so."""
        if block.is_known_by_its_engines_only or block.is_over:
            return True
        if block.released is None:
            return False
        return self.is_asked_in_vain or (block.unanswered is not None and now - block.unanswered >= PRESUMED_GONE)

    # Decisions

    def decided(self, decision: Decision) -> None:
        """Note a decision. Failures of blocks are noted when the decision is carried out."""
        before = self.memory
        self.decision = decision
        self.memory = decision.memory
        if any(cancellation.failed for cancellation in decision.cancel):
            self.memory = replace(
                self.memory,
                failures=before.failures,
                failed=before.failed,
                words=before.words,
                paused_until=before.paused_until,
            )

    def begin(self, now: float) -> PooledBlock:
        """Return a new block, which is to be submitted."""
        block = PooledBlock(new_name(self.name), self.settings.engines_per_block, BlockState.ASKED, now)
        block.is_submitting = True
        self.blocks[block.name] = block
        self.counts["submitted"] += 1
        self.steady_since = now
        return block

    def submitted(self, block: PooledBlock, job: Job, now: float) -> None:
        """Note that the batch system has accepted a block."""
        block.job, block.is_submitting = job, False
        log.info("a block was submitted", pool=self.name, block=block.name, engines=block.engines, job=block.job_text)
        self._announce(block)
        if self.is_asked_in_vain and block.state is BlockState.ASKED:  # else nobody would ever say that it runs
            self.started(block, now)
        self.changed(block, now)

    def found(self, block: PooledBlock, job: Job, now: float) -> None:
        """Note the job of a block whose submission an earlier hub has begun."""
        block.job = job
        self.changed(block, now)

    def _announce(self, block: PooledBlock) -> None:
        """Tell that a block was accepted. Its engines may come before the answer of the batch system does."""
        if block.begin_once("submitted"):
            self._tell(BlockSubmitted(self.name, block.name, block.engines))

    def refused(self, block: PooledBlock, words: str, now: float) -> None:
        """Note that a block was refused."""
        block.is_submitting = False
        self.fail(block, words, now)
        self._remove(block, "refused", now)
        log.error(
            "a block was refused",
            pool=self.name,
            block=block.name,
            words=words,
            failures=self.memory.failures,
            seconds=self._pause(now),
        )
        self._tell(BlockEnded(self.name, block.name, failed=True, words=words))

    def cancel(self, cancellation: Cancellation, now: float) -> PooledBlock | None:
        """Note that a block is to be cancelled, and return it. Return None if that has to wait, or was noted before.

        A block that has lost its engines is looked at first: the batch system presumably has words for what happened.
        """
        block = self.blocks.get(cancellation.block)
        if block is None or block.state is BlockState.CANCELLED:
            return None
        if cancellation.word == "no_engines" and not (block.uuids and self._is_looked_at(block, now)):
            return None
        block.state = BlockState.CANCELLED
        block.words = cancellation.text
        if cancellation.failed:
            self.fail(block, cancellation.text, now)
            log.error(
                "a block has failed, and is cancelled",
                pool=self.name,
                block=block.name,
                words=cancellation.text,
                failures=self.memory.failures,
                seconds=self._pause(now),
            )
        else:
            log.info("a block is cancelled", pool=self.name, block=block.name, words=cancellation.text)
        self.changed(block, now)
        return block

    def _is_looked_at(self, block: PooledBlock, now: float) -> bool:
        """Return whether the batch system still had the block when it was asked after the engines had left."""
        if block.is_known_by_its_engines_only or self.is_asked_in_vain:
            return True
        if block.left is None:
            return False
        patience = LONG_PATIENCE if block.is_ending else PATIENCE
        return (block.seen is not None and block.seen > block.left + LEAVING) or now - block.left > patience

    def give_up(self, block: PooledBlock, why: str, now: float) -> None:
        """Note that a block is to be cancelled for another reason than a decision."""
        if block.state is not BlockState.CANCELLED:
            block.state, block.words = BlockState.CANCELLED, why
            self.changed(block, now)

    # States

    def started(self, block: PooledBlock, now: float) -> None:
        block.state, block.started, block.is_unresolved = BlockState.RUNNING, now, False
        if block.is_submitting:
            self._announce(block)
        log.info("a block runs", pool=self.name, block=block.name, seconds=round(now - block.asked, 1))
        self._tell(BlockStarted(self.name, block.name))
        self.changed(block, now)

    def ended(self, block: PooledBlock, now: float, *, words: str = "") -> None:
        """Note that a block has ended. If it was not cancelled, and has not failed, it has ended by itself."""
        words = words or block.words
        how = "failed" if block.is_failed else "cancelled" if block.state is BlockState.CANCELLED else "ended"
        self._remove(block, how, now)
        if how == "failed" and block.state is not BlockState.CANCELLED:
            log.error(
                "a block has failed",
                pool=self.name,
                block=block.name,
                words=words or None,
                engines=len(block.uuids),
                failures=self.memory.failures,
                seconds=self._pause(now),
            )
        else:
            log.info("a block has ended", pool=self.name, block=block.name, words=words or None)
        self._tell(BlockEnded(self.name, block.name, failed=block.is_failed, words=words))

    def fail(self, block: PooledBlock, words: str, now: float) -> None:
        """Count a block as failed, so that the pool pauses."""
        block.is_failed = True
        self.memory = self.memory.after_failure(self.settings, now, words, block.asked)

    def _pause(self, now: float) -> float:
        """Return the seconds until the next block may be asked for."""
        return round(max(self.memory.paused_until - now, 0.0), 1)

    def _remove(self, block: PooledBlock, how: str, now: float) -> None:
        self.spent += block.engine_seconds(now)
        self.counts[how] += 1
        del self.blocks[block.name]
        self.steady_since = now
        self._save(block.name)

    def changed(self, block: PooledBlock, now: float) -> None:
        """Note that a block has changed, and have its record written."""
        self.steady_since = now
        self._save(block.name)
