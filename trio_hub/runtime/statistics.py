"""A snapshot of a hub's numbers."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass

from ..config import DatabaseURL
from ..hub import Hub
from ..services import Failures
from ..transport.subscribers import Subscribers
from .children import LocalEngines

__all__ = ["DatabaseStatistics", "Statistics", "statistics_of"]


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """How the task database does. Without a disk behind it, nothing ever waits to be written."""

    kind: str
    """``sqlite``, ``postgresql``, ``memory`` or ``none``."""
    size: int | None
    """Bytes that it takes up now: on disk (SQLite) or in memory; None where only a server knows."""
    pending: int
    """Records of which something is not yet written, now."""
    pending_bytes: int
    """Bytes of memory that they take up, roughly."""
    lag: float
    """Seconds since the oldest change came that is not yet written, now; 0 if all are."""
    batches: int
    """Times that something was written."""
    written: int
    """Records changed in what was written; one that is written twice counts twice."""
    trimmed: int
    """Records that were dropped since they were more, larger or older than is to be kept."""
    not_persisted: int
    """Records that were lost: given up for want of memory, or not to be written for a reason of their own."""
    last_error: str | None
    """Why it cannot be written now; None when it can."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts are since the hub's start, unless they say otherwise."""

    engines: int
    """Engines that are alive now."""
    registering: int
    """Engines that were told their id and whose heart was not heard yet, now."""
    tasks_queued: int
    """Tasks that wait for an engine, now."""
    tasks_waiting: int
    """Tasks that wait for what they depend on, now."""
    tasks_running: int
    """Tasks that an engine has and has not answered, now."""
    direct_pending: int
    """Direct requests that are not answered, now."""
    submitted: int
    """Tasks and direct requests received."""
    completed: int
    """Of these, answered with success."""
    failed: int
    """Of these, answered with an error, or aborted."""
    queue_memory: int
    """Bytes of memory that queued tasks take up now."""
    results_owed: int
    """Results that wait for clients which are away, now."""
    database: DatabaseStatistics
    """How the task database does."""
    wire_errors: dict[str, int]
    """Messages that could not be read, by kind (`trio_hub.errors.WireError.KINDS`)."""
    ignored: dict[str, int]
    """Readable messages without effect, by reason: late or duplicate replies, unknown hearts, and the like."""
    internal_errors: dict[str, int]
    """Unexpected exceptions, by the place in the hub. Each is a bug, or a failure of the machine, and is in the log."""
    lost: int
    """Engines that are gone and whose late results are still taken, now."""
    engines_registered: int
    """Engines that became usable."""
    engines_lost: dict[str, int]
    """Engines that are gone, by reason: ``ended``, ``heart``, ``request``, ``shutdown`` or ``unreachable``."""
    local_engines: int
    """Engines that the hub was asked to run on its machine."""
    local_engines_missing: tuple[str, ...]
    """A sentence for each of these that cannot be used now: which one, and why."""
    heartbeats_missed: int
    """Pings that an engine did not answer in their period."""
    sessions: int
    """Clients' sessions that are known now: the last 10,000 that have sent a request."""
    submitted_by_queue: dict[str, int]
    """`submitted`, by queue: ``task``, ``mux`` (direct requests) or ``broadcast``."""
    outcomes: dict[str, dict[str, int]]
    """Requests answered, by queue and then by outcome: ``ok``, ``error`` or ``aborted``."""
    connections: str
    """``encrypted``, if clients and engines talk to the hub over CURVE, or ``open``."""
    subscribers: int
    """Connections that have subscribed to output or to notifications, now: two for each stock client."""
    subscribers_behind: int
    """Of these, the ones from which messages were dropped, and for which others wait still, now."""
    subscribers_waiting: int
    """Bytes of messages that wait for subscribers, now; a message counts for each subscriber that it waits for."""
    subscribers_dropped: int
    """Messages that were dropped since a subscriber did not read; a message counts for each such subscriber."""
    subscribers_dropped_bytes: int
    """Bytes of these messages."""
    service_failures: dict[str, int]
    """Errors that nobody expected of what runs beside the hub, such as the dashboard or retention, by service."""


def statistics_of(
    hub: Hub,
    database: DatabaseURL,
    connections: str,
    published: Collection[Subscribers],
    failures: Failures,
    local: LocalEngines,
) -> Statistics:
    """Return the hub's numbers now.

    Args:
        hub: whose numbers.
        database: where its records are.
        connections: ``encrypted`` or ``open``.
        published: the subscribers of each channel that has some.
        failures: errors of services, by name.
        local: the engines that the hub runs.
    """
    scheduler = hub.tasks.scheduler
    return Statistics(
        engines=len(hub.engines.alive),
        registering=len(hub.engines.incoming_registrations),
        tasks_queued=len(scheduler.queue),
        tasks_waiting=len(scheduler.tasks) - len(scheduler.queue) - scheduler.running,
        tasks_running=scheduler.running,
        direct_pending=len(hub.direct.unanswered.pending),
        submitted=hub.tasks_submitted,
        completed=hub.tasks_completed,
        failed=hub.tasks_failed,
        queue_memory=hub.intake.held_bytes,
        results_owed=hub.owed.clients.owed,
        database=_of_database(hub, database),
        wire_errors=dict(hub.notices.wire_errors),
        ignored=dict(hub.notices.ignored),
        internal_errors=dict(hub.notices.internal_errors),
        lost=len(hub.engines.lost),
        engines_registered=hub.engines.engines_registered,
        engines_lost=dict(hub.engines.engines_lost),
        local_engines=local.n,
        local_engines_missing=local.missing(),
        heartbeats_missed=hub.hearts.heartmonitor.missed,
        sessions=len(hub.owed.clients),
        submitted_by_queue=dict(hub.submitted),
        outcomes={queue: dict(outcomes) for queue, outcomes in hub.answers.outcomes.items()},
        connections=connections,
        subscribers=sum(map(len, published)),
        subscribers_behind=sum(one.dropping for one in published),
        subscribers_waiting=sum(one.waiting_bytes for one in published),
        subscribers_dropped=sum(one.dropped for one in published),
        subscribers_dropped_bytes=sum(one.dropped_bytes for one in published),
        service_failures=dict(failures),
    )


def _of_database(hub: Hub, database: DatabaseURL) -> DatabaseStatistics:
    numbers = asdict(hub.store.statistics())
    if numbers["size"] is None:
        numbers["size"] = _size(database)
    return DatabaseStatistics(kind=database.scheme, **numbers)


def _size(database: DatabaseURL) -> int | None:
    """Of an SQLite file and the log beside it."""
    if database.path is None:
        return None
    size = 0
    for end in ("", "-wal"):
        with suppress(OSError):
            size += os.stat(f"{database.path}{end}").st_size
    return size
