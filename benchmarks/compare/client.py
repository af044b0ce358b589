"""A client with bare sockets. It queries the hub, and keeps a window of requests outstanding."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import zmq

from .failure import Failed, wait_until
from .wire import BUFFERS, CONTENT, DELIMITER, LARGE, OK, PARENT, Wire, url

__all__ = ["Client", "Run", "percentile"]

FUNCTION = b"f" * 200
"""Takes the place of the function that a stock client would send before its arguments."""
AT_ONCE = 256
"""The number of replies that are read before the window is filled again."""


@dataclass(frozen=True)
class Run:
    """The seconds of a run, and the time that each request waited for its reply, shortest first."""

    seconds: float
    delays: list[float]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile, in the unit of the numbers.

    Raises:
        Failed: There are no numbers.
    """
    if not ordered:
        raise Failed("nothing was measured in time")
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


class Client:
    """A client for the length of a ``with`` block. Each wait has a limit, after which it raises `Failed`."""

    def __init__(self, info: dict[str, Any], *, patience: float = 60.0) -> None:
        self.info = info
        self.patience = patience
        self._wire = Wire(info["key"])
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._context.destroy(linger=0)

    def _socket(self, channel: str) -> zmq.Socket[bytes]:
        if channel not in self._sockets:
            socket = self._sockets[channel] = self._context.socket(zmq.DEALER)
            socket.linger = socket.sndhwm = socket.rcvhwm = 0
            socket.identity = uuid.uuid4().hex.encode()
            socket.connect(url(self.info, channel))
        return self._sockets[channel]

    # Questions

    def ask(self, msg_type: str, content: dict[str, Any] | None = None, *, limit: float | None = None) -> bytes:
        """Return the packed content of the hub's answer."""
        socket = self._socket("registration")
        socket.send_multipart(self._wire.message(msg_type, json.dumps(content or {}).encode()))
        limit = limit or self.patience
        if not socket.poll(int(limit * 1000)):
            raise Failed(f"no answer to {msg_type} in {limit:g} s")
        frames = socket.recv_multipart()
        return frames[frames.index(DELIMITER) + CONTENT]

    def query(self, msg_type: str, content: dict[str, Any] | None = None, *, limit: float | None = None) -> Any:
        """Return the unpacked content of the hub's answer."""
        answer = json.loads(self.ask(msg_type, content, limit=limit))
        if answer.get("status", "ok") != "ok":
            raise Failed(f"{msg_type} was answered with {answer.get('ename')}: {answer.get('evalue')}")
        return answer

    def engines(self) -> int:
        """Return the number of usable engines."""
        return len(self.query("connection_request")["engines"])

    def wait_engines(self, n: int, limit: float = 120.0) -> None:
        wait_until(lambda: self.engines() == n, f"the hub names {n} engines", limit)

    def wait_recorded(self, n: int) -> None:
        """Wait until the hub has recorded so many requests as finished, and none is unfinished."""

        def recorded() -> bool:
            answer = self.query("queue_request", {"targets": None, "verbose": False})
            engines = [counts for counts in answer.values() if isinstance(counts, dict)]
            left = sum(counts["queue"] + counts["tasks"] for counts in engines) + answer.get("unassigned", 0)
            return bool(left == 0 and sum(counts["completed"] for counts in engines) >= n)

        wait_until(recorded, f"the hub has recorded {n} requests as done", max(120.0, self.patience))

    # Work

    def run(
        self, queue: str, requests: int, *, window: int, payload: bytes = b"x" * 100, engines: Sequence[str] = ()
    ) -> Run:
        """Send so many requests, of which at most `window` are unanswered at a time, and read all replies.

        Args:
            queue: ``task`` or ``mux``.
            requests: the number of requests.
            window: the maximum number of outstanding requests.
            payload: sent with each request, and returned with its reply.
            engines: for ``mux``, the uuids of the engines, which are asked in turn.

        Raises:
            Failed: No reply came for `patience` seconds, or a reply is an error or belongs to no request.
        """
        socket = self._socket(queue)
        message, buffers, copy = self._wire.message, (FUNCTION, payload, b"{}"), len(payload) < LARGE
        targets = [[engine.encode()] for engine in engines] or [[]]
        outstanding: dict[bytes, float] = {}  # by header, which comes back as the reply's parent
        delays: list[float] = []
        clock = time.perf_counter
        sent = 0
        began = clock()
        while len(delays) < requests:
            while sent < requests and len(outstanding) < window:
                frames = message("apply_request", buffers=buffers)
                outstanding[frames[2]] = clock()
                socket.send_multipart(targets[sent % len(targets)] + frames, copy=copy)
                sent += 1
            if not socket.poll(int(self.patience * 1000)):
                raise Failed(f"{len(delays)} of {requests} requests answered, then none for {self.patience:g} s")
            for _ in range(AT_ONCE):
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                start = frames.index(DELIMITER)
                if frames[start + CONTENT] != OK:
                    raise Failed(f"a request was answered with {frames[start + CONTENT][:500]!r}")
                if len(frames[start + BUFFERS]) != len(payload):
                    raise Failed(f"{len(frames[start + BUFFERS])} of {len(payload)} bytes came back")
                at = outstanding.pop(frames[start + PARENT], None)
                if at is None:
                    raise Failed("a reply to no request, or the second one")
                delays.append(clock() - at)
        return Run(clock() - began, sorted(delays))

    def submit(self, tasks: int) -> None:
        """Send tasks to the load-balanced queue, and read no replies."""
        socket = self._socket("task")
        for _ in range(tasks):
            socket.send_multipart(self._wire.message("apply_request", buffers=(FUNCTION, b"x" * 100, b"{}")))

    def collect(self, replies: int, limit: float) -> list[bytes]:
        """Return the contents of so many replies to submitted tasks."""
        socket = self._socket("task")
        contents: list[bytes] = []
        deadline = time.monotonic() + limit
        while len(contents) < replies:
            if not socket.poll(int(1000 * max(0.0, deadline - time.monotonic()))):
                raise Failed(f"{len(contents)} of {replies} tasks answered in {limit:g} s")
            frames = socket.recv_multipart()
            contents.append(frames[frames.index(DELIMITER) + CONTENT])
        return contents
