"""Lines with many engines, which register, are idle, work, die, and leave."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from ..client import Client
from ..cluster import cluster, controller
from ..contenders import HUB, Contender
from ..engines import Engines
from ..failure import Failed, wait_until
from ..line import Figure, Figures, Line, Target

__all__ = ["CROWD", "DEATHS", "ENGINES", "TURNOVER"]

ROUNDS = 10
LATE = 5
REST = 4.0
"""Seconds from the end of the engines until memory is read. The hub gives memory back when it is idle."""
GRACE = 2.0
"""Seconds for which these hubs wait for late replies of lost engines (`stranded_grace`)."""
MISSES = 20
"""The number of missed pings after which an engine is lost. With fewer, a busy machine would lose living engines."""
MANY = replace(HUB, label="trio-hub, 1,000 engines", engines=1_000)
FEW = replace(HUB, label="trio-hub, 8 engines")
ATTENTIVE = replace(
    HUB, options=(*HUB.options, "--ping=0.25", f"--max-heartmonitor-misses={MISSES}", f"--stranded-grace={GRACE}")
)


def measure_engines(contender: Contender, tiny: bool) -> Figures:
    n = 20 if tiny else 2_000
    with controller(contender, tiny=tiny) as hub, Client(hub.client_info) as client:
        engines = Engines(hub.engine_info, n)
        try:
            began = time.perf_counter()
            engines.register()
            client.wait_engines(n)
            registered = time.perf_counter() - began
            cost, cpu = hub.at_rest(1.0, 1.0 if tiny else 15.0)
            return {"registered": registered, "lost": n - client.engines(), "idle": cpu, "memory": cost.memory}
        finally:
            engines.kill()


def measure_crowd(contender: Contender, tiny: bool) -> Figures:
    if tiny:
        contender = replace(contender, engines=min(contender.engines, 20))
    tasks = 100 if tiny else 20 * MANY.engines
    with cluster(contender, tiny=tiny) as one:
        work = one.work("task", tasks, window=MANY.engines)
        return {"cpu": 1e6 * work.cpu / tasks, "rate": tasks / work.run.seconds}


def measure_deaths(contender: Contender, tiny: bool) -> Figures:
    n = 20 if tiny else 500
    with controller(contender, tiny=tiny) as hub, Client(hub.client_info) as client:
        engines = Engines(hub.engine_info, n, answering=False)
        try:
            engines.register()
            client.wait_engines(n)
            client.submit(n)

            def each_has_one() -> bool:
                answer = client.query("queue_request", {"targets": None, "verbose": False})
                return [one["tasks"] for one in answer.values() if isinstance(one, dict)] == [1] * n

            wait_until(each_has_one, f"each of {n} engines has a task")
        finally:
            engines.kill()
        died = time.perf_counter()
        client.wait_engines(0)
        noticed = time.perf_counter()
        contents = client.collect(n, 60.0)
        settled = time.perf_counter()
        for content in map(json.loads, contents):
            if content.get("ename") != "EngineError":
                raise Failed(f"a task whose engine has died was answered with {content}")
        return {"noticed": noticed - died, "settled": settled - noticed}


def measure_turnover(contender: Contender, tiny: bool) -> Figures:
    n = 10 if tiny else 500
    memory = []
    with controller(contender, tiny=tiny) as hub, Client(hub.client_info) as client:
        for _ in range(ROUNDS):
            engines = Engines(hub.engine_info, n)
            try:
                engines.register()
                client.wait_engines(n)
                engines.leave()
            finally:
                engines.kill()
            client.wait_engines(0)
            cost, _ = hub.at_rest(0.0, 0.5 if tiny else REST)
            memory.append(cost.memory)
    least = min(memory[-LATE:])
    return {"second": memory[1], "most": max(memory), "late": least, "growth": least - memory[1]}


ENGINES = Line(
    "engines",
    "2,000 engines",
    "2,000 engines register at the same time. The figures are the time until the hub names all of them to a client, "
    "the number of engines that are lost afterwards, and the CPU time and memory of the hub while the engines have "
    "nothing to do but answer heartbeats.",
    (HUB,),
    (
        Figure("registered", "all are usable after", "s", 2),
        Figure("lost", "lost", digits=0),
        Figure("idle", "CPU with them", "% of a core", 2),
        Figure("memory", "memory with them", "MB"),
    ),
    measure_engines,
    (Target(HUB, "registered", 4.0), Target(HUB, "lost", 0), Target(HUB, "idle", 2.0)),
)

CROWD = Line(
    "crowd",
    "Tasks for many engines",
    "A client sends 20,000 tasks, with 1,000 outstanding at a time: once to 1,000 engines, and once to 8 engines.",
    (MANY, FEW),
    (Figure("cpu", "CPU per task", "µs"), Figure("rate", "tasks answered per second", digits=0)),
    measure_crowd,
    (Target(MANY, "cpu", 1.25, of=FEW),),
)

DEATHS = Line(
    "deaths",
    "500 engines die at once",
    "500 engines have one task each, and all their sockets are closed at the same time. The hub sends a ping every "
    f"0.25 s, and an engine is lost after more than {MISSES} missed pings. The grace is {GRACE:g} s. The first figure "
    "is the time until the hub names none of these engines any more. The second figure is the time from then until "
    "each task is answered with an error. If the hub settles all engines together, this time is hardly longer than the "
    "grace.",
    (ATTENTIVE,),
    (Figure("noticed", "all are noticed after", "s", 2), Figure("settled", "all are settled after further", "s", 2)),
    measure_deaths,
    (Target(ATTENTIVE, "settled", GRACE + 0.5),),
)

TURNOVER = Line(
    "turnover",
    "Engines that come and go",
    f"500 engines register and leave, {ROUNDS} times. Each time, memory is read {REST:.0f} seconds after all have "
    "left, since the hub gives memory back when it is idle. A leak would show in the lowest of the last five figures, "
    "too.",
    (HUB,),
    (
        Figure("second", "memory after the second time", "MB"),
        Figure("most", "most after any time", "MB"),
        Figure("late", f"least after the last {LATE} times", "MB"),
        Figure("growth", "growth from the second time to that", "MB"),
    ),
    measure_turnover,
    (Target(HUB, "growth", 1.0),),
    long=True,
)
