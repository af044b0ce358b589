"""``trio-hub config show``: print the settings that a command would use, and the source of each."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from ..config import load_config
from ..errors import ConfigError
from .raw import RawCommand
from .serve import serve
from .showing import option_labels, print_settings
from .translate import translate

__all__ = ["config"]

HELP = """\
Print the settings that a hub would use, and the source of each.

Accepts the options of `trio-hub serve`, or, after --ipcontroller, the options of `trio-hub ipcontroller`. The
output is TOML that --config accepts, without keys. No hub is started, and no file is written.
"""


class Show(RawCommand):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Options"):
            formatter.write_dl([("--ipcontroller ...", "The arguments that follow are arguments of ipcontroller.")])


@click.pass_context
def _show(context: click.Context, /, arguments: Sequence[str]) -> None:
    words = list(arguments)
    try:
        if "--ipcontroller" in words:
            _show_ipcontroller(words, context)
        else:
            _show_serve(words, context)
    except ConfigError as error:
        raise click.UsageError(str(error), context) from error


def _show_ipcontroller(words: list[str], context: click.Context) -> None:
    at = words.index("--ipcontroller")
    if at:
        raise click.UsageError(
            f"{words[0]} stands before --ipcontroller: put the options of ipcontroller after it", context
        )
    translation = translate(words[1:], os.environ)
    print_settings(translation.config(), translation=translation)


def _show_serve(words: list[str], context: click.Context) -> None:
    with serve.make_context(context.command_path, words) as parsed:
        options = dict(parsed.params)
    file = options.pop("config")
    config = load_config(options, os.environ, file)
    print_settings(config, given=option_labels(options), environ=os.environ, file=file)


@click.group("config", help="Show settings.")
def config() -> None:
    pass


config.add_command(Show("show", callback=_show, help=HELP))
