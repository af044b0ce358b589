"""Loads with the shapes of recorded ones: working days, bursts, long tails, and idle nights.

The workload archives of batch systems agree on these shapes: jobs come in campaigns of like tasks, mostly in working
hours; the sizes of campaigns and the run times span several orders of magnitude; a few tasks take most of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

__all__ = ["Task", "constant", "days"]

HOUR, DAY = 3600.0, 86400.0


@dataclass(slots=True)
class Task:
    """A task: when it is submitted, how long it runs, its label; and when the simulation started it."""

    submitted: float
    runtime: float
    label: str
    started: float = -1.0


def constant(rng: Random, seconds: float, per_second: float, runtime: float) -> list[Task]:
    """Return a load that is the same all the time: tasks that come at random, and all run for about as long."""
    tasks, now = [], 0.0
    while (now := now + rng.expovariate(per_second)) < seconds:
        tasks.append(Task(now, runtime * rng.uniform(0.8, 1.2), "constant"))
    return tasks


def days(rng: Random, number: int, size: float = 1.0) -> list[Task]:
    """Return the load of some days.

    Args:
        rng: the random numbers.
        number: the number of days.
        size: how large campaigns are; with 1, the largest have thousands of tasks.
    """
    tasks: list[Task] = []
    for day in range(number):
        begin = day * DAY
        at_work = 0.3 if day % 7 in (5, 6) else 1.0
        # Campaigns: a user submits many like tasks at once. Most are small, some are very large.
        for submitted in _times(rng, begin, 8 * at_work):
            count = min(int(size * rng.lognormvariate(math.log(150), 1.3)) + 1, int(5000 * size) + 1)
            typical = min(max(rng.lognormvariate(math.log(180), 1.0), 5.0), 2 * HOUR)
            label = f"campaign {submitted:.0f}"
            for number_of_task in range(count):
                runtime = typical * rng.lognormvariate(0.0, 0.5)
                tasks.append(Task(submitted + number_of_task * 0.002, runtime, label))
        # Work in a notebook: a few short tasks, again and again.
        for submitted in _times(rng, begin, 60 * at_work):
            count = rng.randint(4, 64)
            tasks += [Task(submitted, rng.uniform(0.5, 5.0), "notebook") for _ in range(count)]
        # Single tasks with a long tail: minutes as a rule, hours now and then.
        for submitted in _times(rng, begin, 250 * size * at_work):
            runtime = min(120.0 * rng.paretovariate(1.2), 4 * HOUR)
            tasks.append(Task(submitted, runtime, "long tail"))
        # Every second night a campaign runs while nobody is there.
        if day % 2:
            tasks += [
                Task(begin + HOUR, 600.0 * rng.lognormvariate(0.0, 0.3), f"night {day}")
                for _ in range(int(1500 * size))
            ]
    tasks.sort(key=lambda task: task.submitted)
    return tasks


def _times(rng: Random, begin: float, per_day: float) -> list[float]:
    """Return the times of events in the working hours of a day, most of them about eleven and about three."""
    number = sum(1 for _ in range(int(per_day * 2)) if rng.random() < 0.5)
    hours = [rng.gauss(11, 1.3) if rng.random() < 0.5 else rng.gauss(15, 1.8) for _ in range(number)]
    return sorted(begin + min(max(hour, 7.0), 21.0) * HOUR for hour in hours)
