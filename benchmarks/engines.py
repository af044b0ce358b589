"""Measures what an engine costs before it works: the time until it is usable, and its memory with that of its nanny.

    python -m benchmarks.engines
    python -m benchmarks.engines --together 200

The first command starts engines of this directory one after the other. It prints one line of JSON with medians: seconds
from the start of the process until the hub has registered the engine (``registered_s``) and until the engine has
answered a call (``usable_s``), the CPU time for that (``cpu_s``), and the memory (PSS) of the engine and its nanny, in
MB. With ``--stock``, the engines are stock ones.

With ``--together N``, N engines work at one hub at the same time. The line of JSON says how long it took until all
engines were registered, how many calls per second they answered, how much CPU time and memory they have used, and how
many of them ended with exit code 0 after SIGTERM. The hub runs in this process. If an engine does not register or
answer, the command fails.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

from trio_hub import Client, HubConfig, RunningHub, connect
from trio_hub.cli.limits import raise_open_files_limit
from trio_hub.testing import open_hub

from .compare.failure import Failed
from .compare.processes import cost_of_tree

LIMIT = 1200.0
"""Seconds within which the whole benchmark must end."""
STARTING = 8
"""The maximum number of engines that start at the same time."""
POLL = 0.005
"""Seconds between two looks at the hub's engines."""
CALLS_PER_ENGINE = 20
OURS, STOCK = "trio_hub engine", "ipyparallel.engine"


class Engines:
    """Starts engine processes for a hub. ``processes`` has all that were started."""

    def __init__(self, directory: Path, hub: RunningHub, module: str) -> None:
        self._log = directory / "log"
        self._command = [sys.executable, "-m", *module.split(), "--timeout=60"]
        self._environ = os.environ | {"IPP_CONNECTION_INFO": json.dumps(hub.engine_info)}
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start an engine."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End all engines that are still there."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            process.wait()


async def one_after_the_other(engines: Engines, hub: RunningHub, client: Client, starts: int) -> dict[str, float]:
    """Start engines one after the other. Return the medians of what each has cost."""
    found: list[dict[str, float]] = []
    for _ in range(starts + 1):
        began = time.monotonic()
        process = engines.start()
        await hub.wait_engines(1)
        registered = time.monotonic() - began
        await client.apply(abs, -1)
        usable = time.monotonic() - began
        cost = cost_of_tree(process.pid)
        found.append({"registered_s": registered, "usable_s": usable, "cpu_s": cost.cpu, "memory_mb": cost.memory})
        process.terminate()
        await trio.to_thread.run_sync(process.wait)
        while hub.engines:  # noqa: ASYNC110 - simpler than a stream of events, and not measured
            await trio.sleep(POLL)
    warm = found[1:]  # the first one reads files that are in no cache yet
    return {name: round(statistics.median(one[name] for one in warm), 3) for name in warm[0]}


async def together(engines: Engines, hub: RunningHub, client: Client, number: int) -> dict[str, float]:
    """Have engines work at the same time. Return what that took."""
    began = time.monotonic()
    for count in range(number):
        engines.start()
        await hub.wait_engines(max(0, count + 1 - STARTING))
    await hub.wait_engines(number)
    registered = time.monotonic() - began
    pids: set[int] = set()

    async def ask(engine_id: int) -> None:
        pids.add(await client.apply(os.getpid, targets=engine_id))

    async with trio.open_nursery() as nursery:
        for engine_id in hub.engines:
            nursery.start_soon(ask, engine_id)
    if len(pids) != number:
        raise Failed(f"{len(pids)} of {number} engines have answered")
    calls = CALLS_PER_ENGINE * number
    began = time.monotonic()
    values = [value async for value in client.map(abs, range(calls), in_flight=2 * number)]
    rate = calls / (time.monotonic() - began)
    if values != list(range(calls)):
        raise Failed("a value is wrong")
    costs = [cost_of_tree(process.pid) for process in engines.processes]
    for process in engines.processes:
        process.terminate()
    statuses = [await trio.to_thread.run_sync(process.wait) for process in engines.processes]
    return {
        "engines": number,
        "all_registered_s": round(registered, 1),
        "calls_per_s": round(rate),
        "cpu_per_engine_s": round(sum(cost.cpu for cost in costs) / number, 3),
        "memory_per_engine_mb": round(sum(cost.memory for cost in costs) / number, 1),
        "memory_mb": round(sum(cost.memory for cost in costs)),
        "ended_in_order": statuses.count(0),
    }


async def measure(options: argparse.Namespace) -> dict[str, float]:
    raise_open_files_limit()
    with trio.fail_after(LIMIT), tempfile.TemporaryDirectory() as directory:
        async with open_hub(HubConfig()) as hub, connect(connection_info=hub.client_info) as client:
            engines = Engines(Path(directory), hub, STOCK if options.stock else OURS)
            try:
                if options.together:
                    return await together(engines, hub, client, options.together)
                return await one_after_the_other(engines, hub, client, options.starts)
            finally:
                engines.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=5, help="how many engines to start in turn (%(default)s)")
    parser.add_argument("--together", type=int, metavar="N", help="have N engines work at the same time instead")
    parser.add_argument("--stock", action="store_true", help="stock engines instead of ours")
    options = parser.parse_args()
    print(json.dumps(trio.run(measure, options)))


if __name__ == "__main__":
    main()
