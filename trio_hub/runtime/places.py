"""The places of local engines.

A place knows the process and the registered engine of one local engine, also after a restart of the hub.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import trio

from ..hub import EngineConnector, EngineState
from ..logs import get_logger
from .enginelogs import EngineLogs
from .processes import ancestors, is_own_address, start_time

__all__ = ["Place", "Places", "SavedProcess"]

log = get_logger("trio_hub.runtime")


@dataclass(frozen=True)
class SavedProcess:
    """The facts about a local engine's process that the next hub needs.

    ``started`` is the result of `start_time`. ``number`` is the local engine's number, which is part of the name of its
    log file. ``block`` is the block of a pool to which the engine belongs; empty if it belongs to none.
    """

    started: int
    uuid: str | None
    number: int | None = None
    block: str = ""


class Place:
    """The place of one local engine, with its present process and the latest engine in it.

    - ``pid``: the process; None while there is none;
    - ``engine``: the engine that registered last from this place;
    - ``cause``: how the last process ended; empty before;
    - ``due``: the time at which the engine is started again; None while its process runs, or if it stays away;
    - ``stays_away``: why the engine is not started again; empty while the hub supervises it;
    - ``adopted``: the descriptor (pidfd) of the process, if an earlier hub has started it;
    - ``log``: the file with the engine's output; None if there is no file, or if the file is not known;
    - ``extra``: whether this place is beyond the number of engines in the settings, so that it is not filled again;
    - ``block``: the block of a pool to which the place belongs; empty for a place of the setting ``engines``;
    - ``scope``: the cancel scope of the place's task. Cancelling it ends the process, and the place.
    """

    def __init__(self, number: int, *, extra: bool = False, block: str = "") -> None:
        self.number = number
        self.extra = extra
        self.block = block
        self.scope = trio.CancelScope()
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

    def is_free_for(self, engine: EngineConnector) -> bool:
        """Return whether no other engine of this place is alive or about to be."""
        before = self.engine
        if before is None:
            return self.uuid in (None, engine.uuid)
        if before.uuid == engine.uuid:
            return True
        return not before.state.is_registered and before.state is not EngineState.REGISTERING

    def why_it_stays_away(self, status: int | None) -> str:
        """Return why an engine that has ended is not started again; empty if it is started again.

        An exit status of 0 is a reason only if no engine has registered: then the command does not run an engine.
        trio_hub's own engines also end with 0 after a SIGTERM, and after a client has asked them to restart.
        """
        if self.engine is not None and self.engine.told_to_stop:
            return "was told to stop"
        if status == 0 and self.engine is None:
            return "has ended with exit status 0, without having registered"
        if self.block and self.engine is None:
            return "has ended without having registered"  # its pool tries again after a growing pause
        return "was one more than is asked for" if self.extra else ""

    def why(self) -> str:
        """Return a sentence that says why the engine cannot be used now."""
        who = f"local engine {self.number}"
        if self.stays_away:
            engine = "" if self.engine is None else f" (engine {self.engine.id})"
            return f"{who}{engine} {self.stays_away}"
        if self.due is not None:
            wait = max(0.0, self.due - trio.current_time())
            return f"{who} {_in_the_past(self.cause)}; it is started again in {wait:.0f} s"
        if self.engine is not None and self.engine.state is not EngineState.REGISTERING:
            return f"{who} (engine {self.engine.id}, pid {self.pid}) runs, but the hub has lost it"
        before = f"; the one before {_in_the_past(self.cause)}" if self.cause else ""
        return f"{who} has not registered yet{before}"


class Places:
    """The places of the local engines of a hub.

    Args:
        n: the number of engines in the settings.
        logs: knows the file with the output of each engine.
        changed: called when a process has started or ended.
    """

    def __init__(self, n: int, logs: EngineLogs, changed: Callable[[], None]) -> None:
        self._logs = logs
        self._changed = changed
        self._places = [Place(number) for number in range(n)]
        self._by_pid: dict[int, Place] = {}
        self._seconds = 0.0
        self._began: dict[int, float] = {}

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    @property
    def process_seconds(self) -> float:
        """The seconds for which processes have run so far, as a sum over all processes."""
        now = time.monotonic()
        return self._seconds + sum(now - began for began in self._began.values())

    def add(self, block: str = "", *, number: int | None = None) -> Place:
        """Add a place, with this number if it is free, else with the lowest number that is free."""
        taken = {place.number for place in self._places}
        if number is None or number in taken:
            number = next(number for number in count() if number not in taken)
        place = Place(number, block=block)
        self._places.append(place)
        self._places.sort(key=lambda place: place.number)
        return place

    def remove(self, place: Place) -> None:
        """Remove a place whose process has ended, and that is not filled again."""
        self._places.remove(place)
        self._changed()

    @property
    def saved(self) -> dict[int, SavedProcess]:
        """The processes that run now, by process id, for the next hub."""
        return {
            place.pid: SavedProcess(place.started, place.uuid, place.number, place.block)
            for place in self._places
            if place.pid is not None and place.started is not None
        }

    def adopt(self, processes: Mapping[int, SavedProcess]) -> None:
        """Supervise the local engines of an earlier hub that still run. Call this before `run`.

        They count towards the number of engines in the settings. Engines beyond that number stay until they end by
        themselves, or until the hub stops.
        """
        running = {pid: process for pid, process in processes.items() if start_time(pid) == process.started}
        for place, pid in self._places_for(running):
            try:
                place.adopted = os.pidfd_open(pid)
            except OSError:  # the process has just ended, or the system has no such call
                continue
            if start_time(pid) != processes[pid].started:
                os.close(place.adopted)
                place.adopted = None
                continue
            place.uuid = processes[pid].uuid
            place.log = self._logs.path(place.number) if processes[pid].number == place.number else None
            self.has_started(place, pid)
            log.info(
                "this hub supervises a local engine of the previous hub", number=place.number, pid=pid, uuid=place.uuid
            )

    def _places_for(self, processes: Mapping[int, SavedProcess]) -> list[tuple[Place, int]]:
        """Return a place for each process: the place with its number if possible, since the log file has that name."""
        free = {place.number: place for place in self._places}
        found = [(free.pop(process.number), pid) for pid, process in processes.items() if process.number in free]
        placed = {pid for _, pid in found}
        for pid in (pid for pid in processes if pid not in placed):
            if free:
                place = free.pop(min(free))
            else:
                block = processes[pid].block
                place = self.add(block, number=processes[pid].number)
                place.extra = not block
            found.append((place, pid))
        return found

    def meet(self, engine: EngineConnector) -> None:
        """Note that an engine registers, or is taken over from an earlier hub, if it belongs to a local process."""
        place = self._place_of_process(engine) or next(
            (one for one in self._by_pid.values() if one.uuid == engine.uuid), None
        )
        if place is not None:
            place.engine = engine
            place.uuid = engine.uuid
            engine.block = engine.block or place.block  # an engine that does not know of blocks

    def _place_of_process(self, engine: EngineConnector) -> Place | None:
        """Return the place of the engine's process, or of a process that has started it, such as a nanny or a shell.

        If user code of a local engine has started this engine, the place belongs to the local engine: return None.
        """
        if engine.pid is None or not is_own_address(engine.host):
            return None
        if engine.pid in self._by_pid:
            return self._by_pid[engine.pid]
        for pid in ancestors(engine.pid):
            if (place := self._by_pid.get(pid)) is not None:
                return place if place.is_free_for(engine) else None
        return None

    def has_started(self, place: Place, pid: int) -> None:
        place.pid, place.started = pid, start_time(pid)
        self._by_pid[pid] = place
        self._began[pid] = time.monotonic()
        self._changed()

    def has_ended(self, place: Place) -> None:
        if place.pid is not None:
            del self._by_pid[place.pid]
            self._seconds += time.monotonic() - self._began.pop(place.pid)
        place.pid = place.started = place.uuid = None
        self._changed()


def _in_the_past(cause: str) -> str:
    return f"was {cause}" if cause.startswith("killed") else cause
