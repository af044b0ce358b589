"""``trio-hub tail``: print the output of one request, as it comes."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from .. import codes
from . import options
from .options import Where, asks_hub, example
from .output import clean, one_line, print_json
from .waiting import LOST_AFTER, TIMEOUT_HELP, within

if TYPE_CHECKING:
    from ...client import Client

__all__ = ["Cleaner", "tail"]

PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two queries for the output: at first, and after a time without output."""
SHARE = 20
"""The pause between two queries is at least this many times as long as the hub took to answer the last query.

Each answer has the whole output so far, so queries without pauses would keep the hub busy."""
KEYS = ("stdout", "stderr", "completed", "engine_uuid", "result_content")
STREAMS = ("stdout", "stderr")


@click.command(
    "tail",
    epilog=example("trio-hub tail 2f6c1d9e-0b7a_4711_12", "trio-hub tail 2f6c1d9e-0b7a_4711_12 --timeout 5m"),
)
@click.argument("msg_id")
@click.option(
    "--timeout",
    type=options.duration,
    metavar="TIME",
    help=TIMEOUT_HELP,
)
@asks_hub
def tail(where: Where, as_json: bool, msg_id: str, timeout: float | None) -> None:
    """Print what a request, of any client, writes to stdout and stderr, from its beginning, until it has finished.

    The output goes to stdout and stderr of this command. While the request waits, stderr says why. Exits with 1 if the
    request has failed.
    """
    from .records import error_text
    from .session import ask, complain

    printer = Printer(as_json)

    async def question(client: Client) -> dict[str, Any]:
        return await within(timeout, f"{msg_id} has not finished", lambda: follow(client, msg_id, printer))

    row = ask(where, question, lost_after=LOST_AFTER)
    if as_json:
        print_json({"state": row["state"], "error": row["error"]})
    elif row["error"] is not None:
        complain(error_text(row["error"]))
    elif row["state"] != "ok":
        complain(f"the request was {row['state']}")
    sys.exit(codes.OK if row["state"] == "ok" else codes.FAILED)


async def follow(client: Client, msg_id: str, printer: Printer) -> dict[str, Any]:
    """Print the output of a request until it has finished. Return its state and error.

    Raises:
        CommandFailed: The hub has no record of the request.
    """
    import trio

    from .records import failure_of, state_of, tell_states
    from .session import CommandFailed
    from .tasks import why_waiting

    pause = PAUSE
    while True:
        asked = trio.current_time()
        found = await client.db_query({"msg_id": {"$eq": msg_id}}, KEYS)
        took = trio.current_time() - asked
        if not found:
            raise CommandFailed(
                f"the hub has no record of {msg_id}: it is unknown, or its record was dropped or purged"
            )
        (record,) = found
        await tell_states(client, found)
        state = state_of(record)
        more = printer.show(record)
        if record["completed"] is not None:
            return {"state": state, "error": failure_of(record)}
        if not printer.seen:
            printer.remark(await why_waiting(client, {"msg_id": msg_id, "state": state}))
        pause = PAUSE if more else min(2 * pause, LONGEST_PAUSE)
        await trio.sleep(max(pause, SHARE * took))


class Printer:
    """Prints the output of a request, each part once.

    Args:
        as_json: Whether to print JSON, one line per piece of output.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._shown = dict.fromkeys(STREAMS, "")
        self._cleaners = {name: Cleaner(getattr(sys, name).isatty()) for name in STREAMS}
        self._remark: str | None = None

    @property
    def seen(self) -> bool:
        """Whether there was any output."""
        return any(self._shown.values())

    def show(self, record: dict[str, Any]) -> bool:
        """Print the part of the output that is new. Return whether there was any."""
        found = False
        for name in STREAMS:
            text, before = record[name] or "", self._shown[name]
            # If the request runs a second time, on another engine, its output may begin anew.
            new = text[len(before) :] if text.startswith(before) else text
            self._shown[name] = text
            if not new:
                continue
            found = True
            if self._as_json:
                print_json({"stream": name, "text": new})
            else:
                click.echo(self._cleaners[name].clean(new), err=name == "stderr", nl=False, color=True)
        return found

    def remark(self, why: str | None) -> None:
        """Say on stderr why the request waits, unless that was said last."""
        if why is not None and why != self._remark and not self._as_json:
            click.echo(f"trio-hub: not started yet: {one_line(why)}", err=True)
        self._remark = why


class Cleaner:
    """Removes from a text that comes in pieces what `clean` removes.

    Args:
        to_terminal: Whether the text goes to a terminal. All other destinations get it unchanged.
    """

    def __init__(self, to_terminal: bool) -> None:
        self._to_terminal = to_terminal
        self._left = ""

    def clean(self, text: str) -> str:
        """Return the next piece of a text without control characters. Two pieces may share an escape sequence."""
        if not self._to_terminal:
            return text
        text = self._left + text
        begun = _BEGUN.search(text)
        self._left = begun[0] if begun else ""
        return clean(text[: len(text) - len(self._left)])


_BEGUN = re.compile(r"\x1b(\[[0-9;]{0,20}|[ -/]{1,3})?$")
