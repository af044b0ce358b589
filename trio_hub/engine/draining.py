"""Drains of the engine by itself: it gets no new tasks, finishes what it has, unregisters, and ends.

SIGTERM, SIGUSR1 and the coming end of the engine's Slurm job begin a drain. The hub decides when the engine is idle,
since requests may be on their way to the engine. A hub that knows no drains, such as an ipcontroller, goes on sending
tasks. There, the engine ends when the request is finished that runs when the drain begins.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import trio

from ..logs import get_logger
from .jobs import Jobs
from .offers import seconds_left
from .options import EngineOptions
from .registrar import Registrar

__all__ = ["Draining", "Signals"]

log = get_logger("trio_hub.engine")

LOOKS_AGAIN = 0.05
"""Seconds until a draining engine looks again whether it is idle."""
ASKS_AGAIN = 1.0
"""Seconds until a draining engine asks a hub again that did not understand."""
SAME_SIGNAL = 1.0
"""Seconds in which two SIGTERM count as one: Slurm sends each signal to the nanny and to the engine, and the nanny
passes its signal on."""
LONGEST_REST = 5.0
"""Seconds, at most, that user code has for its `finally` blocks after a drain, before the nanny kills the engine."""


class Draining:
    """Drains the engine. All methods are for the thread of the sockets.

    Args:
        options: have the grace after SIGTERM, and how long before the end of its job the engine drains.
        registrar: tells the hub.
        jobs: the requests for the main thread.
        hub_is_there: returns whether the engine has a connection to the hub now.
        hub_drains: returns whether the hub knows drains.
        stop: ends the engine in order; gets the reason.
        stop_work: stops the user code that runs.
    """

    def __init__(
        self,
        options: EngineOptions,
        registrar: Registrar,
        jobs: Jobs,
        *,
        hub_is_there: Callable[[], bool],
        hub_drains: Callable[[], bool],
        stop: Callable[[str], None],
        stop_work: Callable[[], None],
    ) -> None:
        self._options = options
        self._registrar = registrar
        self._jobs = jobs
        self._hub_is_there = hub_is_there
        self._hub_drains = hub_drains
        self._stop = stop
        self._stop_work = stop_work
        self._begun = trio.Event()
        self._reason = ""
        self._deadline = math.inf
        self._is_final = False
        self._limit = trio.CancelScope()
        self._told = False

    # What begins a drain

    def within_grace(self, reason: str) -> None:
        """Drain within the grace after SIGTERM, or end at once if the hub is away: nobody else could need the result.

        The hub takes away tasks that still run before the grace is over. What runs then is stopped, so that its
        `finally` blocks run before the nanny kills the engine.
        """
        grace = self._options.kill_grace
        rest = min(grace / 4, LONGEST_REST)
        if not self._hub_is_there():
            self._end_at_once(reason)
            return
        self._limit.deadline = min(self._limit.deadline, trio.current_time() + grace - rest)
        self.begin(reason, grace - 2 * rest)

    def begin(self, reason: str, within: float = math.inf, *, final: bool = False) -> None:
        """Drain.

        Args:
            reason: why, for the log and for the errors of lost requests.
            within: seconds after which the hub takes away the tasks that still run.
            final: whether a hub that has started this engine is not to start a new one.
        """
        self._is_final = self._is_final or final
        if within != math.inf:
            self._deadline = min(self._deadline, trio.current_time() + within)
        if not self._begun.is_set():
            log.info("draining", reason=reason)
        self._reason, self._told = reason, False
        self._begun.set()

    def tell_again(self) -> None:
        """Tell the hub again: it may have forgotten the engine, or be another hub."""
        self._told = False

    async def watch_job(self) -> None:
        """Drain in time before the end of the engine's Slurm job, if there is a job, and if its end is known."""
        left = seconds_left(time.time())
        if left is None or not self._options.drain_before:
            return
        lead = min(self._options.drain_before, left / 10)  # a short job works for most of its time, too
        await trio.sleep(left - lead)
        self.begin("its Slurm job ends soon", lead * 3 / 4, final=True)

    # Draining

    async def run(self) -> None:
        """Wait until a drain begins, and end the engine when it is over."""
        while True:
            await self._begun.wait()
            with self._limit as limit:
                await self._until_idle()
            if limit.cancelled_caught:
                self._end_at_once(self._reason)
                return
            if self._begun.is_set():
                self._stop(self._reason)
                return

    def _end_at_once(self, reason: str) -> None:
        self._stop(reason)
        self._stop_work()

    async def _until_idle(self) -> None:
        """Wait until the engine is idle, and the hub says so, too; or until somebody ends the drain at the hub."""
        running = self._jobs.running
        while True:
            if not self._hub_is_there():
                if self._limit.deadline != math.inf:
                    self._end_at_once(self._reason)
                    return
            elif not self._hub_drains():
                if running is None or running is not self._jobs.running:
                    return
            elif not self._told:
                self._told = True  # `tell_again` may say otherwise before there is an answer
                if not await self._tell():
                    self._told = False
                    await trio.sleep(ASKS_AGAIN)
            elif self._jobs.is_idle and await self._is_over():
                return
            await trio.sleep(LOOKS_AGAIN)

    async def _is_over(self) -> bool:
        """Ask the hub about the drain. Return whether nothing is left to be done, or somebody has ended the drain."""
        answer = await self._registrar.drain({"drain": False})
        if answer is None:
            return False
        if answer.get("draining", True) or not self._told:
            return not answer.get("pending", True)
        if self._limit.deadline != math.inf:  # the engine must end soon, whatever the hub has been told
            self._told = False
            return False
        log.info("somebody has ended the drain of this engine, which works on")
        self._begun, self._limit, self._deadline = trio.Event(), trio.CancelScope(), math.inf
        self._is_final = False
        return True

    async def _tell(self) -> bool:
        """Tell the hub that the engine drains. Return whether the hub has understood."""
        content: dict[str, Any] = {"by": f"the engine itself: {self._reason}"}
        if self._is_final:
            content["final"] = True
        if self._deadline != math.inf:
            content["seconds_left"] = max(0.0, self._deadline - trio.current_time())
        answer = await self._registrar.drain(content)
        return answer is not None and answer.get("status") == "ok"


class Signals:
    """What SIGTERM means for an engine: a drain, or its end at once. For the main thread."""

    def __init__(self) -> None:
        self._first = math.inf
        self.at_once = False
        """Whether the next SIGTERM ends the engine at once."""

    def ends_at_once(self, now: float) -> bool:
        """Return whether a SIGTERM that has come now ends the engine at once: as the second one does."""
        self._first = min(self._first, now)
        return self.at_once or now > self._first + SAME_SIGNAL
