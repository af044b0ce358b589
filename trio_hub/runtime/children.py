"""Local engines: processes that belong to the hub, start with it, are looked after, and stop with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ..hub import EngineConnector, EngineState
from ..logs import get_logger
from ..services import Failures, going_on, keep_running
from .ending import Endings
from .enginelogs import EngineLogs
from .processes import OutOfMemory, how_it_ended, is_own_address, start_time

__all__ = ["LocalEngines", "SavedProcess"]

log = get_logger("trio_hub.runtime")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds from an engine's death to its new start: the first pause and the longest. Each pause is twice the last."""
LONG_LIFE = 30.0
"""Seconds that an engine has to run before the next pause is the first one again."""
LAST_WORDS = 0.5
"""Seconds that an engine's nanny has to report its death. Results that the engine has sent arrive in this time, too."""
UNKNOWN = "its process has ended"
"""The cause of death of an engine that an earlier hub has started: only that hub could learn the exit status."""


@dataclass(frozen=True)
class SavedProcess:
    """A local engine's process as the next hub needs to know it: the start time is that of `start_time`.

    ``number`` is the local engine's number, which is part of the name of its log file.
    """

    started: int
    uuid: str | None
    number: int | None = None


class _Place:
    """One of the engines that are to run.

    - ``pid``: the process; None while there is none;
    - ``engine``: the engine that registered last from this place;
    - ``cause``: how the last process ended; empty before;
    - ``due``: the time at which the engine is started again; None while its process runs, or if it stays away;
    - ``stays_away``: why the engine is not started again; empty while it is looked after;
    - ``adopted``: the process of an earlier hub's engine that has this place;
    - ``log``: the file with the engine's output; None if there is none, or if it is not known;
    - ``extra``: whether this place is beyond the number that was asked for, so that it is not filled again.
    """

    def __init__(self, number: int, *, extra: bool = False) -> None:
        self.number = number
        self.extra = extra
        self.pid: int | None = None
        self.started: int | None = None
        self.uuid: str | None = None
        self.engine: EngineConnector | None = None
        self.cause = ""
        self.due: float | None = None
        self.stays_away = ""
        self.adopted: int | None = None
        self.log: Path | None = None

    @property
    def is_registered(self) -> bool:
        return self.pid is not None and self.engine is not None and self.engine.state is EngineState.ALIVE


class LocalEngines:
    """Runs `n` engine processes.

    Args:
        engine_info: connection info, which the processes get through their environment (IPP_CONNECTION_INFO).
        command: the program and its arguments; by default stock ``ipyparallel.engine`` under this Python.
        profile_dir: their IPython profile, if the hub has one.
        logs: where their output goes; by default to the hub's stderr.
        grace: seconds between asking an engine to end and SIGKILL, see `trio_hub.runtime.ending`.
        failures: where errors of the supervisor are counted that nobody expected.
        ask_to_end: sends an engine the request to end; returns whether requests to engines can be sent.
        lost: called with the engine of a process that has ended, and with the cause, unless the hub has noticed before.
        changed: called when a process has started or ended.
    """

    def __init__(
        self,
        n: int,
        engine_info: dict[str, Any],
        *,
        command: Sequence[str] = (),
        profile_dir: Path | None = None,
        cluster_id: str = "",
        logs: EngineLogs | None = None,
        grace: float = 5.0,
        failures: Failures | None = None,
        ask_to_end: Callable[[EngineConnector], bool] = lambda engine: False,
        lost: Callable[[EngineConnector, str], None] = lambda engine, cause: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.n = n
        self.failures: Failures = Counter() if failures is None else failures
        self._endings = Endings(grace)
        self._logs = logs or EngineLogs()
        self._ask_to_end = ask_to_end
        self._lost = lost
        self._changed = changed
        self._out_of_memory = OutOfMemory()
        self._places = [_Place(number) for number in range(n)]
        self._by_pid: dict[int, _Place] = {}
        self.command = list(command) or [sys.executable, "-m", "ipyparallel.engine"]
        if not command:
            if profile_dir is not None:
                self.command.append(f"--profile-dir={profile_dir}")
            if cluster_id:
                self.command.append(f"--cluster-id={cluster_id}")
        self.environment = dict(os.environ, IPP_CONNECTION_INFO=json.dumps(engine_info))

    # What is known of them

    @property
    def saved(self) -> dict[int, SavedProcess]:
        """The processes that run, by process id, for the hub that comes after this one."""
        return {
            place.pid: SavedProcess(place.started, place.uuid, place.number)
            for place in self._places
            if place.pid is not None and place.started is not None
        }

    @property
    def registered(self) -> int:
        """How many of them are registered and alive."""
        return sum(place.is_registered for place in self._places)

    def missing(self) -> tuple[str, ...]:
        """Return a sentence for each engine that was asked for and cannot be used now: which one, and why."""
        return tuple(_why(place) for place in self._places if not place.extra and not place.is_registered)

    def adopt(self, processes: Mapping[int, SavedProcess]) -> None:
        """Look after the local engines of an earlier hub, as far as they still run. Call this before `run`.

        They count as engines that were asked for. Further ones stay until they end by themselves, or the hub stops.
        """
        running = {pid: process for pid, process in processes.items() if start_time(pid) == process.started}
        for place, pid in self._places_for(running):
            try:
                place.adopted = os.pidfd_open(pid)
            except OSError:  # it has ended just now, or the system has no such call
                continue
            if start_time(pid) != processes[pid].started:
                os.close(place.adopted)
                place.adopted = None
                continue
            place.uuid = processes[pid].uuid
            place.log = self._logs.path(place.number) if processes[pid].number == place.number else None
            self._has_started(place, pid)
            log.info("local engine of the hub before is looked after", number=place.number, pid=pid, uuid=place.uuid)

    def _places_for(self, processes: Mapping[int, SavedProcess]) -> list[tuple[_Place, int]]:
        """Return a place for each process: the place with its number if possible, since the log file has that name."""
        free = {place.number: place for place in self._places}
        found = [(free.pop(process.number), pid) for pid, process in processes.items() if process.number in free]
        placed = {pid for _, pid in found}
        for pid in (pid for pid in processes if pid not in placed):
            if free:
                place = free.pop(min(free))
            else:
                place = _Place(len(self._places), extra=True)
                self._places.append(place)
            found.append((place, pid))
        return found

    def meet(self, engine: EngineConnector) -> None:
        """An engine registers, or is taken up again: note if it is one of these processes."""
        place = self._by_pid.get(engine.pid or 0)
        if place is None or not is_own_address(engine.host):
            place = next((one for one in self._by_pid.values() if one.uuid == engine.uuid), None)
        if place is not None:
            place.engine = engine
            place.uuid = engine.uuid

    # Running them

    async def run(self) -> None:
        """Start them all and look after them until cancelled; then stop them all."""
        async with trio.open_nursery() as nursery:
            for place in self._places:
                look_after = partial(self._look_after, place)
                nursery.start_soon(
                    keep_running, "local engines", look_after, self.failures, name=f"local engine {place.number}"
                )

    async def _look_after(self, place: _Place) -> None:
        """Start an engine, and start it again when it dies of something other than being asked to stop."""
        pause = FIRST_PAUSE
        while True:
            began = trio.current_time()
            place.due = None
            status: int | None = None
            try:
                status = await (self._run_once(place) if place.adopted is None else self._follow(place))
                place.cause = UNKNOWN if status is None else how_it_ended(status)
                if status == -signal.SIGKILL:
                    place.cause += self._out_of_memory.look()
            except OSError as error:
                place.cause = f"cannot be started: {self.command[0]}: {error.strerror or error}"
            if trio.current_time() - began > LONG_LIFE:
                pause = FIRST_PAUSE
            place.stays_away = _why_it_stays_away(place, status)
            engine = place.engine
            if place.stays_away:
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

    def _tell_death(self, place: _Place, pause: float) -> None:
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
        """Have the hub lose the engine of a process that has ended, if nobody else tells the hub of its end."""
        if engine is None:
            return
        engine.cause = cause  # before its nanny reports its death
        await trio.sleep(LAST_WORDS)
        self._lost(engine, cause)

    async def _run_once(self, place: _Place) -> int | None:
        """Run one engine process to its end; if cancelled, end it first."""
        place.engine = None
        place.log = self._logs.path(place.number)
        # A session of its own: a Ctrl-C in the terminal is for the hub, which then stops its engines in order.
        with self._logs.output(place.number) as output:
            process = await trio.lowlevel.open_process(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._has_started(place, process.pid)

        async def ended() -> None:
            await process.wait()

        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                await self._end(place, process.send_signal, ended)
            self._has_ended(place)

    async def _follow(self, place: _Place) -> None:
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
            self._has_ended(place)

    async def _end(
        self, place: _Place, send_signal: Callable[[signal.Signals], None], ended: Callable[[], Awaitable[None]]
    ) -> None:
        """End a process that belongs to a place."""
        assert place.pid is not None
        engine_pid = None if place.engine is None else place.engine.pid
        await self._endings.end(place.pid, send_signal, ended, ask=partial(self._ask, place), engine_pid=engine_pid)

    def _ask(self, place: _Place) -> bool:
        """Ask an engine to end by itself. Return whether it was asked: it has to be registered."""
        with going_on("local engines", self.failures):
            return place.engine is not None and place.is_registered and self._ask_to_end(place.engine)
        return False

    def _has_started(self, place: _Place, pid: int) -> None:
        place.pid, place.started = pid, start_time(pid)
        self._by_pid[pid] = place
        self._changed()

    def _has_ended(self, place: _Place) -> None:
        if place.pid is not None:
            del self._by_pid[place.pid]
        place.pid = place.started = place.uuid = None
        self._changed()

    def hurry(self) -> None:
        """Leave out the grace of engines that are ending, or will be."""
        self._endings.hurry()


def _id_of(engine: EngineConnector | None) -> int | None:
    return None if engine is None else engine.id


def _why_it_stays_away(place: _Place, status: int | None) -> str:
    """Return why an engine that has ended is not started again; empty if it is."""
    if place.engine is not None and place.engine.told_to_stop:
        return "was told to stop"
    if status == 0:
        return "has ended by itself, with exit status 0"
    return "was one more than is asked for" if place.extra else ""


def _why(place: _Place) -> str:
    who = f"local engine {place.number}"
    if place.stays_away:
        return f"{who} {place.stays_away}"
    if place.due is not None:
        wait = max(0.0, place.due - trio.current_time())
        return f"{who} {_in_the_past(place.cause)}; it is started again in {wait:.0f} s"
    if place.engine is not None and place.engine.state is not EngineState.REGISTERING:
        return f"{who} (engine {place.engine.id}, pid {place.pid}) runs, but the hub has lost it"
    before = f"; the one before {_in_the_past(place.cause)}" if place.cause else ""
    return f"{who} has not registered yet{before}"


def _in_the_past(cause: str) -> str:
    return f"was {cause}" if cause.startswith("killed") else cause
