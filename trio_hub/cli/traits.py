"""Every trait and option of ``ipcontroller`` 9.2 and its translation, in one table for code, docs and tests.

A trait is translated into settings of `HubConfig`, into an action of the command (such as opening a log file), or into
a remark that says why it has no effect. So no trait is ignored silently.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .kinds import ANYTHING, BOOLEAN, BYTES, DATABASE, DEPTH, FRESH_KEY, INTEGER, LEVEL, PAIR, PORTS, TEXT, Kind
from .translation import Given, Translation

__all__ = ["ALIASES", "FLAGS", "SECTIONS", "TRAITS", "Flag", "Trait"]


@dataclass(frozen=True)
class Trait:
    name: str
    """The class and the name, such as ``HeartMonitor.period``."""
    kind: Kind
    settings: tuple[str, ...]
    """The fields of `HubConfig` that the trait sets."""
    does: str
    """The effect of the trait on the command itself."""
    note: str
    """Details of the translation; or, for a trait without `settings` and `does`, the reason why it has no effect."""
    apply: Callable[[Translation, Any, str], None]


def _to(
    name: str, kind: Kind, setting: str, note: str = "", *, convert: Callable[[Any], object] | None = None
) -> Trait:
    """Return a trait that sets one setting. `convert` may return None, which means "not set"."""

    def apply(translation: Translation, value: Any, label: str) -> None:
        converted = convert(value) if convert is not None else value
        if converted is not None:
            translation.set(setting, converted, label, shown=value)

    return Trait(name, kind, (setting,), "", note, apply)


def _pool(name: str, kind: Kind, setting: str, note: str = "") -> Trait:
    def apply(translation: Translation, value: Any, label: str) -> None:
        ports = [value] if isinstance(value, int) else value
        translation.add_ports(setting, [port for port in ports if port != 0], label)  # 0 means "not set"

    return Trait(name, kind, (setting,), "", note, apply)


def _process(name: str, kind: Kind, does: str, note: str = "", *, settings: tuple[str, ...] = ()) -> Trait:
    def apply(translation: Translation, value: Any, label: str) -> None:
        translation.process[name.partition(".")[2]] = Given(value, label)

    return Trait(name, kind, settings, does, note, apply)


def _not_here(name: str, why: str, *defaults: object) -> Trait:
    """Return a trait without effect. A value other than the `defaults` gives a remark."""

    def apply(translation: Translation, value: Any, label: str) -> None:
        if all(str(value).lower() != str(default).lower() for default in defaults):
            translation.remark(label, why)

    return Trait(name, ANYTHING, (), "", why, apply)


def _special(
    name: str, kind: Kind, setting: str, note: str
) -> Callable[[Callable[[Translation, Any, str], None]], Trait]:
    return lambda apply: Trait(name, kind, (setting,), "", note, apply)


# Traits that need a function of their own


@_special("Session.key", BYTES, "key", "An empty key, which would turn off signing, is ignored.")
def _session_key(translation: Translation, value: Any, label: str) -> None:
    if value:
        translation.set("key", secrets.token_hex(16) if value is FRESH_KEY else value, label)
    else:
        translation.remark(label, "messages are always signed; clients and engines read the key from their files")


@_special("Session.keyfile", TEXT, "key", "The contents of the file are the key; takes precedence over `Session.key`.")
def _session_keyfile(translation: Translation, value: Any, label: str) -> None:
    if not value:
        return
    try:
        key = Path(value).expanduser().read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{label}: cannot read a key from {value}: {error}") from None
    translation.set("key", key, label)


_PACKERS = ("json", "orjson", "msgpack")
_PACKER_NOTE = "`json`, `orjson` or `msgpack`. For any other value, `json` is used. `pickle` is never used."


def _pack(translation: Translation, value: Any, label: str) -> None:
    name = value.lower()
    before = translation.settings.get("packer")
    if name not in _PACKERS:
        translation.remark(label, "the packer can be json, orjson or msgpack; json is used")
    elif before is None:
        translation.set("packer", name, label)
    elif before.value != name:
        translation.remark(label, f"packer and unpacker must be the same; {before.label} is used")


_CLASSES = {
    "ipyparallel.controller.dictdb.DictDB": "memory",
    "ipyparallel.controller.dictdb.NoDB": "none",
    "ipyparallel.controller.sqlitedb.SQLiteDB": "sqlite",
    "ipyparallel.controller.mongodb.MongoDB": "MongoDB",
}
_SHORT = {name.rpartition(".")[2].lower(): database for name, database in _CLASSES.items()}
_STORES = (
    "use memory (--dictdb), an SQLite file (--sqlitedb), PostgreSQL (TRIO_HUB_DB=postgresql://...) or no database "
    "(--nodb)"
)


@_special(
    "IPController.db_class",
    DATABASE,
    "db",
    "`DictDB`, the default of both, is `memory`; `NoDB` is `none`; `SQLiteDB` is `sqlite`. `MongoDB` and other classes "
    "are refused. PostgreSQL is chosen with `TRIO_HUB_DB`.",
)
def _db_class(translation: Translation, value: Any, label: str) -> None:
    database = _CLASSES.get(value) or _SHORT.get(value.lower())
    if database is None or database == "MongoDB":
        raise ConfigError(f"{label} is {value!r}, which is not supported: {_STORES}")
    translation.set("db", database, label)


@_special("TaskScheduler.hwm", INTEGER, "hwm", "Has no effect with the scheme `pure`, as in ipcontroller.")
def _hwm(translation: Translation, value: Any, label: str) -> None:
    scheme = translation.settings.get("scheme")
    if scheme is not None and scheme.value == "pure" and value > 1:
        translation.remark(label, "the scheme pure has no limit")
    else:
        translation.set("hwm", value, label)


def _tcp(name: str) -> Trait:
    return _not_here(name, "all connections are TCP", "tcp")


_PROFILE = ("profile_dir",)
_PROFILE_NOTE = "Not in a config file, since config files are read when the profile is known."
_DEPRECATED = "Deprecated in ipcontroller too."
_LINES = "the format of log lines is fixed; TRIO_HUB_LOG_FORMAT=json gives JSON lines for programs"
_PYTHON_OBJECTS = "the hub passes on buffers unchanged"
_NO_MONITOR = "there is no monitor socket, since the hub is one process"
_NO_CONFIG = "no config file is written; use `ipython profile create --parallel`"
_NO_MONGO = f"MongoDB is not supported; {_STORES}"
_IN_MEMORY = "Only for records in memory. Only records of finished tasks count."


def _table() -> dict[str, Trait]:
    app = "IPController"
    traits = [
        # the profile
        _process(f"{app}.profile", TEXT, "", _PROFILE_NOTE, settings=_PROFILE),
        _process(
            "ProfileDir.location",
            TEXT,
            "",
            f"Takes precedence over the profile's name. {_PROFILE_NOTE}",
            settings=_PROFILE,
        ),
        _process(f"{app}.ipython_dir", TEXT, "the directory of profiles, as `IPYTHONDIR`", _PROFILE_NOTE),
        _process(
            f"{app}.auto_create",
            BOOLEAN,
            "whether a missing profile directory is created",
            f"If not, a missing directory is an error. {_PROFILE_NOTE}",
        ),
        _process(f"{app}.extra_config_file", TEXT, "another config file", "It must exist."),
        _not_here(f"{app}.copy_config_files", _NO_CONFIG, False),
        _not_here(f"{app}.overwrite", _NO_CONFIG, False),
        _not_here(f"{app}.add_ipython_dir_to_sys_path", "the hub imports no code from there", False),
        _to(f"{app}.cluster_id", TEXT, "cluster_id"),
        # addresses and ports
        _to(f"{app}.ip", TEXT, "ip"),
        _to(f"{app}.client_ip", TEXT, "client_ip", "Takes precedence over `ip`, whatever their sources."),
        _to(f"{app}.engine_ip", TEXT, "engine_ip", "Takes precedence over `ip`, whatever their sources."),
        _not_here(f"{app}.monitor_ip", _NO_MONITOR, "127.0.0.1"),
        *(_tcp(f"{app}.{side}transport") for side in ("", "client_", "engine_", "monitor_")),
        _to(f"{app}.location", TEXT, "location"),
        _pool(f"{app}.ports", PORTS, "ports"),
        _pool(f"{app}.client_ports", PORTS, "client_ports"),
        _pool(f"{app}.engine_ports", PORTS, "engine_ports"),
        _pool(f"{app}.regport", INTEGER, "engine_ports", f"Appended. {_DEPRECATED}"),
        _pool(f"{app}.notifier_port", INTEGER, "client_ports", f"Appended. {_DEPRECATED}"),
        _pool(f"{app}.hb", PAIR, "engine_ports", f"Both appended. {_DEPRECATED}"),
        *(_pair(f"{app}.{channel}") for channel in ("mux", "task", "control", "iopub")),
        _not_here(f"{app}.mon_port", _NO_MONITOR, 0),
        _to(f"{app}.ssh_server", TEXT, "ssh_server"),
        _to(f"{app}.engine_ssh_server", TEXT, "engine_ssh_server"),
        # connection files and security
        _to(f"{app}.reuse_files", BOOLEAN, "reuse"),
        _to(f"{app}.restore_engines", BOOLEAN, "restore", "Implies `reuse`."),
        _not_here(
            f"{app}.client_json_file", "connection files are named by the cluster id", "ipcontroller-client.json"
        ),
        _not_here(
            f"{app}.engine_json_file", "connection files are named by the cluster id", "ipcontroller-engine.json"
        ),
        _to(f"{app}.enable_curve", BOOLEAN, "curve", "Messages are signed in either case."),
        _to(f"{app}.curve_publickey", BYTES, "curve_publickey", convert=lambda key: key or None),
        _to(f"{app}.curve_secretkey", BYTES, "curve_secretkey", convert=lambda key: key or None),
        _session_key,
        _session_keyfile,
        _to("Session.signature_scheme", TEXT, "signature_scheme"),
        Trait("Session.packer", TEXT, ("packer",), "", _PACKER_NOTE, _pack),
        Trait("Session.unpacker", TEXT, ("packer",), "", "As `Session.packer`, which takes precedence.", _pack),
        _not_here("Session.session", "the hub chooses its own session id", ""),
        _not_here("Session.username", "the hub's messages do not name a user"),
        _not_here("Session.metadata", "the hub adds no metadata to its messages", {}),
        _not_here("Session.debug", "messages are not logged", False),
        _not_here("Session.check_pid", "the hub does not fork", True),
        _not_here("Session.digest_history_size", "the size of the replay window is fixed", 65536),
        _not_here("Session.copy_threshold", "the hub decides itself which frames it copies", 65536),
        _not_here("Session.buffer_threshold", _PYTHON_OBJECTS, 1024),
        _not_here("Session.item_threshold", _PYTHON_OBJECTS, 64),
        # engines
        _to(f"{app}.registration_timeout", INTEGER, "registration_timeout", "0: not set.", convert=lambda s: s or None),
        _to(
            "HeartMonitor.period",
            INTEGER,
            "ping",
            "Milliseconds in ipcontroller, seconds here.",
            convert=lambda milliseconds: milliseconds / 1000,
        ),
        _to("HeartMonitor.max_heartmonitor_misses", INTEGER, "max_heartmonitor_misses"),
        _not_here("HeartMonitor.debug", "heartbeats are not logged", False),
        # tasks
        _to("TaskScheduler.scheme_name", TEXT, "scheme"),
        _hwm,
        _to(
            f"{app}.broadcast_scheduler_depth",
            DEPTH,
            "broadcast_ports",
            "A depth of N means 2**N ports.",
            convert=lambda depth: 2**depth,
        ),
        _not_here(f"{app}.use_threads", "all schedulers run in one thread of one process", False),
        # records
        _db_class,
        _to("DictDB.record_limit", INTEGER, "db_max_records", _IN_MEMORY),
        _to("DictDB.size_limit", INTEGER, "db_max_bytes", _IN_MEMORY),
        _not_here("DictDB.cull_fraction", "the hub drops no more records than the limits require"),
        _file("filename", "The name of the file. `tasks.db`, ipcontroller's default, means the hub's default name."),
        _file("location", "The directory of the file. Default: the profile directory."),
        _not_here(
            "SQLiteDB.table",
            "a file has one table, which also contains the records of earlier hubs; to separate them, use another file",
            "ipython-tasks",
        ),
        *(_not_here(f"MongoDB.{name}", _NO_MONGO) for name in ("connection_args", "connection_kwargs", "database")),
        # the process
        _to(f"{app}.log_level", LEVEL, "log_level", "By name or number; 0 is `debug`."),
        _process(f"{app}.log_to_file", BOOLEAN, "a log file", "`ipcontroller-ID-PID.log` in the profile's `log`."),
        _process(f"{app}.clean_logs", BOOLEAN, "removal of old log files", "Those of the same cluster id."),
        _not_here(f"{app}.log_url", "logs are not published by ZeroMQ; they are written to stderr or to a file", ""),
        _not_here(f"{app}.log_format", _LINES),
        _not_here(f"{app}.log_datefmt", _LINES),
        _not_here(f"{app}.logging_config", _LINES, {}),
        _process(f"{app}.work_dir", TEXT, "the working directory"),
        _not_here(f"{app}.verbose_crash", "unexpected errors are always logged with their tracebacks", False),
        _process(f"{app}.show_config", BOOLEAN, "the output of `trio-hub config show`", "No hub is started."),
        _process(f"{app}.show_config_json", BOOLEAN, "the same output as JSON", "No hub is started."),
    ]
    return {trait.name: trait for trait in traits}


def _file(name: str, note: str) -> Trait:
    def apply(translation: Translation, value: Any, label: str) -> None:
        translation.sqlite[name] = Given(value, label)

    return Trait(f"SQLiteDB.{name}", TEXT, ("db",), "", note, apply)


def _pair(name: str) -> Trait:
    def apply(translation: Translation, value: Any, label: str) -> None:
        for setting, port in zip(("client_ports", "engine_ports"), value, strict=True):
            translation.add_ports(setting, [port] if port != 0 else [], label)

    return Trait(name, PAIR, ("client_ports", "engine_ports"), "", f"One appended to each. {_DEPRECATED}", apply)


TRAITS = _table()
"""The traits by name, in the order in which they are applied."""

_APP = ("IPController",)
SECTIONS: dict[str, tuple[str, ...]] = {
    "Application": _APP,
    "BaseIPythonApplication": _APP,
    "BaseParallelApplication": _APP,
    "IPControllerApp": _APP,  # IPController had this and the next name before IPython Parallel 7
    "HubFactory": _APP,
    "IPController": _APP,
    "ProfileDir": ("ProfileDir",),
    "Session": ("Session",),
    "HeartMonitor": ("HeartMonitor",),
    "Scheduler": ("TaskScheduler",),
    "TaskScheduler": ("TaskScheduler",),
    "BaseDB": ("DictDB", "SQLiteDB", "MongoDB"),
    "DictDB": ("DictDB",),
    "SQLiteDB": ("SQLiteDB",),
    "MongoDB": ("MongoDB",),
    "NoDB": (),
    "Hub": (),
    "BroadcastScheduler": (),
}
"""The classes whose traits a config section can set: its own class and the classes that inherit from it.

If several sections set a trait, the last of them in this table applies.
"""

ALIASES = {
    "profile": "IPController.profile",
    "profile-dir": "ProfileDir.location",
    "ipython-dir": "IPController.ipython_dir",
    "config": "IPController.extra_config_file",
    "cluster-id": "IPController.cluster_id",
    "ip": "IPController.ip",
    "location": "IPController.location",
    "port": "IPController.regport",
    "ports": "IPController.ports",
    "transport": "IPController.transport",
    "ssh": "IPController.ssh_server",
    "enginessh": "IPController.engine_ssh_server",
    "keyfile": "Session.keyfile",
    "ident": "Session.session",
    "user": "Session.username",
    "ping": "HeartMonitor.period",
    "scheme": "TaskScheduler.scheme_name",
    "hwm": "TaskScheduler.hwm",
    "work-dir": "IPController.work_dir",
    "log-level": "IPController.log_level",
    "log-to-file": "IPController.log_to_file",
    "clean-logs": "IPController.clean_logs",
    "log-url": "IPController.log_url",
}
"""Options with a value, without their dashes, and the trait that each sets."""


@dataclass(frozen=True)
class Flag:
    sets: tuple[tuple[str, object], ...]
    help: str


def _database(name: str) -> tuple[tuple[str, object], ...]:
    return (("IPController.db_class", name),)


FLAGS = {
    "reuse": Flag((("IPController.reuse_files", True),), "reuse the existing connection files"),
    "restore": Flag(
        (("IPController.restore_engines", True), ("IPController.reuse_files", True)),
        "also take over the engines of the earlier hub",
    ),
    "dictdb": Flag(_database("DictDB"), "keep task records in memory (the default)"),
    "nodb": Flag(_database("NoDB"), "keep no task records"),
    "sqlitedb": Flag(_database("SQLiteDB"), "keep task records in an SQLite file, in the hub's own format"),
    "mongodb": Flag(_database("MongoDB"), "refused: MongoDB is not supported; use SQLite or PostgreSQL"),
    "secure": Flag((("Session.key", FRESH_KEY), ("Session.keyfile", "")), "sign messages with a new key"),
    "no-secure": Flag((("Session.key", ""), ("Session.keyfile", "")), "no effect: messages are always signed"),
    "usethreads": Flag((("IPController.use_threads", True),), "no effect: the hub is one process"),
    "log-to-file": Flag((("IPController.log_to_file", True),), "log to a file in the profile"),
    "debug": Flag((("IPController.log_level", 10),), "log everything"),
    "quiet": Flag((("IPController.log_level", 50),), "log critical errors only, and no warnings"),
    "init": Flag(
        (("IPController.copy_config_files", True), ("IPController.auto_create", True)), "no config file is written"
    ),
    "show-config": Flag((("IPController.show_config", True),), "print the settings and their sources"),
    "show-config-json": Flag(
        (("IPController.show_config_json", True),), "print the settings and their sources as JSON"
    ),
}
"""Options without a value. They take precedence over options with a value, as in ipcontroller."""
