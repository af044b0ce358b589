"""The errors of requests, in groups with the same exception and the same raising line."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Failure", "Failures"]

MAX_GROUPS = 200
"""The number of groups to keep: the groups with the latest errors."""
MAX_KEPT = 100_000
"""The number of failed tasks whose msg_ids are kept, over all groups: the tasks that failed last."""
MAX_EXAMPLES = 5
"""The number of different texts that are kept of each group: the latest texts."""
MAX_COUNTED = 100
"""The maximum number of labels, and of engines, that are counted separately in each group."""
MAX_LISTED = 8
"""The maximum number of labels, and of engines, that an answer lists for each group: those with the most errors."""
MINUTES = 60
"""The number of minutes for which the errors of each minute are counted."""
_VARYING = re.compile(r"\b[0-9a-f]{8,}(?:[-_][0-9a-f]+)*\b|\d+", re.IGNORECASE)
"""The parts of a text that differ between equal errors: ids and numbers."""


@dataclass(slots=True)
class Failure:
    """A group of errors.

    - ``number``: the number of the group, which no other group gets;
    - ``where``: the line that raised the errors; empty if no traceback names one, as when an engine dies;
    - ``evalue``, ``msg_id``, ``engine_id``: the text, the task and the engine of the latest error;
    - ``first``, ``last``: the times of the first and the latest error, in Unix seconds;
    - ``labels``, ``engines``: the number of errors by number of the label, and by id of the engine;
    - ``examples``: the latest texts, each once.
    """

    number: int
    ename: str
    where: str
    evalue: str
    first: float
    last: float
    msg_id: str
    engine_id: int | None
    count: int = 0
    labels: dict[int, int] = field(default_factory=dict)
    engines: dict[int, int] = field(default_factory=dict)
    examples: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _minutes: list[int] = field(default_factory=lambda: [0] * MINUTES)
    _minute: int = 0

    def add(self, evalue: str, now: float, msg_id: str, engine_id: int | None, label: int | None) -> None:
        """Count an error."""
        self.count += 1
        self.last, self.evalue, self.msg_id, self.engine_id = now, evalue, msg_id, engine_id
        self._pass_until(now)
        self._minutes[self._minute % MINUTES] += 1
        for counts, key in ((self.labels, label), (self.engines, engine_id)):
            if key is not None and (key in counts or len(counts) < MAX_COUNTED):
                counts[key] = counts.get(key, 0) + 1
        self.examples[evalue] = None
        self.examples.move_to_end(evalue)
        if len(self.examples) > MAX_EXAMPLES:
            self.examples.popitem(last=False)

    def _pass_until(self, now: float) -> None:
        """Set the counts of the minutes that have begun since the latest error to 0."""
        minute = int(now // 60)
        for passed in range(max(self._minute + 1, minute - MINUTES + 1), minute + 1):
            self._minutes[passed % MINUTES] = 0
        self._minute = max(self._minute, minute)

    def per_minute(self, now: float) -> list[int]:
        """Return the number of errors in each of the last `MINUTES` minutes, the oldest minute first."""
        self._pass_until(now)
        return [self._minutes[(self._minute + 1 + place) % MINUTES] for place in range(MINUTES)]

    def as_dict(self, now: float, names: list[str]) -> dict[str, Any]:
        """Return the group for an answer. `names` are the names of labels by number."""
        return {
            "group": self.number,
            "ename": self.ename,
            "where": self.where,
            "evalue": self.evalue,
            "count": self.count,
            "first": self.first,
            "last": self.last,
            "msg_id": self.msg_id,
            "engine_id": self.engine_id,
            "labels": [{"label": names[label], "count": count} for label, count in _most(self.labels)],
            "labels_more": max(0, len(self.labels) - MAX_LISTED),
            "engines": [{"id": engine, "count": count} for engine, count in _most(self.engines)],
            "engines_more": max(0, len(self.engines) - MAX_LISTED),
            "examples": list(reversed(self.examples)),
            "per_minute": self.per_minute(now),
        }


def _most(counts: dict[int, int]) -> list[tuple[int, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_LISTED]


class Failures:
    """Counts errors by exception and raising line.

    An error without a known line, such as the death of an engine, is grouped by its text, without ids and numbers.
    """

    def __init__(self, limit: int = MAX_GROUPS, kept: int = MAX_KEPT) -> None:
        self._groups: OrderedDict[tuple[str, str, str], Failure] = OrderedDict()
        self._limit = limit
        self._failed: deque[tuple[int, str]] = deque(maxlen=kept)
        self._number = 0

    def add(
        self,
        ename: str,
        evalue: str,
        now: float,
        msg_id: str,
        engine_id: int | None,
        where: str = "",
        label: int | None = None,
    ) -> None:
        """Count the error of a failed request."""
        key = (ename, where, "" if where else _VARYING.sub("…", evalue))
        group = self._groups.get(key)
        if group is None:
            self._number += 1
            group = self._groups[key] = Failure(self._number, ename, where, evalue, now, now, msg_id, engine_id)
            if len(self._groups) > self._limit:
                self._groups.popitem(last=False)
        group.add(evalue, now, msg_id, engine_id, label)
        self._failed.append((group.number, msg_id))
        self._groups.move_to_end(key)

    def groups(self) -> list[Failure]:
        """Return all groups, the one with the latest error first."""
        return list(reversed(self._groups.values()))

    def msg_ids(self, number: int) -> list[str]:
        """Return the msg_ids of the tasks of a group, each once, as far as they are kept. Raises `KeyError`."""
        if not any(group.number == number for group in self._groups.values()):
            raise KeyError(f"there is no group {number} of failures (any more)")
        return list(dict.fromkeys(msg_id for group, msg_id in self._failed if group == number))
