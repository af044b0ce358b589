"""Connect a command to its hub, and turn failures into messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, TypeVar

import click
import trio

from ...client import Client, connect
from ...client.finding import connection_file_path
from ...errors import ConfigError, ConnectionFileError, HubError, HubLostError
from .. import codes
from .options import Where
from .output import one_line

__all__ = ["CommandFailed", "ask", "ask_trio_hub", "complain", "connected", "file_of"]

T = TypeVar("T")

LOST_AFTER = 20.0
"""Seconds without an answer from a connected hub after which a command gives up."""


class CommandFailed(Exception):
    """A command fails. Has the message for the user and the exit code."""

    def __init__(self, message: str, code: int = codes.FAILED) -> None:
        super().__init__(message)
        self.code = code


def file_of(where: Where) -> str:
    """Return the path of the connection file that the options choose. Raises `ConfigError`."""
    path = connection_file_path(where.profile, where.profile_dir, where.cluster_id, where.connection_file, os.environ)
    return str(path)


def connected(where: Where, *, lost_after: float) -> AbstractAsyncContextManager[Client]:
    """Connect to the hub that the options choose, for the length of the block. The errors are those of `connect`."""
    return connect(
        profile=where.profile,
        profile_dir=where.profile_dir,
        cluster_id=where.cluster_id,
        connection_file=where.connection_file,
        answer_within=where.answer_within,
        lost_after=lost_after,
    )


def ask(where: Where, question: Callable[[Client], Awaitable[T]], *, lost_after: float = LOST_AFTER) -> T:
    """Call a function with a client of the hub, and return its result.

    A failure ends the process with one line on stderr and one of `codes`.
    """

    async def answered() -> T:
        async with connected(where, lost_after=lost_after) as client:
            return await question(client)

    try:
        return trio.run(answered)
    except KeyboardInterrupt:
        sys.exit(codes.after_signal(signal.SIGINT))
    except CommandFailed as failure:
        _fail(str(failure), failure.code)
    except ConfigError as error:
        _fail(str(error), codes.BAD_USAGE)
    except ConnectionFileError as error:
        remedy = "Start a hub with `trio-hub serve`, or choose one with --profile, --cluster-id or --connection-file."
        _fail(f"{error} {remedy}", codes.NO_HUB)
    except HubLostError as error:
        _fail(str(error), codes.NO_HUB)
    except HubError as error:
        _fail(str(error), codes.FAILED)


async def ask_trio_hub(client: Client, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
    """Send a query that only a trio-hub answers, and return the content of the reply without its status.

    Raises:
        CommandFailed: The hub is an ipcontroller.
    """
    if client.kind != "trio-hub":
        raise CommandFailed("the hub is an ipcontroller, which does not know this command: start a hub with trio-hub")
    return await client.query(msg_type, content)


def complain(message: str) -> None:
    """Print a message as one line, without control characters, on stderr."""
    click.echo(f"trio-hub: {one_line(' '.join(message.split()))}", err=True)


def _fail(message: str, code: int) -> NoReturn:
    complain(message)
    sys.exit(code)
