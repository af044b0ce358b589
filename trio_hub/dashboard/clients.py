"""The clients: the requests of each, submitted and unfinished, and the results that wait for clients that are away."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

from ..runtime import RunningHub
from ..schedulers.task import TaskState

__all__ = ["ClientBook", "client_table"]

MAX_CLIENTS = 10_000
"""The number of clients that are remembered: the clients that submitted a request last."""
MAX_LISTED = 1000
"""The maximum number of clients in an answer."""


class ClientBook:
    """Counts the requests of each client since the dashboard was started.

    A client is known by its session. A broadcast counts once per engine.
    """

    def __init__(self, limit: int = MAX_CLIENTS) -> None:
        self.seen: OrderedDict[str, list[float]] = OrderedDict()
        """By session: the number of requests, and the time of the last request in Unix seconds."""
        self._limit = limit

    def submitted(self, session: str, now: float) -> None:
        """Count a request."""
        seen = self.seen.get(session)
        if seen is None:
            seen = self.seen[session] = [0, now]
            if len(self.seen) > self._limit:
                self.seen.popitem(last=False)
        elif now - seen[1] > 1.0:  # moving costs a little, and only clients that have long been silent are forgotten
            self.seen.move_to_end(session)
        seen[0] += 1
        seen[1] = now


def client_table(hub: RunningHub, book: ClientBook, now: float) -> dict[str, Any]:
    """Return the clients: first those that are away and have results, then those with the most unfinished requests."""
    core = hub.core
    scheduler = core.tasks.scheduler
    queued = scheduler.queue.lengths()
    running: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    paused: Counter[str] = Counter()
    for task in scheduler.tasks.values() if len(scheduler.tasks) > len(scheduler.queue) else ():
        if task.state is TaskState.WAITING:
            waiting[task.session] += 1
        elif task.state is TaskState.PAUSED:
            paused[task.session] += 1
        elif task.worker is not None:
            running[task.session] += 1
    direct = Counter(request.header.session for request in core.direct.unanswered.pending.values())
    direct.update(request.header.session for request in core.broadcasts.unanswered.pending.values())
    owed = core.owed.clients.owed_by_session()
    rows = []
    for session in {**owed, **queued, **waiting, **paused, **running, **direct, **book.seen}:
        submitted, last = book.seen.get(session, (0, None))
        rows.append(
            {
                "client": session,
                "queued": queued.get(session, 0),
                "waiting": waiting[session],
                "paused": paused[session],
                "running": running[session],
                "direct": direct[session],
                "owed": owed.get(session, 0),
                "submitted": submitted,
                "last": last,
            }
        )
    rows.sort(key=_place, reverse=True)
    return {"now": now, "clients": rows[:MAX_LISTED], "more": max(0, len(rows) - MAX_LISTED)}


def _place(row: dict[str, Any]) -> tuple[float, ...]:
    unfinished = row["queued"] + row["waiting"] + row["paused"] + row["running"] + row["direct"]
    return row["owed"], unfinished, row["last"] or 0.0
