"""`serve_dashboard`: serve the dashboard of a running hub until the hub stops."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import time

import trio

from .. import __version__
from ..config import HubConfig, split_address
from ..errors import ConfigError
from ..logs import get_logger
from ..runtime import RunningHub
from ..services import keep_running
from .published import publish, published_path

__all__ = ["Dashboard", "serve_dashboard"]

log = get_logger("trio_hub.dashboard")

ANYWHERE = "127.0.0.1:0"
PACKAGES = "hypercorn starlette prometheus-client"
"""The packages that the dashboard needs besides those of the hub. A test compares them with pyproject.toml."""
_WILDCARDS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Dashboard:
    """A dashboard that is being served."""

    address: str
    """The URL without a token and without a slash at the end, such as ``http://127.0.0.1:8788``. It has the prefix."""
    port: int
    """The TCP port."""
    token: str = field(repr=False)
    """The token that requests must contain, as ``?token=…`` or in the header ``Authorization: Bearer …``."""

    @property
    def url(self) -> str:
        """The URL for a browser, which contains the token."""
        return f"{self.address}/?token={self.token}"


async def serve_dashboard(
    hub: RunningHub,
    address: str | int | None = None,
    token: str | None = None,
    *,
    admin: bool | None = None,
    prefix: str | None = None,
    task_status: trio.TaskStatus[Dashboard] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the dashboard of a hub over HTTP until the hub has stopped, or this call is cancelled.

    ``dashboard = await nursery.start(serve_dashboard, hub)`` returns a `Dashboard` when the port is bound.
    `trio_hub.serve_hub` does not start the dashboard; programs start it beside the hub. After the start, an error in
    the dashboard is logged and counted (`Statistics.service_failures`), and the failed part is started again. The hub
    is not affected.

    Args:
        hub: The hub, as returned by `trio_hub.serve_hub`.
        address: ``[ADDRESS:]PORT``. None: the hub's setting ``dashboard``; if that is not set, a port of 127.0.0.1 that
            the system chooses.
        token: The token. None: the hub's setting ``dashboard_token``; if that is not set, a new random token.
        admin: Whether actions are allowed. None: the hub's setting ``dashboard_admin``.
        prefix: The path below which a reverse proxy shows the dashboard. None: the hub's setting ``dashboard_prefix``.

    Raises:
        ConfigError: The address cannot be used, or one of the `PACKAGES` is not installed.
    """
    config = HubConfig(
        dashboard=address if address is not None else hub.config.dashboard or ANYWHERE,  # type: ignore[arg-type]
        dashboard_token=token if token is not None else hub.config.dashboard_token,
        dashboard_admin=admin if admin is not None else hub.config.dashboard_admin,
        dashboard_prefix=prefix if prefix is not None else hub.config.dashboard_prefix,
    )
    try:
        # imported here, since this takes a quarter of a second and needs optional packages
        from .access import Access
        from .app import dashboard_app
        from .feed import Feed
        from .history import History, cause_of, history_path, left_in_order
        from .journal import Journal
        from .server import Server
        from .timings import Timings
        from .watching import Watch
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("trio_hub"):
            raise
        raise ConfigError(
            f"dashboard: {error.name} is not installed: run pip install {PACKAGES}, or leave out the setting"
        ) from error
    assert config.dashboard is not None
    host, port = split_address(config.dashboard)
    try:
        (listener,) = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise ConfigError(
            f"dashboard: cannot listen on {config.dashboard}: {error.strerror or error}. Choose another port, or 0 for "
            "any free port"
        ) from error
    async with listener:
        port = listener.socket.getsockname()[1]
        dashboard = Dashboard(
            f"http://{_name(host, hub.config)}:{port}{config.dashboard_prefix}",
            port,
            config.dashboard_token or secrets.token_urlsafe(),
        )
        timings = Timings()
        journal = Journal(partial(cause_of, hub), partial(left_in_order, hub), time)
        history = History(history_path(hub), journal, time)
        await history.load()
        journal.note("started", "info", f"The dashboard has started (trio-hub {__version__}).", near=-1.0)
        watch = Watch(timings, journal=journal.happened)
        feed = Feed(hub, watch, history, admin=config.dashboard_admin)
        app = dashboard_app(hub, feed, Access(dashboard.token, host, port, config.dashboard_prefix))
        listeners = [listener]

        async def serve_http() -> None:
            # serving closes the listener; after a failure, the same port is opened again
            one = listeners.pop() if listeners else (await trio.open_tcp_listeners(port, host=host))[0]
            async with one:
                await Server(app).serve([one], hub.wait_stopped)

        failures = hub.service_failures
        with hub.observed(watch):
            async with trio.open_nursery() as nursery:
                for name, service in (
                    ("dashboard feed", feed.run),
                    ("end of the dashboard feed", feed.until_stopping),
                    ("dashboard history", partial(history.keep, hub)),
                ):
                    nursery.start_soon(keep_running, name, service, failures, name=name)
                log.info("dashboard listening", address=dashboard.address)
                with publish(_file_for_proxies(hub.config), dashboard.address, dashboard.token):
                    task_status.started(dashboard)
                    await keep_running("dashboard", serve_http, failures)
                nursery.cancel_scope.cancel()


def _file_for_proxies(config: HubConfig) -> Path | None:
    """Return the path of the file in which proxies of this user find the dashboard; None without a profile."""
    return None if config.profile_dir is None else published_path(config.profile_dir, config.cluster_id)


def _name(host: str, config: HubConfig) -> str:
    """Return the host for the URL. For a wildcard address, a name that other machines can use."""
    if host in _WILDCARDS:
        return config.location or socket.gethostname()
    return f"[{host}]" if ":" in host else host
