"""The line with a million tasks: the memory that they leave behind."""

from __future__ import annotations

from ..cluster import cluster
from ..contenders import HUB, HUB_SQLITE, Contender
from ..line import Figure, Figures, Line, Target

__all__ = ["MILLION"]

PARTS = 10
REST = 5.0
"""Seconds from the end of a purge until memory is read. The hub gives memory back when it is idle."""


def measure(contender: Contender, tiny: bool) -> Figures:
    part = 100 if tiny else 100_000
    memory = []
    with cluster(contender, tiny=tiny) as one:
        one.client.patience = 300.0
        idle = one.controller.cost().memory
        for _ in range(PARTS):
            one.work("task", part, window=500)
            memory.append(one.controller.cost().memory)
        one.client.query("purge_request", {"msg_ids": "all", "engine_ids": []})
        cost, _ = one.controller.at_rest(0.0, 0.5 if tiny else REST)
        purged = cost.memory
    return {
        "idle": idle,
        "first": memory[0],
        "growth": max(memory[1:]) - memory[0],
        "purged": purged,
        "left": purged - idle,
        "left_beyond": purged - memory[0],
    }


MILLION = Line(
    "million",
    "A million tasks",
    "A client sends 1,000,000 tasks, with 500 outstanding at a time. Resident memory is read when the hub has just "
    "started, after each 100,000 tasks, and after a purge of all records. After the first 100,000 tasks, the hub has "
    "reached its limits: 100,000 records in memory, or the caches of SQLite. So its memory should not grow any more. "
    f"The last reading is {REST:.0f} seconds after the purge, since the hub gives memory back when it is idle. It "
    "should not exceed the reading after 100,000 tasks.",
    (HUB, HUB_SQLITE),
    (
        Figure("idle", "memory before", "MB"),
        Figure("first", "memory after 100,000 tasks", "MB"),
        Figure("growth", "largest growth after that", "MB"),
        Figure("purged", "memory after the purge", "MB"),
        Figure("left", "after the purge, more than before", "MB"),
        Figure("left_beyond", "after the purge, more than after 100,000 tasks", "MB"),
    ),
    measure,
    (
        Target(HUB, "growth", 30.0),
        Target(HUB_SQLITE, "growth", 30.0),
        Target(HUB, "left_beyond", 10.0),
        Target(HUB_SQLITE, "left_beyond", 10.0),
    ),
    long=True,
    limit=3600.0,
)
