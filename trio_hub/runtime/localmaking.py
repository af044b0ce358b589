"""Builds the local engines of a hub from its settings."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import HubConfig
from ..config.pools import LOCAL
from .children import LocalEngines
from .enginecommand import engine_command, pool_command, warn_of_config_files
from .enginelogs import EngineLogs, engine_logs
from .factory import HubFactory
from .host import RuntimeHost
from .pooling.localgroup import LocalGroup
from .security import Security

__all__ = ["local_engines"]


def local_engines(host: RuntimeHost, factory: HubFactory, security: Security, config: HubConfig) -> LocalGroup:
    """Return all local engines of a hub. None of them runs yet."""

    def make(n: int, command: Sequence[str], logs: EngineLogs, tags: Sequence[str] = ()) -> LocalEngines:
        engines = LocalEngines(
            n,
            factory.engine_info,
            command=command,
            logs=logs,
            grace=config.stop_grace,
            failures=host.failures,
            ask_to_end=host.ask_engine_to_end,
            give_back=host.give_engine_back,
            lost=host.local_engine_ended,
            changed=host.tell_change,
            tags=tags,
        )
        security.give_to_engines(engines.environment)
        return engines

    warn_of_config_files(config)
    return LocalGroup(
        make(config.engines, engine_command(config), engine_logs(config), config.engine_tags),
        {
            pool.name: make(0, pool_command(config, pool), engine_logs(config, pool.name))
            for pool in config.pools
            if pool.launcher == LOCAL
        },
        make(0, ["false"], engine_logs(config)),
    )
