"""Runs a hub as a process: sets limits, logs and signals, prints when the hub is ready, and returns an exit code."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import trio

from ..config import HubConfig
from ..dashboard import Dashboard, serve_dashboard
from ..errors import ConfigError, ConnectionFileError, HubError
from ..logs import get_logger
from ..memory import keep_freed
from ..runtime.running import RunningHub
from ..runtime.serve import serve_hub
from ..services import keep_running
from . import codes
from .before import check_settings
from .encryption import in_words
from .failures import leaves
from .interpreter import collect_rarely, switch_often, tidy_at_rest
from .limits import raise_open_files_limit
from .logs import set_up_logs
from .systemd import ServiceManager

__all__ = ["run_hub"]

log = get_logger("trio_hub.cli")


def run_hub(config: HubConfig) -> int:
    """Run a hub until it stops. Log errors on stderr, and return the exit code of the process."""
    set_up_logs(config.log_level, config.log_format)
    raise_open_files_limit()
    switch_often()
    keep_freed()
    manager = ServiceManager()
    try:
        check_settings(config)
        return trio.run(_serve_with_signals, config, manager)
    except* HubError as group:
        failures = list(leaves(group))
    for error in failures:
        # A plain HubError is caused by a bug in the hub, so the log needs the traceback of the cause.
        fault = error.__cause__ if type(error) is HubError else None
        manager.tell(f"STATUS=failed: {error}")
        log.critical("the hub ends", error=error, exc_info=fault)
    return codes.BAD_USAGE if all(map(_is_about_settings, failures)) else codes.FAILED


def _is_about_settings(error: HubError) -> bool:
    """Return whether a setting, or a file that it names, cannot be used, so that a new start would fail, too.

    A file that cannot be written or read now, as on a full disk, may be usable later.
    """
    if isinstance(error, ConnectionFileError):
        return not isinstance(error.__cause__, OSError)
    return isinstance(error, ConfigError)


async def _serve_with_signals(config: HubConfig, manager: ServiceManager) -> int:
    async with trio.open_nursery() as nursery:
        stopper = _Stopper(nursery.cancel_scope)
        await nursery.start(stopper.heed_signals)
        hub = await nursery.start(serve_hub, config)
        stopper.hub_is_ready(hub)
        dashboard = None
        if config.dashboard is not None:
            dashboard = await nursery.start(serve_dashboard, hub)
        collect_rarely()
        _announce(hub, dashboard)
        keep_informed = partial(manager.keep_informed, hub)
        nursery.start_soon(keep_running, "systemd", keep_informed, hub.service_failures, name="systemd")
        nursery.start_soon(keep_running, "tidy at rest", tidy_at_rest, hub.service_failures, name="tidy at rest")
        await hub.wait_stopping()
        manager.tell("STOPPING=1", "STATUS=stopping")
        await hub.wait_stopped()
        nursery.cancel_scope.cancel()
    return stopper.code


class _Stopper:
    """Stops the hub on signals: the first signal asks for an orderly stop, the second cancels everything.

    A third signal is handled by the system, which ends the process at once.
    """

    def __init__(self, everything: trio.CancelScope) -> None:
        self.code = codes.OK
        self._everything = everything
        self._hub: RunningHub | None = None

    def hub_is_ready(self, hub: RunningHub) -> None:
        self._hub = hub

    async def heed_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*_stop_signals()) as received:
            task_status.started()
            first = await anext(received)
            log.info("received a signal, stopping", signal=signal.Signals(first).name)
            if self._hub is None:  # the hub does not serve yet, so no client needs an answer
                self._everything.cancel()
                return
            self._hub.shutdown(signal.Signals(first).name)
            second = await anext(received)
            while second == signal.SIGHUP:  # a terminal that is closed may send several
                second = await anext(received)
            log.warning("received another signal, stopping at once", signal=signal.Signals(second).name)
            self.code = codes.after_signal(second)
            self._hub.shutdown(at_once=True)
            self._everything.cancel()


def _stop_signals() -> list[signal.Signals]:
    """Return the signals that stop the hub. SIGHUP (a closed terminal) is one, unless it is ignored, as by nohup."""
    signals = [signal.SIGINT, signal.SIGTERM]
    return signals if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [*signals, signal.SIGHUP]


def _announce(hub: RunningHub, dashboard: Dashboard | None) -> None:
    """Print how to connect to the hub: three lines, and one for the dashboard, if there is one."""
    lines = ready_lines(hub, _program(sys.argv[0]))
    urls = [] if dashboard is None else [f"dashboard: {dashboard.url}"]
    try:
        print("\n".join([*lines, *urls]), flush=True)
    except (OSError, ValueError) as error:
        # Stdout is closed, its disk is full, or it cannot encode a character. The hub can serve without it. The URL is
        # not logged, since it has the token, and logs may have other readers.
        log.warning("cannot write to stdout", error=getattr(error, "strerror", error), line="; ".join(lines))
        sys.stdout = None  # otherwise the interpreter would fail to flush it when it exits


def ready_lines(hub: RunningHub, program: str) -> list[str]:
    """Return what a user needs to know of a hub that is ready: how to connect, how to add engines, and where it is."""
    config = hub.config
    client = f"profile_dir={str(config.profile_dir)!r}"
    engine = [program, "engine", f"--profile-dir={config.profile_dir}"]
    if config.cluster_id:
        client += f", cluster_id={config.cluster_id!r}"
        engine.append(f"--cluster-id={config.cluster_id}")
    directory = None if hub.client_file is None else hub.client_file.parent
    return [
        f"trio-hub ready: connect with ipp.Client({client}); connections are {in_words(hub.connections)}",
        f"add engines with: {shlex.join(engine)}",
        f"connection files are in {directory}",
    ]


def _program(started_as: str) -> str:
    """Return the name by which the user's shell finds this command: the path, if the command is not on PATH."""
    if Path(started_as).name == "trio-hub" and shutil.which("trio-hub") is None:
        return started_as
    return "trio-hub"
