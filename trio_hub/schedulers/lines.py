"""The lines of queued tasks: which engines may take tasks from which line."""

from __future__ import annotations

from collections.abc import Iterator, Set

from .levels import Line, LineKey
from .matching import Matching
from .task import Task

__all__ = ["Lines"]


class Lines:
    """All lines. Each line but ``anyone`` has a task.

    Args:
        matching: see `trio_hub.schedulers.fairqueue.FairQueue`.
    """

    def __init__(self, matching: Matching | None) -> None:
        self._matching = matching
        self.anyone = Line((None, frozenset(), None), 0)
        """The tasks that any engine may run: they have no targets and no needs, and no engine has refused them."""
        self._by_key: dict[LineKey, Line] = {self.anyone.key: self.anyone}
        self._by_engine: dict[bytes, dict[LineKey, Line]] = {}
        """The lines of tasks with targets, by each engine that may run them."""
        self._not_everyone: dict[LineKey, Line] = {}
        """The lines of tasks without targets that an engine has refused."""

    def __iter__(self) -> Iterator[Line]:
        return iter(self._by_key.values())

    @property
    def keep_nothing(self) -> bool:
        """Whether there is no line but ``anyone``."""
        return len(self._by_key) == 1 and not self._by_engine and not self._not_everyone

    @property
    def targets(self) -> set[bytes]:
        """The engines that have lines of their own."""
        return set(self._by_engine)

    def of(self, task: Task, taken: int) -> Line:
        """Return the line of a task, which may be a new one.

        Args:
            task: The task.
            taken: The number of tasks that have been taken from the queue.
        """
        key = (task.targets, task.refused, task.demand)
        line = self._by_key.get(key)
        if line is None:
            line = self._by_key[key] = Line(key, taken)
            targets, refused, demand = key
            if targets is not None:
                for ident in targets - refused:
                    self._by_engine.setdefault(ident, {})[key] = line
            elif refused:
                self._not_everyone[key] = line
            else:
                assert demand is not None
                demand.open(line)
        return line

    def close(self, line: Line) -> None:
        """Remove a line that has no tasks any more."""
        del self._by_key[line.key]
        if line.targets is not None:
            for ident in line.targets - line.refused:
                lines = self._by_engine[ident]
                del lines[line.key]
                if not lines:
                    del self._by_engine[ident]
        elif line.refused:
            del self._not_everyone[line.key]
        else:
            assert line.demand is not None
            line.demand.close()

    def open_to(self, ident: bytes) -> list[Line]:
        """Return the lines from which an engine may take tasks, without the lines in `Kind.wanted` of its kind."""
        lines = [self.anyone]
        if ident in self._by_engine:
            lines += self._by_engine[ident].values()
        for line in self._not_everyone.values() if self._not_everyone else ():
            if ident not in line.refused:
                lines.append(line)
        return lines

    def confined_to(self, ident: bytes, others: Set[bytes]) -> list[Line]:
        """Return the lines whose tasks only this engine could run, which has gone.

        Args:
            ident: The engine.
            others: The engines that remain.
        """
        confined = []
        for line in [*self._by_engine.get(ident, {}).values(), *self._not_everyone.values()]:
            targets, refused = line.targets, line.refused
            if line.demand is not None and self._matching is not None:
                nobody_left = not self._matching.somebody_meets(line.demand, refused, targets)
            elif targets is None:
                nobody_left = len(others) <= len(refused) and ident not in refused and others <= refused
            else:
                nobody_left = others.isdisjoint(targets - refused)
            if nobody_left:
                confined.append(line)
        return confined
