"""Measures the cost of the dashboard, and whether its pages stutter, with a large cluster.

    python -m benchmarks.dashboard --engines 1000 --tasks 100000

starts ``python -m trio_hub serve``, a process of scripted engines, and chromium with the dashboard, and plays the
client. It prints three tables:

1. The CPU (% of a core) that the hub uses at rest, and while tasks flow at ``--rate`` per second: without a browser,
   and with two browsers on each view.
2. The CPU time of the hub per task, as fast as tasks go, by the number of open browsers. Rounds take turns, so that a
   machine that is slow for a while is slow for all. ``--rounds 0`` leaves this table out.
3. For each view, while tasks run: the longest task (ms) of the page's main thread, as the browser reports it (50 ms and
   more); the longest time by which a timer of the page was late; and the longest CPU time of a task of that thread.
   With fewer cores than busy processes, the first two are much larger than the third.

Engines and clients are usually on other machines than browsers, so here they run with a lower priority.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import IO, Any

import trio
import zmq
from playwright.sync_api import Browser, Page, sync_playwright

from trio_hub.testing import Request, open_engines
from trio_hub.wire.messages import Session

LABELS = ("align", "blast", "cluster", "draw", "export", "fold", "gather", "hash")
WINDOW = 5000
"""The maximum number of outstanding tasks."""
FAILING = 0.02
FLOW_PART = 0.1
"""The tasks of this number of seconds are submitted at once."""
GIVING_WAY = 10
"""The usual niceness of the processes that play the engines and the client."""
VIEWS = ("overview", "engines", "stream", "tasks", "failures", "clients")
WATCH = """
window.longest = window.late = 0;
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
}).observe({ type: "longtask", buffered: true });
function tick(due) {
  window.late = Math.max(window.late, performance.now() - due);
  setTimeout(tick, 20, performance.now() + 20);
}
setTimeout(tick, 20, performance.now() + 20);
"""
PATIENCE = 300_000
"""Milliseconds to wait for an answer; other programs may keep the engines from running."""
SETTLE = 3.0
"""Seconds between the opening of pages and a measurement."""


# The cluster


async def be_engines(info: dict[str, Any], count: int, niceness: int) -> None:
    """Answer requests until the input ends."""
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    random = Random(count)

    def behave(request: Request) -> None:
        if random.random() < FAILING:
            request.fail("ValueError", f"sample {random.randrange(20)} is empty")
        else:
            request.answer([b"done"])
        request.engine.requests.clear()

    async with open_engines(info, count, behaviour=behave):
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


class Client:
    """A client with only a socket."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(f"{info['interface']}:{info['task']}")
        self.session = Session(info["key"].encode(), session_id="dashboard", now=lambda: datetime.now(UTC))

    def run(self, tasks: int) -> None:
        """Submit tasks, and wait for their answers."""
        sent = answered = 0
        while answered < tasks:
            while sent < tasks and sent - answered < WINDOW:
                label = LABELS[sent % len(LABELS)]
                frames = self.session.write("apply_request", {}, metadata={"label": label}, buffers=[b"work"])
                self.socket.send_multipart(frames)
                sent += 1
            if not self.socket.poll(PATIENCE):
                raise TimeoutError(f"{answered} of {tasks} tasks are answered, and no more")
            while self.socket.poll(0):
                self.socket.recv_multipart()
                answered += 1

    def flow(self, rate: float, seconds: float) -> None:
        """Submit tasks evenly for some seconds, and wait for their answers. `rate` is in tasks per second."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            self.run(max(1, round(rate * FLOW_PART)))
            time.sleep(max(0.0, FLOW_PART - (time.monotonic() - began - passed)))

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Run a process for the length of the block. It ends when its input ends, or is asked to end."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout
        finally:
            running.terminate()
            running.wait()


# The measurements


def open_view(browser: Browser, url: str, view: str) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(120_000)
    page.add_init_script(WATCH)
    page.goto(f"{url}#/{view}")
    page.get_by_text("live", exact=True).wait_for()
    return page


def cpu_of(pid: int) -> float:
    """Return the CPU time of a process so far, in seconds, with that of threads that have ended. It is exact."""
    return time.clock_gettime((~pid << 3) | 2)  # the clock of clock_getcpuclockid(3)


def used(hub: int, client: Client, rate: float, seconds: float) -> tuple[float, float]:
    """Return the CPU (% of a core) that the hub uses at rest, and while tasks flow."""
    found = []
    for work in (time.sleep, lambda length: client.flow(rate, length)):
        began, before = time.monotonic(), cpu_of(hub)
        work(seconds)
        found.append(100 * (cpu_of(hub) - before) / (time.monotonic() - began))
    return found[0], found[1]


def presence(hub: int, client: Client, browser: Browser, url: str, arguments: argparse.Namespace) -> None:
    """Print the CPU that the hub uses without a browser, and with two browsers on each view."""
    print(f"| two browsers on | hub's CPU at rest, % of a core | with {arguments.rate} tasks/s |\n|---|---|---|")
    for view in ("none", *VIEWS, "none"):
        pages = [open_view(browser, url, view) for _ in range(2) if view != "none"]
        time.sleep(SETTLE)
        rest, flow = used(hub, client, arguments.rate, arguments.seconds)
        print(f"| {view} | {rest:.2f} | {flow:.2f} |", flush=True)
        for page in pages:
            page.context.close()
    print()


def cost(hub: int, client: Client, browser: Browser, url: str, tasks: int, rounds: int) -> dict[int, float]:
    """Return the hub's CPU time (µs) per task, by the number of open browsers."""
    spent = {0: 0.0, 1: 0.0, 2: 0.0}
    for _ in range(rounds):
        for looking in spent:
            pages = [open_view(browser, url, view) for view in ("overview", "stream")[:looking]]
            before = cpu_of(hub)
            client.run(tasks)
            spent[looking] += cpu_of(hub) - before
            for page in pages:
                page.context.close()
    return {looking: 1e6 * seconds / (tasks * rounds) for looking, seconds in spent.items()}


class Tracing:
    """Records the browser's trace of a page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._events: list[dict[str, Any]] = []
        self._complete = False
        self._session = page.context.new_cdp_session(page)
        self._session.on("Tracing.dataCollected", lambda part: self._events.extend(part["value"]))
        self._session.on("Tracing.tracingComplete", self._end)
        config = {"includedCategories": ["toplevel"]}
        self._session.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": config})

    def _end(self, _: Any) -> None:
        self._complete = True

    def longest(self) -> float:
        """Return the CPU time (ms) of the longest task of the main thread."""
        self._session.send("Tracing.end")
        while not self._complete:
            self._page.wait_for_timeout(100)
        threads = [event for event in self._events if event["name"] == "thread_name"]
        main = {(event["pid"], event["tid"]) for event in threads if event["args"]["name"] == "CrRendererMain"}
        found = (event.get("tdur", 0) for event in self._events if (event["pid"], event["tid"]) in main)
        return max(found, default=0) / 1000


def stutter(client: Client, browser: Browser, url: str, view: str, tasks: int) -> tuple[float, float, float]:
    """Return, in ms, the longest duration of a task of the page, of a late timer, and of a task's CPU time."""
    page = open_view(browser, url, view)
    tracing = Tracing(page)
    client.run(tasks)
    if view == "stream":
        page.get_by_role("button", name="Fit").click()
        page.get_by_role("button", name="Smaller rows").click(click_count=3)
        page.get_by_role("button", name="Zoom in").click(click_count=3)
        page.get_by_role("button", name="Paused").click()
    elif view == "engines":
        page.get_by_role("button", name="Done").click()
        page.get_by_label("Filter").fill("alive")
        page.mouse.move(600, 500)
        for _ in range(20):
            page.mouse.wheel(0, 900)
    client.run(tasks)
    longest, late = (float(page.evaluate(f"window.{name}")) for name in ("longest", "late"))
    busiest = tracing.longest()
    page.context.close()
    return longest, late, busiest


def measure(arguments: argparse.Namespace, directory: str) -> None:
    serve = (
        "trio_hub",
        "serve",
        "--profile-dir",
        directory,
        "--db",
        "memory",
        "--dashboard",
        "0",
        "--ping",
        "60",
        "--log-level",
        "error",
    )
    with process(*serve) as (hub, said):
        url = next(line.split()[-1] for line in said if line.startswith("dashboard: "))
        security = Path(directory, "security")
        client = Client(json.loads((security / "ipcontroller-client.json").read_text()))
        engine_file = str(security / "ipcontroller-engine.json")
        engines = (
            "benchmarks.dashboard",
            "--engines",
            str(arguments.engines),
            "--be-engines",
            engine_file,
            "--nice",
            str(arguments.nice),
        )
        with process(*engines) as (_, told), sync_playwright() as playwright:
            assert told.readline() == "ready\n"
            status = urllib.request.Request(url.replace("/?", "/api/status?"))
            while json.load(urllib.request.urlopen(status))["engines"] < arguments.engines:
                time.sleep(0.2)
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            os.nice(arguments.nice)
            client.run(arguments.tasks)  # from now on, the dashboard has this number of bars
            print(f"{arguments.engines} engines, {arguments.tasks} tasks noted\n")
            presence(hub.pid, client, browser, url, arguments)
            if arguments.rounds:
                print("| browsers | hub's CPU, µs a task |\n|---|---|")
                spent = cost(hub.pid, client, browser, url, arguments.tasks // 4, arguments.rounds)
                for looking, one in spent.items():
                    print(f"| {looking} | {one:.1f} |", flush=True)
                print()
            print(
                "| view | longest task of the page, ms | latest timer, ms | most CPU of a task, ms |\n|---|---|---|---|"
            )
            for view in VIEWS:
                longest, late, busiest = stutter(client, browser, url, view, arguments.tasks // 10)
                long = f"{longest:.0f}" if longest else "below 50"
                print(f"| {view} | {long} | {late:.0f} | {busiest:.0f} |", flush=True)
            browser.close()
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engines", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=200, help="tasks per second of a flow")
    parser.add_argument("--seconds", type=float, default=15, help="seconds of a measurement at rest or with a flow")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nice", type=int, default=GIVING_WAY, help="niceness of engines and client")
    parser.add_argument("--be-engines", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be_engines:
        info = json.loads(Path(arguments.be_engines).read_text())
        trio.run(be_engines, info, arguments.engines, arguments.nice)
        return
    with tempfile.TemporaryDirectory(prefix="dashboard-") as directory:
        measure(arguments, directory)


if __name__ == "__main__":
    main()
