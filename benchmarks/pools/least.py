"""The least possible number of engine-hours for a given waiting time."""

from __future__ import annotations

from collections.abc import Iterable

from .loads import Task

__all__ = ["Least", "least"]


class Least:
    """The least engine-hours with which each task could start when it did, and the blocks that it takes.

    - ``engine_hours``: engine-hours, with the starts of engines;
    - ``blocks``: the number of blocks that are started.
    """

    def __init__(self, engine_hours: float, blocks: int) -> None:
        self.engine_hours = engine_hours
        self.blocks = blocks


def least(tasks: Iterable[Task], startup: float, engines_per_block: int = 1) -> Least:
    """Return the least possible engine-hours for a load, if each task starts when the simulation has started it.

    Somebody who knows the future starts each block so that it is there just in time, and between two uses keeps it or
    starts another, whichever is cheaper. The n-th block is used while more than n - 1 blocks' worth of tasks run. That
    tasks cannot move from one block to another is not counted, so that no real scheduler could do with less.
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
