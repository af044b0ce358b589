"""``trio-hub config show``: the settings that a command would use, and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from ..config import load_config
from ..errors import ConfigError
from .raw import RawCommand
from .serve import serve
from .showing import print_settings
from .translate import translate

__all__ = ["config"]

HELP = """\
Print the settings that a hub would use, and where each comes from.

Takes the options of `trio-hub serve`, or, after --ipcontroller, those of `trio-hub ipcontroller`. What is printed is
TOML that --config accepts; keys are hidden. Nothing is started and nothing is written.
"""


class Show(RawCommand):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Options"):
            formatter.write_dl([("--ipcontroller ...", "What follows is a command line of ipcontroller.")])


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
            f"{words[0]} stands before --ipcontroller: give what is for ipcontroller after it", context
        )
    translation = translate(words[1:], os.environ)
    print_settings(translation.config(), translation=translation)


def _show_serve(words: list[str], context: click.Context) -> None:
    with serve.make_context(context.command_path, words) as parsed:
        options = dict(parsed.params)
    file = options.pop("config")
    config = load_config(options, os.environ, file)
    given = {name: f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None}
    print_settings(config, given=given, environ=os.environ, file=file)


@click.group("config", help="Look at settings.")
def config() -> None:
    pass


config.add_command(Show("show", callback=_show, help=HELP))
