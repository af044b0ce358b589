"""The alerts for operators. An alert that is over stays for a while, so that nobody misses it by looking away.

The hub finds the alerts, not the pages. So a person who opens a page later sees what happened while no page was open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..runtime import Statistics
from ..wire.plain import printable
from .journal import Entry
from .pools import Pool, bringing, failing, is_elastic, stopped, unanswered
from .sentences import Level, plural

__all__ = ["Alert", "Alerts", "Concern", "Look", "concerns"]

KEEP = 900.0
"""Seconds for which an alert stays after it is over."""
AGAIN = 60.0
"""Seconds after which a concern that comes again is told as a new one."""
STARTING = 60.0
"""Seconds after the start during which engines may still come: alerts about missing engines do not stay."""
HESITATION = 5.0
"""Seconds that tasks without engines must wait before an alert says so, if a pool may ask for engines meanwhile."""
LATE = 10.0
"""Seconds that the database may be behind."""
LAGGING = 0.25
"""Seconds that the event loop may be late."""
NAMED = 3
"""The number of local engines that an alert names."""
DESCRIPTORS = 0.8
"""The part of the allowed file descriptors that may be in use."""


@dataclass(frozen=True)
class Concern:
    """A state that needs attention now, or an event of the last hour that needed attention.

    - ``key``: the name of the concern, which stays the same when the numbers in its text change;
    - ``href``: the fragment of the page that shows more; empty if there is none;
    - ``last``: the Unix time of the event; None for a state;
    - ``stays``: whether the alert stays for a while when the state has ended;
    - ``noted``: whether the journal notes the beginning of the concern;
    - ``after``: the seconds that a state must last before it is told.
    """

    key: str
    level: Level
    text: str
    href: str = ""
    last: float | None = None
    stays: bool = True
    noted: bool = True
    after: float = 0.0


class Alert(msgspec.Struct):
    """An alert.

    - ``id``: changes if the concern comes again after the alert was gone, and each time the event happens again;
    - ``event``: whether the alert is about an event of the last hour; else it is about a state;
    - ``since``: when the state began or the event happened first, in Unix seconds;
    - ``until``: when the state was over, or when the event happened last; None while the state lasts.
    """

    id: str
    level: Level
    text: str
    href: str
    event: bool
    since: float
    until: float | None


@dataclass(frozen=True)
class Look:
    """The numbers that concerns depend on."""

    statistics: Statistics
    now: float
    started: float
    """When the dashboard was started, in Unix seconds."""
    failing: float
    """Failed requests per second."""
    loop_p99: float | None
    """The lag of the event loop in the last minute, in seconds."""
    descriptors: int
    descriptor_limit: int
    lost: int
    """The number of engines that were lost in the last hour."""
    last_lost: Entry | None
    errors: int
    """The number of unexpected errors in the last hour."""
    last_error: Entry | None
    crashed: Entry | None
    pools: Sequence[Pool] = ()
    """The pools, see `trio_hub.dashboard.pools`."""


class Alerts:
    """The alerts, by the key of their concerns."""

    def __init__(self) -> None:
        self._alerts: dict[str, Alert] = {}
        self._staying: dict[str, bool] = {}
        self._since: dict[str, float] = {}
        """By the key of the present concerns: when the concern was first found."""

    def look(self, now: float, found: Iterable[Concern]) -> tuple[list[Concern], list[Alert]]:
        """Note the present concerns.

        Return the concerns that have begun, without events, and the alerts that have just ended.
        """
        begun: list[Concern] = []
        ended: list[Alert] = []
        gone = set(self._alerts)
        since, self._since = self._since, {}
        for concern in found:
            key, last = concern.key, concern.last
            self._since[key] = since.get(key, now)
            if now - self._since[key] < concern.after:
                continue
            gone.discard(key)
            alert = self._alerts.get(key)
            if last is None and (alert is None or (alert.until is not None and now - alert.until > AGAIN)):
                begun.append(concern)
            if alert is None:
                alert = self._alerts[key] = Alert(
                    "", "info", "", "", last is not None, now if last is None else last, None
                )
            alert.id = f"{key}:{alert.since if last is None else last:.0f}"
            alert.level, alert.text, alert.href = concern.level, printable(concern.text), concern.href
            alert.event, alert.until = last is not None, last
            self._staying[key] = concern.stays and last is None
        for key in gone:
            alert = self._alerts[key]
            if alert.until is None:
                alert.until = now
                ended.append(alert)
            if not self._staying[key] or now - alert.until > KEEP:
                del self._alerts[key], self._staying[key]
        return begun, ended

    def shown(self) -> list[dict[str, Any]]:
        """Return all alerts: first those that last, then the events, then those that are over."""
        alerts = sorted(self._alerts.values(), key=_order)
        return [msgspec.structs.asdict(alert) for alert in alerts]


def _order(alert: Alert) -> tuple[bool, bool, bool, float]:
    """Return the key that sorts alerts as `Alerts.shown` says. Of one sort, the worst come first, then the latest."""
    over = alert.until is not None
    return over, over and not alert.event, alert.level != "bad", -(alert.until or 0.0)


def concerns(look: Look) -> list[Concern]:
    """Return what needs attention."""
    return [*_of_engines(look), *_of_pools(look), *_of_database(look.statistics), *_of_hub(look)]


def _of_engines(look: Look) -> Iterable[Concern]:
    now = look.statistics
    waiting = now.tasks_queued + now.tasks_waiting + now.tasks_paused
    settled = look.now - look.started > STARTING
    if waiting > 0 and now.engines == 0 and not bringing(look.pools):
        verb = "task waits" if waiting == 1 else "tasks wait"
        text = f"{waiting:,} {verb}, but no engine is alive."
        after = HESITATION if is_elastic(look.pools) else 0.0
        yield Concern("no_engine", "bad", text, "#/engines", stays=settled, noted=settled, after=after)
    missing = now.local_engines_missing
    if missing:
        named = "; ".join(missing[:NAMED]) + ("; and others" if len(missing) > NAMED else "")
        text = f"{len(missing):,} of {plural(now.local_engines, 'local engine')} cannot be used: {named}."
        yield Concern("missing", "warn", text, "#/engines", stays=settled, noted=False)
    if look.lost > 0:
        lost = "engine was" if look.lost == 1 else "engines were"
        text = f"{look.lost:,} {lost} lost in the last hour."
        entry = look.last_lost
        if entry is None or not entry.subjects:  # so much has happened since that the journal has lost the entry
            yield Concern("lost", "warn", text, "#/engines", stays=False, noted=False)
        else:
            name = f"Engine {entry.subjects[-1]}" if look.lost == 1 else f"The latest is engine {entry.subjects[-1]}"
            cause = f": {entry.cause}" if entry.cause else ""
            yield Concern("lost", "warn", f"{text} {name}{cause}.", "#/engines", last=entry.last)
    if now.lost > 0:
        verb = "engine is" if now.lost == 1 else "engines are"
        text = f"{now.lost:,} {verb} lost; late results are still accepted."
        yield Concern("grace", "warn", text, "#/engines?text=lost", stays=False, noted=False)
    if look.failing > 0:
        yield Concern("failing", "warn", f"Tasks are failing: about {_rate(look.failing)}.", "#/failures")


def _of_pools(look: Look) -> Iterable[Concern]:
    for name, text in stopped(look.pools):
        yield Concern(f"pool_stopped:{name}", "bad", text, f"#/pools/{name}")
    for name, text in failing(look.pools, look.now):  # the journal has each failure
        yield Concern(f"pool_failing:{name}", "warn", text, f"#/pools/{name}", noted=False)
    for name, text in unanswered(look.pools):
        yield Concern(f"pool_unanswered:{name}", "warn", text, f"#/pools/{name}")


def _of_database(statistics: Statistics) -> Iterable[Concern]:
    database = statistics.database
    if database.last_error:
        yield Concern("database", "bad", f"The database cannot be written: {database.last_error}")
    if database.not_persisted > 0:
        lost = "record was" if database.not_persisted == 1 else "records were"
        yield Concern("not_persisted", "bad", f"{database.not_persisted:,} {lost} lost: writing failed.")
    if database.lag > LATE:
        waits = "record waits" if database.pending == 1 else "records wait"
        text = f"The database is {database.lag:.0f} s behind: {database.pending:,} {waits}."
        yield Concern("behind", "warn", text)


def _of_hub(look: Look) -> Iterable[Concern]:
    now = look.statistics
    if look.crashed is not None:
        yield Concern("crashed", "bad", look.crashed.text, last=look.crashed.last)
    if look.errors > 0:
        text = f"{plural(look.errors, 'unexpected error')} in the hub in the last hour: see the log for the traceback."
        if look.last_error is None:
            yield Concern("errors", "bad", text, stays=False, noted=False)
        else:
            text = f"{text} The latest: {look.last_error.text}"
            yield Concern("errors", "bad", text, last=look.last_error.last)
    if now.subscribers_behind > 0:
        does = "client connection does" if now.subscribers_behind == 1 else "client connections do"
        text = (
            f"{now.subscribers_behind:,} {does} not read output or notifications: "
            f"{now.subscribers_waiting / 1e6:,.0f} MB wait, and the oldest messages are dropped. "
            "The addresses are in the hub's log."
        )
        yield Concern("subscribers", "warn", text)
    if look.loop_p99 is not None and look.loop_p99 > LAGGING:
        text = f"The hub's event loop was {look.loop_p99:.1f} s late (p99 of the last minute)."
        yield Concern("loop", "warn", text, noted=False)
    if look.descriptor_limit and look.descriptors > DESCRIPTORS * look.descriptor_limit:
        text = (
            f"{look.descriptors:,} of {look.descriptor_limit:,} file descriptors are in use: "
            "raise the limit (ulimit -n) before you start more engines."
        )
        yield Concern("descriptors", "warn", text)


def _rate(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return the increase of each counter that has grown."""
    return {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
