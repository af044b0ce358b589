"""`trio-hub ...`: the commands, one module each, loaded when it is called."""

from __future__ import annotations

from importlib import import_module

import click

from .. import __version__

__all__ = ["main"]

# Name, where it is, and what it does: told here, so that the list of commands needs none of them loaded.
COMMANDS = {
    "serve": ("serve:serve", "Run a hub until it is told to stop."),
    "ipcontroller": ("ipcontroller:ipcontroller", "Run a hub with the command line and config files of ipcontroller."),
    "config": ("config_show:config", "Look at settings."),
    "demo": ("demo:demo", "Show a hub at work: real engines, real tasks, figures."),
}


class LazyGroup(click.Group):
    """A group that loads a command when it is called, so that ``--help`` and ``--version`` are quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(f".{module}", __name__), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group("trio-hub", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trio-hub")
def main() -> None:
    """The hub of an IPython Parallel cluster, in one process on Trio."""
