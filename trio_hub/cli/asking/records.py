"""The requests and the load that commands show, and the queries for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import RemoteError
from .output import one_line

if TYPE_CHECKING:
    from ...client import Client

__all__ = [
    "ROW_KEYS",
    "STATES",
    "UNSENT",
    "Load",
    "error_text",
    "failure_of",
    "find_latest",
    "is_busy",
    "load_of",
    "name_rows",
    "row_of",
    "rule_lines",
    "shortest",
    "state_of",
    "tell_states",
    "what",
    "window",
    "work_rules",
]

STATES = ("queued", "waiting", "paused", "running", "ok", "failed", "aborted")
"""The states of a request. ``queued``: it waits for an engine. ``waiting``: it waits for the requests on which it
depends. ``paused``: it waits for its next attempt. ``running``: it was sent to an engine. The others are the outcomes
of finished requests."""
UNSENT = {"queued", "waiting", "paused"}
"""The states of requests that no engine has. Records do not tell these states apart, only a trio-hub does."""
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

HUB_NOTES = "trio_hub"
"""The key of the hub's notes in the metadata of a record: `trio_hub.hub.records.HUB_NOTES`. A test compares the two."""

# The seconds that `find_latest` looks back, step by step. The protocol has no query for "the last hundred" records.
_STEPS = (1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400)


class Load(NamedTuple):
    """The load of a cluster.

    - ``engines``: by engine id, the numbers ``{"queue", "tasks", "completed"}`` of requests of each engine;
    - ``unassigned``: the number of tasks that no engine has yet, which are queued, waiting or paused; None for an
      ipcontroller without engines, which does not report it.
    """

    engines: dict[int, dict[str, int]]
    unassigned: int | None

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
    """Ask the hub for the load of its cluster. This query is cheap, whatever the load."""
    try:
        status = await client.queue_status()
    except RemoteError as error:
        if "No Engines" not in error.evalue:
            raise
        return Load({}, None)
    unassigned: int = status.pop("unassigned")
    return Load({int(id): engine for id, engine in sorted(status.items(), key=lambda item: int(item[0]))}, unassigned)


def window(since: datetime | None, until: datetime | None) -> dict[str, Any]:
    """Return the condition that a date is known and in a period.

    "Known" comes first, since an ipcontroller checks operators in order and fails for unknown dates otherwise.
    """
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
    choose: Callable[[list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]] | None = None,
) -> list[dict[str, Any]]:
    """Return the latest matching records in order: at least `enough`, or all of them, or all since a date.

    `choose` gets records that the hub has found, and returns those that match.

    The hub is asked for longer and longer periods before now, each time only for the new part, until there are enough
    records. So the hub reads few unneeded records, however large its database is.
    """
    found: list[dict[str, Any]] = []
    now = datetime.now(UTC)
    until = None
    for step in (*_STEPS, None):
        begin = None if step is None else now - timedelta(seconds=step)
        last = begin is None or (since is not None and begin <= since)
        begin = since if last else begin
        part = await client.db_query({**condition, by: window(begin, until)}, keys)
        found = (part if choose is None else await choose(part)) + found
        if last or len(found) >= enough:
            break
        until = begin
    return sorted(found, key=lambda record: record[by])


def state_of(record: Mapping[str, Any]) -> str:
    """Return the state of a request, one of `STATES`. `tell_states` must have been called for its record."""
    if record["completed"] is None:
        return record.get("state") or ("queued" if record["engine_uuid"] is None else "running")
    status = (record.get("result_content") or {}).get("status")
    return status if status in ("ok", "aborted") else "failed"


async def tell_states(client: Client, records: Iterable[dict[str, Any]]) -> None:
    """Add ``state`` to the records of unfinished requests without an engine, if the hub tells these states apart.

    Most of these requests are queued, waiting or paused. But a broadcast whose answers the hub gathers is running,
    although its record has no engine. An ipcontroller does not tell the states: for its requests, `state_of` says
    ``queued``.
    """
    unassigned = {
        record["msg_id"]: record for record in records if record["completed"] is None and record["engine_uuid"] is None
    }
    try:
        details = await client.details(list(unassigned))
    except RemoteError:  # an older hub
        return
    for msg_id, detail in details.items():
        unassigned[msg_id]["state"] = detail.get("state")


def row_of(record: Mapping[str, Any], engines: Mapping[int, str]) -> dict[str, Any]:
    """Return what commands show of a request, in the form of their JSON. `name_rows` adds the names of functions."""
    ids = {uuid: id for id, uuid in engines.items()}
    started, completed = record["started"], record["completed"]
    return {
        "msg_id": record["msg_id"],
        "state": state_of(record),
        "queue": record["queue"],
        "label": record["label"],
        "name": None,
        "engine_id": ids.get(record["engine_uuid"]),
        "engine_uuid": record["engine_uuid"],
        "client": record["client_uuid"],
        "submitted": record["submitted"],
        "started": started,
        "completed": completed,
        "received": record["received"],
        "seconds": (completed - started).total_seconds() if started and completed else None,
        "error": failure_of(record),
    }


def failure_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the ``ename`` and the ``evalue`` of a request that has failed; None for other requests."""
    if state_of(record) != "failed":
        return None
    content = record.get("result_content") or {}
    return {name: content.get(name) for name in ("ename", "evalue")}


def error_text(error: Mapping[str, Any]) -> str:
    """Return an error, as `failure_of` returns it, on one line."""
    return f"{one_line(error['ename'])}: {one_line(error['evalue'])}"


async def name_rows(client: Client, rows: Iterable[dict[str, Any]]) -> None:
    """Add the names of functions to the rows of requests without a label, as far as the hub knows them."""
    nameless = {row["msg_id"]: row for row in rows if row["label"] in (None, "") and row["name"] is None}
    try:
        details = await client.details(list(nameless), names=True)
    except RemoteError:  # an older hub
        return
    for msg_id, detail in details.items():
        nameless[msg_id]["name"] = detail["name"]


def what(row: Mapping[str, Any], room: int | None = None) -> str:
    """Return the label of a request, or the name of its function, and its error, on one line.

    Args:
        row: The request, as `row_of` returns it.
        room: The number of characters that are shown; None for any number. A long label then leaves at least two thirds
            of the room to the error.
    """
    label = one_line(row["label"]) or one_line(row["name"])
    if row["error"] is None:
        return label
    error = error_text(row["error"])
    if not label:
        return error
    if room is not None and len(label) + 2 + len(error) > room:
        most = max(room - len(error) - 2, room // 3)
        label = label if len(label) <= most else label[: max(1, most - 1)] + "…"
    return f"{label}  {error}"


def work_rules(record: Mapping[str, Any], attempts: int | None) -> dict[str, Any]:
    """Return the rules of a task that are not the defaults, the policies that have set some, and its attempts.

    Args:
        record: The record, with the keys ``metadata``, ``queue`` and ``engine_uuid``.
        attempts: The number of attempts that have begun, if the hub knows it. Records have it if there were several.
    """
    metadata = record["metadata"]
    notes = metadata.get(HUB_NOTES) if isinstance(metadata, dict) else None
    notes = notes if isinstance(notes, dict) else {}
    rules, policies = notes.get("rules"), notes.get("policies")
    if attempts is None and record["queue"] == "task":
        attempts = notes.get("attempts", 0 if record["engine_uuid"] is None else 1)
    return {
        "rules": rules if isinstance(rules, dict) else {},
        "policies": policies if isinstance(policies, list) else [],
        "attempts": attempts,
    }


def shortest(value: Any) -> Any:
    """Return the value of a rule with whole numbers as such: 3600 for 3600.0, also in a table of needs."""
    if isinstance(value, dict):
        return {name: shortest(one) for name, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def rule_lines(row: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Return the lines about rules, policies and attempts of a task. A line without a value has None."""
    rules = " ".join(f"{name}={one_line(shortest(value))}" for name, value in row["rules"].items())
    return [
        ("rules", rules or None),
        ("policies", ", ".join(map(str, row["policies"])) or None),
        ("attempts", None if row["attempts"] is None else str(row["attempts"])),
    ]
