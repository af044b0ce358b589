"""Starting, and having nothing to do."""

from __future__ import annotations

import time

from ..cluster import controller
from ..contenders import HUB, HUB_SQLITE, IPCONTROLLER, Contender
from ..line import Figure, Figures, Line, Target

__all__ = ["START"]


def measure(contender: Contender, tiny: bool) -> Figures:
    idle = 0.5 if tiny else 5.0
    with controller(contender, tiny=tiny) as one:
        time.sleep(0.1 if tiny else 1.0)
        before = one.cost()
        time.sleep(idle)
        after = one.cost()
        return {
            "started": one.started_s,
            "memory": after.memory,
            "idle": 100 * (after.cpu - before.cpu) / idle,
            "processes": after.processes,
        }


START = Line(
    "start",
    "Start and rest",
    "From the start of the process to the first answer to a client; and what the controller has and does when there is "
    "neither an engine nor a client. Memory that processes share is divided among them (PSS).",
    (HUB, HUB_SQLITE, IPCONTROLLER),
    (
        Figure("started", "ready after", "s", 3),
        Figure("memory", "memory", "MB"),
        Figure("idle", "CPU", "% of a core", 2),
        Figure("processes", "processes", digits=0),
    ),
    measure,
    (Target(HUB, "started", 0.25), Target(HUB, "memory", 40.0), Target(HUB, "idle", 0.5)),
)
