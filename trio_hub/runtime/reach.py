"""Warns of pools whose engines cannot reach the hub."""

from __future__ import annotations

from ..config import HubConfig
from ..logs import get_logger

__all__ = ["warn_of_pools_out_of_reach"]

log = get_logger("trio_hub.runtime")


def warn_of_pools_out_of_reach(config: HubConfig) -> None:
    """Warn if pools start engines on other machines, and the hub can be reached from this machine only.

    This is no error, since the only node of a batch system may be this machine.
    """
    if config.pools_out_of_reach:
        log.warning(
            "engines on other machines cannot reach the hub, which listens on a loopback address: set engine_ip or ip, "
            "unless the engines of these pools run on this machine",
            pools=" ".join(config.pools_out_of_reach),
            address=config.engine_address,
        )
