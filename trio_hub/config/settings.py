"""`HubConfig`: all settings of a hub. They are checked once, and never change afterwards."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from ..pools.settings import PoolSettings
from ..schedulers.policy import Policy
from ..wire.packers import packer_named
from ..wire.signing import Signer
from . import rules
from .policies import POLICIES
from .pools import LOCAL, POOLS, Pool
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
"""The names of `trio_hub.schedulers.schemes.SCHEMES`. This module must not import that one; a test compares the two."""

DURABILITIES = ("relaxed", "strict")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")
ENGINE_LOGS = ("file", "inherit", "none")


def _setting(default: T, rule: Rule, doc: str, *, secret: bool = False) -> T:
    metadata = {"rule": rule, "doc": doc, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """The settings of one hub. Each has a default. All are checked when the object is made.

    Raises:
        ConfigError: A value cannot be used. The message names the setting, the value, and the accepted values.
    """

    profile_dir: Path | None = _setting(
        None,
        Rule("a directory", rules.check_path, metavar="DIR"),
        "The IPython profile directory. It is created if it is missing. Connection files are written into its "
        "`security` directory. None: no files are written, for a hub inside another program.",
    )
    cluster_id: str = _setting(
        "",
        rules.text("a name without spaces and slashes", r"[^\s/\\\0]*"),
        "A name that is part of the names of the connection files, so that one profile can have several hubs.",
    )
    ip: str = _setting("127.0.0.1", rules.ADDRESS, "The address that all sockets listen on.")
    client_ip: str = _setting(
        "", rules.ADDRESS_OR_EMPTY, "The address that the sockets for clients listen on. Empty: the address in `ip`."
    )
    engine_ip: str = _setting(
        "", rules.ADDRESS_OR_EMPTY, "The address that the sockets for engines listen on. Empty: the address in `ip`."
    )
    location: str = _setting(
        "",
        rules.text("a host name or address", r"[^\s/\0]*"),
        "The host name or address by which other machines reach the hub, written into the connection files. Empty: the "
        "name of this host.",
    )
    ports: tuple[int, ...] = _setting((), rules.PORTS, "The TCP ports to listen on. Empty: the system chooses.")
    client_ports: tuple[int, ...] = _setting(
        (),
        rules.PORTS,
        "TCP ports for the sockets for clients, used before the ports in `ports`. If both are empty, the system "
        "chooses.",
    )
    engine_ports: tuple[int, ...] = _setting(
        (),
        rules.PORTS,
        "TCP ports for the sockets for engines and for registration, used before the ports in `ports`. If both are "
        "empty, the system chooses.",
    )
    ssh_server: str = _setting(
        "",
        rules.SSH_SERVER,
        "The ssh server through which clients connect to the hub, written into their connection file. Empty: none.",
    )
    engine_ssh_server: str = _setting(
        "",
        rules.SSH_SERVER,
        "The ssh server through which engines connect to the hub, written into their connection file. Empty: none.",
    )
    broadcast_ports: int = _setting(
        1, rules.whole(1), "The number of ports over which engines' connections for broadcasts are distributed."
    )
    reuse: bool = _setting(
        False,
        rules.BOOLEAN,
        "Whether to use the key, ports and addresses of existing connection files, and to keep the files when the hub "
        "stops. With a database on disk, the hub also continues the requests that an earlier hub has not answered.",
    )
    restore: bool = _setting(
        False,
        rules.BOOLEAN,
        "Whether to take over the engines of an earlier hub, with their ids. Implies `reuse`.",
    )
    force: bool = _setting(
        False,
        rules.BOOLEAN,
        "Whether to start although another hub, or ipcontroller, is running with the same profile and cluster id. This "
        "hub then replaces the connection files, which the other hub no longer removes.",
    )
    ping: float = _setting(3.0, rules.seconds(zero=False), "Seconds from one heartbeat ping to the next.")
    max_heartmonitor_misses: int = _setting(
        10, rules.whole(1), "An engine that misses more heartbeats in a row than this is lost."
    )
    registration_timeout: float | None = _setting(
        None,
        rules.or_none(rules.seconds(zero=False)),
        "Seconds within which a new engine must answer its first heartbeat, and within which the hub must be able to "
        "send to an engine. None: 10 times `ping`, at least 30 s.",
    )
    stranded_grace: float = _setting(
        5.0,
        rules.seconds(zero=True),
        "Seconds for which the hub still accepts results of a lost engine. Then its tasks are retried on other "
        "engines, or fail.",
    )
    stop_grace: float = _setting(
        5.0,
        rules.seconds(zero=True),
        "Seconds that local engines, and then the database, have to finish when the hub stops.",
    )
    hwm: int = _setting(
        1,
        rules.whole(0),
        "The maximum number of tasks that an engine has at a time: one is running, the others wait at the engine. "
        "0: no limit.",
    )
    scheme: str = _setting(
        "leastload", rules.choice(SCHEMES), "The rule by which the hub chooses the engine for a task."
    )
    unmet_timeout: float = _setting(
        0.0,
        rules.seconds(zero=True),
        "Seconds after which a queued task fails that no registered engine can ever run, since none offers what it "
        "needs or all have refused it. 0: it waits.",
    )
    policies: tuple[Policy, ...] = _setting(
        (), POLICIES, "The rules that the hub gives to tasks that match a label, a function or a client."
    )
    db: DatabaseURL | str | None = _setting(
        None,
        Rule(
            "sqlite, sqlite:///PATH, postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE, memory or none",
            rules.check_database,
            metavar="DATABASE",
        ),
        "The task database: an SQLite file (in the profile's `db` directory, or at a path), PostgreSQL, memory (until "
        "the hub stops), or none. None: sqlite, or memory without a profile directory.",
    )
    durability: str = _setting(
        "relaxed",
        rules.choice(DURABILITIES),
        "When records are written to disk. relaxed: within 50 ms. strict: a request before it is sent to an engine, "
        "and a result before it is sent to a client.",
    )
    db_keep: float | None = _setting(
        None,
        Rule(
            "a time such as 30d, 12h, 90m or a number of seconds",
            rules.check_duration,
            rules.duration_from_text,
            "TIME",
        ),
        "How long records of finished tasks are kept. None: no limit.",
    )
    db_max_records: int | None = _setting(
        None,
        rules.or_none(rules.whole(1)),
        "The maximum number of records of finished tasks. The oldest are dropped first. None: 100,000 in memory, no "
        "limit on disk.",
    )
    db_max_bytes: int | None = _setting(
        None,
        rules.or_none(rules.BYTES),
        "The maximum size of the records of finished tasks, in bytes. The oldest are dropped first. None: 1 GiB in "
        "memory, no limit on disk.",
    )
    queue_memory: int = _setting(
        256 * 2**20,
        rules.BYTES,
        "Bytes of memory for queued tasks. Beyond it, with a database on disk, tasks are read back from the database "
        "when an engine is to run them; without one, the hub reads no requests until there is room.",
    )
    max_message_frames: int = _setting(
        100_000,
        rules.whole(100),
        "The maximum number of frames of a message: six, and one for each buffer. The hub drops a message with more.",
    )
    max_message_bytes: int = _setting(
        64 * 2**30,
        rules.BYTES,
        "The maximum size of each frame of a message, in bytes. ZeroMQ closes the connection of a peer that sends a "
        "larger one.",
    )
    subscriber_queue: int = _setting(
        64 * 2**20,
        rules.BYTES,
        "Bytes of memory, for each client, for output that the client does not read in time; and as many for "
        "notifications. Beyond that, the hub drops the oldest messages for that client.",
    )
    engines: int = _setting(
        0,
        rules.whole(0),
        "The number of engines that the hub starts on this machine. It restarts them when they die, unless they were "
        "told to stop, and stops them when it stops.",
    )
    pools: tuple[Pool, ...] = _setting(
        (),
        POOLS,
        "The pools of engines that the hub starts when tasks need them, on this machine or with a batch system, and "
        "gives back when they are idle.",
    )
    engine_command: tuple[str, ...] = _setting(
        (),
        Rule(
            "a list of words that begins with the program",
            rules.check_command,
            lambda text: tuple(shlex.split(text)),
            "COMMAND",
        ),
        "The command that starts a local engine. Empty: trio-hub engine. ipengine: ipyparallel's engine. The hub's "
        "Python runs either.",
    )
    engine_tags: tuple[str, ...] = _setting(
        (), rules.TAGS, "Tags and amounts of the local engines, for tasks with needs. Other programs ignore them."
    )
    engine_log: str | None = _setting(
        None,
        rules.or_none(rules.choice(ENGINE_LOGS)),
        "Where the output of local engines goes. file: a file per engine, in the profile's `log` directory. inherit: "
        "the hub's stderr. none: nowhere. None: file, or inherit without a profile directory.",
    )
    key: str | None = _setting(
        None,
        Rule("printable ASCII without spaces, at least one character", rules.check_key),
        "The key that signs every message. None: a new random key.",
        secret=True,
    )
    packer: str = _setting(
        "json",
        rules.checked_by(packer_named, "one of json, orjson, msgpack"),
        "The serialisation of messages: json, orjson or msgpack.",
    )
    signature_scheme: str = _setting(
        "hmac-sha256",
        rules.checked_by(lambda scheme: Signer(b"", scheme), "hmac- followed by the name of a hash"),
        "The signature scheme of messages: hmac- followed by the name of a hash in Python's hashlib.",
    )
    curve: bool | None = _setting(
        None,
        rules.or_none(rules.BOOLEAN),
        "Whether all connections are encrypted with CurveZMQ. Messages are signed in either case. None: encrypted if "
        "the address for clients or the address for engines is not a loopback address; with `reuse`, as in the "
        "connection files.",
    )
    curve_publickey: str | None = _setting(
        None, rules.CURVE_KEY, "The hub's public CURVE key, if `curve` is on. None: derived from `curve_secretkey`."
    )
    curve_secretkey: str | None = _setting(
        None,
        rules.CURVE_KEY,
        "The hub's secret CURVE key, if `curve` is on. None: a new key, or with `reuse` the key of the earlier hub.",
        secret=True,
    )
    curve_allowed_keys: Path | None = _setting(
        None,
        Rule("a file", rules.check_path, metavar="FILE"),
        "A file with the public CURVE keys of the clients and engines that may connect, one per line. None: all keys "
        "may connect.",
    )
    dashboard: str | None = _setting(
        None,
        rules.DASHBOARD,
        "The address and port of the dashboard (HTTP). Without an address, it can be reached from this machine only. "
        "Port 0: the system chooses. None: no dashboard.",
    )
    dashboard_token: str | None = _setting(
        None,
        rules.TOKEN,
        "The secret that every request to the dashboard must contain. None: a new random token.",
        secret=True,
    )
    dashboard_admin: bool = _setting(
        False,
        rules.BOOLEAN,
        "Whether the dashboard's users may also abort, resubmit and purge tasks, and stop engines and the hub.",
    )
    dashboard_prefix: str = _setting(
        "",
        rules.DASHBOARD_PREFIX,
        "The path below which a reverse proxy shows the dashboard, such as /user/jo/trio-hub. A request's header "
        "X-Forwarded-Prefix has priority. Empty: the dashboard has no such path.",
    )
    log_level: str = _setting("info", rules.choice(LOG_LEVELS), "The lowest level of messages that are logged.")
    log_format: str = _setting(
        "text", rules.choice(LOG_FORMATS), "The format of log lines: text for people, json for programs."
    )

    def __post_init__(self) -> None:
        for name in RULES:
            object.__setattr__(self, name, checked(name, getattr(self, name), name))
        if self.restore:
            object.__setattr__(self, "reuse", True)  # the engines return to the ports and the key that they know
        if self.scheme == "pure":
            if self.hwm > 1:
                raise ConfigError(f"hwm is {self.hwm}, but the scheme pure has no limit: leave out one of the two")
            object.__setattr__(self, "hwm", 0)
        if self.encrypted and self.curve_publickey is not None and self.curve_secretkey is None:
            raise ConfigError("curve_publickey is set without curve_secretkey: set both, or only curve_secretkey")
        if self.engine_log == "file" and self.profile_dir is None:
            raise ConfigError("engine_log is file, but no profile_dir is set for the files: set profile_dir")
        if self.curve_allowed_keys is not None and not self.encrypted:
            raise ConfigError("curve_allowed_keys is set, but curve is off, so any client could connect: set curve too")
        if self.engines and any(pool.name == LOCAL for pool in self.pools):
            raise ConfigError(
                f"engines is {self.engines}, which is the pool {LOCAL!r}, but pools has a pool of this name, too: "
                "leave out engines, or give the pool another name"
            )
        _ = self.all_pools  # raises an error if engines is too large for a pool

    @property
    def registration_timeout_seconds(self) -> float:
        """`registration_timeout` in seconds; the default derived from `ping` if it is None."""
        if self.registration_timeout is not None:
            return self.registration_timeout
        return max(30.0, 10 * self.ping)

    @property
    def heart_timeout(self) -> float:
        """Seconds of silence after which an engine is lost."""
        return self.ping * (self.max_heartmonitor_misses + 1)

    @property
    def database(self) -> DatabaseURL:
        """`db`, or the default if it is None. The URL of an SQLite database includes its path."""
        database = (
            DatabaseURL(self.db) if self.db is not None else DatabaseURL("sqlite" if self.profile_dir else "memory")
        )
        if database != "sqlite":
            return database
        if self.profile_dir is None:
            raise ConfigError(
                "db is sqlite, but no profile_dir is set for its file: set profile_dir, or use sqlite:///PATH"
            )
        name = f"tasks-{self.cluster_id}.sqlite" if self.cluster_id else "tasks.sqlite"
        return DatabaseURL(f"{rules.SQLITE}{self.profile_dir / 'db' / name}")

    @property
    def all_pools(self) -> tuple[Pool, ...]:
        """The pool ``local`` that `engines` stands for, unless `engines` is 0; and then `pools`."""
        if not self.engines:
            return self.pools
        tags = rules.parse_tags(self.engine_tags)
        settings = PoolSettings(LOCAL, min=self.engines, max=self.engines, backlog=None, tags=tags)
        return (Pool(settings), *self.pools)

    @property
    def pools_out_of_reach(self) -> tuple[str, ...]:
        """The names of the pools whose engines probably run on other machines, from which they cannot reach the hub."""
        if self.engine_ssh_server or not rules.is_loopback(self.engine_address):
            return ()
        return tuple(pool.name for pool in self.pools if pool.is_elsewhere)

    @property
    def engine_output(self) -> str:
        """`engine_log`, or the default if it is None."""
        return self.engine_log or ("file" if self.profile_dir else "inherit")

    @property
    def client_address(self) -> str:
        """The address that the sockets for clients listen on."""
        return self.client_ip or self.ip

    @property
    def engine_address(self) -> str:
        """The address that the sockets for engines listen on."""
        return self.engine_ip or self.ip

    @property
    def exposed_addresses(self) -> tuple[str, ...]:
        """The addresses of the sockets for clients and engines that can be reached from other machines."""
        both = dict.fromkeys((self.client_address, self.engine_address))
        return tuple(address for address in both if not rules.is_loopback(address))

    @property
    def encrypted(self) -> bool:
        """`curve`, or the default if it is None and no connection files are reused."""
        return bool(self.exposed_addresses) if self.curve is None else self.curve


RULES: dict[str, Rule] = {entry.name: entry.metadata["rule"] for entry in fields(HubConfig)}
_SECRET = {entry.name for entry in fields(HubConfig) if entry.metadata["secret"]}

if HubConfig.__doc__ is not None:  # it is None under python -OO
    HubConfig.__doc__ += "\n    Attributes:\n" + "".join(
        f"        {entry.name}: {entry.metadata['doc']} Default: ``{entry.default!r}``.\n"
        for entry in fields(HubConfig)
    )


def checked(name: str, value: object, label: str) -> Any:
    """Check a value and return it in its final form. Raises `ConfigError`, which names the setting by its `label`."""
    rule = RULES[name]
    try:
        return rule.check(value)
    except (ValueError, TypeError) as error:
        raise refusal(name, value, label, error) from None


def shown_value(name: str, value: object) -> str:
    """Return a value of a setting, which may be invalid, as text for a message. Passwords in URLs are left out."""
    return repr(DatabaseURL(value) if name == "db" and isinstance(value, str) else value)


def refusal(name: str, value: object, label: str, error: Exception) -> ConfigError:
    """Return the error for a value that a setting does not accept. The values of secret settings are not shown."""
    shown = "not usable" if name in _SECRET else shown_value(name, value)
    remark = f" ({error})" if isinstance(error, rules.Remark) else ""
    return ConfigError(f"{label} is {shown}{remark}: expected {RULES[name].accepts}")
