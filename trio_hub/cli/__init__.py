"""`trio-hub ...`: the commands, one module each, loaded when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper

import click
from click.shell_completion import CompletionItem

from .. import __version__

__all__ = ["main"]

# Name, where it is, and what it does: told here, so that the list of commands needs none of them loaded.
COMMANDS = {
    "serve": ("serve:serve", "Run a hub until it is told to stop."),
    "ipcontroller": ("ipcontroller:ipcontroller", "Run a hub with the command line and config files of ipcontroller."),
    "engine": ("engine:engine", "Run an engine with the command line of ipengine."),
    "config": ("config_show:config", "Look at settings."),
    "demo": ("demo:demo", "Show a hub at work: real engines, real tasks, figures."),
    "status": ("asking.looking:status", "Show how a hub does, on one screen."),
    "top": ("top.command:top", "Watch a hub at work."),
    "engines": ("asking.looking:engines", "List the engines, and what each has to do."),
    "tasks": ("asking.tasks:tasks", "List requests."),
    "task": ("asking.tasks:task", "Tell the whole story of a request."),
    "result": ("asking.waiting:result", "Wait for a request, and print its value."),
    "wait": ("asking.waiting:wait", "Wait for requests, for engines, or until there is nothing to do."),
    "abort": ("asking.changing:abort", "Withdraw requests that have not begun."),
    "resubmit": ("asking.changing:resubmit", "Run requests again, as new tasks."),
    "purge": ("asking.changing:purge", "Let the hub forget finished requests."),
    "shutdown": ("asking.changing:shutdown", "Stop engines, or all engines and the hub."),
    "completion": ("completion:completion", "Print a script that makes a shell complete this command."),
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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=summary) for name, (_, summary) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group("trio-hub", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trio-hub")
def main() -> None:
    """The hub of an IPython Parallel cluster, in one process on Trio."""
    if isinstance(sys.stdout, TextIOWrapper):  # as Python does for stderr: texts of others, and paths, may be anything
        sys.stdout.reconfigure(errors="backslashreplace")
