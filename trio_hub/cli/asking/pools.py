"""``trio-hub pools`` and ``trio-hub scale``: the pools of a running hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..dryrun import dry_run
from .options import ListGroup, Where, asks_hub, date, example, pool_names
from .output import clock, columns, console, count, one_line, print_json

if TYPE_CHECKING:
    from rich.text import Text

    from ...client import Client

__all__ = ["STYLES", "in_range", "pools", "reasons", "scale", "state_of"]

STYLES = {"stopped": "bold red", "paused": "yellow", "growing": "cyan", "shrinking": "cyan", "steady": "dim"}
OUTCOMES = ("submitted", "refused", "failed", "ended", "cancelled")
HOUR = 3600.0


@click.group(
    "pools",
    cls=ListGroup,
    epilog=example("trio-hub pools", "trio-hub pools show slurm", "trio-hub pools dry-run slurm --config hub.toml"),
)
def pools() -> None:
    """List the pools of engines, show or resume a pool, or print what a pool would submit.

    Without a command, the pools are listed.
    """


pools.add_command(dry_run)


@pools.command("list", epilog=example("trio-hub pools list --json"))
@asks_hub
def list_pools(where: Where, as_json: bool) -> None:
    """List the pools: their engines, their engine-hours, and why they do not grow or shrink.

    WANTED is the number of engines that the tasks could use now. ASKED is the number of engines of blocks that have not
    started, and COMING the number of engines of started blocks that have not registered.
    """
    from .session import ask

    async def question(client: Client) -> list[dict[str, Any]]:
        return await client.pools()

    found = ask(where, question)
    if as_json:
        print_json({"pools": [dated(pool) for pool in found]})
    elif not found:
        console(stderr=True).print("no pools")
    else:
        show_pools(found)


@pools.command("show", epilog=example("trio-hub pools show slurm"))
@click.argument("name", shell_complete=pool_names)
@asks_hub
def show(where: Where, as_json: bool, name: str) -> None:
    """Show one pool: its engines, its failures, and its blocks with the words of the batch system."""
    from .session import ask

    async def question(client: Client) -> dict[str, Any]:
        return one_of(await client.pools(), name)

    found = ask(where, question)
    if as_json:
        print_json(dated(found))
    else:
        show_pool(found)


@pools.command("resume", epilog=example("trio-hub pools resume slurm"))
@click.argument("name", shell_complete=pool_names)
@asks_hub
def resume(where: Where, as_json: bool, name: str) -> None:
    """Have a pool ask for blocks again after blocks have failed.

    A pool whose blocks fail asks for the next block after a growing pause. After several failures in a row, it asks for
    no more blocks. Mend the cause first: `trio-hub pools show` prints the words of the batch system.
    """
    from .session import ask

    async def question(client: Client) -> None:
        await client.resume_pool(name)

    ask(where, question)
    if as_json:
        print_json({"resumed": name})
    else:
        click.echo(f"pool {one_line(name)} asks for blocks again when tasks need engines")


def size(value: str | int | tuple[int, int]) -> int | tuple[int, int]:
    """Return the engines in ``4``, or the least and the largest number in ``0..8``. Raises `click.BadParameter`."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,7})(?:\.\.(\d{1,7}))?", value, re.ASCII)
    if found is None:
        raise click.BadParameter(f"{value!r} is neither a number of engines, such as 4, nor a range, such as 0..8")
    return int(found[1]) if found[2] is None else (int(found[1]), int(found[2]))


@click.command(
    "scale", epilog=example("trio-hub scale slurm 8", "trio-hub scale slurm 0..16", "trio-hub scale slurm --reset")
)
@click.argument("pool", shell_complete=pool_names)
@click.argument("engines", required=False, type=size, metavar="[N|MIN..MAX]")
@click.option("--reset", is_flag=True, help="Go back to the numbers of the configuration.")
@asks_hub
def scale(where: Where, as_json: bool, pool: str, engines: int | tuple[int, int] | None, reset: bool) -> None:
    """Change how many engines a pool may have: a fixed number, or a range within which the tasks decide.

    A number is rounded up to whole blocks. A pool gives back surplus engines only when they are idle. The numbers hold
    for the next hub, too, if it has --restore or --reuse.
    """
    from .session import ask

    if (engines is None) != reset:
        raise click.UsageError("give either a number of engines (N or MIN..MAX) or --reset")

    async def question(client: Client) -> tuple[int, int]:
        if isinstance(engines, tuple):
            return await client.scale_pool(pool, min=engines[0], max=engines[1])
        return await client.scale_pool(pool, engines)

    least, most = ask(where, question)
    if as_json:
        print_json({"pool": pool, "min": least, "max": most})
    else:
        click.echo(f"pool {one_line(pool)} has {in_words(least, most)} from now on")


def one_of(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the pool of a name. Raises `CommandFailed`."""
    from .session import CommandFailed

    for pool in found:
        if pool["name"] == name:
            return pool
    names = ", ".join(pool["name"] for pool in found) or "none"
    raise CommandFailed(f"there is no pool {name!r} (pools: {names})")


def dated(pool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pool with dates in place of seconds since 1970, as in the JSON of all commands."""
    blocks = [block | {"asked": date(block["asked"]), "started": date(block["started"])} for block in pool["blocks"]]
    return dict(pool) | {"paused_until": date(pool["paused_until"]), "blocks": blocks}


def state_of(pool: Mapping[str, Any]) -> str:
    """Return what a pool does, in a word."""
    if pool["is_stopped"]:
        return "stopped"
    if pool["paused_until"] is not None or pool["grow"]["word"] == "probing":
        return "paused"
    if pool["grow"]["word"] == "grows":
        return "growing"
    return "shrinking" if pool["shrink"]["word"] in ("shrinks", "draining") else "steady"


def in_words(least: int, most: int) -> str:
    """Return a number of engines, or a range: "4 engines", "0 to 8 engines"."""
    engines = "1 engine" if most == 1 else f"{count(most)} engines"
    return engines if least == most else f"{count(least)} to {engines}"


def in_range(least: int, most: int) -> str:
    """Return a number of engines, or a range as `scale` takes it, such as ``0..8``."""
    return count(most) if least == most else f"{count(least)}..{count(most)}"


def reasons(pool: Mapping[str, Any]) -> str:
    """Return why a pool does not grow; and, if it has engines, why it does not shrink.

    The texts are sentences without their subject, which is the pool, such as "has no queued tasks".
    """
    texts = [pool["grow"]["text"], *([pool["shrink"]["text"]] if pool["there"] else [])]
    return "; ".join(text.strip().rstrip(".") for text in texts)


def show_pools(found: list[dict[str, Any]]) -> None:
    from rich.text import Text

    with_cost = any(pool["cost"] != 1 for pool in found)
    numbers = ["SIZE", "WANTED", "ASKED", "COMING", "THERE", "IDLE", "HOURS", *(["COST"] if with_cost else [])]
    rows: list[list[str | Text]] = []
    for pool in found:
        state, hours = state_of(pool), pool["engine_seconds"] / HOUR
        rows.append(
            [
                pool["name"],
                Text(state, STYLES[state]),
                in_range(pool["min"], pool["max"]),
                *(count(pool[key]) for key in ("wanted", "asked", "coming", "there", "idle")),
                f"{hours:,.2f}",
                *([f"{hours * pool['cost']:,.2f}"] if with_cost else []),
                reasons(pool),
            ]
        )
    out = console()
    for line in columns(["POOL", "STATE", *numbers, "WHY"], rows, right=numbers):
        out.print(line)


def show_pool(pool: dict[str, Any]) -> None:
    hours = pool["engine_seconds"] / HOUR
    size = in_words(pool["min"], pool["max"])
    if (pool["min"], pool["max"]) != (pool["configured_min"], pool["configured_max"]):
        size += f" (configured: {in_words(pool['configured_min'], pool['configured_max'])})"
    cost = "" if pool["cost"] == 1 else f", which cost {hours * pool['cost']:,.2f}"
    failures = "none in a row"
    if pool["failures"]:
        failures = f"{count(pool['failures'])} in a row" + (f": {pool['failed_words']}" if pool["failed_words"] else "")
    facts = [
        ("state", state_of(pool)),
        ("launcher", f"{pool['launcher']}, {count(pool['engines_per_block'])} per block"),
        ("size", size),
        (
            "engines",
            f"{count(pool['wanted'])} wanted, {count(pool['asked'])} asked for, {count(pool['coming'])} coming, "
            f"{count(pool['there'])} there, {count(pool['idle'])} idle, {count(pool['draining'])} drained",
        ),
        ("used", f"{hours:,.2f} engine-hours{cost}"),
        ("growing", pool["grow"]["text"]),
        ("shrinking", pool["shrink"]["text"]),
        ("failures", failures),
        *([("paused", f"until {clock(date(pool['paused_until']))}")] if pool["paused_until"] is not None else []),
        *([("unanswered", pool["unanswered"])] if pool["unanswered"] else []),
        ("blocks", ", ".join(f"{count(pool['counts'][outcome])} {outcome}" for outcome in OUTCOMES)),
    ]
    out = console()
    for name, value in facts:
        out.print(f"{name:<10}  {one_line(value)}")
    if not pool["blocks"]:
        return
    out.print()
    rows = [
        [
            block["block"],
            block["state"],
            block["job"] or "-",
            f"{count(block['arrived'])}/{count(block['engines'])}",
            clock(date(block["asked"])),
            clock(date(block["started"])),
            block["words"] or "-",
        ]
        for block in sorted(pool["blocks"], key=lambda block: block["asked"])
    ]
    for line in columns(["BLOCK", "STATE", "JOB", "CAME", "ASKED", "STARTED", "SYSTEM SAYS"], rows, right=("CAME",)):
        out.print(line)
