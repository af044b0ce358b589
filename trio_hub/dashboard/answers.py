"""What ``/api/…`` answers: one function an address, each of the hub and of what was noted of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from ..records import parse_query
from ..runtime import RunningHub
from ..wire.plain import json_bytes
from .engines import connectors, engine_row
from .failures import without_ansi
from .watching import Watch

__all__ = ["as_json", "engine_details", "engine_table", "failure_table", "refusal"]

RECENT = 200
"""Bars of one engine that are told."""
MAX_TRACEBACK = 20_000
"""Characters of a traceback: its end, where the error is."""


def as_json(value: Any, status: int = 200) -> Response:
    """Return a JSON answer. Records may hold any value: see `trio_hub.wire.plain` for how odd ones are written."""
    return Response(json_bytes(value), status, media_type="application/json")


def refusal(status: int, text: str) -> Response:
    """An answer that says why there is none."""
    return as_json({"error": text}, status)


def engine_table(hub: RunningHub, watch: Watch, now: float) -> dict[str, Any]:
    """All engines that there are."""
    running = _running_by_row(watch)
    rows = []
    for engine in connectors(hub):
        seen = watch.engines.meet(engine)
        rows.append(engine_row(hub, engine, seen, running.get(seen.row)))
    engines = hub.core.engines
    funnel = engines.registrations | {"first_heartbeat": engines.engines_registered}
    return {"now": now, "engines": sorted(rows, key=lambda row: row["id"]), "funnel": funnel}


def engine_details(hub: RunningHub, watch: Watch, uuid: str) -> dict[str, Any] | None:
    """One engine, also one that is gone, with its history; None if there was none of this uuid."""
    seen = watch.engines.seen.get(uuid)
    engine = next((engine for engine in connectors(hub) if engine.uuid == uuid), None)
    if engine is not None:
        seen = watch.engines.meet(engine)
    if seen is None or seen.id is None:
        return None
    row = engine_row(hub, engine, seen, _running_by_row(watch).get(seen.row))
    bars = watch.bars
    recent = []
    for number in range(bars.ended - 1, bars.ended - len(bars) - 1, -1):
        if bars.row_of(number) == seen.row:
            recent.append(bars.bar(number))
            if len(recent) == RECENT:
                break
    recent.reverse()
    recent += [bar for bar in bars.running_after(0, len(bars.running)) if bar.row == seen.row]
    history = [dict(zip(("t", "event", "detail"), event, strict=True)) for event in seen.history]
    labels = {bar.label: watch.progress.names[bar.label] for bar in recent}
    return row | {"history": history, "recent": recent[-RECENT:], "labels": labels}


def _running_by_row(watch: Watch) -> dict[int, dict[str, Any]]:
    """What each engine has had for longest, of what it runs."""
    running: dict[int, dict[str, Any]] = {}
    for msg_id, (_, row, start, _, label) in watch.bars.running.items():
        if row not in running:
            running[row] = {"msg_id": msg_id, "label": watch.progress.names[label], "since": start}
    return running


async def failure_table(hub: RunningHub, watch: Watch) -> dict[str, Any]:
    """Errors in groups, with the traceback of the newest of each. Raises `StoreError`."""
    groups = watch.failures.groups()
    query = parse_query({"msg_id": {"$in": [group.msg_id for group in groups]}})
    records = await hub.core.store.find(query, ["result_content"]) if groups else []
    tracebacks = {record["msg_id"]: _traceback(record["result_content"]) for record in records}
    return {"groups": [asdict(group) | {"traceback": tracebacks.get(group.msg_id, "")} for group in groups]}


def _traceback(content: Any) -> str:
    lines = content.get("traceback") if isinstance(content, dict) else None
    text = "\n".join(map(str, lines)) if isinstance(lines, list) else str(lines or "")
    return without_ansi(text)[-MAX_TRACEBACK:]
