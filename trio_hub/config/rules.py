"""The rules of settings: a rule checks the values of one kind, and reads them from text."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..errors import ConfigError, WireError
from ..schedulers.rules import parse_needs
from .prefix import check_prefix

__all__ = [
    "ADDRESS",
    "ADDRESS_OR_EMPTY",
    "BOOLEAN",
    "BOOLEANS",
    "BYTES",
    "CURVE_KEY",
    "DASHBOARD",
    "DASHBOARD_PREFIX",
    "DATABASES",
    "PORTS",
    "SQLITE",
    "SSH_SERVER",
    "TOKEN",
    "DatabaseURL",
    "Remark",
    "Rule",
    "check_command",
    "check_dashboard",
    "check_database",
    "check_duration",
    "check_key",
    "check_path",
    "checked_by",
    "choice",
    "duration_from_text",
    "is_loopback",
    "or_none",
    "parse_ports",
    "parse_tags",
    "seconds",
    "split_address",
    "text",
    "whole",
]

DATABASES = ("sqlite", "memory", "none")
"""The task databases that are chosen by name. Others are chosen by URL."""


class Remark(ValueError):
    """A value cannot be used; the text says why. Shown in addition to what the setting accepts."""


@dataclass(frozen=True)
class Rule:
    """The values that a setting accepts.

    `check` returns a value in its final form. `from_text` reads a value from the text of an option or an environment
    variable. Both raise `ValueError` or `TypeError` for a value that cannot be used.
    """

    accepts: str
    check: Callable[[Any], Any]
    from_text: Callable[[str], Any] = str
    metavar: str = "TEXT"
    """The name of the value in the help of a command."""
    choices: tuple[str, ...] = ()
    """The accepted values, if they can be listed."""


def whole(least: int) -> Rule:
    """Return the rule for whole numbers from `least` on."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError
        return value

    return Rule(f"a whole number, {least} or more", check, int, "N")


def seconds(*, zero: bool) -> Rule:
    """Return the rule for finite numbers of seconds above 0; with `zero`, also 0."""

    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError
        if value < 0 or (value == 0 and not zero):
            raise ValueError
        return float(value)

    return Rule(f"a number of seconds, {'0 or more' if zero else 'above 0'}", check, float, "SECONDS")


def choice(names: tuple[str, ...]) -> Rule:
    """Return the rule for one of several names."""

    def check(value: Any) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return Rule("one of " + ", ".join(names), check, str.lower, choices=names)


def text(accepts: str, pattern: str) -> Rule:
    """Return the rule for texts that a regular expression matches as a whole."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise ValueError
        return value

    return Rule(accepts, check)


def checked_by(function: Callable[[str], object], accepts: str) -> Rule:
    """Return the rule for texts that a function accepts. The text of its `ConfigError` becomes the `Remark`."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        try:
            function(value)
        except ConfigError as error:
            raise Remark(str(error)) from error
        return value

    return Rule(accepts, check)


def _check_address(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    if ":" in value:
        bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        return f"[{ipaddress.IPv6Address(bare)}]"  # the form of an IPv6 address in a URL
    if re.fullmatch(r"\*|[\w.-]+", value, re.ASCII) is None:
        raise ValueError
    return "127.0.0.1" if value == "localhost" else value  # ZeroMQ binds to addresses, not to host names


def is_loopback(address: str) -> bool:
    """Return whether an address, as `ADDRESS` returns it, can be reached from this machine only."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:  # the name of an interface
        return address == "lo"


def check_path(value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:  # ~somebody, whom this machine does not know
        raise Remark(str(error)) from error


def parse_ports(text: str) -> tuple[int, ...]:
    """Return the ports in a text like ``10000-10020,11000``, in the order of the text. Raises `ValueError`."""
    ports: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        start, stop = int(first), int(last) if dash else int(first)
        if not 1 <= start <= stop <= 65535:
            raise ValueError
        ports.extend(range(start, stop + 1))
    return tuple(ports)


def _check_ports(value: Any) -> tuple[int, ...]:
    ports: list[int] = []
    for entry in [value] if isinstance(value, str | int) else value:
        if isinstance(entry, str):
            ports.extend(parse_ports(entry))
        elif isinstance(entry, bool) or not isinstance(entry, int) or not 1 <= entry <= 65535:
            raise ValueError
        else:
            ports.append(entry)
    twice = sorted({port for port in ports if ports.count(port) > 1})
    if twice:
        raise Remark(f"port {twice[0]} is given twice")
    return tuple(ports)


def check_dashboard(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError
    host, colon, port = str(value).rpartition(":")
    if (colon and not host) or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65535:
        raise ValueError
    if host in ("", "localhost"):
        host = "127.0.0.1"
    elif host == "*":
        host = "0.0.0.0"
    elif host.startswith("["):
        if not host.endswith("]"):
            raise ValueError
        host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
    else:
        host = str(ipaddress.IPv4Address(host))
    return f"{host}:{int(port)}"


def split_address(address: str) -> tuple[str, int]:
    """Split an ``ADDRESS:PORT``, such as the setting ``dashboard``, into the host, without brackets, and the port."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_command(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(part, str) and part for part in value):
        raise ValueError
    return tuple(value)


def parse_tags(words: Any) -> dict[str, str | bool]:
    """Return the tags and amounts in words such as ``gpu=1`` and ``site=a``; a name alone stands for true.

    Raises:
        ValueError: the words are not a list, or a word is not written in this way.
    """
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        raise ValueError(words)
    tags: dict[str, str | bool] = {}
    for word in words:
        name, mark, tag = word.partition("=")
        if word.split() != [word] or (mark and not tag):
            raise ValueError(words)
        tags[name] = tag if mark else True
    return tags


def _check_tags(value: Any) -> tuple[str, ...]:
    try:
        parse_needs("engine_tags", parse_tags(value))
    except WireError as error:
        raise ValueError(str(error)) from error
    return tuple(value)


def _check_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _boolean_from_text(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError
    return BOOLEANS[text.lower()]


BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
"""The words for true and false in texts, in lower case."""
BOOLEAN = Rule("true or false", _check_boolean, _boolean_from_text, "true|false")


def _check_curve_key(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or re.fullmatch(_Z85_KEY, value) is None):
        raise ValueError
    return value


_Z85_KEY = r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}"
CURVE_KEY = Rule("a CURVE key, 40 characters of Z85", _check_curve_key, metavar="KEY")

_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def _check_bytes(value: Any) -> int:
    if isinstance(value, str):
        value = _bytes_from_text(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError
    return value


def _bytes_from_text(text: str) -> int:
    match = re.fullmatch(r"(\d+) ?(|[kmgt]ib)", text.strip().lower(), re.ASCII)
    if match is None:
        raise ValueError
    return int(match[1]) * _UNITS[match[2]]


SQLITE = "sqlite:///"


class DatabaseURL(str):
    """The name or URL of a task database; its ``repr`` does not show the password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(self.shown)

    @property
    def shown(self) -> str:
        """The URL without passwords. Parts that might contain a password in a malformed URL are left out too."""
        start, separator, rest = str(self).partition("://")
        if not separator or start == "sqlite":
            return str(self)
        user, at, place = rest.rpartition("@")
        name, colon, _ = user.partition(":")
        shown = f"{start}://{name}{':***' if colon else ''}{at}{place}"
        return re.sub(r"([?&][^=&?]*=)[^&]*", _without_password, shown)

    @property
    def scheme(self) -> str:
        """``sqlite``, ``postgresql``, ``memory`` or ``none``."""
        return str(self.partition(":")[0])

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database; None if the URL has no path, and for other databases."""
        return Path(self.removeprefix(SQLITE)) if self.startswith(SQLITE) else None


def _without_password(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}***" if "password" in unquote(parameter[1]).lower() else parameter[0]


def check_database(value: Any) -> DatabaseURL | None:
    if value is None:
        return None
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    if value.lower() in DATABASES:
        return DatabaseURL(value.lower())
    if value.startswith(("postgresql://", "postgres://")):
        return DatabaseURL("postgresql://" + value.partition("://")[2])
    if value.startswith(SQLITE) and value != SQLITE:
        try:
            path = Path(value.removeprefix(SQLITE)).expanduser()
        except RuntimeError as error:  # ~somebody, whom this machine does not know
            raise Remark(str(error)) from error
        return DatabaseURL(f"{SQLITE}{path.absolute()}")
    if value.lower().startswith("mongodb"):
        raise Remark("MongoDB is not supported: use sqlite or postgresql")
    raise ValueError


_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def check_duration(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = duration_from_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100 * 365 * 86400:
        raise ValueError
    return float(value)


def duration_from_text(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhdw]?)", text.strip().lower(), re.ASCII)
    if match is None:
        raise ValueError
    return float(match[1]) * _DURATION_UNITS[match[2] or "s"]


def check_key(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or re.fullmatch(r"[!-~]+", value) is None):
        raise ValueError
    return value


def or_none(rule: Rule) -> Rule:
    """Return a rule that accepts None, and each value that `rule` accepts."""
    return replace(rule, check=lambda value: None if value is None else rule.check(value))


BYTES = Rule("a number of bytes above 0, such as 1000000, 512MiB or 2GiB", _check_bytes, _bytes_from_text, "BYTES")


_ADDRESS_IS = "an IP address or the name of a network interface, or * for all of them"
ADDRESS = Rule(_ADDRESS_IS, _check_address, metavar="ADDRESS")
ADDRESS_OR_EMPTY = Rule(
    f"{_ADDRESS_IS}, or nothing", lambda value: _check_address(value) if value != "" else "", metavar="ADDRESS"
)
PORTS = Rule("ports from 1 to 65535 and ranges of ports, such as 10000-10020,11000", _check_ports, parse_ports, "PORTS")
DASHBOARD = Rule(
    "[ADDRESS:]PORT, with an IP address (an IPv6 address in brackets) or * for all of them",
    check_dashboard,
    metavar="[ADDRESS:]PORT",
)
DASHBOARD_PREFIX = Rule(
    "a path such as /user/jo/trio-hub, percent-encoded as in a URL, that is no path of the dashboard's own",
    check_prefix,
    metavar="PATH",
)
TOKEN = replace(or_none(text("16 or more letters, digits and -_.~", r"[0-9A-Za-z_.~-]{16,}")), metavar="TOKEN")
SSH_SERVER = replace(text("[user@]host[:port]", r"([^\s/@\0-]\S*)?"), metavar="SERVER")
TAGS = Rule("tags and amounts, such as site=a or gpu=1", _check_tags, lambda text: tuple(text.split()), "KEY=VALUE")
