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
VERSION_HELP = "show which ipengine this stands in for"
EPILOG = """\
Options are given as --name=value or --name value, and every trait as --Class.trait=value. They count more than
IPP_PROFILE_DIR, IPP_CLUSTER_ID, IPP_CONNECTION_INFO, IPP_CURVE_SERVERKEY, IPP_CURVE_PUBLICKEY and
IPP_CURVE_SECRETKEY in the environment.

\b
Exit codes:
  0    stopped in order, as asked by a signal, a client or the hub
  1    the engine failed, or an option cannot be used
  255  the hub did not answer, or was away for too long
  An engine that was killed by a signal ends by the same signal.
"""


class Engine(RawCommand):
    def version(self) -> str:
        return VERSION

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Options"):
            formatter.write_dl([(f"--{name} VALUE", trait) for name, trait in ALIASES.items()])
        with formatter.section("Flags"):
            flags = [(f"--{name}", " ".join(f"{k}={v}" for k, v in sets.items())) for name, sets in FLAGS.items()]
            formatter.write_dl([*flags, ("-h, --help", "show this message"), ("-V, --version", VERSION_HELP)])
        with formatter.section("Traits"):
            formatter.write_dl([(f"--{name}=VALUE", f"sets {option}") for name, option in TRAITS.items()])


def _engine(arguments: Sequence[str]) -> None:
    main(list(arguments))


engine = Engine("engine", callback=_engine, help=HELP, epilog=EPILOG)
