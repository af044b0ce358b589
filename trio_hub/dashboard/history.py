"""`History`: what the dashboard remembers: the journal, and the series of the last hour and the last day.

If the task database is on a disk or a server, the history outlives the hub, as the tasks do. It is then kept in the
file ``db/history`` in the profile, beside the other files that belong to the database. The history is not a table of
the database, for these reasons:

- the hub's core and its database do not know the dashboard, and no migration is needed when a series is added;
- two hubs may share a database, but never a profile;
- a file of 200 kB each minute costs the database nothing, even if the database is a distant server.

The file is replaced each minute, within seconds of an event, and when the dashboard ends. So a hub that is killed
loses the last minute of the series at most.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

from ..config.connectionfiles import write_private_file
from ..hub.events import EngineUnregistered
from ..logs import get_logger
from ..runtime import RunningHub
from .journal import Entry, Journal
from .spans import DAY, FOLDS, HOUR, Span

__all__ = ["History", "cause_of", "history_path", "left_in_order"]

log = get_logger("trio_hub.dashboard")

PERIOD, SOON = 60.0, 5.0
"""Seconds between two writes of the file: usually, and if there is something new in the journal."""
VERSION = 1
ENDED = ("killed by ", "exit code ")
"""The beginnings of the causes that a nanny of trio_hub gives for an engine that ended without unregistering."""


class _Saved(msgspec.Struct):
    """The content of the file.

    - ``t``: when it was written, in Unix seconds;
    - ``ended``: whether the dashboard ended then, in good order;
    - ``series``: the names of the series in the rows.
    """

    version: int
    t: float
    ended: bool
    series: list[str]
    hour: list[list[float]]
    day: list[list[float]]
    entries: list[Entry]


class History:
    """The journal and the series, in memory and in a file.

    Args:
        path: The file; None if nothing is kept.
        journal: The journal.
        clock: Returns the time in Unix seconds.
    """

    def __init__(self, path: Path | None, journal: Journal, clock: Callable[[], float]) -> None:
        self.journal = journal
        self.spans = {"hour": Span(*HOUR), "day": Span(*DAY)}
        self._path = path
        self._clock = clock

    def note(self, now: float, values: dict[str, float]) -> None:
        """Add a sample to all series."""
        for span in self.spans.values():
            span.note(now, values)

    def total(self, name: str, now: float) -> int:
        """Return the sum of a series over the last hour."""
        return round(self.spans["hour"].total(name, now))

    def range(self, name: str) -> dict[str, Any] | None:
        """Return the series of the last ``hour`` or ``day``, in the form of ``/api/history``; None for another name."""
        span = self.spans.get(name)
        if span is None:
            return None
        now = self._clock()
        return {"now": now, "step": span.step, "seconds": span.seconds, "series": span.series(now)}

    async def load(self) -> None:
        """Read the file that an earlier hub with this profile has left. A file that cannot be used is ignored."""
        path = self._path
        if path is None:
            return
        try:
            content = await trio.to_thread.run_sync(path.read_bytes)
            saved = msgspec.json.decode(content, type=_Saved)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, RecursionError) as error:
            log.warning(
                "cannot read the history of the dashboard, so an empty history replaces it", file=str(path), error=error
            )
            return
        now = self._clock()
        if saved.version != VERSION or saved.t > now:
            log.warning("the history of the dashboard is from another version or from the future", file=str(path))
            return
        if saved.series == list(FOLDS):
            self.spans["hour"].restore(saved.hour, now)
            self.spans["day"].restore(saved.day, now)
        self.journal.restore(saved.entries)
        if not saved.ended:
            self.journal.note(
                "crashed",
                "bad",
                "The hub before this one did not end in good order: it has crashed, was killed, or its machine failed. "
                f"It was last seen {_ago(now - saved.t)} before this hub's dashboard started.",
            )

    async def keep(self, hub: RunningHub) -> None:
        """Write the file again and again, and a last time when the hub stops or this call is cancelled."""
        if self._path is None:
            return
        try:
            while not hub.is_stopping:
                seq = self.journal.seq  # an event that happens during the writing is not in the file yet
                await self._save(ended=False)
                await self._wait(hub, seq)
            await self._save(ended=True)  # at once, since the next hub may start as soon as this one has stopped
            await hub.wait_stopped()
        finally:
            with trio.CancelScope(shield=True):
                await self._save(ended=True)

    async def _wait(self, hub: RunningHub, seq: int) -> None:
        """Wait until the file is to be written again. `seq` is the last change of the journal that the file has."""
        with trio.move_on_after(PERIOD):
            while not hub.is_stopping:
                with trio.move_on_after(SOON):
                    await hub.wait_stopping()
                if self.journal.seq != seq:
                    return

    async def _save(self, *, ended: bool) -> None:
        path = self._path
        assert path is not None
        hour, day = (span.rows() for span in self.spans.values())
        entries = [msgspec.structs.replace(entry) for entry in reversed(self.journal.since(0))]
        saved = _Saved(VERSION, self._clock(), ended, list(FOLDS), hour, day, entries)
        try:
            await trio.to_thread.run_sync(_write, path, saved)
        except OSError as error:
            log.warning("cannot write the history of the dashboard", kind="history", file=str(path), error=error)


def _write(path: Path, saved: _Saved) -> None:
    write_private_file(path, msgspec.json.encode(saved).decode())


def history_path(hub: RunningHub) -> Path | None:
    """Return the file for the history; None if the records of the hub do not outlive the hub either."""
    config = hub.config
    if config.profile_dir is None or not hub.core.store.durable:
        return None
    return config.profile_dir / "db" / (f"history-{config.cluster_id}" if config.cluster_id else "history")


def cause_of(hub: RunningHub, uuid: str) -> str:
    """Return why an engine has gone, as far as the hub knows now; empty if it is not known, or if the hub stops."""
    engine = hub.core.engines.gone.of(uuid.encode("utf-8", "replace"))
    return "" if engine is None or hub.is_stopping else engine.cause


def left_in_order(hub: RunningHub, event: EngineUnregistered) -> bool:
    """Return whether an engine that has gone was told to end, or has unregistered itself."""
    if hub.is_stopping or event.reason == "shutdown":
        return True
    engine = hub.core.engines.gone.of(event.uuid.encode("utf-8", "replace"))
    if event.reason != "request" or engine is None:
        return event.reason == "request"
    # A stock nanny names only an id, so the engine may return. Ours says how the process has ended.
    return not engine.may_return and not engine.cause.startswith(ENDED)


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
