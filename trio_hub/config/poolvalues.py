"""The values of the keys of a pool: what each may be, and how the option ``--pool`` writes them as text."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any

from ..errors import ConfigError
from ..schedulers.rules import shown
from .rules import BOOLEAN, Rule, duration_from_text, parse_tags

__all__ = [
    "ENTRY_POINTS",
    "READERS",
    "cores",
    "known_launchers",
    "parse_pool_text",
    "plain_traits",
    "read_pool_text",
    "stock_is_here",
]

ENTRY_POINTS = "ipyparallel.engine_launchers"
"""The group of entry points under which launchers of engines are registered."""
MAX_DEPTH = 20
"""The maximum depth of tables and lists in the value of a trait."""
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", re.ASCII)
"""A time as batch systems write it: ``1:30:00``, or ``2-12:00:00`` with days."""
_UNITS = (86400, 3600, 60, 1)


# Readers


def _duration(value: Any) -> float:
    if isinstance(value, str):
        match = _CLOCK.fullmatch(value.strip())
        if match is None:
            return duration_from_text(value)
        return float(sum(int(part or 0) * unit for part, unit in zip(match.groups(), _UNITS, strict=True)))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return float(value)  # PoolSettings checks that it is positive and finite


def _tags(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return parse_tags(value)
    # An engine gets its tags as words such as site=a.
    for name, tag in value.items():
        if not isinstance(name, str) or "=" in name or any(_has_space(part) for part in (name, tag)):
            raise ValueError
    return dict(value)


def _has_space(part: Any) -> bool:
    return isinstance(part, str) and part.split() != [part]


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return value.strip()  # a text of several lines in TOML ends with a line break


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value.strip().isprintable():
        raise ValueError
    return value.strip()


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) and "\0" not in word for word in value):
        raise ValueError
    return tuple(value)


def plain_traits(value: Any, depth: int = 0) -> Any:
    """Return a copy of the traits of a launcher as JSON values. Raises `ValueError` for other values."""
    if depth > MAX_DEPTH:
        raise ValueError
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError
        return {key: plain_traits(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_traits(part, depth + 1) for part in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise ValueError  # JSON has no such number
    if value is None or not isinstance(value, str | int | float):
        raise ValueError
    return value


def _traits(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and key.isidentifier() for key in value):
        raise ValueError
    return dict(plain_traits(value))


_DURATION = Rule("a time such as 30, '30s', '2h' or '1:30:00', above 0", _duration)
_COMMAND = Rule("a shell command", _text)
READERS: dict[str, Rule] = {
    "idle_timeout": _DURATION,
    "startup_timeout": _DURATION,
    "time_limit": _DURATION,
    "retry_pause": _DURATION,
    "tags": Rule(
        "a table such as {gpu = 1, site = 'a'}, or a list such as ['gpu=1', 'site=a'], without spaces",
        _tags,
    ),
    "launcher": Rule("the name of a launcher, such as local or slurm", _word),
    "traits": Rule("a table of names of traits, with texts, numbers, true, false, lists and tables", _traits),
    "engine": Rule("trio-hub or ipengine", _word),
    "engine_args": Rule("a list of words", _words),
    "python": Rule("the path of a Python", _word),
    "start_command": _COMMAND,
    "stop_command": _COMMAND,
    "wrap_command": Rule("words in front of the engine's command, such as 'apptainer exec image.sif'", _word),
    "submit_command": _COMMAND,
    "cancel_command": _COMMAND,
    "status_command": _COMMAND,
    "keep": BOOLEAN,
}
"""The rule that checks the value of each key. `PoolSettings` checks the keys that are not here."""


# The option --pool


def _tags_from_text(text: str) -> list[str]:
    """Return the words in ``gpu+site=a``, or in ``gpu site=a`` if a word has a plus sign."""
    return text.split() if text.split() != [text] else text.split("+")


def _trait_from_text(text: str) -> Any:
    """Return a number, ``true``, ``false``, a list or a table as JSON writes it, or else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_FROM_TEXT: dict[str, Any] = {
    **dict.fromkeys(("min", "max", "engines_per_block", "backlog", "max_failures"), int),
    **dict.fromkeys(("parallelism", "cost"), float),
    **dict.fromkeys(("stateless", "keep"), BOOLEAN.from_text),
    "tags": _tags_from_text,
    "engine_args": lambda text: shlex.split(text),
}
_EXPECTED = {int: "a whole number", float: "a number", BOOLEAN.from_text: "true or false"}


def parse_pool_text(text: str) -> dict[str, Any]:
    """Return the table that a text such as ``name=slurm,max=8,traits.queue=short`` stands for.

    Quotation marks and backslashes have the meaning that they have in a shell.

    Raises:
        ConfigError: The text is not written as ``key=value``, separated by commas.
    """
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ",", True, ""
    try:
        words = list(lexer)
    except ValueError:
        raise ConfigError(f"{shown(text)} has a quotation mark that is not closed") from None
    table: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    for word in words:
        key, mark, value = word.partition("=")
        key = key.strip()
        if not mark or not key:
            raise ConfigError(f"{shown(word)} is not written as key=value: write a pool as name=local,min=0,max=8")
        target, name = (traits, key.removeprefix("traits.")) if key.startswith("traits.") else (table, key)
        if name in target:
            raise ConfigError(f"{shown(key)} is given twice: give it once")
        target[name] = _trait_from_text(value) if target is traits else _value_from_text(key, value)
    if traits:
        if "traits" in table:
            raise ConfigError("traits is given: write each trait as traits.NAME=VALUE")
        table["traits"] = traits
    return table


def _value_from_text(key: str, text: str) -> Any:
    from_text = _FROM_TEXT.get(key, str)
    try:
        return from_text(text)
    except ValueError:
        what = _EXPECTED.get(from_text, "words as in a shell")
        raise ConfigError(f"{key} is {shown(text)}: it must be {what}") from None


def read_pool_text(text: str) -> Any:
    """Return the list of pools in a text: JSON, or one pool as the option ``--pool`` writes it.

    Raises:
        ValueError: the text begins like JSON, but is not JSON.
    """
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("too deep") from None
    return [text]


# This machine


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def known_launchers() -> frozenset[str]:
    """Return the names of the launchers of engines that installed packages register. Nothing is imported from them."""
    from importlib.metadata import entry_points  # imported here because most hubs have no such pool

    return frozenset(entry.name for entry in entry_points(group=ENTRY_POINTS))


def stock_is_here() -> bool:
    """Return whether the hub's Python finds ipyparallel. It is not imported."""
    from importlib.util import find_spec

    return find_spec("ipyparallel") is not None
