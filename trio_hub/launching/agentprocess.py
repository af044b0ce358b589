"""One process of the launching agent, as the hub sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any

import trio

from ..config.pools import Pool
from ..logs import get_logger
from .commands import safe_path
from .launcher import LaunchError
from .protocol import line

__all__ = ["AgentEnded", "AgentProcess", "AgentSlow", "start_agent"]

log = get_logger("trio_hub.launching")

WRITE_LIMIT = 10.0
"""Seconds in which a request must fit into the pipe to the agent."""
MAX_LINE = 2**24
"""The maximum number of bytes of one answer."""


class AgentEnded(LaunchError):
    """The agent ended, or was killed, before it had answered a request."""


class AgentSlow(AgentEnded):
    """The agent did not answer in time, and was killed."""


async def start_agent(pool: Pool, nursery: trio.Nursery) -> AgentProcess:
    """Start an agent.

    Args:
        pool: The pool whose blocks the agent starts, for the log. The caller must send `protocol.setup` to the agent.
        nursery: Runs the tasks that read from the agent.

    Raises:
        LaunchError: The process could not be started.
    """
    # shielded: a process that was just started must not get lost
    with trio.CancelScope(shield=True):
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, *safe_path(), "-m", "trio_hub.launching.agent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # a Ctrl-C in the terminal is for the hub, which may still need the agent to cancel blocks
                process_group=0,
            )
        except OSError as error:
            raise LaunchError(f"cannot start the launching agent: {error}") from error
    return AgentProcess(process, pool, nursery)


class AgentProcess:
    """One process of the agent, and the requests that wait for its answers."""

    def __init__(self, process: trio.Process, pool: Pool, nursery: trio.Nursery) -> None:
        self.process = process
        self.pool = pool
        self.is_over = False
        self._numbers = count(1)
        self._waiting: dict[int, _Question] = {}
        self._lines: deque[str] = deque(maxlen=10)
        assert process.stdout is not None
        assert process.stderr is not None
        nursery.start_soon(self._read_answers, process.stdout)
        nursery.start_soon(self._read_log, process.stderr)

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request, and return the answer. Raises `AgentEnded`."""
        number = next(self._numbers)
        question = self._waiting[number] = _Question()
        try:
            await self.tell({"id": number, **request})
            await question.answered.wait()
        finally:
            del self._waiting[number]
        if question.answer is None:
            raise AgentEnded(f"the launching agent of pool {self.pool.name} has ended{self.said()}")
        return question.answer

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Write a line to the agent. The line is written even if the caller is cancelled meanwhile.

        An agent that does not read for `WRITE_LIMIT` seconds is killed.
        """
        assert self.process.stdin is not None
        with trio.move_on_after(WRITE_LIMIT, shield=True), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.process.stdin.send_all(line(message))
            return
        self.kill()

    def said(self) -> str:
        """Return the last lines of the agent's log, to end an error message with."""
        return ": " + " | ".join(self._lines) if self._lines else ""

    def kill(self) -> None:
        """Kill the agent, and the commands that it runs. Engines are in groups of their own."""
        self.is_over = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def close(self, grace: float) -> None:
        """End the agent, and wait until it has ended. It has ``grace`` seconds to finish its present request."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        with trio.move_on_after(grace):
            await self.process.wait()
        if self.process.returncode is None:
            self.kill()
            await self.process.wait()
        self.is_over = True

    async def _read_answers(self, stream: trio.abc.ReceiveStream) -> None:
        buffer = bytearray()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in stream:
                buffer += chunk
                while (end := buffer.find(b"\n")) >= 0:
                    text = bytes(buffer[:end])
                    del buffer[: end + 1]
                    self._take(text)
                if len(buffer) > MAX_LINE:
                    break
        if not self.is_over:  # else its process id may mean another process
            self.kill()  # an agent whose answers cannot be read is of no use
        with trio.CancelScope(shield=True):
            await self.process.wait()
        for question in self._waiting.values():
            question.answered.set()

    def _take(self, text: bytes) -> None:
        try:
            answer = json.loads(text)
            number = answer["id"]
        except (ValueError, TypeError, KeyError):
            log.warning("the launching agent has written an unreadable answer", pool=self.pool.name, bytes=len(text))
            return
        question = self._waiting.get(number)
        if question is not None:  # else its caller was cancelled
            question.answer = answer
            question.answered.set()

    async def _read_log(self, stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[-4096:]
                for text in lines:
                    said = text.decode("utf-8", "replace").rstrip()
                    if said:
                        self._lines.append(said)
                        log.info("the launching agent says", pool=self.pool.name, said=said)


class _Question:
    """A request that waits for its answer. If ``answered`` is set without an answer, the agent has ended."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: dict[str, Any] | None = None
