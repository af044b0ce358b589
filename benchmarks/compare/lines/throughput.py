"""Lines with many requests at a time: the cost of each request, and the number of requests per second."""

from __future__ import annotations

import os
from functools import partial

from ..cluster import cluster
from ..contenders import FLOOR, HUB, HUB_SQLITE, HUB_UNLIMITED, IPCONTROLLER, IPCONTROLLER_UNLIMITED, Contender
from ..line import Figure, Figures, Line, Target

__all__ = ["BUFFERS", "GIGABYTE", "MUX", "TASK"]

WINDOW = 500


def measure(queue: str, contender: Contender, tiny: bool) -> Figures:
    requests = 100 if tiny else 20_000
    with cluster(contender, tiny=tiny) as one:
        work = one.work(queue, requests, window=WINDOW)
        return {
            "cpu": 1e6 * work.cpu / requests,
            "rate": requests / work.run.seconds,
            "recorded_rate": requests / work.recorded_s,
        }


def measure_buffers(contender: Contender, tiny: bool) -> Figures:
    calls, size, window = (4, 4_000_000, 2) if tiny else (200, 4_000_000, 8)
    with cluster(contender, tiny=tiny) as one:
        work = one.work("mux", calls, window=window, payload=os.urandom(size))
        return {"cpu": 1e3 * work.cpu / calls, "rate": 2 * size * calls / work.run.seconds / 1e6}


def measure_gigabyte(contender: Contender, tiny: bool) -> Figures:
    size = 10_000_000 if tiny else 1_000_000_000
    with cluster(contender, tiny=tiny) as one:
        one.client.patience = 300.0
        work = one.work("mux", 1, window=1, payload=bytes(size))
        return {"passed": 1, "seconds": work.run.seconds, "memory": one.controller.cost().memory}


TASK = Line(
    "task",
    "Tasks",
    "A client sends tasks with 100 bytes of data through the load-balanced queue to 8 engines, which answer at once. "
    f"{WINDOW} tasks are outstanding at a time. With `hwm` 1, the default, an engine gets its next task when it has "
    "answered the previous one. With `hwm` 0, an engine gets any number of tasks at a time. The CPU time is measured "
    "until all tasks are recorded.",
    (HUB, HUB_UNLIMITED, HUB_SQLITE, IPCONTROLLER, IPCONTROLLER_UNLIMITED, FLOOR),
    (
        Figure("cpu", "CPU per task", "µs"),
        Figure("rate", "tasks answered per second", digits=0),
        Figure("recorded_rate", "tasks answered and recorded per second", digits=0),
    ),
    partial(measure, "task"),
    (
        Target(HUB, "cpu", 1 / 10, of=IPCONTROLLER),
        Target(HUB, "cpu", 2.5, of=FLOOR),
        Target(HUB, "rate", 5, of=IPCONTROLLER, at_least=True),
        Target(HUB_UNLIMITED, "cpu", 1 / 13, of=IPCONTROLLER_UNLIMITED),
        Target(HUB_UNLIMITED, "cpu", 2, of=FLOOR),
        Target(HUB_SQLITE, "cpu", 1 / 7, of=IPCONTROLLER),
    ),
)

MUX = Line(
    "mux",
    "Direct calls",
    f"A client sends direct calls with 100 bytes of data to 8 engines in turn. {WINDOW} calls are outstanding at a "
    "time. In `ipcontroller`, a proxy in C relays the calls without reading them, and another process gets copies and "
    "records them, later. So compare the numbers of calls that are answered and recorded.",
    (HUB, HUB_SQLITE, IPCONTROLLER),
    (
        Figure("cpu", "CPU per call", "µs"),
        Figure("rate", "calls answered per second", digits=0),
        Figure("recorded_rate", "calls answered and recorded per second", digits=0),
    ),
    partial(measure, "mux"),
)

BUFFERS = Line(
    "buffers",
    "Large buffers",
    "A client sends direct calls with a buffer of 4 MB, which the engine sends back. 8 calls are outstanding at a "
    "time. The rate counts the bytes in both directions.",
    (HUB, HUB_SQLITE, IPCONTROLLER),
    (Figure("cpu", "CPU per call", "ms", 2), Figure("rate", "rate", "MB/s", 0)),
    measure_buffers,
    (Target(HUB, "cpu", 0.5, of=IPCONTROLLER),),
)

GIGABYTE = Line(
    "gigabyte",
    "One very large buffer",
    "A client sends a direct call with one buffer of 1 GB, which the engine sends back.",
    (HUB, IPCONTROLLER),
    (
        Figure("passed", "came back whole", digits=0),
        Figure("seconds", "there and back", "s", 2),
        Figure("memory", "memory afterwards", "MB", 0),
    ),
    measure_gigabyte,
    (Target(HUB, "passed", 1, at_least=True),),
    long=True,
)
