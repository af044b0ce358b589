"""Measures the cost of dependencies: a graph of tasks in layers, compared with as many independent tasks.

    python benchmarks/dag.py

starts ``python -m trio_hub serve``, plays its engines and its client in this process, and prints one line of JSON:
whether each task ran after all its dependencies, the CPU time (µs) that the hub spent per task of the graph and per
independent task, and their ratio. The metadata has the keys that a stock client sends; an independent task names no
other tasks. Rounds of the two kinds take turns, so that a machine that is slow for a while is slow for both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import trio

from trio_hub.testing import Request, ScriptedClient, open_client, open_engines

LIMIT = 300.0
"""Seconds within which the whole benchmark must end."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time (user and system) of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Round:
    """Tasks in layers, each after some tasks of the previous layer; or as many tasks without dependencies."""

    def __init__(self, tasks: int, width: int, after: int, rng: Random) -> None:
        self.tasks = tasks
        self.width = width
        self.after = after
        self.rng = rng
        self.depends_on: dict[str, list[str]] = {}
        self.answered: set[str] = set()
        self.too_early = 0

    async def run(self, client: ScriptedClient) -> None:
        before: list[str] = []
        for number in range(self.tasks):
            if number % self.width == 0:
                before = list(self.depends_on)[-self.width :]
                await trio.lowlevel.checkpoint()
            depends_on = self.rng.sample(before, min(self.after, len(before)))
            metadata = {
                "after": depends_on,
                "follow": [],
                "timeout": None,
                "targets": [],
                "retries": 0,
                "label": None,
            }
            msg_id = client.send("task", "apply_request", metadata=metadata, buffers=[b"f" * 200])
            self.depends_on[msg_id] = depends_on
        await client.wait_until(lambda: len(client.replies) >= self.tasks)
        failed = [reply for [reply] in client.replies.values() if reply.content["status"] != "ok"]
        assert not failed, failed[0].content
        assert client.replies.keys() == self.depends_on.keys()
        client.replies.clear()

    def answer(self, request: Request) -> None:
        self.too_early += not self.answered.issuperset(self.depends_on[request.msg_id])
        self.answered.add(request.msg_id)
        request.answer(request.buffers)
        request.engine.requests.clear()


async def measure(info: dict[str, dict[str, Any]], pid: int, args: argparse.Namespace) -> dict[str, Any]:
    costs: dict[str, list[float]] = {"dag": [], "independent": []}
    seconds: dict[str, list[float]] = {"dag": [], "independent": []}
    too_early = 0
    async with (
        open_engines(info["engine"], args.engines) as engines,
        open_client(info["client"]) as client,
    ):
        while len((await client.query("connection_request")).content["engines"]) < args.engines:
            pass
        client.replies.clear()
        for number in range(args.rounds):
            for name in costs:
                after = args.after if name == "dag" else 0
                one = Round(args.tasks, args.width, after, Random(number))
                for engine in engines:
                    engine.behaviour = one.answer
                cpu, clock = cpu_seconds(pid), time.monotonic()
                await one.run(client)
                costs[name].append(1e6 * (cpu_seconds(pid) - cpu) / args.tasks)
                seconds[name].append(time.monotonic() - clock)
                too_early += one.too_early
    dag, independent = min(costs["dag"]), min(costs["independent"])
    return {
        "tasks": args.tasks,
        "width": args.width,
        "after": args.after,
        "engines": args.engines,
        "order_respected": too_early == 0,
        "dag_us_per_task": round(dag, 1),
        "independent_us_per_task": round(independent, 1),
        "ratio": round(dag / independent, 3),
        "dag_tasks_per_s": round(args.tasks / min(seconds["dag"])),
        "independent_tasks_per_s": round(args.tasks / min(seconds["independent"])),
    }


async def with_time_limit(info: dict[str, dict[str, Any]], pid: int, args: argparse.Namespace) -> dict[str, Any]:
    with trio.fail_after(LIMIT):
        return await measure(info, pid, args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=100, help="tasks in a layer")
    parser.add_argument("--after", type=int, default=3, help="how many of the layer before each depends on")
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dag-") as directory:
        command = [sys.executable, "-m", "trio_hub", "serve", "--profile-dir", directory]
        hub = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            assert hub.stdout is not None
            assert hub.stdout.readline(), "the hub has not started"
            security = Path(directory, "security")
            info = {
                side: json.loads((security / f"ipcontroller-{side}.json").read_text()) for side in ("client", "engine")
            }
            print(json.dumps(trio.run(with_time_limit, info, hub.pid, args)), flush=True)
        finally:
            hub.terminate()
            hub.wait(30)


if __name__ == "__main__":
    main()
