"""``trio-hub engine``: an engine, with the command line of ``ipengine``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..engine.nanny import main
from ..engine.options import ALIASES, FLAGS, TRAITS
from .raw import RawCommand

__all__ = ["engine"]

HELP = """\
Run an engine with the command line and the environment of ipengine.

The process that is started passes signals on to the engine, and tells the hub when the engine dies. Config files of
ipengine are not read.
"""
VERSION = "9.2.0"
VERSION_HELP = "show the version of ipengine that this command replaces"
EPILOG = """\
Options are given as --name=value or --name value, and every trait as --Class.trait=value. They take precedence over
IPP_PROFILE_DIR, IPP_CLUSTER_ID, IPP_CURVE_SERVERKEY, IPP_CURVE_PUBLICKEY and IPP_CURVE_SECRETKEY in the environment.
IPP_CONNECTION_INFO, which has the content of a connection file, takes precedence over all options that choose a
connection file.
TRIO_HUB_ENGINE_TAGS has further tags, separated by spaces. TRIO_HUB_ENGINE_BLOCK stands for --block.

\b
Exit codes:
  0    stopped in order, as asked by a signal, a client or the hub
  1    the engine failed, or an option cannot be used
  255  the hub did not answer, or was away for too long
  An engine that was killed by a signal ends by the same signal.
"""


_WHAT = {
    "profile": "the IPython profile of the hub, by name",
    "profile_dir": "the profile, as a directory",
    "ipython_dir": "where profiles are, instead of ~/.ipython",
    "cluster_id": "which hub of the profile: part of the connection file's name",
    "file": "the connection file, instead of the one in the profile",
    "wait_for_file": "seconds to wait until the connection file exists",
    "timeout": "seconds that the hub has to answer the registration",
    "url": "the address of the hub's registration socket",
    "location": "where the hub is, as other machines see it",
    "id": "the engine id to ask for",
    "work_dir": "the working directory",
    "startup_script": "a file to run first",
    "startup_command": "code to run first",
    "log_level": "the least serious messages that are logged",
    "log_to_file": "whether to log to a file in the profile",
    "ssh": "the SSH server through which the hub is reached",
    "ssh_key": "the file with the private SSH key",
    "paramiko": "whether paramiko makes the SSH tunnels",
    "mpi": "whether to be a process of MPI, with the rank as id",
    "mpi_init": "code to run first with --mpi",
    "mpi_registration_delay": "seconds for each rank to wait before registering, from rank 100 on",
    "max_heartbeat_misses": "pings of the hub that may stay away before the engine ends; 0: any number",
    "nanny": "whether a process beside the engine watches it",
    "curve_serverkey": "the hub's public CURVE key, if the connection file has none",
    "curve_publickey": "the engine's public CURVE key",
    "curve_secretkey": "the engine's secret CURVE key",
    "tags": "a tag or an amount that tasks may need, as site=a or gpu=1; may be repeated",
    "kill_grace": "seconds between a signal that ends the engine and its end by force",
    "block": "the name of the block of a pool to which the engine belongs: pools set this option themselves",
    "drain_before": "seconds before the end of its Slurm job at which the engine gets no more tasks; 0: to the end",
}


class Engine(RawCommand):
    def version(self) -> str:
        return VERSION

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Options"):
            formatter.write_dl([(f"--{name} VALUE", _WHAT[TRAITS[trait]]) for name, trait in ALIASES.items()])
        with formatter.section("Flags"):
            flags = [(f"--{name}", " ".join(f"{k}={v}" for k, v in sets.items())) for name, sets in FLAGS.items()]
            formatter.write_dl([*flags, ("-h, --help", "show this message"), ("-V, --version", VERSION_HELP)])
        with formatter.section("Traits"):
            formatter.write_dl([(f"--{name}=VALUE", _WHAT[option]) for name, option in TRAITS.items()])


def _engine(arguments: Sequence[str]) -> None:
    main(list(arguments))


engine = Engine("engine", callback=_engine, help=HELP, epilog=EPILOG)
