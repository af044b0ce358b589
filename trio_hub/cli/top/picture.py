"""The picture that `top` draws of a snapshot. It fits the lines and columns of the screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from ..asking.output import STATE_STYLES, clock, count, duration, one_line
from ..asking.pools import STYLES, in_range
from ..asking.records import what
from .snapshot import EngineRow, Snapshot

__all__ = ["SORTS", "View", "draw"]

SORTS: dict[str, Callable[[EngineRow], Any]] = {
    "id": lambda engine: engine.id,
    "load": lambda engine: (-engine.tasks - engine.direct, engine.id),
    "rate": lambda engine: (-(engine.rate or 0.0), engine.id),
    "completed": lambda engine: (-engine.completed, engine.id),
}
"""The orders of engines. The key ``s`` goes through them."""

HEADER = 4
"""The number of lines above the engines, without the lines of pools."""
MAX_POOLS = 4
"""The maximum number of pools that have a line of their own."""
AROUND = 4
"""The number of other lines: two lines of titles, an empty line, and the line of keys."""
LEAST_BELOW = 5
"""The number of lines for requests that engines leave free."""
MAX_LEVELS = 4
"""The maximum number of priorities that the header names. Of more, it names the highest ones and the lowest one."""
SHORT_ID = 16
"""The columns for a shortened msg_id. Its end is shown, since msg_ids differ at the end."""


@dataclass
class View:
    """What the user has chosen with keys."""

    sort: str = "id"
    first: int = 0
    """The index of the first engine on the screen."""
    paused: bool = False

    def scroll(self, lines: int, snapshot: Snapshot, height: int) -> None:
        last = max(0, len(snapshot.engines) - engine_lines(snapshot, height))
        self.first = min(max(0, self.first + lines), last)

    def next_sort(self) -> None:
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]
        self.first = 0


@dataclass(frozen=True)
class Column:
    """A column of a table, for screens of certain widths. A width of 0 means the rest of the line."""

    title: str
    width: int
    right: bool = False
    from_width: int = 0
    below_width: int = 1_000_000


ENGINES = (
    Column("ID", 5, right=True),
    Column("STATE", 5, below_width=140),
    Column("STATE", 7, from_width=140),
    Column("TASKS", 5, right=True),
    Column("DIRECT", 6, right=True),
    Column("COMPLETED", 11, right=True),
    Column("RATE/s", 8, right=True),
    Column("FOR", 7, right=True),
    Column("RUNNING", SHORT_ID, below_width=140),
    Column("RUNNING", 48, from_width=140),
    Column("UUID", 36, from_width=140),
    Column("LABEL", 0),
)
REQUESTS = (
    Column("RECEIVED", 8),
    Column("STATE", 7),
    Column("ENGINE", 6, right=True),
    Column("TOOK", 6, right=True),
    Column("MSG_ID", SHORT_ID, below_width=140),
    Column("MSG_ID", 48, from_width=140),
    Column("LABEL", 0),
)


def engine_lines(snapshot: Snapshot, height: int) -> int:
    """Return the number of engines that fit on a screen."""
    room = height - HEADER - len(pool_lines(snapshot)) - AROUND - LEAST_BELOW
    return max(1, min(len(snapshot.engines), room))


def draw(snapshot: Snapshot, view: View, width: int, height: int) -> list[Text]:
    """Return the lines of a picture for a screen of `width` columns and `height` lines."""
    lines = [*header(snapshot, view), *pool_lines(snapshot)]
    engines = sorted(snapshot.engines, key=SORTS[view.sort])
    shown = engine_lines(snapshot, height)
    first = min(view.first, max(0, len(engines) - shown))
    lines += table(ENGINES, [engine_cells(engine, snapshot) for engine in engines[first : first + shown]], width)
    lines.append(Text())
    if snapshot.trouble is not None:
        lines.append(Text(f"no records: {one_line(snapshot.trouble)}", style="yellow"))
    else:
        room = max(0, height - len(lines) - 2)
        failures = snapshot.failures[: max(0, (room - 1) // 2)]
        if failures:
            lines += table(REQUESTS, [request_cells(row, width) for row in failures], width, LABEL="LAST FAILURES")
            room -= 1 + len(failures)
        latest = [request_cells(row, width) for row in snapshot.latest[:room]]
        lines += table(REQUESTS, latest, width, LABEL="LAST FINISHED")
    lines = lines[: height - 1]
    lines += [Text()] * (height - 1 - len(lines))
    lines.append(keys(view, first, shown, len(engines)))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def header(snapshot: Snapshot, view: View) -> list[Text]:
    def rate(number: float | None) -> str:
        return "-" if number is None else f"{number:,.1f}/s"

    def told(*pairs: tuple[str, str]) -> Text:
        parts: list[Text | str] = []
        for name, value in pairs:
            parts += [Text(f"{name} ", style="dim"), Text(value, style="bold"), "  "]
        return Text.assemble(*parts[:-1])

    engines = len(snapshot.engines)
    number = "1 engine" if engines == 1 else f"{count(engines)} engines"
    title = Text.assemble(
        ("trio-hub top", "bold"),
        f"  {snapshot.address}  {number}, {count(snapshot.busy)} busy  {clock(snapshot.at)}",
        ("  paused" if view.paused else "", "bold yellow"),
    )
    about = "about " if snapshot.sampled else ""
    return [
        title,
        told(
            ("unassigned", count(snapshot.unassigned)),
            ("at engines", count(snapshot.tasks)),
            ("direct", count(snapshot.direct)),
            ("completed", count(snapshot.completed)),
        ),
        told(
            ("submitted", rate(snapshot.submitted)),
            ("finished", rate(snapshot.finished)),
            ("failed", about + rate(snapshot.failed) if snapshot.failed is not None else "-"),
        ),
        told(*controlled(snapshot)),
    ]


def controlled(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return what is controlled at this moment, as names and values; an empty list if nothing is."""
    found = []
    if snapshot.paused:
        found.append(("paused", count(snapshot.paused)))
    if snapshot.cancelling:
        found.append(("cancelling", count(snapshot.cancelling)))
    drained = sum(engine.drained for engine in snapshot.engines)
    if drained:
        found.append(("drained", "1 engine" if drained == 1 else f"{count(drained)} engines"))
    if any(snapshot.priorities):  # a queue whose tasks all have priority 0 needs no words
        levels = [f"{priority}: {count(number)}" for priority, number in snapshot.priorities.items()]
        more = f" … {levels[-1]}" if len(levels) > MAX_LEVELS else ""
        found.append(("queued by priority", ", ".join(levels[: MAX_LEVELS - bool(more)]) + more))
    return found


def pool_lines(snapshot: Snapshot) -> list[Text]:
    """Return a line for each pool whose size follows the tasks. The end of the line, which may be cut off, says why."""
    pools = snapshot.pools[: MAX_POOLS - (len(snapshot.pools) > MAX_POOLS)]
    lines = []
    for pool in pools:
        numbers = [("wanted", pool.wanted), ("asked for", pool.asked), ("coming", pool.coming)]
        numbers += [("there", pool.there), ("idle", pool.idle)]
        told = "  ".join(f"{name} {count(number)}" for name, number in numbers if number or name in ("wanted", "there"))
        size = in_range(pool.min, pool.max)
        state = Text(pool.state, STYLES[pool.state])
        lines.append(
            Text.assemble(("pool ", "dim"), (pool.name, "bold"), f" {size}  ", state, f"  {told}  {one_line(pool.why)}")
        )
    if more := len(snapshot.pools) - len(pools):
        lines.append(Text(f"and {count(more)} more pools: see trio-hub pools", "dim"))
    return lines


def rest_of(columns: Sequence[Column], width: int) -> int:
    """Return the columns of the screen that are left for the column whose width is 0."""
    shown = (column for column in columns if column.from_width <= width < column.below_width)
    return width - sum(column.width + 1 for column in shown)


def table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int, **titled: str) -> list[Text]:
    """Return the lines of a table: the titles and the rows.

    Args:
        columns: The columns of the table. Those that suit the width of the screen are shown.
        rows: The rows, each with one cell per column.
        width: The columns of the screen.
        titled: Titles that replace those of columns, by the title of the column.
    """
    chosen = [place for place, column in enumerate(columns) if column.from_width <= width < column.below_width]
    left = rest_of(columns, width)
    titles = [Text(titled.get(column.title, column.title), style="bold") for column in columns]
    lines = []
    for row in [titles, *rows]:
        line = Text()
        for place in chosen:
            column, cell = columns[place], row[place].copy()
            room = column.width or max(1, left)
            cell.truncate(room, overflow="ellipsis")
            padding = " " * (room - cell.cell_len)
            line.append_text(Text.assemble(padding, cell) if column.right else Text.assemble(cell, padding))
            line.append(" ")
        line.rstrip()
        lines.append(line)
    return lines


def engine_cells(engine: EngineRow, snapshot: Snapshot) -> list[Text]:
    msg_id = "-" if engine.running is None else one_line(engine.running)
    return [
        Text(str(engine.id)),
        Text("drain", style="yellow") if engine.drained else Text(engine.state, style=STATE_STYLES[engine.state]),
        Text("drained", style="yellow") if engine.drained else Text(engine.state, style=STATE_STYLES[engine.state]),
        Text(count(engine.tasks)),
        Text(count(engine.direct)),
        Text(count(engine.completed)),
        Text("-" if engine.rate is None else f"{engine.rate:,.1f}"),
        Text(running_for(engine, snapshot)),
        Text(short(msg_id)),
        Text(msg_id),
        Text(engine.uuid),
        Text(one_line(engine.label) or one_line(engine.name)),
    ]


def running_for(engine: EngineRow, snapshot: Snapshot) -> str:
    """Return how long an engine's request has been running; "-" if unknown.

    ``<2.00s`` means less than this. ``>12s`` means more than this, since the request was running at the first look.
    """
    if engine.since is None:
        return "-"
    seconds = (snapshot.at - engine.since).total_seconds()
    if seconds <= 0:
        return "-" if engine.earlier or snapshot.seconds is None else f"<{duration(snapshot.seconds)}"
    return ">" * engine.earlier + duration(seconds)


def request_cells(row: Mapping[str, Any], width: int) -> list[Text]:
    msg_id = one_line(row["msg_id"])
    return [
        Text(row["received"].astimezone().strftime("%H:%M:%S")),
        Text(row["state"], style=STATE_STYLES[row["state"]]),
        Text("-" if row["engine_id"] is None else str(row["engine_id"])),
        Text(duration(row["seconds"])),
        Text(short(msg_id)),
        Text(msg_id),
        Text(what(row, rest_of(REQUESTS, width))),
    ]


def short(msg_id: str) -> str:
    return msg_id if len(msg_id) <= SHORT_ID else "…" + msg_id[1 - SHORT_ID :]


def keys(view: View, first: int, shown: int, engines: int) -> Text:
    place = f"engines {first + 1}-{first + shown} of {count(engines)}, by {view.sort}" if engines else "no engines"
    return Text(f"q quit  p {'continue' if view.paused else 'pause'}  s sort  ↑↓ PgUp PgDn scroll   {place}", "reverse")
