"""A million tasks: what stays in memory."""

from __future__ import annotations

from ..cluster import cluster
from ..contenders import HUB, HUB_SQLITE, Contender
from ..line import Figure, Figures, Line, Target

__all__ = ["MILLION"]

PARTS = 10
REST = 5.0
"""Seconds after which memory is read that a purge has left: the hub gives it back when it comes to rest."""


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
    "1,000,000 tasks, 500 of them outstanding at a time. Resident memory is read when the hub has just started, after "
    "each 100,000 tasks, and after all records are purged. After the first 100,000 the hub holds as much as it ever "
    "may: in memory 100,000 records, and with SQLite the caches of the database. So from there on it should not grow, "
    "and after the purge it should have no more than then: "
    f"read after {REST:.0f} seconds of rest, in which the hub gives back what it no longer needs.",
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
