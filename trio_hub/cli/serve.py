"""``trio-hub serve``."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..config import HubConfig, load_config
from ..errors import ConfigError
from . import codes
from .loading import load_run_hub

__all__ = ["serve", "setting_options"]

# A key or token on the command line would be seen by everybody on the machine, in the list of processes.
NOT_OPTIONS = {"key", "curve_secretkey", "dashboard_token"}
HELP = {
    "profile_dir": "The same, as a path. The connection files go into its `security` directory.",
    "registration_timeout": "Seconds that a new engine has to answer its first heartbeat, and any engine to be "
    "reached by what is sent to it.  [default: 10 heartbeats, at least 30 s]",
    "db": "Where task records are kept: in an SQLite file (sqlite: in the profile's `db` directory; or "
    "sqlite:///PATH), in PostgreSQL, in memory until the hub stops, or not at all (none). A password is better set in "
    "TRIO_HUB_DB, or in ~/.pgpass.  [default: sqlite]",
    "db_keep": "How long records of finished tasks are kept.  [default: for ever]",
    "curve": "Whether all connections are encrypted with CurveZMQ; messages are signed all the same.  [default: true "
    "if the address for clients or that for engines is not a loopback address; with --reuse true, as the connection "
    "files say]",
    "dashboard": "Serve metrics and the status over HTTP there; without an address only to this machine. Port 0: the "
    "system chooses. The token that it takes is in the URL that is printed; TRIO_HUB_DASHBOARD_TOKEN sets another.",
    "engine_log": "Where the output of local engines goes. file: a file per engine, in the profile's `log` directory. "
    "inherit: the hub's stderr. none: nowhere.  [default: file]",
    "db_max_records": "Records of finished tasks to keep; the oldest are dropped first.  [default: 100,000 in memory, "
    "any number on disk]",
    "db_max_bytes": "Bytes of finished tasks' records to keep; the oldest are dropped first.  [default: 1 GiB in "
    "memory, any number on disk]",
}
# Shorter ways to say the same.
ALIASES = {"db_keep": ["--keep"]}

EPILOG = (
    """\
Each option can also be set in the environment (--log-level as TRIO_HUB_LOG_LEVEL) and in the TOML file
(log_level = "debug"), and so can the key that signs all messages, as TRIO_HUB_KEY or key; without one it is a
fresh random one. The command line counts most, then the environment, then the file. IPP_PROFILE_DIR,
IPP_CLUSTER_ID and IPP_SESSION_KEY count after TRIO_HUB_*.

One SIGINT (Ctrl-C) or SIGTERM stops the hub in order, a second one at once. SIGHUP (a closed terminal) stops it in
order, too, unless it is ignored, as by nohup.

"""
    + codes.EXIT_CODES_HELP
)


def setting_options() -> list[click.Parameter]:
    """An option for each setting of `HubConfig`; those that are not given are None."""
    options: list[click.Parameter] = [
        click.Option(
            ["--profile"],
            metavar="NAME",
            help="The IPython profile that clients and engines will name; it is made if it is missing.  "
            "[default: default]",
        )
    ]
    for entry in fields(HubConfig):
        if entry.name in NOT_OPTIONS:
            continue
        rule = entry.metadata["rule"]
        doc = HELP.get(entry.name, entry.metadata["doc"])
        shown = "" if entry.default in (None, "", ()) else f"  [default: {entry.default}]"
        options.append(
            click.Option(
                [entry.name, *ALIASES.get(entry.name, []), f"--{entry.name.replace('_', '-')}"],
                type=click.Choice(rule.choices, case_sensitive=False) if rule.choices else str,
                # `--force` alone says what it means, as it does with other programs.
                is_flag=False,
                flag_value="true" if entry.name == "force" else None,
                metavar=None if rule.choices else rule.metavar,
                help=doc + shown,
            )
        )
    return options


@click.pass_context
def _serve(context: click.Context, /, config: Path | None, **options: Any) -> None:
    try:
        settings = load_config(options, os.environ, config)
    except ConfigError as error:
        raise click.UsageError(str(error), context) from error
    sys.exit(load_run_hub()(settings))


serve = click.Command(
    "serve",
    callback=_serve,
    params=[
        click.Option(
            ["--config"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE.toml",
            help="A file of settings; without this option, that which TRIO_HUB_CONFIG names.",
        ),
        *setting_options(),
    ],
    help="Run a hub until it is told to stop.\n\nWhen it is ready it prints a line: how to connect.",
    epilog=EPILOG,
)
click.version_option(__version__, prog_name="trio-hub")(serve)
