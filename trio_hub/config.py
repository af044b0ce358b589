"""`HubConfig`: every setting of a hub, checked once, and never changed afterwards.

`load_config` gathers the settings of a command. Where several places give one, the first of these counts:
the command line, the environment (``TRIO_HUB_*``, then IPython Parallel's own ``IPP_*``), the TOML file, the
default. A name that is no setting, a wrong type and a bad value are refused, and the message tells the place.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from .errors import ConfigError
from .wire.packers import packer_named
from .wire.signing import Signer

# ruff: noqa: RUF009 - each default is made by _setting, which calls dataclasses.field

__all__ = [
    "DATABASES",
    "DURABILITIES",
    "LOG_FORMATS",
    "LOG_LEVELS",
    "SCHEMES",
    "DatabaseURL",
    "HubConfig",
    "Rule",
    "load_config",
    "parse_ports",
    "profile_directory",
    "shown_value",
    "split_address",
]

T = TypeVar("T")

SCHEMES = ("leastload", "lru", "plainrandom", "pure", "twobin", "weighted")
"""Those of `trio_hub.schedulers.schemes`, which this module must not import; a test compares the two."""

DATABASES = ("sqlite", "memory", "none")
"""Those that have a name; others have a URL."""
DURABILITIES = ("relaxed", "strict")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")


class _Remark(ValueError):
    """What is wrong with a value, where that is more than its not being what is accepted."""


@dataclass(frozen=True)
class Rule:
    """What one setting accepts.

    `check` returns the value in its final form, `from_text` reads what a shell can give. Both raise
    `ValueError` (or `TypeError`) for what cannot be used.
    """

    accepts: str
    check: Callable[[Any], Any]
    from_text: Callable[[str], Any] = str
    metavar: str = "TEXT"
    """What a command's help calls the value."""
    choices: tuple[str, ...] = ()
    """The accepted values, where they are few."""


def _whole(least: int) -> Rule:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError
        return value

    return Rule(f"a whole number, {least} or more", check, int, "N")


def _seconds(*, zero: bool, none: bool = False) -> Rule:
    def check(value: Any) -> float | None:
        if none and value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError
        if value < 0 or (value == 0 and not zero):
            raise ValueError
        return float(value)

    return Rule(f"a number of seconds, {'0 or more' if zero else 'above 0'}", check, float, "SECONDS")


def _choice(names: tuple[str, ...]) -> Rule:
    def check(value: Any) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return Rule("one of " + ", ".join(names), check, str.lower, choices=names)


def _text(accepts: str, pattern: str) -> Rule:
    def check(value: Any) -> str:
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise ValueError
        return value

    return Rule(accepts, check)


def _checked_by(function: Callable[[str], object], accepts: str) -> Rule:
    """By what will use the value: its own `ConfigError` says best what is wrong with it."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        try:
            function(value)
        except ConfigError as error:
            raise _Remark(str(error)) from error
        return value

    return Rule(accepts, check)


def _check_address(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    if ":" in value:
        bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        return f"[{ipaddress.IPv6Address(bare)}]"  # as it stands in a URL
    if re.fullmatch(r"\*|[\w.-]+", value, re.ASCII) is None:
        raise ValueError
    return "127.0.0.1" if value == "localhost" else value  # ZeroMQ binds to addresses, not to host names


def _check_path(value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:  # ~somebody, whom this machine does not know
        raise _Remark(str(error)) from error


def parse_ports(text: str) -> tuple[int, ...]:
    """The ports in a text like ``10000-10020,11000``, in its order. Raises `ValueError`."""
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
        raise _Remark(f"port {twice[0]} is named twice")
    return tuple(ports)


def _check_dashboard(value: Any) -> str | None:
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
    """The host, without brackets, and the port of an ``ADDRESS:PORT`` such as the setting ``dashboard``."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_command(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(part, str) and part for part in value):
        raise ValueError
    return tuple(value)


def _check_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _boolean_from_text(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[text.lower()]


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_BOOLEAN = Rule("true or false", _check_boolean, _boolean_from_text, "true|false")


def _check_curve_key(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or re.fullmatch(_Z85_KEY, value) is None):
        raise ValueError
    return value


_Z85_KEY = r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}"
_CURVE_KEY = Rule("a CURVE key, 40 characters of Z85", _check_curve_key, metavar="KEY")

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


_SQLITE = "sqlite:///"


class DatabaseURL(str):
    """The name or URL of a task database; its ``repr`` does not show the password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(self.shown)

    @property
    def shown(self) -> str:
        """It without passwords. What could be one, though it is not where it should be, is left out, too."""
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
        """The file of an SQLite database; None if its place is not told."""
        return Path(self.removeprefix(_SQLITE)) if self.startswith(_SQLITE) else None


def _without_password(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}***" if "password" in unquote(parameter[1]).lower() else parameter[0]


def _check_database(value: Any) -> DatabaseURL | None:
    if value is None:
        return None
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    if value.lower() in DATABASES:
        return DatabaseURL(value.lower())
    if value.startswith(("postgresql://", "postgres://")):
        return DatabaseURL("postgresql://" + value.partition("://")[2])
    if value.startswith(_SQLITE) and value != _SQLITE:
        try:
            path = Path(value.removeprefix(_SQLITE)).expanduser()
        except RuntimeError as error:  # ~somebody, whom this machine does not know
            raise _Remark(str(error)) from error
        return DatabaseURL(f"{_SQLITE}{path.absolute()}")
    if value.lower().startswith("mongodb"):
        raise _Remark("there is no MongoDB store: records go to SQLite or PostgreSQL")
    raise ValueError


_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _check_duration(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = _duration_from_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100 * 365 * 86400:
        raise ValueError
    return float(value)


def _duration_from_text(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhdw]?)", text.strip().lower(), re.ASCII)
    if match is None:
        raise ValueError
    return float(match[1]) * _DURATION_UNITS[match[2] or "s"]


def _check_key(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or re.fullmatch(r"[!-~]+", value) is None):
        raise ValueError
    return value


def _or_none(rule: Rule) -> Rule:
    return replace(rule, check=lambda value: None if value is None else rule.check(value))


_BYTES = Rule("a number of bytes above 0, also like 512MiB or 2GiB", _check_bytes, _bytes_from_text, "BYTES")


def _setting(default: T, rule: Rule, doc: str, *, secret: bool = False) -> T:
    metadata = {"rule": rule, "doc": doc, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


_ADDRESS_IS = "an IP address or the name of a network interface, or * for all of them"
_ADDRESS = Rule(_ADDRESS_IS, _check_address, metavar="ADDRESS")
_ADDRESS_OR_EMPTY = Rule(
    f"{_ADDRESS_IS}, or nothing", lambda value: _check_address(value) if value != "" else "", metavar="ADDRESS"
)
_PORTS = Rule("ports from 1 to 65535 and ranges of them, like 10000-10020,11000", _check_ports, parse_ports, "PORTS")
_DASHBOARD = Rule(
    "[ADDRESS:]PORT, with an IP address (an IPv6 address in brackets) or * for all of them",
    _check_dashboard,
    metavar="[ADDRESS:]PORT",
)
_TOKEN = replace(_or_none(_text("16 or more letters, digits and -_.~", r"[0-9A-Za-z_.~-]{16,}")), metavar="TOKEN")
_SSH_SERVER = replace(_text("[user@]host[:port]", r"([^\s/@\0-]\S*)?"), metavar="SERVER")


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """The settings of one hub. Each has a default, and each is checked when the object is made.

    Raises:
        ConfigError: naming the setting, the value, and what is accepted.
    """

    profile_dir: Path | None = _setting(
        None,
        Rule("a directory", _check_path, metavar="DIR"),
        "The IPython profile directory. Connection files go into its `security` directory; it is made if it "
        "is missing. None: no file is written, for a hub within another program.",
    )
    cluster_id: str = _setting(
        "",
        _text("a name without spaces and slashes", r"[^\s/\\\0]*"),
        "Tells several hubs of one profile apart: it becomes part of the connection files' names.",
    )
    ip: str = _setting("127.0.0.1", _ADDRESS, "The address that all sockets listen on.")
    client_ip: str = _setting(
        "", _ADDRESS_OR_EMPTY, "The address for clients, where it is another than `ip`. Empty: `ip`."
    )
    engine_ip: str = _setting(
        "", _ADDRESS_OR_EMPTY, "The address for engines, where it is another than `ip`. Empty: `ip`."
    )
    location: str = _setting(
        "",
        _text("a host name or address", r"[^\s/\0]*"),
        "The name under which other machines reach this one, written to the connection files. Empty: this "
        "host's own name.",
    )
    ports: tuple[int, ...] = _setting((), _PORTS, "The TCP ports to listen on. Empty: the system chooses.")
    client_ports: tuple[int, ...] = _setting(
        (), _PORTS, "Ports for clients, taken before those of `ports`. Without either the system chooses."
    )
    engine_ports: tuple[int, ...] = _setting(
        (),
        _PORTS,
        "Ports for engines and registration, taken before those of `ports`. Without either the system chooses.",
    )
    ssh_server: str = _setting(
        "",
        _SSH_SERVER,
        "The host through which clients reach the hub by ssh, written to their connection file. Empty: none.",
    )
    engine_ssh_server: str = _setting(
        "",
        _SSH_SERVER,
        "The host through which engines reach the hub by ssh, written to their connection file. Empty: none.",
    )
    broadcast_ports: int = _setting(1, _whole(1), "Ports to which the engines' connections for broadcasts are spread.")
    reuse: bool = _setting(
        False,
        _BOOLEAN,
        "Whether to start with the key and ports of the connection files that are there, and to leave them at the end; "
        "and, with a database on disk, to carry on with what the hub before has not answered.",
    )
    restore: bool = _setting(
        False,
        _BOOLEAN,
        "Whether to take up the engines that the hub before had, with their ids; `reuse` goes with it.",
    )
    ping: float = _setting(3.0, _seconds(zero=False), "Seconds from one heartbeat to the next.")
    max_heartmonitor_misses: int = _setting(
        10, _whole(1), "An engine that leaves more heartbeats in a row than this unanswered is lost."
    )
    registration_timeout: float | None = _setting(
        None,
        _seconds(zero=False, none=True),
        "Seconds that a new engine has to answer its first heartbeat. None: 10 heartbeats, at least 30 s.",
    )
    stranded_grace: float = _setting(
        5.0,
        _seconds(zero=True),
        "Seconds in which results of a lost engine are still taken, before its tasks go to others or fail.",
    )
    stop_grace: float = _setting(
        5.0, _seconds(zero=True), "Seconds that local engines, and then the database, have to finish at the stop."
    )
    hwm: int = _setting(
        1, _whole(0), "Load-balanced tasks that an engine has at a time, waiting ones included. 0: no limit."
    )
    scheme: str = _setting("leastload", _choice(SCHEMES), "How the engine of a load-balanced task is chosen.")
    db: DatabaseURL | str | None = _setting(
        None,
        Rule(
            "sqlite, sqlite:///PATH, postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE, memory or none",
            _check_database,
            metavar="DATABASE",
        ),
        "Where task records are kept: in an SQLite file (in the profile's `db` directory, or at a path), in "
        "PostgreSQL, in memory until the hub stops, or not at all (none). None: sqlite, or memory without a profile "
        "directory.",
    )
    durability: str = _setting(
        "relaxed",
        _choice(DURABILITIES),
        "When records reach the disk: within 50 ms (relaxed); or requests before an engine sees them, and results "
        "before a client does (strict).",
    )
    db_keep: float | None = _setting(
        None,
        Rule("a time like 30d, 12h, 90m or a number of seconds", _check_duration, _duration_from_text, "TIME"),
        "How long records of finished tasks are kept. None: for ever.",
    )
    db_max_records: int | None = _setting(
        None,
        _or_none(_whole(1)),
        "Records of finished tasks to keep; the oldest are dropped first. None: 100,000 in memory, any number on disk.",
    )
    db_max_bytes: int | None = _setting(
        None,
        _or_none(_BYTES),
        "Bytes of finished tasks' records to keep; the oldest are dropped first. None: 1 GiB in memory, any number on "
        "disk.",
    )
    queue_memory: int = _setting(
        256 * 2**20,
        _BYTES,
        "Bytes of memory for queued tasks. With a database on disk, those beyond it come back from there when their "
        "turn comes; without, clients have to wait until there is room.",
    )
    engines: int = _setting(
        0, _whole(0), "Engines to start on this machine, to restart when they die, and to stop with the hub."
    )
    engine_command: tuple[str, ...] = _setting(
        (),
        Rule(
            "a list of words, the program first",
            _check_command,
            lambda text: tuple(shlex.split(text)),
            "COMMAND",
        ),
        "The command that starts a local engine. Empty: ipyparallel's own, under this Python.",
    )
    key: str | None = _setting(
        None,
        Rule("printable ASCII without spaces, at least one character", _check_key),
        "The key that signs every message. None: a fresh random one.",
        secret=True,
    )
    packer: str = _setting(
        "json",
        _checked_by(packer_named, "one of json, orjson, msgpack"),
        "How messages are serialised: json, orjson or msgpack.",
    )
    signature_scheme: str = _setting(
        "hmac-sha256",
        _checked_by(lambda scheme: Signer(b"", scheme), "hmac- and the name of a hash"),
        "How messages are signed: hmac- and the name of a hash of Python's hashlib.",
    )
    curve: bool = _setting(
        False, _BOOLEAN, "Whether all connections are encrypted with CurveZMQ; messages are signed all the same."
    )
    curve_publickey: str | None = _setting(
        None, _CURVE_KEY, "The hub's public CURVE key, if `curve` is on. None: that of `curve_secretkey`."
    )
    curve_secretkey: str | None = _setting(
        None, _CURVE_KEY, "The hub's secret CURVE key, if `curve` is on. None: a fresh one.", secret=True
    )
    curve_allowed_keys: Path | None = _setting(
        None,
        Rule("a file", _check_path, metavar="FILE"),
        "A file with the public CURVE keys of the clients and engines that may connect, one a line. None: any may.",
    )
    dashboard: str | None = _setting(
        None,
        _DASHBOARD,
        "Where metrics and the status are served over HTTP; without an address only to this machine. Port 0: the "
        "system chooses. None: nowhere.",
    )
    dashboard_token: str | None = _setting(
        None,
        _TOKEN,
        "What whoever asks the dashboard has to know. None: a fresh random one.",
        secret=True,
    )
    log_level: str = _setting("info", _choice(LOG_LEVELS), "The least serious messages that are logged.")
    log_format: str = _setting("text", _choice(LOG_FORMATS), "Log lines for people (text) or for programs (json).")

    def __post_init__(self) -> None:
        for name in RULES:
            object.__setattr__(self, name, _checked(name, getattr(self, name), name))
        if self.restore:
            object.__setattr__(self, "reuse", True)  # engines come back to the ports and the key they know
        if self.scheme == "pure":
            if self.hwm > 1:
                raise ConfigError(f"hwm is {self.hwm}, and scheme is pure, which has no limit: leave out one of them")
            object.__setattr__(self, "hwm", 0)
        if self.curve and self.curve_publickey is not None and self.curve_secretkey is None:
            raise ConfigError("curve_publickey is set, and curve_secretkey is not: set both, or the latter only")
        if self.curve_allowed_keys is not None and not self.curve:
            raise ConfigError("curve_allowed_keys is set, and curve is off: set it too, or nobody is kept out")

    @property
    def registration_timeout_seconds(self) -> float:
        """`registration_timeout`, or what it is when it is None."""
        if self.registration_timeout is not None:
            return self.registration_timeout
        return max(30.0, 10 * self.ping)

    @property
    def database(self) -> DatabaseURL:
        """`db`, or what it is when it is None; an SQLite database with its path."""
        database = (
            DatabaseURL(self.db) if self.db is not None else DatabaseURL("sqlite" if self.profile_dir else "memory")
        )
        if database != "sqlite":
            return database
        if self.profile_dir is None:
            raise ConfigError("db is sqlite, and there is no profile_dir for its file: set it, or use sqlite:///PATH")
        name = f"tasks-{self.cluster_id}.sqlite" if self.cluster_id else "tasks.sqlite"
        return DatabaseURL(f"{_SQLITE}{self.profile_dir / 'db' / name}")

    @property
    def client_address(self) -> str:
        """What clients' sockets listen on."""
        return self.client_ip or self.ip

    @property
    def engine_address(self) -> str:
        """What engines' sockets listen on."""
        return self.engine_ip or self.ip


RULES: dict[str, Rule] = {entry.name: entry.metadata["rule"] for entry in fields(HubConfig)}
_SECRET = {entry.name for entry in fields(HubConfig) if entry.metadata["secret"]}

if HubConfig.__doc__ is not None:  # it is under python -OO
    HubConfig.__doc__ += "\n    Attributes:\n" + "".join(
        f"        {entry.name}: {entry.metadata['doc']} Default: ``{entry.default!r}``.\n"
        for entry in fields(HubConfig)
    )


def _checked(name: str, value: object, label: str) -> Any:
    """The value in its final form. Raises `ConfigError`, which calls the setting by its `label`."""
    rule = RULES[name]
    try:
        return rule.check(value)
    except (ValueError, TypeError) as error:
        raise _refusal(name, value, label, error) from None


def shown_value(name: str, value: object) -> str:
    """A value, usable or not, of a setting that is not secret, as messages show it: without passwords."""
    return repr(DatabaseURL(value) if name == "db" and isinstance(value, str) else value)


def _refusal(name: str, value: object, label: str, error: Exception) -> ConfigError:
    shown = "not usable" if name in _SECRET else shown_value(name, value)
    remark = f" ({error})" if isinstance(error, _Remark) else ""
    return ConfigError(f"{label} is {shown}{remark}: expected {RULES[name].accepts}")


# Where settings come from


@dataclass(frozen=True)
class _Given:
    value: object
    label: str  # "--ping", "TRIO_HUB_PING", "ping in /etc/trio-hub.toml"
    is_text: bool  # as from a shell, to be read by the rule's from_text


PREFIX = "TRIO_HUB_"
_NAMES = (*RULES, "profile")
_PATHS = {"profile_dir", "curve_allowed_keys"}
_STOCK_VARIABLES = {
    "IPP_PROFILE_DIR": "profile_dir",
    "IPP_CLUSTER_ID": "cluster_id",
    "IPP_SESSION_KEY": "key",
    "IPP_ENABLE_CURVE": "curve",
    "IPP_CURVE_PUBLICKEY": "curve_publickey",
    "IPP_CURVE_SECRETKEY": "curve_secretkey",
}


def load_config(cli: Mapping[str, object], environ: Mapping[str, str], file: Path | None) -> HubConfig:
    """The settings of a command.

    `cli` holds the options that were given, under the names of `HubConfig`'s fields, as text or as values;
    None means that an option was not given. It, the environment and the file may name a ``profile`` instead
    of a ``profile_dir``. `file` is the TOML file, else the variable ``TRIO_HUB_CONFIG`` names one. Without
    any profile it is IPython's ``profile_default``. Empty variables count as not set.

    Raises:
        ConfigError: naming the setting, where it was found, and what is accepted.
    """
    file_label = "--config"
    if file is None and environ.get(f"{PREFIX}CONFIG"):
        file, file_label = Path(environ[f"{PREFIX}CONFIG"]), f"{PREFIX}CONFIG"
    values: dict[str, object] = {}
    for layer in (
        _from_file(file, file_label) if file is not None else {},
        _from_stock_variables(environ),
        _from_variables(environ),
        _from_options(cli),
    ):
        values |= {name: _read(name, given) for name, given in _with_profile_dir(layer, environ).items()}
    values.setdefault("profile_dir", profile_directory("default", environ))
    return HubConfig(**values)  # type: ignore[arg-type]  # each value has been checked under its name


def profile_directory(name: str, environ: Mapping[str, str]) -> Path:
    """The directory of the profile of that name, where IPython looks for it; it need not exist."""
    home = Path(environ.get("HOME") or Path.home())
    if environ.get("IPYTHONDIR"):
        base = Path(environ["IPYTHONDIR"]).expanduser()
    else:
        base = home / ".ipython"
        legacy = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "ipython"
        if not base.exists() and os.access(legacy, os.W_OK):
            base = legacy  # where very old IPythons had it, and where new ones still find it
    return (base / f"profile_{name}").absolute()


def _with_profile_dir(layer: dict[str, _Given], environ: Mapping[str, str]) -> dict[str, _Given]:
    """The layer with its ``profile`` turned into a ``profile_dir``."""
    profile = layer.get("profile")
    if profile is None:
        return layer
    if "profile_dir" in layer:
        other = layer["profile_dir"].label
        raise ConfigError(f"{profile.label} and {other} exclude each other: give one of them")
    if not isinstance(profile.value, str) or re.fullmatch(r"[^\s/\\\0]+", profile.value) is None:
        raise ConfigError(f"{profile.label} is {profile.value!r}: expected a name without spaces and slashes")
    directory = _Given(profile_directory(profile.value, environ), profile.label, is_text=False)
    return {name: given for name, given in layer.items() if name != "profile"} | {"profile_dir": directory}


def _read(name: str, given: _Given) -> object:
    value = given.value
    if given.is_text and isinstance(value, str):
        try:
            value = RULES[name].from_text(value)
        except ValueError as error:
            raise _refusal(name, value, given.label, error) from None
    return _checked(name, value, given.label)


def _from_options(cli: Mapping[str, object]) -> dict[str, _Given]:
    layer = {}
    for name, value in cli.items():
        if name not in _NAMES:
            raise ConfigError(_unknown(f"option --{name.replace('_', '-')}", name, _NAMES))
        if value is not None:
            layer[name] = _Given(value, f"--{name.replace('_', '-')}", is_text=True)
    return layer


def _from_variables(environ: Mapping[str, str]) -> dict[str, _Given]:
    known = {f"{PREFIX}{name.upper()}": name for name in _NAMES}
    layer = {}
    for variable, text in sorted(environ.items()):
        if not variable.upper().startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
            continue
        if variable not in known:
            what = f"the environment variable {variable}"
            raise ConfigError(_unknown(what, variable.upper(), (*known, f"{PREFIX}CONFIG")))
        if text:
            layer[known[variable]] = _Given(text, variable, is_text=True)
    return layer


def _from_stock_variables(environ: Mapping[str, str]) -> dict[str, _Given]:
    return {
        name: _Given(environ[variable], variable, is_text=True)
        for variable, name in _STOCK_VARIABLES.items()
        if environ.get(variable)
    }


def _from_file(path: Path, label: str) -> dict[str, _Given]:
    import tomllib  # late: most hubs have no such file

    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{label}: cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are among these
        raise ConfigError(f"{label}: {path} is not TOML: {error}") from error
    layer = {}
    for name, value in table.items():
        if name not in _NAMES:
            raise ConfigError(_unknown(f"{name!r} in {path}", name, _NAMES))
        if name in _PATHS and isinstance(value, str):
            value = path.absolute().parent / Path(value).expanduser()  # relative to the file, wherever we run
        if name == "db" and isinstance(value, str) and re.match(f"{_SQLITE}[^~]", value):
            value = f"{_SQLITE}{path.absolute().parent / value.removeprefix(_SQLITE)}"
        layer[name] = _Given(value, f"{name} in {path}", is_text=False)
    return layer


def _unknown(what: str, name: str, names: tuple[str, ...]) -> str:
    # Compared without the prefix, which would make any two variables look alike.
    bare = {known.removeprefix(PREFIX).lower(): known for known in names}
    near = [bare[match] for match in difflib.get_close_matches(name.removeprefix(PREFIX).lower(), bare, n=1)]
    hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(sorted(names))
    return f"{what} is not a setting: {hint}"
