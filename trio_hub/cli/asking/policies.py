"""``trio-hub policy``: the policies of a running hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ...schedulers.policy import CONDITIONS
from . import options
from .options import ListGroup, Where, asks_hub, example
from .output import columns, console, one_line, print_json

if TYPE_CHECKING:
    from ...client import Client

__all__ = ["pairs", "policy"]


@click.group(
    "policy",
    cls=ListGroup,
    epilog=example("trio-hub policy", "trio-hub policy add night --label 'night-*' --priority -5"),
)
def policy() -> None:
    """List, add and remove policies: rules that the hub gives to the tasks that match them.

    Without a command, the policies are listed. A change affects the tasks that are submitted afterwards.
    """


@policy.command("list", epilog=example("trio-hub policy list --json"))
@asks_hub
def list_policies(where: Where, as_json: bool) -> None:
    """List the policies of the hub in the order in which they apply."""
    show(ask_policies(where, {"action": "list"}), as_json)


@policy.command(
    "add",
    epilog=example(
        "trio-hub policy add night --label 'night-*' --priority -5",
        "trio-hub policy add training --function 'train*' --needs gpu=1 --needs memory=32G --max-runtime 2h",
        'trio-hub policy add tides --label \'{"project": "tides"}\' --max-attempts 3 --retry-on death',
    ),
)
@click.argument("name")
@click.option("--label", metavar="PATTERN", help='Only tasks with this label. For labels that are dicts: {"key": "…"}.')
@click.option("--function", metavar="PATTERN", help="Only tasks that call a function of this name.")
@click.option("--client", metavar="PATTERN", help="Only tasks of the client with this session.")
@click.option("--user", metavar="PATTERN", help="Only tasks of clients of this user, as the clients name it.")
@click.option("--priority", type=int, metavar="N", help="Tasks with a higher number go first; from -1000 to 1000.")
@click.option("--weight", type=float, metavar="X", help="The share of each client among clients with equal priority.")
@click.option("--max-runtime", type=options.duration, metavar="TIME", help="How long one attempt may run, as 2h.")
@click.option("--grace", type=options.duration, metavar="TIME", help="How long an interrupted attempt has to end.")
@click.option("--max-attempts", type=int, metavar="N", help="How often a task is tried, whatever its retries say.")
@click.option(
    "--retry-on",
    multiple=True,
    metavar="NAME",
    help="What a task is repeated after: the name of an exception, death or all; may be repeated.",
)
@click.option("--retry-pause", type=options.duration, metavar="TIME", help="The pause before the second attempt.")
@click.option("--max-deaths", type=int, metavar="N", help="A task that was lost with N engines gets no further engine.")
@click.option(
    "--needs", multiple=True, metavar="KEY=VALUE", help="What an engine must have, as gpu=1 or site=a; may be repeated."
)
@click.option(
    "--on-cancel",
    type=click.Choice(["interrupt", "withdraw"]),
    help="Whether a task that runs is interrupted when its client cancels it.",
)
@asks_hub
def add(where: Where, as_json: bool, name: str, label: str | None, needs: tuple[str, ...], **given: Any) -> None:
    """Add a policy in front of all others, or replace the policy of this name. Print all policies.

    A policy applies to the tasks that match all its conditions (--label, --function, --client, --user). In a PATTERN, *
    stands for any text. The policy stays until it is removed, also if the hub is started again with --restore.
    """
    table = {key: value for key, value in given.items() if value not in (None, ())}
    table |= {"name": name} | ({"label": label_in(label)} if label is not None else {})
    if "retry_on" in table:
        table["retry_on"] = list(table["retry_on"])
    if needs:
        table["needs"] = pairs(needs)
    show(ask_policies(where, {"action": "add", "policy": table}), as_json)


@policy.command("remove", epilog=example("trio-hub policy remove night"))
@click.argument("name")
@asks_hub
def remove(where: Where, as_json: bool, name: str) -> None:
    """Remove a policy, and print the others.

    A policy of the configuration comes back when the hub is started again.
    """
    show(ask_policies(where, {"action": "remove", "name": name}), as_json)


def ask_policies(where: Where, content: dict[str, Any]) -> list[dict[str, Any]]:
    """Send a ``policy_request`` to the hub, and return all policies."""
    from .session import ask, ask_trio_hub

    async def question(client: Client) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await ask_trio_hub(client, "policy_request", content))["policies"]
        return found

    return ask(where, question)


def label_in(text: str) -> Any:
    """Return the condition on labels: a pattern, or a dict if the text is a JSON object. Raises `BadParameter`."""
    if not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(
            f"it is not JSON ({error}): give a pattern, or an object", param_hint="--label"
        ) from None


def pairs(words: Sequence[str]) -> dict[str, str | bool]:
    """Return the amounts and tags in words such as ``gpu=1`` and ``site=a``; a name alone stands for 1."""
    found: dict[str, str | bool] = {}
    for word in words:
        name, mark, value = word.partition("=")
        if not name or (mark and not value):
            raise click.BadParameter(f"{word!r} is not KEY=VALUE: write it as gpu=1 or site=a")
        found[name] = value if mark else True
    return found


def show(policies: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"policies": policies})
    elif not policies:
        console(stderr=True).print("no policies")
    else:
        from .records import shortest

        rows = []
        for each in policies:
            rules = {key: value for key, value in each.items() if key not in ("name", "source", *CONDITIONS)}
            conditions = [f"{key}={one_line(each[key])}" for key in CONDITIONS if key in each]
            told = [f"{key}={one_line(shortest(value))}" for key, value in rules.items()]
            rows.append([each["name"], " ".join(conditions) or "all tasks", " ".join(told), each["source"]])
        out = console()
        for line in columns(["NAME", "MATCHES", "RULES", "SOURCE"], rows):
            out.print(line)
