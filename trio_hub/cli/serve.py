"""The command ``trio-hub serve``."""

from __future__ import annotations

import os
import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..config import HubConfig, load_config
from ..errors import ConfigError
from . import codes
from .asking.options import example
from .grouped import GroupedCommand, flag_names, is_on_or_off
from .loading import load_run_hub

__all__ = ["serve", "setting_options"]

# All users of the machine can see a key or token on the command line, in the list of processes.
NOT_OPTIONS = {"key", "curve_secretkey", "dashboard_token", "policies"}  # and policies are tables, not a word
HELP = {
    "engine_tags": "A tag or an amount of the local engines, as site=a or gpu=1, by which tasks with needs find them; "
    "may be repeated. Engines of other programs ignore it.",
    "pools": "A pool of engines that grows when tasks need engines and shrinks when they are idle, as "
    "name=local,min=0,max=8; may be repeated. The keys are those of a [[pool]] table in the file of settings.",
    "profile_dir": "The path of the IPython profile. The connection files go into its `security` directory.",
    "registration_timeout": "Seconds within which a new engine must answer its first heartbeat, and within which "
    "messages must reach an engine.  [default: 10 heartbeats, at least 30 s]",
    "db": "Where task records are kept: in an SQLite file (sqlite: in the profile's `db` directory; or "
    "sqlite:///PATH), in PostgreSQL, in memory until the hub stops, or not at all (none). Better set a password in "
    "TRIO_HUB_DB or in ~/.pgpass.  [default: sqlite]",
    "db_keep": "How long records of finished tasks are kept.  [default: for ever]",
    "curve": "Whether all connections are encrypted with CurveZMQ. Messages are signed in any case.  [default: on if "
    "the address for clients or the address for engines is not a loopback address; with --reuse, as in the connection "
    "files]",
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
# Options that may be repeated, as --engine-tag for the command trio-hub engine.
REPEATED = {"engine_tags": ["--engine-tag", "--engine-tags"], "pools": ["--pool", "--pools"]}
# The groups of options in the help, by title. The first groups have what most people need.
GROUPS = {
    "Profile and settings": ["config", "profile", "profile_dir", "cluster_id", "force"],
    "Engines": ["engines", "pools", "engine_command", "engine_tags", "engine_log"],
    "Who can reach the hub": [
        *("ip", "client_ip", "engine_ip", "location", "ports", "client_ports", "engine_ports", "broadcast_ports"),
        *("ssh_server", "engine_ssh_server"),
    ],
    "Encryption and messages": ["curve", "curve_publickey", "curve_allowed_keys", "packer", "signature_scheme"],
    "After a restart": ["reuse", "restore"],
    "Task database": ["db", "durability", "db_keep", "db_max_records", "db_max_bytes"],
    "Scheduling": ["hwm", "scheme", "unmet_timeout"],
    "Lost engines, and the stop": [
        *("ping", "max_heartmonitor_misses", "registration_timeout", "stranded_grace", "stop_grace"),
    ],
    "Dashboard": ["dashboard", "dashboard_admin", "dashboard_prefix"],
    "Logs": ["log_level", "log_format"],
    "Limits on memory and messages": [
        *("queue_memory", "max_message_frames", "max_message_bytes", "subscriber_queue"),
    ],
}

EPILOG = (
    example(
        "trio-hub serve --engines 4",
        "trio-hub serve --pool name=local,min=0,max=8",
        "trio-hub serve --profile-dir my-cluster --dashboard 8788",
        "trio-hub serve --ip '*' --ports 10000-10020",
        "trio-hub serve --restore --db sqlite --keep 30d",
    )
    + """

Each option can also be set in the environment (--log-level as TRIO_HUB_LOG_LEVEL) and in the TOML file
(log_level = "debug"). The command line has priority over the
environment, and the environment over the file. An on/off option also takes a value: --reuse=true means --reuse, and
--reuse=false means --no-reuse.

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
        # None is a value in Python only.
        doc = HELP.get(entry.name, entry.metadata["doc"]).replace("None: ", "Not given: ")
        if is_on_or_off(entry.name):
            options.append(click.Option([entry.name, flag_names(entry.name)], default=None, help=doc + _shown(entry)))
            continue
        if entry.name in REPEATED:
            names = [entry.name, *REPEATED[entry.name]]
            options.append(click.Option(names, multiple=True, callback=_none_if_absent, metavar=rule.metavar, help=doc))
            continue
        options.append(
            click.Option(
                [entry.name, *ALIASES.get(entry.name, []), f"--{entry.name.replace('_', '-')}"],
                type=click.Choice(rule.choices, case_sensitive=False) if rule.choices else str,
                metavar=None if rule.choices else rule.metavar,
                help=doc + _shown(entry),
            )
        )
    return options


def _none_if_absent(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> Any:
    return value or None


def _shown(entry: Field[Any]) -> str:
    """Return the default of a setting, for the help."""
    if entry.default in (None, "", ()):
        return ""
    if isinstance(entry.default, bool):
        return f"  [default: {'on' if entry.default else 'off'}]"
    if entry.metadata["rule"].metavar == "BYTES":
        return f"  [default: {_bytes_in_words(entry.default)}]"
    return f"  [default: {entry.default}]"


def _bytes_in_words(number: Any) -> str:
    """Return a number of bytes in the largest binary unit of which it is a multiple, as options accept it."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if number % size == 0:
            return f"{number // size} {unit}"
    return str(number)


@click.pass_context
def _serve(context: click.Context, /, config: Path | None, **options: Any) -> None:
    try:
        settings = load_config(options, os.environ, config)
    except ConfigError as error:
        raise click.UsageError(str(error), context) from error
    sys.exit(load_run_hub()(settings))


serve = GroupedCommand(
    "serve",
    groups=GROUPS,
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
    help="Run a hub until it is told to stop.\n\nWhen the hub is ready, it prints how to connect to it.",
    epilog=EPILOG,
)
click.version_option(__version__, prog_name="trio-hub")(serve)
