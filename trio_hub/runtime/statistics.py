"""A snapshot of a hub's numbers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from ..config import DatabaseURL
from ..hub import Hub
from ..services import Failures
from ..transport.subscribers import Subscribers
from .pooling.localgroup import LocalGroup

__all__ = ["DatabaseStatistics", "Statistics", "statistics_of"]


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """The numbers of the task database. Without a disk, no changes wait to be written."""

    kind: str
    """``sqlite``, ``postgresql``, ``memory`` or ``none``."""
    size: int | None
    """The size in bytes, now: on disk (SQLite) or in memory; None if only a server knows it."""
    pending: int
    """Records with changes that are not written yet, now."""
    pending_bytes: int
    """The approximate size of these changes in memory, in bytes."""
    lag: float
    """The age of the oldest change that is not written yet, in seconds, now; 0 if all changes are written."""
    batches: int
    """The number of batches that were written."""
    written: int
    """The number of changed records in these batches. A record that is written twice counts twice."""
    trimmed: int
    """Records that were dropped because of the limits on their number, size or age."""
    not_persisted: int
    """Records that were lost: given up for want of memory, or impossible to write."""
    last_error: str | None
    """Why the database cannot be written now; None if it can be written."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The numbers of a hub. Counts begin at the hub's start. *Now* marks present values."""

    engines: int
    """Engines that are registered, now."""
    registering: int
    """Engines that were told their ids and whose hearts were not heard yet, now."""
    tasks_queued: int
    """Tasks that wait for an engine, now."""
    tasks_waiting: int
    """Tasks that wait for the requests on which they depend, now."""
    tasks_paused: int
    """Tasks that have failed, or lost their engines, and wait for the pause before their next attempt, now."""
    tasks_running: int
    """Tasks that an engine has and has not answered, now."""
    direct_pending: int
    """Direct requests that are not answered, now."""
    submitted: int
    """Requests received, of all queues."""
    completed: int
    """Requests answered with success."""
    failed: int
    """Requests answered with an error. Aborted requests are not failed."""
    aborted: int
    """Requests that were aborted."""
    queue_memory: int
    """Bytes of memory that queued tasks take up now."""
    results_owed: int
    """Results that wait for clients that are away, now."""
    database: DatabaseStatistics
    """The numbers of the task database."""
    wire_errors: dict[str, int]
    """Messages that could not be read, by kind (`trio_hub.errors.WireError.KINDS`)."""
    ignored: dict[str, int]
    """Readable messages without effect, by reason: late or duplicate replies, unknown hearts, and the like."""
    internal_errors: dict[str, int]
    """Unexpected exceptions, by the place in the hub. Each is a bug, or a failure of the machine, and is in the log."""
    lost: int
    """Engines that are lost and still within their grace, now."""
    engines_registered: int
    """Engines that became usable."""
    engines_lost: dict[str, int]
    """Engines lost, by reason: ``died``, ``ended``, ``heart``, ``request``, ``shutdown`` or ``unreachable``."""
    local_engines: int
    """The number of local engines that the hub was asked to run."""
    local_engines_missing: tuple[str, ...]
    """A sentence for each local engine that cannot be used now: which engine, and why."""
    heartbeats_missed: int
    """Pings that an engine did not answer in their period."""
    sessions: int
    """Sessions of clients that the hub remembers, now: at most 10,000."""
    submitted_by_queue: dict[str, int]
    """`submitted`, by queue: ``task``, ``mux`` (direct requests) or ``broadcast``."""
    outcomes: dict[str, dict[str, int]]
    """Requests answered, by queue and then by outcome: ``ok``, ``error`` or ``aborted``."""
    cancelled: dict[str, int]
    """Requests that somebody has asked to cancel: ``withdrawn``, ``interrupted`` or ``unknown``."""
    ran_too_long: int
    """Tasks that were interrupted since they ran for longer than their ``max_runtime``."""
    interrupts_astray: int
    """Interrupts that have hit another request, which was run again or answered with an error."""
    engines_killed: int
    """Engines that were killed since a request did not end after it was interrupted."""
    engines_drained: int
    """Engines that get no new tasks since they are drained, now."""
    taken_away: int
    """Tasks that were taken away from drained engines at a deadline."""
    connections: str
    """``encrypted`` if clients and engines connect with CURVE, else ``open``."""
    subscribers: int
    """Connections that have subscribed to output or to notifications, now: two for each stock client."""
    subscribers_behind: int
    """Subscribers for which messages were dropped, and for which other messages still wait, now."""
    subscribers_waiting: int
    """Bytes of messages that wait for subscribers, now. A message counts once per subscriber for which it waits."""
    subscribers_dropped: int
    """Messages that were dropped since a subscriber did not read them. A message counts once per such subscriber."""
    subscribers_dropped_bytes: int
    """Bytes of the dropped messages."""
    service_failures: dict[str, int]
    """Unexpected errors of services, such as the dashboard or retention, by service."""


def statistics_of(
    hub: Hub,
    database: DatabaseURL,
    connections: str,
    published: Collection[Subscribers],
    failures: Failures,
    local: LocalGroup,
) -> Statistics:
    """Return the hub's present numbers.

    Args:
        hub: the hub.
        database: the URL of its task database.
        connections: ``encrypted`` or ``open``.
        published: the subscribers of each channel to which clients subscribe.
        failures: the failures of services, by name.
        local: the local engines.
    """
    scheduler = hub.tasks.scheduler
    return Statistics(
        engines=len(hub.engines.alive),
        registering=len(hub.engines.incoming_registrations),
        tasks_queued=len(scheduler.queue),
        tasks_waiting=len(scheduler.tasks) - len(scheduler.queue) - scheduler.running - scheduler.timers.paused,
        tasks_paused=scheduler.timers.paused,
        tasks_running=scheduler.running,
        direct_pending=len(hub.direct.unanswered.pending),
        submitted=hub.tasks_submitted,
        completed=hub.tasks_completed,
        failed=hub.tasks_failed,
        aborted=hub.answers.count("aborted"),
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
        cancelled=dict(hub.work.cancelling.counts),
        ran_too_long=hub.work.cancelling.timeouts,
        interrupts_astray=hub.work.interrupts.hits,
        engines_killed=hub.work.interrupts.kills.count,
        engines_drained=len(hub.work.draining.drains),
        taken_away=hub.work.interrupts.taken_away,
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
    """Return the size in bytes of an SQLite file, its log and its large buffers; None if the database is not a file."""
    if database.path is None:
        return None
    from ..databases.sqlite.segments import size_on_disk  # imported late: only some hubs need it

    return size_on_disk(database.path)
