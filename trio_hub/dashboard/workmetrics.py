"""The metrics of controlled work: priorities, needs, cancels, limits and drains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..schedulers.matching import AMOUNT_UNIT
from .samples import HubMetric, Numbers, Samples, each, one

__all__ = ["WORK_METRICS"]

MAX_NAMED = 50
"""The maximum number of priorities, needs or amounts with values of their own. Clients choose them."""
OTHER = "(other)"
"""The name under which all other priorities, needs or amounts are counted together."""


def _limited(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the largest `MAX_NAMED` counts by name, and the sum of the others."""
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = dict(largest[:MAX_NAMED])
    if others := largest[MAX_NAMED:]:
        found[OTHER] = sum(count for _, count in others)
    return found


def _by_priority(numbers: Numbers) -> dict[str, float]:
    lengths = numbers.hub.core.tasks.scheduler.queue.lengths_by_priority()
    return _limited({str(priority): length for priority, length in ({0: 0} | lengths).items()})


def _by_need(numbers: Numbers) -> dict[str, float]:
    return _limited(numbers.hub.core.tasks.scheduler.placement.matching.tasks_by_need())


def _amounts(numbers: Numbers) -> Samples:
    """Return the sum of each amount that engines offer, as far as tasks ask for it: how much is free and in use."""
    free: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for worker in numbers.hub.core.tasks.scheduler.workers.values():
        kind = worker.kind
        if kind is not None:
            for name, amount, left in zip(kind.names, kind.amounts, worker.free, strict=True):
                free[name] += max(left, 0)
                used[name] += amount - left
    for use, counts in (("free", free), ("used", used)):
        for name, count in _limited(counts).items():
            yield (name, use), count * AMOUNT_UNIT


WORK_METRICS: tuple[HubMetric, ...] = (
    HubMetric(
        "trio_hub_tasks_queued_by_priority",
        "gauge",
        "Queued tasks now, by priority. With more than 50 priorities, those with the fewest tasks count as (other).",
        ("priority",),
        each(_by_priority),
    ),
    HubMetric(
        "trio_hub_tasks_by_need",
        "gauge",
        "Unfinished tasks that need an amount or a tag of this name. A task with several needs counts for each.",
        ("need",),
        each(_by_need),
    ),
    HubMetric(
        "trio_hub_amounts",
        "gauge",
        "Amounts that all engines offer together, by use: free or used. Only amounts that tasks have asked for.",
        ("amount", "use"),
        _amounts,
    ),
    HubMetric(
        "trio_hub_cancels_total",
        "counter",
        "Requests that somebody has asked to cancel: withdrawn, interrupted or unknown.",
        ("what",),
        each(lambda numbers: numbers.statistics.cancelled),
    ),
    HubMetric(
        "trio_hub_tasks_too_long_total",
        "counter",
        "Tasks that were interrupted since they ran for longer than their max_runtime.",
        (),
        one(lambda numbers: numbers.statistics.ran_too_long),
    ),
    HubMetric(
        "trio_hub_interrupts_astray_total",
        "counter",
        "Interrupts that have hit another request, which was run again or answered with an error.",
        (),
        one(lambda numbers: numbers.statistics.interrupts_astray),
    ),
    HubMetric(
        "trio_hub_engines_killed_total",
        "counter",
        "Engines that were killed since a request did not end after it was interrupted.",
        (),
        one(lambda numbers: numbers.statistics.engines_killed),
    ),
    HubMetric(
        "trio_hub_engines_drained",
        "gauge",
        "Engines that are drained now.",
        (),
        one(lambda numbers: numbers.statistics.engines_drained),
    ),
)
