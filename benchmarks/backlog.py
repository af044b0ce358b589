"""Measures the cost of a long queue: many large tasks are submitted before there are engines, and then all are run.

    python benchmarks/backlog.py --tasks 200000 --size 20000

starts ``python -m trio_hub serve`` with a database on disk, plays the client and its engines in this process, and
prints one line of JSON: how many tasks were answered, the largest resident memory (MB) of the hub while they came and
while they ran, and tasks per second of both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio
import zmq

from trio_hub.testing import Request, open_client, open_engines
from trio_hub.wire.messages import Session


class Memory:
    """Returns the largest resident memory of a process, in MB, since the last call."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def peak(self) -> float:
        status = Path(f"/proc/{self._pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")
        return round(peak / 1024, 1)


class Client:
    """A client with only a socket. It submits tasks and counts answers as fast as the hub allows."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(f"{info['interface']}:{info['task']}")
        self.session = Session(info["key"].encode(), session_id="backlog", now=lambda: datetime.now(UTC))

    def submit(self, tasks: int, size: int) -> None:
        for _ in range(tasks):
            frames = self.session.write("apply_request", {}, buffers=[os.urandom(size)])
            self.socket.send_multipart(frames)

    def collect(self, tasks: int) -> int:
        answered: set[str] = set()
        while len(answered) < tasks and self.socket.poll(60_000):
            frames = self.socket.recv_multipart()
            answered.add(json.loads(frames[frames.index(b"<IDS|MSG>") + 3])["msg_id"])
        return len(answered)

    def close(self) -> None:
        self.socket.close()
        self.context.term()


def answer(request: Request) -> None:
    request.answer([b"done"])
    request.engine.requests.clear()


async def measure(process: subprocess.Popen[str], directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    security = directory / "security"
    client_info = json.loads((security / "ipcontroller-client.json").read_text())
    engine_info = json.loads((security / "ipcontroller-engine.json").read_text())
    memory = Memory(process.pid)
    client = Client(client_info)
    try:
        idle = memory.peak()
        start = time.perf_counter()
        await trio.to_thread.run_sync(client.submit, arguments.tasks, arguments.size)
        async with open_client(client_info) as asking:
            queued = 0
            while queued < arguments.tasks:  # the hub has no event for this
                queued = (await asking.query("queue_request")).content.get("unassigned", 0)
                await trio.sleep(0.2)
        submitted = time.perf_counter()
        queueing = memory.peak()
        async with open_engines(engine_info, arguments.engines, behaviour=answer):
            answered = await trio.to_thread.run_sync(client.collect, arguments.tasks)
        finished = time.perf_counter()
        return {
            "tasks": arguments.tasks,
            "size": arguments.size,
            "answered": answered,
            "idle_mb": idle,
            "queueing_peak_mb": queueing,
            "running_peak_mb": memory.peak(),
            "submitted_per_s": round(arguments.tasks / (submitted - start)),
            "run_per_s": round(answered / (finished - submitted)),
        }
    finally:
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=20_000, help="bytes of each task")
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--options", default="", help="further options of `trio-hub serve`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backlog-") as name:
        command = [sys.executable, "-m", "trio_hub", "serve", "--profile-dir", name, *arguments.options.split()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                process.stdout.readline()  # the hub is ready
                print(json.dumps(trio.run(measure, process, Path(name), arguments)))
            finally:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
