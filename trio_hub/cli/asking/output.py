"""Print answers as JSON, or as text in columns, with colours on a terminal."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ...wire.plain import described, json_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

__all__ = [
    "STATE_STYLES",
    "clean",
    "clock",
    "columns",
    "console",
    "count",
    "duration",
    "one_line",
    "print_json",
    "progress",
]

STATE_STYLES = {
    "queued": "dim",
    "waiting": "dim",
    "paused": "dim",
    "running": "cyan",
    "ok": "green",
    "failed": "bold red",
    "aborted": "yellow",
    "busy": "cyan",
    "idle": "dim",
}


def print_json(document: Any) -> None:
    """Print a value as JSON on one line of stdout. Dates become ISO 8601 text. See also `trio_hub.wire.plain`."""
    click.echo(json_text(document, _shown))


def _shown(value: Any, why: str) -> str | int:
    return value.isoformat() if isinstance(value, datetime) else described(value, why)


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts unchanged, with colours on a terminal unless NO_COLOR is set."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def progress() -> Progress:
    """Return progress bars on stderr. They are shown only if stderr is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bars = console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=bars,
        disable=not bars.is_terminal,
        transient=True,
        auto_refresh=False,  # automatic refreshing would start a thread
    )


def columns(titles: Sequence[str], rows: Sequence[Sequence[str | Text]], right: Collection[str] = ()) -> list[Text]:
    """Return the lines of a table: the titles and the rows. Each column is as wide as its widest cell.

    Args:
        titles: The titles of the columns.
        rows: The rows, each with one cell per column.
        right: The titles of the columns that are aligned at the right.
    """
    from rich.text import Text

    cells = [[cell if isinstance(cell, Text) else Text(one_line(cell)) for cell in row] for row in rows]
    table = [[Text(title, style="bold") for title in titles], *cells]
    widths = [max(row[place].cell_len for row in table) for place in range(len(titles))]
    lines = []
    for row in table:
        line = Text()
        for place, (title, cell) in enumerate(zip(titles, row, strict=True)):
            padding = " " * (widths[place] - cell.cell_len)
            last = place == len(titles) - 1
            line.append_text(Text.assemble(padding, cell) if title in right else Text.assemble(cell, padding))
            if not last:
                line.append("  ")
        line.rstrip()
        lines.append(line)
    return lines


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI sequences, such as colours and moves of the cursor
    r"|\x1b[\]PX^_][^\x07\x1b]*(\x07|\x1b\\)?"  # titles of windows, and other texts for the terminal
    r"|\x1b[ -/]+[0-~]?"  # choices of a character set
    r"|\x1b[^\[]?"
    # The same characters as OBEYED in dom.js, except the carriage return.
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def clean(text: str) -> str:
    """Return a text without what could control a terminal, or reverse the direction of text.

    Colours, line breaks and tabs stay. For text of several lines from other programs; see `one_line` for the others.
    """
    return _CONTROL.sub(lambda found: found[0] if _COLOUR.fullmatch(found[0]) else "", text)


def one_line(value: object) -> str:
    """Return a value as text on one line, without control characters. For text from other programs."""
    text = value if isinstance(value, str) else "" if value is None else json_text(value)
    return "".join(char if char.isprintable() else " " for char in text)


def count(number: float | None) -> str:
    """Return a number such as ``12,345``; "-" for None."""
    return "-" if number is None else f"{number:,}"


def duration(seconds: float | None) -> str:
    """Return a duration in at most six characters: ``0.012s``, ``4.20s``, ``61s``, ``12m05s``, ``3h07m``, ``12d``."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds:.3f}s"
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    if seconds < 99.5:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 48 else f"{hours // 24}d"


def clock(moment: datetime | None) -> str:
    """Return a time in this machine's zone: ``12:34:56`` today, ``05-01 12:34`` on other days; "-" for None."""
    if moment is None:
        return "-"
    here = moment.astimezone()
    today = here.date() == datetime.now(here.tzinfo).date()
    return here.strftime("%H:%M:%S" if today else "%m-%d %H:%M")
