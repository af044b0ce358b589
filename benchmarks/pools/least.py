"""The least possible number of engine-hours for a given waiting time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .loads import Task

__all__ = ["Least", "least"]


@dataclass(frozen=True)
class Least:
    """The least engine-hours with which each task could start when the simulation has started it.

    - ``engine_hours``: engine-hours, with the starts of engines;
    - ``blocks``: the number of blocks that are started.
    """

    engine_hours: float
    blocks: int


def least(tasks: Iterable[Task], startup: float, engines_per_block: int = 1) -> Least:
    """Return the least possible engine-hours for a load, if each task starts when the simulation has started it.

    A scheduler that knows the future starts each block just in time. Between two uses of a block, it keeps the block or
    starts another block, whichever is cheaper. The n-th block is used while the running tasks fill more than n - 1
    blocks. Here tasks may move from one block to another, which real tasks cannot. So no real scheduler could do with
    less.
    """
    events: list[tuple[float, int]] = []
    for task in tasks:
        events += [(task.started, 1), (task.started + task.runtime, -1)]
    events.sort()
    seconds, blocks = 0.0, 0
    running = used = 0
    since: list[float] = []
    until: list[float] = []
    for now, change in events:
        running += change
        wanted = -(-running // engines_per_block)
        while used < wanted:
            used += 1
            if used > len(since):
                since.append(now)
                until.append(float("-inf"))
            gap = now - until[used - 1]
            seconds += min(gap, startup)
            blocks += gap > startup
            since[used - 1] = now
        while used > wanted:
            used -= 1
            until[used] = now
            seconds += now - since[used]
    return Least(seconds * engines_per_block / 3600, blocks)
