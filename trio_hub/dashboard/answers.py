"""The answers of ``/api/…``: one function per path. Each takes the hub, and the `Watch` that has observed it."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..records import parse_query
from ..runtime import RunningHub
from ..wire.plain import json_bytes
from ..wire.tracebacks import traceback_text
from .engines import EngineSeen, connectors, engine_row
from .watching import Watch

__all__ = ["as_json", "engine_details", "engine_table", "failure_table", "refusal"]

RECENT = 200
"""The maximum number of bars in the details of an engine."""
MAX_TRACEBACK = 20_000
"""The maximum length of a traceback, in characters. Its end is kept, since the error is there."""


def as_json(value: Any, status: int = 200) -> Response:
    """Return a JSON answer. `trio_hub.wire.plain` says how values without a form in JSON are written."""
    return Response(json_bytes(value), status, media_type="application/json")


def refusal(status: int, text: str) -> Response:
    """Return an answer with an error."""
    return as_json({"error": text}, status)


def engine_table(hub: RunningHub, watch: Watch, now: float) -> dict[str, Any]:
    """Return all engines, and the numbers of registrations."""
    rows = []
    for engine in connectors(hub):
        seen = watch.engines.meet(engine)
        rows.append(engine_row(hub, engine, seen, _running(watch, seen), watch.usage.of(engine, now)))
    watch.usage.keep({row["uuid"] for row in rows})
    engines = hub.core.engines
    funnel = engines.registrations | {"first_heartbeat": engines.engines_registered}
    return {"now": now, "engines": sorted(rows, key=lambda row: row["id"]), "funnel": funnel}


def engine_details(hub: RunningHub, watch: Watch, uuid: str, now: float) -> dict[str, Any] | None:
    """Return an engine, registered or not any more, with its history; None if its uuid is unknown."""
    seen = watch.engines.seen.get(uuid)
    engine = next((engine for engine in connectors(hub) if engine.uuid == uuid), None)
    if engine is not None:
        seen = watch.engines.meet(engine)
    if seen is None or seen.id is None:
        return None
    usage = None if engine is None else watch.usage.of(engine, now)
    row = engine_row(hub, engine, seen, _running(watch, seen), usage)
    recent = watch.bars.of_row(seen.row, RECENT)
    history = [dict(zip(("t", "event", "detail"), event, strict=True)) for event in seen.history]
    labels = {bar.label: watch.progress.names[bar.label] for bar in recent}
    return row | {"history": history, "recent": recent, "labels": labels}


def _running(watch: Watch, seen: EngineSeen) -> dict[str, Any] | None:
    """Return the request that an engine has had for the longest time."""
    msg_id = watch.bars.first_running_in(seen.row)
    if msg_id is None:
        return None
    _, _, start, _, label = watch.bars.running[msg_id]
    return {"msg_id": msg_id, "label": watch.progress.names[label], "since": start}


async def failure_table(hub: RunningHub, watch: Watch, now: float) -> dict[str, Any]:
    """Return the errors in groups, with the traceback of the latest error of each group. Raises `StoreError`."""
    groups = watch.failures.groups()
    query = parse_query({"msg_id": {"$in": [group.msg_id for group in groups]}})
    records = await hub.core.store.find(query, ["result_content"]) if groups else []
    tracebacks = {record["msg_id"]: _traceback(record["result_content"]) for record in records}
    names = watch.progress.names
    return {"groups": [group.as_dict(now, names) | {"traceback": tracebacks.get(group.msg_id, "")} for group in groups]}


def _traceback(content: Any) -> str:
    return traceback_text(content.get("traceback") if isinstance(content, dict) else None)[-MAX_TRACEBACK:]
