"""What a pool has: its engines, and the blocks that it has asked for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import Enum

from ..schedulers.rules import Needs

__all__ = ["Block", "BlockState", "Engine", "Supply"]


class BlockState(Enum):
    """What has become of a block. A block that has ended is not listed any more."""

    ASKED = "asked"
    """The block was submitted, and the batch system has not said yet what has become of it."""
    WAITING = "waiting"
    """The block waits in the queue of the batch system."""
    RUNNING = "running"
    """The block has its nodes. Its engines register, or have registered."""
    CANCELLED = "cancelled"
    """The batch system was asked to cancel the block, which has not ended yet."""

    @property
    def is_queued(self) -> bool:
        """Whether the block takes up a place of the setting ``backlog``."""
        return self in (BlockState.ASKED, BlockState.WAITING)


@dataclass(frozen=True, slots=True)
class Block:
    """One job of the batch system, which brings engines.

    - ``ident``: the name by which the hub knows the block;
    - ``engines``: the number of engines that it was submitted for;
    - ``state``: see `BlockState`;
    - ``asked``: when it was submitted;
    - ``started``: when it got its nodes; None before that;
    - ``arrived``: the number of its engines that have registered so far, whether they are still there or not.
    """

    ident: str
    engines: int
    state: BlockState
    asked: float
    started: float | None = None
    arrived: int = 0

    def coming(self, now: float, startup_timeout: float) -> int:
        """Return the number of engines that are still to be expected from the block."""
        if self.state is BlockState.CANCELLED:
            return 0
        if self.started is not None and now - self.started >= startup_timeout:
            return 0
        return max(self.engines - self.arrived, 0)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is registered and alive.

    - ``ident``: its identity;
    - ``block``: the block that brought it;
    - ``idle_since``: when it had its last task or direct request; None if it has one now;
    - ``busy_for``: the expected seconds until its tasks have ended, see `RunTimes.remaining`; 0 if it has none;
    - ``direct``: the number of direct requests and shares of broadcasts that it has not answered;
    - ``addressed``: when a client last sent it a direct request, or a broadcast to chosen engines; None: never;
    - ``draining``: whether the engine gets no new tasks, because somebody or its pool has drained it, or because it was
      told to end or is being killed;
    - ``retiring``: whether a decision of its pool has drained the engine (`Decision.drain`);
    - ``ends``: when the time limit of its block ends it;
    - ``offers``: its tags and amounts. They matter only for engines that belong to no pool. The engines of a pool offer
      what the settings of the pool say.
    """

    ident: bytes
    block: str = ""
    idle_since: float | None = None
    busy_for: float = 0.0
    direct: int = 0
    addressed: float | None = None
    draining: bool = False
    retiring: bool = False
    ends: float = math.inf
    offers: Needs = ()

    @property
    def is_idle(self) -> bool:
        """Whether the engine runs nothing and holds no direct request."""
        return self.idle_since is not None and not self.direct

    @property
    def stays(self) -> bool:
        """Whether the engine gets new tasks."""
        return not (self.draining or self.retiring)

    def available(self, now: float, window: float) -> float:
        """Return the part of the next ``window`` seconds in which the engine can run tasks that are queued now."""
        if not self.stays:
            return 0.0
        seconds = min(window, self.ends - now) - (0.0 if self.is_idle else self.busy_for)
        return max(seconds / window, 0.0)


@dataclass(frozen=True, slots=True)
class Supply:
    """The engines and blocks of one pool."""

    engines: tuple[Engine, ...] = ()
    blocks: tuple[Block, ...] = ()

    def size(self) -> int:
        """Return the number of engines that count towards ``max``: the engines of all blocks that have not ended.

        A block counts as a whole, since its nodes are in use even if engines have ended or have not come.
        """
        there = Counter(engine.block for engine in self.engines)
        return sum(max(block.engines, there.pop(block.ident, 0)) for block in self.blocks) + there.total()

    def coming(self, now: float, startup_timeout: float) -> int:
        """Return the number of engines that are still to be expected from all blocks. See `Block.coming`."""
        return sum(block.coming(now, startup_timeout) for block in self.blocks)
