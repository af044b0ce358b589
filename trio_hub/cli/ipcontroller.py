"""``trio-hub ipcontroller``: serve a hub with the command line and the config files of ``ipcontroller``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr
from pathlib import Path

import click

from ..config import HubConfig
from ..errors import ConfigError
from ..logs import get_logger
from . import codes
from .loading import load_run_hub
from .raw import RawCommand
from .showing import print_settings
from .traits import ALIASES, FLAGS, TRAITS, Trait
from .translate import translate
from .translation import Given, Translation

__all__ = ["ipcontroller"]

log = get_logger("trio_hub.cli")

HELP = """\
Run a hub with the command line, the config files and the environment of ipcontroller.

Settings that exist in both programs have the same effect. One warning names all settings that have no effect
here, and all that are probably misspelt. Unusable values are refused.
"""
EPILOG = """\
Options are given as --name=value or --name value, and every trait as --Class.trait=value. If several sources give
a setting, the first of these applies: options; the environment variables TRIO_HUB_* (see trio-hub serve);
ipcontroller_config.py in the profile directory; the environment variables IPP_PROFILE_DIR, IPP_CLUSTER_ID,
IPP_SESSION_KEY, IPP_ENABLE_CURVE, IPP_CURVE_PUBLICKEY and IPP_CURVE_SECRETKEY.
Config files need traitlets: pip install traitlets.

"""
VERSION = "9.2.0"
VERSION_HELP = "show the version of ipcontroller that this command replaces"


class IPController(RawCommand):
    def version(self) -> str:
        return VERSION

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Options"):
            formatter.write_dl([(f"--{name} VALUE", _what_is(TRAITS[trait])) for name, trait in ALIASES.items()])
        with formatter.section("Flags"):
            flags = [(f"--{name}", flag.help) for name, flag in FLAGS.items()]
            formatter.write_dl([*flags, ("-h, --help", "show this message"), ("-V, --version", VERSION_HELP)])
        with formatter.section("Traits"):
            formatter.write_dl([(f"--{name}=VALUE", _what_is(trait)) for name, trait in TRAITS.items()])


def _what_is(trait: Trait) -> str:
    what = ", ".join(trait.settings) or trait.does
    return f"{what}. {trait.note}".strip(" .") if what else f"not done: {trait.note}"


def profile_that_exists(translation: Translation, config: HubConfig) -> Path:
    """Return the profile directory. Raises `ConfigError` if it is missing and must not be created."""
    directory = config.profile_dir
    assert directory is not None
    create = translation.process.get("auto_create", Given(True, ""))
    if not create.value and not directory.is_dir() and directory.name != "profile_default":
        raise ConfigError(f"{create.label} is False, and {directory} does not exist")
    return directory


def prepare(translation: Translation, config: HubConfig, stack: ExitStack) -> None:
    """Set up the process: log files, logging, and the working directory.

    Raises:
        ConfigError: The profile directory is missing and must not be created.
        OSError: A file or a directory cannot be used.
    """
    from .logs import set_up_logs

    process = {name: given.value for name, given in translation.process.items()}
    directory = profile_that_exists(translation, config)
    if process.get("clean_logs"):
        clean_logs(directory / "log", config.cluster_id)
    if process.get("log_to_file"):
        path = directory / "log" / f"ipcontroller-{config.cluster_id}-{os.getpid()}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        click.echo(f"Sending logs to {path}", err=True)
        file = stack.enter_context(path.open("w", encoding="utf-8", buffering=1))
        stack.enter_context(redirect_stderr(file))
    if process.get("work_dir"):
        os.chdir(process["work_dir"])
    set_up_logs(config.log_level, config.log_format)
    if text := translation.warning():
        log.warning("some settings of ipcontroller have no effect, or another effect", what=text)


def clean_logs(directory: Path, cluster_id: str) -> None:
    """Remove the log files of earlier controllers of this cluster."""
    own = re.compile(rf"ipcontroller-({re.escape(cluster_id)}-)?\d+\.(log|err|out)")
    for path in directory.glob("ipcontroller-*"):
        if own.fullmatch(path.name):
            path.unlink(missing_ok=True)


@click.pass_context
def _ipcontroller(context: click.Context, /, arguments: Sequence[str]) -> None:
    with ExitStack() as stack:
        try:
            translation = translate(arguments, os.environ)
            config = translation.config()
            for name, as_json in (("show_config", False), ("show_config_json", True)):
                if name in translation.process and translation.process[name].value:
                    print_settings(config, translation=translation, as_json=as_json)
                    return
            prepare(translation, config, stack)
        except (ConfigError, OSError) as error:
            raise click.UsageError(str(error), context) from error
        sys.exit(load_run_hub()(config))


ipcontroller = IPController("ipcontroller", callback=_ipcontroller, help=HELP, epilog=EPILOG + codes.EXIT_CODES_HELP)
