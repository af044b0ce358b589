"""The queue of tasks: higher priorities first, then sessions in turn, then first-in-first-out within a session.

A burst of 100,000 tasks from one client delays another client's next task by one task, not by 100,000. A task that only
some engines may run does not block the tasks behind it: there is a `Line` of tasks for each set of allowed engines and
each demand, and only engines that may run its tasks take tasks from it.

**Ageing.** Tasks of a low priority do not starve, although there is no clock. The queue counts the tasks that are
taken. With *n* levels, one for each priority in each line, a level is *overdue* when more than ``LATE * n`` tasks were
taken since a task was last taken from it. An engine takes from the level that has been overdue for the longest first,
whatever its priority. Each level is served like this at most once in ``LATE * n`` tasks, so at most one task of `LATE`
is taken out of turn. An overdue level waits for at most *n* - 1 other overdue levels. So a task that is behind *k*
tasks in its level begins after at most ``(k + 1) * (LATE + 1) * n`` tasks were taken by engines that may run it.

**Reservation.** A task that needs a large amount does not starve, either, behind tasks that need little and keep an
engine's amounts in use. When a line is overdue, and an engine offers enough but has not enough free, the engine is
*reserved*: it takes nothing until it has enough free. One engine at a time is reserved for a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

from .levels import Level, Line, Turns
from .lines import Lines
from .matching import Demand, Matching
from .task import Task, Worker

__all__ = ["LATE", "FairQueue"]

LATE = 16
"""At most one task in this number is taken out of turn."""


class FairQueue:
    """The queued tasks.

    Pushing and taking cost O(log n) in the sessions and in the tasks that did not come in their order, O(1) in engines
    and in other tasks, and O(n) in the number of lines from which the engine may take.

    Args:
        matching: knows which engines can run the tasks with a demand. Without it, no task has one.
    """

    def __init__(self, matching: Matching | None = None) -> None:
        self._matching = matching
        self.lines = Lines(matching)
        self._anyone = self.lines.anyone
        """The tasks that any engine may run. This line always has a level, which may be empty."""
        self._turns: dict[int, Turns] = {}
        """The turns of each priority that has queued tasks."""
        self._levels = 0
        self._length = 0
        self._taken = 0
        self.out_of_turn = 0
        """The number of tasks that were taken before tasks of a higher priority, since their level was overdue."""
        self.unreserved: list[Worker] = []
        """Engines that were reserved for tasks that are not queued any more. The caller feeds them."""
        self._only: Level | None = self._open_level(self._anyone, 0)
        """The only level, if there is only one, as long as no task has targets, needs or a priority of its own."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Task]:
        for line in self.lines:
            yield from line

    @property
    def keeps_nothing(self) -> bool:
        """Whether the queue keeps nothing at all, as it must when it is empty."""
        levels = self._anyone.levels
        return (
            not self._length
            and self.lines.keep_nothing
            and not any(level.pools for level in levels.values())
            and not any(turns.sessions for turns in self._turns.values())
            and len(levels) == len(self._turns) == self._levels == 1
        )

    def lengths(self) -> dict[str, int]:
        """Return the number of queued tasks of each client session that has any."""
        lengths: dict[str, int] = {}
        for turns in self._turns.values():
            for name, turn in turns.sessions.items():
                lengths[name] = lengths.get(name, 0) + turn.queued
        return lengths

    def lengths_by_priority(self) -> dict[int, int]:
        """Return the number of queued tasks of each priority that has any."""
        return {level: sum(turn.queued for turn in turns.sessions.values()) for level, turns in self._turns.items()}

    def levels(self) -> list[Level]:
        """Return the levels that have tasks, in no order."""
        return [level for line in self.lines for level in line.levels.values() if level.pools]

    def push(self, task: Task) -> None:
        """Add a task behind the tasks of its session that have lower numbers, and before those with higher numbers."""
        if task.targets is None and not task.refused and task.demand is None:
            line = self._anyone
        else:
            line = self.lines.of(task, self._taken)
        priority = task.rules.priority
        level = line.levels.get(priority)
        if level is None:
            level = self._open_level(line, priority)
        level.push(task)
        self._length += 1

    def take(self, ident: bytes, worker: Worker | None = None) -> Task | None:
        """Remove and return the next task that an engine may run; None if there is none. End its session's turn.

        Args:
            ident: The engine's identity.
            worker: The engine. Without it, only tasks without a demand are taken.
        """
        only = self._only
        level = self._choose(ident, worker) if only is None else only
        if level is None or not level.pools:
            return None
        self._taken += 1
        line = level.line
        level.served = line.served = self._taken
        if only is None:
            line.levels.move_to_end(level.priority)
        task = level.take()
        self._length -= 1
        if line.reserved is not None:
            self._unreserve(line, worker)
        if not level.pools and only is None:
            self._close(level)
        return task

    def passed_by(self) -> None:
        """Count a task with needs that got an engine at once, before the queued tasks that do not fit there yet."""
        self._taken += 1

    def remove(self, task: Task) -> None:
        """Remove a queued task. Costs O(1) for the first task of its session in its level."""
        level = self._level_of(task)
        level.remove(task)
        self._length -= 1
        if not level.pools:
            self._close(level)

    def remove_many(self, tasks: Iterable[Task]) -> None:
        """Remove queued tasks. Costs O(n) in the number of tasks that are queued in the same sessions and levels."""
        gone: dict[tuple[Level, str], set[int]] = {}
        for task in tasks:
            gone.setdefault((self._level_of(task), task.session), set()).add(task.number)
        for (level, session), numbers in gone.items():
            level.remove_many(session, numbers)
            self._length -= len(numbers)
            if not level.pools:
                self._close(level)

    def take_confined_to(self, ident: bytes, others: Set[bytes]) -> list[Task]:
        """Remove and return, oldest first, the tasks that only this engine may run. Called when the engine has gone.

        A task that any engine may run, and that no engine has refused, stays queued even if no engine remains, or none
        that meets its needs.

        Args:
            ident: The engine that has gone.
            others: The engines that remain.
        """
        taken: list[Task] = []
        for line in self.lines.confined_to(ident, others):
            for level in list(line.levels.values()):
                taken += level.clear()
                self._close(level)
        self._length -= len(taken)
        taken.sort(key=lambda task: task.number)
        return taken

    def _level_of(self, task: Task) -> Level:
        return self.lines.of(task, self._taken).levels[task.rules.priority]

    # Which level is next

    def _choose(self, ident: bytes, worker: Worker | None) -> Level | None:
        """Return the level from which an engine takes its next task; None if there is none or the engine is reserved.

        Without other priorities no level is overdue: then sessions take turns, and no task overtakes another of its
        session.
        """
        lines = self._open_to(ident, worker)
        best = overdue = None
        best_rank: Any = None
        for line in lines or ():
            level = line.best
            if level is None or not level.pools:
                continue
            if best is None:
                best = level
                continue
            if best_rank is None:
                best_rank = best.rank()
            rank = level.rank()
            if rank < best_rank:
                best, best_rank = level, rank
        if best is None or len(self._turns) == 1:
            return best
        late = self._taken - LATE * self._levels
        for line in lines or ():
            for level in line.levels.values():
                if level.priority < best.priority and level.pools:
                    if level.served < late and (overdue is None or level.served < overdue.served):
                        overdue = level
                    break  # the others of this line were served later
        if overdue is None:
            return best
        self.out_of_turn += 1
        return overdue

    def _open_to(self, ident: bytes, worker: Worker | None) -> list[Line] | None:
        """Return the lines from which an engine may take now; None if the engine is reserved for another line."""
        lines = self.lines.open_to(ident)
        if worker is None:
            return [line for line in lines if line.demand is None]
        assert worker.kind is not None
        lines += worker.kind.wanted.values()
        if len(lines) == 1:
            return lines
        matching = self._matching
        assert matching is not None
        may = []
        for line in lines:
            if line.demand is None or matching.fits(worker, line.demand):
                may.append(line)
            elif line.served < self._taken - LATE * self._levels and self._reserve(line, line.demand, worker):
                return None
        return may

    def _reserve(self, line: Line, demand: Demand, worker: Worker) -> bool:
        """Return whether an engine that has not enough free for the tasks of a line takes nothing, until it has."""
        if self._matching is None or not self._matching.fits_later(worker, demand):
            return False
        if line.reserved is not None and line.reserved is not worker and line.reserved.takes_tasks:
            return False
        line.reserved = worker
        worker.reserved = True
        return True

    def _unreserve(self, line: Line, worker: Worker | None) -> None:
        if line.reserved is not None and line.reserved is not worker:
            self.unreserved.append(line.reserved)
        line.reserved = None

    # Levels that come and go

    def _open_level(self, line: Line, priority: int) -> Level:
        for empty in [level for level in line.levels.values() if not level.pools]:
            self._close_level(empty)
        turns = self._turns.get(priority)
        if turns is None:
            turns = self._turns[priority] = Turns()
        self._levels += 1
        level = line.open(priority, turns, self._taken)
        self._only = level if self._levels == 1 else None
        return level

    def _close_level(self, level: Level) -> None:
        level.line.close(level)
        self._levels -= 1
        self._only = self._anyone.best if self._levels == 1 else None
        if not level.turns.levels:
            del self._turns[level.priority]

    def _close(self, level: Level) -> None:
        """Remove a level without tasks, and its line if the line has no other level.

        The last level of the tasks that any engine may run stays: while there are no rules, it is the only one.
        """
        line = level.line
        if line is self._anyone:
            if len(line.levels) > 1:
                self._close_level(level)
            return
        self._close_level(level)
        if not line.levels:
            self._unreserve(line, None)
            self.lines.close(line)
