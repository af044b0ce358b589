"""The options that all commands that ask a hub have: where the hub is, and the form of the output."""

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

from ...config import load_config, profile_directory
from ...config.rules import check_duration
from ...errors import ConfigError

__all__ = [
    "ListGroup",
    "Where",
    "asks_hub",
    "date",
    "duration",
    "engine_name",
    "example",
    "moment",
    "pool_names",
    "query",
]

T = TypeVar("T")

A_QUERY = '\'{"queue": "mux"}\''
ANSWER_WITHIN = 5.0
"""Seconds within which the hub must answer for the first time."""


def example(*lines: str) -> str:
    """Return the end of a help text, with examples of command lines."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


class ListGroup(click.Group):
    """A group whose default command is ``list``, which then also has the options of ``list``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing and (not args or (args[0].startswith("-") and args[0] not in ("-h", "--help"))):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class Where:
    """The options that say where the hub is, and the seconds within which it must answer for the first time."""

    profile: str | None = None
    profile_dir: Path | None = None
    cluster_id: str = ""
    connection_file: Path | None = None
    answer_within: float = ANSWER_WITHIN

    def settings(self) -> dict[str, Any]:
        """Return the settings that these options give to `load_config`, by name. None: the option was not given."""
        return {
            "profile": self.profile,
            "profile_dir": self.profile_dir,
            "cluster_id": self.cluster_id or None,
        }


def duration(value: str | float) -> float:
    """Return the seconds of a duration above 0, such as ``90``, ``1.5h`` or ``30d``. Raises `click.BadParameter`."""
    try:
        seconds = check_duration(value)
    except ValueError:
        seconds = None
    if seconds is None:
        raise click.BadParameter(f"{value!r} is not a duration: give seconds, or a number with s, m, h, d or w, as 30d")
    return seconds


def engine_name(text: str) -> int | str:
    """Return the id in a text, as a number; any other text unchanged, as a uuid."""
    return int(text) if text.isdecimal() else text


def date(seconds: float | None) -> datetime | None:
    """Return a date, given in seconds since 1970; the year 9999 for any date after that."""
    return None if seconds is None else datetime.fromtimestamp(min(seconds, _LAST), UTC)


_LAST = datetime(9999, 1, 2, tzinfo=UTC).timestamp()


def moment(value: str) -> datetime:
    """Return the date of an ISO 8601 text or of a duration before now. Raises `click.BadParameter`.

    A date without a zone is in this machine's zone.
    """
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(value).astimezone(UTC)
    try:
        return datetime.now(UTC) - timedelta(seconds=duration(value))
    except click.BadParameter:
        message = f"{value!r} is neither a date such as 2026-05-01T12:00 nor a duration such as 2h"
        raise click.BadParameter(message) from None


def query(value: str) -> dict[str, Any]:
    """Return a query in the hub's query language from its JSON text. Raises `click.BadParameter`."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is not JSON ({error}): give an object such as {A_QUERY}") from error
    if not isinstance(parsed, dict):
        raise click.BadParameter(f"it is not a JSON object: give one such as {A_QUERY}")
    return parsed


def _profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    directories = profile_directory("", os.environ).parent.glob(f"profile_{escape(incomplete)}*")
    return [CompletionItem(path.name.removeprefix("profile_")) for path in sorted(directories) if path.is_dir()]


def pool_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the pools of the settings here that begin with a text. The hub is not asked at every keystroke."""
    try:
        pools = load_config({}, os.environ, ctx.params.get("config")).all_pools
    except (ConfigError, OSError):
        return []
    return [CompletionItem(pool.name) for pool in pools if pool.name.startswith(incomplete)]


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
        help="The IPython profile of the hub.  [default: default]",
    ),
    click.option(
        "--profile-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIRECTORY",
        help="The IPython profile directory of the hub.",
    ),
    click.option(
        "--cluster-id",
        metavar="ID",
        default="",
        shell_complete=_cluster_ids,
        help="The cluster id of the hub, if the profile has several hubs.",
    ),
    click.option(
        "--connection-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="The connection file for clients of the hub.",
    ),
    click.option(
        "--answer-within",
        type=duration,
        default=ANSWER_WITHIN,
        metavar="TIME",
        help=f"The time within which the hub must answer for the first time.  [default: {ANSWER_WITHIN:g} s]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
]


def asks_hub(function: Callable[..., T]) -> Callable[..., T]:
    """Add the common options to a command. Its function gets a `Where` as its first argument, and ``as_json``."""

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
