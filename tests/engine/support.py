"""Engines of ours as processes, at a hub in the process of the test."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import trio

from trio_hub import Client, HubConfig, RunningHub, connect
from trio_hub.testing import open_hub

__all__ = ["LIMIT", "Cluster", "EngineProcess", "cluster", "is_there", "open_engine_process", "until"]

_NUMBERS = itertools.count()
LIMIT = 60.0
"""Seconds until something that must happen counts as not happening."""


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until a condition about another process is true, by checking it again and again."""
    with trio.move_on_after(LIMIT):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.01)
        return
    raise AssertionError(f"{what}: not within {LIMIT} s")


class EngineProcess:
    """A process ``trio-hub engine``, and its log."""

    def __init__(self, process: trio.Process, log_file: Path) -> None:
        self.process = process
        self.log_file = log_file

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def nanny(self) -> int:
        """Return the process id of the nanny, which is the started process."""
        return self.process.pid

    async def child(self) -> int:
        """Return the process id of the engine itself."""
        await until(lambda: children_of(self.nanny), "the engine's process")
        return children_of(self.nanny)[0]

    async def wait(self) -> int:
        with trio.fail_after(LIMIT):
            return await self.process.wait()


def children_of(pid: int) -> list[int]:
    """Return the children of all threads of a process."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def is_there(pid: int) -> bool:
    """Return whether there is a process with this id that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@asynccontextmanager
async def open_engine_process(
    directory: Path,
    *options: str,
    info: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    program: Sequence[str] = ("-m", "trio_hub", "engine"),
    stdin: int = subprocess.DEVNULL,
) -> AsyncGenerator[EngineProcess, None]:
    """Run an engine process during the block.

    Args:
        directory: where the log goes.
        options: of the command.
        info: what the connection file says, given by the environment.
        environ: changes to the environment.
        program: arguments of Python that run the command.
        stdin: a descriptor, or a constant of `subprocess`.
    """
    log_file = directory / f"engine-{next(_NUMBERS)}.log"
    given = {} if info is None else {"IPP_CONNECTION_INFO": json.dumps(info)}
    with log_file.open("wb") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, *program, *options],
            stdin=stdin,
            stdout=log,
            stderr=log,
            env=os.environ | given | (environ or {}),
        )
    engine = EngineProcess(process, log_file)
    try:
        yield engine
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.send_signal(signal.SIGHUP)  # after SIGTERM, what runs would have some of the grace to end
                with trio.move_on_after(20):
                    await process.wait()
            with suppress(ProcessLookupError):
                if process.returncode is None:
                    os.kill(await engine.child(), signal.SIGKILL)
            await process.wait()


class Cluster(NamedTuple):
    hub: RunningHub
    client: Client
    engine: EngineProcess


@asynccontextmanager
async def cluster(
    directory: Path, *options: str, limit: float = LIMIT, **settings: Any
) -> AsyncGenerator[Cluster, None]:
    """Run a hub and an engine of trio_hub during the block. Give both, and a connected client.

    Args:
        directory: where the log goes.
        options: of the engine's command.
        limit: seconds that the block may take.
        settings: of the hub.
    """
    with trio.fail_after(limit):
        async with (
            open_hub(HubConfig(**settings)) as hub,
            # A nanny that is told to end kills an engine that has not ended in time, however busy the machine is.
            open_engine_process(directory, f"--kill-grace={LIMIT}", *options, info=hub.engine_info) as engine,
        ):
            await hub.wait_engines(1)
            async with connect(connection_info=hub.client_info) as client:
                yield Cluster(hub, client, engine)
