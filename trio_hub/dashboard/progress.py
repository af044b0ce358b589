"""How far the work is, by label."""

from __future__ import annotations

from typing import Any

from ..wire.plain import printable
from .bars import Bars

__all__ = ["EARLIER", "OTHER", "Progress"]

MAX_LABELS = 1000
"""Labels that are counted apart."""
OTHER = "(other)"
"""What the labels beyond these are counted under."""
EARLIER = "(earlier)"
"""What requests are counted under that were there before the dashboard."""


class Progress:
    """Counts requests by label. A label has a number, which is its place in every list here."""

    def __init__(self, limit: int = MAX_LABELS) -> None:
        self.names: list[str] = []
        self.submitted: list[int] = []
        self.outcomes: tuple[list[int], list[int], list[int]] = ([], [], [])
        """Requests answered, by place in `trio_hub.dashboard.bars.STATUSES`, then by label."""
        self.seconds: list[float] = []
        """How long those have run together that have run and were answered."""
        self.timed: list[int] = []
        """How many these are."""
        self._numbers: dict[str, int] = {}
        self._limit = limit
        self._number(OTHER)

    def submit(self, label: str) -> int:
        """A request has come; the number of its label."""
        number = self._numbers.get(label)
        if number is None:
            number = self._number(label)
        self.submitted[number] += 1
        return number

    def end(self, number: int, status: int, seconds: float | None) -> None:
        """A request of this label is answered. `seconds`: how long it has run, None if it has not."""
        self.outcomes[status][number] += 1
        if seconds is not None:
            self.seconds[number] += seconds
            self.timed[number] += 1

    def _number(self, label: str) -> int:
        if len(self.names) >= self._limit:
            return 0
        number = self._numbers[label] = len(self.names)
        self.names.append(printable(label))  # since pages show it, and many messages have it
        for counts in (self.submitted, *self.outcomes, self.timed):
            counts.append(0)
        self.seconds.append(0.0)
        return number

    def table(self, bars: Bars) -> list[dict[str, Any]]:
        """A row a label, those without requests left out."""
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
                "error": error[number],
                "aborted": aborted[number],
                "run_seconds": self.seconds[number] / self.timed[number] if self.timed[number] else None,
            }
            for number, name in enumerate(self.names)
            if self.submitted[number]
        ]
