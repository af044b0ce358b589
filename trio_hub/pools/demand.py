"""What the queued tasks need: how many there are, of what kind, and how long they will presumably run."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from ..schedulers.rules import Needs

__all__ = ["LONG_RUNTIME", "Demand", "Queued", "RunTimes"]

LONG_RUNTIME = 60.0
"""Seconds. A task that runs for so long is worth an engine of its own."""


@dataclass(frozen=True, slots=True)
class Queued:
    """Queued tasks that are alike. Tasks that only certain engines may run (their targets) do not belong here.

    - ``tasks``: their number;
    - ``needs``: what each of them needs of an engine;
    - ``priority``: their priority. Tasks with a higher priority are given a pool first;
    - ``runtime``: the expected seconds of each task, see `RunTimes.expected`; None if nothing is known. Then each
      task is presumed to be long;
    - ``max_runtime``: the seconds for which each task may run by its rules; 0: no limit.
    """

    tasks: int
    needs: Needs = ()
    priority: int = 0
    runtime: float | None = None
    max_runtime: float = 0.0


Demand = tuple[Queued, ...]
"""All queued tasks, in groups of any order. Of groups with the same priority, the first is given a pool first."""


class RunTimes:
    """Estimates of run times by label, from the run times of earlier tasks.

    A label is whatever tells kinds of tasks apart, such as the label that the client gave, or the name of the function.

    Args:
        most: the number of labels that are remembered. The label that was used least recently is forgotten first.
    """

    WEIGHT = 0.1
    """The weight of the newest run time in the average of a label, after the first `1 / WEIGHT` run times."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._labels: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, label: str, seconds: float) -> None:
        """Note that a task with this label has run for so many seconds."""
        average, number = self._labels.pop(label, (0.0, 0))
        number += 1
        average += (seconds - average) * max(1 / number, self.WEIGHT)
        self._labels[label] = (average, number)
        if len(self._labels) > self._most:
            self._labels.popitem(last=False)

    def expected(self, label: str, longest_running: float = 0.0) -> float | None:
        """Return the expected run time in seconds of a task with this label; None if nothing is known.

        Args:
            label: the label.
            longest_running: the seconds for which a task with this label has already been running. They count only if
                no task with the label has ended: then others presumably take at least as long.
        """
        if label in self._labels:
            self._labels.move_to_end(label)
            return self._labels[label][0]
        return longest_running if longest_running >= LONG_RUNTIME else None

    def remaining(self, label: str, elapsed: float) -> float:
        """Return the expected seconds until a task ends that has been running for ``elapsed`` seconds.

        A task that has run for longer than expected presumably runs for half as long again. If nothing is known of the
        label, nobody can count on an end: then the answer is infinite.
        """
        if label not in self._labels:
            return math.inf
        expected = self._labels[label][0]
        return max(expected - elapsed, elapsed / 2)
