"""Writes the parts of ``reference/command.md`` that the code knows best: each command's help, options and examples.

``python docs/command_reference.py`` writes them into the page, between marks that name the command; what stands outside
them is written by hand. A test says when the page is not up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import click

from trio_hub.cli import main
from trio_hub.cli.grouped import GroupedCommand

__all__ = ["PAGE", "commands", "renewed"]

PAGE = Path(__file__).parent / "reference" / "command.md"
BEGIN, END = "<!-- {} -->", "<!-- end of what its code says -->"


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Return all commands, including the commands of groups, by name: ``trio-hub config show``."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def renewed(page: str) -> str:
    """Return the page with renewed parts. Raises `KeyError` for a command that has no place on the page."""
    for name, command in commands(main, "trio-hub"):
        begin = BEGIN.format(name)
        before, found, rest = page.partition(begin)
        if not found:
            raise KeyError(f"{PAGE.name} has no {begin} … {END}")
        _, _, after = rest.partition(END)
        page = f"{before}{begin}\n\n{told(name, command)}\n{END}{after}"
    return page


def told(name: str, command: click.Command) -> str:
    command = copy(command)
    command._help_option = None  # click remembers what it was called for others
    context = click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"```text\n{' '.join(usage.split())}\n```"]
    parts += [paragraph(text) for text in (command.help or "").split("\n\n")]
    for title, options in groups(command, context):
        if title:
            parts.append(f"**{title}**")
        parts.append("\n".join(["| option | takes | what it does |", "|---|---|---|", *map(row, options)]))
    if command.epilog:
        texts = command.epilog.strip().split("\n\n")
        parts += [paragraph(text) for text in texts if not text.startswith("\b\nExit codes")]  # the page has a table
    return "\n\n".join(parts) + "\n"


def groups(command: click.Command, context: click.Context) -> list[tuple[str, list[click.Option]]]:
    """Return the options of a command in the groups of its help, each group with its title."""
    if isinstance(command, GroupedCommand):
        return command.grouped_options(context)
    return [("", [param for param in command.get_params(context) if isinstance(param, click.Option)])]


def paragraph(text: str) -> str:
    """Return a paragraph of a help text as Markdown. Examples become commands; unwrapped text stays as it is."""
    plain, mark, kept = text.partition("\b\n")
    if not mark:
        return in_page(" ".join(plain.split()))
    title, *lines = kept.rstrip().split("\n")
    language = "bash" if title.startswith("Example") else "text"
    block = "\n".join(line.removeprefix("  ") for line in lines)
    return f"{title}\n\n```{language}\n{block}\n```"


def row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if isinstance(option.type, click.Choice):
        takes = ", ".join(f"`{choice}`" for choice in option.type.choices)
    elif option.is_flag:
        takes = ""
    else:
        takes = ", ".join(f"`{one}`" for one in (option.metavar or option.type.name.upper()).split("|"))
    default = f"  [default: {option.default}]" if option.show_default is True else ""
    return f"| {names} | {takes} | {in_page((option.help or '') + default)} |"


def in_page(text: str) -> str:
    """Return plain text as Markdown."""
    text = " ".join(text.split())
    pieces = re.split(r"(`[^`]*`)", text)  # code is left alone
    return "".join(piece if piece.startswith("`") else re.sub(r"([*_|<>])", r"\\\1", piece) for piece in pieces)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
