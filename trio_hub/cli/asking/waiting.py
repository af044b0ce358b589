"""``trio-hub result`` and ``trio-hub wait``: commands that wait for something."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from .. import codes
from . import options
from .options import Where, asks_hub, example
from .output import clean, console, count, print_json, progress

if TYPE_CHECKING:
    from rich.progress import Progress

    from ...client import Client
    from ...errors import RemoteError

__all__ = ["LOST_AFTER", "TIMEOUT_HELP", "result", "wait", "within"]

Answer: TypeAlias = dict[str, Any]
"""The answer of a command, in the form of its JSON."""

TIMEOUT_HELP = "Give up after this time, such as 90 or 5m, with exit code 4.  [default: never]"
LOST_AFTER = 60.0
"""Seconds that the hub may be away while a command waits. This is long enough to restart a hub."""
AT_A_TIME = 500
"""The maximum number of requests in one query."""
IDLE_TWICE = 2
"""How often in a row the cluster must be idle, since a task on its way between two queues is in neither of them."""


@click.command(
    "result",
    epilog=example("trio-hub result 2f6c1d9e-0b7a_4711_12", "trio-hub result 2f6c1d9e-0b7a_4711_12 --output out.pkl"),
)
@click.argument("msg_id")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the pickled value to a file, and do not unpickle it. Large buffers, which the engine sends separately, "
    "are written to FILE.1, FILE.2 and so on.",
)
@click.option("--timeout", type=options.duration, metavar="TIME", help=TIMEOUT_HELP)
@asks_hub
def result(where: Where, as_json: bool, msg_id: str, output: Path | None, timeout: float | None) -> None:
    """Wait for a request, of any client, and print its value.

    The value comes from the cluster as a pickle, and unpickling runs the code in it. Use this command only with
    clusters that you trust, or use --output.
    """
    from ...errors import RemoteError
    from .session import ask, complain

    async def question(client: Client) -> Answer:
        return await within(timeout, f"{msg_id} has not finished", lambda: fetch(client, msg_id, output))

    async def told(client: Client) -> Answer:
        try:
            return await question(client)
        except RemoteError as error:
            if not is_outcome(error):
                raise
            return {"msg_id": msg_id, "status": "error"} | error_of(error)

    answer = ask(where, told, lost_after=LOST_AFTER)
    error = answer.get("error")
    if as_json:
        print_json(answer)
    elif error is not None:
        if error["traceback"]:
            from rich.text import Text

            console(stderr=True).print(Text.from_ansi(clean(error["traceback"])))
        at = "" if error["engine"] is None else f" (engine {error['engine']})"
        complain(f"{error['ename']}: {error['evalue']}{at}")
    elif output is None:
        click.echo(clean(answer["value"]) if sys.stdout.isatty() else answer["value"])
    sys.exit(codes.OK if error is None else codes.FAILED)


def is_outcome(error: RemoteError) -> bool:
    """Return whether an error is the outcome of the request, and not the hub's answer that the request is unknown."""
    return not (error.engine is None and error.ename == "KeyError" and "No such message" in error.evalue)


def error_of(error: RemoteError) -> Answer:
    names = ("ename", "evalue", "traceback", "engine")
    return {"error": {name: getattr(error, name) for name in names}}


async def fetch(client: Client, msg_id: str, output: Path | None) -> Answer:
    """Wait for a request, and return what `result` prints if it has succeeded, in the form of its JSON."""
    packed = await client.packed_result(msg_id)
    told: dict[str, Any] = {"msg_id": msg_id, "status": "ok"}
    if output is not None:
        return told | {"files": [str(path) for path in write_buffers(output, packed.buffers)]}
    if packed.buffers:
        return told | {"value": repr(packed.value())}
    # code that was executed, not a function that was called: the value is the displayed result
    (record,) = await client.db_query({"msg_id": {"$eq": msg_id}}, ["execute_result"])
    data = (record["execute_result"] or {}).get("data") or {}
    return told | {"value": str(data.get("text/plain", ""))}


def write_buffers(output: Path, buffers: list[Any]) -> list[Path]:
    """Write each buffer to a file. The first file has the given path. Raises `CommandFailed`."""
    from .session import CommandFailed

    paths = [output, *(output.with_name(f"{output.name}.{number}") for number in range(1, len(buffers)))]
    try:
        for path, data in zip(paths, buffers or [b""], strict=True):
            path.write_bytes(data)
    except OSError as error:
        raise CommandFailed(f"{error.filename} cannot be written: {error.strerror}") from error
    return paths


@click.command(
    "wait",
    epilog=example(
        "trio-hub wait --engines 16 --timeout 5m",
        "trio-hub wait 2f6c1d9e-0b7a_4711_12 2f6c1d9e-0b7a_4711_13",
        "trio-hub wait",
    ),
)
@click.argument("msg_ids", nargs=-1, metavar="[MSG_ID]...")
@click.option("--engines", type=click.IntRange(1), metavar="N", help="Wait until there are at least N engines.")
@click.option("--timeout", type=options.duration, metavar="TIME", help=TIMEOUT_HELP)
@asks_hub
def wait(where: Where, as_json: bool, msg_ids: tuple[str, ...], engines: int | None, timeout: float | None) -> None:
    """Wait for requests to finish, for engines to register, or until the cluster is idle.

    Without MSG_ID and --engines, it waits until no request is queued or running. An ipcontroller without
    engines does not report its queue, so the command waits until an engine is registered.

    Exits with 1 if one of the requests has failed.
    """
    from .session import ask

    if msg_ids and engines is not None:
        raise click.UsageError("give --engines, or the MSG_IDs of requests, but not both")

    async def question(client: Client) -> Answer:
        with progress() as bars:
            if engines is not None:
                number = engines
                what = f"fewer than {number} engines are registered"
                return await within(timeout, what, lambda: engines_joined(client, number, bars))
            if msg_ids:
                what = "not all requests have finished"
                return await within(timeout, what, lambda: all_finished(client, list(msg_ids), bars))
            return await within(timeout, "the cluster is still busy", lambda: idle(client, bars))

    answer = ask(where, question, lost_after=LOST_AFTER)
    if as_json:
        print_json(answer)
    else:
        for msg_id in answer.get("failed") or ():
            click.echo(f"{msg_id} has failed")
    sys.exit(codes.FAILED if answer.get("failed") else codes.OK)


async def within(seconds: float | None, what: str, wait: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return the result of `wait`. Raise `CommandFailed` if `wait` takes longer than a limit.

    Args:
        seconds: the limit, in seconds. None: no limit.
        what: the present state, for the message of the error, such as "the cluster is still busy".
        wait: the function to call.
    """
    import trio

    from .session import CommandFailed

    with trio.move_on_after(float("inf") if seconds is None else seconds):
        return await wait()
    raise CommandFailed(f"timed out after {seconds:g} s: {what}", codes.TIMED_OUT)


async def engines_joined(client: Client, number: int, bars: Progress) -> Answer:
    bar = bars.add_task("engines", total=number)
    async with aclosing(client.notifications()) as happened:
        while len(client.engines) < number:
            await anext(happened)
            bars.update(bar, completed=len(client.engines), refresh=True)
    return {"engines": len(client.engines)}


async def all_finished(client: Client, msg_ids: list[str], bars: Progress) -> Answer:
    import trio

    from ...errors import RemoteError
    from .records import state_of

    bar = bars.add_task("finished", total=len(msg_ids))
    left = list(dict.fromkeys(msg_ids))
    pause = 0.05
    while True:
        left = [
            msg_id
            for start in range(0, len(left), AT_A_TIME)
            for msg_id in await client.pending(left[start : start + AT_A_TIME])
        ]
        bars.update(bar, completed=len(msg_ids) - len(left), refresh=True)
        if not left:
            break
        await trio.sleep(pause)  # the protocol has no notification for this
        pause = min(2 * pause, 2.0)
    failed = []
    for start in range(0, len(msg_ids), AT_A_TIME):
        chosen = {"msg_id": {"$in": msg_ids[start : start + AT_A_TIME]}}
        try:
            records = await client.db_query(chosen, ["completed", "engine_uuid", "result_content"])
        except RemoteError:  # a hub without records does not know the outcomes
            return {"finished": len(set(msg_ids)), "failed": None}
        failed += [record["msg_id"] for record in records if state_of(record) != "ok"]
    return {"finished": len(set(msg_ids)), "failed": failed}


async def idle(client: Client, bars: Progress) -> Answer:
    import trio

    from .records import load_of

    bar = bars.add_task("unfinished", total=None)
    pause, seen = 0.1, 0
    while True:
        load = await load_of(client)
        left = (load.unassigned or 0) + load.tasks + load.direct
        seen = seen + 1 if load.unassigned is not None and not left else 0
        if seen == IDLE_TWICE:
            return {"idle": True, "completed": load.completed}
        bars.update(
            bar, description=f"unfinished: {count(left if load.unassigned is not None else None)}", refresh=True
        )
        await trio.sleep(pause)
        pause = 0.1 if seen else min(2 * pause, 1.0)
