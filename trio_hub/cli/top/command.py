"""The command ``trio-hub top``, and its keys."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..asking.options import Where, asks_hub, duration, example
from ..asking.output import print_json

if TYPE_CHECKING:
    from rich.live import Live

    from ...client import Client
    from .picture import View
    from .snapshot import Sampler, Snapshot
    from .terminal import Keys

__all__ = ["top"]

PIPE_SIZE = (100, 30)
"""The columns and lines of a picture that is not printed to a terminal."""

HELP = """\
Watch a hub: its engines, its rates, and the requests that finished last.

\b
Keys:
  q             quit
  p             pause or continue
  s             sort the engines by id, load, rate, completed
  up, down      scroll the engines, also with PgUp and PgDn
"""


@click.command("top", help=HELP, epilog=example("trio-hub top --interval 5", "trio-hub top --count 2 --json"))
@click.option(
    "--interval", type=duration, default=2.0, metavar="TIME", help="The time between two updates.  [default: 2 s]"
)
@click.option(
    "--count",
    type=click.IntRange(1),
    metavar="N",
    help="Print N pictures one after another, and exit. Needs no terminal. With --json, print one line each.",
)
@asks_hub
def top(where: Where, as_json: bool, interval: float, count: int | None) -> None:
    from ..asking.session import ask
    from .snapshot import Sampler

    if count is None and not as_json and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("this is not a terminal: use --count N or --json, or `trio-hub status`")

    async def question(client: Client) -> None:
        sampler = Sampler(client)
        if as_json:
            await pictures(sampler, interval, count, lambda snapshot: print_json(as_document(snapshot)))
        elif count is not None:
            await pictures(sampler, interval, count, print_picture)
        else:
            await live(sampler, interval)

    ask(where, question)


async def pictures(sampler: Sampler, interval: float, count: int | None, show: Callable[[Snapshot], None]) -> None:
    import trio

    left = count
    while True:
        show(await sampler.look())
        sys.stdout.flush()
        if left is not None:
            left -= 1
            if not left:
                return
        await trio.sleep(interval)


def as_document(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot in the form of the JSON."""
    document = asdict(snapshot)
    totals = {name: getattr(snapshot, name) for name in ("tasks", "direct", "completed")}
    return document | totals


def print_picture(snapshot: Snapshot) -> None:
    from ..asking.output import console
    from .picture import View, draw

    out = console()
    width, height = out.size if out.is_terminal else PIPE_SIZE
    for line in draw(snapshot, View(), width, height)[:-1]:  # without the line of keys
        line.rstrip()
        out.print(line)


async def live(sampler: Sampler, interval: float) -> None:
    """Show the hub until the user quits."""
    import trio
    from rich.live import Live

    from ..asking.output import console
    from .picture import View
    from .terminal import keyboard

    with keyboard(sys.stdin.fileno()) as keys:
        view = View()
        await sampler.look()
        with Live(console=console(), screen=True, auto_refresh=False) as screen:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look_again, sampler, view, screen, interval)
                nursery.start_soon(follow_size, sampler, view, screen)
                await obey(sampler, view, screen, keys)
                nursery.cancel_scope.cancel()


def show(sampler: Sampler, view: View, screen: Live) -> None:
    from rich.text import Text

    from .picture import draw

    assert sampler.last is not None
    width, height = screen.console.size
    screen.update(Text("\n").join(draw(sampler.last, view, width, height)), refresh=True)


async def look_again(sampler: Sampler, view: View, screen: Live, interval: float) -> None:
    import trio

    while True:
        show(sampler, view, screen)
        await trio.sleep(interval)
        if not view.paused:
            await sampler.look()


async def follow_size(sampler: Sampler, view: View, screen: Live) -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGWINCH) as changes:
        async for _ in changes:
            show(sampler, view, screen)


async def obey(sampler: Sampler, view: View, screen: Live, keys: Keys) -> None:
    """Carry out the commands of keys until the user quits."""
    from .picture import engine_lines

    while True:
        for key in await keys.pressed():
            assert sampler.last is not None
            height = screen.console.size.height
            page = engine_lines(sampler.last, height)
            match key:
                case "quit":
                    return
                case "pause":
                    view.paused = not view.paused
                case "sort":
                    view.next_sort()
                case "home":
                    view.first = 0
                case _:
                    lines = {"up": -1, "down": 1, "page up": -page, "page down": page}[key]
                    view.scroll(lines, sampler.last, height)
        show(sampler, view, screen)
