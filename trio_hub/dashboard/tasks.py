"""The list of tasks of the pages, read from the task database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..errors import QueryError
from ..hub.labels import MAX_LABEL
from ..records import Query, parse_query
from ..runtime import RunningHub
from ..wire.plain import json_text
from .watching import Watch

__all__ = ["MAX_LIMIT", "find_tasks", "row_of", "state_of"]

MAX_LIMIT = 1000
"""The maximum number of rows in one answer."""
SLICE = 500
"""The number of records that are read from the database at a time."""
MAX_LOOKED_AT = 20_000
"""The maximum number of records that are searched for one answer. The next answer continues from there."""
KEYS = ("label", "queue", "submitted", "started", "completed", "engine_uuid", "client_uuid")
FULL_KEYS = (*KEYS, "header", "result_content")


async def find_tasks(
    hub: RunningHub, watch: Watch, query: Any = None, text: str = "", limit: int = 100, before: str | None = None
) -> dict[str, Any]:
    """Return matching tasks, the newest first.

    Args:
        hub, watch: The hub and its observer.
        query: A query in the hub's query language; None for all tasks.
        text: A text that the msg_id, the label, the client's session or the engine's uuid contains, in any case.
        limit: The maximum number of rows. An answer may have fewer rows, or none, if matching tasks are rare.
        before: The ``next`` of an earlier answer, to continue from there.

    Raises:
        QueryError: The query is invalid.
        StoreError: The database cannot be read.
    """
    conditions = parse_query({} if query is None else query).conditions
    store = hub.core.store
    history = await store.history()
    end = len(history) if before is None else _place_of(history, before)
    found: list[str] = []
    looked_at = 0
    wanted = text.casefold()
    while end > 0 and len(found) < limit and looked_at < MAX_LOOKED_AT:
        start = max(0, end - SLICE)
        msg_ids = history[start:end]
        if conditions or wanted:
            among = parse_query({"msg_id": {"$in": msg_ids}}).conditions
            records = {one["msg_id"]: one for one in await store.find(Query((*among, *conditions)), KEYS)}
            msg_ids = [one for one in msg_ids if one in records and _has(watch, records[one], wanted)]
        looked_at += end - start
        newest = msg_ids[::-1][: limit - len(found)]
        found += newest
        end = history.index(newest[-1], start, end) if len(newest) < len(msg_ids) else start
    full = await store.find(parse_query({"msg_id": {"$in": found}}), FULL_KEYS) if found else []
    by_id = {record["msg_id"]: record for record in full}
    return {
        "rows": [row_of(hub, watch, by_id[msg_id]) for msg_id in found if msg_id in by_id],
        "next": history[end] if end > 0 else None,
        "total": None if conditions or wanted else len(history),
    }


def _place_of(history: Sequence[str], msg_id: str) -> int:
    for place in range(len(history) - 1, -1, -1):
        if history[place] == msg_id:
            return place
    raise QueryError(f"before: {msg_id[:MAX_LABEL]!r} is not in the database (any more): start again without it")


def _has(watch: Watch, record: dict[str, Any], wanted: str) -> bool:
    if not wanted:
        return True
    texts = (record["msg_id"], _label_of(watch, record), record["engine_uuid"] or "", record["client_uuid"] or "")
    return any(wanted in text.casefold() for text in texts)


def row_of(hub: RunningHub, watch: Watch, record: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the list for a record with `FULL_KEYS`. Dates are Unix seconds."""
    msg_id, uuid = record["msg_id"], record["engine_uuid"]
    seen = None if uuid is None else watch.engines.seen.get(uuid)
    running = watch.bars.running.get(msg_id)
    started = seconds(record["started"])
    return {
        "msg_id": msg_id,
        "label": _label_of(watch, record),
        "kind": record["queue"] or "task",
        "state": state_of(hub, record),
        "submitted": seconds(record["submitted"]),
        "started": running[2] if started is None and running is not None else started,
        "completed": seconds(record["completed"]),
        "engine_id": None if seen is None else seen.id,
        "engine_uuid": uuid,
        "client": record["client_uuid"],
    }


def state_of(hub: RunningHub, record: dict[str, Any]) -> str:
    """Return ``waiting``, ``queued``, ``running``, ``ok``, ``error`` or ``aborted``."""
    if record["completed"] is not None:
        content = record["result_content"]
        status = content.get("status") if isinstance(content, dict) else None
        return status if status in ("ok", "aborted") else "error"
    task = hub.core.tasks.scheduler.tasks.get(record["msg_id"])
    if task is not None:
        return task.state.value
    return "waiting" if record["msg_id"] in hub.core.intake.uncommitted else "running"


def _label_of(watch: Watch, record: dict[str, Any]) -> str:
    label = record["label"]
    if label is not None and label != "":
        return label[:MAX_LABEL] if isinstance(label, str) else json_text(label)[:MAX_LABEL]
    number = watch.label_of(record["msg_id"])
    if number is not None:
        return watch.progress.names[number]
    header = record.get("header")
    msg_type = header.get("msg_type") if isinstance(header, dict) else None
    return msg_type.removesuffix("_request")[:MAX_LABEL] if isinstance(msg_type, str) else ""


def seconds(date: datetime | None) -> float | None:
    """Return a date as Unix seconds."""
    return None if date is None else date.timestamp()
