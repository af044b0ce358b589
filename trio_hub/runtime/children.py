"""Local engines: processes that the hub starts, supervises, and stops when it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ..hub import EngineConnector, EngineState
from ..logs import get_logger
from ..services import Failures, keep_running
from .processes import OutOfMemory, how_it_ended, is_own_address, start_time

__all__ = ["LocalEngines", "SavedProcess"]

log = get_logger("trio_hub.runtime")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds from an engine's death to its new start: the first pause and the longest. Each pause is twice the last."""
LONG_LIFE = 30.0
"""When an engine has run for this many seconds, the next pause is the first one again."""
LAST_WORDS = 0.5
"""Seconds that an engine's nanny has to report its death. Results that the engine has sent arrive in this time, too."""
UNKNOWN = "its process has ended"
"""The cause of death of an engine that an earlier hub has started: only that hub could learn the exit status."""


@dataclass(frozen=True)
class SavedProcess:
    """A local engine's process, for the next hub. ``started`` is the process's `start_time`."""

    started: int
    uuid: str | None


class _Place:
    """The place of one local engine, which has one process after another.

    - ``pid``: the process; None while there is none;
    - ``engine``: the engine that registered last from this place;
    - ``cause``: how the last process ended; empty before;
    - ``due``: the time at which the engine is started again; None while its process runs, or if it stays away;
    - ``stays_away``: why the engine is not started again; empty while the engine is supervised;
    - ``adopted``: the process of an earlier hub's engine that has this place;
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

    @property
    def is_registered(self) -> bool:
        return self.pid is not None and self.engine is not None and self.engine.state is EngineState.ALIVE


class LocalEngines:
    """Runs and supervises `n` engine processes.

    Args:
        engine_info: connection info, which the processes get through their environment (IPP_CONNECTION_INFO).
        command: the program and its arguments; by default stock ``ipyparallel.engine`` under this Python.
        profile_dir: the engines' IPython profile, if the hub has one.
        grace: seconds between asking an engine's process to end (SIGTERM) and ending it (SIGKILL).
        failures: counts unexpected errors of the supervisor.
        lost: called with the engine of a process that has ended, and with the cause of its end.
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
        grace: float = 5.0,
        failures: Failures | None = None,
        lost: Callable[[EngineConnector, str], None] = lambda engine, cause: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.n = n
        self.failures: Failures = Counter() if failures is None else failures
        self.grace = grace
        self._graces: set[trio.CancelScope] = set()
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

    # State

    @property
    def saved(self) -> dict[int, SavedProcess]:
        """The running processes, by process id, for the next hub."""
        return {
            place.pid: SavedProcess(place.started, place.uuid)
            for place in self._places
            if place.pid is not None and place.started is not None
        }

    @property
    def registered(self) -> int:
        """The number of local engines that are registered and alive."""
        return sum(place.is_registered for place in self._places)

    def missing(self) -> tuple[str, ...]:
        """Return a sentence for each engine that was asked for and cannot be used now: which one, and why."""
        return tuple(_why(place) for place in self._places if not place.extra and not place.is_registered)

    def adopt(self, processes: Mapping[int, SavedProcess]) -> None:
        """Supervise the local engines of an earlier hub that still run. Call this before `run`.

        These engines count towards `n`. Surplus engines run until they end by themselves or the hub stops.
        """
        running = [pid for pid, process in processes.items() if start_time(pid) == process.started]
        for number in range(len(self._places), len(running)):
            self._places.append(_Place(number, extra=True))
        for place, pid in zip(self._places, running, strict=False):
            try:
                place.adopted = os.pidfd_open(pid)
            except OSError:  # the process has just ended, or the system has no such call
                continue
            if start_time(pid) != processes[pid].started:
                os.close(place.adopted)
                place.adopted = None
                continue
            place.uuid = processes[pid].uuid
            self._has_started(place, pid)
            log.info("supervising a local engine of the previous hub", number=place.number, pid=pid, uuid=place.uuid)

    def meet(self, engine: EngineConnector) -> None:
        """Note which process an engine belongs to, if any. Call this when an engine registers or is taken up again."""
        place = self._by_pid.get(engine.pid or 0)
        if place is None or not is_own_address(engine.host):
            place = next((one for one in self._by_pid.values() if one.uuid == engine.uuid), None)
        if place is not None:
            place.engine = engine
            place.uuid = engine.uuid

    # Running them

    async def run(self) -> None:
        """Start and supervise all engines until cancelled. Then stop all engines."""
        async with trio.open_nursery() as nursery:
            for place in self._places:
                look_after = partial(self._look_after, place)
                nursery.start_soon(
                    keep_running, "local engines", look_after, self.failures, name=f"local engine {place.number}"
                )

    async def _look_after(self, place: _Place) -> None:
        """Run an engine, and start it again whenever it ends, unless `_why_it_stays_away` gives a reason."""
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
                log.info("local engine has stopped", number=place.number, engine=_id_of(engine), cause=place.cause)
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
            )
        else:
            log.warning(
                "local engine died", number=place.number, engine=place.engine.id, cause=place.cause, seconds=pause
            )

    async def _bury(self, engine: EngineConnector | None, cause: str) -> None:
        """Have the hub lose the engine of a process that has ended, after its nanny had time to report the end."""
        if engine is None:
            return
        engine.cause = cause  # before its nanny reports its death
        await trio.sleep(LAST_WORDS)
        self._lost(engine, cause)

    async def _run_once(self, place: _Place) -> int | None:
        """Run one engine process until it ends, and return its status. If cancelled, end the process first."""
        place.engine = None
        # The engine has a session of its own: a Ctrl-C in the terminal reaches only the hub, which stops its engines in
        # order. The engine's output goes to stderr (2), since other programs may read the hub's stdout.
        process = await trio.lowlevel.open_process(
            self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
        )
        self._has_started(place, process.pid)

        async def ended() -> None:
            await process.wait()

        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                await self._end(process.send_signal, ended)
            self._has_ended(place)

    async def _follow(self, place: _Place) -> None:
        """Wait until a process of an earlier hub ends. If cancelled, end the process."""
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
                await self._end(send_signal, ended)
            place.adopted = None
            os.close(pidfd)
            self._has_ended(place)

    async def _end(self, send_signal: Callable[[signal.Signals], None], ended: Callable[[], Any]) -> None:
        """End a process by SIGTERM, or by SIGKILL if it has not ended when the grace is over. Not cancellable."""
        with trio.CancelScope(shield=True):
            send_signal(signal.SIGTERM)
            with trio.move_on_after(self.grace) as grace:
                self._graces.add(grace)
                await ended()
            self._graces.discard(grace)
            if grace.cancelled_caught:
                send_signal(signal.SIGKILL)
                await ended()

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
        """Kill the engines that are ending now, and give later ones no grace."""
        self.grace = 0
        for grace in self._graces:
            grace.cancel()


def _id_of(engine: EngineConnector | None) -> int | None:
    return None if engine is None else engine.id


def _why_it_stays_away(place: _Place, status: int | None) -> str:
    """Return why an engine that has ended is not started again; an empty text if it is started again."""
    if place.engine is not None and place.engine.told_to_stop:
        return "was told to stop"
    if status == 0:
        return "has ended by itself, with exit status 0"
    return "was one more than the hub was asked to run" if place.extra else ""


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
