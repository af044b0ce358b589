"""Measures clusters as their users see them: the time until the first result, calls per second, and the time per call.

    python -m benchmarks.end_to_end --rounds 3 --write docs/explanation/end-to-end.md

Each contender is a cluster of two workers on this machine, with a client, in a separate process. In each round, all
contenders are measured one after the other, so that a machine that is slow for a while is slow for all of them.
Contenders that are not installed are left out: ``pip install --group peers`` installs them. trio-hub is measured as it
is in this directory, so only its dependencies have to be installed.
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
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent import futures
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy
import trio

import trio_hub
from trio_hub.cli import main as command

from .compare.failure import wait_until
from .compare.processes import memory_mb, tree
from .compare.results import this_machine
from .end_to_end_page import IPCONTROLLER, goals, page

WORKERS = 2
PATIENCE = 60.0
"""Seconds within which a cluster must be usable."""
ARRAY = numpy.zeros(4 * 2**20 // 8)
ROOT = Path(__file__).parents[1]
LOG = "processes.log"
"""The file in the profile directory for what hub and engines print. (`log` is the name of a directory of the hub.)"""

Call = Callable[..., Awaitable[Any]]


class Client(NamedTuple):
    """A connected client. ``one`` makes one call, and ``many`` calls `abs` for so many numbers, all at once."""

    one: Call
    many: Callable[[int], Awaitable[Any]]


class Contender(NamedTuple):
    name: str
    open: Callable[[Path], AbstractAsyncContextManager[Client]]
    needs: tuple[str, ...] = ()
    """The packages that have to be installed."""


# Clusters of IPython Parallel


@contextmanager
def processes(directory: Path, *commands: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run processes with a profile directory, for the length of the block."""
    with ExitStack() as stack, (directory / LOG).open("ab") as log:
        running = []
        for arguments in commands:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments, f"--profile-dir={directory}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            running.append(process)
        yield running


@contextmanager
def cluster(directory: Path, hub: list[str], engine: list[str]) -> Iterator[None]:
    with processes(directory, hub):
        is_ready = (directory / "security" / "ipcontroller-engine.json").exists
        wait_until(is_ready, "the hub has written its connection files", PATIENCE, 0.005)
        with processes(directory, *[engine] * WORKERS):
            yield


HUB = ["trio_hub", "serve"]
STOCK_HUB = ["ipyparallel.controller", "--ip=127.0.0.1", "--location=127.0.0.1", "--log-level=40"]
# By default, engines give up if the hub has not answered after five seconds, which may be too short on a busy machine.
STOCK_ENGINE = ["ipyparallel.engine", "--log-level=40", f"--timeout={PATIENCE:g}"]
OUR_ENGINE = ["trio_hub", "engine", f"--timeout={PATIENCE:g}"]


@asynccontextmanager
async def stock_client(hub: list[str], engine: list[str], directory: Path) -> AsyncGenerator[Client, None]:
    with cluster(directory, hub, engine):
        client = import_module("ipyparallel").Client(profile_dir=str(directory), timeout=PATIENCE)
        client.wait_for_engines(WORKERS, timeout=PATIENCE, interactive=False)
        view = client.load_balanced_view()

        async def one(function: Callable[..., Any], *args: Any) -> Any:
            return view.apply_sync(function, *args)

        async def many(number: int) -> None:
            view.map_sync(abs, range(number), chunksize=1)

        yield Client(one, many)
        client.close()


@asynccontextmanager
async def trio_client(engine: list[str], directory: Path) -> AsyncGenerator[Client, None]:
    with cluster(directory, HUB, engine):
        async with trio_hub.connect(profile_dir=directory) as client:

            async def many(number: int) -> None:
                async for _ in client.map(abs, range(number), in_flight=256):
                    pass

            yield Client(client.apply, many)


@asynccontextmanager
async def our_executor(engine: list[str], directory: Path) -> AsyncGenerator[Client, None]:
    with cluster(directory, HUB, engine), trio_hub.Executor(profile_dir=directory) as executor:
        yield client_of(executor)


def client_of(executor: futures.Executor) -> Client:
    async def one(function: Callable[..., Any], *args: Any) -> Any:
        return executor.submit(function, *args).result()

    async def many(number: int) -> None:
        for _ in executor.map(abs, range(number)):
            pass

    return Client(one, many)


# Others


@asynccontextmanager
async def process_pool(directory: Path) -> AsyncGenerator[Client, None]:
    with futures.ProcessPoolExecutor(WORKERS) as executor:
        yield client_of(executor)


@asynccontextmanager
async def dask(directory: Path) -> AsyncGenerator[Client, None]:
    distributed = import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, local_directory=str(directory)
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        async def one(function: Callable[..., Any], *args: Any) -> Any:
            return client.submit(function, *args, pure=False).result()

        async def many(number: int) -> None:
            client.gather(client.map(abs, range(number), pure=False))

        yield Client(one, many)


@asynccontextmanager
async def parsl(directory: Path) -> AsyncGenerator[Client, None]:
    parsl, executors = import_module("parsl"), import_module("parsl.executors")
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # has Parsl's commands
    executor = executors.HighThroughputExecutor(max_workers_per_node=WORKERS, address="127.0.0.1")
    config = import_module("parsl.config").Config(executors=[executor], run_dir=str(directory))
    with parsl.load(config):

        async def one(function: Callable[..., Any], *args: Any) -> Any:
            return executor.submit(function, {}, *args).result()

        async def many(number: int) -> None:
            for future in [executor.submit(abs, {}, item) for item in range(number)]:
                future.result()

        yield Client(one, many)


@asynccontextmanager
async def ray(directory: Path) -> AsyncGenerator[Client, None]:
    ray = import_module("ray")
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)

    @ray.remote  # type: ignore[untyped-decorator,unused-ignore]
    def call(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    async def one(function: Callable[..., Any], *args: Any) -> Any:
        return ray.get(call.remote(function, *args))

    async def many(number: int) -> None:
        ray.get([call.remote(abs, item) for item in range(number)])

    yield Client(one, many)
    ray.shutdown()


def contenders() -> list[Contender]:
    """Return the contenders that can be measured here, with our own engines if this version has any."""
    stock = ("ipyparallel",)
    found = [
        Contender(IPCONTROLLER, partial(stock_client, STOCK_HUB, STOCK_ENGINE), stock),
        Contender("trio-hub, stock engines, stock client", partial(stock_client, HUB, STOCK_ENGINE), stock),
        Contender("trio-hub, stock engines, connect", partial(trio_client, STOCK_ENGINE), stock),
        Contender("trio-hub, stock engines, Executor", partial(our_executor, STOCK_ENGINE), stock),
    ]
    if "engine" in command.list_commands(click.Context(command)):
        found += [
            Contender("trio-hub, own engines, stock client", partial(stock_client, HUB, OUR_ENGINE), stock),
            Contender("trio-hub, own engines, connect", partial(trio_client, OUR_ENGINE)),
            Contender("trio-hub, own engines, Executor", partial(our_executor, OUR_ENGINE)),
        ]
    found += [
        Contender("Dask", dask, ("distributed",)),
        Contender("Parsl HTEX", parsl, ("parsl",)),
        Contender("Ray", ray, ("ray",)),
        Contender("ProcessPoolExecutor", process_pool),
    ]
    return [one for one in found if all(find_spec(package) is not None for package in one.needs)]


# Measuring


async def measure(contender: Contender, directory: Path, calls: int, began: float) -> dict[str, float]:
    async with contender.open(directory) as client:
        await client.one(abs, -1)
        first = time.monotonic() - began
        await client.many(calls // 10)  # then all workers are connected, and have imported their modules
        start = time.monotonic()
        await client.many(calls)
        many = time.monotonic() - start
        single = [await seconds(client.one, abs, -1) for _ in range(max(10, calls // 10))]
        arrays = [await seconds(client.one, numpy.negative, ARRAY) for _ in range(60)]
        pids = processes_of(directory)
        return {
            "first_s": first,
            "calls_per_s": calls / many,
            "call_ms": 1e3 * statistics.median(single),
            "array_mb_per_s": 2 * ARRAY.nbytes / 1e6 / statistics.median(arrays),
            "memory_mb": sum(map(memory_mb, pids)),
            "processes": len(pids),
        }


def processes_of(directory: Path) -> set[int]:
    """Return the ids of a contender's processes: the descendants of this one, and those that it has let go (Parsl)."""
    roots = [os.getpid()]
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(directory) in (entry / "cmdline").read_text(errors="replace"):
                roots.append(int(entry.name))
    return {pid for root in roots for pid in tree(root)} - {os.getpid()}


async def seconds(call: Call, *args: Any) -> float:
    start = time.perf_counter()
    await call(*args)
    return time.perf_counter() - start


def measured(name: str, calls: int) -> dict[str, float]:
    """Measure a contender in a separate process."""
    arguments = ["-m", "benchmarks.end_to_end", "--contender", name, "--calls", str(calls)]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-4000:])
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure each contender (%(default)s)")
    parser.add_argument("--calls", type=int, default=2000, help="the number of calls in each measurement (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only contenders whose names contain one of these")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="the file to write the page to (stdout)")
    parser.add_argument("--contender", help=argparse.SUPPRESS)  # for the process that measures one contender
    options = parser.parse_args()
    chosen = {one.name: one for one in contenders()}
    if options.contender:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                figures = trio.run(measure, chosen[options.contender], Path(directory), options.calls, began)
            except Exception:
                log = Path(directory, LOG)
                print(log.read_text()[-2000:] if log.is_file() else "", file=sys.stderr)
                raise
        print(json.dumps(figures))
        return
    names = [name for name in chosen if not options.only or any(text in name for text in options.only)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    failed = False
    for number in range(options.rounds):
        for name in names[:: -1 if number % 2 else 1]:  # so that no contender is always the first
            try:
                found[name].append(measured(name, options.calls))
                said = json.dumps({key: round(value, 2) for key, value in found[name][-1].items()})
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed, said = True, f"FAILED: {error}"
            print(f"round {number + 1}/{options.rounds}, {name}: {said}", file=sys.stderr, flush=True)
    print(goals(found), end="", file=sys.stderr)
    text = page(found, this_machine())
    if options.write:
        options.write.write_text(text)
    else:
        print(text)
    if failed:
        sys.exit("some measurements have failed")


if __name__ == "__main__":
    main()
