"""Local engines: processes that the hub starts and supervises, and that it ends when it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import trio

from ..hub import EngineConnector
from ..logs import get_logger
from ..services import Failures, going_on, keep_running
from .ending import Endings
from .enginelogs import EngineLogs
from .places import Place, Places, SavedProcess
from .processes import OutOfMemory, how_it_ended, is_descendant

__all__ = ["LocalEngines"]

log = get_logger("trio_hub.runtime")

TAGS = "TRIO_HUB_ENGINE_TAGS"
"""The variable with the tags of an engine. As all variables of settings, the hub itself reads it, too."""
BLOCK = "TRIO_HUB_ENGINE_BLOCK"
"""The variable with the block of an engine. The engines of a hub that runs within a block are not of that block."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds from an engine's death to its new start: the first pause and the longest. Each pause is twice the last."""
LONG_LIFE = 30.0
"""Seconds that an engine has to run before the next pause is the first one again."""
LAST_WORDS = 0.5
"""Seconds that an engine's nanny has to report its death. Results that the engine has sent arrive in this time, too."""
UNKNOWN = "its process has ended"
"""The cause of death of an engine that an earlier hub has started: only that hub could learn the exit status."""


class LocalEngines:
    """Runs `n` engine processes.

    Args:
        engine_info: connection info, which the processes get through their environment (IPP_CONNECTION_INFO).
        command: the program and its arguments.
        logs: opens the output of the engines; by default, the hub's stderr.
        grace: seconds between asking an engine to end and SIGKILL, see `trio_hub.runtime.ending`.
        failures: counts unexpected errors of the supervisor.
        ask_to_end: sends an engine the request to end; returns whether requests to engines can be sent.
        give_back: like ``ask_to_end``, for an engine that its pool gives back while the hub goes on.
        lost: called with the engine of a process that has ended, and with the cause, unless the hub has noticed before.
        changed: called when a process has started or ended.
        tags: words with the tags and amounts of the engines, which get them through their environment.
    """

    def __init__(
        self,
        n: int,
        engine_info: dict[str, Any],
        *,
        command: Sequence[str],
        logs: EngineLogs | None = None,
        grace: float = 5.0,
        failures: Failures | None = None,
        ask_to_end: Callable[[EngineConnector], bool] = lambda engine: False,
        give_back: Callable[[EngineConnector], bool] = lambda engine: False,
        lost: Callable[[EngineConnector, str], None] = lambda engine, cause: None,
        changed: Callable[[], None] = lambda: None,
        tags: Sequence[str] = (),
    ) -> None:
        self.n = n
        self.failures: Failures = Counter() if failures is None else failures
        self._endings = Endings(grace)
        self._logs = logs or EngineLogs()
        self._ask_to_end = ask_to_end
        self._give_back = give_back
        self._lost = lost
        self._out_of_memory = OutOfMemory()
        self._places = Places(n, self._logs, changed)
        self._nursery: trio.Nursery | None = None
        self.place_ended: Callable[[Place], None] = lambda place: None
        """Is called with each place of a pool that has been removed, since its engine has ended for good."""
        self.command = list(command)
        self.environment = dict(os.environ, IPP_CONNECTION_INFO=json.dumps(engine_info))
        self.environment.pop(TAGS, None)
        self.environment.pop(BLOCK, None)
        if tags:
            self.environment[TAGS] = " ".join(tags)

    # The state of the local engines

    @property
    def places(self) -> Places:
        """The places of the engines."""
        return self._places

    @property
    def saved(self) -> dict[int, SavedProcess]:
        """The processes that run now, by process id, for the next hub."""
        return self._places.saved

    @property
    def registered(self) -> int:
        """The number of local engines that are registered and alive."""
        return sum(place.is_registered for place in self._places)

    def missing(self) -> tuple[str, ...]:
        """Return a sentence for each configured engine that cannot be used now. It names the engine and the reason."""
        return tuple(place.why() for place in self._places if not place.extra and not place.is_registered)

    def adopt(self, processes: Mapping[int, SavedProcess]) -> None:
        """Supervise the local engines of an earlier hub that still run. Call this before `run`.

        They count towards the number of engines in the settings. Engines beyond that number stay until they end by
        themselves, or until the hub stops.
        """
        self._places.adopt(processes)

    def meet(self, engine: EngineConnector) -> None:
        """Note that an engine registers, or is taken over from an earlier hub, if it is a local engine."""
        self._places.meet(engine)

    def kill(self, engine: EngineConnector) -> bool:
        """Kill the process of a local engine at once. Return False if the engine is not local, or has no process.

        The supervisor then starts a new engine.
        """
        place = next((place for place in self._places if place.engine is engine and place.pid is not None), None)
        if place is None or place.pid is None:
            return False
        pid = place.pid
        if engine.pid is not None and is_descendant(engine.pid, of=place.pid):  # the process of the place is a nanny
            pid = engine.pid
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        return True

    # Running them

    async def run(self) -> None:
        """Start all local engines, and supervise them until this is cancelled. Then end them all."""
        async with trio.open_nursery() as nursery:
            self.start(nursery)

    def start(self, nursery: trio.Nursery) -> None:
        """Start all local engines, and supervise them until the nursery is cancelled. Then end them all."""
        self._nursery = nursery
        for place in self._places:
            self.begin(place)

    def begin(self, place: Place) -> None:
        """Start the engine of a place, and supervise it. To end it, and the place, cancel the scope of the place."""
        if self._nursery is not None:  # else `start` begins with it
            self._nursery.start_soon(self._keep, place, name=f"local engine {place.number}")

    async def _keep(self, place: Place) -> None:
        """Run the engine of a place until it stays away, or until the place is given back."""
        with place.scope:
            await keep_running("local engines", partial(self._look_after, place), self.failures)
        if place.scope.cancelled_caught:
            place.stays_away = "was given back"
            with trio.CancelScope(shield=True):
                await self._bury(place.engine, "ended, since its pool has given it back")
        if place.block:
            self._places.remove(place)
            self.place_ended(place)

    async def _look_after(self, place: Place) -> None:
        """Run an engine, and start it again after each end, unless `Place.why_it_stays_away` has a reason."""
        pause = FIRST_PAUSE
        while True:
            began = trio.current_time()
            place.due = None
            status: int | None = None
            try:
                status = await (self._run_once(place) if place.adopted is None else self._follow(place))
                place.cause = self._cause(place.engine, status)
            except OSError as error:
                place.cause = f"cannot be started: {self.command[0]}: {error.strerror or error}"
            if trio.current_time() - began > LONG_LIFE:
                pause = FIRST_PAUSE
            place.stays_away = place.why_it_stays_away(status)
            engine = place.engine
            if place.stays_away and place.block and engine is None:
                log.error(
                    "local engine of a pool ended before it had registered; try its command by hand",
                    number=place.number,
                    block=place.block,
                    cause=place.cause,
                    command=" ".join(self.command),
                    engine_log=place.log,
                )
            elif place.stays_away:
                log.info(
                    "local engine has stopped",
                    number=place.number,
                    engine=_id_of(engine),
                    cause=place.cause,
                    engine_log=place.log,
                )
            else:
                self._tell_death(place, pause)
            due = trio.current_time() + pause
            place.due = None if place.stays_away else due
            await self._bury(engine, place.cause)
            if place.stays_away:
                return
            await trio.sleep_until(due)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _cause(self, engine: EngineConnector | None, status: int | None) -> str:
        """Return how a process has ended, from its exit status, and from the report of its engine or its nanny.

        The report counts if the exit status is not known, since another hub has started the process, or if it is 0.
        """
        said = "" if engine is None else engine.cause
        if status is None:
            return said or UNKNOWN
        if status == 0 and said:
            return f"{how_it_ended(status)}: {said}"
        return how_it_ended(status) + (self._out_of_memory.look() if status == -signal.SIGKILL else "")

    def _tell_death(self, place: Place, pause: float) -> None:
        if place.engine is None:
            log.error(
                "local engine ended before it had registered; try its command by hand",
                number=place.number,
                cause=place.cause,
                seconds=pause,
                command=" ".join(self.command),
                engine_log=place.log,
            )
        else:
            log.warning(
                "local engine died",
                number=place.number,
                engine=place.engine.id,
                cause=place.cause,
                seconds=pause,
                engine_log=place.log,
            )

    async def _bury(self, engine: EngineConnector | None, cause: str) -> None:
        """Have the hub lose the engine of a process that has ended. The engine's nanny may report the end before."""
        if engine is None:
            return
        engine.cause = cause  # before its nanny reports its death
        await trio.sleep(LAST_WORDS)
        self._lost(engine, cause)

    async def _run_once(self, place: Place) -> int | None:
        """Run one engine process to its end; if cancelled, end it first."""
        place.engine = None
        place.log = self._logs.path(place.number)
        # A session of its own: a Ctrl-C in the terminal is for the hub, which then stops its engines in order.
        with self._logs.output(place.number) as output:
            process = await trio.lowlevel.open_process(
                self.command,
                env=self.environment | ({BLOCK: place.block} if place.block else {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._places.has_started(place, process.pid)

        async def ended() -> None:
            await process.wait()

        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                await self._end(place, process.send_signal, ended)
            self._places.has_ended(place)

    async def _follow(self, place: Place) -> None:
        """Wait for the end of an earlier hub's process; if cancelled, end it."""
        pidfd = place.adopted
        assert pidfd is not None
        running = True

        def send_signal(number: signal.Signals) -> None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)

        async def ended() -> None:
            nonlocal running
            await trio.lowlevel.wait_readable(pidfd)
            running = False

        try:
            await ended()
        finally:
            if running:
                await self._end(place, send_signal, ended)
            place.adopted = None
            os.close(pidfd)
            self._places.has_ended(place)

    async def _end(
        self, place: Place, send_signal: Callable[[signal.Signals], None], ended: Callable[[], Awaitable[None]]
    ) -> None:
        """End a process that belongs to a place."""
        assert place.pid is not None
        engine_pid = None if place.engine is None else place.engine.pid
        await self._endings.end(place.pid, send_signal, ended, ask=partial(self._ask, place), engine_pid=engine_pid)

    def _ask(self, place: Place) -> bool:
        """Ask an engine to end by itself. Return whether it was asked: it has to be registered."""
        ask = self._give_back if place.scope.cancel_called else self._ask_to_end
        with going_on("local engines", self.failures):
            return place.engine is not None and place.is_registered and ask(place.engine)
        return False

    def hurry(self) -> None:
        """Leave out the grace of engines that are ending, or will be."""
        self._endings.hurry()


def _id_of(engine: EngineConnector | None) -> int | None:
    return None if engine is None else engine.id
