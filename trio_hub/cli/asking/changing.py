"""``trio-hub abort``, ``resubmit``, ``purge`` and ``shutdown``: commands that change something."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from .. import codes
from . import options
from .options import Where, asks_hub, example
from .output import console, count, print_json, progress

if TYPE_CHECKING:
    from ...client import Client

__all__ = ["abort", "purge", "resubmit", "shutdown"]

AT_A_TIME = 500
"""The maximum number of requests in one message to the hub."""

yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask first.")


def confirm(question: str, yes: bool) -> None:
    """Ask the user for confirmation unless `yes`. Asks on stderr, so that stdout contains only the answer."""
    if not yes:
        click.confirm(question, abort=True, err=True)


def in_parts(msg_ids: Sequence[str]) -> list[Sequence[str]]:
    return [msg_ids[start : start + AT_A_TIME] for start in range(0, len(msg_ids), AT_A_TIME)]


def requests(number: int) -> str:
    return "1 request" if number == 1 else f"{count(number)} requests"


@click.command("abort", epilog=example("trio-hub abort 2f6c1d9e-0b7a_4711_12"))
@click.argument("msg_ids", nargs=-1, required=True, metavar="MSG_ID...")
@asks_hub
def abort(where: Where, as_json: bool, msg_ids: tuple[str, ...]) -> None:
    """Abort requests, of any client. Requests that an engine has started continue.

    The client of an aborted request gets an error. Exits with 1 if a request is unknown or has finished already.
    """
    from .session import ask

    async def question(client: Client) -> dict[str, Any]:
        wanted = list(dict.fromkeys(msg_ids))
        records: list[dict[str, Any]] = []
        for part in in_parts(wanted):
            records += await client.db_query({"msg_id": {"$in": list(part)}}, ["completed"])
        completed = {record["msg_id"]: record["completed"] is not None for record in records}
        told = [msg_id for msg_id in wanted if completed.get(msg_id) is False]
        for part in in_parts(told):
            await client.abort(list(part))
        finished = [msg_id for msg_id in wanted if completed.get(msg_id)]
        return {"told": told, "finished": finished, "unknown": [msg_id for msg_id in wanted if msg_id not in completed]}

    answer = ask(where, question)
    if as_json:
        print_json(answer)
    else:
        meaning = {
            "told": "was aborted, if it had not started",
            "finished": "has finished already",
            "unknown": "is unknown to the hub",
        }
        for name, what in meaning.items():
            for msg_id in answer[name]:
                click.echo(f"{msg_id} {what}")
    sys.exit(codes.FAILED if answer["finished"] or answer["unknown"] else codes.OK)


@click.command("resubmit", epilog=example("trio-hub resubmit 2f6c1d9e-0b7a_4711_12"))
@click.argument("msg_ids", nargs=-1, required=True, metavar="MSG_ID...")
@asks_hub
def resubmit(where: Where, as_json: bool, msg_ids: tuple[str, ...]) -> None:
    """Run requests again, as new tasks, and print their new msg_ids.

    If the hub has no record of one of them, none of them is run.
    """
    from .session import ask

    async def question(client: Client) -> dict[str, str]:
        return await client.resubmit(list(msg_ids))

    resubmitted = ask(where, question)
    if as_json:
        print_json({"resubmitted": resubmitted})
    else:
        for old, new in resubmitted.items():
            click.echo(f"{old} was resubmitted as {new}")


@click.command(
    "purge",
    epilog=example(
        "trio-hub purge 2f6c1d9e-0b7a_4711_12",
        "trio-hub purge --older-than 30d --yes",
        'trio-hub purge --query \'{"label": "trial"}\'',
    ),
)
@click.argument("msg_ids", nargs=-1, metavar="[MSG_ID]...")
@click.option("--query", type=options.query, metavar="JSON", help="Purge the requests that match a query, see `tasks`.")
@click.option(
    "--older-than",
    type=options.duration,
    metavar="TIME",
    help="Purge the requests that finished longer ago than this, such as 30d.",
)
@click.option("--all", "everything", is_flag=True, help="Purge all finished requests.")
@yes_option
@asks_hub
def purge(
    where: Where,
    as_json: bool,
    msg_ids: tuple[str, ...],
    query: dict[str, Any] | None,
    older_than: float | None,
    everything: bool,
    yes: bool,
) -> None:
    """Delete the records of finished requests, including their results.

    Unfinished requests stay. The command asks for confirmation unless --yes is given.
    """
    from .session import ask

    if sum([bool(msg_ids), query is not None, older_than is not None, everything]) != 1:
        raise click.UsageError("give exactly one of MSG_IDs, --query, --older-than and --all")
    if everything:
        confirm("Purge all finished requests?", yes)

        async def purge_all(client: Client) -> None:
            await client.purge()

        ask(where, purge_all)
        _tell_purged(None, as_json)
        return
    chosen = list(msg_ids)
    if not chosen:
        condition = dict(query or {})
        if older_than is not None:
            before = datetime.now(UTC) - timedelta(seconds=older_than)
            condition["completed"] = {"$ne": None, "$lt": before.isoformat()}

        async def find(client: Client) -> list[str]:
            found = await client.db_query(condition, ["completed"])
            return [record["msg_id"] for record in found if record["completed"] is not None]

        chosen = ask(where, find)
        if not chosen:
            _tell_purged(0, as_json)
            return
    confirm(f"Purge {requests(len(chosen))}?", yes)

    async def purge_chosen(client: Client) -> None:
        with progress() as bars:
            bar = bars.add_task("purged", total=len(chosen))
            for part in in_parts(chosen):
                await client.purge(list(part))
                bars.update(bar, advance=len(part), refresh=True)

    ask(where, purge_chosen)
    _tell_purged(len(chosen), as_json)


def _tell_purged(number: int | None, as_json: bool) -> None:
    if as_json:
        print_json({"purged": number})
    else:
        click.echo("purged all finished requests" if number is None else f"purged {requests(number)}")


@click.command(
    "shutdown", epilog=example("trio-hub shutdown --engine 3", "trio-hub shutdown --engines", "trio-hub shutdown --hub")
)
@click.option(
    "--engine", "some", multiple=True, metavar="ID", help="Stop the engine with this id or uuid; may be repeated."
)
@click.option("--engines", "every", is_flag=True, help="Stop all engines.")
@click.option("--hub", is_flag=True, help="Stop all engines, and then the hub.")
@yes_option
@asks_hub
def shutdown(where: Where, as_json: bool, some: tuple[str, ...], every: bool, hub: bool, yes: bool) -> None:
    """Stop engines, or all engines and the hub.

    The command asks for confirmation unless --yes is given. A local engine (trio-hub serve --engines) that was stopped
    in this way is not started again.
    """
    from .session import ask

    if bool(some) + (every or hub) != 1:
        raise click.UsageError("give --engine ID, --engines or --hub")
    targets = list(map(options.engine_name, some)) or None

    async def there(client: Client) -> int:
        return len(client.engines)

    if not yes:
        engines = f"engine {', '.join(some)}" if some else f"all {ask(where, there)} engines"
        confirm(f"Stop {engines}{' and the hub' if hub else ''}?", yes)

    async def stop(client: Client) -> int:
        number = len(client.engines) if targets is None else len(set(targets))
        await client.shutdown(targets, hub=hub)
        return number

    stopped = ask(where, stop)
    if as_json:
        print_json({"engines": stopped, "hub": hub})
    else:
        out = console()
        out.print(f"told {'1 engine' if stopped == 1 else f'{stopped} engines'}{' and the hub' if hub else ''} to stop")
