"""Requests as commands show them, and how a hub is asked for no more of them than is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import RemoteError

if TYPE_CHECKING:
    from ...client import Client

__all__ = [
    "ROW_KEYS",
    "STATES",
    "Load",
    "find_latest",
    "is_busy",
    "load_of",
    "row_of",
    "state_of",
    "window",
]

STATES = ("waiting", "running", "ok", "error", "aborted")
"""Waiting for an engine; with an engine, begun or next in its queue; and the three ends."""
ROW_KEYS = (
    "queue",
    "submitted",
    "started",
    "completed",
    "received",
    "engine_uuid",
    "client_uuid",
    "label",
    "result_content",
)
"""The record keys that `row_of` needs."""

# Seconds that `find_latest` looks back, step by step. Protocols have no "the last hundred": time stands for it.
_STEPS = (1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400)


class Load(NamedTuple):
    """What there is to do.

    - ``engines``: ``{"queue", "tasks", "completed"}`` of each, by id;
    - ``waiting``: the tasks that no engine has yet; None if an ipcontroller has no engines, when it does not tell.
    """

    engines: dict[int, dict[str, int]]
    waiting: int | None

    @property
    def tasks(self) -> int:
        return sum(each["tasks"] for each in self.engines.values())

    @property
    def direct(self) -> int:
        return sum(each["queue"] for each in self.engines.values())

    @property
    def completed(self) -> int:
        return sum(each["completed"] for each in self.engines.values())

    @property
    def busy(self) -> int:
        return sum(1 for each in self.engines.values() if is_busy(each))


def is_busy(engine: Mapping[str, int]) -> bool:
    return engine["tasks"] + engine["queue"] > 0


async def load_of(client: Client) -> Load:
    """One cheap query, whatever the hub has to do."""
    try:
        status = await client.queue_status()
    except RemoteError as error:
        if "No Engines" not in error.evalue:
            raise
        return Load({}, None)
    waiting: int = status.pop("unassigned")
    return Load({int(id): engine for id, engine in sorted(status.items(), key=lambda item: int(item[0]))}, waiting)


def window(since: datetime | None, until: datetime | None) -> dict[str, Any]:
    """The condition that a date is in this time. That it is known is said first: an ipcontroller compares in order."""
    bounds = {"$gte": since, "$lt": until}
    return {"$ne": None} | {name: bound.isoformat() for name, bound in bounds.items() if bound is not None}


async def find_latest(
    client: Client,
    condition: Mapping[str, Any],
    keys: Sequence[str],
    *,
    enough: int,
    by: str = "submitted",
    since: datetime | None = None,
) -> list[dict[str, Any]]:
    """At least the latest records that match, in order, if there are so many; or all there are since then.

    The hub is asked for ever longer times back, each time only for what it has not told yet, until there are enough:
    however large its database is, it reads few records that nobody wants.
    """
    found: list[dict[str, Any]] = []
    now = datetime.now(UTC)
    until = None
    for step in (*_STEPS, None):
        begin = None if step is None else now - timedelta(seconds=step)
        last = begin is None or (since is not None and begin <= since)
        begin = since if last else begin
        found = await client.db_query({**condition, by: window(begin, until)}, keys) + found
        if last or len(found) >= enough:
            break
        until = begin
    return sorted(found, key=lambda record: record[by])


def state_of(record: Mapping[str, Any]) -> str:
    """One of `STATES`."""
    if record["completed"] is None:
        return "waiting" if record["engine_uuid"] is None else "running"
    status = (record.get("result_content") or {}).get("status")
    return status if status in ("ok", "aborted") else "error"


def row_of(record: Mapping[str, Any], engines: Mapping[int, str]) -> dict[str, Any]:
    """What is told of a request, as it is in JSON."""
    ids = {uuid: id for id, uuid in engines.items()}
    state = state_of(record)
    started, completed = record["started"], record["completed"]
    content = record.get("result_content") or {}
    return {
        "msg_id": record["msg_id"],
        "state": state,
        "queue": record["queue"],
        "label": record["label"],
        "engine_id": ids.get(record["engine_uuid"]),
        "engine_uuid": record["engine_uuid"],
        "client": record["client_uuid"],
        "submitted": record["submitted"],
        "started": started,
        "completed": completed,
        "received": record["received"],
        "seconds": (completed - started).total_seconds() if started and completed else None,
        "error": {name: content.get(name) for name in ("ename", "evalue")} if state == "error" else None,
    }
