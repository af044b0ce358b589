"""``trio-hub tasks`` and ``trio-hub task``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from . import options
from .options import Where, asks_hub, example
from .output import STATE_STYLES, clean, clock, columns, console, duration, one_line, print_json
from .records import STATES, UNSENT, rule_lines, work_rules

if TYPE_CHECKING:
    from ...client import Client

__all__ = ["task", "tasks", "why_waiting"]

UNFINISHED = UNSENT | {"running"}
NARROW = 120
"""A terminal with at least this many columns has room for labels and errors in the table of requests."""
INDENT = 4
"""The columns before the label and the error of a request that are on a line of their own."""


@click.command(
    "tasks",
    epilog=example(
        "trio-hub tasks --state failed --since 1h",
        'trio-hub tasks \'{"label": {"$glob": "night-*"}}\' --limit 20 --json',
    ),
)
@click.argument("query", type=options.query, required=False)
@click.option(
    "--state", "states", type=click.Choice(STATES), multiple=True, help="Only requests in this state; may be repeated."
)
@click.option("--engine", metavar="ID", help="Only requests that this engine has or had: its id or uuid.")
@click.option("--label", metavar="LABEL", help="Only requests with this label; * and ? match any characters.")
@click.option("--limit", type=click.IntRange(1), default=50, metavar="N", help="Only the latest N.  [default: 50]")
@click.option(
    "--since", type=options.moment, metavar="WHEN", help="Only requests submitted since a date, or since e.g. 2h ago."
)
@asks_hub
def tasks(
    where: Where,
    as_json: bool,
    query: dict[str, Any] | None,
    states: tuple[str, ...],
    engine: str | None,
    label: str | None,
    limit: int,
    since: datetime | None,
) -> None:
    """List requests, the latest last: load-balanced tasks, direct calls and broadcasts.

    A request is queued (it waits for an engine), waiting (for the requests on which it depends), paused (it has
    failed, and is repeated after a pause), running (an engine has it), ok, failed or aborted. QUERY is a query in the
    hub's query language, as JSON.
    """
    from .records import ROW_KEYS, find_latest, name_rows, row_of, state_of, tell_states
    from .session import ask

    asked = dict(query or {})
    for key, option in (("label", label), ("engine_uuid", engine), ("submitted", since)):
        if key in asked and option is not None:
            name = {"engine_uuid": "engine", "submitted": "since"}.get(key, key)
            raise click.UsageError(f"QUERY already has a condition on {key}: leave out --{name}")
    wanted = set(states)

    async def question(client: Client) -> list[dict[str, Any]]:
        condition = dict(asked)
        if engine is not None:
            condition["engine_uuid"] = {"$eq": uuid_of(client, engine)}
        if label is not None:
            condition["label"] = {"$glob" if set(label) & set("*?[") else "$eq": label}
        for key, value in state_condition(wanted, paths=client.kind == "trio-hub").items():
            condition.setdefault(key, value)

        async def choose(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
            if not wanted:
                return records
            if wanted & UNFINISHED:
                await tell_states(client, records)
            return [record for record in records if state_of(record) in wanted]

        if "submitted" in asked:
            found = await choose(await client.db_query(condition, ROW_KEYS))
        else:
            found = await find_latest(client, condition, ROW_KEYS, enough=limit, since=since, choose=choose)
        found = found[-limit:]
        if not wanted:
            await tell_states(client, found)
        rows = [row_of(record, client.engines) for record in found]
        await name_rows(client, rows)
        return rows

    rows = ask(where, question)
    if as_json:
        print_json({"tasks": rows})
    elif not rows:
        console(stderr=True).print("no matching requests")
    else:
        show_tasks(rows)


def uuid_of(client: Client, engine: str) -> str:
    """Return the uuid of a registered engine by its id; any other text unchanged, as the uuid of some engine.

    Raises:
        CommandFailed: No registered engine has this id.
    """
    from .session import CommandFailed

    if not engine.isdecimal():
        return engine
    try:
        return client.engines[int(engine)]
    except KeyError:
        there = ", ".join(map(str, sorted(client.engines))) or "none"
        message = f"no engine {engine} is registered (registered: {there}); for an earlier engine, give its uuid"
        raise CommandFailed(message) from None


def state_condition(states: set[str], *, paths: bool) -> dict[str, Any]:
    """Return a condition for the hub on these states. It may also match requests in other states.

    With `paths`, which only a trio-hub supports, the condition includes the status in the result of a record.
    """
    if not states:
        return {}
    condition: dict[str, Any] = {}
    if states <= UNFINISHED:
        condition["completed"] = {"$eq": None}
        if states <= UNSENT:
            condition["engine_uuid"] = {"$eq": None}
    elif not states & UNFINISHED:
        condition["completed"] = {"$ne": None}
        if paths:
            unwanted = sorted({"ok", "aborted"} - states)
            status = {"$nin": unwanted} if "failed" in states else {"$in": sorted(states)}
            condition["result_content.status"] = status
    return condition


def show_tasks(rows: list[dict[str, Any]]) -> None:
    """Print a table of requests. A terminal that is too narrow gets the label and the error on a line of their own."""
    from rich.text import Text

    from .records import what

    out = console()
    width = out.size.width if out.is_terminal else None
    titles = ["MSG_ID", "STATE", "QUEUE", "ENGINE", "SUBMITTED", "TOOK"]
    cells = [
        [
            row["msg_id"],
            Text(row["state"], STATE_STYLES[row["state"]]),
            row["queue"] or "-",
            "-" if row["engine_id"] is None else str(row["engine_id"]),
            clock(row["submitted"]),
            duration(row["seconds"]),
        ]
        for row in rows
    ]
    is_narrow = width is not None and width < NARROW
    if is_narrow:
        titles.remove("QUEUE")
        for cell in cells:
            del cell[2]
    lines = columns(titles, cells, right=("ENGINE", "TOOK"))
    start = max(line.cell_len for line in lines) + 2
    for line, row in zip(lines, [None, *rows], strict=True):
        room = None if width is None else max(20, width - (INDENT if is_narrow else start))
        text = Text("LABEL", "bold") if row is None else Text(what(row, room))
        if room is not None:
            text.truncate(room, overflow="ellipsis")
        if is_narrow:
            out.print(line)
            if text.plain:
                out.print(Text.assemble(" " * INDENT, text))
        else:
            line.append(" " * (start - line.cell_len))
            line.append_text(text)
            line.rstrip()
            out.print(line)


@click.command("task", epilog=example("trio-hub task 2f6c1d9e-0b7a_4711_12"))
@click.argument("msg_id")
@asks_hub
def task(where: Where, as_json: bool, msg_id: str) -> None:
    """Show all details of a request: why it waits, its times, its engine, its output, and its error with the traceback.

    Only a trio-hub says why a request waits; an ipcontroller does not.
    """
    from .records import name_rows, row_of, tell_states
    from .session import CommandFailed, ask

    async def question(client: Client) -> dict[str, Any]:
        found = await client.db_query({"msg_id": {"$eq": msg_id}})
        if not found:
            raise CommandFailed(
                f"the hub has no record of {msg_id}: it is unknown, or its record was dropped or purged"
            )
        (record,) = found
        await tell_states(client, found)
        row = row_of(record, client.engines)
        content = record["result_content"] or {}
        if row["error"] is not None:
            row["error"]["traceback"] = content.get("traceback") or []
        row["msg_type"] = (record["header"] or {}).get("msg_type")
        row |= {key: record[key] for key in ("resubmitted", "metadata", "stdout", "stderr")}
        row |= {key: record[key] for key in ("execute_input", "execute_result")}
        await name_rows(client, [row])
        detail = await detail_of(client, row)
        row["why_waiting"] = detail.get("why")
        row |= work_rules(record, detail.get("attempts"))
        return row

    row = ask(where, question)
    if as_json:
        print_json(row)
    else:
        show_task(row)


async def why_waiting(client: Client, row: dict[str, Any]) -> str | None:
    """Return why a request has not started; None if it has finished, or if the hub does not know."""
    why: str | None = (await detail_of(client, row)).get("why")
    return why


async def detail_of(client: Client, row: dict[str, Any]) -> dict[str, Any]:
    """Return what only the hub knows of an unfinished request; an empty dict if it has finished, or is not known."""
    from ...errors import RemoteError

    if row["state"] not in UNFINISHED:
        return {}
    try:
        return (await client.details([row["msg_id"]])).get(row["msg_id"], {})
    except RemoteError:  # an older hub
        return {}


def show_task(row: dict[str, Any]) -> None:
    from rich.text import Text

    out = console()
    engine = "-"
    if row["engine_uuid"] is not None:
        engine = row["engine_uuid"] if row["engine_id"] is None else f"{row['engine_id']} ({row['engine_uuid']})"
    lines: list[tuple[str, str]] = [
        ("msg_id", row["msg_id"]),
        ("queue", f"{row['queue'] or '-'}, {row['msg_type'] or '-'}"),
        ("label", one_line(row["label"]) or "-"),
        ("function", one_line(row["name"]) or "-"),
        ("client", row["client"] or "-"),
        ("engine", engine),
        ("submitted", moment(row["submitted"])),
        ("started", moment(row["started"])),
        ("completed", moment(row["completed"])),
        ("took", duration(row["seconds"])),
    ]
    lines += [(name, value) for name, value in rule_lines(row) if value is not None]
    if row["resubmitted"]:
        lines.append(("new msg_id", row["resubmitted"]))
    out.print(Text.assemble(f"{'state':<10}  ", (row["state"], STATE_STYLES[row["state"]])))
    if row["why_waiting"] is not None:
        out.print(f"{'waits':<10}  {one_line(row['why_waiting'])}")
    for name, value in lines:
        out.print(f"{name:<10}  {one_line(value)}")
    result = ((row["execute_result"] or {}).get("data") or {}).get("text/plain")
    for title, text in (
        ("input", row["execute_input"]),
        ("stdout", row["stdout"]),
        ("stderr", row["stderr"]),
        ("displayed", result),
        ("error", error_text(row["error"])),
    ):
        if text:
            out.print()
            out.print(Text(f"{title}:", style="bold"))
            out.print(Text.from_ansi(clean(str(text))))


def moment(date: datetime | None) -> str:
    return "-" if date is None else date.astimezone().isoformat(" ", "milliseconds")


def error_text(error: dict[str, Any] | None) -> str:
    """Return the text of an error: the traceback as the engine printed it, and the error's name if it is not in it."""
    if error is None:
        return ""
    traceback = error["traceback"]
    told = "\n".join(map(str, traceback)) if isinstance(traceback, list) else str(traceback)
    short = f"{error['ename']}: {error['evalue']}"
    return told if str(error["evalue"]) in told and told else f"{told}\n{short}".lstrip("\n")
