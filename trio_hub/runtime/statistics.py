"""A snapshot of a hub's numbers."""

from __future__ import annotations

from dataclasses import dataclass

from ..hub import Hub

__all__ = ["Statistics", "statistics_of"]


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
    wire_errors: dict[str, int]
    """Messages that could not be read, by kind (`trio_hub.errors.WireError.KINDS`)."""
    ignored: dict[str, int]
    """Readable messages without effect, by reason: late or duplicate replies, unknown hearts, and the like."""


def statistics_of(hub: Hub) -> Statistics:
    """The hub's numbers now."""
    scheduler = hub.scheduler
    return Statistics(
        engines=len(hub.engines),
        registering=len(hub.incoming_registrations),
        tasks_queued=len(scheduler.queue),
        tasks_waiting=len(scheduler.tasks) - len(scheduler.queue) - scheduler.running,
        tasks_running=scheduler.running,
        direct_pending=len(hub.mux.pending),
        submitted=hub.tasks_submitted,
        completed=hub.tasks_completed,
        failed=hub.tasks_failed,
        wire_errors=dict(hub.wire_errors),
        ignored=dict(hub.ignored),
    )
