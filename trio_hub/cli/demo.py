"""``trio-hub demo``: runs a hub, stock engines and a stock client for a few seconds, and shows what they do."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

import click

from . import codes

__all__ = ["demo"]

READY_LIMIT = 60.0
"""Seconds within which the hub must be ready."""
CONNECT_LIMIT = 30.0
"""Seconds within which the hub, which listens already, must answer the client."""
ENGINES_LIMIT = 60.0
"""Seconds within which the engines must register. Each engine adds 1 s, since they all start at once."""
RESULT_LIMIT = 30.0
"""Seconds without any result after which the demo has failed."""
STOP_LIMIT = 60.0
"""Seconds within which the hub and its engines must stop."""
IN_FLIGHT = 2
"""The number of tasks per engine that the client keeps under way: enough that engines are hardly idle, and so few that
tasks hardly wait in the queue."""
PROFILE = "profile_demo"
STEPS = 1000
"""Steps of the integration in each task."""

Submit: TypeAlias = Callable[[int], Any]
Advance: TypeAlias = Callable[[], object]


class DemoError(Exception):
    """The demo cannot go on. The text says why, for the user."""


@click.command("demo", epilog="Exits 0 if everything worked, 1 if anything failed, and 130 or 143 after a signal.")
@click.option("--engines", type=click.IntRange(1), metavar="N", help="Engines to start.  [default: one per core]")
@click.option(
    "--tasks",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Tasks to run.",
)
def demo(engines: int | None, tasks: int) -> None:
    """Show a hub at work, in a temporary profile that is removed afterwards.

    Starts `trio-hub serve` with engines, runs tasks through the load-balanced and the direct queue with a stock
    client, prints which engine ran how many tasks and how fast, and stops everything.
    """
    from ..config.poolvalues import cores

    if find_spec("ipyparallel") is None:
        click.echo(
            "trio-hub demo needs IPython Parallel for its client, but it is not installed. "
            "Install it with: pip install ipyparallel",
            err=True,
        )
        sys.exit(codes.BAD_USAGE)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _note_signal)
    try:
        with tempfile.TemporaryDirectory(prefix="trio-hub-demo-", ignore_cleanup_errors=True) as directory:
            _run(Path(directory), engines or cores(), tasks)
    except DemoError as error:
        click.echo(f"trio-hub demo failed: {error}", err=True)
        sys.exit(codes.FAILED)


_signals: list[int] = []
"""The signals that have told this process to end."""


def _note_signal(signum: int, frame: object) -> None:
    """Note a signal. An exception from here could be lost: Python ignores those in callbacks of weak references."""
    _signals.append(signum)


def _exit_if_told() -> None:
    if _signals:
        sys.exit(codes.after_signal(_signals[0]))  # runs the finally clauses


def _run(directory: Path, engines: int, tasks: int) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    with hub_process(directory, engines) as hub:
        them = "1 engine" if engines == 1 else f"{engines} engines"
        console.print(f"Started a hub with {them} in {directory}; waiting for the engines.")
        with stock_client(hub, engines) as client:
            console.print(f"All engines are there; running {tasks} tasks on them.")
            runs = run_tasks(client, hub, engines, tasks, console)
            check_sum(runs, tasks)
            show(runs, console)
    console.print("The hub and its engines have stopped.")


# The hub's process


@dataclass
class HubProcess:
    process: subprocess.Popen[bytes]
    directory: Path
    log: Path

    @property
    def profile_dir(self) -> Path:
        return self.directory / PROFILE

    @property
    def client_file(self) -> Path:
        return self.profile_dir / "security" / "ipcontroller-client.json"

    def check(self) -> None:
        """Exit if a signal has come. Raise `DemoError` if the hub has ended."""
        _exit_if_told()
        status = self.process.poll()
        if status is not None:
            how = f"exit code {status}" if status >= 0 else signal.Signals(-status).name
            raise DemoError(f"the hub ended by itself ({how}). {self.last_words()}")

    def last_words(self) -> str:
        """Return the last lines that the hub and the engines have logged, without the engines' line for each task."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        last = [f"  {line}" for line in lines if "Handling apply_request" not in line][-20:]
        return "The end of its log:\n" + "\n".join(last)


@contextmanager
def hub_process(directory: Path, engines: int) -> Iterator[HubProcess]:
    """Run ``trio-hub serve`` with local engines. At the end, the hub and all engines have ended."""
    log = directory / "hub.log"
    options = [f"--profile-dir={directory / PROFILE}", f"--engines={engines}", "--engine-log=inherit"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "trio_hub", "serve", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(directory),
            start_new_session=True,  # a Ctrl-C reaches only this process, which then stops the hub
        )
    hub = HubProcess(process, directory, log)
    try:
        deadline = time.monotonic() + READY_LIMIT
        while not hub.client_file.exists():
            hub.check()
            if time.monotonic() > deadline:
                raise DemoError(f"the hub was not ready within {READY_LIMIT:.0f} s. {hub.last_words()}")
            time.sleep(0.02)
        yield hub
        hub.check()
        _stop(hub)
    finally:
        _end_all(hub)


def _environment(directory: Path) -> dict[str, str]:
    """Return this process's environment without the user's settings, and with IPython's files in the directory."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TRIO_HUB_", "IPP_", "JUPYTER_"))
    }
    return environment | {"IPYTHONDIR": str(directory), "JUPYTER_RUNTIME_DIR": str(directory / "runtime")}


def _stop(hub: HubProcess) -> None:
    hub.process.terminate()
    try:
        status = hub.process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        raise DemoError(f"the hub did not stop within {STOP_LIMIT:.0f} s. {hub.last_words()}") from None
    if status != codes.OK:
        raise DemoError(f"the hub did not stop in order (exit code {status}). {hub.last_words()}")


def _end_all(hub: HubProcess) -> None:
    """End the hub and all engines, in whatever state the hub is."""
    if hub.process.poll() is None:
        hub.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            hub.process.wait(STOP_LIMIT)
        if hub.process.poll() is None:
            hub.process.kill()
            hub.process.wait()
    # Engines that have outlived the hub, and the engines' nannies.
    deadline = time.monotonic() + STOP_LIMIT
    while (pids := _processes_in(hub.directory)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _processes_in(directory: Path) -> list[int]:
    """Return the processes that have our temporary directory in their environment. Needs /proc; else returns none."""
    mark = f"IPYTHONDIR={directory}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found


# The client


@contextmanager
def stock_client(hub: HubProcess, engines: int) -> Iterator[Any]:
    """Give an `ipyparallel.Client` that sees all engines."""
    os.environ |= {"IPYTHONDIR": str(hub.directory), "JUPYTER_RUNTIME_DIR": str(hub.directory / "runtime")}
    import ipyparallel

    try:
        client = ipyparallel.Client(profile_dir=str(hub.profile_dir), timeout=CONNECT_LIMIT)
    except Exception as error:  # a stock client may raise anything
        hub.check()
        raise DemoError(f"the client cannot connect: {error}. {hub.last_words()}") from error
    try:
        deadline = time.monotonic() + ENGINES_LIMIT + engines
        while len(client.ids) < engines:
            hub.check()
            if time.monotonic() > deadline:
                came = f"only {len(client.ids)} of {engines} engines came"
                raise DemoError(f"{came} within {ENGINES_LIMIT + engines:.0f} s. {hub.last_words()}")
            time.sleep(0.05)
        yield client
    finally:
        client.close()


def slice_of_pi(number: int, tasks: int, steps: int) -> tuple[float, int]:
    """Return a slice of the integral of 4 / (1 + x²) from 0 to 1, which is π, and the process id. This is the task."""
    import os

    width = 1.0 / (tasks * steps)
    middles = ((number * steps + step + 0.5) * width for step in range(steps))
    return sum(4.0 / (1.0 + x * x) for x in middles) * width, os.getpid()


# So the client sends the function by value, like a function in a notebook: engines need not have trio_hub installed.
slice_of_pi.__module__ = "__main__"


@dataclass
class Run:
    """The measurements of one queue."""

    queue: str
    started: float
    seconds: float = 0.0
    total: float = 0.0
    latencies: list[float] = field(default_factory=list)
    ran_on: Counter[tuple[int, int]] = field(default_factory=Counter)
    """The number of tasks, by engine id and process id."""


def run_tasks(client: Any, hub: HubProcess, engines: int, tasks: int, console: Any) -> list[Run]:
    """Run half of the tasks through the load-balanced queue, and the other half through the direct queue."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    balanced = client.load_balanced_view()
    direct = [client[ident] for ident in client.ids]
    half = (tasks + 1) // 2
    queues: list[tuple[str, range, Submit]] = [
        ("load-balanced", range(half), lambda n: balanced.apply_async(slice_of_pi, n, tasks, STEPS)),
        (
            "direct",
            range(half, tasks),
            lambda n: direct[n % len(direct)].apply_async(slice_of_pi, n, tasks, STEPS),
        ),
    ]
    runs = []
    columns = (TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for name, numbers, submit in queues:
            bar = progress.add_task(name, total=len(numbers))
            runs.append(run_queue(name, numbers, submit, hub, IN_FLIGHT * engines, partial(progress.advance, bar)))
    return runs


def run_queue(
    name: str, numbers: Sequence[int], submit: Submit, hub: HubProcess, in_flight: int, advance: Advance
) -> Run:
    """Submit the tasks, `in_flight` at a time, and gather their results."""
    done: SimpleQueue[tuple[Any, float, float]] = SimpleQueue()
    waiting = iter(numbers)
    under_way = 0
    run = Run(name, time.perf_counter())

    def submit_next() -> int:
        number = next(waiting, None)
        if number is None:
            return 0
        submitted = time.perf_counter()
        # The client's own thread calls this as soon as the result has come.
        submit(number).add_done_callback(lambda result: done.put((result, submitted, time.perf_counter())))
        return 1

    for _ in range(in_flight):
        under_way += submit_next()
    while under_way:
        result, submitted, received = _next_done(done, name, hub)
        under_way += submit_next() - 1
        try:
            value, pid = result.get(timeout=RESULT_LIMIT)
        except Exception as error:  # an engine or the stock client may raise anything
            raise DemoError(f"a task of the {name} queue failed: {type(error).__name__}: {error}") from error
        run.total += value
        run.latencies.append(received - submitted)
        run.ran_on[result.engine_id, pid] += 1
        advance()
    run.seconds = time.perf_counter() - run.started
    return run


def _next_done(done: SimpleQueue[tuple[Any, float, float]], name: str, hub: HubProcess) -> tuple[Any, float, float]:
    deadline = time.monotonic() + RESULT_LIMIT
    while True:
        _exit_if_told()
        try:
            return done.get(timeout=0.5)
        except Empty:
            hub.check()
            if time.monotonic() > deadline:
                raise DemoError(
                    f"no result came from the {name} queue for {RESULT_LIMIT:.0f} s. {hub.last_words()}"
                ) from None


# Checking and showing the results


def check_sum(runs: Sequence[Run], tasks: int) -> None:
    """Raise `DemoError` unless each slice was computed once, and the sum is right."""
    count = sum(len(run.latencies) for run in runs)
    total = math.fsum(run.total for run in runs)
    if count != tasks or abs(total - math.pi) > 1e-6:
        raise DemoError(f"wrong result: {count} of {tasks} tasks returned slices with the sum {total!r}, not π")


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def show(runs: Sequence[Run], console: Any) -> None:
    from rich.table import Table

    where = Table("engine", "process", *(run.queue for run in runs), "tasks", title="What ran where")
    for column in where.columns:
        column.justify = "right"
    for engine, pid in sorted(set[tuple[int, int]]().union(*(run.ran_on for run in runs))):
        counts = [run.ran_on[engine, pid] for run in runs]
        where.add_row(str(engine), str(pid), *map(str, counts), str(sum(counts)))
    console.print(where)

    speed = Table("queue", "tasks", "tasks/s", "p50", "p95", "p99", title="Rate, and round trips at the client in ms")
    for column in speed.columns[1:]:
        column.justify = "right"
    for run in runs:
        if run.latencies:
            latencies = (f"{1000 * percentile(run.latencies, percent):.1f}" for percent in (50, 95, 99))
            speed.add_row(run.queue, str(len(run.latencies)), f"{len(run.latencies) / run.seconds:.0f}", *latencies)
    console.print(speed)
    total = math.fsum(run.total for run in runs)
    console.print(f"All results are right: the slices add up to π = {total:.9f}")
