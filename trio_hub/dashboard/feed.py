"""`Feed`: the messages for the pages, made from the hub's numbers and the observed events, and sent to all readers."""

from __future__ import annotations

from time import time
from typing import Any

import msgspec
import trio

from .. import __version__
from ..runtime import RunningHub, Statistics
from ..wire.plain import json_bytes
from .audience import Audience, event_message
from .bars import Bar
from .engines import connectors
from .nextsteps import next_steps
from .process import Process
from .series import LastMinute, Series
from .timings import LOOP_BOUNDS, MESSAGE_BOUNDS, TASK_BOUNDS
from .watching import Watch

__all__ = ["Feed"]

PERIOD = 0.5
"""Seconds between two messages about single tasks. An overview is sent every second time."""
MAX_BARS = 2000
"""The maximum number of bars in a message about single tasks. If there are more, the newest are sent."""
SLICE = 1000
"""The number of bars that are collected at a time, so that the hub can work in between."""
NAMES = (
    "t",
    "queued",
    "waiting",
    "running",
    "submitted",
    "finished",
    "failed",
    "engines",
    "rss",
    "lag",
    "backlog",
)


class Feed:
    """Makes the messages with overviews and bars, and sends them.

    Args:
        hub: The hub.
        watch: The observer of the hub.
        admin: Whether the pages may offer actions.
    """

    def __init__(self, hub: RunningHub, watch: Watch, *, admin: bool) -> None:
        self.admin = admin
        self.audience = Audience()
        self.watch = watch
        self.started = time()
        self._hub = hub
        self._series = Series(NAMES)
        self._latencies = {
            "wait": LastMinute(TASK_BOUNDS),
            "run": LastMinute(TASK_BOUNDS),
            "message": LastMinute(MESSAGE_BOUNDS),
            "loop": LastMinute(LOOP_BOUNDS),
        }
        self._process = Process()
        self._next_steps = next_steps(hub)
        self._statistics = hub.statistics()
        self._point: dict[str, float] = {}
        self._lag = 0.0
        self._told_seq = 0
        self._series_packed: msgspec.Raw | None = None
        for engine in connectors(hub):  # engines from before the dashboard was started
            watch.engines.meet(engine)
        self.look()

    async def run(self) -> None:
        """Read the hub's numbers and send messages, until cancelled."""
        due = trio.current_time()
        ticks = 0
        while True:
            due += PERIOD
            await trio.sleep_until(due)
            late = trio.current_time() - due
            self._lag = max(self._lag, late)
            if late > PERIOD:  # missed messages are not sent later
                due += late
            ticks += 1
            if ticks % 2 == 0:
                self.look()
                if self.audience.readers:
                    self.audience.tell(event_message("overview", self._overview() | {"point": self._point}))
            if self.audience.wants_bars:
                self._tell_bars()
            else:
                self._told_seq = self.watch.bars.seq

    async def until_stopping(self) -> None:
        """Wait until the hub is stopping, and send the last message."""
        await self._hub.wait_stopping()
        self.audience.end(event_message("stopping", {}))

    def look(self) -> None:
        """Read and note the hub's present numbers."""
        now = time()
        before, self._statistics = self._statistics, self._hub.statistics()
        seconds = max(now - self._point.get("t", self.started), 0.001)
        self._process.look(now)
        self._point = _point(now, seconds, before, self._statistics) | {"rss": self._process.rss, "lag": self._lag}
        self._lag = 0.0
        self._series.note(self._point)
        timings = self.watch.timings
        self._latencies["wait"].note([timings.wait])
        self._latencies["run"].note(timings.run.values())
        self._latencies["message"].note(timings.messages.values())
        self._latencies["loop"].note([timings.loop])
        self._series_packed = None

    def first_message(self, actor: str | None) -> bytes:
        """Return the first message for a browser: the overview, the series so far, and the name of its user."""
        if self._series_packed is None:
            self._series_packed = msgspec.Raw(json_bytes(self._series.all()))
        return event_message("overview", self._overview() | {"actor": actor, "series": self._series_packed})

    def _overview(self) -> dict[str, Any]:
        hub = self._hub
        info = hub.client_info
        point = self._point
        return {
            "now": point["t"],
            "version": __version__,
            "cluster_id": hub.config.cluster_id,
            "address": f"{info['interface']}:{info['registration']}",
            "started": self.started,
            "admin": self.admin,
            "actor": None,
            "statistics": self._statistics,
            "rates": {name: point[name] for name in ("submitted", "finished", "failed")},
            "latencies": {name: latency.summary() for name, latency in self._latencies.items()},
            "process": self._process.as_dict(),
            "clients": self._statistics.sessions,
            "next_steps": self._next_steps,
        }

    # Single tasks

    def _tell_bars(self) -> None:
        bars = self.watch.bars
        since = self._told_seq
        self._told_seq = bars.seq
        if bars.seq == since:
            return
        first = bars.first_after(since)
        ended = bars.ended - first
        lost = max(0, ended - MAX_BARS)
        found = bars.between(first + lost, bars.ended)
        found += bars.running_after(since, MAX_BARS - len(found))
        self.audience.tell(event_message("bars", self._about(found, lost)), bars=True)

    async def bars_since(self, seq: int, limit: int) -> dict[str, Any]:
        """Return the newest bars with changes after `seq`, at most `limit`, in the order of their changes."""
        bars = self.watch.bars
        running = bars.running_after(seq, limit)
        newest = bars.ended
        first = bars.first_after(seq)
        lost = max(0, newest - first - (limit - len(running)))
        found: list[Bar] = []
        at = bars.seq
        number = first + lost
        while number < newest:
            # some bars may have been overwritten during the checkpoint
            kept = min(newest, max(number, bars.ended - len(bars)))
            lost += kept - number
            number = min(kept + SLICE, newest)
            found += bars.between(kept, number)
            await trio.lowlevel.checkpoint()
        found += running
        return self._about(found, lost) | {"next": at}

    def _about(self, found: list[Bar], lost: int) -> dict[str, Any]:
        """Return bars with the labels and engines that a page needs to draw them."""
        watch = self.watch
        rows = {bar.row for bar in found}
        return {
            "next": watch.bars.seq,
            "lost": lost,
            "bars": found,
            "labels": {label: watch.progress.names[label] for label in {bar.label for bar in found}},
            "engines": {
                row: {"uuid": seen.uuid, "id": seen.id}
                for row, seen in ((row, watch.engines.by_row.get(row)) for row in rows)
                if seen is not None
            },
            "waiting": len(watch.waiting),
        }


def _point(now: float, seconds: float, before: Statistics, after: Statistics) -> dict[str, float]:
    return {
        "t": now,
        "queued": after.tasks_queued,
        "waiting": after.tasks_waiting,
        "running": after.tasks_running,
        "submitted": (after.submitted - before.submitted) / seconds,
        "finished": (after.completed + after.failed - before.completed - before.failed) / seconds,
        "failed": (after.failed - before.failed) / seconds,
        "engines": after.engines,
        "backlog": after.database.pending,
    }
