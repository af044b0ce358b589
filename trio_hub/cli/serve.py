"""The command ``trio-hub serve``."""

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

# All users of the machine can see a key or token on the command line, in the list of processes.
NOT_OPTIONS = {"key", "curve_secretkey", "dashboard_token"}
HELP = {
    "profile_dir": "The path of the IPython profile. The connection files go into its `security` directory.",
    "registration_timeout": "Seconds within which a new engine must answer its first heartbeat, and within which "
    "messages must reach an engine.  [default: 10 heartbeats, at least 30 s]",
    "db": "Where task records are kept: in an SQLite file (sqlite: in the profile's `db` directory; or "
    "sqlite:///PATH), in PostgreSQL, in memory until the hub stops, or not at all (none). Better set a password in "
    "TRIO_HUB_DB or in ~/.pgpass.  [default: sqlite]",
    "db_keep": "How long records of finished tasks are kept.  [default: for ever]",
    "curve": "Whether all connections are encrypted with CurveZMQ. Messages are signed in any case.  [default: true "
    "if the address for clients or the address for engines is not a loopback address; with --reuse true, as in the "
    "connection files]",
    "dashboard": "The address and port at which the hub serves its dashboard and metrics over HTTP; without an "
    "address, only to this machine. Port 0: the system chooses. The printed URL contains the access token; "
    "TRIO_HUB_DASHBOARD_TOKEN sets another token.",
    "engine_log": "Where the output of local engines goes. file: a file per engine, in the profile's `log` directory. "
    "inherit: the hub's stderr. none: nowhere.  [default: file]",
    "db_max_records": "The maximum number of records of finished tasks. The oldest are dropped first.  [default: "
    "100,000 in memory, no limit on disk]",
    "db_max_bytes": "The maximum size, in bytes, of the records of finished tasks. The oldest are dropped first.  "
    "[default: 1 GiB in memory, no limit on disk]",
}
# Shorter names of options.
ALIASES = {"db_keep": ["--keep"]}

EPILOG = (
    """\
Each option can also be set in the environment (--log-level as TRIO_HUB_LOG_LEVEL) and in the TOML file
(log_level = "debug"). The command line has priority over the environment, and the environment over the file.
IPP_PROFILE_DIR, IPP_CLUSTER_ID and IPP_SESSION_KEY are used where no TRIO_HUB_* is set. The key that signs all messages
is set as TRIO_HUB_KEY, or as key in the file; by default, the hub makes a random key.

The first SIGINT (Ctrl-C) or SIGTERM stops the hub in order, the second stops it at once. SIGHUP (a closed terminal)
stops the hub in order, too, unless the signal is ignored, as with nohup.

"""
    + codes.EXIT_CODES_HELP
)


def setting_options() -> list[click.Parameter]:
    """Return an option for each setting of `HubConfig`. An option that is not given has the value None."""
    options: list[click.Parameter] = [
        click.Option(
            ["--profile"],
            metavar="NAME",
            help="The name of the IPython profile. It is created if it is missing.  [default: default]",
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
                # `--force` needs no value.
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
            help="The file of settings. By default, the file that TRIO_HUB_CONFIG names, if any.",
        ),
        *setting_options(),
    ],
    help="Run a hub until it is told to stop.\n\nWhen the hub is ready, it prints a line that says how to connect.",
    epilog=EPILOG,
)
click.version_option(__version__, prog_name="trio-hub")(serve)
