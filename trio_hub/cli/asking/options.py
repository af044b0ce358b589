"""What the commands that ask a hub have in common: where the hub is, and in which form to print."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from glob import escape
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ...config import profile_directory
from ...config.rules import check_duration

__all__ = ["Where", "asks_hub", "duration", "example", "moment", "query"]

T = TypeVar("T")

A_QUERY = '\'{"queue": "mux"}\''
ANSWER_WITHIN = 5.0
"""Seconds that a hub has to answer for the first time."""


def example(*lines: str) -> str:
    """The end of a help text, with the command lines as they are."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


@dataclass(frozen=True)
class Where:
    """Where the hub is, as the command line says it; and seconds that it has to answer for the first time."""

    profile: str | None = None
    profile_dir: Path | None = None
    cluster_id: str = ""
    connection_file: Path | None = None
    answer_within: float = ANSWER_WITHIN


def duration(value: str | float) -> float:
    """A duration above 0, as ``90``, ``1.5h``, ``30d``, in seconds. Raises `click.BadParameter`."""
    try:
        seconds = check_duration(value)
    except ValueError:
        seconds = None
    if seconds is None:
        raise click.BadParameter(f"{value!r} is no duration: give seconds, or a number with s, m, h, d or w, as 30d")
    return seconds


def moment(value: str) -> datetime:
    """A date in ISO 8601 (without a zone, of this machine's), or how long ago it was. Raises `click.BadParameter`."""
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(value).astimezone(UTC)
    try:
        return datetime.now(UTC) - timedelta(seconds=duration(value))
    except click.BadParameter:
        message = f"{value!r} is neither a date like 2026-05-01T12:00 nor a duration like 2h"
        raise click.BadParameter(message) from None


def query(value: str) -> dict[str, Any]:
    """A query of the hub's query language, as JSON. Raises `click.BadParameter`."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is not JSON ({error}): give an object, as {A_QUERY}") from error
    if not isinstance(parsed, dict):
        raise click.BadParameter(f"it has to be a JSON object, as {A_QUERY}")
    return parsed


def _profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    directories = profile_directory("", os.environ).parent.glob(f"profile_{escape(incomplete)}*")
    return [CompletionItem(path.name.removeprefix("profile_")) for path in sorted(directories) if path.is_dir()]


def _cluster_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    given = ctx.params.get("profile_dir")
    directory = given or profile_directory(ctx.params.get("profile") or "default", os.environ)
    files = Path(directory, "security").glob(f"ipcontroller-{escape(incomplete)}*-client.json")
    return [CompletionItem(path.name[len("ipcontroller-") : -len("-client.json")]) for path in sorted(files)]


_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "--profile",
        metavar="NAME",
        shell_complete=_profiles,
        help="The IPython profile that the hub was started in.  [default: default]",
    ),
    click.option(
        "--profile-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIRECTORY",
        help="The same, as a path.",
    ),
    click.option(
        "--cluster-id",
        metavar="ID",
        default="",
        shell_complete=_cluster_ids,
        help="The hub's cluster id, where a profile has several hubs.",
    ),
    click.option(
        "--connection-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="The client's connection file itself.",
    ),
    click.option(
        "--answer-within",
        type=duration,
        default=ANSWER_WITHIN,
        metavar="TIME",
        help=f"How long the hub may take to answer for the first time.  [default: {ANSWER_WITHIN:g} s]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
]


def asks_hub(function: Callable[..., T]) -> Callable[..., T]:
    """Give a command the options that say where the hub is, as its first argument, a `Where`; and ``as_json``."""

    @functools.wraps(function)
    def called(
        *args: Any,
        profile: str | None,
        profile_dir: Path | None,
        cluster_id: str,
        connection_file: Path | None,
        answer_within: float,
        **kwargs: Any,
    ) -> T:
        where = Where(profile, profile_dir, cluster_id, connection_file, answer_within)
        return function(where, *args, **kwargs)

    command: Callable[..., T] = called
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
