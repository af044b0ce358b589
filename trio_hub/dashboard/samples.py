"""What a metric is: its name, and how its values are made from the numbers of a hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from ..runtime import DatabaseStatistics, RunningHub, Statistics
from .histogram import Histogram
from .pools import Pool
from .timings import Timings

__all__ = ["HubMetric", "Numbers", "Samples", "each", "one"]


class Numbers(NamedTuple):
    """The numbers from which metrics are made."""

    hub: RunningHub
    statistics: Statistics
    timings: Timings
    pools: Sequence[Pool]

    @property
    def database(self) -> DatabaseStatistics:
        return self.statistics.database


Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float | Histogram]]
"""The values of a metric, each with the values of its labels."""


class HubMetric(NamedTuple):
    """One metric: its name, type, help text, names of labels, and the function that returns its values."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...]
    samples: Callable[[Numbers], Samples]


def one(value: Callable[[Numbers], float | Histogram]) -> Callable[[Numbers], Samples]:
    """Return the function for a metric without labels."""
    return lambda numbers: [((), value(numbers))]


def each(values: Callable[[Numbers], Mapping[str, float] | Mapping[str, Histogram]]) -> Callable[[Numbers], Samples]:
    """Return the function for a metric with one label."""
    return lambda numbers: [((label,), value) for label, value in values(numbers).items()]
