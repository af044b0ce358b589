"""A command with many options: its help shows them in groups, and on/off options accept ``true`` and ``false``, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..config import RULES
from ..config.rules import BOOLEAN, BOOLEANS

__all__ = ["GroupedCommand", "flag_names", "is_on_or_off"]


def flag_names(name: str) -> str:
    """Return the declaration of the on/off option for a setting, such as ``--reuse/--no-reuse``."""
    option = name.replace("_", "-")
    return f"--{option}/--no-{option}"


class GroupedCommand(click.Command):
    """A command whose help lists the options in groups.

    Args:
        groups: The names of the parameters in each group, by the title of the group. Each option except ``--help`` and
            ``--version`` is in exactly one group.
        arguments: The arguments of `click.Command`.
    """

    def __init__(self, *arguments: Any, groups: Mapping[str, Sequence[str]], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.groups = groups

    def grouped_options(self, ctx: click.Context) -> list[tuple[str, list[click.Option]]]:
        """Return the options of each group, in the order of the help. The last group has the options in no group."""
        left = {param.name: param for param in self.get_params(ctx) if isinstance(param, click.Option)}
        found = [(title, [left.pop(name) for name in names]) for title, names in self.groups.items()]
        return [*found, ("Other", list(left.values()))]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, options in self.grouped_options(ctx):
            rows = [row for option in options if (row := option.get_help_record(ctx)) is not None]
            with formatter.section(title):
                formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._with_plain_flags(ctx, args))

    def _with_plain_flags(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        """Replace ``--reuse=true`` and ``--reuse true`` by ``--reuse``, and the same with ``false`` by ``--no-reuse``.

        Raises:
            click.UsageError: An on/off option has another value.
        """
        flags = {
            name: option.secondary_opts[0]
            for option in self.get_params(ctx)
            if isinstance(option, click.Option) and option.secondary_opts
            for name in option.opts
        }
        plain: list[str] = []
        words = list(args)
        while words:
            word = words.pop(0)
            if word == "--":
                return [*plain, word, *words]
            name, has_value, value = word.partition("=")
            if name not in flags:
                plain.append(word)
                continue
            if not has_value and words and words[0].lower() in BOOLEANS:
                has_value, value = "=", words.pop(0)
            try:
                is_on = BOOLEAN.from_text(value) if has_value else True
            except ValueError:
                off = flags[name]
                message = f"{name} is {value!r}: write {name} or {off}, or give it a value: {BOOLEAN.accepts}"
                raise click.UsageError(message, ctx) from None
            plain.append(name if is_on else flags[name])
        return plain


def is_on_or_off(name: str) -> bool:
    """Return whether a setting is true or false, so that it has an on/off option."""
    return RULES[name].metavar == BOOLEAN.metavar
