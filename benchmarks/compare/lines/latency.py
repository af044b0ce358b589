"""Lines with one request at a time: the time until its reply, alone and while other clients keep the hub busy."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..client import Client, percentile
from ..cluster import cluster
from ..contenders import FLOOR, HUB, HUB_SQLITE, IPCONTROLLER, Contender
from ..failure import Failed
from ..line import Figure, Figures, Line, Target

__all__ = ["BURST", "HISTORY", "SINGLE", "STATUS"]

LONGEST = 20.0
"""The maximum time of a measurement, in seconds. A slow controller would be busy for minutes."""
EVERYTHING = {"query": {"msg_id": {"$ne": ""}}, "keys": None}


def run_tasks(info: dict[str, Any], tasks: int, window: int) -> int:
    """Run tasks, as the other client that keeps the hub busy, and return the number of answered tasks."""
    with Client(info) as client:
        return len(client.run("task", tasks, window=window).delays)


def ask_for_records(info: dict[str, Any], times: int) -> float:
    """Ask for all records, as the other client that keeps the hub busy, and return the seconds for one answer."""
    with Client(info, patience=300.0) as client:
        began = time.perf_counter()
        for _ in range(times):
            client.ask("db_request", EVERYTHING)
        return (time.perf_counter() - began) / times


@contextmanager
def another_process() -> Iterator[ProcessPoolExecutor]:
    """Open a pool with one process that is ready for work. At the end of the block, do not wait for its work."""
    executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    try:
        executor.submit(int).result(60)
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def delays_while(busy: Future[Any], ask: Callable[[], object]) -> list[float]:
    """Ask again and again while another client keeps the hub busy, and return the seconds for each answer, sorted."""
    delays = []
    deadline = time.monotonic() + LONGEST
    while not busy.done() and time.monotonic() < deadline:
        began = time.perf_counter()
        ask()
        delays.append(time.perf_counter() - began)
    return sorted(delays)


def in_ms(name: str, delays: list[float]) -> Figures:
    return {f"{name}_p50": 1e3 * percentile(delays, 50), f"{name}_p99": 1e3 * percentile(delays, 99)}


def measure_single(contender: Contender, tiny: bool) -> Figures:
    requests = 50 if tiny else 3_000
    with cluster(contender, tiny=tiny) as one:
        figures = in_ms("task", one.run("task", requests, window=1).delays)
        if contender.kind != "floor":
            figures |= in_ms("call", one.run("mux", requests, window=1).delays)
        return figures


def measure_burst(contender: Contender, tiny: bool) -> Figures:
    tasks = 200 if tiny else 100_000
    with cluster(contender, tiny=tiny) as one, another_process() as other:
        burst = other.submit(run_tasks, one.controller.client_info, tasks, tasks)
        delays = delays_while(burst, lambda: one.run("mux", 1, window=1))
        if contender.kind == "trio-hub" and burst.result(120) != tasks:
            raise Failed("the burst of tasks was not answered")
        return in_ms("call", delays)


def measure_history(contender: Contender, tiny: bool) -> Figures:
    records, times = (100, 2) if tiny else (10_000, 5)
    with cluster(contender, tiny=tiny) as one, another_process() as other:
        one.run("task", records, window=500)
        one.wait_recorded()
        found = len(one.client.query("db_request", EVERYTHING, limit=120)["records"])
        if found < records:
            raise Failed(f"{found} records were found of {records}")
        asking = other.submit(ask_for_records, one.controller.client_info, times)
        figures = in_ms("call", delays_while(asking, lambda: one.run("mux", 1, window=1)))
        return figures | {"query": asking.result(300)}


def measure_status(contender: Contender, tiny: bool) -> Figures:
    tasks = 200 if tiny else 100_000
    question = {"targets": None, "verbose": False}
    with cluster(contender, tiny=tiny) as one, another_process() as other:
        busy = other.submit(run_tasks, one.controller.client_info, tasks, 500)
        return in_ms("status", delays_while(busy, lambda: one.client.ask("queue_request", question)))


SINGLE = Line(
    "single",
    "One request at a time",
    "A client sends a task, waits for its reply, and sends the next task; then the same with direct calls. Half of all "
    "replies come within the median (p50), and 99 of 100 come within p99.",
    (HUB, HUB_SQLITE, IPCONTROLLER, FLOOR),
    (
        Figure("task_p50", "task, p50", "ms", 2),
        Figure("task_p99", "task, p99", "ms", 2),
        Figure("call_p50", "direct call, p50", "ms", 2),
        Figure("call_p99", "direct call, p99", "ms", 2),
    ),
    measure_single,
    (
        Target(HUB, "task_p50", 1.2, of=FLOOR),
        Target(HUB, "task_p99", 1.0),
        Target(HUB, "call_p50", 1.5, of=IPCONTROLLER),
    ),
)

BURST = Line(
    "burst",
    "A call while another client bursts",
    "A client sends one direct call at a time, while another client sends 100,000 tasks as fast as it can.",
    (HUB, HUB_SQLITE, IPCONTROLLER),
    (Figure("call_p50", "direct call, p50", "ms", 2), Figure("call_p99", "direct call, p99", "ms", 2)),
    measure_burst,
    (Target(HUB, "call_p99", 3.0),),
)

HISTORY = Line(
    "history",
    "A call while another client reads the records",
    "A client sends one direct call at a time, while another client asks for 10,000 records, five times. (By default, "
    "`ipcontroller` keeps 1,024 records. For this measurement, it is told to keep more.)",
    (HUB, HUB_SQLITE, replace(IPCONTROLLER, options=("--DictDB.record_limit=100000",))),
    (
        Figure("call_p50", "direct call, p50", "ms", 2),
        Figure("call_p99", "direct call, p99", "ms", 2),
        Figure("query", "the 10,000 records", "s", 2),
    ),
    measure_history,
    (Target(HUB, "call_p99", 3.0),),
)

STATUS = Line(
    "status",
    "The state of the queues under load",
    "A client asks for the `queue_status` of all 8 engines, one query at a time, while another client keeps 500 tasks "
    "outstanding.",
    (HUB, HUB_SQLITE, IPCONTROLLER),
    (Figure("status_p50", "answer, p50", "ms", 2), Figure("status_p99", "answer, p99", "ms", 2)),
    measure_status,
    (Target(HUB, "status_p99", 20.0),),
)
