"""``trio-hub report``: write into one file what a support request needs."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from .. import codes
from .options import Where, asks_hub, example
from .output import print_json

__all__ = ["report"]

LAST_LINES = 50
"""The number of lines of each log file that a report has."""
LOG_FILES = 5
"""The number of log files, the latest, of which a report has the last lines."""


@click.command(
    "report",
    epilog=example("trio-hub report", "trio-hub report --profile-dir my-cluster --output hub.txt"),
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file to write; - for stdout.  [default: trio-hub-report-DATE-TIME.txt, here]",
)
@asks_hub
def report(where: Where, as_json: bool, output: Path | None) -> None:
    """Write versions, settings without secrets, numbers, checks and the last log lines of a hub into a file.

    A hub need not run; then the report has what this machine knows. Keys, tokens and passwords are left out, but host
    names, paths and labels of tasks may be in it: read the file before you send it. With --json, the report is printed
    as JSON.
    """
    import trio

    from .session import complain

    document = trio.run(collect, where)
    if as_json:
        print_json(document)
        return
    text = as_text(document)
    if output == Path("-"):
        click.echo(text)
        return
    path = output or Path(f"trio-hub-report-{datetime.now():%Y%m%d-%H%M%S}.txt")
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        complain(f"{path} cannot be written: {error.strerror}. Choose another file with --output, or - for stdout.")
        sys.exit(codes.FAILED)
    click.echo(f"wrote {path}: read it before you send it")


async def collect(where: Where) -> dict[str, Any]:
    """Return the content of a report."""
    from ...config import load_config
    from ...errors import ConfigError
    from ...runtime.about import plain_settings, versions
    from ..showing import option_labels, origins
    from .doctor import examine

    document: dict[str, Any] = {
        "versions": versions(),
        "checks": [finding._asdict() for finding in await examine(where)],
    }
    chosen = where.settings()
    directory = None
    try:
        config = load_config(chosen, os.environ, None)
    except ConfigError as error:
        document["settings here"] = str(error)
    else:
        document["settings here"] = plain_settings(config)
        document["sources of settings here"] = origins(config, option_labels(chosen), os.environ, None)
        directory = config.profile_dir
    document["hub"] = await ask_hub(where)
    document["log files"] = {} if directory is None else dict(last_lines(directory / "log"))
    return document


async def ask_hub(where: Where) -> dict[str, Any] | str:
    """Return what the hub tells about itself and its load; or why it does not answer."""
    from ...errors import HubError
    from .looking import look
    from .session import connected, file_of
    from .waiting import LOST_AFTER

    try:
        async with connected(where, lost_after=LOST_AFTER) as client:
            return {"status": await look(client, file_of(where)), **await client.about()}
    except HubError as error:
        return str(error)


def last_lines(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the latest log files of a profile, each with its last lines."""
    try:
        files = sorted((path for path in directory.iterdir() if _is_log(path)), key=lambda path: path.stat().st_mtime)
    except OSError:
        return
    for path in files[-LOG_FILES:]:
        try:
            with path.open(encoding="utf-8", errors="backslashreplace") as file:
                yield str(path), [line.rstrip("\n") for line in deque(file, LAST_LINES)]
        except OSError as error:
            yield str(path), [f"cannot be read: {error.strerror}"]


def _is_log(path: Path) -> bool:
    return path.is_file() and (".log" in path.name or path.suffix in (".err", ".out"))


def as_text(document: dict[str, Any]) -> str:
    """Return a report as text for people."""
    lines = [f"trio-hub report, {datetime.now().astimezone().isoformat(' ', 'seconds')}"]
    for title, value in document.items():
        if title == "hub" and isinstance(value, dict):
            for name, part in value.items():
                lines += ["", f"== hub: {name}", *_lines(part)]
        else:
            lines += ["", f"== {title}", *_lines(value)]
    return "\n".join(lines) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = []
        for name, one in value.items():
            if isinstance(one, list) and one and all(isinstance(line, str) for line in one):
                found += [f"{name}:", *(f"    {line}" for line in one)]
            else:
                found.append(f"{name}: {_shown(one)}")
        return found
    if isinstance(value, list):
        return [
            f"{one['state']:<8} {one['topic']:<18} {one['text']}" if isinstance(one, dict) else str(one)
            for one in value
        ]
    return [str(value)]


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float | datetime):
        return str(value)
    return json.dumps(value, default=str)
