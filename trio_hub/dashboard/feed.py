"""`Feed`: the messages for the pages, made from the hub's numbers and the observed events, and sent to all readers."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, time
from typing import Any

import msgspec
import trio

from .. import __version__
from ..runtime import RunningHub, Statistics
from ..wire.plain import json_bytes
from .alerts import Alerts, Look, concerns, grown
from .audience import Audience, event_message
from .bars import Bar
from .engines import connectors
from .history import History
from .nextsteps import next_steps
from .pools import Pool, pool_rows
from .process import Process
from .series import SECONDS, LastMinute, Rates, Series
from .spans import FOLDS
from .timings import LOOP_BOUNDS, LOOP_PERIOD, MESSAGE_BOUNDS, TASK_BOUNDS, watch_loop
from .watching import Watch

__all__ = ["Feed"]

PERIOD = LOOP_PERIOD
"""Seconds between two messages about single tasks. An overview is sent every second time."""
UNSEEN = 5.0
"""Seconds between two looks at the hub's numbers while the audience has no readers. If the hub handles no messages
either, the dashboard sleeps that long. So a dashboard that nobody looks at costs nearly nothing."""
MAX_BARS = 2000
"""The maximum number of bars in a message about single tasks. If there are more, the newest are sent."""
SLICE = 1000
"""The number of bars that are collected at a time, so that the hub can work in between."""
WINDOWS = (10, 60)
"""The seconds over which rates are averaged. The rate of a single second flickers too fast to be read."""
OFTEN, HOURLY = 60.0, 3600.0
"""Seconds within which equal events that often follow each other are one entry of the journal."""
BLOCKED = 0.25
"""Seconds for which the event loop must be blocked for the journal to note it."""
NAMES = ("t", *FOLDS)


class Feed:
    """Makes the messages with overviews and bars, and sends them.

    Args:
        hub: The hub.
        watch: The observer of the hub.
        history: The journal, and the series of the last hour and the last day.
        admin: Whether the pages may offer actions.
    """

    def __init__(self, hub: RunningHub, watch: Watch, history: History, *, admin: bool) -> None:
        self.admin = admin
        self.audience = Audience()
        self.watch = watch
        self.history = history
        self.alerts = Alerts()
        self.started = time()
        self._hub = hub
        self._series = Series(NAMES)
        self._rates = Rates(WINDOWS)
        self._latencies = {
            "wait": LastMinute(TASK_BOUNDS),
            "run": LastMinute(TASK_BOUNDS),
            "message": LastMinute(MESSAGE_BOUNDS),
            "loop": LastMinute(LOOP_BOUNDS),
        }
        self._process = Process()
        self._next_steps = next_steps(hub)
        self._statistics = hub.statistics()
        self._pools: Sequence[Pool] = ()
        self._point: dict[str, float] = {}
        self._losses = 0
        self._looked = monotonic()
        self._handling = 0.0
        """The seconds that the hub had spent on handling messages when `rest` was last called."""
        self._lag = 0.0
        self._ticks = 0
        self._told_seq = 0
        self._series_packed: msgspec.Raw | None = None
        for engine in connectors(hub):  # engines from before the dashboard was started
            watch.engines.meet(engine)
        self.look()

    async def run(self) -> None:
        """Measure the lag of the event loop, read the hub's numbers and send messages, until cancelled."""
        await watch_loop(self.watch.timings.loop, self._tick, PERIOD, self.rest)

    async def rest(self) -> None:
        """Wait until a reader joins, for at most `UNSEEN` seconds.

        Return at once if there is a reader, or if the hub has handled messages since the last call.
        """
        before = self._handling
        self._handling = sum(times.sum for times in self.watch.timings.messages.values())
        if self._handling == before and not self.audience.readers:
            with trio.move_on_after(UNSEEN):
                await self.audience.joined.wait()

    def _tick(self, late: float) -> None:
        """Do what is due once in a `PERIOD`. `late` is the lag of the event loop in seconds."""
        self._lag = max(self._lag, late)
        self._ticks += 1
        seen = bool(self.audience.readers)
        is_due = self._ticks % 2 == 0 if seen else self._age >= UNSEEN
        if is_due:
            self.look()
            if seen:
                self.audience.tell(event_message("overview", self._overview() | {"point": self._point}))
        if self.audience.wants_bars:
            self._tell_bars()
        else:
            self._told_seq = self.watch.bars.seq

    async def until_stopping(self) -> None:
        """Wait until the hub is stopping, note its last numbers for the history, and send the last message."""
        await self._hub.wait_stopping()
        self.look()
        self.audience.end(event_message("stopping", {}))

    def refresh(self) -> None:
        """Read and note the hub's present numbers, unless they are less than a second old."""
        if self._age >= 2 * PERIOD:
            self.look()

    @property
    def _age(self) -> float:
        """The seconds since the last call of `look`."""
        return monotonic() - self._looked

    def look(self) -> None:
        """Read and note the hub's present numbers. The series get one value per second since the last call."""
        now = time()
        at = monotonic()
        seconds = min(max(1, round(at - self._looked)), SECONDS)
        self._looked = at
        before, self._statistics = self._statistics, self._hub.statistics()
        self._pools = self._hub.pools
        self._process.look(now)
        self._rates.note(at, _counts(self._statistics))
        journal = self.history.journal
        journal.learn()
        errors = self._note_errors(before, self._statistics)
        lost, self._losses = journal.losses - self._losses, journal.losses
        self._point = (
            _gauges(self._statistics)
            | self._rates.over(WINDOWS[0])
            | {"t": now, "rss": self._process.rss, "lag": self._lag, "lost": lost, "errors": errors}
        )
        self._lag = 0.0
        # Losses and errors are sums, so that only one of the values may have them.
        for ago in range(seconds - 1, 0, -1):
            self._series.note(self._point | {"t": now - ago, "lost": 0, "errors": 0})
        self._series.note(self._point)
        self.history.note(now, self._point)
        timings = self.watch.timings
        self._latencies["wait"].note([timings.wait], seconds)
        self._latencies["run"].note(timings.run.values(), seconds)
        self._latencies["message"].note(timings.messages.values(), seconds)
        self._latencies["loop"].note([timings.loop], seconds)
        self._look_for_trouble(now)
        self._series_packed = None

    def _note_errors(self, before: Statistics, after: Statistics) -> int:
        """Write the errors since the last look into the journal. Return their number."""
        journal = self.history.journal
        errors = 0
        for place, count in grown(before.internal_errors, after.internal_errors).items():
            errors += count
            text = f"An unexpected error in the hub, at {place}. The log has the traceback."
            journal.note("error", "bad", text, count=count)
        for service, count in grown(before.service_failures, after.service_failures).items():
            errors += count
            text = f"The service {service!r} has failed. The log has the traceback."
            journal.note("error", "bad", text, count=count)
        unreadable = grown(before.wire_errors, after.wire_errors)
        if unreadable:
            text = f"Messages that could not be read were dropped: {', '.join(unreadable)}."
            journal.note("unreadable", "warn", text, count=sum(unreadable.values()), near=OFTEN)
        if self._lag > BLOCKED:
            journal.note("blocked", "warn", f"The hub's event loop was blocked for {self._lag:.2g} s.", near=OFTEN)
        trimmed = after.database.trimmed - before.database.trimmed
        if trimmed > 0:
            text = "Records were dropped because of the limits of the database."
            journal.note("trimmed", "info", text, count=trimmed, near=HOURLY)
        return errors

    def _look_for_trouble(self, now: float) -> None:
        history, journal = self.history, self.history.journal
        loop = self._latencies["loop"].summary()
        look = Look(
            statistics=self._statistics,
            now=now,
            started=self.started,
            failing=self._point["failed"],
            loop_p99=None if loop is None else loop["p99"],
            descriptors=self._process.files,
            descriptor_limit=self._process.limit,
            lost=history.total("lost", now),
            last_lost=journal.latest("engine_lost", now),
            errors=history.total("errors", now),
            last_error=journal.latest("error", now),
            crashed=journal.latest("crashed", now),
            pools=self._pools,
        )
        begun, ended = self.alerts.look(now, concerns(look))
        for concern in begun:
            if concern.noted:
                journal.note(concern.key, concern.level, concern.text)
        for alert in ended:
            if alert.level == "bad":
                journal.note("over", "info", f"Over after {now - alert.since:,.0f} s: {alert.text}")

    def first_message(self, actor: str | None) -> bytes:
        """Return the first message for a browser: the overview, the series so far, and the name of its user."""
        self.refresh()
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
            "pools": pool_rows(self._pools),
            "rates": self._rates.all(),
            "alerts": self.alerts.shown(),
            "journal": self.history.journal.seq,
            "lost_last_hour": self.history.total("lost", point["t"]),
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


def _gauges(statistics: Statistics) -> dict[str, float]:
    return {
        "queued": statistics.tasks_queued,
        "waiting": statistics.tasks_waiting,
        "running": statistics.tasks_running,
        "engines": statistics.engines,
        "backlog": statistics.database.pending,
    }


def _counts(statistics: Statistics) -> dict[str, int]:
    return {
        "submitted": statistics.submitted,
        "finished": statistics.completed + statistics.failed + statistics.aborted,
        "failed": statistics.failed,
        "aborted": statistics.aborted,
    }
