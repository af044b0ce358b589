"""The launching agent: a process beside the hub that starts the blocks of one pool.

It reads requests from its standard input, one per line, and writes the answers to its standard output (`protocol`). It
ends when its standard input ends, so it ends with the hub. Its log goes to standard error.

ipyparallel's launchers run on asyncio, and some of them block. So the agent answers one request after the other.
"""

from __future__ import annotations

import asyncio  # noqa: TID251  # ipyparallel's launchers need a loop of asyncio
import inspect
import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import IO, Any, Protocol

from ..config.pools import COMMAND, Pool
from ..logs import get_logger
from .blockfiles import BlockFiles
from .commands import Places
from .launcher import Job, JobReport, LaunchError
from .protocol import line, read_setup, report_to

__all__ = ["Agent", "Starter", "main"]

log = get_logger("trio_hub.launching")


class Starter(Protocol):
    """Starts blocks in one way. Any method may return an awaitable of its result instead. All raise `LaunchError`."""

    def submit(self, block: str, engines: int) -> Any:
        """Ask for a block. Write its file before and afterwards. Return the `Job`."""

    def look(self, jobs: Mapping[str, Job]) -> Any:
        """Return a `JobReport` per block."""

    def cancel(self, block: str, job: Job) -> Any:
        """End the job of a block."""

    def recover(self, block: str) -> Any:
        """Return the `Job` of a block whose submission was interrupted; None if no job was found."""

    def preview(self, block: str, engines: int) -> Any:
        """Return what would be submitted, as text for people."""


def find_starter(pool: Pool, places: Places, files: BlockFiles) -> Starter:
    """Return the object that starts the blocks of a pool. Raises `LaunchError`."""
    if pool.launcher == COMMAND:
        from .usercommands import UserCommands

        return UserCommands(pool, places, files)
    try:
        from .stock import StockLaunchers
    except ImportError as error:
        raise LaunchError(
            f"pool {pool.name}: the launcher {pool.launcher} is one of ipyparallel's, which cannot be loaded "
            f"({error}). Install it: {sys.executable} -m pip install ipyparallel"
        ) from error
    return StockLaunchers(pool, places, files)


class Agent:
    """Answers requests about the blocks of one pool."""

    def __init__(self, pool: Pool, places: Places) -> None:
        self.pool = pool
        self.places = places
        self.files = BlockFiles(places.directory)
        self._starter: Starter | None = None

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request."""
        number = request.get("id")
        try:
            return {"id": number, "answer": await self._carry_out(request)}
        except LaunchError as error:
            return {"id": number, "error": str(error)}
        except Exception as error:  # a launcher of ipyparallel, or of the site, may raise anything
            log.warning("a launcher has failed", pool=self.pool.name, exc_info=error)
            return {"id": number, "error": f"{type(error).__name__}: {error}"}

    async def _carry_out(self, request: Mapping[str, Any]) -> Any:
        if self._starter is None:
            self._starter = find_starter(self.pool, self.places, self.files)
        starter, block = self._starter, str(request.get("block", ""))
        match request.get("do"):
            case "check":
                return None
            case "submit":
                return await _awaited(starter.submit(block, request["engines"]))
            case "look":
                # an empty job belongs to a submission whose answer the hub has not seen
                jobs = {block: job or self.files.read(block) or {} for block, job in request["jobs"].items()}
                reports: Mapping[str, JobReport] = await _awaited(starter.look(jobs))
                return {block: report_to(report) for block, report in reports.items()}
            case "cancel":
                job = request["job"] or self.files.read(block) or {}
                return await _awaited(starter.cancel(block, job))
            case "recover":
                return await _awaited(starter.recover(block))
            case "preview":
                return await _awaited(starter.preview(block, request["engines"]))
            case other:
                raise LaunchError(f"the launching agent cannot {other}")


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Read requests until there are no more, and write the answers."""
    loop = asyncio.get_running_loop()
    agent: Agent | None = None
    # the thread is free while a request is carried out, and the loop runs while the thread waits
    while text := await loop.run_in_executor(None, requests.readline):
        message = json.loads(text)
        if agent is None:
            agent = Agent(*read_setup(message))
            continue
        answers.write(line(await agent.answer(message)))
        answers.flush()


def main() -> None:
    """Run the agent on the standard streams of this process.

    Launchers start other processes, which must neither read the hub's requests nor print among the answers. So the
    agent keeps both streams for itself, and gives its processes an empty input, and standard error as their output.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    with requests, answers:
        try:
            asyncio.run(serve(requests, answers))
        except (BrokenPipeError, KeyboardInterrupt):  # the hub is gone, or somebody ends the agent
            _leave(1)
    _leave(0)


def _leave(status: int) -> None:
    """End the process at once. Threads of launchers that wait for processes elsewhere must not hold it up."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
