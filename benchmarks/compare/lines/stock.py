"""The line with stock engines and a stock client."""

from __future__ import annotations

import subprocess
import sys
import time

from ..client import Client
from ..cluster import controller
from ..contenders import HUB, HUB_SQLITE, IPCONTROLLER, Contender
from ..failure import Failed
from ..line import Figure, Figures, Line

__all__ = ["STOCK"]

ENGINES = 2
PATIENCE = 120.0


def measure(contender: Contender, tiny: bool) -> Figures:
    import ipyparallel as ipp  # imported here, since no other line needs it

    tasks = 20 if tiny else 2_000
    with controller(contender, tiny=tiny) as one, Client(one.client_info) as asking:
        command = [sys.executable, "-m", "ipyparallel.engine", f"--profile-dir={one.directory}", "--log-level=ERROR"]
        # The process that looks after an engine has no part in its tasks, and would outlive it for seconds.
        command += ["--IPEngine.enable_nanny=False"]
        engines = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(ENGINES)]
        try:
            asking.wait_engines(ENGINES)
            time.sleep(contender.settling(tiny=tiny))
            with ipp.Client(str(one.directory / "security" / "ipcontroller-client.json"), timeout=PATIENCE) as client:
                view = client.load_balanced_view()
                few = [view.apply_async(abs, number) for number in range(2 * ENGINES)]
                client.wait(few, timeout=PATIENCE)
                asking.wait_recorded(len(few))
                cpu, began = one.cost().cpu, time.perf_counter()
                results = [view.apply_async(abs, number) for number in range(tasks)]
                if not client.wait(results, timeout=PATIENCE):
                    raise Failed(f"{tasks} tasks of a stock client were not answered in {PATIENCE:g} s")
                seconds = time.perf_counter() - began
                if [result.get() for result in results] != list(range(tasks)):
                    raise Failed("the results of a stock client's tasks are wrong")
                asking.wait_recorded(len(few) + tasks)
                return {"rate": tasks / seconds, "cpu": 1e6 * (one.cost().cpu - cpu) / tasks}
        finally:
            for engine in engines:
                engine.terminate()
            for engine in engines:
                engine.wait(30)


STOCK = Line(
    "stock",
    "Stock client, stock engines",
    "IPython Parallel's own client sends tasks that do nothing through a load-balanced view to "
    f"{ENGINES} stock engines, which have no nanny processes here. All run on this machine. Client and engines do most "
    "of the work, whatever the controller.",
    (HUB, HUB_SQLITE, IPCONTROLLER),
    (Figure("rate", "tasks per second", digits=0), Figure("cpu", "the controller's CPU per task", "µs")),
    measure,
)
