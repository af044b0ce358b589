"""Checks of settings before the hub starts. Each error names the setting and what to do.

Only the commands make these checks. A hub inside another program reports the same faults when it meets them.
"""

from __future__ import annotations

import os
import shlex
import shutil
from contextlib import suppress
from pathlib import Path

from ..config import HubConfig
from ..config.pools import LOCAL
from ..errors import ConfigError
from ..runtime.enginecommand import STOCK, engine_command
from .limits import engines_within, open_files_limit

__all__ = ["check_settings", "memory_available", "nearest_existing"]

MEMORY_PER_ENGINE = 15 << 20
"""Bytes that an idle engine of ours needs, at least, together with the process that watches it."""


def check_settings(config: HubConfig) -> None:
    """Check that the profile is a directory, and that this machine can run the local engines. Raises `ConfigError`."""
    _check_profile(config)
    if config.engines:
        _check_engine_program(config)
    _check_number_of_engines(config)


def nearest_existing(path: Path) -> Path:
    """Return this path, or the nearest path above it that exists. A path that this user may not see does not count."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _check_profile(config: HubConfig) -> None:
    if config.profile_dir is None:
        return
    path = config.profile_dir.absolute()
    place = nearest_existing(path)
    if not os.path.isdir(place):  # `Path.is_dir` raises an error if this user may not see the target of a link
        what = "it" if place == path else str(place)
        raise ConfigError(
            f"profile_dir is {config.profile_dir}, but {what} is not a directory: choose a directory, or a path "
            "that does not exist yet, with --profile-dir"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        what = "" if place == path else f"{place} exists, and "
        raise ConfigError(
            f"profile_dir is {config.profile_dir}, but {what}this user may not write there: choose another directory "
            "with --profile-dir"
        )


def _check_engine_program(config: HubConfig) -> None:
    program = engine_command(config)[0]
    if shutil.which(program) is not None:
        return
    if config.engine_command == (STOCK,):
        remedy = "install it with pip install ipyparallel, or leave out --engine-command to run trio-hub's own engines"
        raise ConfigError(f"engine_command is {STOCK}, but ipyparallel is not installed where the hub runs: {remedy}")
    raise ConfigError(
        f"engine_command is {shlex.join(config.engine_command)}, but there is no program {program}: give the path of "
        "an executable file"
    )


def _check_number_of_engines(config: HubConfig) -> None:
    """Check that this machine has room for local engines: those of ``engines``, and those of local pools."""
    pools = [pool.settings for pool in config.pools if pool.launcher == LOCAL]
    most = config.engines + sum(pool.max for pool in pools)
    _check_room(config, most, _hard_limits(), "max of the pools with the launcher local" if pools else "")
    # With reuse, engines of an earlier hub may run already, and have their memory. Nobody knows how much memory will be
    # free when a pool grows, so only the engines that start at once count.
    if not config.engine_command and not config.reuse and (free := memory_available()) is not None:
        used = f"{MEMORY_PER_ENGINE >> 20} MiB each"
        bound = (free // MEMORY_PER_ENGINE, f"{free >> 20:,} MiB of memory are free, and engines need {used}")
        least = config.engines + sum(pool.min for pool in pools)
        _check_room(config, least, [bound], "min of the pools with the launcher local" if pools else "")


def _hard_limits() -> list[tuple[int, str]]:
    """Return the limits of the system: how many engines each limit allows, and what the limit is, in words."""
    bounds: list[tuple[int, str]] = []
    if (files := open_files_limit()) is not None:
        bounds.append((engines_within(files), f"the limit on open files is {files:,} (ulimit -n)"))
    if (pids := _number_in(Path("/proc/sys/kernel/pid_max"))) is not None:
        bounds.append((pids // 2, f"the system allows {pids:,} processes, and an engine needs two"))
    return bounds


def _check_room(config: HubConfig, wanted: int, bounds: list[tuple[int, str]], of_pools: str) -> None:
    room, why = min(bounds, default=(wanted, ""))
    if wanted > room:
        names = " and ".join(filter(None, ["engines" if config.engines else "", of_pools]))
        total = " in all" if of_pools else ""
        raise ConfigError(
            f"{names} is {wanted}{total}, but this machine has room for about {room:,}: {why}. Start fewer engines "
            "here, and further engines on other machines"
        )


def memory_available() -> int | None:
    """Return the bytes of memory that new processes can use without swapping; None if the system does not say."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    return None


def _number_in(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text("ascii"))
    return None
