"""Measures how fast a local pool comes and goes: 200 tasks of 0.2 s from a stock client, with no engine at first.

    python -m benchmarks.local_pool

starts a hub with ``--pool name=local,min=0,max=4,idle_timeout=5``, and prints one line of JSON: the seconds
from the first submission to the first result (``first_result``), and until four engines are at work (``all_at_work``);
the seconds from the last result until no engine is left (``all_gone``); how many tasks were lost (``lost``) or have run
more than once (``run_twice``); and the CPU time of the idle hub per second, in ms (``idle_ms_per_s``).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ipyparallel as ipp

from .compare.failure import wait_until
from .compare.processes import cpu_seconds

TASKS, SECONDS, ENGINES, IDLE_TIMEOUT = 200, 0.2, 4, 5
LIMIT = 120.0
"""Seconds within which each step must end."""
IDLE = 10.0
"""Seconds for which the idle hub is watched."""


def work(number: int, seconds: float, ran: str) -> tuple[int, int, float]:
    """Note that the task has run. Return its number, the process, and when it began."""
    import os
    import time

    began = time.time()
    with open(ran, "a") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return number, os.getpid(), began


def measure(directory: Path) -> dict[str, float]:
    """Run a hub and a client, and return the figures."""
    pool = f"name=local,min=0,max={ENGINES},idle_timeout={IDLE_TIMEOUT}"
    command = [sys.executable, "-m", "trio_hub", "serve", "--profile-dir", str(directory), "--pool", pool]
    ran = directory / "ran"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as hub:
        try:
            assert hub.stdout is not None
            assert hub.stdout.readline().startswith(b"trio-hub ready")
            client = ipp.Client(profile_dir=str(directory), timeout=LIMIT)
            before = cpu_seconds(hub.pid)
            time.sleep(IDLE)
            idle = 1000 * (cpu_seconds(hub.pid) - before) / IDLE
            view = client.load_balanced_view()
            began = time.time()
            results = [view.apply_async(work, number, SECONDS, str(ran)) for number in range(TASKS)]
            results[0].get(LIMIT)
            first_result = time.time() - began
            found = [result.get(LIMIT) for result in results]
            ended = time.time()
            wait_until(lambda: not client.ids, "the end of all engines", LIMIT, period=0.005)
            gone = time.time() - ended
            client.close()
        finally:
            hub.terminate()
    begins: dict[int, float] = {}
    for _, pid, at in found:
        begins[pid] = min(begins.get(pid, at), at)
    runs = ran.read_text().split()
    return {
        "first_result": round(first_result, 2),
        "all_at_work": round(sorted(begins.values())[ENGINES - 1] - began, 2) if len(begins) >= ENGINES else -1,
        "all_gone": round(gone, 2),
        "lost": TASKS - len({number for number, _, _ in found}),
        "run_twice": len(runs) - len(set(runs)),
        "idle_ms_per_s": round(idle, 2),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(measure(Path(directory))))


if __name__ == "__main__":
    main()
