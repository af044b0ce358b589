"""The progress of requests, by label."""

from __future__ import annotations

from typing import Any

from ..wire.plain import printable
from .bars import Bars

__all__ = ["EARLIER", "OTHER", "Progress"]

MAX_LABELS = 1000
"""The maximum number of labels that are counted separately."""
OTHER = "(other)"
"""The label under which requests with further labels are counted."""
EARLIER = "(earlier)"
"""The label under which requests from before the start of the dashboard are counted."""


class Progress:
    """Counts requests by label. The number of a label is its index in all lists of this object."""

    def __init__(self, limit: int = MAX_LABELS) -> None:
        self.names: list[str] = []
        self.submitted: list[int] = []
        self.outcomes: tuple[list[int], list[int], list[int]] = ([], [], [])
        """The numbers of answered requests, by index in `trio_hub.dashboard.bars.STATUSES`, then by label."""
        self.seconds: list[float] = []
        """The total running time, in seconds, of the answered requests that have run."""
        self.timed: list[int] = []
        """The number of these requests."""
        self._numbers: dict[str, int] = {}
        self._limit = limit
        self._number(OTHER)

    def submit(self, label: str) -> int:
        """Count a submitted request. Return the number of its label."""
        number = self._numbers.get(label)
        if number is None:
            number = self._number(label)
        self.submitted[number] += 1
        return number

    def end(self, number: int, status: int, seconds: float | None) -> None:
        """Count an answered request of a label. `seconds` is its running time; None if it has not run."""
        self.outcomes[status][number] += 1
        if seconds is not None:
            self.seconds[number] += seconds
            self.timed[number] += 1

    def _number(self, label: str) -> int:
        if len(self.names) >= self._limit:
            return 0
        number = self._numbers[label] = len(self.names)
        self.names.append(printable(label))  # converted once, since many messages contain it
        for counts in (self.submitted, *self.outcomes, self.timed):
            counts.append(0)
        self.seconds.append(0.0)
        return number

    def table(self, bars: Bars) -> list[dict[str, Any]]:
        """Return one row per label. Labels without requests are left out."""
        running = [0] * len(self.names)
        for one in bars.running.values():
            running[one[4]] += 1
        ok, error, aborted = self.outcomes
        return [
            {
                "label": name,
                "submitted": self.submitted[number],
                "queued": self.submitted[number] - running[number] - ok[number] - error[number] - aborted[number],
                "running": running[number],
                "ok": ok[number],
                "failed": error[number],
                "aborted": aborted[number],
                "run_seconds": self.seconds[number] / self.timed[number] if self.timed[number] else None,
            }
            for number, name in enumerate(self.names)
            if self.submitted[number]
        ]
