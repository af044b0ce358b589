"""The setting ``pools``: the ``[[pool]]`` tables of the file of settings, checked."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..errors import ConfigError
from ..pools.settings import PoolSettings
from ..schedulers.rules import shown
from .poolvalues import READERS, cores, known_launchers, parse_pool_text, plain_traits, read_pool_text, stock_is_here
from .rules import Rule

__all__ = ["COMMAND", "LOCAL", "POOLS", "POOL_KEYS", "STOCK_ENGINE", "Pool", "checked_pool", "parse_pool", "read_pools"]

LOCAL = "local"
"""The launcher with which the hub itself starts engines on its machine, and the name of the pool of ``--engines``."""
COMMAND = "command"
"""The launcher that runs shell commands of the user."""
OUR_ENGINE, STOCK_ENGINE = "trio-hub", "ipengine"
_WITHOUT_QUEUE = frozenset({LOCAL, "trio-hub", "mpi", "ssh"})
_UNUSABLE = frozenset({"sshproxy", "winhpc"})
"""The launchers of ipyparallel that do not run a command of ours for each engine."""
_OURS = "trio-hub-"
"""Our launchers are named like ipyparallel's, with this in front."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_OF_THE_COMMAND = ("submit_command", "cancel_command", "status_command")
_TAKEN = {
    "n": "engines_per_block",
    "engine_args": "engine_args",
    "engine_cmd": "engine, python or wrap_command",
}
"""The traits of ipyparallel's launchers that the hub sets itself, each with the key of a pool to use instead."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of engines: how large it may be, and how its blocks are started.

    - ``settings``: the settings on which its size depends;
    - ``launcher``: ``local``, ``command``, or the name of an entry point of ``ipyparallel.engine_launchers``;
    - ``traits``: the traits of that launcher, such as ``{"queue": "short"}``;
    - ``engine``: ``trio-hub``, or ``ipengine`` for the stock engine;
    - ``engine_args``: further arguments of the engine's command;
    - ``python``: the Python that runs engines on the nodes; empty: the hub's own;
    - ``start_command``, ``stop_command``: shell commands that run on a node before and after each engine;
    - ``wrap_command``: words in front of the engine's command, such as ``apptainer exec image.sif``;
    - ``submit_command``, ``cancel_command``, ``status_command``: shell commands of the launcher ``command``;
    - ``keep``: whether blocks stay when the hub stops.

    A pool is checked when a `HubConfig` gets it.
    """

    settings: PoolSettings
    launcher: str = LOCAL
    traits: Mapping[str, Any] = field(default_factory=dict, hash=False)
    engine: str = OUR_ENGINE
    engine_args: tuple[str, ...] = ()
    python: str = ""
    start_command: str = ""
    stop_command: str = ""
    wrap_command: str = ""
    submit_command: str = ""
    cancel_command: str = ""
    status_command: str = ""
    keep: bool = False

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def has_queue(self) -> bool:
        """Whether blocks of this pool may wait in the queue of a batch system. Unknown launchers have a queue."""
        return self.launcher.removeprefix(_OURS) not in _WITHOUT_QUEUE

    @property
    def is_elsewhere(self) -> bool:
        """Whether engines of this pool probably run on other machines. For ``command``, it is False."""
        return self.launcher not in (LOCAL, COMMAND) and self.launcher.removeprefix(_OURS) not in ("trio-hub", "mpi")

    def as_dict(self) -> dict[str, Any]:
        """Return the pool as JSON values, in the form that `parse_pool` reads. Keys without a value are left out."""
        said = {entry.name: getattr(self.settings, entry.name) for entry in fields(PoolSettings)}
        said["tags"] = dict(self.settings.offers)
        said |= {entry.name: getattr(self, entry.name) for entry in fields(Pool) if entry.name != "settings"}
        said |= {"traits": plain_traits(self.traits), "engine_args": list(self.engine_args)}
        first = {"name": said.pop("name"), "launcher": said.pop("launcher")}
        return first | {key: value for key, value in said.items() if value not in (None, "", [], {})}


_SIZES = tuple(entry.name for entry in fields(PoolSettings))
_OTHERS = tuple(entry.name for entry in fields(Pool) if entry.name != "settings")
POOL_KEYS = ("name", "launcher", *(key for key in (*_SIZES, *_OTHERS) if key not in ("name", "launcher")))
"""The keys of a ``[[pool]]`` table."""


def read_pools(pools: Any, label: str) -> tuple[Pool, ...]:
    """Return the pools in a list of tables, texts such as ``name=local,max=8``, and `Pool` objects.

    Args:
        pools: the list.
        label: where the list comes from, for the error.

    Raises:
        ConfigError: A pool cannot be used. The text names its source, its number, its name and the remedy.
    """
    if isinstance(pools, str | bytes | Mapping) or not isinstance(pools, Iterable):
        raise ConfigError(f"{label} is {shown(pools)}: expected {POOLS.accepts}")
    found: dict[str, Pool] = {}
    for number, each in enumerate(pools, 1):
        try:
            table = parse_pool_text(each) if isinstance(each, str) else each
            pool = checked_pool(table) if isinstance(table, Pool) else parse_pool(table)
            if pool.name in found:
                raise ConfigError(f"there is a pool {pool.name!r} already: use another name")
        except ConfigError as error:
            raise ConfigError(f"{label}, number {number}: {error}") from None
        found[pool.name] = pool
    return tuple(found.values())


def parse_pool(table: Any) -> Pool:
    """Return the pool in a table with some of `POOL_KEYS`.

    Raises:
        ConfigError: The table has an unknown key or an unusable value. The text names the pool, the key, and what the
            value must be.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"a pool must be a table with a name and max, not {shown(table)}")
    name = _checked_name(table.get("name"))
    for key in table:
        if key not in POOL_KEYS:
            raise ConfigError(f"pool {name}: {shown(key)} is no key of a pool: {_hint(key)}")
    said = {key: _read(name, key, value) for key, value in table.items() if value is not None}
    launcher = said.get("launcher", LOCAL)
    pool = Pool(PoolSettings(name), **{key: said[key] for key in _OTHERS if key in said})
    if not pool.has_queue:
        if "backlog" in said:
            raise ConfigError(f"pool {name}: the launcher {launcher} has no queue: leave out backlog")
        said["backlog"] = None
    sizes = {key: said[key] for key in _SIZES if key in said}
    if "max" not in sizes:
        if launcher != LOCAL:
            raise ConfigError(
                f"pool {name}: max is missing: say how many engines the pool may have at most, such as max = 8"
            )
        sizes["max"] = _most_here(PoolSettings(**sizes | {"max": 10**6}))
    return checked_pool(replace(pool, settings=PoolSettings(**sizes)))


def checked_pool(pool: Pool) -> Pool:
    """Return a pool in its final form, after all checks that concern more than one key.

    Raises:
        ConfigError: The pool cannot be used. The text names the pool, the key and the remedy.
    """
    if not isinstance(pool.settings, PoolSettings):
        raise ConfigError(f"the settings of a pool must be PoolSettings, not {shown(pool.settings)}")
    name = _checked_name(pool.name)
    values = {key: _read(name, key, getattr(pool, key)) for key in _OTHERS}
    _read(name, "tags", dict(pool.settings.offers))
    settings = pool.settings if pool.has_queue else replace(pool.settings, backlog=None)
    pool = Pool(settings, **values)
    if pool.engine not in (OUR_ENGINE, STOCK_ENGINE):
        raise _wrong(pool, "engine", f"{OUR_ENGINE} or {STOCK_ENGINE}")
    if settings.time_limit is not None and not pool.has_queue:
        raise ConfigError(
            f"pool {name}: time_limit is set, but nobody would end a block of the launcher {pool.launcher} then: leave "
            "out time_limit"
        )
    _check_commands(pool)
    _check_launcher(pool)
    _check_traits(pool)
    if pool.engine == STOCK_ENGINE and settings.tags:
        raise ConfigError(
            f"pool {name}: tags is set, but {STOCK_ENGINE} offers no tags, so no task with needs would find its "
            f"engines: leave out tags, or set engine to {OUR_ENGINE}"
        )
    if pool.engine == STOCK_ENGINE and not pool.python and not stock_is_here():
        raise ConfigError(
            f"pool {name}: engine is {STOCK_ENGINE}, but ipyparallel is not installed: install it with pip install "
            "ipyparallel, or set python to a Python that has it"
        )
    return pool


def _checked_name(name: Any) -> str:
    if name is None:
        raise ConfigError("a pool has no name: give each pool a name, such as name = 'local'")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"the name of a pool is {shown(name)}: it must be 1 to 40 letters, digits, - and _, and begin with a "
            "letter or digit, since it is part of the names of files and jobs"
        )
    return name


def _read(name: str, key: str, value: Any) -> Any:
    """Return the value of a key as `Pool` and `PoolSettings` take it."""
    if key not in READERS:
        return value  # PoolSettings checks it
    reader = READERS[key]
    try:
        return reader.check(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        because = f" ({error})" if isinstance(error, ConfigError) else ""
        raise ConfigError(f"pool {name}: {key} is {shown(value)}{because}: it must be {reader.accepts}") from None


def _most_here(settings: PoolSettings) -> int:
    """Return the default of ``max`` for engines on this machine: one for each core, and at least ``min`` or a block."""
    size = settings.engines_per_block
    return max(cores(), size, -(-settings.min // size) * size)


def _check_commands(pool: Pool) -> None:
    given = [key for key in _OF_THE_COMMAND if getattr(pool, key)]
    if pool.launcher != COMMAND and given:
        remedy = f"leave out {given[0]}, or set launcher to {COMMAND}"
        if pool.launcher != LOCAL:
            remedy += f"; a trait of the launcher {pool.launcher} is written in the table [pool.traits]"
        raise ConfigError(f"pool {pool.name}: {given[0]} is a key of the launcher {COMMAND} only: {remedy}")
    if pool.launcher == COMMAND:
        for key in ("submit_command", "cancel_command"):
            if key not in given:
                raise ConfigError(
                    f"pool {pool.name}: {key} is missing: the launcher {COMMAND} needs a shell command to submit a "
                    "block, and one to cancel it"
                )
    try:
        shlex.split(pool.wrap_command)
    except ValueError:
        raise _wrong(pool, "wrap_command", "words as in a shell, with each quotation mark closed") from None


def _check_launcher(pool: Pool) -> None:
    if pool.launcher in (LOCAL, COMMAND):
        return
    if pool.launcher in _UNUSABLE:
        raise ConfigError(
            f"pool {pool.name}: the launcher {pool.launcher} does not run the command of the pool for each engine: use "
            "another launcher, such as ssh"
        )
    found = known_launchers() - _UNUSABLE
    if pool.launcher in found:
        return
    names = sorted({LOCAL, COMMAND, *found})
    near = difflib.get_close_matches(pool.launcher.lower(), names, n=1)
    hint = f"did you mean {near[0]}?" if near else "the launchers are " + ", ".join(names)
    if not stock_is_here():
        hint = (
            f"launchers other than {LOCAL} and {COMMAND} are in the package ipyparallel, which is not installed: "
            "install it with pip install ipyparallel"
        )
    raise ConfigError(f"pool {pool.name}: launcher is {shown(pool.launcher)}, which is not known: {hint}")


def _check_traits(pool: Pool) -> None:
    if pool.traits and pool.launcher in (LOCAL, COMMAND):
        raise ConfigError(f"pool {pool.name}: the launcher {pool.launcher} has no traits: leave out [pool.traits]")
    for trait in pool.traits:
        if trait in _TAKEN:
            raise ConfigError(f"pool {pool.name}: the hub sets the trait {trait} itself: use {_TAKEN[trait]} instead")


def _hint(key: Any) -> str:
    near = difflib.get_close_matches(key[:100] if isinstance(key, str) else "", POOL_KEYS, n=1)
    return f"did you mean {near[0]}?" if near else f"the keys are {', '.join(POOL_KEYS)}"


def _wrong(pool: Pool, key: str, what: str) -> ConfigError:
    return ConfigError(f"pool {pool.name}: {key} is {shown(getattr(pool, key))}: it must be {what}")


def _check(value: Any) -> tuple[Pool, ...]:
    return read_pools(value, "pools")


POOLS = Rule("a list of tables, each with a name and the keys of a pool", _check, read_pool_text, "KEY=VALUE,...")
