"""`connect`: a client for the length of a block."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypedDict, Unpack

import trio
import zmq

from ..config.connectionfiles import read_connection_file
from ..errors import ConfigError, HubLostError
from ..transport.blocks import serving
from .client import Client
from .finding import HubAddress, address_in, connection_file_path
from .hubconnection import HubConnection
from .keeping import keep, learn_engines
from .notifying import Engines

__all__ = ["Where", "connect", "open_link"]

LINGER = 1000
"""Milliseconds that what was sent last has to leave, when the client is closed."""


@asynccontextmanager
async def connect(
    *,
    profile: str | None = None,
    profile_dir: str | os.PathLike[str] | None = None,
    cluster_id: str = "",
    connection_file: str | os.PathLike[str] | None = None,
    connection_info: Mapping[str, Any] | None = None,
    curve_keys: tuple[str, str] | None = None,
    answer_within: float = 10.0,
    lost_after: float = 60.0,
) -> AsyncGenerator[Client, None]:
    """A client of a running hub, for the length of the block.

    ::

        async with trio_hub.connect(profile="default") as client:
            print(await client.apply(pow, 2, 10))

    It works for any hub of IPython Parallel, which it finds as stock clients do: ``PROFILE_DIR/security`` has the
    connection file ``ipcontroller[-CLUSTER_ID]-client.json``. Connections that break are made again, for as long as
    the block lasts.

    Args:
        profile: the IPython profile, by name; ``"default"`` unless something else says where the hub is.
        profile_dir: its directory.
        cluster_id: of the hub, where a profile has several.
        connection_file: the file itself.
        connection_info: its content, such as `RunningHub.client_info` of a hub in the same program.
        curve_keys: the client's public and secret CURVE key, for a hub that knows its clients; fresh ones by default.
        answer_within: seconds that the hub has to answer for the first time.
        lost_after: seconds without an answer after which the hub counts as lost, and nobody waits for it any more.

    Raises:
        ConnectionFileError: there is no connection file, or it cannot be used.
        ConfigError: the arguments contradict each other, or name what is not known.
        HubLostError: the hub does not answer.
    """
    context: zmq.Context[zmq.Socket[Any]] = zmq.Context()
    try:
        async with open_link(
            context,
            profile=profile,
            profile_dir=profile_dir,
            cluster_id=cluster_id,
            connection_file=connection_file,
            connection_info=connection_info,
            curve_keys=curve_keys,
            answer_within=answer_within,
            lost_after=lost_after,
        ) as (link, engines):
            yield Client(link, engines)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(context.term)  # waits for what lingers, so not here


class Where(TypedDict):
    """The arguments of `connect`."""

    profile: str | None
    profile_dir: str | os.PathLike[str] | None
    cluster_id: str
    connection_file: str | os.PathLike[str] | None
    connection_info: Mapping[str, Any] | None
    curve_keys: tuple[str, str] | None
    answer_within: float
    lost_after: float


@asynccontextmanager
async def open_link(
    context: zmq.Context[zmq.Socket[Any]], **where: Unpack[Where]
) -> AsyncGenerator[tuple[HubConnection, Engines], None]:
    """A link to a running hub, and the engines that the hub has, for the length of the block.

    Args:
        context: for the sockets. The caller terminates it afterwards, which waits for messages that still leave.
        where: as of `connect`, and so are the errors.
    """
    answer_within, lost_after = where["answer_within"], where["lost_after"]
    address = await _address(where)
    engines = Engines()
    link = None
    try:
        async with serving() as nursery:
            # its identity is the same on all sockets, and for as long as it lives: a hub that comes back knows it
            link = HubConnection(address, context, secrets.token_hex(16))
            link.published = engines.publish_untrusted
            link.open(lost_after)
            nursery.start_soon(link.run, name="client: receive")
            with trio.move_on_after(answer_within) as scope:
                await learn_engines(link, engines)
            if scope.cancelled_caught:
                raise HubLostError(
                    f"no answer from {address.url('registration')} within {answer_within:g} s: is the hub of "
                    f"{address.source} still running, and is its key the one in that file?"
                )
            nursery.start_soon(keep, link, engines, lost_after, name="client: keep")
            yield link, engines
    finally:
        engines.close()
        if link is not None:
            link.close(LINGER)


async def _address(where: Where) -> HubAddress:
    """Return the hub's address. Raises `ConnectionFileError` and `ConfigError`."""
    for name, seconds in (("answer_within", where["answer_within"]), ("lost_after", where["lost_after"])):
        if not 0 < seconds < 1e6:
            raise ConfigError(f"{name} is {seconds!r}: it has to be a positive number of seconds, below 1,000,000")
    profile, profile_dir, cluster_id = where["profile"], where["profile_dir"], where["cluster_id"]
    connection_file, connection_info = where["connection_file"], where["connection_info"]
    if connection_info is None:
        path = connection_file_path(profile, profile_dir, cluster_id, connection_file, os.environ)
        return await address_in(read_connection_file(path), str(path), where["curve_keys"])
    if profile is not None or profile_dir is not None or connection_file is not None or cluster_id:
        raise ConfigError("connection_info says all: leave out profile, profile_dir, cluster_id and connection_file")
    return await address_in(dict(connection_info), "connection_info", where["curve_keys"])
