"""`HubConfig`: every setting of a hub, checked once, and never changed afterwards."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from ..wire.packers import packer_named
from ..wire.signing import Signer
from . import rules
from .rules import DatabaseURL, Rule

# ruff: noqa: RUF009 - each default is made by _setting, which calls dataclasses.field

__all__ = [
    "DURABILITIES",
    "LOG_FORMATS",
    "LOG_LEVELS",
    "RULES",
    "SCHEMES",
    "HubConfig",
    "checked",
    "refusal",
    "shown_value",
]

T = TypeVar("T")

SCHEMES = ("leastload", "lru", "plainrandom", "pure", "twobin", "weighted")
"""Those of `trio_hub.schedulers.schemes`, which this module must not import; a test compares the two."""

DURABILITIES = ("relaxed", "strict")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")


def _setting(default: T, rule: Rule, doc: str, *, secret: bool = False) -> T:
    metadata = {"rule": rule, "doc": doc, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """The settings of one hub. Each has a default, and each is checked when the object is made.

    Raises:
        ConfigError: naming the setting, the value, and what is accepted.
    """

    profile_dir: Path | None = _setting(
        None,
        Rule("a directory", rules.check_path, metavar="DIR"),
        "The IPython profile directory. Connection files go into its `security` directory; it is made if it "
        "is missing. None: no file is written, for a hub within another program.",
    )
    cluster_id: str = _setting(
        "",
        rules.text("a name without spaces and slashes", r"[^\s/\\\0]*"),
        "Tells several hubs of one profile apart: it becomes part of the connection files' names.",
    )
    ip: str = _setting("127.0.0.1", rules.ADDRESS, "The address that all sockets listen on.")
    client_ip: str = _setting(
        "", rules.ADDRESS_OR_EMPTY, "The address for clients, where it is another than `ip`. Empty: `ip`."
    )
    engine_ip: str = _setting(
        "", rules.ADDRESS_OR_EMPTY, "The address for engines, where it is another than `ip`. Empty: `ip`."
    )
    location: str = _setting(
        "",
        rules.text("a host name or address", r"[^\s/\0]*"),
        "The name under which other machines reach this one, written to the connection files. Empty: this "
        "host's own name.",
    )
    ports: tuple[int, ...] = _setting((), rules.PORTS, "The TCP ports to listen on. Empty: the system chooses.")
    client_ports: tuple[int, ...] = _setting(
        (), rules.PORTS, "Ports for clients, taken before those of `ports`. Without either the system chooses."
    )
    engine_ports: tuple[int, ...] = _setting(
        (),
        rules.PORTS,
        "Ports for engines and registration, taken before those of `ports`. Without either the system chooses.",
    )
    ssh_server: str = _setting(
        "",
        rules.SSH_SERVER,
        "The host through which clients reach the hub by ssh, written to their connection file. Empty: none.",
    )
    engine_ssh_server: str = _setting(
        "",
        rules.SSH_SERVER,
        "The host through which engines reach the hub by ssh, written to their connection file. Empty: none.",
    )
    broadcast_ports: int = _setting(
        1, rules.whole(1), "Ports to which the engines' connections for broadcasts are spread."
    )
    reuse: bool = _setting(
        False,
        rules.BOOLEAN,
        "Whether to start with the key and ports of the connection files that are there, and to leave them at the end; "
        "and, with a database on disk, to carry on with what the hub before has not answered.",
    )
    restore: bool = _setting(
        False,
        rules.BOOLEAN,
        "Whether to take up the engines that the hub before had, with their ids; `reuse` goes with it.",
    )
    force: bool = _setting(
        False,
        rules.BOOLEAN,
        "Whether to start although another hub, or ipcontroller, is running with the same profile and cluster id. This "
        "hub then replaces the connection files, which the other hub no longer removes.",
    )
    ping: float = _setting(3.0, rules.seconds(zero=False), "Seconds from one heartbeat to the next.")
    max_heartmonitor_misses: int = _setting(
        10, rules.whole(1), "An engine that leaves more heartbeats in a row than this unanswered is lost."
    )
    registration_timeout: float | None = _setting(
        None,
        rules.seconds(zero=False, none=True),
        "Seconds that a new engine has to answer its first heartbeat, and any engine to be reached by what is sent to "
        "it. None: 10 heartbeats, at least 30 s.",
    )
    stranded_grace: float = _setting(
        5.0,
        rules.seconds(zero=True),
        "Seconds in which results of a lost engine are still taken, before its tasks go to others or fail.",
    )
    stop_grace: float = _setting(
        5.0, rules.seconds(zero=True), "Seconds that local engines, and then the database, have to finish at the stop."
    )
    hwm: int = _setting(
        1, rules.whole(0), "Load-balanced tasks that an engine has at a time, waiting ones included. 0: no limit."
    )
    scheme: str = _setting("leastload", rules.choice(SCHEMES), "How the engine of a load-balanced task is chosen.")
    db: DatabaseURL | str | None = _setting(
        None,
        Rule(
            "sqlite, sqlite:///PATH, postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE, memory or none",
            rules.check_database,
            metavar="DATABASE",
        ),
        "Where task records are kept: in an SQLite file (in the profile's `db` directory, or at a path), in "
        "PostgreSQL, in memory until the hub stops, or not at all (none). None: sqlite, or memory without a profile "
        "directory.",
    )
    durability: str = _setting(
        "relaxed",
        rules.choice(DURABILITIES),
        "When records reach the disk: within 50 ms (relaxed); or requests before an engine sees them, and results "
        "before a client does (strict).",
    )
    db_keep: float | None = _setting(
        None,
        Rule(
            "a time like 30d, 12h, 90m or a number of seconds", rules.check_duration, rules.duration_from_text, "TIME"
        ),
        "How long records of finished tasks are kept. None: for ever.",
    )
    db_max_records: int | None = _setting(
        None,
        rules.or_none(rules.whole(1)),
        "Records of finished tasks to keep; the oldest are dropped first. None: 100,000 in memory, any number on disk.",
    )
    db_max_bytes: int | None = _setting(
        None,
        rules.or_none(rules.BYTES),
        "Bytes of finished tasks' records to keep; the oldest are dropped first. None: 1 GiB in memory, any number on "
        "disk.",
    )
    queue_memory: int = _setting(
        256 * 2**20,
        rules.BYTES,
        "Bytes of memory for queued tasks. With a database on disk, those beyond it come back from there when their "
        "turn comes; without, clients have to wait until there is room.",
    )
    max_message_frames: int = _setting(
        100_000,
        rules.whole(100),
        "Frames that a message may have: six, and one for each buffer. A longer one is thrown away, unread.",
    )
    max_message_bytes: int = _setting(
        64 * 2**30,
        rules.BYTES,
        "Bytes that each frame of a message may have. ZeroMQ closes the connection of a peer that sends a longer one.",
    )
    subscriber_queue: int = _setting(
        64 * 2**20,
        rules.BYTES,
        "Bytes of memory for the output, and for the notifications, that a client does not read in time. Beyond it the "
        "oldest are dropped for that client.",
    )
    engines: int = _setting(
        0,
        rules.whole(0),
        "Engines to run on this machine: the hub starts them again when they die, unless they were told to stop, and "
        "stops them at its own end.",
    )
    engine_command: tuple[str, ...] = _setting(
        (),
        Rule(
            "a list of words, the program first",
            rules.check_command,
            lambda text: tuple(shlex.split(text)),
            "COMMAND",
        ),
        "The command that starts a local engine. Empty: ipyparallel's own, under this Python.",
    )
    key: str | None = _setting(
        None,
        Rule("printable ASCII without spaces, at least one character", rules.check_key),
        "The key that signs every message. None: a fresh random one.",
        secret=True,
    )
    packer: str = _setting(
        "json",
        rules.checked_by(packer_named, "one of json, orjson, msgpack"),
        "How messages are serialised: json, orjson or msgpack.",
    )
    signature_scheme: str = _setting(
        "hmac-sha256",
        rules.checked_by(lambda scheme: Signer(b"", scheme), "hmac- and the name of a hash"),
        "How messages are signed: hmac- and the name of a hash of Python's hashlib.",
    )
    curve: bool | None = _setting(
        None,
        rules.or_none(rules.BOOLEAN),
        "Whether all connections are encrypted with CurveZMQ; messages are signed all the same. None: they are "
        "if the address for clients or that for engines is not a loopback address; with `reuse`, as the connection "
        "files say.",
    )
    curve_publickey: str | None = _setting(
        None, rules.CURVE_KEY, "The hub's public CURVE key, if `curve` is on. None: that of `curve_secretkey`."
    )
    curve_secretkey: str | None = _setting(
        None,
        rules.CURVE_KEY,
        "The hub's secret CURVE key, if `curve` is on. None: a fresh one, or with `reuse` that of the hub before.",
        secret=True,
    )
    curve_allowed_keys: Path | None = _setting(
        None,
        Rule("a file", rules.check_path, metavar="FILE"),
        "A file with the public CURVE keys of the clients and engines that may connect, one a line. None: any may.",
    )
    dashboard: str | None = _setting(
        None,
        rules.DASHBOARD,
        "Where metrics and the status are served over HTTP; without an address only to this machine. Port 0: the "
        "system chooses. None: nowhere.",
    )
    dashboard_token: str | None = _setting(
        None,
        rules.TOKEN,
        "What whoever asks the dashboard has to know. None: a fresh random one.",
        secret=True,
    )
    dashboard_admin: bool = _setting(
        False,
        rules.BOOLEAN,
        "Whether the dashboard may also act: abort, resubmit and purge tasks, and stop engines and the hub.",
    )
    log_level: str = _setting("info", rules.choice(LOG_LEVELS), "The least serious messages that are logged.")
    log_format: str = _setting("text", rules.choice(LOG_FORMATS), "Log lines for people (text) or for programs (json).")

    def __post_init__(self) -> None:
        for name in RULES:
            object.__setattr__(self, name, checked(name, getattr(self, name), name))
        if self.restore:
            object.__setattr__(self, "reuse", True)  # engines come back to the ports and the key they know
        if self.scheme == "pure":
            if self.hwm > 1:
                raise ConfigError(f"hwm is {self.hwm}, and scheme is pure, which has no limit: leave out one of them")
            object.__setattr__(self, "hwm", 0)
        if self.encrypted and self.curve_publickey is not None and self.curve_secretkey is None:
            raise ConfigError("curve_publickey is set, and curve_secretkey is not: set both, or the latter only")
        if self.curve_allowed_keys is not None and not self.encrypted:
            raise ConfigError("curve_allowed_keys is set, and curve is off: set it too, or nobody is kept out")

    @property
    def registration_timeout_seconds(self) -> float:
        """`registration_timeout`, or what it is when it is None."""
        if self.registration_timeout is not None:
            return self.registration_timeout
        return max(30.0, 10 * self.ping)

    @property
    def heart_timeout(self) -> float:
        """Seconds of silence after which an engine is lost."""
        return self.ping * (self.max_heartmonitor_misses + 1)

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
        return DatabaseURL(f"{rules.SQLITE}{self.profile_dir / 'db' / name}")

    @property
    def client_address(self) -> str:
        """What clients' sockets listen on."""
        return self.client_ip or self.ip

    @property
    def engine_address(self) -> str:
        """What engines' sockets listen on."""
        return self.engine_ip or self.ip

    @property
    def exposed_addresses(self) -> tuple[str, ...]:
        """The addresses, of clients' and engines' sockets, that can be reached from other machines."""
        both = dict.fromkeys((self.client_address, self.engine_address))
        return tuple(address for address in both if not rules.is_loopback(address))

    @property
    def encrypted(self) -> bool:
        """`curve`, or what it is when it is None and there are no connection files to go by."""
        return bool(self.exposed_addresses) if self.curve is None else self.curve


RULES: dict[str, Rule] = {entry.name: entry.metadata["rule"] for entry in fields(HubConfig)}
_SECRET = {entry.name for entry in fields(HubConfig) if entry.metadata["secret"]}

if HubConfig.__doc__ is not None:  # it is under python -OO
    HubConfig.__doc__ += "\n    Attributes:\n" + "".join(
        f"        {entry.name}: {entry.metadata['doc']} Default: ``{entry.default!r}``.\n"
        for entry in fields(HubConfig)
    )


def checked(name: str, value: object, label: str) -> Any:
    """The value in its final form. Raises `ConfigError`, which calls the setting by its `label`."""
    rule = RULES[name]
    try:
        return rule.check(value)
    except (ValueError, TypeError) as error:
        raise refusal(name, value, label, error) from None


def shown_value(name: str, value: object) -> str:
    """A value, usable or not, of a setting that is not secret, as messages show it: without passwords."""
    return repr(DatabaseURL(value) if name == "db" and isinstance(value, str) else value)


def refusal(name: str, value: object, label: str, error: Exception) -> ConfigError:
    shown = "not usable" if name in _SECRET else shown_value(name, value)
    remark = f" ({error})" if isinstance(error, rules.Remark) else ""
    return ConfigError(f"{label} is {shown}{remark}: expected {RULES[name].accepts}")
