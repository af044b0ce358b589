"""A command whose arguments follow the rules of another program, not those of click."""

from __future__ import annotations

from typing import Any

import click

from .. import __version__

__all__ = ["RawCommand"]


class RawCommand(click.Command):
    """A command that parses its arguments itself, except those that ask for help or the version."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        before_dashes = args[: args.index("--")] if "--" in args else args
        if {"-h", "--help", "--help-all"} & {*before_dashes} or args[:1] == ["help"]:
            click.echo(ctx.get_help())
            ctx.exit()
        if {"-V", "--version"} & {*before_dashes}:
            click.echo(self.version())
            ctx.exit()
        ctx.params["arguments"] = tuple(args)
        return []

    def make_parser(self, ctx: click.Context) -> Any:
        """Return a parser that accepts every option, for click's shell completion."""
        parser = super().make_parser(ctx)
        parser.ignore_unknown_options = True
        return parser

    def version(self) -> str:
        return f"trio-hub, version {__version__}"
