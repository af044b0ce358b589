"""``trio-hub cancel`` and ``drain``: commands that end what runs, or let it end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from .. import codes
from . import options
from .options import Where, asks_hub, example
from .output import print_json

if TYPE_CHECKING:
    from ...client import Client

__all__ = ["cancel", "drain"]

CANCELLED = {
    "withdrawn": "was withdrawn: no engine had it",
    "interrupted": "is interrupted",
    "finished": "has finished already",
    "unknown": "is unknown to the hub",
}
DRAINED = {
    "draining": "is drained: it gets no new tasks",
    "undrained": "gets tasks again",
    "not drained": "was not drained, or was told to end already",
    "unknown": "is not registered",
}


@click.command(
    "cancel",
    epilog=example("trio-hub cancel 2f6c1d9e-0b7a_4711_12", "trio-hub cancel 2f6c1d9e-0b7a_4711_12 --grace 1m"),
)
@click.argument("msg_ids", nargs=-1, required=True, metavar="MSG_ID...")
@click.option(
    "--grace",
    type=options.duration,
    metavar="TIME",
    help="The time that a request has to end after it was interrupted.  [default: the grace in its rules, or 10 s]",
)
@asks_hub
def cancel(where: Where, as_json: bool, msg_ids: tuple[str, ...], grace: float | None) -> None:
    """Cancel requests, of any client. Requests that wait are withdrawn, requests that run are interrupted.

    If a request has not ended when its grace is over, its engine is killed. The command does not wait for that. The
    client of a cancelled request gets the error TaskCancelled. Exits with 1 if a request is unknown or has finished.
    """
    from .session import ask

    async def question(client: Client) -> dict[str, str]:
        return await client.cancel(list(dict.fromkeys(msg_ids)), grace=grace)

    done = ask(where, question)
    if as_json:
        print_json({what: [msg_id for msg_id, found in done.items() if found == what] for what in CANCELLED})
    else:
        for msg_id, what in done.items():
            click.echo(f"{msg_id} {CANCELLED[what]}")
    sys.exit(codes.OK if set(done.values()) <= {"withdrawn", "interrupted"} else codes.FAILED)


@click.command(
    "drain",
    epilog=example(
        "trio-hub drain 3 4 --then shutdown",
        "trio-hub drain --host node7 --then shutdown --deadline 10m",
        "trio-hub drain 3 --undrain",
    ),
)
@click.argument("engines", nargs=-1, metavar="[ENGINE]...")
@click.option("--host", metavar="HOST", help="Drain all engines on this host: its name or address.")
@click.option("--then", type=click.Choice(["shutdown"]), help="What follows when an engine is idle: it is told to end.")
@click.option(
    "--deadline",
    type=options.duration,
    metavar="TIME",
    help="The time after which the tasks that still run are interrupted, and run on other engines.",
)
@click.option("--undrain", is_flag=True, help="End the drain: give the engines tasks again.")
@asks_hub
def drain(
    where: Where,
    as_json: bool,
    engines: tuple[str, ...],
    host: str | None,
    then: str | None,
    deadline: float | None,
    undrain: bool,
) -> None:
    """Give engines (ids or uuids) no new tasks. They finish what they run, and still answer direct requests.

    An engine stays drained until the drain is ended by --undrain, also over a restart of the hub. A task that is
    interrupted at the deadline does not lose a retry. Exits with 1 if an engine is not registered.
    """
    from .session import CommandFailed, ask

    if bool(engines) == (host is not None):
        raise click.UsageError("give either ENGINEs or --host")
    if undrain and (then or deadline is not None):
        raise click.UsageError("--undrain goes with neither --then nor --deadline")
    targets = None if host is not None else list(map(options.engine_name, engines))

    async def question(client: Client) -> dict[str, str]:
        if undrain:
            return await client.undrain(targets, host=host)
        return await client.drain(targets, host=host, deadline=deadline, then=then or "")

    async def checked(client: Client) -> dict[str, str]:
        done = await question(client)
        if not done:
            raise CommandFailed(f"no engine is registered from host {host}: `trio-hub engines` lists the engines")
        return done

    done = ask(where, checked)
    if as_json:
        print_json({"engines": done})
    else:
        for engine, what in done.items():
            click.echo(f"engine {engine} {DRAINED[what]}")
    sys.exit(codes.OK if set(done.values()) <= {"draining", "undrained"} else codes.FAILED)
