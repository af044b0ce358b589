"""The errors of requests, in groups of equal type and text."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["Failure", "Failures", "without_ansi"]

MAX_GROUPS = 200
"""The number of groups to keep: those with the latest errors."""
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")


@dataclass(slots=True)
class Failure:
    """All errors of one type and text: their number, the times of the first and the last, and the last task."""

    ename: str
    evalue: str
    count: int
    first: float
    last: float
    msg_id: str
    engine_id: int | None


class Failures:
    """Counts errors by type and text."""

    def __init__(self, limit: int = MAX_GROUPS) -> None:
        self._groups: OrderedDict[tuple[str, str], Failure] = OrderedDict()
        self._limit = limit

    def add(self, ename: str, evalue: str, now: float, msg_id: str, engine_id: int | None) -> None:
        """Count the error of a failed request."""
        key = (ename, evalue)
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = Failure(ename, evalue, 1, now, now, msg_id, engine_id)
            if len(self._groups) > self._limit:
                self._groups.popitem(last=False)
            return
        group.count += 1
        group.last = now
        group.msg_id = msg_id
        group.engine_id = engine_id
        self._groups.move_to_end(key)

    def groups(self) -> list[Failure]:
        """Return all groups, the one with the latest error first."""
        return list(reversed(self._groups.values()))


def without_ansi(text: str) -> str:
    """Return a text without the escape sequences of terminals."""
    return _ANSI.sub("", text)
