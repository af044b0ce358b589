"""A hub, a client and engines for the length of a test, and functions that wait for the hub."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from typing import Any, NamedTuple

import trio
import trio.testing

from trio_hub import HubConfig, RunningHub
from trio_hub.testing import (
    Behaviour,
    ScriptedClient,
    ScriptedEngine,
    answer,
    open_client,
    open_engines,
    open_hub,
)

LIMIT = 30.0
"""The time limit of a test, in seconds. A test takes far less, even on a busy machine."""


class Cluster(NamedTuple):
    hub: RunningHub
    client: ScriptedClient
    engines: list[ScriptedEngine]


@asynccontextmanager
async def cluster(engines: int = 1, *, behaviour: Behaviour = answer, **settings: Any) -> AsyncGenerator[Cluster, None]:
    """Give a hub, a client and engines, all connected and usable, within the time limit."""
    async with (
        within_limit(),
        open_hub(HubConfig(**settings)) as hub,
        open_client(hub.client_info) as client,
        open_engines(hub.engine_info, engines, behaviour=behaviour) as scripted,
    ):
        await hub.wait_engines(engines)
        yield Cluster(hub, client, scripted)


@asynccontextmanager
async def within_limit() -> AsyncGenerator[None, None]:
    with trio.fail_after(LIMIT):
        yield


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds. It is checked whenever this process has nothing to do."""
    while not condition():
        await trio.testing.wait_all_tasks_blocked(0.002)


def free_ports(n: int) -> tuple[int, ...]:
    """Return ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)


async def settled(hub: RunningHub, client: ScriptedClient, engine: ScriptedEngine) -> None:
    """Return when all that the engine has sent on the direct queue, and the task queue, has been handled."""
    held, engine.held = engine.held, []
    for queue in ("mux", "task"):
        direct = queue == "mux"
        msg_id = client.call(engine) if direct else client.submit(metadata={"targets": [engine.uuid]})
        await engine.wait_until(lambda msg_id=msg_id: any(one.msg_id == msg_id for one in engine.requests))  # type: ignore[misc]
        if engine.held:
            engine.held.pop().answer()
        await client.reply(msg_id)
    engine.held = held


class Footprint(NamedTuple):
    """The tasks, threads and descriptors of a process. ZeroMQ's threads are counted separately."""

    descriptors: int
    zmq_threads: int
    python_threads: int
    tasks: int

    @classmethod
    def now(cls) -> Footprint:
        python = threading.enumerate()
        return cls(
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")) - len(python),
            # Trio keeps a thread that has nothing to do for a while, and gives it its own name back.
            sum(not thread.name.startswith("Trio thread ") for thread in python),
            trio.lowlevel.current_statistics().tasks_living,
        )

    async def restored(self) -> None:
        """Wait until the process uses no more than this footprint again.

        A thread of ZeroMQ that has been joined may be listed by the kernel for a moment longer.
        """
        await eventually(lambda: all(now <= before for now, before in zip(Footprint.now(), self, strict=True)))


async def name_is_free(hub: RunningHub, ident: bytes) -> None:
    """Wait until ZeroMQ has released all connections of this identity, so that another peer can have it."""
    for name in ("query", "control_out", "mux_out", "task_out", "broadcast_out", "hb_pong"):
        await eventually(lambda name=name: not hub._host.channels[name].send([ident, b""]))  # type: ignore[misc]
