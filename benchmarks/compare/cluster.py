"""A controller with its engines and a client, for the length of a measurement."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .client import Client, Run
from .contenders import Contender, Controller
from .engines import Engines

__all__ = ["Cluster", "Work", "cluster", "controller"]


@dataclass(frozen=True)
class Work:
    """A `Run`, the seconds until it was answered and recorded, and the controller's CPU seconds for it."""

    run: Run
    recorded_s: float
    cpu: float


class Cluster:
    def __init__(self, controller: Controller, engines: Engines, client: Client) -> None:
        self.controller = controller
        self.engines = engines
        self.client = client
        self._requests = 0

    def run(self, queue: str, requests: int, *, window: int, payload: bytes = b"x" * 100) -> Run:
        """Call `Client.run`, with all engines in turn if the queue is ``mux``."""
        self._requests += requests
        engines = self.engines.uuids if queue == "mux" else ()
        return self.client.run(queue, requests, window=window, payload=payload, engines=engines)

    def wait_recorded(self, others: int = 0) -> None:
        """Wait until the hub has recorded all requests, and so many of other clients. The floor records nothing."""
        self._requests += others
        if self.controller.contender.kind != "floor":
            self.client.wait_recorded(self._requests)

    def work(self, queue: str, requests: int, *, window: int, payload: bytes = b"x" * 100) -> Work:
        """Call `run`, and wait until the hub has recorded all requests, which is part of the cost."""
        cpu, began = self.controller.cost().cpu, time.perf_counter()
        run = self.run(queue, requests, window=window, payload=payload)
        self.wait_recorded()
        return Work(run, time.perf_counter() - began, self.controller.cost().cpu - cpu)


@contextmanager
def controller(contender: Contender, *, tiny: bool) -> Iterator[Controller]:
    """Run a controller for the length of the block."""
    running = Controller(contender, tiny=tiny)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def cluster(contender: Contender, *, tiny: bool) -> Iterator[Cluster]:
    """Run a controller with usable engines, which have answered a few requests, so that all connections are open."""
    with controller(contender, tiny=tiny) as running, Client(running.client_info) as client:
        engines = Engines(running.engine_info, contender.engines)
        try:
            engines.register()
            if contender.kind != "floor":
                client.wait_engines(contender.engines)
            time.sleep(contender.settling(tiny=tiny))
            made = Cluster(running, engines, client)
            few = 10 * min(contender.engines, 50)
            for queue in ("task",) if contender.kind == "floor" else ("task", "mux"):
                made.run(queue, few, window=few)
            made.wait_recorded()
            yield made
        finally:
            engines.kill()
