"""The hub's side of a launching agent: a `Launcher` that has a process of its own carry out its requests."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import trio

from ..config.pools import LOCAL, Pool
from ..errors import ConfigError
from ..logs import get_logger
from .agentprocess import AgentEnded, AgentProcess, AgentSlow, start_agent
from .blockfiles import BlockFiles
from .commands import Places
from .launcher import Job, JobReport, JobState, LaunchError
from .protocol import report_from, setup

__all__ = ["AgentLauncher"]

log = get_logger("trio_hub.launching")

SUBMIT_LIMIT, LOOK_LIMIT, CANCEL_LIMIT = 120.0, 60.0, 60.0
"""Seconds in which the agent has to answer each kind of request. After this time, the hub kills it."""
GRACE, HURRIED = 10.0, 1.0
"""Seconds that the agent has to end after its standard input has ended: usually, and when the hub stops at once."""
_ONE_BY_ONE = {"ssh", "trio-hub-ssh"}
"""The launchers that start and end one engine after the other."""


class AgentLauncher:
    """Starts the blocks of one pool through a launching agent. An async context manager.

    The agent is a process. It is started when it is first needed, and started again after it has ended or was killed.
    It ends at the end of the ``async with`` statement. Blocks of engines stay: to end them, cancel them before.

    Any number of tasks may call the methods. The agent carries out one request after the other. A request that is
    cancelled in the hub is still carried out by the agent. The job of a block whose submission was cancelled is found
    again by `find`, or by a `look` or `cancel` with an empty job.

    Args:
        pool: The pool.
        directory: The directory for the facts that the next agent and the next hub need. Each block has a directory
            in it, with its job and its batch script.
        profile_dir: The hub's profile directory, whose connection file the engines read; None: it has none.
        cluster_id: The hub's cluster id.
        connection_file: The connection file for engines, if it is not the one in the profile directory.
        limits: The seconds in which the agent has to answer: to submit, to look, to cancel. For the launcher ssh, the
            first and the last are seconds per engine.

    Raises:
        ConfigError: The launcher of the pool is ``local``, whose engines the hub starts itself.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        directory: Path,
        profile_dir: Path | None = None,
        cluster_id: str = "",
        connection_file: Path | None = None,
        limits: tuple[float, float, float] = (SUBMIT_LIMIT, LOOK_LIMIT, CANCEL_LIMIT),
    ) -> None:
        if pool.launcher.lower() == LOCAL:
            raise ConfigError(f"pool {pool.name}: the hub itself starts the engines of the launcher local")
        self.pool = pool
        self.places = Places(directory, profile_dir, cluster_id, connection_file)
        self.submit_limit, self.look_limit, self.cancel_limit = limits
        self.files = BlockFiles(directory)
        self._turn = trio.Lock()
        self._agent: AgentProcess | None = None
        self._outer: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope(shield=True)
        self._is_closed = trio.Event()
        self._grace = GRACE
        self._closing: AgentProcess | None = None

    async def __aenter__(self) -> AgentLauncher:
        self._outer = trio.open_nursery()
        outer = await self._outer.__aenter__()
        ready = trio.Event()
        outer.start_soon(self._read, ready)
        with trio.CancelScope(shield=True):  # `outer.start` would wait for ever if it was cancelled
            await ready.wait()
        return self

    async def _read(self, ready: trio.Event) -> None:
        """Run the tasks that read from agents until the launcher is closed.

        They are shielded: a hub that is cancelled may still ask the agent to cancel blocks, and needs the answers.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    ready.set()
                    await trio.sleep_forever()
        finally:
            self._is_closed.set()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._outer is not None
        self._nursery = None
        agent, self._agent = self._agent, None
        with trio.CancelScope(shield=True):
            if agent is not None:
                self._closing = agent
                await agent.close(self._grace)
                self._closing = None
            self._scope.cancel()
            await self._is_closed.wait()
        # The nursery is not told of the body's error, which would come out of it as an ExceptionGroup.
        await self._outer.__aexit__(None, None, None)

    def hurry(self) -> None:
        """Leave the agent little time to end when the launcher is closed. If it is being closed, kill the agent."""
        self._grace = HURRIED
        if self._closing is not None:
            self._closing.kill()

    @property
    def agent_pid(self) -> int | None:
        """The process id of the agent; None if it does not run."""
        return None if self._agent is None or self._agent.is_over else self._agent.process.pid

    async def check(self) -> None:
        """Start the agent, if it does not run, and have it check the settings of the pool.

        The first call of another method does the same. It takes a second or two, since the agent loads ipyparallel.

        Raises:
            LaunchError: the settings cannot be used: there is no such launcher, or no such trait, for instance.
        """
        await self._ask(self.look_limit, do="check")

    async def submit(self, block: str, engines: int) -> Job:
        """Ask for a block. Return as soon as the batch system has accepted it.

        If the agent ends before it has answered, the next agent looks for the job. If it cannot find out whether there
        is a job, the result is empty: later calls of `look` find the job, or say that there is none.

        Raises:
            LaunchError: the block was refused. The text has the batch system's own words.
        """
        try:
            job = await self._ask_once(
                self._limit(self.submit_limit, engines), do="submit", block=block, engines=engines
            )
        except AgentEnded as error:
            log.warning(
                "the launching agent has ended during a submission", pool=self.pool.name, block=block, error=error
            )
            try:
                job = await self.find(block)
            except LaunchError:
                return {}
            if job is None:
                raise LaunchError(str(error)) from error
        assert isinstance(job, dict)
        return job

    async def find(self, block: str) -> Job | None:
        """Return the job of a block, as far as it is known; None if there is none.

        Raises:
            LaunchError: nobody can say whether there is one.
        """
        job = await self._ask(self.submit_limit, do="recover", block=block)
        return job if isinstance(job, dict) else None

    def known(self) -> list[str]:
        """Return the names of all blocks that have files. Some may have ended, or may never have been submitted."""
        return self.files.blocks()

    def forget(self, block: str) -> None:
        """Remove the files of a block that has ended."""
        self.files.remove(block)

    async def look(self, jobs: Mapping[str, Job]) -> Mapping[str, JobReport]:
        """Return a report for each of these jobs, by block: `JobState.UNKNOWN` if the batch system did not answer."""
        if not jobs:
            return {}
        try:
            told = await self._ask(self.look_limit, do="look", jobs={block: dict(job) for block, job in jobs.items()})
            reports = {block: report_from(report) for block, report in told.items()}
        except LaunchError as error:
            return dict.fromkeys(jobs, JobReport(JobState.UNKNOWN, str(error)))
        return {block: reports.get(block) or JobReport(JobState.UNKNOWN) for block in jobs}

    async def cancel(self, block: str, job: Job) -> None:
        """Have the batch system end a block. A block that has ended already is no error.

        Raises:
            LaunchError: the batch system did not accept the cancellation.
        """
        limit = self._limit(self.cancel_limit, int(job.get("engines") or 1))
        await self._ask(limit, do="cancel", block=block, job=dict(job))

    async def preview(self, block: str, engines: int) -> str:
        """Return what `submit` would submit, as text for people. Nothing is submitted.

        Raises:
            LaunchError: the settings of the pool cannot be used.
        """
        return str(await self._ask(self.look_limit, do="preview", block=block, engines=engines))

    def _limit(self, limit: float, engines: int) -> float:
        """Return the limit for a request about a block: ssh starts and ends one engine after the other."""
        return limit * max(engines, 1) if self.pool.launcher.lower() in _ONE_BY_ONE else limit

    async def _ask(self, limit: float, **request: Any) -> Any:
        """Send a request to the agent, and return its answer. If the agent ends meanwhile, send it to the next one.

        Raises:
            AgentEnded: there is no answer. It is not known whether the agent has carried out the request.
            LaunchError: the answer is an error.
        """
        try:
            return await self._ask_once(limit, **request)
        except AgentSlow:
            raise
        except AgentEnded:
            return await self._ask_once(limit, **request)

    async def _ask_once(self, limit: float, **request: Any) -> Any:
        """Send a request to the agent, and return its answer. Raises the same as `_ask`."""
        # One request at a time: a limit begins when the agent is free for the request.
        async with self._turn:
            agent = await self._running()
            with trio.move_on_after(limit):
                answer = await agent.ask(request)
                if "error" in answer:
                    raise LaunchError(str(answer["error"]))
                return answer.get("answer")
            agent.kill()
            log.warning(
                "killed a launching agent that did not answer",
                pool=self.pool.name,
                pid=agent.process.pid,
                seconds=limit,
            )
            raise AgentSlow(f"the launcher {self.pool.launcher} did not answer within {limit:g} s{agent.said()}")

    async def _running(self) -> AgentProcess:
        """Return the agent, and start it if it does not run."""
        if self._nursery is None:
            raise LaunchError(f"the launcher of pool {self.pool.name} has been closed")
        if self._agent is None or self._agent.is_over:
            self._agent = await start_agent(self.pool, self._nursery)
            await self._agent.tell(setup(self.pool, self.places))
        return self._agent
