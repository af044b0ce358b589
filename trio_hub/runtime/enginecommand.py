"""The command that starts a local engine."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ..config import HubConfig, Pool
from ..launching.commands import Places, engine_arguments, engine_program, safe_path
from ..logs import get_logger

__all__ = ["STOCK", "engine_command", "pool_command", "warn_of_config_files"]

log = get_logger("trio_hub.runtime")

STOCK = "ipengine"
"""The command that means the stock engine, run by the hub's Python."""


def engine_command(config: HubConfig) -> list[str]:
    """Return the program and the arguments that start a local engine of a hub with these settings.

    Connection info is not among the arguments: the engine gets it through its environment.
    """
    if config.engine_command and config.engine_command != (STOCK,):
        return list(config.engine_command)
    if not config.engine_command:
        command = [sys.executable, *safe_path(), "-m", "trio_hub", "engine"]
    elif find_spec("ipyparallel") is not None:
        command = [sys.executable, "-m", "ipyparallel.engine"]
    else:  # the program may be installed elsewhere
        command = [STOCK]
    if config.profile_dir is not None:
        command.append(f"--profile-dir={config.profile_dir}")
    if config.cluster_id:
        command.append(f"--cluster-id={config.cluster_id}")
    return command


def pool_command(config: HubConfig, pool: Pool) -> list[str]:
    """Return the program and the arguments that start an engine of a pool on the hub's machine.

    The engine gets its connection info, and the name of its block, through its environment.
    """
    places = Places(Path(), config.profile_dir, config.cluster_id)
    arguments = [word for word in engine_arguments(pool, "", places) if not word.startswith("--block=")]
    return [*engine_program(pool), *arguments]


def warn_of_config_files(config: HubConfig) -> None:
    """Warn if the profile has settings for the stock engine, and the hub starts engines that do not read them."""
    if config.profile_dir is None or not config.engines or config.engine_command:
        return
    for path in sorted(config.profile_dir.glob("ipengine_config.*")):
        with suppress(OSError, UnicodeDecodeError):
            lines = {line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines()}
            if lines - {"", "c = get_config()"}:
                log.warning(
                    "local engines do not read the config file of ipengine: set engine_command to ipengine for stock "
                    "engines, or to trio-hub engine with options",
                    file=path,
                )
