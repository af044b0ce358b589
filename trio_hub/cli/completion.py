"""``trio-hub completion``: print the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .asking.options import example

__all__ = ["completion"]


@click.command(
    "completion",
    epilog=example(
        "trio-hub completion bash > ~/.local/share/bash-completion/completions/trio-hub",
        "trio-hub completion fish > ~/.config/fish/completions/trio-hub.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a shell script. With it, the shell completes commands, options, and the names of profiles and clusters."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "trio-hub", "_TRIO_HUB_COMPLETE").source())
