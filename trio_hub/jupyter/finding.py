"""Finds the dashboard of the user's hub, or says why there is none and what to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from ..config import HubConfig, load_config
from ..config.connectionfiles import connection_paths
from ..config.rules import is_loopback
from ..dashboard.published import PublishedDashboard, find_dashboards
from ..errors import ConfigError

__all__ = ["NoDashboard", "Target", "find_target"]


class NoDashboard(Exception):
    """There is no dashboard to show. The text says why; ``remedy`` says what to do, ``command`` with which command."""

    def __init__(self, text: str, remedy: str, command: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy
        self.command = command


class Target(NamedTuple):
    """The dashboard that gets the requests."""

    host: str
    port: int
    token: str


def find_target(environ: Mapping[str, str] = os.environ) -> Target:
    """Return the dashboard of the user's hub.

    The environment chooses the profile as it does for ``trio-hub serve`` (TRIO_HUB_PROFILE, TRIO_HUB_PROFILE_DIR,
    IPP_PROFILE_DIR, TRIO_HUB_CONFIG), and may choose a hub by its cluster id. Otherwise the hub without a cluster id is
    taken, or the hub that was started last.

    Raises:
        NoDashboard: No such hub runs, or it has no dashboard that this machine can reach.
    """
    try:
        config = load_config({}, environ, None)
    except ConfigError as error:
        raise NoDashboard(f"The settings are not usable: {error}.", "Correct them, and start Jupyter again.") from error
    assert config.profile_dir is not None
    found = find_dashboards(config.profile_dir)
    dashboard = found.get(config.cluster_id)
    if dashboard is None and not config.cluster_id:
        dashboard = next(iter(found.values()), None)
    if dashboard is None:
        raise _none(config)
    try:
        address = urlsplit(dashboard.address)
        host, port = address.hostname, address.port
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise _none(config)
    if not dashboard.is_here and is_loopback(host):
        raise _elsewhere(dashboard)
    return Target(host, port, dashboard.token)


def _none(config: HubConfig) -> NoDashboard:
    """Return why there is no dashboard: no hub, or a hub without a dashboard."""
    assert config.profile_dir is not None
    where = f"the profile {config.profile_dir}" + f" with the cluster id {config.cluster_id}" * bool(config.cluster_id)
    command = "trio-hub serve --dashboard 0"
    if config.cluster_id:
        files = [connection_paths(config.profile_dir, config.cluster_id)[0]]
    else:
        files = list((config.profile_dir / "security").glob("ipcontroller*-client.json"))
    if any(path.exists() for path in files):
        return NoDashboard(
            f"There are connection files of a hub in {where}, but the hub has no dashboard, or has ended.",
            "Start the hub with a dashboard:",
            command,
        )
    return NoDashboard(f"No hub runs in {where}.", "Start a hub in a terminal on this machine:", command)


def _elsewhere(dashboard: PublishedDashboard) -> NoDashboard:
    return NoDashboard(
        f"The hub runs on {dashboard.host}, and only that machine can reach its dashboard.",
        f"Start Jupyter on {dashboard.host}, or let the dashboard listen on an address that this machine can reach. "
        "The dashboard does not encrypt.",
        "trio-hub serve --dashboard ADDRESS:0",
    )
