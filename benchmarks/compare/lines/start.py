"""The line about the start of a controller, and about its cost while it has nothing to do."""

from __future__ import annotations

from ..cluster import controller
from ..contenders import HUB, HUB_SQLITE, IPCONTROLLER, Contender
from ..line import Figure, Figures, Line, Target

__all__ = ["START"]


def measure(contender: Contender, tiny: bool) -> Figures:
    with controller(contender, tiny=tiny) as one:
        cost, cpu = one.at_rest(0.1 if tiny else 1.0, 0.5 if tiny else 5.0)
        return {"started": one.started_s, "memory": cost.memory, "idle": cpu, "processes": cost.processes}


START = Line(
    "start",
    "Start and rest",
    "The first figure is the time from the start of the process to the first answer to a client. The others are "
    "measured without any engine or client. Memory that processes share is divided among them (PSS).",
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
