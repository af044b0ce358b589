"""``trio-hub doctor``: check this machine, the profile, and the way to the hub."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import codes
from ..encryption import in_words
from .options import Where, asks_hub, example
from .output import console, one_line, print_json

if TYPE_CHECKING:
    from .checks import Finding

__all__ = ["doctor", "examine"]

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command(
    "doctor",
    epilog=example(
        "trio-hub doctor",
        "trio-hub doctor --profile-dir my-cluster",
        "trio-hub doctor --connection-file ipcontroller-engine.json",
    ),
)
@asks_hub
def doctor(where: Where, as_json: bool) -> None:
    """Check versions, limits, the profile, ports, clocks and the hub, and say what to do about each problem.

    Run this command where a client or an engine cannot connect. The command tries each port in the connection file, and
    so distinguishes a firewall from a hub that has ended. On a machine for engines, name the engines' connection file.
    Nothing is changed, and a hub need not run. Exits with 1 if there is a problem.
    """
    import trio

    findings = trio.run(examine, where)
    if as_json:
        print_json({"findings": [finding._asdict() for finding in findings]})
    else:
        show(findings)
    sys.exit(codes.FAILED if any(finding.state == "problem" for finding in findings) else codes.OK)


def show(findings: list[Finding]) -> None:
    """Print a line per finding. On a terminal, long texts continue below their beginning."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not out.is_terminal:
        for finding in findings:
            click.echo(f"{finding.state:<8} {finding.topic:<18} {one_line(finding.text)}")
        return
    table = Table.grid(padding=(0, 1))
    for finding in findings:
        state = Text(finding.state, STYLES[finding.state])
        table.add_row(state, Text(finding.topic), Text(one_line(finding.text), overflow="fold"))
    out.soft_wrap = False
    out.print(table)


async def examine(where: Where) -> list[Finding]:
    """Make all checks, and return what they have found."""
    from ...config import load_config, profile_directory
    from ...config.connectionfiles import read_connection_file
    from ...errors import ConfigError, ConnectionFileError
    from .checks import OK, PROBLEM, Finding, check_machine, check_own_ports, check_profile, knock_at_ports
    from .session import file_of

    findings = list(check_machine())
    try:
        path = Path(file_of(where))
    except ConfigError as error:
        return [*findings, Finding("options", PROBLEM, str(error))]
    if where.connection_file is None:
        directory = where.profile_dir or profile_directory(where.profile or "default", os.environ)
        findings += check_profile(directory.absolute())
    files = connection_files(path)
    if not files:
        findings.append(Finding("hub", OK, f"none runs with this profile and cluster id, since there is no {path}"))
        try:
            findings += check_own_ports(load_config(where.settings(), os.environ, None))
        except ConfigError as error:
            findings.append(Finding("settings", PROBLEM, str(error)))
        return findings
    for file in files:
        try:
            info = read_connection_file(file)
            findings += await knock_at_ports(file, info)
        except (ConnectionFileError, OSError) as error:
            return [*findings, Finding("connection file", PROBLEM, str(error))]
        if file == path and "hb_ping" in info:  # the file for engines, with which a client cannot connect
            return findings
    if not any(finding.topic == "ports for clients" and finding.state == PROBLEM for finding in findings):
        findings += await ask_about(where)
    return findings


def connection_files(path: Path) -> list[Path]:
    """Return the connection file at a path, if it exists, and the file for engines beside it."""
    if not path.exists():
        return []
    beside = path.with_name(path.name.removesuffix("-client.json") + "-engine.json")
    return [path, beside] if path.name.endswith("-client.json") and beside.exists() else [path]


async def ask_about(where: Where) -> list[Finding]:
    """Connect to the hub as clients do, and check what it tells about itself."""
    from ...errors import HubError
    from .checks import OK, PROBLEM, Finding, check_about, now
    from .session import connected
    from .waiting import LOST_AFTER

    try:
        async with connected(where, lost_after=LOST_AFTER) as client:
            asked = now()
            about: dict[str, Any] = await client.about()
            answered = now()
            told = f"{client.kind} answers at {client.address}, {in_words(client.connections)}"
            found = [Finding("hub", OK, told)]
            found += check_about(about, asked, answered) if about else []
    except HubError as error:
        return [Finding("hub", PROBLEM, str(error))]
    return found
