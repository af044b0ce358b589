"""The list of tasks of the pages, read from the task database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..errors import QueryError
from ..hub.labels import MAX_LABEL
from ..hub.waiting import unfinished_state
from ..records import Query, parse_query
from ..runtime import RunningHub
from ..wire.plain import json_text, printable
from .watching import Watch

__all__ = ["MAX_LIMIT", "Search", "find_tasks", "row_of", "state_of"]

MAX_LIMIT = 1000
"""The maximum number of rows in one answer."""
SLICE = 500
"""The number of records that are read from the database at a time."""
MAX_LOOKED_AT = 20_000
"""The maximum number of records that are searched for one answer. The next answer continues from there."""
MAX_ERROR = 200
"""The maximum length of the type and of the text of an error in a row, in characters."""
KEYS = ("label", "queue", "submitted", "started", "completed", "engine_uuid", "client_uuid")
FULL_KEYS = (*KEYS, "header", "result_content")
UNFINISHED = ("queued", "waiting", "paused", "running")
"""The states of unfinished tasks."""


async def find_tasks(search: Search, limit: int = 100, before: str | None = None) -> dict[str, Any]:
    """Return matching tasks, the newest first.

    Args:
        search: The search for the tasks.
        limit: The maximum number of rows. An answer may have fewer rows, or none, if matching tasks are rare.
        before: The ``next`` of an earlier answer, to continue from there.

    Raises:
        QueryError: The query is invalid.
        StoreError: The database cannot be read.
    """
    store = search.hub.core.store
    found: list[str] = []
    looked_at = 0
    end, more = before, True
    while more and len(found) < limit and looked_at < MAX_LOOKED_AT:
        try:
            part = await store.recent(SLICE + 1, end)
        except KeyError:
            if looked_at == 0:
                raise QueryError(_gone(before)) from None
            break  # that record was purged meanwhile: what was found so far is the answer
        part, more = part[:SLICE], len(part) > SLICE
        msg_ids = await search.among(part)
        looked_at += len(part)
        newest = msg_ids[: limit - len(found)]
        found += newest
        if len(newest) < len(msg_ids):
            end, more = newest[-1], True
        elif part:
            end = part[-1]
    full = await store.find(parse_query({"msg_id": {"$in": found}}), FULL_KEYS) if found else []
    by_id = {record["msg_id"]: record for record in full}
    return {
        "rows": [row_of(search.hub, search.watch, by_id[msg_id]) for msg_id in found if msg_id in by_id],
        "next": end if more else None,
        "total": None if search.is_limited else await store.count(),
    }


class Search:
    """A search for tasks by a query, a text and a state. Raises `QueryError` if the query or the state is invalid.

    Args:
        hub, watch: The hub and its observer.
        query: A query in the hub's query language; None for all tasks.
        text: A text that the msg_id, the label, the client's session or the engine's uuid contains, in any case.
        state: One of `UNFINISHED`; empty for tasks in any state. Only the hub knows these states: a query of the
            records cannot tell them apart.
    """

    def __init__(self, hub: RunningHub, watch: Watch, query: Any = None, text: str = "", state: str = "") -> None:
        if state and state not in UNFINISHED:
            raise QueryError(f"state: expected {', '.join(UNFINISHED)}, not {state[:60]!r}")
        self.hub = hub
        self.watch = watch
        self._conditions = parse_query({} if query is None else query).conditions
        if state:
            self._conditions = (*self._conditions, *parse_query({"completed": None}).conditions)
        self._wanted = text.casefold()
        self._state = state

    @property
    def is_limited(self) -> bool:
        """Whether there are tasks that may not match."""
        return bool(self._conditions or self._wanted)

    async def among(self, msg_ids: Sequence[str], only: dict[str, Any] | None = None) -> list[str]:
        """Return the msg_ids of matching tasks, in the given order. Raises `StoreError`.

        Args:
            msg_ids: The msg_ids of the tasks to search.
            only: A further query, which the tasks must match too.
        """
        if not (self.is_limited or only):
            return list(msg_ids)
        among = parse_query({"msg_id": {"$in": list(msg_ids)}} | (only or {})).conditions
        found = await self.hub.core.store.find(Query((*among, *self._conditions)), KEYS)
        records = {record["msg_id"]: record for record in found}
        return [one for one in msg_ids if one in records and self._has(records[one])]

    def _has(self, record: dict[str, Any]) -> bool:
        """Return whether a record that matches the query also has the text and the state."""
        if self._state and state_of(self.hub, record) != self._state:
            return False
        if not self._wanted:
            return True
        texts = (record["msg_id"], _label_of(self.watch, record), record["engine_uuid"], record["client_uuid"])
        return any(self._wanted in (text or "").casefold() for text in texts)


def _gone(msg_id: str | None) -> str:
    return f"before: {(msg_id or '')[:MAX_LABEL]!r} is not in the database (any more): start again without it"


def row_of(hub: RunningHub, watch: Watch, record: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the list for a record with `FULL_KEYS`. Dates are Unix seconds."""
    msg_id, uuid = record["msg_id"], record["engine_uuid"]
    seen = None if uuid is None else watch.engines.seen.get(uuid)
    running = watch.bars.running.get(msg_id)
    started = seconds(record["started"])
    state = state_of(hub, record)
    return {
        "msg_id": msg_id,
        "label": _label_of(watch, record),
        "kind": record["queue"] or "task",
        "state": state,
        "submitted": seconds(record["submitted"]),
        "started": running[2] if started is None and running is not None else started,
        "completed": seconds(record["completed"]),
        "engine_id": None if seen is None else seen.id,
        "engine_uuid": uuid,
        "client": record["client_uuid"],
        "error": _error_in(record["result_content"]) if state == "failed" else None,
    }


def _error_in(content: Any) -> dict[str, str]:
    """Return the type of an error, and the first line of its text, as in `trio_hub.hub.events.TaskFinished`."""
    content = content if isinstance(content, dict) else {}
    ename, evalue = (printable(str(content.get(key) or "")) for key in ("ename", "evalue"))
    return {"ename": ename[:MAX_ERROR], "evalue": evalue.partition("\n")[0][:MAX_ERROR]}


def state_of(hub: RunningHub, record: dict[str, Any]) -> str:
    """Return ``queued``, ``waiting``, ``paused``, ``running``, ``ok``, ``failed`` or ``aborted``."""
    if record["completed"] is not None:
        content = record["result_content"]
        status = content.get("status") if isinstance(content, dict) else None
        return status if status in ("ok", "aborted") else "failed"
    return unfinished_state(hub.core, record["msg_id"]) or "running"


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
