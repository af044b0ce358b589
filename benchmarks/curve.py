"""Measures the cost of encryption: tasks and large direct calls with a hub with CURVE, and with a hub without it.

    python -m benchmarks.curve

starts two hubs, ``python -m trio_hub serve`` with ``--curve true`` and with ``--curve false``, and for each a process
of scripted engines. The client is in this process, with bare sockets. It prints a table with the hub's CPU time and the
wall time of a task that does nothing, and of a direct call that sends a large buffer in both directions: the median of
all rounds and, in brackets, the least and the largest value. The hubs take turns, so that a machine that is slow for a
while is slow for both. The wall time includes the encryption by client and engines, on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import IO, Any

import trio
import zmq

from trio_hub.testing import Request, open_engines
from trio_hub.wire.messages import Session

from .dag import cpu_seconds

PATIENCE = 60_000
"""Milliseconds within which an answer must come."""
FUNCTION = b"f" * 200
"""Takes the place of the function that a stock client would send."""
DELIMITER = b"<IDS|MSG>"


# The cluster


async def be_engines(info: dict[str, Any], count: int) -> None:
    """Print the engines' uuids. Then answer each request with its own buffers, until the input ends."""

    def behave(request: Request) -> None:
        request.answer(request.buffers[1:])
        request.engine.requests.clear()

    async with open_engines(info, count, behaviour=behave) as engines:
        print(json.dumps([engine.uuid for engine in engines]), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Run a module in a process, for the length of the block, and give its output."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout
        finally:
            running.terminate()
            running.wait()


class Cluster:
    """A hub, its engines, and a client that is connected to the hub's task and direct queues."""

    def __init__(self, stack: ExitStack, directory: Path, count: int, *, encrypted: bool) -> None:
        options = (
            "--db",
            "memory",
            "--db-max-bytes",
            "64MiB",
            "--curve",
            str(encrypted).lower(),
            "--log-level",
            "error",
        )
        hub, said = stack.enter_context(process("trio_hub", "serve", "--profile-dir", str(directory), *options))
        assert said.readline().rstrip().endswith("are encrypted" if encrypted else "(not encrypted)"), (
            "the hub has not started"
        )
        security = directory / "security"
        engine_file = str(security / "ipcontroller-engine.json")
        engines = ("benchmarks.curve", "--engines", str(count), "--be-engines", engine_file)
        self.uuids: list[str] = json.loads(stack.enter_context(process(*engines))[1].readline())
        self.hub = hub.pid
        info = json.loads((security / "ipcontroller-client.json").read_text())
        self._session = Session(info["key"].encode(), session_id="curve", now=lambda: datetime.now(UTC))
        context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self._sockets = {name: _connected(context, info, name) for name in ("task", "mux", "registration")}
        for socket in self._sockets.values():
            stack.enter_context(socket)
        self._wait_for_engines()

    def _wait_for_engines(self) -> None:
        socket = self._sockets["registration"]
        there = 0
        while there < len(self.uuids):  # the hub has no event for this
            socket.send_multipart(self._session.write("connection_request", {}))
            if not socket.poll(PATIENCE):
                raise TimeoutError("the hub does not answer")
            there = len(json.loads(_parts(socket.recv_multipart())[5])["engines"])

    def run(self, queue: str, calls: int, window: int, payload: bytes) -> None:
        """Send requests, with at most ``window`` outstanding, and wait for all answers."""
        socket, session = self._sockets[queue], self._session
        sent = answered = 0
        while answered < calls:
            while sent < calls and sent - answered < window:
                frames: Sequence[Any] = session.write("apply_request", {}, buffers=[FUNCTION, payload])
                to = [self.uuids[sent % len(self.uuids)].encode()] if queue == "mux" else []
                socket.send_multipart([*to, *frames], copy=False)
                sent += 1
            if not socket.poll(PATIENCE):
                raise TimeoutError(f"{answered} of {calls} requests are answered, and no more")
            while socket.poll(0):
                parts = _parts([frame.bytes for frame in socket.recv_multipart(copy=False)])
                assert json.loads(parts[5])["status"] == "ok"
                assert parts[6] == payload
                answered += 1


def _connected(context: zmq.Context[zmq.Socket[bytes]], info: dict[str, Any], name: str) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.linger = socket.sndhwm = socket.rcvhwm = 0
    if info["curve_serverkey"]:
        socket.curve_serverkey = info["curve_serverkey"].encode()
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.connect(f"{info['interface']}:{info[name]}")
    return socket


def _parts(frames: list[bytes]) -> list[bytes]:
    """Return the frames of a message from the delimiter on: signature, header, parent, metadata, content, buffers."""
    return frames[frames.index(DELIMITER) :]


# The measurements


def measure(cluster: Cluster, queue: str, calls: int, window: int, payload: bytes) -> tuple[float, float]:
    """Return the hub's CPU time and the wall time per request, in seconds."""
    cpu, clock = cpu_seconds(cluster.hub), time.perf_counter()
    cluster.run(queue, calls, window, payload)
    return (cpu_seconds(cluster.hub) - cpu) / calls, (time.perf_counter() - clock) / calls


def row(title: str, seconds: Sequence[tuple[float, float]], scale: float, unit: str) -> str:
    cells = []
    for values in zip(*seconds, strict=True):
        low, middle, high = (scale * value for value in (min(values), median(values), max(values)))
        digits = 0 if middle >= 100 else 1
        cells.append(f"{middle:.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f})")
    return f"| {title} | {' | '.join(cells)} |"


def compare(arguments: argparse.Namespace, directory: Path) -> None:
    kinds = {
        "task": ("task", arguments.tasks, arguments.window, b"x", 1e6, "µs"),
        f"call of {arguments.size / 2**20:g} MiB": ("mux", arguments.calls, 1, os.urandom(arguments.size), 1e3, "ms"),
    }
    with ExitStack() as stack:
        clusters = {
            name: Cluster(stack, directory / name, arguments.engines, encrypted=name == "encrypted")
            for name in ("open", "encrypted")
        }
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number in range(arguments.rounds + 1):
            for kind, (queue, calls, window, payload, _, _) in kinds.items():
                for name, cluster in clusters.items():
                    taken = measure(cluster, queue, calls, window, payload)
                    if number:  # the first warms up
                        found.setdefault((kind, name), []).append(taken)
        print(f"{arguments.rounds} rounds of {arguments.tasks} tasks (at most {arguments.window} ahead) and of")
        print(f"{arguments.calls} calls, {arguments.engines} engines\n")
        print("| | the hub's CPU | wall time |\n|---|---|---|")
        for (kind, name), seconds in found.items():
            print(row(f"{kind}, {name}", seconds, *kinds[kind][4:]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--window", type=int, default=500, help="tasks that are not answered, at most")
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--size", type=int, default=4 * 2**20, help="bytes of a call's buffer")
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--be-engines", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be_engines:
        trio.run(be_engines, json.loads(Path(arguments.be_engines).read_text()), arguments.engines)
        return
    with tempfile.TemporaryDirectory(prefix="curve-") as directory:
        compare(arguments, Path(directory))


if __name__ == "__main__":
    main()
