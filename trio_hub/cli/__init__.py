"""`trio-hub ...`: the commands. Each command is in a module of its own, which is loaded when the command is called."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import __version__
from . import codes

__all__ = ["main"]

# Name, module and function, and summary of each command. So the list of commands is printed without loading them.
COMMANDS = {
    "serve": ("serve:serve", "Run a hub until it is stopped."),
    "ipcontroller": ("ipcontroller:ipcontroller", "Run a hub with the command line and config files of ipcontroller."),
    "engine": ("engine:engine", "Run an engine with the command line of ipengine."),
    "config": ("config_show:config", "Show settings."),
    "demo": ("demo:demo", "Show a hub at work: real engines, real tasks, figures."),
    "status": ("asking.looking:status", "Show the state of a hub on one screen."),
    "top": ("top.command:top", "Watch a hub, updated continuously."),
    "engines": ("asking.looking:engines", "List the engines and their load."),
    "tasks": ("asking.tasks:tasks", "List requests."),
    "task": ("asking.tasks:task", "Show all details of a request."),
    "tail": ("asking.tail:tail", "Print the output of a request while it runs."),
    "result": ("asking.waiting:result", "Wait for a request, and print its value."),
    "wait": ("asking.waiting:wait", "Wait for requests, for engines, or until the cluster is idle."),
    "abort": ("asking.changing:abort", "Abort requests that have not started."),
    "cancel": ("asking.stopping:cancel", "Cancel requests, also those that run."),
    "resubmit": ("asking.changing:resubmit", "Run requests again, as new tasks."),
    "explain": ("asking.placing:explain", "Say which engines could run a task, and why others cannot."),
    "policy": ("asking.policies:policy", "List, add and remove policies, which set rules for tasks."),
    "tag": ("asking.placing:tag", "Set the tags and amounts of an engine."),
    "drain": ("asking.stopping:drain", "Give engines no new tasks, so that they can be stopped."),
    "pools": ("asking.pools:pools", "List the pools of engines: their size, what they cost, and why they do not grow."),
    "scale": ("asking.pools:scale", "Change how many engines a pool may have."),
    "purge": ("asking.changing:purge", "Delete the records of finished requests."),
    "shutdown": ("asking.changing:shutdown", "Stop engines, or all engines and the hub."),
    "doctor": ("asking.doctor:doctor", "Check this machine and the way to the hub for common problems."),
    "report": ("asking.report:report", "Write all that a support request needs into a file."),
    "completion": ("completion:completion", "Print a completion script for a shell."),
}


UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""The errors of a stdout that cannot be written, such as a file on a full disk. (click handles EPIPE itself.)"""


class LazyGroup(click.Group):
    """A group that loads a command only when it is called, so that ``--help`` and ``--version`` are quick."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command. If its output cannot be written, say so in one line instead of showing a traceback."""
        try:
            try:
                return super().main(*args, **kwargs)
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except OSError as error:
            if error.errno not in UNWRITABLE or error.filename is not None:
                raise
            click.echo(f"trio-hub: cannot write to stdout: {error.strerror or error}", err=True)
            sys.stdout = None  # otherwise the interpreter would try again when it exits
            sys.exit(codes.FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(f".{module}", __name__), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise click.UsageError(f"there is no command {args[0]!r}: {_proposal(args[0])}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=summary) for name, (_, summary) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


# Words that users of other programs try, and our names.
SYNONYMS = {
    "start": "serve",
    "run": "serve",
    "hub": "serve",
    "controller": "ipcontroller",
    "ipengine": "engine",
    "ps": "tasks",
    "queue": "tasks",
    "list": "tasks",
    "show": "task",
    "log": "tail",
    "logs": "tail",
    "output": "tail",
    "kill": "cancel",
    "interrupt": "cancel",
    "undrain": "drain",
    "retry": "resubmit",
    "delete": "purge",
    "clear": "purge",
    "stop": "shutdown",
    "check": "doctor",
    "info": "status",
    "settings": "config",
    "why": "explain",
    "policies": "policy",
    "rules": "policy",
}


def _proposal(word: str) -> str:
    """Return which command the user may have meant."""
    meant = [SYNONYMS[word.lower()]] if word.lower() in SYNONYMS else _near(word)
    if not meant:
        return "`trio-hub --help` lists the commands"
    return f"did you mean {' or '.join(map(repr, meant))}?"


def _near(word: str) -> list[str]:
    return difflib.get_close_matches(word.lower(), COMMANDS, cutoff=0.7)


def _hold_standard_descriptors() -> None:
    """Open /dev/null in place of each of stdin, stdout and stderr that is closed.

    Otherwise the system would give the numbers of these descriptors to the next files or sockets that the hub opens. A
    process that writes to descriptor 2 as stderr, such as an engine that the hub starts, would write into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


@click.group("trio-hub", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trio-hub")
def main() -> None:
    """The hub of an IPython Parallel cluster, in one process on Trio."""
    _hold_standard_descriptors()
    if isinstance(sys.stdout, TextIOWrapper):  # as Python does for stderr: paths and other texts may not be encodable
        sys.stdout.reconfigure(errors="backslashreplace")
