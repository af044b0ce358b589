"""The types of ipcontroller's traits: the values they accept, and how values are written on the command line."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import parse_ports

__all__ = [
    "ANYTHING",
    "BOOLEAN",
    "BYTES",
    "DATABASE",
    "DEPTH",
    "FRESH_KEY",
    "INTEGER",
    "LEVEL",
    "PAIR",
    "PORTS",
    "TEXT",
    "Kind",
]


@dataclass(frozen=True)
class Kind:
    """A type of trait.

    `read` returns the value of the words on the command line. It is given all words, since some options can be
    repeated. `check` checks a value from a config file, and returns it in its final form. Both raise `ValueError`.
    """

    accepts: str
    read: Callable[[Sequence[str]], Any]
    check: Callable[[Any], Any]


def _unquoted(text: str) -> str:
    """Return a value without quotes around it, which some scripts leave there, and which traitlets removes too."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def _read_text(words: Sequence[str]) -> str:
    return os.path.expanduser(_unquoted(words[-1]))


def _check_text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    raise ValueError


class _FreshKey:
    def __repr__(self) -> str:
        return "a new key"


FRESH_KEY = _FreshKey()


def _check_key(value: Any) -> Any:
    return value if value is FRESH_KEY else _check_text(value)


def _read_bytes(words: Sequence[str]) -> str:
    text = words[-1]
    return _unquoted(text.removeprefix("b") if text[:2] in ("b'", 'b"') else text)


def _check_integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    return value


def _read_boolean(words: Sequence[str]) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[words[-1].lower()]


def _check_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _check_ports(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        return parse_ports(value)
    return tuple(_check_integer(port) for port in value)


def _read_pair(words: Sequence[str]) -> Any:
    return ast.literal_eval(words[0]) if len(words) == 1 else tuple(int(word) for word in words)


def _check_pair(value: Any) -> tuple[int, ...]:
    pair = tuple(_check_integer(port) for port in value)
    if len(pair) != 2:
        raise ValueError
    return pair


def _anything(value: Any) -> Any:
    return value


TEXT = Kind("text", _read_text, _check_text)
BYTES = Kind("ASCII text", _read_bytes, _check_key)
INTEGER = Kind("a whole number", lambda words: int(words[-1]), _check_integer)
BOOLEAN = Kind("true or false", _read_boolean, _check_boolean)
PORTS = Kind("ports and ranges of ports", lambda words: parse_ports(",".join(map(_unquoted, words))), _check_ports)
PAIR = Kind("two ports", _read_pair, _check_pair)
ANYTHING = Kind("anything", lambda words: words[-1], _anything)


def _db_kind(value: Any) -> Any:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return _check_text(value)


_LEVELS = {0: "debug", 10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
_LEVEL_NAMES = {name: name for name in _LEVELS.values()} | {"warn": "warning"}


def _level(value: Any) -> int | str:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    known: Mapping[Any, str] = _LEVELS if isinstance(value, int) else _LEVEL_NAMES
    return known[value.lower() if isinstance(value, str) else value]


LEVEL = Kind("one of 0, 10, 20, 30, 40, 50, DEBUG, INFO, WARN, ERROR, CRITICAL", lambda words: words[-1], _level)


def _check_depth(value: Any) -> int:
    if _check_integer(value) not in range(11):
        raise ValueError
    return int(value)


DEPTH = Kind("a whole number from 0 to 10", lambda words: int(words[-1]), _check_depth)
DATABASE = Kind("a database class", _read_text, _db_kind)
