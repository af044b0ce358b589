"""``trio-hub explain`` and ``trio-hub tag``: which engine a task may get, and what engines offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...schedulers.explaining import said
from .options import Where, asks_hub, engine_name, example
from .output import columns, console, one_line, print_json
from .policies import pairs
from .records import rule_lines

if TYPE_CHECKING:
    from ...client import Client

__all__ = ["explain", "tag"]


@click.command("explain", epilog=example("trio-hub explain 2f6c1d9e-0b7a_4711_12"))
@click.argument("msg_id")
@asks_hub
def explain(where: Where, as_json: bool, msg_id: str) -> None:
    """Say for each engine whether it could run a task now, and if not, why.

    Also says why the task waits, and the rules that apply to it. Tasks that have finished cannot be explained.
    """
    from .session import ask, ask_trio_hub

    async def question(client: Client) -> dict[str, Any]:
        return await ask_trio_hub(client, "explain_request", {"msg_id": msg_id})

    found = ask(where, question)
    if as_json:
        print_json(found)
    else:
        show_explanation(found)


def show_explanation(found: dict[str, Any]) -> None:
    from rich.text import Text

    out = console()
    for name, value in (("state", found["state"]), ("why", found["why"]), *rule_lines(found)):
        if value is not None:
            out.print(f"{name:<10}  {one_line(value)}")
    if not found["engines"]:
        return
    rows = [
        [
            "-" if each["id"] is None else str(each["id"]),
            Text("yes", "green") if each["may"] else Text("no", "yellow"),
            each["text"],
            each["uuid"],
        ]
        for each in found["engines"]
    ]
    out.print()
    for line in columns(["ENGINE", "NOW", "WHY", "UUID"], rows, right=("ENGINE",)):
        out.print(line)


@click.command(
    "tag", epilog=example("trio-hub tag 3 gpu=1 site=a", "trio-hub tag 3 --remove site", "trio-hub tag 3 memory=32G")
)
@click.argument("engine")
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", multiple=True, metavar="KEY", help="Remove this tag or amount; may be repeated.")
@asks_hub
def tag(where: Where, as_json: bool, engine: str, tags: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Set tags and amounts of an engine (id or uuid), by which tasks with needs find it. Print what it offers then.

    A number, also with a unit, as in memory=32G, is an amount: tasks that run use it up. Any other text is a tag. The
    engine keeps both until it ends.
    """
    from .session import ask, ask_trio_hub

    content = {"engine": engine_name(engine), "tags": pairs(tags), "remove": list(remove)}

    async def question(client: Client) -> dict[str, Any]:
        return await ask_trio_hub(client, "tag_request", content)

    found = ask(where, question)
    if as_json:
        print_json({"engine": found["engine"], "offers": found["offers"]})
    else:
        click.echo(f"engine {found['engine']} offers {one_line(said(found['offers'].items())) or 'nothing'}")
