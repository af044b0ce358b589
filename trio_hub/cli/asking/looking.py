"""``trio-hub status`` and ``trio-hub engines``."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ..encryption import in_words
from .options import Where, asks_hub, date, example
from .output import STATE_STYLES, clock, columns, console, count, one_line, print_json

if TYPE_CHECKING:
    from ...client import Client
    from .records import Load

__all__ = ["engines", "status"]

LATEST = 100
"""The number of finished requests that `status` counts by state."""


@click.command("status", epilog=example("trio-hub status --profile-dir my-cluster", "trio-hub status --json"))
@asks_hub
def status(where: Where, as_json: bool) -> None:
    """Show the state of a hub on one screen.

    Unknown values are shown as "-" (null in JSON).
    """
    from .session import ask, file_of

    async def question(client: Client) -> dict[str, Any]:
        return await look(client, file_of(where))

    seen = ask(where, question)
    if as_json:
        print_json(seen)
    else:
        show_status(seen)


async def look(client: Client, file: str) -> dict[str, Any]:
    """Return what `status` shows, in the form of its JSON."""
    from ...errors import RemoteError
    from .records import ROW_KEYS, find_latest, load_of, state_of

    load = await load_of(client)
    latest: dict[str, Any] | None = None
    trouble = None
    try:
        found = await find_latest(client, {}, ROW_KEYS, enough=LATEST, by="received")
    except RemoteError as error:
        trouble = str(error)
    else:
        found = found[-LATEST:]
        states = Counter(map(state_of, found))
        latest = {"count": len(found), "since": found[0]["received"] if found else None}
        latest |= {state: states[state] for state in ("ok", "failed", "aborted")}
    return {
        "hub": {
            "kind": client.kind,
            "address": client.address,
            "connections": client.connections,
            "connection_file": file,
        },
        "engines": {"count": len(load.engines), "busy": load.busy, "idle": len(load.engines) - load.busy},
        "queues": {"unassigned": load.unassigned, "tasks": load.tasks, "direct": load.direct},
        "completed": load.completed,
        "latest": latest,
        "database": {"answers": trouble is None, "error": trouble},
    }


def show_status(seen: dict[str, Any]) -> None:
    hub, engines, queues, latest = seen["hub"], seen["engines"], seen["queues"], seen["latest"]
    if latest is None:
        told = "-"
    elif not latest["count"]:
        told = "none"
    else:
        since: datetime = latest["since"]
        told = f"{latest['ok']} ok, {latest['failed']} failed, {latest['aborted']} aborted"
        told += f" (the last {latest['count']}, since {clock(since)})"
    database = seen["database"]
    rows = [
        ("hub", f"{hub['kind']} at {hub['address']}, {in_words(hub['connections'])}"),
        ("file", hub["connection_file"]),
        ("engines", f"{count(engines['count'])}: {count(engines['busy'])} busy, {count(engines['idle'])} idle"),
        ("unassigned", f"{count(queues['unassigned'])} queued, waiting or paused"),
        ("at engines", f"{count(queues['tasks'])} load-balanced, {count(queues['direct'])} direct"),
        ("completed", f"{count(seen['completed'])} by these engines"),
        ("finished", told),
        ("database", "answers" if database["answers"] else f"- ({database['error']})"),
    ]
    out = console()
    for name, value in rows:
        out.print(f"{name:<10}  {one_line(value)}")


@click.command("engines", epilog=example("trio-hub engines", "trio-hub engines --json"))
@asks_hub
def engines(where: Where, as_json: bool) -> None:
    """List the engines: their load, what they offer, and whether they are drained."""
    from .records import load_of
    from .session import ask

    async def question(client: Client) -> list[dict[str, Any]]:
        return engine_rows(await load_of(client), client.engines, await facts_of(client))

    rows = ask(where, question)
    if as_json:
        print_json({"engines": rows})
    elif not rows:
        console(stderr=True).print("no engines")
    else:
        show_engines(rows)


async def facts_of(client: Client) -> dict[str, dict[str, Any]]:
    """Return what the hub knows of the engines besides their load, by id; an ipcontroller knows nothing."""
    from ...errors import RemoteError

    if client.kind != "trio-hub":
        return {}
    try:
        found: dict[str, dict[str, Any]] = (await client.query("engines_request", {}))["engines"]
    except RemoteError:  # a hub of an older version
        return {}
    return found


def engine_rows(load: Load, uuids: dict[int, str], facts: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per engine, in the form of the JSON."""
    from .records import is_busy

    rows = []
    for id, engine in load.engines.items():
        known = facts.get(str(id), {})
        drain = known.get("drain")
        row = {"id": id, "uuid": uuids.get(id), "state": "busy" if is_busy(engine) else "idle", **engine}
        row["block"] = known.get("block") or None
        row["offers"] = known.get("offers", {})
        row["drain"] = None if drain is None else drain | {"deadline": date(drain["deadline"])}
        rows.append(row | {"leaves": date(known.get("leaves"))})
    return rows


def show_engines(rows: list[dict[str, Any]]) -> None:
    from rich.text import Text

    from ...schedulers.explaining import said

    # The texts of all engines, by column. A column in which every engine has "-" is left out.
    further = {
        "DRAINED": [_drained(row["drain"]) for row in rows],
        "LEAVES": [clock(row["leaves"]) for row in rows],
        "BLOCK": [row["block"] or "-" for row in rows],
        "OFFERS": [said(sorted(row["offers"].items())) or "-" for row in rows],
    }
    further = {title: texts for title, texts in further.items() if set(texts) != {"-"}}
    cells = [
        [
            str(row["id"]),
            Text(row["state"], STATE_STYLES[row["state"]]),
            *(count(row[name]) for name in ("tasks", "queue", "completed")),
            row["uuid"] or "-",
            *texts,
        ]
        for row, *texts in zip(rows, *further.values(), strict=True)
    ]
    titles = ["ID", "STATE", "TASKS", "DIRECT", "COMPLETED", "UUID", *further]
    out = console()
    for line in columns(titles, cells, right=("ID", "TASKS", "DIRECT", "COMPLETED")):
        out.print(line)


def _drained(drain: dict[str, Any] | None) -> str:
    """Return who has drained an engine, until when, and what follows; "-" if the engine is not drained."""
    if drain is None:
        return "-"
    until = "" if drain["deadline"] is None else f" until {clock(drain['deadline'])}"
    return f"by {drain['by']}{until}" + (f", then {drain['then']}" if drain["then"] else "")
