"""Engines with bare sockets, in separate processes. They register, answer pings, and answer all requests."""

from __future__ import annotations

import json
import multiprocessing
import resource
import select
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import zmq

from .failure import Failed
from .wire import CONTENT, DELIMITER, HEADER, LARGE, OK, PAYLOAD, Wire, url

__all__ = ["Engines", "raise_limits"]

EACH = 500
"""The number of engines per process."""

Socket: TypeAlias = "zmq.Socket[bytes]"


def raise_limits() -> None:
    """Raise the limit of open files as far as possible, for this process and its children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Engines:
    """A number of engines, with their ``uuids``. Their processes run when this returns, and wait for `register`.

    Args:
        info: the engines' connection file.
        n: the number of engines.
        answering: whether the engines answer requests.
    """

    def __init__(self, info: dict[str, Any], n: int, *, answering: bool = True) -> None:
        self.uuids = [str(uuid.uuid4()) for _ in range(n)]
        spawn = multiprocessing.get_context("spawn")
        self._players: list[tuple[Any, Connection]] = []
        for first in range(0, n, EACH):
            here, there = spawn.Pipe()
            arguments = (info, self.uuids[first : first + EACH], answering, there)
            process = spawn.Process(target=play, args=arguments, daemon=True)
            process.start()
            there.close()
            self._players.append((process, here))
        self._expect("up", 60.0)

    def register(self, limit: float = 120.0) -> None:
        """Register all engines. Returns when the hub has answered every registration."""
        self._order("register")
        self._expect("registered", limit)

    def leave(self, limit: float = 60.0) -> None:
        """Unregister all engines, and end."""
        self._order("leave")
        self._expect("left", limit)
        self.kill()

    def kill(self) -> None:
        """Close all sockets at once, without unregistering."""
        for process, _ in self._players:
            process.kill()
        for process, pipe in self._players:
            process.join()
            pipe.close()
        self._players.clear()

    def _order(self, word: str) -> None:
        for _, pipe in self._players:
            pipe.send(word)

    def _expect(self, word: str, limit: float) -> None:
        for _, pipe in self._players:
            try:
                said = pipe.recv() if pipe.poll(limit) else f"nothing in {limit:g} s"
            except EOFError:
                said = "nothing more: their process has ended"
            if said != word:
                raise Failed(f"engines should have said {word!r}, but they said {said}")


def play(info: dict[str, Any], uuids: list[str], answering: bool, orders: Connection) -> None:
    """Run a process of engines."""
    Player(info, uuids, answering, orders).run()


class Player:
    """Several engines on one thread.

    The thread waits for the file descriptors of the sockets, since ZeroMQ's own poll looks at each socket each time.
    Such a descriptor reports only messages that arrive after the socket was found empty. So each socket is read once
    after it has connected, and each later read reads all messages (`arrived`).
    """

    def __init__(self, info: dict[str, Any], uuids: list[str], answering: bool, orders: Connection) -> None:
        self.info = info
        self.uuids = uuids
        self.answering = answering
        self.orders = orders
        self.wire = Wire(info["key"])
        self.context: zmq.Context[Socket] = zmq.Context()
        self.context.max_sockets = 5 * len(uuids) + 100
        self.poll = select.epoll()
        self.handlers: dict[int, Callable[[], object]] = {}
        self.registrations: dict[str, tuple[Socket, int]] = {}

    def run(self) -> None:
        self.wait(self.orders.fileno(), self.obey)
        self.orders.send("up")
        while True:
            for ready, _ in self.poll.poll():
                self.handlers[ready]()

    def handle(self, socket: Socket, handler: Callable[[], object]) -> None:
        """Handle all messages. Call this at once, and whenever a message may have arrived."""
        self.wait(socket.FD, handler)
        handler()

    def wait(self, descriptor: int, handler: Callable[[], object]) -> None:
        self.handlers[descriptor] = handler
        self.poll.register(descriptor, select.EPOLLIN)

    def obey(self) -> None:
        try:
            order = self.orders.recv()
        except EOFError:  # the parent process has ended
            raise SystemExit from None
        (self.leave if order == "leave" else self.register)()

    def open(self, kind: int, channels: list[str], identity: str = "") -> Socket:
        socket = self.context.socket(kind)
        socket.linger = socket.sndhwm = socket.rcvhwm = 0
        if identity:
            socket.identity = identity.encode()
        for channel in channels:
            socket.connect(url(self.info, channel))
        return socket

    # Registering and leaving

    def register(self) -> None:
        if "registration" not in self.info:  # a bare proxy needs no registration
            for engine in self.uuids:
                self.open_shell(engine, ["task"], 0)
            self.orders.send("registered")
            return
        for engine in self.uuids:
            socket = self.open(zmq.DEALER, ["registration"], engine)
            socket.send_multipart(self.wire.message("registration_request", json.dumps({"uuid": engine}).encode()))
            self.handle(socket, partial(self.registered, engine, socket))

    def registered(self, engine: str, socket: Socket) -> None:
        for frames in arrived(socket):
            self.join(engine, socket, frames)

    def join(self, engine: str, socket: Socket, frames: list[bytes]) -> None:
        reply = json.loads(frames[frames.index(DELIMITER) + CONTENT])
        if reply.get("status") != "ok":
            self.orders.send(f"that a registration was refused: {reply}")
            return
        self.registrations[engine] = socket, reply["id"]
        self.open_shell(engine, ["mux", "task"], reply["id"])
        # The heart comes last: when the hub hears it, everything else is open.
        pongs = self.open(zmq.DEALER, ["hb_pong"], engine)
        pings = self.open(zmq.SUB, [])
        pings.subscribe(b"")
        pings.connect(url(self.info, "hb_ping"))
        self.handle(pings, lambda: [pongs.send_multipart(ping) for ping in arrived(pings)])
        if len(self.registrations) == len(self.uuids):
            self.orders.send("registered")

    def leave(self) -> None:
        for engine, (socket, number) in self.registrations.items():
            content = json.dumps({"id": number, "uuid": engine}).encode()
            socket.send_multipart(self.wire.message("unregistration_request", content))
        self.context.destroy(linger=10_000)
        self.orders.send("left")

    # Work

    def open_shell(self, engine: str, channels: list[str], number: int) -> None:
        shell = self.open(zmq.ROUTER, channels, engine)
        if "broadcast" in self.info:
            shell.connect(url(self.info, "broadcast", number))
        metadata = json.dumps(
            {
                "started": self.wire.date,
                "dependencies_met": True,
                "engine": engine,
                "is_broadcast": False,
                "is_coalescing": False,
                "original_msg_id": "",
                "status": "ok",
            }
        ).encode()
        self.handle(shell, lambda: self.work(shell, metadata))

    def work(self, shell: Socket, metadata: bytes) -> None:
        for frames in arrived(shell):
            if not self.answering:
                continue
            start = frames.index(DELIMITER)
            parent, payload = frames[start + HEADER], frames[start + PAYLOAD]
            reply = self.wire.message("apply_reply", OK, parent=parent, metadata=metadata, buffers=(payload,))
            shell.send_multipart(frames[:start] + reply, copy=len(payload) < LARGE)


def arrived(socket: Socket) -> Iterator[list[bytes]]:
    """Yield all messages of a socket, including those that come meanwhile."""
    while True:
        try:
            yield socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
